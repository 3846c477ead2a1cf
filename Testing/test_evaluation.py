"""Comparing contours on disk: every format, pairing of cases, what is refused, and the tables that come out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from conftest import run_segrap
from evaluation_cases import (
    GEOMETRY,
    PREDICTION,
    REFERENCE,
    SHAPE,
    as_masks,
    as_segmentation,
    as_stacks,
    drawn,
    folder_of_cases,
    table,
)
from rtstruct_cases import small_series

from segrap.contour_files.formats import read_nifti_folder
from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.dicom_seg.write import write_dicom_seg
from segrap.errors import InputError
from segrap.evaluation.comparison import compare
from segrap.evaluation.evaluate import evaluate
from segrap.geometry import Geometry
from segrap.image import AxisOrder, Image, write_image
from segrap.rtstruct.write import write_rtstruct
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import write_dicom_patient, write_nifti_pair


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return as_masks(drawn(REFERENCE), tmp_path / "reference")


# --- formats ---


@pytest.mark.parametrize("written", [as_segmentation, as_masks, as_stacks])
def test_every_format_scores_alike(tmp_path: Path, reference: Path, written):
    expected = table(compare(as_masks(drawn(PREDICTION), tmp_path / "expected"), reference))
    assert 0 < min(dsc for dsc, _ in expected.values()) < 1
    found = table(compare(written(drawn(PREDICTION), tmp_path / "prediction"), reference))
    assert found == expected


def test_a_single_segmentation_file_is_a_case(tmp_path: Path, reference: Path):
    write_seg_nrrd(drawn(REFERENCE), tmp_path / "mine.seg.nrrd")
    assert set(table(compare(tmp_path / "mine.seg.nrrd", reference)).values()) == {(1.0, 1.0)}


def test_an_rtstruct_beside_its_ct_is_a_case(tmp_path: Path):
    series = small_series(tmp_path / "reference" / "ct")
    mask = np.zeros(series.shape, dtype=bool)
    mask[2:6, 8:20, 10:25] = True
    contours = Contours.from_masks({"Larynx": mask}, series.geometry, Provenance())
    write_rtstruct(contours, series, tmp_path / "reference" / "RTSTRUCT.dcm")
    moved = Contours.from_masks({"Larynx": np.roll(mask, 1, 0)}, series.geometry, Provenance())
    (tmp_path / "prediction").mkdir()
    write_rtstruct(moved, series, tmp_path / "prediction" / "RTSTRUCT.dcm")  # its CT lies with the reference only
    assert table(compare(tmp_path / "prediction", tmp_path / "reference"))["Larynx"][0] == 0.75


def test_contours_under_a_sites_own_names_are_scored_in_dicom_of_both_kinds(tmp_path: Path):
    """The prediction as a DICOM SEG, the reference an RTSTRUCT of the clinic beside its CT."""
    series = small_series(tmp_path / "clinic" / "ct")
    mask = np.zeros(series.shape, dtype=bool)
    mask[2:6, 8:20, 10:25] = True
    (tmp_path / "mine").mkdir()
    contours = Contours.from_masks({"Larynx": mask}, series.geometry, Provenance())
    write_rtstruct(contours, series, tmp_path / "clinic" / "RS.dcm", names={"Larynx": "Kehlkopf"})
    moved = Contours.from_masks({"Larynx": np.roll(mask, 1, 0)}, series.geometry, Provenance())
    write_dicom_seg(moved, series, tmp_path / "mine" / "SEG.dcm")
    names = tmp_path / "names.json"
    names.write_text('{"Larynx": "Kehlkopf"}', encoding="utf-8")
    sides = (tmp_path / "mine", tmp_path / "clinic")
    assert run_segrap("evaluate", *sides, "--output", tmp_path / "out").returncode == 3
    done = run_segrap("evaluate", *sides, "--names", names, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["methods"]["mine"]["means"]["Larynx"]["dsc"] == 0.75


def test_two_structure_sets_of_one_patient_are_not_chosen_between(tmp_path: Path, reference: Path):
    series = small_series(tmp_path / "clinic" / "ct")
    mask = np.zeros(series.shape, dtype=bool)
    mask[2:6, 8:20, 10:25] = True
    for name in ("first.dcm", "second.dcm"):
        write_rtstruct(Contours.from_masks({"Larynx": mask}, series.geometry, Provenance()), series,
                       tmp_path / "clinic" / name)  # fmt: skip
    with pytest.raises(InputError, match="holds 2 files of the kind RTSTRUCT"):
        compare(reference, tmp_path / "clinic")


def test_dicom_contours_far_from_their_ct_are_read_with_the_ct_that_is_given(tmp_path: Path):
    case = Phantom(3).render(spacing_mm=(8.0, 8.0, 8.0))
    write_dicom_patient(case, tmp_path / "scans" / "p3", 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "scans" / "p3" / "RTSTRUCT.dcm").rename(tmp_path / "mine" / "RTSTRUCT.dcm")
    write_nifti_pair(case, tmp_path / "reference" / "p3", 3)
    sides = ([tmp_path / "mine"], tmp_path / "reference" / "p3", tmp_path / "out")
    with pytest.raises(InputError, match="needs the CT"):
        evaluate(*sides)
    comparisons, _ = evaluate(*sides, ct=tmp_path / "scans")
    assert {one.scores.dsc for one in comparisons["mine"].results if one.state == "scored"} == {1.0}


def test_a_made_up_patient_in_dicom_carries_its_true_contours(tmp_path: Path):
    case = Phantom(3).render(spacing_mm=(8.0, 8.0, 8.0))
    write_dicom_patient(case, tmp_path / "dicom", 3)
    write_nifti_pair(case, tmp_path / "nifti", 3)
    scores = [one.scores.dsc for one in compare(tmp_path / "nifti", tmp_path / "dicom").results]
    assert len(scores) > 30 and set(scores) == {1.0}


def test_an_rtstruct_without_its_ct_is_refused(tmp_path: Path, reference: Path):
    series = small_series(tmp_path / "ct")
    mask = np.zeros(series.shape, dtype=bool)
    mask[2:6, 8:20, 10:25] = True
    (tmp_path / "prediction").mkdir()
    contours = Contours.from_masks({"Larynx": mask}, series.geometry, Provenance())
    write_rtstruct(contours, series, tmp_path / "prediction" / "RTSTRUCT.dcm")
    with pytest.raises(InputError, match="needs the CT that it was drawn on"):
        compare(tmp_path / "prediction", reference)


def labels(values: Mapping[int, tuple[slice, slice, slice]]) -> np.ndarray:
    volume = np.zeros(SHAPE, dtype=np.int16)
    for value, box in values.items():
        volume[box] = value
    return volume


def test_a_volume_of_sub_class_ids_is_a_case_with_all_organs(tmp_path: Path):
    volume = labels({48: REFERENCE["Larynx"], 40: REFERENCE["Parotid_L"]})
    write_image(Image(volume, GEOMETRY), tmp_path / "segrap_0001.nii.gz")
    as_masks(drawn({"Larynx": REFERENCE["Larynx"]}), tmp_path / "mine")
    found = table(compare(tmp_path / "mine", tmp_path / "segrap_0001.nii.gz"))
    assert len(found) == 45
    assert found["Larynx"] == (1.0, 1.0)


def test_a_volume_of_ones_and_twos_is_the_two_targets(tmp_path: Path):
    write_image(Image(labels({1: REFERENCE["GTVp"], 2: REFERENCE["Chiasm"]}), GEOMETRY), tmp_path / "a.nii.gz")
    found = compare(as_masks(drawn({"GTVp": REFERENCE["GTVp"]}), tmp_path / "mine"), tmp_path / "a.nii.gz")
    assert table(found) == {"GTVp": (1.0, 1.0), "GTVnd": (0.0, 0.0)}
    assert found.remarks == ("a: Read as the challenge's targets: 1 for GTVp, 2 for GTVnd.",)


def test_what_is_the_same_of_many_cases_is_said_once(tmp_path: Path):
    (tmp_path / "labels").mkdir()
    for name in "abcde":
        write_image(Image(labels({1: REFERENCE["GTVp"]}), GEOMETRY), tmp_path / "labels" / f"{name}.nii.gz")
    found = compare(folder_of_cases(tmp_path / "mine", "abcde"), tmp_path / "labels")
    assert found.remarks == ("a, b, c and 2 more: Read as the challenge's targets: 1 for GTVp, 2 for GTVnd.",)


@pytest.mark.parametrize("axes", ["LPS", "RAS"])
def test_the_labels_of_nnunets_predictions_are_those_of_its_dataset_json(tmp_path: Path, axes: str):
    """As nnUNetv2_predict leaves them: numbers of the model's own, a label without a side."""
    mandible = (slice(1, 3), slice(2, 4), slice(2, 20))
    (tmp_path / "predicted").mkdir()
    volume = labels({1: REFERENCE["Chiasm"], 2: mandible, 3: REFERENCE["Larynx"]})
    predicted = tmp_path / "predicted" / "case.nii.gz"
    write_image(Image(volume, GEOMETRY), predicted)
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(predicted)), axes), str(predicted))
    names = {"background": 0, "chiasma": 1, "jaw": 2, "Larynx": 3}
    facts = {"structures": {"chiasma": ["Chiasm"]}, "split_at_midline": {"jaw": ["Mandible_L", "Mandible_R"]}}
    for name, content in (("dataset", {"labels": names}), ("segrap", facts)):
        (tmp_path / "predicted" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    halves = {"Mandible_R": (*mandible[:2], slice(2, 11)), "Mandible_L": (*mandible[:2], slice(11, 20))}
    truth = as_masks(drawn({**halves, **{name: REFERENCE[name] for name in ("Chiasm", "Larynx")}}), tmp_path / "truth")
    found = compare(predicted, truth)
    assert table(found) == dict.fromkeys(("Chiasm", "Mandible_L", "Mandible_R", "Larynx"), (1.0, 1.0))
    write_image(Image(volume + (volume == 3), GEOMETRY), predicted)
    with pytest.raises(InputError, match=r"values from 0 to 4\. .* numbers 0 to 3: those of .*dataset\.json"):
        compare(predicted, truth)
    (tmp_path / "predicted" / "segrap.json").unlink()
    with pytest.raises(InputError, match="neither structures nor sub-classes of SegRap2023: chiasma, jaw"):
        compare(predicted, truth)


@pytest.mark.parametrize("value", [57, -1, 255])
def test_label_values_outside_the_table_are_refused(tmp_path: Path, reference: Path, value: int):
    write_image(Image(labels({value: REFERENCE["Larynx"]}), GEOMETRY), tmp_path / "case.nii.gz")
    with pytest.raises(InputError, match=rf"case\.nii\.gz holds values from .*{value}"):
        compare(tmp_path / "case.nii.gz", reference)


def test_masks_of_0_and_255_are_read_as_the_challenge_reads_them(tmp_path: Path, reference: Path):
    (tmp_path / "theirs").mkdir()
    mask = labels({255: REFERENCE["Larynx"]})
    write_image(Image(mask, GEOMETRY), tmp_path / "theirs" / "Larynx.nii.gz")
    assert table(compare(tmp_path / "theirs", reference))["Larynx"] == (1.0, 1.0)


# --- grids ---


@pytest.mark.parametrize(
    "geometry",
    [
        replace(GEOMETRY, origin_mm=(-10.0, 5.75, 40.0)),
        replace(GEOMETRY, spacing_mm=(0.75, 0.76, 3.0)),
        replace(GEOMETRY, direction=np.array([[1, 0, 0], [0, 0.9848, -0.1736], [0, 0.1736, 0.9848]])),
    ],
)
def test_another_grid_is_refused_with_its_numbers(tmp_path: Path, reference: Path, geometry: Geometry):
    prediction = as_segmentation(drawn(PREDICTION, geometry), tmp_path / "prediction")
    with pytest.raises(InputError, match=r"different grids.*24 x 20 x 8 voxels of 0\.75 x 0\.7\d x 3 mm"):
        compare(prediction, reference)


def test_a_stack_of_another_size_is_refused(tmp_path: Path, reference: Path):
    smaller = Contours.from_masks({"GTVp": np.ones((8, 20, 23), dtype=bool)}, GEOMETRY, Provenance())
    with pytest.raises(InputError, match="different grids"):
        compare(as_stacks(smaller, tmp_path / "prediction"), reference)


@pytest.mark.parametrize(
    "direction",
    [
        np.diag([-1.0, -1.0, 1.0]),  # RAS
        np.diag([1.0, 1.0, -1.0]),  # slices from the head down
        np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),  # sagittal
    ],
)
def test_a_prediction_in_another_axis_order_is_turned_exactly(tmp_path: Path, reference: Path, direction: np.ndarray):
    straight = drawn(PREDICTION)
    expected = table(compare(as_segmentation(straight, tmp_path / "straight"), reference))
    order = AxisOrder.towards_lps(Geometry((1, 1, 1), direction=direction))
    # The same voxels in the same places, stored along other axes.
    index_axes = [int(np.abs(direction[:, axis]).argmax()) for axis in range(3)]
    spacing = tuple(GEOMETRY.spacing_mm[axis] for axis in index_axes)
    stored = {name: order.undo(straight.mask(name)).copy() for name in straight.names}
    shape = next(iter(stored.values())).shape
    first = [
        0.0 if direction[patient, axis] > 0 else (shape[2 - axis] - 1) * spacing[axis]
        for axis, patient in enumerate(index_axes)
    ]
    origin = np.array(GEOMETRY.origin_mm)
    for axis, patient in enumerate(index_axes):
        origin[patient] += first[axis]
    turned = Contours.from_masks(stored, Geometry(spacing, tuple(origin), direction), Provenance())
    found = table(compare(as_segmentation(turned, tmp_path / "turned"), reference))
    assert found == {name: (pytest.approx(dsc), pytest.approx(nsd)) for name, (dsc, nsd) in expected.items()}


