"""How far a contouring is, on the panel: the button that cancels, stage, percent, time left, device, memory and log."""

from __future__ import annotations

import time
from typing import Any

from slicer.i18n import tr as _

from SegRapSlicerLib.time_left import TimeLeft


class RunDisplay:
    """Works autoContourButton's text, progressBar, statusLabel, deviceLabel and logTextEdit."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._time_left = TimeLeft()
        self._cancelling = False

    def begin(self) -> None:
        """A job has been started."""
        self._time_left = TimeLeft()
        self._cancelling = False
        self._ui.autoContourButton.text = _("Cancel")
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self._ui.statusLabel.text = _("Starting the background process")

    def cancelling(self) -> None:
        """The person has cancelled; nothing more is told of the job until it has ended."""
        self._cancelling = True
        self._ui.autoContourButton.enabled = False
        self._ui.statusLabel.text = _("Cancelling...")

    def show(self, logic: Any) -> None:
        """Tell what the SegRapSlicerLogic last heard of its job."""
        self._show_log(logic.log)
        progress = logic.progress
        if self._cancelling or not progress:
            return
        self._ui.progressBar.value = round(100 * progress.fraction)
        details = f": {progress.message}" if progress.message else ""
        left = self._time_left.words(time.monotonic(), progress.fraction)
        self._ui.statusLabel.text = f"{progress.stage}{details}{left and ', ' + left}"
        device = logic.device and _("Computed by {device}.").format(device=logic.device)
        self._ui.deviceLabel.text = f"{device} {logic.memory}".strip()
        self._ui.deviceLabel.visible = bool(self._ui.deviceLabel.text)

    def end(self, message: str, log: str) -> None:
        """No job runs any more; say why."""
        self._ui.autoContourButton.text = _("Auto-contour")
        self._ui.progressBar.visible = False
        self._ui.deviceLabel.visible = False
        self._ui.statusLabel.text = message
        self._show_log(log)

    def _show_log(self, log: str) -> None:
        if self._ui.logTextEdit.plainText != log:
            self._ui.logTextEdit.plainText = log
            bar = self._ui.logTextEdit.verticalScrollBar()
            bar.value = bar.maximum
