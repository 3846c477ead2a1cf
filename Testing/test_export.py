"""Export as a person does it, on the desktop host: what is chosen is written, read back, and only then said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import slicer
from reviewing import Review, mark_all_done
from small_disk import full_disk, mounted

from segrap.contour_files.formats import read_challenge_mha
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.rtstruct.read import read_rtstruct

RTSTRUCT, SEG, SLICER, CHALLENGE = (
    *("RTSTRUCT (DICOM)", "DICOM SEG"),
    *("Slicer segmentation (.seg.nrrd)", "SegRap challenge (.mha)"),
)


def rois(path: Path) -> list[str]:
    return [str(roi.ROIName) for roi in pydicom.dcmread(path).StructureSetROISequence]


def test_export_asks_before_it_writes_what_nobody_reviewed(review: Review, tmp_path: Path) -> None:
    review.select("BrainStem")
    review.click("doneButton")
    review.desktop.answer = False
    assert review.export(tmp_path) == "Nothing was written."
    assert review.desktop.dialogs[0].startswith("5 structures are not reviewed: GTVp, GTVnd, Chiasm")
    assert list(tmp_path.iterdir()) == []


def test_rtstruct_on_the_original_ct_reads_back_as_the_contours(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    words = review.export(tmp_path)
    assert review.desktop.dialogs == []
    assert "now holds 5 structures; what was written was read back and checked" in words
    assert "Empty, hence not in it: Chiasm" in words
    read = read_rtstruct(tmp_path / "RTSTRUCT.dcm", review.series)
    for name in read.names:
        assert np.array_equal(read.mask(name), review.contours.mask(name)), name
    review.export(tmp_path)
    assert (tmp_path / "RTSTRUCT-2.dcm").is_file()


def test_every_other_format_holds_the_contours(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    assert "now holds 6 structures" in review.export(tmp_path, SLICER)
    assert "now holds 6 structures" in review.export(tmp_path, CHALLENGE)
    assert "now holds 5 structures" in review.export(tmp_path, SEG)
    assert review.desktop.dialogs == []
    stacks, segments = read_challenge_mha(tmp_path / "challenge"), read_seg_nrrd(tmp_path / "contours.seg.nrrd")
    for name in review.contours.names:
        assert np.array_equal(stacks.mask(name), review.contours.mask(name)), name
        assert np.array_equal(segments.mask(name), review.contours.mask(name)), name
    labels = [str(item.SegmentLabel) for item in pydicom.dcmread(tmp_path / "SEG.dcm").SegmentSequence]
    assert labels == ["Brainstem", "Bone_Mandible_L", "SpinalCord", "GTVp", "GTVn"]


def test_only_what_is_done_or_selected_is_written_and_asked_about(review: Review, tmp_path: Path) -> None:
    review.choose("Structures", "Those that are done")
    assert "No structure is done yet" in review.export(tmp_path)
    review.select("BrainStem")
    review.click("doneButton")
    review.desktop.dialogs.clear()
    review.export(tmp_path)
    assert review.desktop.dialogs == []
    assert rois(tmp_path / "RTSTRUCT.dcm") == ["Brainstem"]
    review.choose("Structures", "Those selected in the review")
    review.select("GTVp", "Mandible_L")
    review.export(tmp_path)
    assert review.desktop.dialogs == ["2 structures are not reviewed: GTVp, Mandible_L.\n\nExport them all the same?"]
    assert rois(tmp_path / "RTSTRUCT-2.dcm") == ["Bone_Mandible_L", "GTVp"]
    review.choose("Structures", "All")


def test_names_are_those_that_were_chosen_and_a_faulty_template_stops_the_export(
    review: Review, tmp_path: Path
) -> None:
    mark_all_done(review.node)
    review.choose("Names", "SegRap")
    review.export(tmp_path)
    assert "BrainStem" in rois(tmp_path / "RTSTRUCT.dcm")
    review.choose("Names", "The site's own")
    template = tmp_path / "names.json"
    review.ui.exportNamesPathLineEdit.setProperty("currentPath", str(template))
    template.write_text(json.dumps({"BrainStem": "Hirnstamm"}))
    review.export(tmp_path)
    from SegRapSlicerLib.export import remember, remembered

    assert remembered() == (str(tmp_path), str(template)), "the next session of Slicer begins with them"
    remember(str(tmp_path / "gone"), "")
    assert remembered() == (str(Path.home()), "")
    assert "Hirnstamm" in rois(tmp_path / "RTSTRUCT-2.dcm")
    template.write_text(json.dumps({"BrainStem": "Hirnstamm" * 10}))
    assert "90 characters" in review.export(tmp_path)
    assert not (tmp_path / "RTSTRUCT-3.dcm").exists()
    review.choose("Names", "TG-263")


def test_dicom_goes_into_the_database_beside_the_ct(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    review.choose("Place", "Slicer's DICOM database")
    assert not review.ui.exportDirectoryButton.property("enabled")
    words = review.export(tmp_path)
    assert words.startswith("Slicer's DICOM database now holds 5 structures")
    (new,) = [path for path in review.desktop.dicom.files.values() if path.startswith(str(review.desktop.dicom.folder))]
    assert set(read_rtstruct(new, review.series).names) == set(review.contours.names) - {"Chiasm"}
    assert list(tmp_path.iterdir()) == []
    review.choose("Format", SLICER)
    assert not review.ui.exportPlaceComboBox.property("enabled")
    assert review.ui.exportDirectoryButton.property("enabled")
    review.choose("Format", RTSTRUCT)


def test_what_was_meant_for_the_database_and_failed_leaves_nothing(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_all_done(review.node)
    review.choose("Place", "Slicer's DICOM database")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with full_disk(tmp_path) as disk:
        assert "disk is full" in review.export(disk)
        assert [path.name for path in disk.iterdir()] == ["filler"]
    review.choose("Place", "A folder")


def test_database_that_does_not_take_the_file_is_told(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_all_done(review.node)
    review.choose("Place", "Slicer's DICOM database")
    monkeypatch.setattr(review.desktop.dicom, "folder", tmp_path / "nowhere")
    assert "did not take the file" in review.export(tmp_path)
    monkeypatch.setattr(type(review.desktop.dicom), "isOpen", False)
    assert "is not open" in review.export(tmp_path)
    review.choose("Place", "A folder")


def test_what_is_chosen_is_kept_with_the_scene(review: Review) -> None:
    review.choose("Format", SEG)
    review.choose("Names", "SegRap")
    node = review.widget.logic.getParameterNode()
    assert (node.exportFormat, node.exportNames, node.exportStructures) == ("dicom-seg", "segrap", "all")
    node.exportFormat = "challenge"
    review.desktop.app.processEvents()
    assert review.ui.exportFormatComboBox.property("currentText") == CHALLENGE


def test_segments_that_were_renamed_removed_or_added_are_told_and_the_rest_is_written(
    review: Review, tmp_path: Path
) -> None:
    segmentation = review.node.GetSegmentation()
    segmentation.GetSegment("Mandible_L").SetName("Jaw")
    segmentation.GetSegment("GTVp").SetName("gtvP")
    segmentation.RemoveSegment("BrainStem")
    segmentation.AddEmptySegment("", "My node")
    segmentation.AddEmptySegment("", "Eye_L")
    mark_all_done(review.node)
    words = review.export(tmp_path)
    assert review.desktop.dialogs == []
    assert "No SegRap structures, hence not in it: Jaw, My node" in words
    assert "Empty, hence not in it: Chiasm, Eye_L" in words
    assert rois(tmp_path / "RTSTRUCT.dcm") == ["SpinalCord", "GTVp", "GTVn"]


def test_two_segments_of_one_name_or_none_that_is_known_stop_the_export(review: Review, tmp_path: Path) -> None:
    segmentation = review.node.GetSegmentation()
    mark_all_done(review.node)
    segmentation.GetSegment("Mandible_L").SetName("BrainStem")
    assert "two segments named BrainStem" in review.export(tmp_path)
    for number in range(segmentation.GetNumberOfSegments()):
        segmentation.GetNthSegment(number).SetName(f"S{number}")
    mark_all_done(review.node)
    assert "No segment has a SegRap name" in review.export(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_export_can_be_cancelled_and_then_leaves_nothing(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    review.ui.exportDirectoryButton.setProperty("directory", str(tmp_path))
    review.ui.exportButton.click()
    assert review.text("exportButton") == "Cancel"
    work = review.widget._export._job._work
    review.ui.exportButton.click()
    assert review.text("exportButton") == "Export"
    assert review.text("exportLabel") == "Cancelled. Nothing was written or changed."
    work.thread.join()
    assert list(tmp_path.iterdir()) == [] and review.desktop.dialogs == []


def test_rtstruct_of_a_ct_that_is_no_dicom_or_has_gone_says_so(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    review.desktop.dicom.files = {}
    assert "not in Slicer's DICOM database" in review.export(tmp_path)
    review.volume.RemoveAttribute("DICOM.instanceUIDs")
    assert "was not loaded from DICOM" in review.export(tmp_path)
    slicer.mrmlScene.RemoveNode(review.volume)
    assert "not in the scene any more" in review.export(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_read_only_or_missing_folder_is_told(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    assert "cannot be written" in review.export(tmp_path / "nowhere")
    assert len(review.desktop.dialogs) == 1
    with full_disk(tmp_path / "full") as disk:
        for text in (RTSTRUCT, SEG, SLICER, CHALLENGE):
            assert "disk is full" in review.export(disk, text)
        assert [path.name for path in disk.iterdir()] == ["filler"]
    with mounted(tmp_path / "read-only", "ro") as disk:
        assert "no permission" in review.export(disk, RTSTRUCT)


def test_without_contours_nothing_can_be_reviewed_or_exported(review: Review) -> None:
    review.desktop.close_scene()
    assert review.names() == []
    assert not review.ui.exportButton.property("enabled")
    assert review.ui.exportButton.property("toolTip") == "There are no contours to export yet."