def test_an_oblique_grid_scores_as_a_straight_one(tmp_path: Path, reference: Path):
    tilted = replace(GEOMETRY, direction=np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]]))
    straight = compare(as_masks(drawn(PREDICTION), tmp_path / "a"), reference)
    oblique = compare(as_segmentation(drawn(PREDICTION, tilted), tmp_path / "b"),
                      as_masks(drawn(REFERENCE, tilted), tmp_path / "c"))  # fmt: skip
    assert table(oblique) == {name: pytest.approx(values) for name, values in table(straight).items()}


def test_that_a_stack_has_no_place_in_space_is_said(tmp_path: Path, reference: Path):
    found = compare(as_stacks(drawn(PREDICTION), tmp_path / "prediction"), reference)
    assert any("no place in space" in remark for remark in found.remarks)


# --- cases and structures that are missing ---


def test_a_structure_that_was_not_handed_in_scores_0_and_is_listed(tmp_path: Path, reference: Path):
    without = {name: box for name, box in REFERENCE.items() if name != "Chiasm"}
    found = compare(as_masks(drawn(without), tmp_path / "prediction"), reference)
    assert table(found)["Chiasm"] == (0.0, 0.0)
    assert found.missing_structures == ("Chiasm (reference)",)


def test_a_structure_without_a_reference_is_listed_and_not_scored(tmp_path: Path, reference: Path):
    more = {**REFERENCE, "Thyroid": (slice(0, 2), slice(0, 4), slice(0, 4))}
    found = compare(as_masks(drawn(more), tmp_path / "prediction"), reference)
    assert found.extra_structures == ("Thyroid",)
    assert "Thyroid" not in found.structures


