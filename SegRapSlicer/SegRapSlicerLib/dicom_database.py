"""Slicer's DICOM database: what it knows of a volume, where its files are, and new files put beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from segrap.ct.contrast_words import describes_contrast, names_agent
from segrap.errors import InputError, OutputError


@dataclass(frozen=True)
class ScanTags:
    """What a volume's DICOM tags say, "" and None where they say nothing or the volume was no DICOM."""

    states_contrast: bool | None
    patient_id: str
    frame_of_reference_uid: str


def database_is_open() -> bool:
    """Whether there is anything to ask: while Slicer starts there is no database yet, and a broken one stays closed."""
    database = getattr(slicer, "dicomDatabase", None)
    return database is not None and bool(database.isOpen)


def _not_open() -> str:
    return str(_("Slicer's DICOM database is not open. Open the DICOM module once, then export again."))


def scan_tags(volume: Any) -> ScanTags:
    """The tags of a volume's series; whether it is a contrast scan is told by its name too, as `find_pair` does."""
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    known = bool(uids) and database_is_open()
    description, agent, patient, frame = (
        str(slicer.dicomDatabase.instanceValue(uids[0], tag) or "").strip() if known else ""
        for tag in ("0008,103e", "0018,0010", "0010,0020", "0020,0052")
    )
    described = describes_contrast(description or volume.GetName())
    return ScanTags(described if described is not None else (names_agent(agent) or None), patient, frame)


def instance_folder(volume: Any) -> tuple[Path, str]:
    """The folder with the DICOM files that a volume of the scene was loaded from, and the UID of one of them.

    Raises InputError when the volume was no DICOM, or its files are not there any more.
    """
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if not uids:
        raise InputError(
            _(
                "{name} was not loaded from DICOM, so a DICOM file has nothing to refer to. Load the CT's DICOM files."
            ).format(name=volume.GetName())
        )
    if not database_is_open():
        raise InputError(_not_open())
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
    if not database_is_open():
        raise OutputError(_not_open())
    database = slicer.dicomDatabase
    indexer = ctk.ctkDICOMIndexer()
    indexer.addFile(database, str(path), True)
    indexer.waitForImportFinished()
    found = database.fileForInstance(uid)
    if not found or not Path(found).is_file():
        raise OutputError(_("Slicer's DICOM database did not take the file. Export it into a folder instead."))
