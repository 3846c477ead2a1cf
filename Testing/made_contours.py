"""Small made-up contours for tests: all 47 structures, every allowed overlap, on grids of any orientation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.geometry import Geometry

STRAIGHT = Geometry((1.0, 1.5, 3.0), (-7.25, 4.5, 100.125))

_TILT = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
_NOD = np.array([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]])

GEOMETRIES = {
    "straight": STRAIGHT,
    "left and right swapped": Geometry((1.0, 1.5, 3.0), (10.0, 4.5, 100.125), np.diag([-1.0, 1.0, 1.0])),
    "head first backwards": Geometry((1.0, 1.5, 3.0), (10.0, -4.5, 1.0), np.diag([-1.0, -1.0, -1.0])),
    "sagittal": Geometry((2.0, 1.0, 1.25), (0.5, 0.25, -3.0), np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])),
    "oblique": Geometry((1.0, 1.5, 3.0), (-120.4, 33.3, -10.7), _TILT @ _NOD),
    "oblique and mirrored": Geometry((1.0, 1.5, 3.0), (20.0, 33.3, -10.7), _TILT @ _NOD @ np.diag([1.0, 1.0, -1.0])),
}

DEMONSTRATION = Provenance(
    model_name="Phantom",
    model_version="0.3",
    model_hash="0123abcd",
    intended_use="demonstration",
    licence="Apache-2.0",
    created="2026-03-01T10:00:00+00:00",
    software="segrap 0.1.0",
    input_series_uids=("1.2.3", "1.2.4"),
    remarks=('Resampled | "quoted" \\ back-slashed', "two\nlines", "façade"),
)


def every_structure_masks(seed: int = 0) -> dict[str, np.ndarray]:
    """Masks (z, y, x) of all 47 structures in blocks of 2 x 3 x 3 voxels: every sub-class occurs, none at the edge."""
    subclasses = np.zeros(4 * 5 * 6, dtype=np.uint8)
    subclasses[: len(anatomy.SUBCLASSES)] = sorted(anatomy.SUBCLASSES)
    blocks = np.random.default_rng(seed).permutation(subclasses).reshape(4, 5, 6)
    return anatomy.masks_from_subclasses(np.pad(np.kron(blocks, np.ones((2, 3, 3), dtype=np.uint8)), 1))


def every_structure(geometry: Geometry = STRAIGHT, seed: int = 0, provenance: Provenance = DEMONSTRATION) -> Contours:
    """Contours of all 47 structures; of the brain and the left lens it is known how sure a model of two folds was."""
    contours = Contours.from_masks(every_structure_masks(seed), geometry, provenance, {"Brain": 0.9321, "Lens_L": 0.5})
    structures = dict(contours.structures)
    for name, share in (("Brain", 0.0125), ("Lens_L", 0.25)):
        structures[name] = replace(structures[name], fold_disagreement=share)
    return replace(contours, structures=structures)


def one_voxel(name: str, zyx: tuple[int, int, int], geometry: Geometry) -> Contours:
    """Contours of one structure that is the single voxel (z, y, x) of a grid of 5 x 6 x 7."""
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[zyx] = True
    return Contours.from_masks({name: mask}, geometry, DEMONSTRATION)


def assert_same_masks(contours: Contours, masks: dict[str, np.ndarray]) -> None:
    """The contours hold these structures, in table order, and exactly these voxels."""
    assert contours.names == tuple(name for name in anatomy.NAMES if name in masks)
    for name, mask in masks.items():
        np.testing.assert_array_equal(contours.mask(name), mask, err_msg=name)
