"""Review as a person does it, on the desktop host: true contours of a made-up patient, a bit spoilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import slicer
import vtk
from PySide6 import QtCore
from reviewing import Review

from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.quality import check
from segrap.quality.findings import Kind
from segrap.scene.review import review_rows
from segrap.scene.segmentation import fill_segmentation, made_on
from segrap.scene.volumes import add_volume, volumes_of


def test_every_structure_has_a_row_with_volume_reason_and_status(review: Review) -> None:
    assert review.names() == list(review.contours.names)
    assert float(review.cell("Mandible_L", 1)) == pytest.approx(
        review.contours.structures["Mandible_L"].volume_cc, rel=0.01
    )
    assert review.cell("SpinalCord", 3) == "empty slices"
    assert review.cell("Chiasm", 3) == "not found"
    row = review.ui.reviewTable.item(review.names().index("SpinalCord"), 3)
    assert row.toolTip().startswith("25 empty slices (125.0 mm) between")
    assert {review.cell(name, 2) for name in review.names()} == {"not started"}
    assert review.text("reviewLabel").startswith("0 of 6 done")


@pytest.mark.usefixtures("desktop")
def test_every_kind_of_finding_has_its_words_in_the_table() -> None:
    from SegRapSlicerLib.review_table import _reasons

    assert set(_reasons()) == set(get_args(Kind))


def test_selecting_a_row_brings_the_views_to_its_finding_and_dims_the_rest(review: Review) -> None:
    review.select("SpinalCord")
    (finding,) = (f for f in check(review.contours) if f.structure == "SpinalCord" and f.kind == "gap")
    assert finding.where
    x, y, z = review.contours.geometry.to_lps(np.array(finding.where[::-1]))
    shown = [review.slice.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert np.allclose(shown, [-x, -y, z], atol=0.01)
    assert finding.message in review.text("findingsLabel")
    display = review.node.GetDisplayNode()
    assert display.GetSegmentOpacity2DFill("SpinalCord") == 1.0
    assert display.GetSegmentOpacity2DFill("Mandible_L") < 0.5
    review.click("dimCheckBox")
    assert display.GetSegmentOpacity2DFill("Mandible_L") == 1.0
    review.click("dimCheckBox")
    review.widget.exit()
    assert display.GetSegmentOpacity2DFill("Mandible_L") == 1.0, "other modules show all structures in full"
    review.widget.enter()
    assert display.GetSegmentOpacity2DFill("Mandible_L") < 0.5


def test_one_key_accepts_a_structure_and_goes_on_to_the_next(review: Review) -> None:
    review.select("BrainStem")
    review.press(QtCore.Qt.Key_D)
    assert review.cell("BrainStem", 2) == "done"
    assert review.selected() == ["Chiasm"]
    assert review.text("reviewLabel").startswith("1 of 6 done")


def test_targets_are_not_accepted_in_bulk(review: Review) -> None:
    review.select("Mandible_L", "BrainStem", "GTVp", "GTVnd")
    review.click("doneButton")
    assert [review.cell(name, 2) for name in ("Mandible_L", "BrainStem")] == ["done", "done"]
    assert [review.cell(name, 2) for name in ("GTVp", "GTVnd")] == ["not started", "not started"]
    assert "GTVp, GTVnd" in review.text("reviewLabel")
    review.select("GTVp")
    review.click("doneButton")
    assert review.cell("GTVp", 2) == "done"


def test_next_to_look_at_goes_round_the_findings_and_the_flags_that_are_not_done(review: Review) -> None:
    review.select("Mandible_L")
    review.press(QtCore.Qt.Key_F)
    assert review.cell("Mandible_L", 2) == "flagged"
    wanted = [row.name for row in review_rows(review.node) if row.wants_a_look]
    assert {"Chiasm", "SpinalCord", "Mandible_L"} <= set(wanted)
    review.select(wanted[-1])
    seen = []
    for _ in wanted:
        review.click("nextFlaggedButton")
        seen += review.selected()
    assert seen == wanted
    review.select("Chiasm")
    review.click("doneButton")
    assert "Chiasm" not in [row.name for row in review_rows(review.node) if row.wants_a_look]


def test_checking_again_sees_what_was_edited(review: Review) -> None:
    volume_before = review.cell("Mandible_L", 1)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(review.node, "Mandible_L", review.volume)
    array[:] = 0
    array[20:40, 40:60, 40:60] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, review.node, "Mandible_L", review.volume)
    review.check_again()
    assert review.cell("Mandible_L", 1) != volume_before
    assert float(review.cell("Mandible_L", 1)) == pytest.approx(20 * 20 * 20 * 0.08, rel=0.01)
    assert review.desktop.dialogs == []


def test_renamed_removed_and_added_segments_are_followed(review: Review) -> None:
    segmentation = review.node.GetSegmentation()
    segmentation.GetSegment("Mandible_L").SetName("Jaw")
    segmentation.RemoveSegment("BrainStem")
    segmentation.AddEmptySegment("", "My node")
    review.desktop.app.processEvents()
    assert "Jaw" in review.names() and "BrainStem" not in review.names() and "My node" in review.names()


def test_review_comes_back_with_the_saved_segmentation(review: Review, tmp_path: Path) -> None:
    review.select("BrainStem")
    review.click("doneButton")
    words = review.export(tmp_path, "Slicer segmentation (.seg.nrrd)")
    assert "contours.seg.nrrd now holds 6 structures; what was written was read back" in words
    again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "contours.seg.nrrd"))
    assert storage.ReadData(again)
    read, kept = review_rows(again), review_rows(review.node)
    assert [replace(row, colour=(0, 0, 0)) for row in read] == [replace(row, colour=(0, 0, 0)) for row in kept]
    assert np.allclose([row.colour for row in read], [row.colour for row in kept], atol=1e-5)
    assert read_seg_nrrd(tmp_path / "contours.seg.nrrd").names == review.contours.names
    review.ui.segmentationSelector.setCurrentNode(again)
    assert review.cell("BrainStem", 2) == "done" and review.cell("Chiasm", 3) == "not found"
    assert volumes_of(again)[0] == review.volume
    review.desktop.dialogs.clear()
    review.check_again()
    assert review.desktop.dialogs == []


def test_contours_of_another_grid_or_series_are_not_taken_for_those_of_the_ct(review: Review) -> None:
    review.volume.SetOrigin(1.0, 2.0, 3.0)
    assert not made_on(review.node, review.volume)
    review.volume.CopyOrientation(review.contrast)
    assert made_on(review.node, review.volume)
    other = replace(review.contours, provenance=replace(review.contours.provenance, input_series_uids=("1.2.3",)))
    fill_segmentation(review.node, other)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemUID(hierarchy.GetItemByDataNode(review.volume), "DICOM", "1.2.4")
    assert not made_on(review.node, review.volume)
    hierarchy.SetItemUID(hierarchy.GetItemByDataNode(review.volume), "DICOM", "1.2.3")
    assert made_on(review.node, review.volume)


def test_closing_the_scene_does_not_let_slicer_take_our_segments_apart(review: Review) -> None:
    """Slicer separates each from its layer first, tens of seconds at 1024 x 1024; the contours of others are left."""
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    other.GetSegmentation().AddEmptySegment("Mine")
    found = {}

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def leaving(scene: object, event: str, node: Any) -> None:
        if node.IsA("vtkMRMLSegmentationNode"):
            found[node.GetID()] = node.GetSegmentation().GetNumberOfSegments()

    ids = (review.node.GetID(), other.GetID())
    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAboutToBeRemovedEvent, leaving)
    review.desktop.close_scene()
    slicer.mrmlScene.RemoveObserver(tag)
    assert [found[one] for one in ids] == [0, 1]


def test_review_goes_on_where_it_was_when_the_scene_is_opened_again(review: Review, tmp_path: Path) -> None:
    review.select("BrainStem")
    review.click("doneButton")
    review.choose("Format", "DICOM SEG")
    for node, name in ((review.volume, "ct.nrrd"), (review.contrast, "ct2.nrrd"), (review.node, "contours.seg.nrrd")):
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(tmp_path / name))
        assert node.GetStorageNode().WriteData(node)
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.SetRootDirectory(str(tmp_path))
    slicer.mrmlScene.Commit()
    review.desktop.close_scene()
    assert review.names() == []
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Connect()
    review.desktop.app.processEvents()
    assert review.names() == list(review.contours.names)
    assert [review.cell(name, 2) for name in ("BrainStem", "GTVp")] == ["done", "not started"]
    assert review.cell("Chiasm", 3) == "not found"
    assert review.ui.exportFormatComboBox.property("currentText") == "DICOM SEG"
    assert review.ui.contrastButton.property("enabled")
    review.check_again()
    assert review.desktop.dialogs == []


def test_checking_again_can_be_cancelled_and_then_changes_nothing(review: Review) -> None:
    before = review_rows(review.node)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(review.node, "Mandible_L", review.volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(0 * array, review.node, "Mandible_L", review.volume)
    review.ui.checkAgainButton.click()
    assert review.text("checkAgainButton") == "Cancel"
    review.ui.checkAgainButton.click()
    assert review.text("checkAgainButton") == "Check again"
    assert "Cancelled" in review.text("reviewLabel")
    assert review_rows(review.node) == before
    assert review.desktop.dialogs == []


def test_checking_again_without_the_ct_says_so(review: Review) -> None:
    slicer.mrmlScene.RemoveNode(review.volume)
    review.click("checkAgainButton")
    (words,) = review.desktop.dialogs
    assert words == "The CT of these contours is not in the scene any more. Load it again and choose it above."
    review.desktop.dialogs.clear()
    again = add_volume(slicer.mrmlScene, review.series.image(), "Head non-contrast")
    review.desktop.app.processEvents()
    assert volumes_of(review.node) == (again, review.contrast)
    review.check_again()
    assert review.desktop.dialogs == []


def test_scene_closed_while_checking_leaves_an_empty_panel(review: Review) -> None:
    review.ui.checkAgainButton.click()
    review.desktop.close_scene()
    review.desktop.wait(lambda: review.text("checkAgainButton") == "Check again")
    assert review.names() == [] and review.desktop.dialogs == []


def test_contours_edited_while_they_are_read_are_not_taken(review: Review) -> None:
    from segrap.errors import InputError
    from segrap.scene.segmentation import hold_segments

    held = hold_segments(review.node)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(review.node, "Mandible_L", review.volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(0 * array, review.node, "Mandible_L", review.volume)
    with pytest.raises(InputError, match="edited while they were read"):
        held.contours(review.series.geometry, review.series.shape)


def test_unexpected_fault_beside_the_window_is_told(review: Review) -> None:
    job, told = review.widget._review._job, []
    job.start(lambda progress: {}["nothing"], told.append, told.append)
    review.desktop.wait(lambda: told)
    assert "unexpected fault (KeyError: 'nothing')" in str(told[0]) and not job.running


def test_buttons_that_are_off_say_why(review: Review) -> None:
    tips = {name: getattr(review.ui, name).property("toolTip") for name in ("doneButton", "editButton")}
    assert all(tip == "Select a structure in the table first." for tip in tips.values())
    review.select("BrainStem")
    assert review.ui.editButton.property("toolTip").startswith("Correct the selected structure")
    review.select("BrainStem", "GTVp")
    assert "one by one" in review.ui.editButton.property("toolTip")
    assert "one by one" in review.ui.doneButton.property("toolTip") and review.ui.doneButton.property("enabled")
    review.desktop.close_scene()
    assert review.ui.checkAgainButton.property("toolTip") == "There are no contours to review yet."
