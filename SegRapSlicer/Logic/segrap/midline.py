"""Splitting a structure that a model draws as one into its left and its right half, at its own middle plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_ROUNDS = 8
_MOST_TILT_DEGREES = 30  # a head turned further than that against the couch is no planning position


def split_sides(
    layers: np.ndarray,
    placement: Mapping[str, tuple[int, int]],
    pairs: Sequence[tuple[str, str]],
    spacing_zyx: Sequence[float],
) -> None:
    """Give the right half of each pair's structure to its right-hand name, in place.

    layers: (layer, z, y, x) uint8 in LPS order, x growing to the patient's left; all of a pair is painted as its left
    structure. placement: (layer, value) of each structure. pairs: (left, right) names. spacing_zyx: mm.
    """
    for left, right in pairs:
        layer, value = placement[left]
        where = np.nonzero(layers[layer] == value)
        if not len(where[0]):
            continue
        beyond = ~on_the_left(np.stack(where, axis=1) * np.asarray(spacing_zyx))
        target, other = placement[right]
        part = tuple(axis[beyond] for axis in where)
        layers[layer][part] = 0
        layers[target][part] = other


def on_the_left(points_mm: np.ndarray) -> np.ndarray:
    """Which of the points (n, 3), (z, y, x) in mm, lie to the left of the plane that parts them into two like halves.

    The plane stands half-way between the centres of the halves and across the line that joins them, so it follows a
    turned or tilted head. Where that line does not run from side to side, or a half is empty, the plane is upright,
    in the middle of the points' extent from right to left.
    """
    upright = points_mm[:, 2] >= (points_mm[:, 2].min() + points_mm[:, 2].max()) / 2
    left = upright
    for _ in range(_ROUNDS):
        if left.all() or not left.any():
            return upright
        centres = points_mm[left].mean(axis=0), points_mm[~left].mean(axis=0)
        across = centres[0] - centres[1]
        if across[2] < np.cos(np.radians(_MOST_TILT_DEGREES)) * np.linalg.norm(across):
            return upright
        moved = (points_mm - (centres[0] + centres[1]) / 2) @ across >= 0
        if np.array_equal(moved, left):
            break
        left = moved
    return left
