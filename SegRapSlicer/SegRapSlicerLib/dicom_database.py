"""Slicer's DICOM database: where a volume's files are, and new files put beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from segrap.errors import InputError, OutputError


def instance_folder(volume: Any) -> tuple[Path, str]:
    """The folder with the DICOM files that a volume of the scene was loaded from, and the UID of one of them.

    Raises InputError when the volume is not in the scene, was no DICOM, or its files are not there any more.
    """
    if volume is None:
        raise InputError(_("The CT of these contours is not in the scene any more. Load it again, and contour it."))
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if not uids:
        raise InputError(
            _(
                "{name} was not loaded from DICOM, so a DICOM file has nothing to refer to. Load the CT's DICOM files."
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
    return folders.pop(), uids[0]


def add_file(path: Path) -> None:
    """Copy a DICOM file into Slicer's database; returns when it is there. Raises OutputError when it did not arrive."""
    import pydicom

    uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    database = slicer.dicomDatabase
    if not database.isOpen:
        raise OutputError(_("Slicer's DICOM database is not open. Open the DICOM module once, then export again."))
    indexer = ctk.ctkDICOMIndexer()
    indexer.addFile(database, str(path), True)
    indexer.waitForImportFinished()
    found = database.fileForInstance(uid)
    if not found or not Path(found).is_file():
        raise OutputError(_("Slicer's DICOM database did not take the file. Export it into a folder instead."))
