"""The planes of a CT's slices in the patient: from pixels to millimetres and back, slice by slice.

Every slice's own position counts, as its file states it; never an origin plus so many spacings.
"""

from __future__ import annotations

import numpy as np

from segrap.ct.dicom_series import CTSeries
from segrap.ct.slice_stack import right_angled

# Planning systems that round coordinates to a tenth of a millimetre leave contours up to 0.05 mm beside their plane,
# and scanners that do so leave the plane as far beside its true place.
PLANE_TOLERANCE_MM = 0.1


class SlicePlanes:
    """The slice planes of one CT series. Pixel coordinates (x, y) put the centre of the first voxel at (0, 0)."""

    def __init__(self, series: CTSeries) -> None:
        orientation = np.array([header.ImageOrientationPatient for header in series.headers], dtype=np.float64)
        rows, columns = right_angled(orientation[:, :3], orientation[:, 3:])  # as in the series' geometry
        spacing = np.array([header.PixelSpacing for header in series.headers], dtype=np.float64)
        self._origins = np.array([header.ImagePositionPatient for header in series.headers], dtype=np.float64)
        # PixelSpacing is the distance of the rows, then of the columns.
        self._x_step = rows * spacing[:, 1:]
        self._y_step = columns * spacing[:, :1]
        self._normal = np.cross(rows[0], columns[0])
        self._heights = self._origins @ self._normal

    def to_lps(self, slice_numbers: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Points (n, 2), x and y in pixels of the slice given for each, as (n, 3) LPS millimetres."""
        in_plane = pixels[:, :1] * self._x_step[slice_numbers] + pixels[:, 1:] * self._y_step[slice_numbers]
        return self._origins[slice_numbers] + in_plane

    def to_pixels(self, slice_numbers: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
        """Points (n, 3) in LPS millimetres, dropped onto the slice given for each, as (n, 2), x and y in pixels."""
        offset = points_mm - self._origins[slice_numbers]
        steps = (self._x_step[slice_numbers], self._y_step[slice_numbers])
        return np.column_stack([(offset * step).sum(axis=1) / (step**2).sum(axis=1) for step in steps])

    def nearest(self, points_mm: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For every contour the number of the slice nearest to it, and how far its farthest point is from that, in mm.

        points_mm: (n, 3) LPS, the contours one after another; lengths: the number of points of each, at least 1.
        """
        heights = points_mm @ self._normal
        starts = np.cumsum(lengths) - lengths
        lowest, highest = np.minimum.reduceat(heights, starts), np.maximum.reduceat(heights, starts)
        between = (self._heights[1:] + self._heights[:-1]) / 2.0
        numbers = np.searchsorted(between, (lowest + highest) / 2.0)
        planes = self._heights[numbers]
        return numbers, np.maximum(highest - planes, planes - lowest)