def test_empty_structures_on_both_sides_agree(tmp_path: Path):
    nothing = {"Larynx": (slice(0), slice(0), slice(0)), "Chiasm": (slice(0), slice(0), slice(0))}
    sides = [as_masks(drawn(nothing), tmp_path / side) for side in ("prediction", "reference")]
    assert table(compare(*sides)) == {"Chiasm": (1.0, 1.0), "Larynx": (1.0, 1.0)}


def test_a_case_without_a_prediction_scores_0_and_is_listed(tmp_path: Path):
    found = compare(folder_of_cases(tmp_path / "p", "ac"), folder_of_cases(tmp_path / "r", "abc"))
    assert found.missing_cases == ("b",)
    assert [one.scores.dsc for one in found.of("Larynx")] == [1.0, 0.0, 1.0]


def test_a_prediction_without_a_reference_is_listed_and_not_scored(tmp_path: Path):
    found = compare(folder_of_cases(tmp_path / "p", "abc"), folder_of_cases(tmp_path / "r", "ab"))
    assert found.extra_cases == ("c",)
    assert found.cases == ("a", "b")


def test_folders_without_a_common_case_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="No case has both: the predictions are called a, b, c and 1 more"):
        compare(folder_of_cases(tmp_path / "p", "abcd"), folder_of_cases(tmp_path / "r", "xy"))


