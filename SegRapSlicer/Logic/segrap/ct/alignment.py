"""How two CTs of one patient lie to each other: shift, turn, shared field of view, and which one is enhanced.

Everything is measured on views of about 3 mm per voxel, which is fine enough for half a millimetre of shift and fast
on any scan. Nothing is moved here: a CT pair is placed by its world coordinates, and these numbers say how far that
can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from segrap.geometry import Geometry
from segrap.image import Image

COARSE_MM = 3.0
# Skin and bone edges, without the texture of air and table and without what a contrast agent changes most.
WINDOW_HU = (-200.0, 800.0)
MOST_POINTS = 60_000
# Correlation of blurred views once they are aligned: 0.98 and more between two scans of one patient (moved, noisy),
# 0.5 and less between two patients (nine real CTs).
LEAST_LIKENESS = 0.6


@dataclass(frozen=True)
class Alignment:
    """Where the second scan shows what the first one shows.

    A point p of the first scan lies at centre + rotation @ (p - centre) + shift in the second (LPS, mm).
    displacement_mm: mean distance that the edges of bone and skin are off. likeness: correlation (up to 1) of the two
    scans once that is undone.
    """

    shift_mm: np.ndarray
    rotation: np.ndarray
    centre_mm: np.ndarray
    displacement_mm: float
    likeness: float

    @property
    def turn_degrees(self) -> float:
        return float(np.degrees(np.arccos(np.clip((np.trace(self.rotation) - 1) / 2, -1, 1))))

    def apply(self, points_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the first scan as points of the second, LPS mm."""
        return self.centre_mm + (points_mm - self.centre_mm) @ self.rotation.T + self.shift_mm


