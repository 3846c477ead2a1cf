"""Masks that RTSTRUCT writers are known to spoil, and small CTs in the orientations in which they go wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from synthetic_ct import (
    FEET_FIRST_SUPINE,
    HEAD_FIRST_DECUBITUS_RIGHT,
    HEAD_FIRST_PRONE,
    HEAD_FIRST_SUPINE,
    write_ct_series,
)

from segrap.contours import Contours, Provenance
from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.geometry import Geometry

SHAPE = (12, 44, 56)
SPACING_MM = (0.9, 1.2, 3.0)

ORIENTATIONS = {
    "head first supine": HEAD_FIRST_SUPINE,
    "feet first supine": FEET_FIRST_SUPINE,
    "head first prone": HEAD_FIRST_PRONE,
    "head first decubitus": HEAD_FIRST_DECUBITUS_RIGHT,
    "head tilted by 10 degrees": Rotation.from_euler("x", 10, degrees=True).as_matrix(),
    "turned about all axes": Rotation.from_euler("xyz", (8, -6, 11), degrees=True).as_matrix(),
}

DEMONSTRATION = Provenance(
    model_name="Example",
    model_version="1.2",
    model_hash="sha256:" + "0123456789abcdef" * 4,
    intended_use="demonstration",
    created="2026-01-02T03:04:05Z",
    software="segrap 0.0.0",
)


def difficult_masks() -> dict[str, np.ndarray]:
    """One mask (z, y, x) of SHAPE per structure name, each with what its comment says."""
    z, y, x = np.indices(SHAPE)

    def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
        offset = np.sqrt((3.0 * (z - centre[0])) ** 2 + (1.2 * (y - centre[1])) ** 2 + (0.9 * (x - centre[2])) ** 2)
        return offset < radius

    masks = {name: np.zeros(SHAPE, dtype=bool) for name in ("OpticNerve_L", "Cochlea_L", "Thyroid", "Trachea")}
    masks["Parotid_L"] = ball((6, 20, 40), 9)
    masks["OralCavity"] = ball((6, 22, 25), 14) & ~ball((6, 22, 25), 8)  # holes
    masks["GTVp"] = masks["OralCavity"] | ball((6, 22, 25), 4)  # an island in a hole
    masks["OpticNerve_L"][5, 10, 8:30] = True  # a line one voxel thick
    masks["OpticNerve_L"][5, 10:16, 30] = True
    masks["Mandible_L"] = ball((6, 30, 44), 5) | ball((6, 30, 14), 5)  # two pieces
    masks["Lens_L"] = ball((4, 18, 30), 6) & ball((4, 24, 30), 6)  # a lens
    masks["Cochlea_L"][7, 20, 30] = True  # one voxel
    masks["SpinalCord"] = ((y - 30) ** 2 + (x - 28) ** 2 < 20) & (z != 5)  # a slice is missing in between
    masks["Thyroid"][4, 10:20, 10:20] = np.eye(10, dtype=bool) | np.eye(10, dtype=bool)[::-1]  # voxels corner to corner
    masks["Brain"] = (z < 2) | (y > 39) | (x < 3)  # on every kind of border of the scan
    masks["Trachea"][3:6, 5:35, 5:45] = np.random.default_rng(1).random((3, 30, 40)) < 0.6  # pieces and holes galore
    return masks


def small_series(folder: Path, direction: np.ndarray = HEAD_FIRST_SUPINE) -> CTSeries:
    """A CT of SHAPE, written into `folder` and read back."""
    geometry = Geometry(SPACING_MM, (-20.37, -151.2, 33.33), direction)
    write_ct_series(folder, np.zeros(SHAPE), geometry)
    (series,) = read_series_folder(folder)
    return series


def contours_of(masks: dict[str, np.ndarray], series: CTSeries, provenance: Provenance = DEMONSTRATION) -> Contours:
    return Contours.from_masks(masks, series.geometry, provenance)
