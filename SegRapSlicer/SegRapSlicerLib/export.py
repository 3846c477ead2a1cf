"""Export of reviewed contours: an RTSTRUCT against the CT's own DICOM files, or a Slicer segmentation file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.errors import InputError, SegRapError
from segrap.rtstruct.write import write_rtstruct
from segrap.scene.review import not_reviewed
from segrap.scene.segmentation import contours_from_segmentation
from segrap.writing import replacing


class Export:
    """Works the export's widgets: `ui` holds exportDirectoryButton, exportRtstructButton, exportSegmentationButton and
    exportLabel."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._node: Any = None
        ui.exportDirectoryButton.directory = str(Path.home())
        ui.exportRtstructButton.clicked.connect(lambda: self._export(export_rtstruct))
        ui.exportSegmentationButton.clicked.connect(lambda: self._export(export_segmentation))
        self.show(None)

    def show(self, node: Any) -> None:
        """Export this vtkMRMLSegmentationNode from now on."""
        if node is not self._node:
            self._ui.exportLabel.text = ""
        self._node = node
        reason = "" if node else _("There are no contours to export yet.")
        for button in (self._ui.exportRtstructButton, self._ui.exportSegmentationButton):
            button.enabled = not reason
        self._ui.exportRtstructButton.toolTip = reason or _("Write a DICOM RTSTRUCT on the original CT.")
        self._ui.exportSegmentationButton.toolTip = reason or _("Write a segmentation file with the review in it.")

    def _export(self, export: Any) -> None:
        names = not_reviewed(self._node)
        warning = _("{count} structures are not reviewed: {names}.\n\nExport them all the same?").format(
            count=len(names), names=", ".join(names)
        )
        if names and not slicer.util.confirmOkCancelDisplay(warning):
            self._ui.exportLabel.text = _("Nothing was written.")
            return
        try:
            with slicer.util.WaitCursor():
                self._ui.exportLabel.text = export(self._node, Path(self._ui.exportDirectoryButton.directory))
        except SegRapError as error:
            self._ui.exportLabel.text = str(error)
            slicer.util.errorDisplay(str(error))


def export_rtstruct(node: Any, folder: Path) -> str:
    """Write the structures of a segmentation as RTSTRUCT into a folder; returns what was done, in words.

    The file has been read back, compared and linted when this returns. Raises InputError (the CT is no DICOM, or the
    contours do not lie on it), OutputError.
    """
    series = find_series(node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()))
    contours = contours_from_segmentation(node, series.geometry, series.shape)
    path = _free_name(folder, "RTSTRUCT", ".dcm")
    report = write_rtstruct(contours, series, path)
    words = _("{file} holds {count} structures; it was read back and checked.").format(
        file=path, count=len(report.written)
    )
    if report.empty:
        words += " " + _("Empty, hence not in it: {names}.").format(names=", ".join(report.empty))
    if contours.left_out:
        words += " " + _("No SegRap structures, hence not in it: {names}.").format(names=", ".join(contours.left_out))
    return words


def export_segmentation(node: Any, folder: Path) -> str:
    """Write a segmentation with its review status as .seg.nrrd; returns what was done. Raises OutputError."""
    path = _free_name(folder, "contours", ".seg.nrrd")
    with replacing(path) as temporary:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(temporary))
        if not storage.WriteData(node):
            raise OSError("Slicer could not write the segmentation")
    return _("{file} holds {count} segments.").format(file=path, count=node.GetSegmentation().GetNumberOfSegments())


def find_series(volume: Any) -> CTSeries:
    """The DICOM series that a volume of the scene was loaded from, through Slicer's DICOM database.

    Raises InputError when the volume is not in the scene, was no DICOM, or its files are not there any more.
    """
    if volume is None:
        raise InputError(_("The CT of these contours is not in the scene any more. Load it again, and contour it."))
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if not uids:
        raise InputError(
            _(
                "{name} was not loaded from DICOM, so an RTSTRUCT has nothing to refer to. Load the CT's DICOM files."
            ).format(name=volume.GetName())
        )
    files = [slicer.dicomDatabase.fileForInstance(uid) for uid in uids]
    folders = {Path(file).parent for file in files if file and Path(file).is_file()}
    if len(folders) != 1 or not all(files):
        raise InputError(
            _(
                "The DICOM files of {name} are not in Slicer's DICOM database in one folder. Import its folder there."
            ).format(name=volume.GetName())
        )
    found = [one for one in read_series_folder(folders.pop()) if uids[0] in one.sop_instance_uids]
    return found[0]


def _free_name(folder: Path, stem: str, ending: str) -> Path:
    """A name in the folder that nothing has yet: earlier exports stay."""
    names = (folder / f"{stem}{number}{ending}" for number in ("", *(f"-{n}" for n in range(2, 10000))))
    return next(path for path in names if not path.exists())