def coarse_view(image: Image) -> Image:
    """Means over blocks of about 3 mm, float32; what is left over at the far ends is dropped."""
    blocks = [
        max(1, min(size, round(COARSE_MM / mm)))
        for size, mm in zip(image.shape, image.geometry.spacing_mm[::-1], strict=True)
    ]
    fz, fy, fx = blocks
    z, y, x = (size // block for size, block in zip(image.shape, blocks, strict=True))
    view = np.empty((z, y, x), dtype=np.float32)
    for number in range(z):
        slab = image.array[number * fz : (number + 1) * fz, : y * fy, : x * fx].sum(axis=0, dtype=np.float32)
        rows = slab.reshape(y, fy, x * fx).sum(axis=1)
        view[number] = rows.reshape(y, x, fx).sum(axis=2) / (fx * fy * fz)
    spacing = np.asarray(image.geometry.spacing_mm) * (fx, fy, fz)
    origin = image.geometry.to_lps((np.array([fx, fy, fz]) - 1) / 2)
    return Image(view, Geometry(tuple(spacing), tuple(origin), image.geometry.direction))


def around_body(view: Image, margin_mm: float = 30.0) -> Image:
    """The part of a view that holds everything denser than air and foam, and some more."""
    dense = view.array > WINDOW_HU[0]
    box = []
    first = []
    for axis, mm in zip((0, 1, 2), view.geometry.spacing_mm[::-1], strict=True):
        rest = tuple(other for other in (0, 1, 2) if other != axis)
        places = np.flatnonzero(dense.any(axis=rest))
        margin = int(np.ceil(margin_mm / mm))
        start = max(0, int(places[0]) - margin) if places.size else 0
        box.append(slice(start, int(places[-1]) + margin + 1 if places.size else None))
        first.append(start)
    origin = view.geometry.to_lps(np.array(first[::-1]))
    return Image(
        view.array[box[0], box[1], box[2]],
        Geometry(view.geometry.spacing_mm, tuple(origin), view.geometry.direction),
    )


def covered(view: Image, other: Image) -> np.ndarray:
    """Which voxels (z, y, x) of `view` lie inside the field of view of `other`."""
    inside = np.ones(view.shape, dtype=bool)
    axes = [np.arange(size) for size in view.shape]
    matrix = np.linalg.inv(other.geometry.index_to_lps) @ view.geometry.index_to_lps
    for axis in range(3):
        # The index in `other` is a sum of one term per axis of `view`: no list of points is needed.
        index = matrix[axis, 3] + (
            matrix[axis, 2] * axes[0][:, None, None] + matrix[axis, 1] * axes[1][:, None] + matrix[axis, 0] * axes[2]
        )
        inside &= (index >= -0.5) & (index <= other.shape[2 - axis] - 0.5)
    return inside


def measure_alignment(first: Image, second: Image) -> Alignment | None:
    """Rigid alignment between two coarse views; None when one of them has too few edges to measure by.

    The start is the best match of edges over all whole-voxel shifts (by Fourier transform); from there Gauss-Newton
    steps on the intensities around bone and skin edges, with weights (Tukey) that leave out what moved by itself.
    """
    from scipy.ndimage import gaussian_filter

    blurred = [Image(gaussian_filter(view.array, 1.0), view.geometry) for view in (first, second)]
    shift, rotation = _best_shift_mm(blurred[0], blurred[1]), np.eye(3)
    centre = np.zeros(3)
    points = np.zeros((0, 3))
    for blur in (1.5, 0.7):
        fixed = gaussian_filter(_windowed(first.array), blur)
        moving = gaussian_filter(_windowed(second.array), blur)
        points, values = _edge_points(fixed, first.geometry)
        if len(points) < 100:
            return None
        if blur == 1.5:
            centre = points.mean(axis=0)
        shift, rotation = _refine(points, values, moving, second.geometry, centre, shift, rotation)
    found = Alignment(shift, rotation, centre, 0.0, 0.0)
    displacement = float(np.linalg.norm(found.apply(points) - points, axis=1).mean())
    return replace(found, displacement_mm=displacement, likeness=_likeness(blurred[0], blurred[1], found))


def second_on_first(first: Image, second: Image, alignment: Alignment | None) -> np.ndarray:
    """The second view on the grid of the first (z, y, x), moved to where it fits; NaN outside of its field of view."""
    from scipy.ndimage import affine_transform

    move = np.eye(4)
    if alignment is not None:
        move[:3, :3] = alignment.rotation
        move[:3, 3] = alignment.centre_mm + alignment.shift_mm - alignment.rotation @ alignment.centre_mm
    matrix = np.linalg.inv(second.geometry.index_to_lps) @ move @ first.geometry.index_to_lps
    # From x, y, z index order to the z, y, x order of arrays.
    return affine_transform(
        second.array,
        matrix[:3, :3][::-1, ::-1],
        matrix[:3, 3][::-1],
        output_shape=first.shape,
        order=1,
        mode="constant",
        cval=np.nan,
    )


def enhancement_hu(plain: np.ndarray, enhanced: np.ndarray) -> float:
    """How much brighter the vessels of the second view are than those of the first; negative when it is the other way.

    Both (z, y, x) on one grid, HU, NaN where unknown. Soft tissue only, away from air and from bone. Contrast agent
    makes a small part of it much brighter and nothing darker, while noise and motion do both alike: the measure is the
    mean of the hundredth that gained most less what the hundredth that lost most has lost.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

    known = np.isfinite(plain) & np.isfinite(enhanced)
    low = np.where(known, np.minimum(plain, enhanced), -1000.0)
    # Vessels are soft tissue in at least one of the scans; bone is bright in both.
    away_from_air = minimum_filter(low, 3) > -150
    away_from_bone = maximum_filter(low, 3) < 150
    tissue = away_from_air & away_from_bone & (low > -20) & (low < 100)
    if np.count_nonzero(tissue) < 500:
        return 0.0
    # A blur evens out what one scan has more of in sharpness.
    gain = gaussian_filter(np.where(known, enhanced - plain, 0.0), 0.7)[tissue]
    hundredth = max(1, gain.size // 100)
    gain.partition((hundredth, gain.size - hundredth))
    return float(gain[-hundredth:].mean() + gain[:hundredth].mean())


def _windowed(array: np.ndarray) -> np.ndarray:
    return np.clip(array, *WINDOW_HU).astype(np.float32)


def _best_shift_mm(first: Image, second: Image) -> np.ndarray:
    """Shift (LPS, mm) in whole voxels at which the edges of both views match best, out of the likeliest few."""
    from scipy.fft import irfftn, next_fast_len, rfftn
    from scipy.ndimage import gaussian_gradient_magnitude

    second_array = np.nan_to_num(second_on_first(first, second, None), nan=-1000.0)
    edges = [gaussian_gradient_magnitude(_windowed(array), 0.5) for array in (first.array, second_array)]
    size = [next_fast_len(int(1.5 * length), real=True) for length in first.shape]
    spectra = [rfftn(edge - edge.mean(), size) for edge in edges]
    match = irfftn(np.conj(spectra[0]) * spectra[1], size)
    candidates = [np.zeros(3)]
    for _ in range(3):
        peak = np.array(np.unravel_index(int(match.argmax()), match.shape))
        match[tuple(slice(max(0, index - 2), index + 3) for index in peak)] = -np.inf
        steps = np.where(peak > np.array(size) // 2, peak - size, peak)[::-1]
        candidates.append(first.geometry.direction @ (steps * np.asarray(first.geometry.spacing_mm)))
    shifts = [Alignment(shift, np.eye(3), np.zeros(3), 0.0, 0.0) for shift in candidates]
    return candidates[int(np.argmax([_likeness(first, second, shift) for shift in shifts]))]


def _likeness(first: Image, second: Image, alignment: Alignment) -> float:
    """Correlation of the windowed views in and around the body, where both are known; -1 where nearly nothing is."""
    every_other = Image(
        first.array[::2, ::2, ::2],
        Geometry(tuple(2 * np.asarray(first.geometry.spacing_mm)), first.geometry.origin_mm, first.geometry.direction),
    )
    second_array = second_on_first(every_other, second, alignment)
    body = every_other.array > WINDOW_HU[0]
    known = np.isfinite(second_array) & (body | (second_array > WINDOW_HU[0]))
    if np.count_nonzero(known) < 0.1 * np.count_nonzero(body):
        return -1.0
    a, b = _windowed(every_other.array[known]), _windowed(second_array[known])
    if a.std() == 0 or b.std() == 0:
        return -1.0
    return float(np.corrcoef(a, b)[0, 1])


def _edge_points(fixed: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The steepest places of a windowed view: (n, 3) LPS mm, and the values there."""
    steepness = np.sqrt(sum(slope**2 for slope in np.gradient(fixed)))
    steep = np.argwhere(steepness > 40.0)
    steep = steep[:: max(1, len(steep) // MOST_POINTS)]
    return geometry.to_lps(steep[:, ::-1]), fixed[tuple(steep.T)]


def _refine(
    points: np.ndarray,
    values: np.ndarray,
    moving: np.ndarray,
    geometry: Geometry,
    centre: np.ndarray,
    shift: np.ndarray,
    rotation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton steps for (shift, rotation) so that `moving` at the moved points equals `values`."""
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    slopes = np.gradient(moving)
    to_index = np.linalg.inv(geometry.index_to_lps[:3, :3])
    for _ in range(40):
        arms = (points - centre) @ rotation.T
        index = geometry.to_index(centre + arms + shift)[:, ::-1].T
        inside = ((index >= 0) & (index <= np.array(moving.shape)[:, None] - 1)).all(axis=0)
        if np.count_nonzero(inside) < 100:
            break
        index, arms = index[:, inside], arms[inside]
        misfit = map_coordinates(moving, index, order=1) - values[inside]
        slope = np.stack([map_coordinates(axis, index, order=1) for axis in slopes[::-1]], axis=1) @ to_index
        scale = 4.685 * 1.4826 * max(1.0, float(np.median(np.abs(misfit))))
        weight = np.clip(1 - (misfit / scale) ** 2, 0, None) ** 2
        jacobian = np.concatenate((slope, np.cross(arms, slope)), axis=1)
        normal = jacobian.T @ (jacobian * weight[:, None])
        # The scale of the damping: one radian moves the skin by about 100 mm.
        damping = 1e-4 * np.trace(normal[:3, :3]) * np.array([1.0, 1.0, 1.0, 1e4, 1e4, 1e4])
        step = -np.linalg.solve(normal + np.diag(damping), jacobian.T @ (misfit * weight))
        shift = shift + step[:3]
        rotation = Rotation.from_rotvec(step[3:]).as_matrix() @ rotation
        if np.abs(step[:3]).max() < 0.01 and np.abs(step[3:]).max() < 1e-4:
            break
    return shift, rotation
