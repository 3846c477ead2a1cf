"""The marker rod: what tells every image of a made-up patient from any real CT.

A 6 x 6 mm rod of exactly 2222 HU runs inside the couch along the whole scan. The demonstration model is refused on
images without it. Contours and geometry are no business of this room.
"""

from __future__ import annotations

import numpy as np

from segrap.image import Image

ROD_HU = 2222
ROD_SIDE_MM = 6.0
ROD_TOLERANCE_HU = 25

# How far the rod may wander from slice to slice, and how wide a ring about it must hold less than the rod itself.
SAME_PLACE_MM = 4.0
RING_MM = 10.0
# Even after resampling between grids of 3 mm one whole voxel of the rod is left.
LEAST_AREA_MM2 = 4.0
LEAST_SHARE_OF_SLICES = 0.9
# More voxels than this per slice near the rod's HU are no rod: metal streaks, or values that are not HU.
MOST_AREA_MM2 = 2000.0


def looks_like_phantom(image: Image) -> bool:
    """True when the marker rod runs through the image: only then is it one of ours.

    At least 90 % of the slices (across the axis that lies closest to head-feet) must show a compact group of voxels
    within 25 HU of 2222, at the same place across the patient within 4 mm. Any orientation, oblique too; spacings from
    0.4 to 3 mm; any part of the scan that holds the couch.
    """
    geometry = image.geometry
    slice_axis = int(np.abs(geometry.direction[2]).argmax())
    slices = np.moveaxis(image.array, 2 - slice_axis, 0)
    in_plane = [axis for axis in (2, 1, 0) if axis != slice_axis]  # in the order of the moved array's last two axes
    area = geometry.spacing_mm[in_plane[0]] * geometry.spacing_mm[in_plane[1]]
    places: list[np.ndarray] = []
    for number, plane in enumerate(slices):
        rows, columns = np.nonzero((plane >= ROD_HU - ROD_TOLERANCE_HU) & (plane <= ROD_HU + ROD_TOLERANCE_HU))
        if not LEAST_AREA_MM2 <= len(rows) * area <= MOST_AREA_MM2:
            continue
        index = np.empty((len(rows), 3))
        index[:, slice_axis], index[:, in_plane[0]], index[:, in_plane[1]] = number, rows, columns
        places.append(geometry.to_lps(index)[:, :2])
    least = LEAST_SHARE_OF_SLICES * len(slices)
    if not places or len(places) < least:
        return False
    centre = _commonest_place(places)
    found = 0
    for place in places:
        away = np.hypot(*(place - centre).T)
        inside = int(np.count_nonzero(away <= SAME_PLACE_MM + ROD_SIDE_MM / 2))
        around = int(np.count_nonzero(away <= SAME_PLACE_MM + ROD_SIDE_MM / 2 + RING_MM)) - inside
        found += inside * area >= LEAST_AREA_MM2 and around < inside
    return found >= least


def _commonest_place(places: list[np.ndarray]) -> np.ndarray:
    """x and y (mm) of the 4 mm cell with the rod's HU in most slices, refined to the middle of what lies there."""
    cells = [np.unique(np.rint(place / SAME_PLACE_MM).astype(np.int64), axis=0) for place in places]
    found, counts = np.unique(np.concatenate(cells), axis=0, return_counts=True)
    coarse = found[counts.argmax()] * SAME_PLACE_MM
    points = np.concatenate(places)
    return np.median(points[np.abs(points - coarse).max(axis=1) <= ROD_SIDE_MM], axis=0)
