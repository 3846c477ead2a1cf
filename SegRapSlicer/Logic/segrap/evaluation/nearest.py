"""The distance from every point of a set to the nearest point of another, both on the lattice of voxel corners.

Contours that agree lie close together: lattice steps are tried from the shortest on, for all points at once, and only
what no short step joins is left for a k-d tree. Both are exact in float64; a distance transform of the volume, as the
usual packages make it, is slower, and the more so the farther apart the sets are.
"""

from __future__ import annotations

import numpy as np

# Steps up to one slice of 3 mm at SegRap's resolution are about 130. Beyond these numbers the tree is faster.
_FARTHEST_STEP_MM = 3.0
_MOST_STEPS = 200
_MOST_VOXELS_PER_AXIS = 8

_LEAF_SIZE = 24


def nearest_mm(points: np.ndarray, others: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Distances in mm, (n,), from `points` (n, 3) to the nearest of `others` (m > 0, 3); both (z, y, x) indices."""
    from scipy.spatial import cKDTree

    spacing = np.asarray(spacing_zyx, dtype=np.float64)
    distances = np.full(len(points), np.inf)
    left = _take_short_steps(points, others, spacing, distances)
    if left.size:
        tree = cKDTree(others * spacing, leafsize=_LEAF_SIZE, balanced_tree=False)
        distances[left], _ = tree.query(points[left] * spacing)
    return distances


def _take_short_steps(points: np.ndarray, others: np.ndarray, spacing: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Fill in the distances of the points that a short step joins to another one; the numbers of those left over."""
    steps, lengths = _short_steps(spacing)
    reach = np.abs(steps).max(axis=0)
    # A grid that holds the others with twice the reach around: a step from inside its margin never leaves it.
    first = others.min(axis=0) - 2 * reach
    shape = others.max(axis=0) + 2 * reach + 1 - first
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    taken = np.zeros(int(np.prod(shape)), dtype=bool)
    taken[(others - first) @ strides] = True

    close = np.all((points - first >= reach) & (points - first < shape - reach), axis=1)
    open_points = np.flatnonzero(close)
    places = (points[open_points] - first) @ strides
    for step, length in zip((steps @ strides).tolist(), lengths.tolist(), strict=True):
        hit = taken[places + step]
        distances[open_points[hit]] = length
        open_points, places = open_points[~hit], places[~hit]
    return np.concatenate([np.flatnonzero(~close), open_points])


def _short_steps(spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n, 3) between lattice points and their lengths in mm, the shortest first and none left out between."""
    reach = np.minimum(_FARTHEST_STEP_MM // spacing, _MOST_VOXELS_PER_AXIS).astype(np.int64)
    axes = [np.arange(-n, n + 1) for n in reach.tolist()]
    steps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.sqrt(((steps * spacing) ** 2).sum(axis=1))
    # Outside this box of steps the shortest one is as long as the shortest of these.
    shortest_outside = float(((reach + 1) * spacing).min())
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] < shortest_outside][:_MOST_STEPS]
    return steps[order], lengths[order]
