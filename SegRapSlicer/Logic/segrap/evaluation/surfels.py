"""The surface of a mask as the SegRap challenge measures it: border points at the voxel corners, each with an area.

A point where eight voxels meet is a border point when some but not all of the eight are inside. Its area is that of the
marching-cubes triangles between the eight voxel centres. The areas are derived here from the shape of the set of inside
voxels; they equal the table of DeepMind's `surface-distance`, which the challenge's evaluation script carries too.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

Corner = tuple[int, int, int]

# The eight voxels around a lattice point, (z, y, x) offsets; the first one holds the highest bit of the code.
_CORNERS: tuple[Corner, ...] = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))
_ALL_INSIDE = 255


class Cutout(NamedTuple):
    """A part of a volume that holds the whole of a structure.

    mask: bool (z, y, x). corner: (z, y, x) index in the volume of the first voxel of the mask.
    """

    mask: np.ndarray
    corner: Corner

    @classmethod
    def of(cls, mask: np.ndarray) -> Cutout:
        """The smallest cutout of a whole (z, y, x) mask; of size 0 when the mask is empty."""
        inside = np.asarray(mask, dtype=bool)
        extents = []
        for axis in range(3):
            hits = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
            extents.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0))
            inside = inside[(slice(None),) * axis + (extents[-1],)]
        z, y, x = (extent.start for extent in extents)
        return cls(inside, (z, y, x))


class Surface(NamedTuple):
    """Border points of a mask. points: (n, 3) indices z, y, x of voxel corners in the volume; areas_mm2: (n,)."""

    points: np.ndarray
    areas_mm2: np.ndarray


def surface_of(cutout: Cutout, spacing_zyx: tuple[float, float, float]) -> Surface:
    """The border points of a mask and their areas. Empty for an empty mask; the volume's own edge is a border."""
    codes = _neighbour_codes(cutout.mask)
    border = np.flatnonzero((codes != 0) & (codes != _ALL_INSIDE))
    points = np.stack(np.unravel_index(border, codes.shape), axis=1) + np.asarray(cutout.corner)
    areas = surfel_areas_mm2(spacing_zyx)[codes.reshape(-1)[border]]
    return Surface(points, areas)


def _neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """For each of the (z + 1, y + 1, x + 1) lattice points, which of the eight voxels around it are inside (8 bits)."""
    bits = np.pad(mask.view(np.uint8) if mask.dtype == bool else mask.astype(bool).view(np.uint8), 1)
    pairs = (bits[:, :, :-1] << 1) | bits[:, :, 1:]
    fours = (pairs[:, :-1] << 2) | pairs[:, 1:]
    return (fours[:-1] << 4) | fours[1:]


@cache
def surfel_areas_mm2(spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """The area of the marching-cubes triangles for each of the 256 neighbour codes, (256,) float64."""
    sz, sy, sx = (float(value) for value in spacing_zyx)
    # The part of an area vector along an axis is a projected area: it scales with the spacings of the other two axes.
    scale = np.array([sy * sx, sz * sx, sz * sy])
    areas = np.zeros(256)
    for code in range(1, _ALL_INSIDE):
        triangles = [triangle for group in _groups(code) for triangle in _triangles(group)]
        areas[code] = sum(float(np.linalg.norm(np.array(triangle) * scale)) for triangle in triangles)
    areas.setflags(write=False)
    return areas


def _groups(code: int) -> list[list[Corner]]:
    """The corners of the smaller side (inside or outside), in groups that hang together along the cube's edges."""
    inside = [corner for bit, corner in enumerate(_CORNERS) if code >> (7 - bit) & 1]
    left = inside if len(inside) <= 4 else [corner for corner in _CORNERS if corner not in inside]
    groups = []
    while left:
        group = [left[0]]
        for corner in group:  # grows while it is walked through
            group += [other for other in left if _are_neighbours(corner, other) and other not in group]
        left = [corner for corner in left if corner not in group]
        groups.append(group)
    return groups


def _are_neighbours(a: Corner, b: Corner) -> bool:
    return sum(one != other for one, other in zip(a, b, strict=True)) == 1


def _triangles(group: list[Corner]) -> list[tuple[float, float, float]]:
    """Area vectors (z, y, x; signs left out) of the triangles that cut a connected group of corners off a unit cube.

    The triangles' corners are midpoints of cube edges, so that every vector is a small multiple of 1/8.
    """
    eighth, quarter, three_eighths = (_vector(length, 0, 1, 2) for length in (0.125, 0.25, 0.375))
    flat = [axis for axis in range(3) if len({corner[axis] for corner in group}) == 1]
    if len(group) == 1:  # one corner: a triangle
        return [eighth]
    if len(group) == 2:  # one edge: a rectangle along it
        return [_vector(0.25, *flat)] * 2
    if len(group) == 3:  # three corners of a face: a bent pentagon
        return [eighth, quarter, _vector(0.5, *flat)]
    if flat:  # a whole face: a rectangle across the cube
        return [_vector(0.5, *flat)] * 2
    degrees = [sum(_are_neighbours(corner, other) for other in group) for corner in group]
    if max(degrees) == 3:  # a corner and its three neighbours: a hexagon
        return [eighth, eighth, quarter, quarter]
    # A path along all three axes: a hexagon that is bent about the axis of the path's middle step.
    middle, other_middle = (corner for corner, degree in zip(group, degrees, strict=True) if degree == 2)
    (axis,) = (axis for axis in range(3) if middle[axis] != other_middle[axis])
    first, last = (other for other in range(3) if other != axis)
    return [_vector(0.25, axis, first), _vector(0.25, axis, last), eighth, three_eighths]


def _vector(length: float, *axes: int) -> tuple[float, float, float]:
    z, y, x = (length if axis in axes else 0.0 for axis in range(3))
    return z, y, x
