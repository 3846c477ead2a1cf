"""Voxel masks as closed polygons along the voxels' edges, so that nothing is lost: the polygons enclose the voxels.

Pixel coordinates put the centre of voxel (x, y) at (x, y); a lone voxel becomes the square from -0.5 to +0.5 around it.
Contours through voxel centres, as other writers draw them, shrink every structure by half a voxel and lose thin ones.
"""

from __future__ import annotations

import itertools

import numpy as np

_Points = list[tuple[int, int]]


def outline(mask: np.ndarray) -> list[np.ndarray]:
    """The closed polygons around the true voxels of a mask (y, x); see `outlines`."""
    return outlines(np.asarray(mask)[np.newaxis])[0]


def outlines(masks: np.ndarray) -> list[list[np.ndarray]]:
    """For every slice of a mask (z, y, x), the closed polygons around its true voxels, each (n, 2), x and y in pixels.

    - Only corners are listed, n >= 4; the first point is not repeated at the end.
    - Voxels that touch by a corner only are parted: a polygon may meet itself or another in a point, never cross it.
    - A hole is joined to the polygon around it by a keyhole, a cut of no width along a voxel edge, gone through in both
      directions. Its winding is opposite, so that even-odd and non-zero filling both leave it empty.
    """
    padded = np.pad(np.asarray(masks, dtype=bool).view(np.uint8), ((0, 0), (1, 1), (1, 1)))
    depth, rows, columns = (int(size) for size in padded.shape)

    # Corner (z, y, x) is the upper left corner of voxel (z, y, x). Along the line above a row of voxels, `step` is
    # 1 where inside begins below the line, 255 where it ends, 0 where both sides are alike. Wherever it changes, the
    # boundary turns.
    step = padded[:, 1:] - padded[:, :-1]
    z, y, x = np.nonzero(step[:, :, 1:] != step[:, :, :-1])
    left, right = step[z, y, x], step[z, y, x + 1]

    # Where two inside voxels touch by a corner the boundary turns twice: once for each of them.
    twice = (left != 0) & (right != 0)
    times = 1 + twice.astype(np.intp)
    second = np.zeros(int(times.sum()), dtype=bool)
    second[np.cumsum(times)[twice] - 1] = True
    z, y, x, left, right = (np.repeat(values, times) for values in (z, y, x, left, right))

    # In reading order the corners pair up to the horizontal edges, in order of columns to the vertical ones. Of a
    # double corner the first belongs to the edge on its left; to the edge above, the one of the upper voxel.
    corners = np.arange(len(x))
    lower = second ^ ((left == 1) & (right == 255))
    by_column = np.argsort((((z * columns + x) * rows + y) << 1) | lower)
    along_column = np.empty_like(corners)
    along_column[by_column[0::2]] = by_column[1::2]
    along_column[by_column[1::2]] = by_column[0::2]
    # Gone around with the inside on the right hand (y pointing down): eastward above it, southward on its right.
    following = np.where((right == 1) | (left == 255), corners ^ 1, along_column)

    rings = _rings(following.tolist())
    points = np.column_stack((x, y))
    is_hole = [right[ring[0]] == 255 for ring in rings]
    keyholes = _keyholes(padded, z, y, x, [ring[0] for ring, hole in zip(rings, is_hole, strict=True) if hole])
    hole_points: dict[int, _Points] = {}
    for ring in itertools.compress(reversed(rings), reversed(is_hole)):  # from below: a keyhole always opens upwards
        hole_points[ring[0]] = _with_keyholes(points, ring, keyholes, hole_points)

    polygons: list[list[np.ndarray]] = [[] for _ in range(depth)]
    for ring, hole in zip(rings, is_hole, strict=True):
        if not hole:
            whole = keyholes.keys().isdisjoint(ring)
            closed = points[ring] if whole else np.array(_with_keyholes(points, ring, keyholes, hole_points))
            polygons[z[ring[0]]].append(closed - 0.5)
    return polygons


def _rings(following: list[int]) -> list[list[int]]:
    # Every ring once, in the reading order of its first corner: the leftmost of its uppermost.
    rings: list[list[int]] = []
    for start in range(len(following)):
        ring: list[int] = []
        corner = start
        while following[corner] >= 0:
            ring.append(corner)
            following[corner], corner = -1, following[corner]
        if ring:
            rings.append(ring)
    return rings


def _keyholes(
    padded: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray, holes: list[int]
) -> dict[int, list[tuple[int, int, int]]]:
    # For the first corner of every hole, straight up through inside voxels to the first boundary above it. Voxels on
    # both sides of the cut are inside, so it runs along no other boundary and no other cut. The result says after which
    # corner of the ring above to leave it, at which point (x, y), to which hole.
    _, rows, columns = padded.shape
    reading_order = (z * rows + y) * columns + x
    keyholes: dict[int, list[tuple[int, int, int]]] = {}
    for hole in holes:
        layer, top, column = int(z[hole]), int(y[hole]), int(x[hole])
        solid = padded[layer, : top + 1, column] & padded[layer, : top + 1, column + 1]
        line = int(np.flatnonzero(solid == 0)[-1])
        wanted = (layer * rows + line) * columns + column
        corner = int(np.searchsorted(reading_order, wanted))
        if corner == len(reading_order) or reading_order[corner] != wanted:
            corner -= 1  # not at a corner but inside the edge that starts there
        keyholes.setdefault(corner, []).append((column, line, hole))
    return keyholes


def _with_keyholes(
    points: np.ndarray, ring: list[int], keyholes: dict[int, list[tuple[int, int, int]]], holes: dict[int, _Points]
) -> _Points:
    joined: _Points = []
    for corner, (x, y) in zip(ring, points[ring].tolist(), strict=True):
        joined.append((x, y))
        for column, line, hole in sorted(keyholes.get(corner, ())):
            if column != x:
                joined.append((column, line))
            joined += [*holes[hole], holes[hole][0], (column, line)]
    return joined
