"""nnU-Net's way from one grid to another, taken apart into one operation per axis.

nnunetv2's `resample_data_or_seg_to_shape` calls skimage's `resize` (a spline zoom of scipy with the grid's edges, not
its voxel centres, aligned) on volumes, or, where one axis has much thicker slices, slice by slice with a separate step
across the slices. Every step is linear and separable. So it is exact to apply one small matrix per axis, and to do it
only for the slices that are needed at the moment. Checked against scipy and nnunetv2 in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from segrap.models.plans import Resampling

ANISOTROPY = 3.0  # nnunetv2.configuration.ANISO_THRESHOLD
NEGLIGIBLE = 1e-10  # spline weights below this are far under the rounding of float32
OUTPUTS_AT_ONCE = 16  # rows of a band of a matrix


def separate_axis(resampling: Resampling, current_mm: Sequence[float], new_mm: Sequence[float]) -> int | None:
    """Which axis nnU-Net resamples apart from the others when it goes from one spacing to another, or None."""
    if resampling.separate_z is not None:
        candidates = [current_mm] if resampling.separate_z else []
    else:
        candidates = [s for s in (current_mm, new_mm) if max(s) / min(s) > ANISOTROPY][:1]
    for spacing in candidates:
        thickest = [axis for axis in range(3) if max(spacing) / spacing[axis] == 1]
        if len(thickest) == 1:
            return thickest[0]
    return None


def resampled_shape(shape: Sequence[int], current_mm: Sequence[float], new_mm: Sequence[float]) -> tuple[int, int, int]:
    """The number of voxels per axis after a change of spacing, rounded as nnU-Net rounds it."""
    a, b, c = (round(old / new * n) for old, new, n in zip(current_mm, new_mm, shape, strict=True))
    return a, b, c


@dataclass(frozen=True)
class AxisMap:
    """A linear map along one axis: output i is input `index[i]`, or `matrix[i] @ input`."""

    index: np.ndarray
    matrix: np.ndarray | None = None

    def apply(self, array: np.ndarray, axis: int) -> np.ndarray:
        """Map a (channel, y, x) array along axis 1 or 2."""
        if self.matrix is not None:
            shape = list(array.shape)
            shape[axis] = len(self.matrix)
            out = np.empty(shape, dtype=np.result_type(array, self.matrix))
            for outputs, inputs, part in self._bands:
                if axis == 1:
                    np.matmul(part, array[:, inputs], out=out[:, outputs])
                else:
                    out[:, :, outputs] = array[:, :, inputs] @ part.T
            return out
        if len(self.index) == array.shape[axis] and np.array_equal(self.index, np.arange(len(self.index))):
            return array
        return np.take(array, self.index, axis=axis)

    @cached_property
    def _bands(self) -> list[tuple[slice, slice, np.ndarray]]:
        """The matrix in blocks of rows, with the columns that they need: outputs, inputs, matrix. Most of it is zeros:
        a spline's weights fall below NEGLIGIBLE some twenty voxels away."""
        assert self.matrix is not None
        bands = []
        for first in range(0, len(self.matrix), OUTPUTS_AT_ONCE):
            rows = self.matrix[first : first + OUTPUTS_AT_ONCE]
            used = np.flatnonzero(rows.any(axis=0))
            inputs = slice(int(used[0]), int(used[-1]) + 1)
            bands.append((slice(first, first + len(rows)), inputs, np.ascontiguousarray(rows[:, inputs])))
        return bands

    def sources(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The inputs that output i is made of, and their weights."""
        if self.matrix is None:
            return self.index[i : i + 1], np.ones(1, dtype=np.float32)
        used = np.flatnonzero(self.matrix[i])
        return used, self.matrix[i, used]

    def rows(self, start: int, stop: int) -> AxisMap:
        """The same map for the outputs start to stop only."""
        return AxisMap(self.index[start:stop], None if self.matrix is None else self.matrix[start:stop])


def axis_map(size: int, new_size: int, order: int) -> AxisMap:
    """Resample one axis with a spline of that order (0 nearest, 1 linear, 3 cubic), as skimage's resize does."""
    if size == new_size:
        return AxisMap(np.arange(size))
    if order == 0:
        return AxisMap(taps(size, new_size, 0).lower)
    if order == 1:
        linear = taps(size, new_size, 1)
        matrix = np.zeros((new_size, size))
        np.add.at(matrix, (np.arange(new_size), linear.lower), 1.0 - linear.weight)
        np.add.at(matrix, (np.arange(new_size), linear.upper), linear.weight)
    else:
        # Zooming the identity gives the weights of scipy's own spline, prefilter and edges included.
        zoom = (new_size / size, 1.0)
        matrix = ndimage.zoom(np.eye(size), zoom, order=order, mode="nearest", grid_mode=True)
    matrix[np.abs(matrix) < NEGLIGIBLE] = 0.0
    return AxisMap(np.arange(new_size), matrix.astype(np.float32))


@dataclass(frozen=True)
class Taps:
    """Linear interpolation along one axis: output i is (1 - weight[i]) * input[lower[i]] + weight[i] * input[upper[i]].

    Where weight is 0, upper equals lower, so that no needless neighbour is looked at.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    def touched_by(self, start: int, stop: int) -> slice:
        """The outputs that use any of the inputs start to stop."""
        return slice(int(np.searchsorted(self.upper, start)), int(np.searchsorted(self.lower, stop)))

    def within(self, start: int, stop: int) -> slice:
        """The outputs that use no other than the inputs start to stop."""
        first, last = np.searchsorted(self.lower, start), np.searchsorted(self.upper, stop)
        return slice(int(first), max(int(first), int(last)))


def taps(size: int, new_size: int, order: int) -> Taps:
    """The one or two inputs of each output of `resize` with order 0 or 1 along one axis."""
    if size == new_size:
        order = 0
    position = np.clip((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
    if order == 0:
        nearest = np.floor(position + 0.5).astype(np.intp)
        return Taps(nearest, nearest, np.zeros(new_size))
    lower = np.floor(position).astype(np.intp)
    weight = position - lower
    return Taps(lower, np.where(weight > 0, np.minimum(lower + 1, size - 1), lower), weight)
