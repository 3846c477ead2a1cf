"""Where the voxels of a grid lie in the patient: spacing, origin, direction; x, y, z order, LPS, millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Two grids are one when their corners lie closer than this, in voxels of the finer side: half of a hundredth of a
# voxel is far below anything that moves a contour, and above the rounding of DICOM's decimal strings.
SAME_GRID_VOXELS = 0.005


@dataclass(frozen=True)
class Geometry:
    """Where voxel (i, j, k) = (x, y, z index) of a grid lies: origin + direction @ (index * spacing), LPS, mm.

    direction: 3 x 3, orthonormal; column a is the patient-space direction in which index a grows.
    """

    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: np.ndarray = field(default_factory=lambda: np.eye(3))

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing_mm", tuple(float(value) for value in self.spacing_mm))
        object.__setattr__(self, "origin_mm", tuple(float(value) for value in self.origin_mm))
        object.__setattr__(self, "direction", np.asarray(self.direction, dtype=np.float64).reshape(3, 3))

    @property
    def voxel_volume_cc(self) -> float:
        """Volume of one voxel in cubic centimetres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def index_to_lps(self) -> np.ndarray:
        """4 x 4 matrix from (x, y, z) index to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    def to_lps(self, index_xyz: np.ndarray) -> np.ndarray:
        """Points (..., 3) of (x, y, z) indices, fractions allowed, as LPS millimetres."""
        return np.asarray(index_xyz, dtype=np.float64) @ self.index_to_lps[:3, :3].T + np.asarray(self.origin_mm)

    def to_index(self, lps_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) in LPS millimetres as (x, y, z) indices with fractions."""
        inverse = np.linalg.inv(self.index_to_lps[:3, :3])
        return (np.asarray(lps_mm, dtype=np.float64) - np.asarray(self.origin_mm)) @ inverse.T


def grid_corners_lps_mm(geometry: Geometry, shape: tuple[int, int, int]) -> np.ndarray:
    """The centres of the eight corner voxels of a (z, y, x) grid, (8, 3), LPS mm."""
    z, y, x = shape
    return geometry.to_lps(np.array([(i, j, k) for i in (0, x - 1) for j in (0, y - 1) for k in (0, z - 1)]))


def same_grid(geometry_a: Geometry, shape_a: tuple[int, ...], geometry_b: Geometry, shape_b: tuple[int, ...]) -> bool:
    """True when both grids put every voxel in the same place (within 0.005 voxel at the corners)."""
    if tuple(shape_a) != tuple(shape_b):
        return False
    shape = (shape_a[0], shape_a[1], shape_a[2])
    offset = np.abs(grid_corners_lps_mm(geometry_a, shape) - grid_corners_lps_mm(geometry_b, shape)).max()
    return bool(offset <= SAME_GRID_VOXELS * min(*geometry_a.spacing_mm, *geometry_b.spacing_mm))
