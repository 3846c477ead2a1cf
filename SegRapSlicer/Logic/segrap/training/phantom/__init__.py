"""A made-up patient: a parametric head and neck with all 47 structures, rendered as a plain and a contrast CT.

`Phantom(seed)` fixes the anatomy; `render` draws it on any grid. The same seed gives the same patient at any
resolution, and the same voxels on the same grid. A marker rod in the couch (2222 HU) tells every image of a
phantom from any real CT: `looks_like_phantom` finds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from segrap.geometry import Geometry
from segrap.image import Image
from segrap.training.phantom.anatomy import strokes
from segrap.training.phantom.marker import ROD_HU, ROD_SIDE_MM, looks_like_phantom
from segrap.training.phantom.shapes import Array, Shape, box
from segrap.training.phantom.strokes import Paint

__all__ = ["Phantom", "PhantomCase", "looks_like_phantom"]

COUCH_TOP_Y_MM = 124.0
ROD_CENTRE_XY_MM = (0.0, COUCH_TOP_Y_MM + 14.0)
SCAN_BOTTOM_Z_MM = -210.0
SCAN_LENGTH_MM = 390.0
FIELD_OF_VIEW_MM = 500.0
# Height of the skin's top in the patient's frame, and where in the scan it is placed.
VERTEX_Z_MM, VERTEX_IN_SCAN_Z_MM = 177.0, 174.0
# The field of view's middle: the couch and the nose both fit.
FIELD_CENTRE_Y_MM = 12.0
# Nothing of the body bends or wobbles further than this (mm): the boxes of the shapes are widened by it.
REACH_MM = 18.0
SLAB_VOXELS = 3_000_000


class PhantomCase(NamedTuple):
    """A rendered phantom: two int16 CTs in HU and the uint8 sub-classes 0..56, on one grid."""

    non_contrast: Image
    contrast: Image
    subclasses: Image


class Phantom:
    """One made-up patient, fixed by its seed (any non-negative integer)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng(seed)
        # Cut earlier above than below: the largest organs must stay inside the published volumes.
        size = 1 + np.clip(rng.standard_normal(), -2, 0.8) * 0.025
        self._scale = size * (1 + np.clip(rng.standard_normal(3), -2, 1) * np.array([0.014, 0.014, 0.012]))
        yaw, pitch, roll = np.radians(np.clip(rng.standard_normal(3), -2, 2) * np.array([2.0, 1.5, 1.5]))
        self._rotation = _rotation(yaw, pitch, roll)
        self._shift = np.clip(rng.standard_normal(3), -2, 2) * np.array([4.0, 2.0, 1.2])
        # The scan is planned from the vertex, as on a real scanner.
        self._shift[2] += VERTEX_IN_SCAN_Z_MM - VERTEX_Z_MM * self._scale[2]
        self._bend = np.clip(rng.standard_normal(2), -2, 2) * np.array([1.2, 1.6])
        self._wobble = _wobble(rng)
        self._streaks = rng.uniform(0, 2 * np.pi, 8)
        self._strokes = strokes(rng)

    def render(
        self, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 3.0), size: tuple[int, int, int] | None = None
    ) -> PhantomCase:
        """Draw the patient on a grid of voxels of `spacing_mm` (x, y, z) and `size` (x, y, z).

        Without a size the grid spans 500 x 500 mm and the scan's 390 mm from clavicle to vertex; with one it has the
        same middle. Direction is the identity: x to the left, y to the back, z to the head.
        """
        if size is None:
            columns, rows, slices = FIELD_OF_VIEW_MM, FIELD_OF_VIEW_MM, SCAN_LENGTH_MM
            size = (round(columns / spacing_mm[0]), round(rows / spacing_mm[1]), round(slices / spacing_mm[2]))
        middle = (0.0, FIELD_CENTRE_Y_MM, SCAN_BOTTOM_Z_MM + SCAN_LENGTH_MM / 2)
        origin = tuple(m - step * (n - 1) / 2 for m, step, n in zip(middle, spacing_mm, size, strict=True))
        geometry = Geometry(spacing_mm=spacing_mm, origin_mm=origin)  # type: ignore[arg-type]
        axes = [
            np.float32(origin[a]) + np.float32(spacing_mm[a]) * np.arange(size[a], dtype=np.float32) for a in range(3)
        ]
        shape = (size[2], size[1], size[0])
        plain, contrast = np.empty(shape, dtype=np.int16), np.empty(shape, dtype=np.int16)
        labels = np.empty(shape, dtype=np.uint8)
        deep = max(1, min(size[2], SLAB_VOXELS // (size[0] * size[1])))
        fan = self._streak_fan(axes[0], axes[1])
        boxes = [self._box_in_scan(stroke.shape) for stroke in self._strokes]
        for start in range(0, size[2], deep):
            stop = min(start + deep, size[2])
            x, y, z = axes[0], axes[1], axes[2][start:stop]
            pictures, labels[start:stop] = self._draw(x, y, z, boxes)
            for scan, (picture, target) in enumerate(zip(pictures, (plain, contrast), strict=True)):
                for index in range(stop - start):
                    rng = np.random.default_rng([self.seed, scan, start + index])
                    self._degrade(picture[index], float(z[index]), fan, spacing_mm, rng)
                target[start:stop] = np.clip(np.rint(picture), -1024, 3071).astype(np.int16)
        rod = (np.abs(axes[1] - ROD_CENTRE_XY_MM[1]) <= ROD_SIDE_MM / 2)[:, None] & (
            np.abs(axes[0] - ROD_CENTRE_XY_MM[0]) <= ROD_SIDE_MM / 2
        )[None, :]
        for image in (plain, contrast):
            image[:, rod] = ROD_HU
        return PhantomCase(Image(plain, geometry), Image(contrast, geometry), Image(labels, geometry))

    # ---- from the scanner's frame to the patient's and back ----------------------------------------------------------

    def _to_patient(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Patient-frame coordinates of the grid z x y x x (broadcast axes, mm)."""
        matrix = (np.diag(1 / self._scale) @ self._rotation.T).astype(np.float32)
        x, y, z = (axis - np.float32(s) for axis, s in zip((x, y, z), self._shift, strict=True))
        straight = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] * z for i in range(3)]
        result = [axis.copy() for axis in straight]
        for component, amplitude, numbers, phases in self._wobble:
            result[component] += amplitude * (
                np.sin(numbers[0] * x + phases[0])
                * np.sin(numbers[1] * y + phases[1])
                * np.sin(numbers[2] * z + phases[2])
            )
        below = np.clip(-(z + 10) / 100, 0, 2) ** 2
        result[0] += np.float32(self._bend[0]) * below
        result[1] += np.float32(self._bend[1]) * below
        return result[0], result[1], result[2]

    def _box_in_scan(self, shape: Shape) -> tuple[Array, Array]:
        """A box in the scanner's frame that holds the shape."""
        corners = np.array([[(shape.low, shape.high)[i >> a & 1][a] for a in range(3)] for i in range(8)])
        corners = np.clip(corners, -1e4, 1e4) * self._scale @ self._rotation.T + self._shift
        return corners.min(axis=0) - REACH_MM, corners.max(axis=0) + REACH_MM

    # ---- drawing -----------------------------------------------------------------------------------------------------

    def _draw(self, x: Array, y: Array, z: Array, boxes: list[tuple[Array, Array]]) -> tuple[list[Array], Array]:
        """Both scans (float32 HU, without blur and noise) and the sub-classes of one slab."""
        shape = (len(z), len(y), len(x))
        pictures = [np.full(shape, -1000, dtype=np.float32) for _ in range(2)]
        labels = np.zeros(shape, dtype=np.uint8)
        grid = (x[None, None, :], y[None, :, None], z[:, None, None])
        _couch(pictures, *grid)
        window = _window((x, y, z), *_box_of_all(boxes))
        if window is None:
            return pictures, labels
        zs, ys, xs = window
        patient = self._to_patient(grid[0][:, :, xs], grid[1][:, ys], grid[2][zs])
        above_couch = np.broadcast_to(grid[1][:, ys] - np.float32(COUCH_TOP_Y_MM), patient[0].shape)
        views = [picture[window] for picture in pictures]
        ids = labels[window]
        for stroke, (low, high) in zip(self._strokes, boxes, strict=True):
            part = _window((x[xs], y[ys], z[zs]), low, high)
            if part is not None:
                _apply(stroke, part, patient, above_couch, views, ids)
        return pictures, labels

    def _streak_fan(self, x: Array, y: Array) -> Array:
        """How the streaks of the teeth fan out over an axial slice, (y, x), about -1..1 times a few."""
        across, along = x[None, :] - np.float32(self._shift[0]), y[:, None] - np.float32(-70 + self._shift[1])
        angle, far = np.arctan2(across, along), np.hypot(across, along)
        rays = np.sum([np.sin((5 + 4 * i) * angle + phase) for i, phase in enumerate(self._streaks)], axis=0)
        return np.asarray(rays * np.exp(-(((far - 45) / 40) ** 2)), dtype=np.float32)

    def _degrade(
        self,
        picture: Array,
        height: float,
        fan: Array,
        spacing_mm: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> None:
        """Blur, streaks of the teeth and noise on one axial slice, in place."""
        sigma = [0.7 / spacing_mm[1], 0.7 / spacing_mm[0]]
        grain = [0.45 / spacing_mm[1], 0.45 / spacing_mm[0]]
        ndimage.gaussian_filter(picture, sigma, output=picture, mode="nearest")
        noise = ndimage.gaussian_filter(rng.standard_normal(picture.shape, dtype=np.float32), grain)
        # The shoulders swallow more of the beam than the head.
        noise *= (14.0 if height < -120 else 9.0) / max(float(noise.std()), 1e-6)
        body = picture > -500
        noise[~body] *= 0.5
        picture += noise
        strength = 7.0 * np.exp(-(((height - self._shift[2] - 17) / 10) ** 2))
        if strength > 0.1:
            picture += np.float32(strength) * fan * body


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return np.asarray(about_z @ about_x @ about_y)


def _wobble(rng: np.random.Generator) -> list[tuple[int, np.float32, Array, Array]]:
    """Smooth displacement: long waves that vary the proportions, short ones that make borders organic."""
    result = []
    for component in range(3):
        for amplitude, shortest, longest, count in ((1.3, 130.0, 240.0, 2), (0.55, 34.0, 60.0, 2)):
            for _ in range(count):
                numbers = (2 * np.pi / rng.uniform(shortest, longest, 3)).astype(np.float32)
                phases = rng.uniform(0, 2 * np.pi, 3).astype(np.float32)
                result.append((component, np.float32(amplitude), numbers, phases))
    return result


def _box_of_all(boxes: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The box that holds all boxes, unbounded ones left out."""
    lows = [low for low, high in boxes if high.max() < 1000 and low.min() > -1000]
    highs = [high for low, high in boxes if high.max() < 1000 and low.min() > -1000]
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _window(axes: tuple[Array, Array, Array], low: Array, high: Array) -> tuple[slice, slice, slice] | None:
    """The z, y, x slices of the grid points that lie in a box; None when there are none."""
    ranges = []
    for axis, a, b in zip(axes, low, high, strict=True):
        first, last = int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b, side="right"))
        if first >= last:
            return None
        ranges.append(slice(first, last))
    return ranges[2], ranges[1], ranges[0]


def _apply(
    stroke: Paint,
    part: tuple[slice, slice, slice],
    patient: tuple[Array, ...],
    above_couch: Array,
    views: list[Array],
    ids: Array,
) -> None:
    """Paint one stroke into its window of the slab."""
    x, y, z = (axis[part] for axis in patient)
    distance = np.maximum(stroke.shape.distance(x, y, z), above_couch[part])
    here = ids[part]
    touched = distance < stroke.edge / 2
    if stroke.only is not None:
        allowed = here == stroke.only[0]
        for value in stroke.only[1:]:
            allowed |= here == value
        touched &= allowed
    where = np.nonzero(touched)
    if not len(where[0]):
        return
    d = distance[where]
    cover = np.clip(0.5 - d / np.float32(stroke.edge), 0, 1)
    place = (x[where], y[where], z[where])
    for view, tissue in zip(views, (stroke.plain, stroke.contrast), strict=True):
        level = tissue(*place, d) if callable(tissue) else np.float32(tissue)
        target = view[part]
        target[where] += cover * (level - target[where])
    if stroke.table is not None:
        inside = d < 0
        index = tuple(axis[inside] for axis in where)
        here[index] = stroke.table[here[index]]


def _couch(pictures: list[Array], x: Array, y: Array, z: Array) -> None:
    """A carbon-fibre couch top with a foam core, and a head rest of foam."""
    top = np.float32(COUCH_TOP_Y_MM)
    plate = box((0, COUCH_TOP_Y_MM + 14, 0), (215, 13, 1e4), 6).distance(x, y, z * 0)
    for picture in pictures:
        picture[...] = np.where(plate < 0, np.where(plate > -2.2, np.float32(-150), np.float32(-930)), picture)
    lift = np.float32(14) - np.abs(x) * np.float32(0.02)
    rest = np.maximum(np.maximum(np.abs(x) - 95, np.abs(z - 60) - 100), np.maximum(y - top, top - lift - y + 0 * z))
    for picture in pictures:
        picture[...] = np.where(rest < 0, np.float32(-945), picture)