def test_one_case_against_a_folder_of_several_is_refused(tmp_path: Path, reference: Path):
    with pytest.raises(InputError, match="The prediction has 1 case and the reference 2 cases"):
        compare(reference, folder_of_cases(tmp_path / "r", "xy"))


def test_a_folder_without_contours_is_refused(tmp_path: Path, reference: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no contours"):
        compare(tmp_path / "empty", reference)


def test_a_corrupt_nifti_is_refused_by_case_and_name(tmp_path: Path, reference: Path):
    prediction = as_masks(drawn(PREDICTION), tmp_path / "patient_7")
    whole = (prediction / "Larynx.nii.gz").read_bytes()
    (prediction / "Larynx.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"Case patient_7: Larynx\.nii\.gz"):
        compare(prediction, reference)


def test_a_stack_of_44_channels_is_refused(tmp_path: Path, reference: Path):
    as_stacks(drawn(PREDICTION), tmp_path / "prediction")
    path = tmp_path / "prediction" / "oars.mha"
    path.write_bytes(path.read_bytes().replace(b"DimSize = 24 20 8 45", b"DimSize = 24 20 8 44"))
    with pytest.raises(InputError, match="44 channels"):
        compare(path, reference)


# --- the command ---


def test_the_command_writes_the_tables_and_prints_json(tmp_path: Path, reference: Path):
    prediction = as_masks(drawn(PREDICTION), tmp_path / "p")
    done = run_segrap("evaluate", prediction, reference, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts["methods"]["p"]["means"]) == {"Larynx", "Parotid_L", "Chiasm", "GTVp", "Organs", "Targets"}
    assert all(Path(file).is_file() for file in facts["files"])


def test_the_command_ends_with_status_3_on_another_grid(tmp_path: Path, reference: Path):
    moved = replace(GEOMETRY, origin_mm=(0.0, 0.0, 0.0))
    prediction = as_segmentation(drawn(PREDICTION, moved), tmp_path / "p")
    done = run_segrap("evaluate", prediction, reference, "--output", tmp_path / "out")
    assert (done.returncode, "different grids" in done.stderr) == (3, True)


def test_a_patient_of_the_shared_fixture_agrees_with_itself(coarse_patient: Path):
    found = compare(coarse_patient, coarse_patient)
    assert len(found.results) == 47
    assert {(one.scores.dsc, one.scores.nsd, one.scores.added_path_length_mm) for one in found.results} == {(1, 1, 0)}
    assert not read_nifti_folder(coarse_patient).left_out
