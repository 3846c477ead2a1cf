"""Review and export as a person does them, on the desktop host: true contours of a made-up patient, a bit spoilt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from desktop import Desktop
from PySide6 import QtCore, QtTest

from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.quality import check
from segrap.rtstruct.read import read_rtstruct
from segrap.scene.review import DONE, note_findings, review_rows, set_status
from segrap.scene.segmentation import fill_segmentation
from segrap.scene.volumes import add_volume, place_beside
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import truth, write_dicom_pair


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dicom")


@pytest.fixture(scope="module")
def patient(dicom: Path) -> tuple[CTSeries, Contours]:
    """A CT as DICOM, and contours of which SpinalCord has a piece far above the rest and Chiasm is empty."""
    case = Phantom(3).render(spacing_mm=(4.0, 4.0, 5.0))
    folder, _ = write_dicom_pair(case, dicom, 3)
    true = truth(case, 3)
    chosen = ("BrainStem", "Chiasm", "SpinalCord", "Mandible_L", "GTVp", "GTVnd")
    masks = {name: true.mask(name).copy() for name in chosen}
    masks["SpinalCord"][-6:-3, 40:44, 40:44] = True
    masks["Chiasm"][:] = False
    (series,) = read_series_folder(folder)
    return series, Contours.from_masks(masks, true.geometry, true.provenance)


@pytest.fixture(scope="module")
def desktop() -> Iterator[Desktop]:
    desktop = Desktop()
    desktop.open("SegRapSlicer")
    yield desktop
    desktop.close("SegRapSlicer")


@pytest.fixture
def review(desktop: Desktop, patient: tuple[CTSeries, Contours]) -> Iterator[Review]:
    yield Review(desktop, *patient)
    desktop.close_scene()
    desktop.dialogs.clear()
    desktop.answer = True


class Review:
    """A patient's scene after contouring, and what a person does in the review."""

    def __init__(self, desktop: Desktop, series: CTSeries, contours: Contours) -> None:
        self.desktop, self.series, self.contours = desktop, series, contours
        self.widget = desktop.open("SegRapSlicer")
        self.ui = self.widget.ui
        self.slice = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
        image = series.image()
        self.volume = add_volume(slicer.mrmlScene, image, "Head non-contrast")
        self.volume.SetAttribute("DICOM.instanceUIDs", " ".join(series.sop_instance_uids))
        desktop.dicom.files = dict(zip(series.sop_instance_uids, map(str, series.files), strict=True))
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        self.node.CreateDefaultDisplayNodes()
        fill_segmentation(
            self.node,
            Contours.from_layers(
                contours.layers.copy(),
                contours.geometry,
                {name: (facts.layer, facts.value) for name, facts in contours.structures.items()},
                contours.provenance,
            ),
        )
        note_findings(self.node, contours, check(contours, image))
        place_beside(self.node, self.volume)
        self.widget._parameterNode.segmentation = self.node
        desktop.app.processEvents()

    def cell(self, name: str, column: int) -> str:
        return str(self.ui.reviewTable.item(self.names().index(name), column).text())

    def names(self) -> list[str]:
        return [self.ui.reviewTable.item(row, 0).text() for row in range(self.ui.reviewTable.property("rowCount"))]

    def select(self, *names: str) -> None:
        self.ui.reviewTable.clearSelection()
        model = self.ui.reviewTable.selectionModel()
        flags = QtCore.QItemSelectionModel.Select | QtCore.QItemSelectionModel.Rows
        for name in names:
            model.select(self.ui.reviewTable.model().index(self.names().index(name), 0), flags)
        self.desktop.app.processEvents()

    def selected(self) -> list[str]:
        rows = sorted({item.row() for item in self.ui.reviewTable.selectedItems()})
        return [self.names()[row] for row in rows]

    def click(self, button: str) -> None:
        getattr(self.ui, button).click()
        self.desktop.app.processEvents()

    def press(self, key: QtCore.Qt.Key) -> None:
        self.widget.parent.activateWindow()
        self.ui.reviewTable.setFocus()
        QtTest.QTest.keyClick(self.ui.reviewTable, key)
        self.desktop.app.processEvents()

    def text(self, label: str) -> str:
        return str(getattr(self.ui, label).property("text"))

    def export(self, button: str, folder: Path) -> str:
        self.ui.exportDirectoryButton.setProperty("directory", str(folder))
        self.click(button)
        return self.text("exportLabel")


def mark_all_done(node: Any) -> None:
    for row in review_rows(node):
        set_status(node, row.segment_id, DONE)


