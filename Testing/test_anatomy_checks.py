"""What all patients share: sides, heights, neighbours, likeness of sides, density. Faults made in a whole patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.geometry import Geometry
from segrap.image import Image, read_image
from segrap.quality import check
from segrap.quality.anatomy_checks import check_anatomy
from segrap.quality.findings import Finding
from segrap.training.openkbp import OPENKBP_LABELS, split_mandible
from segrap.training.phantom import Phantom, PhantomCase

Masks = dict[str, np.ndarray]
MM = 3.0


@pytest.fixture(scope="module")
def patient() -> PhantomCase:
    return Phantom(3).render(spacing_mm=(MM, MM, MM))


@pytest.fixture(scope="module")
def masks(patient: PhantomCase) -> Masks:
    return anatomy.masks_from_subclasses(patient.subclasses.array)


def made(masks: Mapping[str, np.ndarray], geometry: Geometry) -> Contours:
    return Contours.from_masks(masks, geometry, Provenance("test", "1"))


def shifted(mask: np.ndarray, mm: tuple[float, float, float]) -> np.ndarray:
    """Moved by (z, y, x) mm; what leaves the scan is gone."""
    return np.roll(mask, [round(one / MM) for one in mm], axis=(0, 1, 2))


def found(masks: Masks, patient: PhantomCase, kind: str) -> list[Finding]:
    contours = made(masks, patient.non_contrast.geometry)
    return [finding for finding in check_anatomy(contours, patient.non_contrast) if finding.kind == kind]


# ---- silence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_whole_patient_gives_no_finding(seed: int) -> None:
    case = Phantom(seed).render(spacing_mm=(4.0, 4.0, 4.0))
    truth = made(anatomy.masks_from_subclasses(case.subclasses.array), case.non_contrast.geometry)
    assert check_anatomy(truth, case.non_contrast) == []
    assert check_anatomy(truth, None) == []


@pytest.mark.parametrize("degrees", [(20, 0, 0), (-20, 0, 0), (0, 20, 0), (0, 0, -20), (12, -12, 12)])
def test_a_patient_who_is_turned_in_the_scanner_gives_no_finding(
    degrees: tuple[float, float, float], patient: PhantomCase, masks: Masks
) -> None:
    turned = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ patient.non_contrast.geometry.direction
    geometry = Geometry((MM, MM, MM), (0.0, 0.0, 0.0), turned)
    assert check_anatomy(made(masks, geometry), Image(patient.non_contrast.array, geometry)) == []


@pytest.mark.parametrize("slices", [slice(0, 65), slice(0, 85), slice(30, 130), slice(45, 90), slice(60, 130)])
def test_a_scan_that_cuts_organs_off_gives_no_finding(slices: slice, patient: PhantomCase, masks: Masks) -> None:
    image = Image(patient.non_contrast.array[slices], patient.non_contrast.geometry)
    cut = {name: mask[slices] for name, mask in masks.items()}
    assert check_anatomy(made(cut, image.geometry), image) == []


def test_a_patient_after_a_neck_dissection_and_a_model_of_few_structures_give_no_finding(
    patient: PhantomCase, masks: Masks
) -> None:
    gone = {"Submandibular_L": 0 * masks["Submandibular_L"], "Parotid_L": 0 * masks["Parotid_L"]}
    for some in (masks | gone, {"Parotid_R": masks["Parotid_R"]}, {"BrainStem": masks["BrainStem"], **gone}):
        assert check_anatomy(made(some, patient.non_contrast.geometry), patient.non_contrast) == []


@pytest.mark.parametrize("patient_name", ["pt_202", "pt_210", "pt_225"])
def test_a_real_patient_as_the_clinic_drew_him_gives_no_finding(patient_name: str, shared_data: Path) -> None:
    folder = shared_data / "openkbp" / "validation" / patient_name
    labels = split_mandible(read_image(folder / "labels.nii.gz").array)
    names = {**OPENKBP_LABELS, 7: "Mandible_R", 8: "Mandible_L"}
    ct = read_image(folder / "ct.nii.gz")
    drawn = {name: labels == value for value, name in names.items() if (labels == value).any()}
    assert check_anatomy(made(drawn, ct.geometry), ct) == []


# ---- sides ----------------------------------------------------------------------------------------------------------


def test_both_parotids_on_one_side_of_the_patient_are_a_fault_of_the_one_that_is_wrong(
    patient: PhantomCase, masks: Masks
) -> None:
    right = masks["Parotid_R"]
    middle = int(np.argwhere(right)[:, 2].mean())
    left = right & (np.arange(right.shape[2]) >= middle)
    (finding,) = found(masks | {"Parotid_L": left, "Parotid_R": right & ~left}, patient, "side")
    assert (finding.structure, finding.severity) == ("Parotid_L", "fault")
    assert finding.message.startswith("Lies on the patient's right, ")
    assert finding.where is not None and left[finding.where]


def test_a_single_gland_named_after_the_wrong_side_is_a_fault(patient: PhantomCase, masks: Masks) -> None:
    empty = np.zeros_like(masks["Brain"])
    (finding,) = found(masks | {"Submandibular_L": masks["Submandibular_R"], "Submandibular_R": empty}, patient, "side")
    assert finding.structure == "Submandibular_L"


def test_the_bones_and_the_brain_are_enough_to_tell_the_sides(patient: PhantomCase, masks: Masks) -> None:
    some = {"Brain": masks["Brain"], "Parotid_L": masks["Parotid_R"]}
    assert [finding.structure for finding in found(some, patient, "side")] == ["Parotid_L"]


def test_exchanged_sides_are_said_once(patient: PhantomCase, masks: Masks) -> None:
    exchanged = masks | {"Eye_L": masks["Eye_R"], "Eye_R": masks["Eye_L"]}
    contours = made(exchanged, patient.non_contrast.geometry)
    sides = [finding for finding in check(contours, patient.non_contrast) if finding.kind == "side"]
    assert [(finding.structure, finding.other) for finding in sides] == [("Eye_L", "Eye_R")]


# ---- heights and neighbours -----------------------------------------------------------------------------------------


def test_a_brain_at_the_feet_end_is_one_fault_that_counts_its_witnesses(patient: PhantomCase, masks: Masks) -> None:
    brain = shifted(masks["Brain"], (-240, 0, 0))
    (finding,) = found(masks | {"Brain": brain}, patient, "order")
    assert (finding.structure, finding.severity) == ("Brain", "fault")
    assert (
        "which belongs below it" in finding.message and "other structures contradict its height too" in finding.message
    )


def test_a_supraglottic_larynx_below_the_glottis_is_a_fault(patient: PhantomCase, masks: Masks) -> None:
    upside_down = {"Larynx_Glottic": masks["Larynx_Supraglot"], "Larynx_Supraglot": masks["Larynx_Glottic"]}
    (finding,) = found(masks | upside_down, patient, "order")
    assert {finding.structure, finding.other} == set(upside_down)


@pytest.mark.parametrize(
    ("upper", "lower"), [("BrainStem", "SpinalCord"), ("PharynxConst", "Esophagus"), ("Larynx", "Trachea")]
)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_gap_between_what_is_joined_is_to_be_looked_at(
    upper: str, lower: str, flipped: bool, patient: PhantomCase, masks: Masks
) -> None:
    mask = masks[lower].copy()
    mask[np.argwhere(mask)[:, 0].max() - 5 :] = False  # 18 mm of its upper end
    geometry = patient.non_contrast.geometry
    both = {upper: masks[upper], lower: mask}
    if flipped:
        geometry = Geometry((MM, MM, MM), geometry.origin_mm, np.diag([1.0, 1.0, -1.0]))
        both = {name: one[::-1] for name, one in both.items()}
    (finding,) = check_anatomy(made(both, geometry), None)
    assert (finding.structure, finding.other, finding.kind, finding.severity) == (lower, upper, "gap", "unusual")
    assert finding.where is not None and both[lower][finding.where]
    step = -1 if flipped else 1
    assert not both[lower][finding.where[0] + step].any()


# ---- size, density, slices ------------------------------------------------------------------------------------------


def test_parotids_of_which_one_is_twice_the_other_are_to_be_looked_at(patient: PhantomCase, masks: Masks) -> None:
    left = masks["Parotid_L"]
    inside = left & (np.arange(len(left))[:, None, None] >= np.argwhere(left)[:, 0].mean() + 3)
    (finding,) = found(masks | {"Parotid_L": inside}, patient, "volume")
    assert (finding.structure, finding.other, finding.severity) == ("Parotid_L", "Parotid_R", "unusual")
    assert "times the smaller" in finding.message and "unless a tumour or an operation" in finding.message


def test_an_organ_that_the_scan_cuts_off_is_not_compared_with_its_twin(patient: PhantomCase, masks: Masks) -> None:
    left = masks["Parotid_L"]
    low = int(np.argwhere(left)[:, 0].mean())
    cut = {name: mask[low:] for name, mask in masks.items()} | {
        "Parotid_R": shifted(masks["Parotid_R"], (6, 0, 0))[low:]
    }
    image = Image(patient.non_contrast.array[low:], patient.non_contrast.geometry)
    assert not [one for one in check_anatomy(made(cut, image.geometry), image) if one.kind == "volume"]


def full_of(value: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda image, mask: np.where(mask, value, image).astype(np.int16)


@pytest.mark.parametrize(
    ("name", "value"),
    [("Parotid_L", 1200), ("BrainStem", 900), ("Trachea", 40), ("Mandible_R", 40), ("Esophagus", -950)],
)
def test_a_median_that_the_organ_cannot_have_is_to_be_looked_at(
    name: str, value: int, patient: PhantomCase, masks: Masks
) -> None:
    image = Image(full_of(value)(patient.non_contrast.array, masks[name]), patient.non_contrast.geometry)
    findings = check_anatomy(made(masks, image.geometry), image)
    (finding,) = (one for one in findings if one.structure == name)
    assert (finding.kind, finding.severity) == ("density", "unusual")
    assert f"than {value} HU" in finding.message


@pytest.mark.parametrize(("slice_mm", "count"), [(5.0, 0), (10.0, 1)])
def test_thick_slices_are_one_finding_for_the_scan_at_what_suffers_most(slice_mm: float, count: int) -> None:
    case = Phantom(3).render(spacing_mm=(MM, MM, slice_mm))
    whole = made(anatomy.masks_from_subclasses(case.subclasses.array), case.non_contrast.geometry)
    findings = [finding for finding in check_anatomy(whole, case.non_contrast) if finding.kind == "slices"]
    assert len(findings) == count
    for finding in findings:
        assert finding.severity == "unusual" and "lie 10 mm apart" in finding.message
        assert "It lies in 1 of them" in finding.message
