"""Contours into an RTSTRUCT and back: the same voxels, on the right slices, under the right names, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from rtstruct_cases import DEMONSTRATION, ORIENTATIONS, SHAPE, contours_of, difficult_masks, small_series
from synthetic_ct import write_ct_series

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.ct.dicom_series import read_series_folder
from segrap.errors import InputError, OutputError, UsageError
from segrap.geometry import Geometry
from segrap.rtstruct.read import read_rtstruct
from segrap.rtstruct.write import write_rtstruct

# What goes in comes out


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_mask_comes_back_exactly_in_every_orientation(orientation, tmp_path):
    series = small_series(tmp_path / "ct", ORIENTATIONS[orientation])
    contours = contours_of(difficult_masks(), series)
    write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm")
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert again.names == contours.names
    assert [name for name in contours.names if not np.array_equal(again.mask(name), contours.mask(name))] == []


def test_a_structure_on_the_patients_left_lies_at_larger_x(tmp_path):
    for orientation, direction in ORIENTATIONS.items():
        series = small_series(tmp_path / orientation / "ct", direction)
        index = np.stack(np.indices(SHAPE)[::-1], axis=-1)
        left_of_middle = series.geometry.to_lps(index)[..., 0] - series.geometry.to_lps([27.5, 21.5, 5.5])[0]
        sides = {"Eye_L": left_of_middle > 5, "Eye_R": left_of_middle < -5}
        write_rtstruct(contours_of(sides, series), series, tmp_path / orientation / "RTSTRUCT.dcm")
        dataset = pydicom.dcmread(tmp_path / orientation / "RTSTRUCT.dcm")
        left, right = (
            np.concatenate([np.reshape(contour.ContourData, (-1, 3)) for contour in roi.ContourSequence])
            for roi in dataset.ROIContourSequence
        )
        assert left[:, 0].min() > right[:, 0].max()


def test_every_contour_lies_on_the_slice_whose_image_it_names(series, written):
    height = dict(zip(series.sop_instance_uids, series.slice_origins_mm[:, 2], strict=True))
    for roi in written.ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            assert {float(z) for z in contour.ContourData[2::3]} == {height[image.ReferencedSOPInstanceUID]}


def test_contours_lie_where_the_voxels_do_when_the_ct_states_its_axes_roughly(tmp_path):
    rough = [1.0009, 0.0, 0.0, 0.0008, 0.9993, 0.0]
    geometry = Geometry((1.0, 1.0, 3.0), (0.0, 0.0, 0.0))
    write_ct_series(tmp_path / "ct", np.zeros((5, 400, 400)), geometry, ImageOrientationPatient=rough)
    (series,) = read_series_folder(tmp_path / "ct")
    far = np.zeros(series.shape, dtype=bool)
    far[2, 390:395, 390:395] = True
    write_rtstruct(contours_of({"Brain": far}, series), series, tmp_path / "RTSTRUCT.dcm")
    (roi,) = pydicom.dcmread(tmp_path / "RTSTRUCT.dcm").ROIContourSequence
    points = np.reshape(roi.ContourSequence[0].ContourData, (-1, 3)).astype(float)
    assert np.allclose(points.min(axis=0), series.geometry.to_lps([389.5, 389.5, 2]), atol=1e-3)
    assert np.allclose(points.max(axis=0), series.geometry.to_lps([394.5, 394.5, 2]), atol=1e-3)


def test_a_contour_too_long_for_explicit_vr_is_not_lost(tmp_path):
    shape = (5, 200, 200)
    write_ct_series(tmp_path / "ct", np.zeros(shape), Geometry((0.5, 0.5, 3.0), (-511.3, -511.7, 0.0)))
    (series,) = read_series_folder(tmp_path / "ct")
    comb = np.zeros(shape, dtype=bool)
    comb[2, ::2, :] = comb[2, :, 0] = True
    comb[2, 1::2, 2::3] = True
    write_rtstruct(contours_of({"Brain": comb}, series), series, tmp_path / "RTSTRUCT.dcm")
    (roi,) = pydicom.dcmread(tmp_path / "RTSTRUCT.dcm").ROIContourSequence
    assert max(len(contour.get_item("ContourData").value) for contour in roi.ContourSequence) > 65534
    assert np.array_equal(read_rtstruct(tmp_path / "RTSTRUCT.dcm", series).mask("Brain"), comb)


def test_provenance_and_origin_come_back(series, contours, written):
    again = read_rtstruct(written.filename, series)
    for fact in ("model_name", "model_version", "model_hash", "intended_use", "created"):
        assert getattr(again.provenance, fact) == getattr(contours.provenance, fact)
    assert {facts.origin for facts in again.structures.values()} == {"model"}


# What the file says


def test_empty_structures_are_reported_and_left_out(series, contours, tmp_path):
    report = write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm")
    assert report.empty == ("Eye_L", "Eye_R")
    assert set(report.written) == set(difficult_masks())
    assert len(pydicom.dcmread(tmp_path / "RTSTRUCT.dcm").StructureSetROISequence) == len(report.written)


def test_exchanged_sides_are_written_as_they_are_and_reported(series, tmp_path):
    masks = difficult_masks()
    left, right = masks["Parotid_L"], masks["Parotid_L"][:, :, ::-1]
    good = write_rtstruct(contours_of({"Eye_L": left, "Eye_R": right}, series), series, tmp_path / "good.dcm")
    exchanged = write_rtstruct(contours_of({"Eye_L": right, "Eye_R": left}, series), series, tmp_path / "other.dcm")
    assert good.warnings == ()
    assert exchanged.warnings == ("Eye: its left side lies on the patient's right: left and right are exchanged.",)


def test_only_the_chosen_structures_are_written(series, contours, tmp_path):
    report = write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm", structures=["Lens_L", "Brain", "Eye_R"])
    assert (report.written, report.empty) == (("Brain", "Lens_L"), ("Eye_R",))


def test_patient_study_and_frame_of_reference_are_those_of_the_ct(series, written):
    image = series.headers[0]
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "StudyID", "FrameOfReferenceUID"):
        assert written[keyword].value == image[keyword].value
    (frame,) = written.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (referenced,) = study.RTReferencedSeriesSequence
    assert study.ReferencedSOPInstanceUID == series.study_uid
    assert referenced.SeriesInstanceUID == series.series_uid
    images = [image.ReferencedSOPInstanceUID for image in referenced.ContourImageSequence]
    assert images == list(series.sop_instance_uids)


def test_a_patients_name_in_another_script_survives(tmp_path):
    write_ct_series(
        tmp_path / "ct",
        np.zeros(SHAPE),
        Geometry((1.0, 1.0, 3.0)),
        SpecificCharacterSet="GB18030",
        PatientName="Zhang^XiaoDong=张^小东",
    )
    (series,) = read_series_folder(tmp_path / "ct")
    write_rtstruct(contours_of(difficult_masks(), series), series, tmp_path / "RTSTRUCT.dcm")
    assert str(pydicom.dcmread(tmp_path / "RTSTRUCT.dcm").PatientName) == "Zhang^XiaoDong=张^小东"


def test_every_export_is_a_new_instance_of_a_new_series(series, contours, tmp_path):
    uids = set()
    for number in range(2):
        write_rtstruct(contours, series, tmp_path / f"{number}.dcm")
        dataset = pydicom.dcmread(tmp_path / f"{number}.dcm")
        uids |= {dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID}
    assert len(uids) == 4
    assert not uids & {series.series_uid, *series.sop_instance_uids}


def test_numbers_have_at_most_16_characters_and_zero_has_no_sign(written):
    for roi in pydicom.dcmread(written.filename).ROIContourSequence:
        for contour in roi.ContourSequence:
            numbers = contour.get_item("ContourData").value.decode().strip().split("\\")
            assert max(map(len, numbers)) <= 16
            assert "-0" not in numbers


def test_names_are_those_of_tg_263_and_the_segrap_name_is_in_the_description(written):
    called = {item.ROIName: item.ROIDescription for item in written.StructureSetROISequence}
    assert called["OpticNrv_L"] == "SegRap OpticNerve_L"
    assert "OpticNerve_L" not in called


def test_names_are_those_of_segrap_on_request(series, contours, tmp_path):
    write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm", names="segrap")
    dataset = pydicom.dcmread(tmp_path / "RTSTRUCT.dcm")
    assert tuple(item.ROIName for item in dataset.StructureSetROISequence) == tuple(
        name for name in contours.names if not contours.is_empty(name)
    )


def test_type_code_side_and_colour_come_from_the_anatomy_table(written):
    for roi, drawn, seen in zip(
        written.StructureSetROISequence, written.ROIContourSequence, written.RTROIObservationsSequence, strict=True
    ):
        (structure,) = (s for s in anatomy.STRUCTURES if s.tg263_name == roi.ROIName)
        (code,) = seen.RTROIIdentificationCodeSequence
        sides = code.get("SegmentedPropertyTypeModifierCodeSequence", ())
        assert seen.RTROIInterpretedType == structure.kind
        assert (code.CodeValue, code.CodeMeaning) == structure.snomed
        assert [side.CodeMeaning.lower() for side in sides] == [structure.laterality] * bool(structure.laterality)
        assert tuple(drawn.ROIDisplayColor) == structure.colour


def test_the_volume_is_that_of_the_voxels(contours, written):
    for item in written.StructureSetROISequence:
        facts = contours.structures[item.ROIDescription.removeprefix("SegRap ").split(":")[0]]
        assert float(item.ROIVolume) == pytest.approx(facts.volume_cc, abs=5e-5)


def test_who_drew_a_structure_is_stated_for_each(series, tmp_path):
    masks = {name: difficult_masks()["Lens_L"] for name in ("Lens_L", "Lens_R", "Brain", "GTVp")}
    origin = {"Lens_L": "model", "Lens_R": "edited", "Brain": "drawn", "GTVp": "imported"}
    contours = Contours.from_masks(masks, series.geometry, Provenance(model_name="Example"), origin=origin)
    write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm", names="segrap")
    stated = {
        item.ROIName: item.ROIGenerationAlgorithm
        for item in pydicom.dcmread(tmp_path / "RTSTRUCT.dcm").StructureSetROISequence
    }
    assert stated == {"Lens_L": "AUTOMATIC", "Lens_R": "SEMIAUTOMATIC", "Brain": "MANUAL", "GTVp": ""}
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert {name: facts.origin for name, facts in again.structures.items()} == origin


def test_contours_of_a_demonstration_model_say_so_in_the_label(series, written):
    assert written.StructureSetLabel == "DEMO_NO_CLINIC"
    assert "not for clinical use" in written.SeriesDescription
    assert "DEMONSTRATION MODEL Example 1.2" in written.StructureSetDescription


@pytest.mark.parametrize("intended_use", ["research", "clinical"])
def test_contours_are_unapproved_and_say_which_model_made_them(intended_use, series, tmp_path):
    provenance = replace(DEMONSTRATION, intended_use=intended_use)
    write_rtstruct(contours_of(difficult_masks(), series, provenance), series, tmp_path / "RTSTRUCT.dcm")
    dataset = pydicom.dcmread(tmp_path / "RTSTRUCT.dcm")
    assert (dataset.StructureSetLabel, dataset.ApprovalStatus) == ("AI_NPC", "UNAPPROVED")
    for expected in ("Example 1.2", "not reviewed", "0123456789ab"):
        assert expected in dataset.StructureSetDescription
    assert "0123456789abcdef" * 4 in list(dataset.SoftwareVersions)  # whole: DICOM cuts at 64 characters


# What cannot be written


def test_a_structure_that_the_contours_do_not_cover_is_refused(series, contours, tmp_path):
    with pytest.raises(UsageError, match="do not cover Chiasm"):
        write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm", structures=["Chiasm"])


def test_nothing_but_empty_structures_is_refused(series, contours, tmp_path):
    with pytest.raises(InputError, match="None of the 2 structures has a voxel"):
        write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm", structures=["Eye_L", "Eye_R"])


def test_contours_of_another_grid_are_refused(series, contours, tmp_path):
    shifted = replace(contours, geometry=replace(contours.geometry, origin_mm=(0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="grid of the CT series"):
        write_rtstruct(shifted, series, tmp_path / "RTSTRUCT.dcm")


def test_a_ct_without_frame_of_reference_is_refused(contours, tmp_path):
    geometry = contours.geometry
    write_ct_series(tmp_path / "ct", np.zeros(SHAPE), geometry, FrameOfReferenceUID="")
    (series,) = read_series_folder(tmp_path / "ct")
    with pytest.raises(InputError, match="no FrameOfReferenceUID"):
        write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm")


def test_a_folder_that_is_not_there_is_an_output_error_and_leaves_nothing(series, contours, tmp_path):
    with pytest.raises(OutputError):
        write_rtstruct(contours, series, tmp_path / "nowhere" / "RTSTRUCT.dcm")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_would_not_read_back_the_same_is_not_left_behind(series, contours, tmp_path):
    # Facts that do not belong to the voxels stand for any defect between the masks and the file.
    facts = contours.structures["Lens_L"]
    wrong = replace(contours, structures={**contours.structures, "Lens_L": replace(facts, voxels=facts.voxels + 1)})
    old = tmp_path / "RTSTRUCT.dcm"
    old.write_bytes(b"an older file")
    with pytest.raises(OutputError, match="read back, Lens_L has"):
        write_rtstruct(wrong, series, old)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older file"]
