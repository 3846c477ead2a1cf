"""Which files and folders are cases, as planning systems, nnU-Net and people keep them, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import run_segrap
from evaluation_cases import GEOMETRY, PREDICTION, REFERENCE, SHAPE, as_masks, drawn, table
from pydicom.uid import ExplicitVRLittleEndian
from rtstruct_cases import small_series

from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.ct.dicom_series import CTSeries
from segrap.errors import InputError
from segrap.evaluation.cases import find_cases
from segrap.evaluation.comparison import compare
from segrap.evaluation.evaluate import evaluate
from segrap.image import Image, write_image
from segrap.rtstruct.contents import RT_STRUCTURE_SET_STORAGE
from segrap.rtstruct.write import write_rtstruct

RT_PLAN_STORAGE = "1.2.840.10008.5.1.4.1.1.481.5"


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return as_masks(drawn(REFERENCE), tmp_path / "reference")


def a_larynx(series: CTSeries, up: int = 0) -> Contours:
    mask = np.zeros(series.shape, dtype=bool)
    mask[2 + up : 6 + up, 8:20, 10:25] = True
    return Contours.from_masks({"Larynx": mask}, series.geometry, Provenance())


# --- nnU-Net's own folders ---

SIDES = {"Parotid_R": (slice(1, 5), slice(3, 12), slice(2, 8)), "Parotid_L": (slice(1, 5), slice(3, 12), slice(16, 22))}
PLACES = [
    "fold_0/validation",
    "fold_all/validation",
    "fold_0_validation",
    "crossval_results_folds_0_1_2_3_4",
    "crossval_results_folds_0_1_2_3_4/postprocessed",
]


def validation(model: Path, place: str) -> Path:
    """What nnU-Net leaves of a case in a model's folder: the number 3 is the chiasm among SegRap's sub-classes."""
    (model / place).mkdir(parents=True)
    volume = np.zeros(SHAPE, dtype=np.uint8)
    for box in SIDES.values():
        volume[box] = 3
    write_image(Image(volume, GEOMETRY), model / place / "a.nii.gz")
    return model / place


def describe(model: Path) -> None:
    labels = {"background": 0, "Chiasm": 1, "Larynx": 2, "Parotid": 3}
    facts = {"split_at_midline": {"Parotid": ["Parotid_L", "Parotid_R"]}}
    for name, content in (("dataset", {"labels": labels}), ("segrap", facts)):
        (model / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("place", PLACES)
def test_nnunets_validation_is_read_with_the_labels_of_the_models_folder(tmp_path: Path, place: str) -> None:
    folder = validation(tmp_path / "model", place)
    describe(tmp_path / "model")
    as_masks(drawn(SIDES), tmp_path / "reference" / "a")
    assert table(compare(folder, tmp_path / "reference")) == dict.fromkeys(("Parotid_L", "Parotid_R"), (1.0, 1.0))


def test_nnunets_validation_is_read_from_inside_its_folder_too(tmp_path: Path) -> None:
    folder = validation(tmp_path / "model", "fold_0/validation")
    describe(tmp_path / "model")
    truth = as_masks(drawn(SIDES), tmp_path / "reference" / "a").parent
    done = run_segrap("evaluate", ".", truth, "--output", tmp_path / "out", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["methods"].values()
    assert found["means"]["Parotid_L"] == {"dsc": 1.0, "nsd": 1.0}


@pytest.mark.parametrize("place", PLACES)
def test_a_folds_labels_that_nothing_explains_are_not_guessed(tmp_path: Path, place: str) -> None:
    folder = validation(tmp_path / "model", place)
    truth = as_masks(drawn(SIDES), tmp_path / "reference" / "a").parent
    done = run_segrap("evaluate", folder, truth, "--output", tmp_path / "out")
    assert done.returncode == 3
    assert "a.nii.gz lies in" in done.stderr and "Copy the model's dataset.json" in done.stderr
    assert not (tmp_path / "out").exists()


# --- the folders of clinics ---


def test_a_folder_per_series_is_one_case_and_a_folder_of_such_is_several(tmp_path: Path) -> None:
    for patient, up in (("p1", 0), ("p2", 1)):
        series = small_series(tmp_path / "clinic" / patient / "CT")
        for side, moved in (("clinic", 0), ("mine", up)):
            place = tmp_path / side / patient / "RTSTRUCT"
            place.mkdir(parents=True)
            write_rtstruct(a_larynx(series, moved), series, place / "1-1.dcm")
    found = compare(tmp_path / "mine", tmp_path / "clinic")
    assert [(one.case, one.scores.dsc) for one in found.results] == [("p1", 1.0), ("p2", 0.75)]
    alone = compare(tmp_path / "mine" / "p2", tmp_path / "clinic" / "p2")
    assert [(one.case, one.scores.dsc) for one in alone.results] == [("p2", 0.75)]


def test_the_one_segmentation_in_a_patients_folder_is_its_case_whatever_it_is_called(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        (tmp_path / "mine" / patient).mkdir(parents=True)
        write_seg_nrrd(drawn(PREDICTION), tmp_path / "mine" / patient / f"{patient} by me.seg.nrrd")
        as_masks(drawn(PREDICTION), tmp_path / "reference" / patient)
    found = compare(tmp_path / "mine", tmp_path / "reference")
    assert not found.missing_cases and {one.scores.dsc for one in found.results} == {1.0}
    write_seg_nrrd(drawn(REFERENCE), tmp_path / "mine" / "p2" / "second.seg.nrrd")
    with pytest.raises(InputError, match=r"p2 holds 2 files of the kind \.seg\.nrrd"):
        find_cases(tmp_path / "mine")


def test_a_plan_that_names_its_structure_set_is_no_second_one(tmp_path: Path) -> None:
    series = small_series(tmp_path / "p1" / "ct")
    write_rtstruct(a_larynx(series), series, tmp_path / "p1" / "RS.dcm")
    plan, refers = pydicom.Dataset(), pydicom.Dataset()
    refers.ReferencedSOPClassUID, refers.ReferencedSOPInstanceUID = RT_STRUCTURE_SET_STORAGE, "1.2.3"
    plan.SOPClassUID, plan.SOPInstanceUID, plan.Modality = RT_PLAN_STORAGE, "1.2.4", "RTPLAN"
    plan.ReferencedStructureSetSequence = [refers]
    plan.file_meta = pydicom.dataset.FileMetaDataset()
    plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plan.save_as(tmp_path / "p1" / "RP.dcm", enforce_file_format=True)
    assert find_cases(tmp_path / "p1").cases["p1"].path.name == "RS.dcm"


def test_a_structure_set_of_before_part_10_is_known_by_its_own_class(tmp_path: Path) -> None:
    series = small_series(tmp_path / "p1" / "ct")
    write_rtstruct(a_larynx(series), series, tmp_path / "p1" / "RS.dcm")
    dataset = pydicom.dcmread(tmp_path / "p1" / "RS.dcm")
    del dataset.file_meta
    dataset.save_as(tmp_path / "p1" / "RS.dcm", implicit_vr=True, little_endian=True)
    assert find_cases(tmp_path / "p1").cases["p1"].kind == "RTSTRUCT"


# --- CTs beside contours ---

AIR = np.full(SHAPE, -1000, dtype=np.int16)


@pytest.mark.parametrize("names", [("a.nii.gz",), ("a_0000.nii.gz", "a_0001.nii.gz"), ("a.nrrd",)])
def test_the_ct_of_a_case_beside_it_is_no_case(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_seg_nrrd(drawn(REFERENCE), tmp_path / "a.seg.nrrd")
    for name in names:
        write_image(Image(AIR, GEOMETRY), tmp_path / name)
    found = find_cases(tmp_path)
    assert {name: case.path.name for name, case in found.cases.items()} == {"a": "a.seg.nrrd"}


def test_two_files_of_contours_of_one_patient_are_not_chosen_between(tmp_path: Path) -> None:
    write_seg_nrrd(drawn(REFERENCE), tmp_path / "a.seg.nrrd")
    write_image(Image(np.zeros(SHAPE, dtype=np.int16), GEOMETRY), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"the case a twice: a\.nii\.gz and a\.seg\.nrrd"):
        find_cases(tmp_path)


def test_labels_are_drawn_on_the_channel_beside_them_and_not_on_themselves(tmp_path: Path, reference: Path) -> None:
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume[REFERENCE["Larynx"]] = 48
    (tmp_path / "mine").mkdir()
    write_image(Image(volume, GEOMETRY), tmp_path / "mine" / "a.nii.gz")
    with pytest.raises(InputError, match=r"has no CT for a\."):
        evaluate([reference], tmp_path / "mine" / "a.nii.gz", tmp_path / "out", ct=tmp_path / "mine" / "a.nii.gz")
    write_image(Image(AIR, GEOMETRY), tmp_path / "mine" / "a_0000.nii.gz")
    evaluate([reference], tmp_path / "mine", tmp_path / "out", ct=tmp_path / "mine")
    assert (tmp_path / "out" / "patients.png").is_file()


# --- what cannot be told from missing ---


def test_that_an_rtstruct_cannot_say_that_a_structure_is_empty_is_said(tmp_path: Path) -> None:
    series = small_series(tmp_path / "clinic" / "ct")
    larynx = a_larynx(series).mask("Larynx")
    masks = {"Larynx": larynx, "Chiasm": np.zeros_like(larynx)}
    contours = Contours.from_masks(masks, series.geometry, Provenance())
    as_masks(contours, tmp_path / "reference")
    write_rtstruct(contours, series, tmp_path / "clinic" / "RS.dcm")
    found = compare(tmp_path / "clinic", tmp_path / "reference")
    assert table(found)["Chiasm"] == (0.0, 0.0)
    (remark,) = found.remarks
    assert remark.startswith("reference: Not in the RTSTRUCT, which holds no empty structures")
    assert "reference: Chiasm." in remark
    write_seg_nrrd(contours, tmp_path / "same.seg.nrrd")
    found = compare(tmp_path / "same.seg.nrrd", tmp_path / "reference")
    assert (table(found)["Chiasm"], found.remarks) == ((1.0, 1.0), ())
