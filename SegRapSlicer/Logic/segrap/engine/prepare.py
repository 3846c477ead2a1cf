"""From CT arrays to what the network sees: axis order, crop, normalisation, resampling, exactly as nnU-Net does it.

nnU-Net normalises and resamples whole volumes in float64 before the first tile runs. Here slices are made when a tile
asks for them and forgotten behind it; only statistics of the whole image (mean, standard deviation, extremes) are taken
before. The arithmetic is nnU-Net's: normalise first, then resample, then clip to the values that went in. Models of
nnU-Net v1 have it the other way round: resample and clip, then normalise, with statistics of the resampled image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segrap.engine.resampling import AxisMap, Taps, axis_map, resampled_shape, separate_axis, taps
from segrap.engine.tiles import TileGrid, TilePlan
from segrap.errors import InputError, ModelError
from segrap.models.folder import Model
from segrap.models.plans import Normalisation

Check = Callable[[], None]
"""Called often in long work; raises Cancelled to end it."""

SMALLEST_DEVIATION = 1e-8  # nnunetv2's guard against division by zero


def keep_going() -> None:
    """The check of work that nobody wants to cancel."""


@dataclass(frozen=True)
class Frame:
    """How the image arrays, nnU-Net's crop of them and the network's grid lie to each other.

    flipped: the model was trained on RAS arrays, so y and x of our LPS arrays run backwards for it.
    axes: axis i of the network is axes[i] of (z, y, x). All else is in network order.
    box: the crop, after flip and transposition. shape, network_shape: voxels of the crop before and after resampling.
    score_taps: which network voxels each crop voxel is interpolated from, per axis.
    """

    flipped: bool
    axes: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    network_shape: tuple[int, int, int]
    score_taps: tuple[Taps, Taps, Taps]

    def view(self, array: np.ndarray) -> np.ndarray:
        """A (z, y, x) array as the network's axes see it, cropped. A view: writing to it writes to the array."""
        return _turn(array, self.flipped, self.axes)[self.box]


def _turn(array: np.ndarray, flipped: bool, axes: Sequence[int]) -> np.ndarray:
    return (array[:, ::-1, ::-1] if flipped else array).transpose(axes)


