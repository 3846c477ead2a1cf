"""Which closed contours cross themselves. Touching and running back along itself (keyholes) is no crossing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Crossings that reach less than this beyond the crossed edge are rounding of coordinates.
_ROUNDING_MM = 0.01
# Pairs of edges looked at together; bounds the memory that a contour of very many points takes.
_PAIRS_AT_ONCE = 1_000_000


def self_crossing(points_mm: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each of several planar contours, (n, 3) points in mm one after another, whether two of its edges cross."""
    crossing = np.zeros(len(lengths), dtype=bool)
    contour = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    if not len(points_mm):
        return crossing
    following = np.arange(1, len(points_mm) + 1)
    following[np.cumsum(lengths)[lengths > 0] - 1] = starts[lengths > 0]

    # Seen along the patient axis that is most upright on the contours; then every contour in a strip of its own.
    arms = points_mm - points_mm[np.minimum(starts, len(points_mm) - 1)][contour]
    upright = int(np.abs(np.cross(arms, arms[following])).sum(axis=0).argmax())
    flat = np.delete(points_mm, upright, axis=1)
    begin, end = flat, flat[following]
    spread = np.ptp(flat[:, 1]) + 1.0
    low = np.minimum(begin[:, 1], end[:, 1]) + contour * spread
    high = np.maximum(begin[:, 1], end[:, 1]) + contour * spread

    order = np.argsort(low)
    partners = np.searchsorted(low[order], high[order], "left") - np.arange(1, len(order) + 1)
    leftmost, rightmost = np.minimum(begin[:, 0], end[:, 0]), np.maximum(begin[:, 0], end[:, 0])
    for first, second in _pairs(order, np.maximum(partners, 0)):
        near = (leftmost[first] <= rightmost[second]) & (leftmost[second] <= rightmost[first])
        first, second = first[near], second[near]
        a, b, c, d = begin[first], end[first], begin[second], end[second]
        apart = _on_both_sides(a, b, c, d) & _on_both_sides(c, d, a, b) & (contour[first] == contour[second])
        crossing[contour[first[apart]]] = True
    return crossing


def _pairs(order: np.ndarray, partners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # Every edge with each of the next so many in `order`, in portions.
    begin = 0
    totals = np.cumsum(partners)
    while begin < len(order):
        done = totals[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(totals, done + _PAIRS_AT_ONCE, "right")))
        counts = partners[begin:end]
        first = np.repeat(np.arange(begin, end), counts)
        step = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[first], order[first + 1 + step]
        begin = end


def _on_both_sides(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    # c and d lie on different sides of the line through a and b, both clearly off it.
    along = b - a
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)
    side_c = (along[:, 0] * (c - a)[:, 1] - along[:, 1] * (c - a)[:, 0]) / length
    side_d = (along[:, 0] * (d - a)[:, 1] - along[:, 1] * (d - a)[:, 0]) / length
    clear = np.minimum(np.abs(side_c), np.abs(side_d)) > _ROUNDING_MM
    return (side_c * side_d < 0) & clear