def test_every_structure_has_a_row_with_volume_reason_and_status(review: Review) -> None:
    assert review.names() == list(review.contours.names)
    assert float(review.cell("Mandible_L", 1)) == pytest.approx(
        review.contours.structures["Mandible_L"].volume_cc, rel=0.01
    )
    assert review.cell("SpinalCord", 3).startswith("25 empty slices (125.0 mm) between")
    assert review.cell("Chiasm", 3).startswith("Asked for but not found")
    assert {review.cell(name, 2) for name in review.names()} == {"not started"}
    assert review.text("reviewLabel").startswith("0 of 6 done")


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


def test_edit_opens_the_segment_editor_so_that_neighbours_are_not_erased(review: Review) -> None:
    review.select("Mandible_L")
    review.click("editButton")
    editor = review.desktop.editor
    assert review.desktop.module == "SegmentEditor"
    assert (editor.segmentation, editor.source_volume) == (review.node, review.volume)
    assert editor.segment_id == "Mandible_L"
    assert editor.mrmlSegmentEditorNode().GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    assert review.cell("Mandible_L", 2) == "in progress"


def test_checking_again_sees_what_was_edited(review: Review) -> None:
    volume_before = review.cell("Mandible_L", 1)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(review.node, "Mandible_L", review.volume)
    array[:] = 0
    array[20:40, 40:60, 40:60] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, review.node, "Mandible_L", review.volume)
    review.click("checkAgainButton")
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
    assert "contours.seg.nrrd holds 6 segments" in review.export("exportSegmentationButton", tmp_path)
    again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "contours.seg.nrrd"))
    assert storage.ReadData(again)
    read, kept = review_rows(again), review_rows(review.node)
    assert [replace(row, colour=(0, 0, 0)) for row in read] == [replace(row, colour=(0, 0, 0)) for row in kept]
    assert np.allclose([row.colour for row in read], [row.colour for row in kept], atol=1e-5)
    assert read_seg_nrrd(tmp_path / "contours.seg.nrrd").names == review.contours.names


def test_review_goes_on_where_it_was_when_the_scene_is_opened_again(review: Review, tmp_path: Path) -> None:
    review.select("BrainStem")
    review.click("doneButton")
    for node, name in ((review.volume, "ct.nrrd"), (review.node, "contours.seg.nrrd")):
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
    assert review.cell("Chiasm", 3).startswith("Asked for but not found")
    review.click("checkAgainButton")
    assert review.desktop.dialogs == []


def test_export_asks_before_it_writes_what_nobody_reviewed(review: Review, tmp_path: Path) -> None:
    review.select("BrainStem")
    review.click("doneButton")
    review.desktop.answer = False
    assert review.export("exportRtstructButton", tmp_path) == "Nothing was written."
    assert review.desktop.dialogs[0].startswith("5 structures are not reviewed: GTVp, GTVnd, Chiasm")
    assert list(tmp_path.iterdir()) == []


def test_rtstruct_on_the_original_ct_reads_back_as_the_contours(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    words = review.export("exportRtstructButton", tmp_path)
    assert review.desktop.dialogs == []
    assert "5 structures; it was read back and checked" in words and "Empty, hence not in it: Chiasm" in words
    read = read_rtstruct(tmp_path / "RTSTRUCT.dcm", review.series)
    for name in read.names:
        assert np.array_equal(read.mask(name), review.contours.mask(name)), name
    review.export("exportRtstructButton", tmp_path)
    assert (tmp_path / "RTSTRUCT-2.dcm").is_file()


def test_rtstruct_of_a_ct_that_is_no_dicom_or_has_gone_says_so(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    review.desktop.dicom.files = {}
    assert "not in Slicer's DICOM database" in review.export("exportRtstructButton", tmp_path)
    review.volume.RemoveAttribute("DICOM.instanceUIDs")
    assert "was not loaded from DICOM" in review.export("exportRtstructButton", tmp_path)
    slicer.mrmlScene.RemoveNode(review.volume)
    assert "not in the scene any more" in review.export("exportRtstructButton", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_or_missing_folder_is_told(review: Review, tmp_path: Path) -> None:
    mark_all_done(review.node)
    assert "cannot be written" in review.export("exportRtstructButton", tmp_path / "nowhere")
    assert len(review.desktop.dialogs) == 1


def test_without_contours_nothing_can_be_reviewed_or_exported(review: Review) -> None:
    review.desktop.close_scene()
    assert review.names() == []
    assert not review.ui.exportRtstructButton.property("enabled")
    assert review.ui.exportRtstructButton.property("toolTip") == "There are no contours to export yet."
