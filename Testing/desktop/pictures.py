"""Makes the pictures of docs/tutorial.md: a made-up patient, contoured, reviewed, corrected and exported on the host.

Run from the repository's root, with SegRapSlicer/Logic and Testing on PYTHONPATH: python -m desktop.pictures
Takes some minutes: the demonstration model really runs. What a picture shows is what a person would see in the panel.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore

from desktop import Desktop
from segrap.ct.dicom_series import read_series_folder
from segrap.scene.review import DONE, review_rows, set_status
from segrap.scene.surfaces import CLOSED_SURFACE, has_surfaces
from segrap.scene.volumes import add_volume
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import write_dicom_pair

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
SPACING_MM = (2.0, 2.0, 3.0)
GLASSY = {"Brain": 0.25, "TemporalLobe_L": 0.4, "TemporalLobe_R": 0.4, "OralCavity": 0.5, "Larynx": 0.5}


def load_patient(desktop: Desktop, folder: Path) -> None:
    """What loading the two series in Slicer's DICOM module leaves in the scene."""
    for ct, name in zip(write_dicom_pair(Phantom(1).render(SPACING_MM), folder, 1), ("CT", "CT contrast"), strict=True):
        (series,) = read_series_folder(ct)
        volume = add_volume(slicer.mrmlScene, series.image(), f"{name} (made-up patient)")
        volume.SetAttribute("DICOM.instanceUIDs", " ".join(series.sop_instance_uids))
        desktop.dicom.files |= dict(zip(series.sop_instance_uids, map(str, series.files), strict=True))


def draw_surfaces(node: Any, path: Path) -> None:
    """The segments' surfaces as Slicer's 3-D view shows them, from the patient's front and left; the largest glassy."""
    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(True)
    window.SetSize(440, 440)
    window.AddRenderer(renderer)
    renderer.SetBackground(1, 1, 1)
    segmentation = node.GetSegmentation()
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        mapper, actor = vtk.vtkPolyDataMapper(), vtk.vtkActor()
        mapper.SetInputData(segment.GetRepresentation(CLOSED_SURFACE))
        mapper.ScalarVisibilityOff()
        actor.SetMapper(mapper)
        actor.GetProperty().SetColor(segment.GetColor())
        actor.GetProperty().SetOpacity(GLASSY.get(segment.GetName(), 1.0))
        renderer.AddActor(actor)
    camera = renderer.GetActiveCamera()
    camera.SetPosition(-0.6, 1, 0.2)
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCamera()
    camera.Zoom(1.2)
    window.Render()
    picture = vtk.vtkWindowToImageFilter()
    picture.SetInput(window)
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(picture.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()


def main() -> None:
    """Write docs/tutorial-*.png."""
    desktop = Desktop()
    widget = desktop.open("SegRapSlicer")
    ui = widget.ui

    def picture(step: str, *names: str) -> None:
        desktop.screenshot(widget, DOCS / f"tutorial-{step}.png", *names)

    with tempfile.TemporaryDirectory() as folder:
        load_patient(desktop, Path(folder))
        desktop.app.processEvents()
        ui.modelComboBox.setProperty("currentIndex", ui.modelComboBox.findText("SegRapPhantom"))
        desktop.wait(lambda: not widget._inputs.measuring)
        picture("1-load", "inputsCollapsibleButton")
        picture("2-choose", "modelCollapsibleButton", "structuresCollapsibleButton")

        ui.autoContourButton.click()
        desktop.wait(lambda: ui.progressBar.property("value") >= 40, seconds=1800)
        picture("3-contour", "autoContourButton", "progressBar", "statusLabel")
        desktop.wait(lambda: not widget.logic.running, seconds=1800)

        node = widget.logic.getParameterNode().segmentation
        rows = review_rows(node)
        flagged = [row for row in rows if row.wants_a_look and not row.is_target][4]
        for row in rows[: rows.index(flagged)]:
            set_status(node, row.segment_id, DONE)
        desktop.app.processEvents()
        ui.nextFlaggedButton.click()
        ui.surfacesButton.click()
        desktop.wait(lambda: has_surfaces(node))
        picture("4-review", "reviewCollapsibleButton")
        draw_surfaces(node, DOCS / "tutorial-4-surfaces.png")

        ui.editButton.click()
        picture("5-edit", "editCollapsibleButton")

        for row in review_rows(node):
            set_status(node, row.segment_id, DONE)
        output = Path(folder) / "export"
        output.mkdir()
        ui.exportDirectoryButton.setProperty("directory", str(output))
        ui.exportButton.click()
        desktop.wait(lambda: ui.exportButton.property("text") == "Export")
        # A folder of a person rather than of this computer.
        ui.exportDirectoryButton.setProperty("directory", "/home/me/contours")
        words = ui.exportLabel.property("text").replace(str(output), "/home/me/contours")
        ui.exportLabel.setProperty("text", words)
        picture("6-export", "exportCollapsibleButton")
        widget.cleanup()
    QtCore.QCoreApplication.processEvents()


if __name__ == "__main__":
    main()
