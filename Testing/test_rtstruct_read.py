"""RTSTRUCTs of any program: their structures on the CT, by a site's names too, or a refusal; nothing in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import run_segrap
from rtstruct_cases import small_series

from segrap.contour_files.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from segrap.errors import InputError
from segrap.naming import read_names
from segrap.rtstruct.read import drawn_on, read_rtstruct
from segrap.rtstruct.write import write_rtstruct


def rewritten(written: pydicom.Dataset, path: Path, **roi_names: str) -> pydicom.Dataset:
    """The file as it was written, for a test to change and save, with some ROIs called otherwise."""
    dataset = pydicom.dcmread(written.filename)
    for item in dataset.StructureSetROISequence:
        item.ROIName = roi_names.get(item.ROIName, item.ROIName)
    dataset.save_as(path)
    return dataset


# Names


def test_names_are_known_in_any_letter_case_and_unknown_ones_are_reported(series, contours, written, tmp_path):
    names = {"Parotid_L": "PAROTID_L", "OpticNrv_L": "opticnerve_l", "Lens_L": "Lens Left", "Brain": "couch"}
    rewritten(written, tmp_path / "RTSTRUCT.dcm", **names)
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert again.left_out == ("couch", "Lens Left")
    assert np.array_equal(again.mask("OpticNerve_L"), contours.mask("OpticNerve_L"))
    assert np.array_equal(again.mask("Parotid_L"), contours.mask("Parotid_L"))
    assert "Brain" not in again.structures


def test_a_sites_own_names_are_known_when_they_are_given(series, contours, tmp_path):
    own = {"Parotid_L": "Parotis li", "Larynx": "Kehlkopf"}
    write_rtstruct(contours, series, tmp_path / "RTSTRUCT.dcm", names=own)
    without = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert "Parotis li" in without.left_out and "Parotid_L" not in without.structures
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series, own)
    assert not again.left_out
    assert [name for name in again.names if not np.array_equal(again.mask(name), contours.mask(name))] == []


def test_the_command_reads_what_it_wrote_under_a_sites_names(series, contours, tmp_path):
    (tmp_path / "names.json").write_text('{"Parotid_L": "Parotis li"}', encoding="utf-8")
    ct, named = series.folder, ("--names", tmp_path / "names.json")
    write_seg_nrrd(contours, tmp_path / "a.seg.nrrd")
    for command in (
        ("write", tmp_path / "a.seg.nrrd", ct, "--output", tmp_path / "RTSTRUCT.dcm", *named),
        ("read", tmp_path / "RTSTRUCT.dcm", ct, "--output", tmp_path / "b.seg.nrrd", *named),
    ):
        done = run_segrap("rtstruct", *command)
        assert done.returncode == 0, done.stderr
    again = read_seg_nrrd(tmp_path / "b.seg.nrrd")
    assert np.array_equal(again.mask("Parotid_L"), contours.mask("Parotid_L"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"], ids=["UTF-8", "with a byte order mark"])
@pytest.mark.parametrize(
    ("name", "charset"), [("左腮腺", "ISO_IR 192"), ("左腮腺", "GB18030"), ("Drüse li", "ISO_IR 100")]
)
def test_a_sites_own_names_may_be_in_any_script(name, charset, encoding, series, contours, written, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps({"Parotid_L": name}, ensure_ascii=False), encoding=encoding)
    dataset = pydicom.dcmread(written.filename)
    dataset.SpecificCharacterSet = charset
    next(item for item in dataset.StructureSetROISequence if item.ROIName == "Parotid_L").ROIName = name
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series, read_names(tmp_path / "names.json"))
    assert again.left_out == ()
    assert np.array_equal(again.mask("Parotid_L"), contours.mask("Parotid_L"))


def test_a_file_of_names_that_is_no_json_is_refused_and_nothing_is_written(series, written, tmp_path):
    (tmp_path / "names.json").write_text("Parotis li", encoding="utf-8")
    done = run_segrap("rtstruct", "read", written.filename, series.folder,
                      "--output", tmp_path / "b.seg.nrrd", "--names", tmp_path / "names.json")  # fmt: skip
    assert (done.returncode, "names.json is not JSON" in done.stderr) == (3, True)
    assert [path.name for path in tmp_path.iterdir()] == ["names.json"]


# Contours


def test_a_hole_written_as_a_second_contour_is_a_hole(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    lens = next(item for item in dataset.StructureSetROISequence if item.ROIName == "Lens_L")
    roi = next(item for item in dataset.ROIContourSequence if item.ReferencedROINumber == lens.ROINumber)
    outer, hole = roi.ContourSequence[:2]
    height = outer.ContourData[2]
    for contour, low, high in ((outer, 9.5, 15.5), (hole, 11.5, 13.5)):
        corners = np.array([(low, low), (high, low), (high, high), (low, high)]) * (0.9, 1.2) + (-20.37, -151.2)
        contour.ContourData = [f"{value:.4f}" for x, y in corners for value in (x, y, float(height))]
        contour.NumberOfContourPoints = 4
    roi.ContourSequence = [outer, hole]
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert again.mask("Lens_L").sum() == 36 - 4
    assert not again.mask("Lens_L")[:, 12:14, 12:14].any()
    assert again.provenance.remarks == ("Lens_L: contours of one slice overlap in 4 voxels, which were read as holes.",)


def test_an_roi_without_contours_is_an_empty_structure(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    del dataset.ROIContourSequence[0].ContourSequence
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert read_rtstruct(tmp_path / "RTSTRUCT.dcm", series).is_empty("Brain")


def test_contours_that_enclose_nothing_are_remarked(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    (remark,) = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series).provenance.remarks
    assert remark == "Brain: 1 contours of type OPEN_PLANAR enclose nothing."


def test_a_structure_whose_contours_enclose_no_voxel_is_remarked(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        contour.ContourData, contour.NumberOfContourPoints = contour.ContourData[:3], 1
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert again.is_empty("Brain")
    assert again.provenance.remarks == ("Brain: no voxel centre lies inside its 12 contours, so it came out empty.",)


def test_contours_without_a_number_of_points_are_read(series, contours, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        del contour.NumberOfContourPoints
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert np.array_equal(read_rtstruct(tmp_path / "RTSTRUCT.dcm", series).mask("Brain"), contours.mask("Brain"))


@pytest.mark.parametrize("kept", [lambda n: n // 6 * 3, lambda n: n - 1], ids=["half the points", "a coordinate lost"])
def test_a_contour_that_lost_points_or_coordinates_is_refused(kept, series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    contour = dataset.ROIContourSequence[0].ContourSequence[2]
    contour.ContourData = contour.ContourData[: kept(len(contour.ContourData))]
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    with pytest.raises(InputError, match=r"1 of \d+ contours of 'Brain' are damaged"):
        read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)


def test_damage_in_an_roi_that_is_not_wanted_does_not_matter(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm", Brain="couch")
    dataset.ROIContourSequence[0].ContourSequence[2].NumberOfContourPoints += 1
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert read_rtstruct(tmp_path / "RTSTRUCT.dcm", series).left_out == ("couch",)


def test_an_roi_of_another_frame_of_reference_is_left_out_and_said(series, contours, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    first = dataset.StructureSetROISequence[0]
    assert first.ROIName == "Brain"
    first.ReferencedFrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert "Brain" not in again.structures and "Parotid_L" in again.structures
    assert again.provenance.remarks == ("Left out, as drawn in another Frame of Reference than the CT's: Brain.",)


def test_the_same_structure_on_the_mr_does_not_stand_in_the_way_of_that_on_the_ct(series, contours, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm", Brain="GTVp", GTVp="gtvp")
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    again = read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)
    assert np.array_equal(again.mask("GTVp"), contours.mask("GTVp"))


def test_nothing_but_rois_of_another_frame_of_reference_is_refused(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    for item in dataset.StructureSetROISequence:
        item.ReferencedFrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    with pytest.raises(InputError, match=r"no structure known here.*Brain \(drawn in another Frame of Reference"):
        read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)


def test_the_command_says_what_was_not_read_as_it_stands(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    brain = dataset.ROIContourSequence[0]
    brain.ContourSequence[0].ContourGeometricType = "POINT"
    brain.ContourSequence.append(brain.ContourSequence[1])
    dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    done = run_segrap("rtstruct", "read", tmp_path / "RTSTRUCT.dcm", series.folder, "--output", tmp_path / "a.seg.nrrd")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "a.seg.nrrd")), done.stderr
    assert "Brain: 1 contours of type POINT enclose nothing." in done.stderr
    assert "Brain: contours of one slice overlap in" in done.stderr
    left_out = dataset.StructureSetROISequence[1].ROIName
    assert f"drawn in another Frame of Reference than the CT's: {left_out}." in done.stderr


def test_the_command_refuses_a_damaged_contour_and_writes_nothing(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    dataset.ROIContourSequence[0].ContourSequence[2].NumberOfContourPoints += 1
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    done = run_segrap("rtstruct", "read", tmp_path / "RTSTRUCT.dcm", series.folder, "--output", tmp_path / "a.seg.nrrd")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1), done.stderr
    assert not (tmp_path / "a.seg.nrrd").exists()


# What cannot be read


def test_the_same_structure_under_two_names_is_refused(series, written, tmp_path):
    rewritten(written, tmp_path / "RTSTRUCT.dcm", Brain="GLOTTIS", Parotid_L="Larynx_Glottic")
    with pytest.raises(InputError, match="holds Larynx_Glottic twice"):
        read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)


def test_no_known_structure_at_all_is_refused(series, written, tmp_path):
    names = {item.ROIName: f"ROI-{item.ROINumber}" for item in written.StructureSetROISequence}
    rewritten(written, tmp_path / "RTSTRUCT.dcm", **names)
    with pytest.raises(InputError, match="no structure known here; it has ROI-1, ROI-2"):
        read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)


def test_of_several_cts_the_one_that_the_rtstruct_names_is_found(series, written, tmp_path):
    others = [small_series(tmp_path / name) for name in ("one", "two")]
    assert drawn_on(written.filename, [others[0], series, others[1]]) is series
    with pytest.raises(InputError, match="refers to 0 of 2 CT series"):
        drawn_on(written.filename, others)


def test_an_rtstruct_of_another_scan_is_refused(written, tmp_path):
    other = small_series(tmp_path / "ct")
    with pytest.raises(InputError, match="belongs to another scan"):
        read_rtstruct(written.filename, other)


def test_contours_beside_the_slices_are_refused_with_the_millimetres(series, written, tmp_path):
    dataset = rewritten(written, tmp_path / "RTSTRUCT.dcm")
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [value + 1.2 * (number % 3 == 2) for number, value in enumerate(contour.ContourData)]
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    with pytest.raises(InputError, match=r"1 of \d+ contours of 'Brain' lie up to 1.20 mm beside the slices"):
        read_rtstruct(tmp_path / "RTSTRUCT.dcm", series)


@pytest.mark.parametrize("kind", ["missing", "not DICOM", "a CT slice", "cut short"])
def test_what_is_no_rtstruct_is_refused(kind, series, written, tmp_path):
    path = tmp_path / "RTSTRUCT.dcm"
    whole = Path(written.filename).read_bytes()
    contents = {"not DICOM": b"hello", "a CT slice": series.files[0].read_bytes(), "cut short": whole[:-1000]}
    if kind in contents:
        path.write_bytes(contents[kind])
    with pytest.raises(InputError, match=r"does not exist|cannot be read as DICOM|is no RTSTRUCT|damaged"):
        read_rtstruct(path, series)
