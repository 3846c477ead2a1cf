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
    lengths: number of points of every polygon, at least 1. slice_numbers: the slice (z index) of every polygon.
    A centre on a contour counts as inside on the contour's left and upper side. What lies off the grid is cut off.
    """
    polygon, row, column = _crossings(points, lengths, shape)
    if not len(polygon):
        return Region(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0))
    z = slice_numbers[polygon]

    # From each crossing to the next along a line, outside and inside take turns. The box has one column more than there
    # can be voxels inside, so that every line ends outside and the whole box is one sequence of runs.
    begin = (int(z.min()), int(row.min()), int(column.min()))
    size = (int(z.max()) - begin[0] + 1, int(row.max()) - begin[1] + 1, int(column.max()) - begin[2] + 1)
    turns = np.sort(((z - begin[0]) * size[1] + row - begin[1]) * size[2] + column - begin[2])
    runs = np.diff(turns, prepend=0, append=np.prod(size))
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)
    return Region(inside[:, :, :-1], begin)


def voxels_in_dispute(
    points: np.ndarray, lengths: np.ndarray, slice_numbers: np.ndarray, shape: tuple[int, int, int]
) -> int:
    """In how many voxels polygons of one slice overlap so that readers disagree whether there is a hole.

    Some combine the contours of a slice by even-odd, as `fill` does, others fill each by itself. Arguments as for
    `fill`.
    """
    polygon, row, column = _crossings(points, lengths, shape)
    if not len(polygon):
        return 0
    _, rows, columns = shape
    # Along every line each polygon is entered and left in turn.
    by_polygon = np.argsort((polygon * rows + row) * (columns + 1) + column)
    entered = np.empty(len(polygon), dtype=np.int64)
    entered[by_polygon] = 1 - 2 * (np.arange(len(polygon)) % 2)
    place = (slice_numbers[polygon] * rows + row) * (columns + 1) + column
    order = np.argsort(place)
    inside_of = np.cumsum(entered[order])
    until_next = np.diff(place[order], append=place[order[-1]])
    return int(until_next[(inside_of > 0) & (inside_of % 2 == 0)].sum())


def _crossings(
    points: np.ndarray, lengths: np.ndarray, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Where polygons cross the lines through the voxel centres of a row: polygon, row, and the first column beyond.
    _, rows, columns = shape
    ends = np.cumsum(lengths)
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = ends - lengths
    (x0, y0), (x1, y1) = points.T, points[following].T

    # An edge crosses lines from its upper end, included, to its lower, excluded: every polygon crosses each line an
    # even number of times.
    first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(np.intp)
    times = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(np.intp) - first
    edge = np.repeat(np.arange(len(points)), times)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(times) - times, times) + first[edge]
    crossing = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    polygon = np.repeat(np.arange(len(lengths)), lengths)[edge]
    return polygon, row, np.clip(np.ceil(crossing), 0, columns).astype(np.intp)
