"""A made-up patient's contours on the desktop host, and what a person does with them in review and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from desktop import Desktop
from PySide6 import QtCore, QtTest

from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.quality import check
from segrap.scene.review import DONE, note_findings, review_rows, set_status
from segrap.scene.segmentation import fill_segmentation
from segrap.scene.volumes import add_volume, place_beside
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import truth, write_dicom_pair


def spoilt_patient(folder: Path) -> tuple[CTSeries, Contours]:
    """A CT as DICOM, and contours of which SpinalCord has a piece far above the rest and Chiasm is empty."""
    case = Phantom(3).render(spacing_mm=(4.0, 4.0, 5.0))
    ct, _ = write_dicom_pair(case, folder, 3)
    true = truth(case, 3)
    chosen = ("BrainStem", "Chiasm", "SpinalCord", "Mandible_L", "GTVp", "GTVnd")
    masks = {name: true.mask(name).copy() for name in chosen}
    masks["SpinalCord"][-6:-3, 40:44, 40:44] = True
    masks["Chiasm"][:] = False
    (series,) = read_series_folder(ct)
    return series, Contours.from_masks(masks, true.geometry, true.provenance)


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
        self.contrast = add_volume(slicer.mrmlScene, image, "Head contrast")
        place_beside(self.node, self.volume, self.contrast)
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

    def press(self, key: QtCore.Qt.Key, widget: str = "reviewTable") -> None:
        self.widget.parent.activateWindow()
        getattr(self.ui, widget).setFocus()
        QtTest.QTest.keyClick(getattr(self.ui, widget), key)
        self.desktop.app.processEvents()

    def text(self, label: str) -> str:
        return str(getattr(self.ui, label).property("text"))

    def choose(self, box: str, text: str) -> None:
        """Choose an entry of one of the export's combo boxes: Format, Structures, Names, Place."""
        combo_box = getattr(self.ui, f"export{box}ComboBox")
        combo_box.setProperty("currentIndex", combo_box.findText(text))
        self.desktop.app.processEvents()

    def export(self, folder: Path, text: str = "RTSTRUCT (DICOM)") -> str:
        """Export in this format into a folder, and what the panel then says."""
        self.choose("Format", text)
        self.ui.exportDirectoryButton.setProperty("directory", str(folder))
        self.click("exportButton")
        self.wait_for("exportButton", "Export")
        return self.text("exportLabel")

    def check_again(self) -> None:
        self.click("checkAgainButton")
        self.wait_for("checkAgainButton", "Check again")

    def wait_for(self, button: str, text: str) -> None:
        """Until the work that the button cancels has ended."""
        self.desktop.wait(lambda: self.text(button) == text)


def mark_all_done(node: Any) -> None:
    for row in review_rows(node):
        set_status(node, row.segment_id, DONE)
