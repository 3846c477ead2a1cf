"""Where in the images the patient is, so that tiles of nothing but air, couch or mask need not be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segrap.engine.prepare import Check, Frame, keep_going
from segrap.engine.tiles import TileGrid

AIR_HU = -500  # voxels above this are body (or couch, or mask): between air and lung or fat

# What is thinner than this everywhere and touches nothing thicker is no patient: couch tops are some millimetres thick
# shells round foam, masks two millimetres. A neck is 100 mm.
THIN_MM = 24.0
BLOCK_MM = 4.0


def tiles_with_body(
    frame: Frame, images: Sequence[np.ndarray], grid: TileGrid, check: Check = keep_going
) -> np.ndarray:
    """Which tiles the body depends on: bool, one entry per tile along each axis.

    A voxel of any image above AIR_HU is body, unless it belongs to something thin that lies apart (couch, mask). Its
    scores are interpolated from network voxels; every tile that covers one of those is needed. check is called before
    every slice.
    """
    views = [frame.view(image) for image in images]
    patient = _thick_parts(views, frame.spacing_mm, check)
    per_axis = [
        [
            frame.score_taps[axis].touched_by(start - grid.before[axis], start - grid.before[axis] + grid.patch[axis])
            for start in grid.starts[axis]
        ]
        for axis in range(3)
    ]
    columns = np.zeros((frame.shape[0], len(per_axis[1]), len(per_axis[2])), dtype=bool)
    first = np.array([part.start for part in per_axis[2]])
    behind = np.array([part.stop for part in per_axis[2]])
    for z in range(frame.shape[0]):
        check()
        body = np.logical_or.reduce([view[z] > AIR_HU for view in views])
        body &= patient.in_slice(z, body.shape)
        strips = np.stack([body[rows].any(axis=0) for rows in per_axis[1]])
        before = np.pad(strips.cumsum(axis=1), ((0, 0), (1, 0)))
        columns[z] = before[:, behind] > before[:, first]
    return np.stack([columns[slices].any(axis=0) for slices in per_axis[0]])


@dataclass(frozen=True)
class _Blocks:
    """Which blocks of voxels hold something thick: bool (z, y, x), each `size` voxels."""

    keep: np.ndarray
    size: tuple[int, int, int]

    def in_slice(self, z: int, shape: tuple[int, ...]) -> np.ndarray:
        """The kept part of voxel slice z, bool (y, x)."""
        rows = np.repeat(self.keep[z // self.size[0]], self.size[1], axis=0)
        return np.repeat(rows, self.size[2], axis=1)[: shape[0], : shape[1]]


def _thick_parts(views: Sequence[np.ndarray], spacing_mm: Sequence[float], check: Check) -> _Blocks:
    """Find what hangs together in blocks of about 4 mm; keep the parts that are thick somewhere (all if none is)."""
    size = tuple(max(1, round(BLOCK_MM / step)) for step in spacing_mm)
    depth, height, width = views[0].shape
    count = tuple(-(-n // k) for n, k in zip(views[0].shape, size, strict=True))
    filled = np.zeros(count, dtype=bool)
    rows, columns = np.arange(0, height, size[1]), np.arange(0, width, size[2])
    for z in range(depth):
        check()
        body = np.logical_or.reduce([view[z] > AIR_HU for view in views])
        filled[z // size[0]] |= np.logical_or.reduceat(np.logical_or.reduceat(body, rows, axis=0), columns, axis=1)
    parts, number = ndimage.label(filled, np.ones((3, 3, 3)))
    if number < 2:
        return _Blocks(filled, (size[0], size[1], size[2]))
    # The first and last slice are no surface: a head that the scan cuts is not thin there.
    step = np.array(size) * np.array(spacing_mm)
    inside = np.pad(filled, [(0, 0), (1, 1), (1, 1)])
    radius = ndimage.distance_transform_edt(inside, sampling=step)[:, 1:-1, 1:-1]
    thick = ndimage.maximum(radius, parts, np.arange(1, number + 1)) >= THIN_MM / 2
    keep = np.isin(parts, np.flatnonzero(thick) + 1) if thick.any() else filled
    return _Blocks(keep, (size[0], size[1], size[2]))
