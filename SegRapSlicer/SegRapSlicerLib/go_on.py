"""Going on with Auto-contour after a restart of Slicer: what was chosen, kept in Slicer's settings meanwhile.

A scene does not outlive a restart. Its CTs are loaded again from where they came, the DICOM database or a file; a CT
that came from nowhere, was changed, or lies under a transform could not be brought back as it was, and is not tried.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from segrap.errors import InputError
from segrap.scene.volumes import series_uid
from SegRapSlicerLib.dicom_database import database_is_open

KEY = "SegRapSlicer/GoOnAfterRestart"
FRESH_SECONDS = 3600
"""A request that Slicer did not come back to within this is forgotten: nobody waits for it any more."""


def why_not_after_restart(volumes: Sequence[Any]) -> str:
    """Why these volumes could not be loaded again as they are, "" when they can."""
    for volume in filter(None, volumes):
        if _source(volume) is None:
            return _("{volume} is neither from the DICOM database nor a saved file").format(volume=volume.GetName())
        if volume.GetParentTransformNode() is not None:
            return _("{volume} lies under a transform").format(volume=volume.GetName())
    return ""


def remember(parameters: Any) -> None:
    """Keep what is chosen in a parameter node of SegRapSlicer for after the restart."""
    request = {
        "asked": time.time(),
        "nonContrast": _source(parameters.nonContrast),
        "contrast": _source(parameters.contrast) if parameters.contrast else None,
        "model": parameters.model,
        "skippedStructures": list(parameters.skippedStructures),
    }
    settings = slicer.app.userSettings()
    settings.setValue(KEY, json.dumps(request))
    settings.sync()  # the new Slicer may read them before this one has ended


def when_started() -> None:
    """Called as Slicer starts, before the DICOM module, which opens the database then: go on when all have."""
    qt.QTimer.singleShot(0, after_restart)


def after_restart() -> None:
    """Slicer has started: take up what an installation's restart interrupted, if it did."""
    request = take()
    if request:
        slicer.util.selectModule("SegRapSlicer")
        slicer.modules.SegRapSlicerWidget.goOn(request)


def take() -> dict[str, Any] | None:
    """What was remembered, once: it is forgotten before it is tried, so that what fails is not tried for ever."""
    settings = slicer.app.userSettings()
    words = str(settings.value(KEY, "") or "")
    settings.remove(KEY)
    request: dict[str, Any] | None = json.loads(words) if words else None
    if request is None or time.time() - request["asked"] > FRESH_SECONDS:
        return None
    return request


def load(source: dict[str, str] | None) -> Any:
    """The volume that `remember` noted, loaded into the scene. Raises InputError when it cannot be found any more."""
    if source is None:
        return None
    node = None
    if "series" in source:
        from DICOMLib import DICOMUtils

        if not database_is_open():
            raise InputError(_("Slicer was restarted, but its DICOM database is not open. Load the CTs again."))
        loaded = [slicer.mrmlScene.GetNodeByID(one) for one in DICOMUtils.loadSeriesByUID([source["series"]]) or ()]
        node = next((one for one in loaded if one and one.IsA("vtkMRMLScalarVolumeNode")), None)
    elif Path(source["file"]).is_file():
        node = slicer.util.loadVolume(source["file"])
    if node is None:
        words = _("Slicer was restarted, but a CT could not be loaded again. Load it and press Auto-contour.")
        raise InputError(words)
    return node


def _source(volume: Any) -> dict[str, str] | None:
    series = series_uid(volume)
    if series and volume.GetAttribute("DICOM.instanceUIDs"):
        return {"series": series}
    storage = volume.GetStorageNode()
    if storage and storage.GetFileName() and not volume.GetModifiedSinceRead():
        return {"file": str(Path(storage.GetFileName()).absolute())}
    return None