def plan_frame(model: Model, images: Sequence[np.ndarray], spacing_zyx: Sequence[float]) -> Frame:
    """Work out crop and grids for images of one (z, y, x) shape at that spacing in mm.

    Raises ModelError when the number of images is not the model's, InputError when they cannot be used.
    """
    if len(images) != len(model.channels):
        raise ModelError(
            f"The model {model.name} reads {len(model.channels)} CT ({', '.join(model.channels)}); {len(images)} given."
        )
    if any(image.ndim != 3 or image.shape != images[0].shape for image in images):
        raise InputError(f"The CTs must be volumes of one size, not {[image.shape for image in images]}.")
    flipped, axes = model.orientation == "RAS", model.transpose_forward
    turned = [_turn(image, flipped, axes) for image in images]
    box = tuple(_nonzero_extent(turned, axis) for axis in range(3))
    shape = tuple(part.stop - part.start for part in box)
    if 0 in shape:
        raise InputError("The CT is 0 everywhere: there is nothing to contour.")
    spacing = tuple(float(spacing_zyx[axis]) for axis in axes)
    network_shape = resampled_shape(shape, spacing, model.spacing_mm)
    if 0 in network_shape:
        raise InputError(f"The CT of {shape} voxels at {spacing} mm is thinner than one voxel of the model.")
    scores = model.score_resampling
    # Which of two thick-sliced grids decides: v2 asks where it comes from first, v1 the image itself.
    grids = (spacing, model.spacing_mm) if model.of_nnunet_v1 else (model.spacing_mm, spacing)
    apart = separate_axis(scores, *grids)
    orders = [scores.order_z if axis == apart else scores.order for axis in range(3)]
    a, b, c = (taps(n, m, order) for n, m, order in zip(network_shape, shape, orders, strict=True))
    return Frame(
        flipped=flipped,
        axes=axes,
        box=(box[0], box[1], box[2]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        shape=(shape[0], shape[1], shape[2]),
        network_shape=network_shape,
        score_taps=(a, b, c),
    )


def _nonzero_extent(images: Sequence[np.ndarray], axis: int) -> slice:
    size = images[0].shape[axis]

    def filled(i: int) -> bool:
        return any(bool(np.take(image, i, axis=axis).any()) for image in images)

    first = next((i for i in range(size) if filled(i)), size)
    last = next((i for i in range(size - 1, first - 1, -1) if filled(i)), first - 1)
    return slice(first, last + 1)


class NetworkInput:
    """The normalised, resampled image on the network's grid, slice by slice on demand.

    images: the model's channels, (z, y, x), any number type, Hounsfield units.
    plan: slices are made only for the window of its tiles. check: called before every slice.
    """

    def __init__(
        self,
        model: Model,
        frame: Frame,
        grid: TileGrid,
        images: Sequence[np.ndarray],
        plan: TilePlan,
        check: Check = keep_going,
    ) -> None:
        self._check = check
        self._views = [frame.view(image) for image in images]
        self._grid = grid
        self._mask = _nonzero_mask(self._views) if any(n.masked for n in model.normalisations) else None
        resampling = model.data_resampling
        apart = separate_axis(resampling, frame.spacing_mm, model.spacing_mm)
        orders = [resampling.order_z if axis == apart else resampling.order for axis in range(3)]
        maps = [axis_map(n, m, order) for n, m, order in zip(frame.shape, frame.network_shape, orders, strict=True)]
        inside = plan.inside(grid)
        self._origin = [part.start + before for part, before in zip(inside, grid.before[1:], strict=True)]
        self._depth_map = maps[0]
        self._before: list[Normaliser] = []  # what is done to planes before they are resampled
        self._after: list[Normaliser] = []  # and after that
        resampled = frame.shape != frame.network_shape
        overshoots = resampling.order > 1 and resampled
        self._clip_each_slice = overshoots and apart == 0
        self._bounds: tuple[np.ndarray, np.ndarray] | None = None

        def moments_of_image(channel: int) -> tuple[float, float]:
            mask = self._mask if model.normalisations[channel].masked else None
            return _moments(self._views[channel], mask, check)

        moments: Callable[[int], tuple[float, float]] = moments_of_image
        if model.of_nnunet_v1:
            self._bounds = self._extremes(apart) if overshoots and apart != 0 else None
            self._use(dict(enumerate(maps)), apart)
            if resampled and any(n.scheme == "ZScoreNormalization" for n in model.normalisations):
                moments = self._resampled_moments().__getitem__
            self._after = [_normaliser(n, moments, c) for c, n in enumerate(model.normalisations)]
        else:
            self._before = [_normaliser(n, moments, c) for c, n in enumerate(model.normalisations)]
            self._bounds = self._extremes(apart) if overshoots and apart != 0 else None
        window = {axis: maps[axis].rows(inside[axis - 1].start, inside[axis - 1].stop) for axis in (1, 2)}
        self._use(window, apart)

    def _use(self, maps: Mapping[int, AxisMap], apart: int | None) -> None:
        """Start over with these maps for the axes 1 and 2."""
        self._early = {axis: maps[axis] for axis in (1, 2) if axis != apart}
        self._late = {axis: maps[axis] for axis in (1, 2) if axis == apart}
        self._plane: dict[int, np.ndarray] = {}
        self._slices: dict[int, np.ndarray] = {}

    def _resampled_moments(self) -> list[tuple[float, float]]:
        """Mean and standard deviation of each channel of the whole image on the network's grid."""
        depth = self._grid.shape[0]
        sums = np.zeros((2, len(self._views)))
        count = 0
        for z in range(depth):
            self._forget(z)
            flat = self._slice(z).reshape(len(self._views), -1).astype(np.float64)
            sums += flat.sum(axis=1), np.square(flat).sum(axis=1)
            count += flat.shape[1]
        means, squares = sums / count
        deviations = np.sqrt(np.maximum(squares - means**2, 0.0))
        return list(zip(means.tolist(), deviations.tolist(), strict=True))

    def patch(self, start: Sequence[int]) -> np.ndarray:
        """(channel, z, y, x) float32 of one patch at a start in the padded grid; padding is 0.

        Starts must not go back along z: slices before the start are forgotten.
        """
        grid = self._grid
        out = np.zeros((len(self._views), *grid.patch), dtype=np.float32)
        z_first = max(start[0] - grid.before[0], 0)
        self._forget(z_first)
        for i in range(grid.patch[0]):
            z = start[0] + i - grid.before[0]
            if not 0 <= z < grid.shape[0]:
                continue
            plane = self._slice(z)
            here, there = [], []
            for axis in (1, 2):
                offset = start[axis] - self._origin[axis - 1]
                low, high = max(offset, 0), min(offset + grid.patch[axis], plane.shape[axis])
                here.append(slice(low - offset, high - offset))
                there.append(slice(low, high))
            out[:, i, here[0], here[1]] = plane[:, there[0], there[1]]
        return out

    def _forget(self, z_first: int) -> None:
        for z in [z for z in self._slices if z < z_first]:
            del self._slices[z]
        if z_first < self._grid.shape[0]:
            oldest = int(self._depth_map.sources(z_first)[0][0])
            for k in [k for k in self._plane if k < oldest]:
                del self._plane[k]

    def _slice(self, z: int) -> np.ndarray:
        if z not in self._slices:
            used, weights = self._depth_map.sources(z)
            made = self._resampled_plane(int(used[0]))
            if len(used) > 1:
                made = made * weights[0]
                for k, weight in zip(used[1:], weights[1:], strict=True):
                    made += self._resampled_plane(int(k)) * weight
            if self._bounds is not None:
                made = np.clip(made, *self._bounds)
            for axis, late in self._late.items():
                made = late.apply(made, axis)
            if self._after:
                made = made.copy()  # it may be a plane that other slices are made of
            for channel, normalise in enumerate(self._after):
                normalise(made[channel], None)
            self._slices[z] = made
        return self._slices[z]

    def _resampled_plane(self, k: int) -> np.ndarray:
        if k not in self._plane:
            plane = source = self._source_plane(k)
            for axis, early in self._early.items():
                plane = early.apply(plane, axis)
            if self._clip_each_slice:
                limits = source.min(axis=(1, 2), keepdims=True), source.max(axis=(1, 2), keepdims=True)
                plane = np.clip(plane, *limits)
            self._plane[k] = plane
        return self._plane[k]

    def _source_plane(self, k: int) -> np.ndarray:
        self._check()
        plane = np.stack([np.asarray(view[k], dtype=np.float32) for view in self._views])
        if not np.isfinite(plane).all():
            raise InputError("The CT holds values that are not numbers (NaN or infinite).")
        for channel, normalise in enumerate(self._before):
            normalise(plane[channel], None if self._mask is None else self._mask[k])
        return plane

    def _extremes(self, apart: int | None) -> tuple[np.ndarray, np.ndarray]:
        # skimage clips what it interpolates to the range of what went in: the volume, or each slice across `apart`.
        over = tuple(axis for axis in (1, 2) if axis != apart)
        plane = self._source_plane(0)
        low, high = plane.min(axis=over, keepdims=True), plane.max(axis=over, keepdims=True)
        for k in range(1, self._views[0].shape[0]):
            plane = self._source_plane(k)
            low = np.minimum(low, plane.min(axis=over, keepdims=True))
            high = np.maximum(high, plane.max(axis=over, keepdims=True))
        return low, high


def _nonzero_mask(views: Sequence[np.ndarray]) -> np.ndarray:
    return ndimage.binary_fill_holes(np.logical_or.reduce([view != 0 for view in views]))


Normaliser = Callable[[np.ndarray, np.ndarray | None], None]


def _normaliser(
    normalisation: Normalisation, moments: Callable[[int], tuple[float, float]], channel: int
) -> Normaliser:
    """A function that normalises one float32 (y, x) plane in place; the second argument is its non-zero mask.

    moments: the mean and standard deviation of a channel, asked only where the scheme needs them.
    """
    if normalisation.scheme == "NoNormalization":
        return lambda plane, plane_mask: None
    if normalisation.scheme == "CTNormalization":
        statistics = normalisation.statistics
        low, high = statistics["percentile_00_5"], statistics["percentile_99_5"]
        mean, deviation = statistics["mean"], max(statistics["std"], SMALLEST_DEVIATION)

        def window(plane: np.ndarray, plane_mask: np.ndarray | None) -> None:
            np.clip(plane, low, high, out=plane)
            plane -= mean
            plane /= deviation

        return window
    mean, deviation = moments(channel)
    deviation = max(deviation, SMALLEST_DEVIATION)

    def standardise(plane: np.ndarray, plane_mask: np.ndarray | None) -> None:
        if normalisation.masked and plane_mask is not None:
            plane[plane_mask] = (plane[plane_mask] - mean) / deviation
        else:
            plane -= mean
            plane /= deviation

    return standardise


def _moments(view: np.ndarray, mask: np.ndarray | None, check: Check) -> tuple[float, float]:
    """Mean and standard deviation, summed in float64 slice by slice."""
    count, total, squares = 0, 0.0, 0.0
    for k in range(view.shape[0]):
        check()
        values = (view[k] if mask is None else view[k][mask[k]]).astype(np.float64).ravel()
        count += values.size
        total += float(values.sum())
        squares += float(values @ values)
    mean = total / count
    return mean, float(np.sqrt(max(squares / count - mean * mean, 0.0)))
