"""The line above Auto-contour that is there while Python packages are missing, and the restart some installs need."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from segrap.errors import SegRapError
from SegRapSlicerLib import go_on
from SegRapSlicerLib.requirements import ensure_requirements, loaded_too_old, missing

DICOM_PACKAGES = ("pydicom",)


class RequirementsRow:
    """Works requirementsWidget with its requirementsLabel and installFromFolderButton. path: of requirements.txt."""

    def __init__(self, ui: Any, path: str) -> None:
        self._ui = ui
        self._path = path
        self._installing = False
        ui.installFromFolderButton.clicked.connect(self._on_folder)
        self.show()

    def show(self) -> None:
        """Be there while something is missing."""
        lacking = ", ".join(str(one) for one in missing(self._path))
        words = _("Contouring needs Python packages ({packages}). Auto-contour asks before it downloads them.")
        self._ui.requirementsLabel.text = words.format(packages=lacking)
        self._ui.requirementsWidget.visible = bool(lacking)

    def ensure_for_dicom(self) -> bool:
        """The same as `ensure` for what writes DICOM files, in Slicer's own process."""
        if self.ensure(only=DICOM_PACKAGES):
            return True
        old = loaded_too_old(self._path, DICOM_PACKAGES)
        if old:
            words = _(
                "Slicer still has {packages} loaded, which cannot write DICOM. Save, restart Slicer, then export."
            )
            raise SegRapError(words.format(packages=", ".join(old)))
        return False

    def ensure(self, parameters: Any = None, wheels: str | None = None, only: Collection[str] = ()) -> bool:
        """Install what is missing; True when nothing more is to be done: Slicer is restarting because of it, or an
        earlier call is still installing (Slicer 5.10 takes clicks meanwhile).

        parameters: the parameter node whose job goes on after the restart, None when no job waits. only: these packages
        alone. Raises SegRapError.
        """
        if self._installing:
            return True
        before = self._ui.statusLabel.text
        self._installing = True
        if missing(self._path, only):
            self._ui.statusLabel.text = _("Python packages are being installed. This may take minutes.")
        try:
            replaced = ensure_requirements(self._path, wheels, only)
        finally:
            self._installing = False
            self._ui.statusLabel.text = before
            self.show()
        if not replaced:
            return False
        words = _("Slicer had loaded {packages} before they were replaced. Restart Slicer now?").format(
            packages=", ".join(replaced)
        )
        reason = ""
        if parameters is not None:
            reason = go_on.why_not_after_restart((parameters.nonContrast, parameters.contrast))
            words += "\n\n" + (
                _("After the restart, load the CTs and press Auto-contour again: {reason}.").format(reason=reason)
                if reason
                else _("The CTs are loaded again after the restart, and Auto-contour goes on by itself.")
            )
        words += "\n" + _("Whatever else is in the scene and is not saved is lost.")
        if not slicer.util.confirmOkCancelDisplay(words):
            slicer.util.warningDisplay(_("Restart Slicer before you export contours."))
            return False
        if parameters is not None and not reason:
            go_on.remember(parameters)
        slicer.util.restart()
        return True

    def _on_folder(self, *_ignored: Any) -> None:
        folder = str(qt.QFileDialog.getExistingDirectory(self._ui.requirementsWidget, _("Folder of wheels")))
        if not folder:
            return
        try:
            if not self.ensure(wheels=folder):
                self._ui.statusLabel.text = _("The Python packages are installed.")
        except SegRapError as error:
            self._ui.statusLabel.text = str(error)
            slicer.util.errorDisplay(str(error))
