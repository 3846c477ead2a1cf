"""Closed polygons as voxel masks: a voxel is inside when its centre is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Region(NamedTuple):
    """A mask (z, y, x) cut to the part of the grid that holds it, and the place of its first voxel (z, y, x)."""

    mask: np.ndarray
    first: tuple[int, int, int]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the mask belongs in the whole grid."""
        z, y, x = (slice(first, first + size) for first, size in zip(self.first, self.mask.shape, strict=True))
        return z, y, x


def fill(points: np.ndarray, lengths: np.ndarray, slice_numbers: np.ndarray, shape: tuple[int, int, int]) -> Region:
    """The voxels of a grid (z, y, x) whose centres lie inside an odd number of the polygons of their slice.

    points: (n, 2), x and y in pixels (voxel centres at whole numbers), the polygons one after another.
    lengths: number of points of every polygon. slice_numbers: the slice (z index) of every polygon.
    A centre on a contour counts as inside on the contour's left and upper side. What lies off the grid is cut off.
    """
    _, rows, columns = shape
    ends = np.cumsum(lengths)
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = ends - lengths
    (x0, y0), (x1, y1) = points.T, points[following].T
    z = np.repeat(slice_numbers, lengths)

    # Every edge crosses the lines through the voxel centres from its upper end, included, to its lower, excluded.
    first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(np.intp)
    times = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(np.intp) - first
    edge = np.repeat(np.arange(len(points)), times)
    if not len(edge):
        return Region(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0))
    row = np.arange(len(edge)) - np.repeat(np.cumsum(times) - times, times) + first[edge]
    crossing = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.clip(np.ceil(crossing), 0, columns).astype(np.intp)

    # From each crossing to the next along a line, inside and outside take turns; with one column more than the last
    # crossing every line ends outside, and the whole box is one sequence of runs.
    z = z[edge]
    begin = (int(z.min()), int(row.min()), int(column.min()))
    size = (int(z.max()) - begin[0] + 1, int(row.max()) - begin[1] + 1, int(column.max()) - begin[2] + 1)
    turns = np.sort(((z - begin[0]) * size[1] + row - begin[1]) * size[2] + column - begin[2])
    runs = np.diff(turns, prepend=0, append=np.prod(size))
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)
    return Region(inside[:, :, :-1], begin)


def voxels_in_dispute(
    pixels: np.ndarray, lengths: np.ndarray, slice_numbers: np.ndarray, shape: tuple[int, int, int]
) -> int:
    """In how many voxels contours of one slice overlap, so that readers disagree whether there is a hole.

    Some readers combine the contours of a slice by even-odd, as `fill` does, others fill each by itself. Arguments as
    for `fill`, polygons of at least one point.
    """
    order = np.argsort(slice_numbers, kind="stable")
    shared = order[np.bincount(slice_numbers)[slice_numbers[order]] > 1]
    if not len(shared):
        return 0
    starts = np.cumsum(lengths) - lengths
    points = np.concatenate([pixels[starts[number] : starts[number] + lengths[number]] for number in shared])
    each = fill(points, lengths[shared], np.arange(len(shared)), (len(shared), *shape[1:]))
    of_slice = slice_numbers[shared][each.box[0]]
    first = np.flatnonzero(np.diff(of_slice, prepend=-1))
    by_itself = np.logical_or.reduceat(each.mask, first, axis=0)
    return int(np.count_nonzero(by_itself != np.logical_xor.reduceat(each.mask, first, axis=0)))
