"""Editing one structure: the segment editor opens on it, neighbours stay, undo brings everything back."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from desktop import Desktop
from PySide6 import QtCore
from reviewing import Review
from slicer_nodes import segment_mask
from vtk.util.numpy_support import vtk_to_numpy

Logic = slicer.vtkSlicerSegmentationsModuleLogic


def editor_of(review: Review) -> Any:
    return review.widget._review.editing._editor


def paint(review: Review, segment_id: str, mask: np.ndarray) -> None:
    """What the editor does when a stroke ends: remember, then add the stroke to the segment, overwriting nothing."""
    editor_of(review).saveStateForUndo()
    painted = slicer.vtkOrientedImageData()
    assert review.node.GetBinaryLabelmapRepresentation(segment_id, painted)
    z, y, x = mask.shape
    painted.SetExtent(0, x - 1, 0, y - 1, 0, z - 1)
    painted.AllocateScalars(3, 1)
    vtk_to_numpy(painted.GetPointData().GetScalars())[:] = mask.ravel()
    assert Logic.SetBinaryLabelmapToSegment(painted, review.node, segment_id, Logic.MODE_MERGE_MAX, painted.GetExtent())


def test_edit_opens_the_editor_on_the_segment_so_that_neighbours_are_not_erased(review: Review) -> None:
    review.select("Mandible_L")
    review.click("editButton")
    node = editor_of(review).mrmlSegmentEditorNode()
    assert not review.ui.editCollapsibleButton.property("collapsed")
    assert (node.GetSegmentationNode(), node.GetSourceVolumeNode()) == (review.node, review.volume)
    assert node.GetSelectedSegmentID() == "Mandible_L"
    assert node.GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    assert review.cell("Mandible_L", 2) == "in progress"
    assert review.text("editLabel").startswith("Mandible_L: what you paint leaves all other structures as they are")
    editor_of(review).setCurrentSegmentID("GTVp")  # in the editor's own list
    assert review.text("editLabel").startswith("GTVp: what you paint")


def test_painting_one_structure_over_another_erases_nothing_and_undo_brings_all_back(review: Review) -> None:
    review.select("BrainStem")
    review.click("editButton")
    shape = review.series.shape
    before = {name: segment_mask(review.node, name, shape) for name in review.contours.names}
    paint(review, "BrainStem", before["Mandible_L"])
    after = {name: segment_mask(review.node, name, shape) for name in review.contours.names}
    assert np.array_equal(after["BrainStem"], before["BrainStem"] | before["Mandible_L"])
    assert all(np.array_equal(after[name], before[name]) for name in before if name != "BrainStem")
    editor_of(review).undo()
    undone = {name: segment_mask(review.node, name, shape) for name in review.contours.names}
    assert all(np.array_equal(undone[name], before[name]) for name in before)
    review.check_again()
    assert review.desktop.dialogs == []


def test_contrast_ct_is_one_key_or_click_away_in_the_views_and_in_the_editor(review: Review) -> None:
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    review.select("Mandible_L")
    review.click("editButton")
    review.click("contrastButton")
    assert view.GetBackgroundVolumeID() == review.contrast.GetID()
    assert editor_of(review).mrmlSegmentEditorNode().GetSourceVolumeNode() is review.contrast
    review.press(QtCore.Qt.Key_C, "exportButton")  # anywhere in the window
    assert view.GetBackgroundVolumeID() == review.volume.GetID()
    assert editor_of(review).mrmlSegmentEditorNode().GetSourceVolumeNode() is review.volume


def test_folding_the_box_takes_the_brush_away_and_unfolding_does_not_bring_it_back(review: Review) -> None:
    review.select("Mandible_L")
    review.click("editButton")
    editor = editor_of(review)
    editor.setActiveEffect("Paint")
    assert editor.active_effect and editor.observes_views
    review.ui.editCollapsibleButton.setProperty("collapsed", True)
    assert not editor.active_effect and not editor.observes_views and not editor.has_shortcuts
    review.ui.editCollapsibleButton.setProperty("collapsed", False)
    assert editor.observes_views and editor.has_shortcuts and not editor.active_effect


def test_without_a_contrast_ct_the_button_says_why_it_is_off(review: Review) -> None:
    slicer.mrmlScene.RemoveNode(review.contrast)
    review.widget.show()
    assert not review.ui.contrastButton.property("enabled")
    assert "without a contrast CT" in review.ui.contrastButton.property("toolTip")


def test_editor_takes_mouse_and_keys_only_while_the_panel_is_seen(review: Review, desktop: Desktop) -> None:
    review.select("Mandible_L")
    review.click("editButton")
    editor = editor_of(review)
    assert editor.observes_views and editor.has_shortcuts
    review.widget.exit()
    review.press(QtCore.Qt.Key_C)
    assert not review.ui.contrastButton.property("checked")
    assert not editor.observes_views and not editor.has_shortcuts
    review.widget.enter()
    assert editor.observes_views and editor.has_shortcuts
    desktop.close_scene()
    assert not editor.observes_views and review.ui.editCollapsibleButton.property("collapsed")
    review.widget._review.editing.close()
    assert editor.mrmlSegmentEditorNode() is None, "after a reload another editor has it"
