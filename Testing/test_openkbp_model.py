"""The research model that ships: what a person gets who has a real CT and has installed nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap
from scipy import ndimage

from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Contours
from segrap.image import read_image
from segrap.models.library import SHIPPED
from segrap.training.openkbp import RECIPE, split_mandible
from segrap.training.recipe import CONFIGURATION
from segrap.training.scores import dice

NAMES = {name for name in RECIPE.labels if name != "background"}


def contoured(ct: Path, output: Path) -> Contours:
    done = run_segrap("contour", ct, "--output", output)
    assert done.returncode == 0, done.stderr
    return read_seg_nrrd(output / "contours.seg.nrrd")


@pytest.fixture(scope="module")
def patient(shared_data: Path) -> Path:
    return shared_data / "openkbp" / "validation" / "pt_202"


@pytest.fixture(scope="module")
def contours(patient: Path, tmp_path_factory: pytest.TempPathFactory) -> Contours:
    return contoured(patient / "ct.nii.gz", tmp_path_factory.mktemp("openkbp") / "out")


def test_it_is_what_a_real_ct_gets_and_it_says_that_it_is_for_research(contours: Contours) -> None:
    assert contours.provenance.model_name == "OpenKBP_8"
    assert contours.provenance.intended_use == "research"
    assert set(contours.names) == NAMES


def test_an_unseen_patients_organs_are_where_the_clinic_drew_them(contours: Contours, patient: Path) -> None:
    """Far below the means of the model card: a fault of orientation, spacing or normalisation leaves nothing."""
    drawn = split_mandible(read_image(patient / "labels.nii.gz").array)
    for name in ("BrainStem", "SpinalCord", "Parotid_L", "Parotid_R", "Mandible_L", "Mandible_R"):
        assert dice(contours.mask(name), drawn == RECIPE.labels[name]) > 0.65, name


def test_its_plans_are_the_recipes_and_bring_a_ct_to_the_grid_as_training_did() -> None:
    """Linear, as `read_case` does it: cubic interpolation of what was learned from linear cost 0.006 of mean Dice."""
    plans = json.loads((SHIPPED / "OpenKBP_8" / "plans.json").read_text(encoding="utf-8"))
    assert plans == RECIPE.plans()
    assert plans["configurations"][CONFIGURATION]["resampling_fn_data_kwargs"]["order"] == 1


@pytest.mark.parametrize("scan", ["visible_human_head"])
def test_a_scan_at_a_clinics_resolution_keeps_sides_and_single_pieces(
    scan: str, shared_data: Path, tmp_path: Path
) -> None:
    """Another scanner, 1 mm voxels, a head only: no contours exist for it, but anatomy holds."""
    found = contoured(shared_data / scan, tmp_path / "out")
    middle = {name: np.argwhere(found.mask(name)).mean(axis=0) for name in found.names}
    for organ in ("Parotid", "Mandible"):
        assert middle[f"{organ}_L"][2] > middle[f"{organ}_R"][2] + 40  # mm: the arrays run to the patient's left
    assert middle["BrainStem"][0] > middle["SpinalCord"][0] > middle["Larynx"][0]
    for name in ("BrainStem", "Parotid_L", "Parotid_R", "Mandible_L", "Mandible_R"):
        pieces = np.bincount(ndimage.label(found.mask(name), np.ones((3, 3, 3)))[0].ravel())[1:]
        assert pieces.max() > 0.95 * pieces.sum(), name
