"""The review: one row per structure, with what a check found, and how far the reader has come.

What takes long (checking again, surfaces) is done beside the window; editing has `editing` for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from segrap.errors import Cancelled, SegRapError
from segrap.progress import Progress, ProgressCallback
from segrap.quality import check
from segrap.quality.findings import Kind, words_for_cc
from segrap.scene.review import (
    DONE,
    FLAGGED,
    IN_PROGRESS,
    NOT_STARTED,
    ReviewRow,
    dim_all_but,
    look_at,
    note_findings,
    review_rows,
    set_status,
)
from segrap.scene.segmentation import hold_segments
from segrap.scene.surfaces import attach_surfaces, has_surfaces, hold_labels, make_surfaces, remove_surfaces
from segrap.scene.volumes import image_of_volume
from SegRapSlicerLib.editing import Editing
from SegRapSlicerLib.inputs import ct_of
from SegRapSlicerLib.panel import allow
from SegRapSlicerLib.side_job import SideJob

NAME, VOLUME, STATUS, FINDINGS = range(4)


class ReviewTable(VTKObservationMixin):
    """Works the widgets of Review.ui: reviewTable, its buttons, its labels and reviewProgressBar."""

    def __init__(self, ui: Any) -> None:
        VTKObservationMixin.__init__(self)
        self._ui = ui
        self._table = ui.reviewTable
        self._node: Any = None
        self._rows: list[ReviewRow] = []
        self._refusal = ""
        self._showing = False
        self._refresh_is_due = False
        self._job = SideJob(self._show_progress)
        self.editing = Editing(ui)
        self._table.setHorizontalHeaderLabels([_("Structure"), _("Volume (cc)"), _("Status"), _("Look at")])
        header = self._table.horizontalHeader()
        for column in (NAME, VOLUME, STATUS):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        self._table.itemSelectionChanged.connect(self._on_selected)
        ui.dimCheckBox.toggled.connect(self._on_selected)
        ui.previousButton.clicked.connect(lambda: self._step(-1, lambda row: True))
        ui.nextButton.clicked.connect(lambda: self._step(1, lambda row: True))
        ui.nextFlaggedButton.clicked.connect(lambda: self._step(1, lambda row: row.wants_a_look))
        ui.doneButton.clicked.connect(self.mark_done)
        ui.flagButton.clicked.connect(self.toggle_flag)
        ui.editButton.clicked.connect(self.edit)
        ui.checkAgainButton.clicked.connect(self.check_again_or_cancel)
        ui.surfacesButton.clicked.connect(self.toggle_surfaces)
        slots = {"D": self.mark_done, "F": self.toggle_flag}
        self._shortcuts = [self._shortcut(key, slot) for key, slot in slots.items()]
        self.show(None)

    def show(self, node: Any) -> None:
        """Show the segments of a vtkMRMLSegmentationNode, or nothing; follows what happens to them afterwards."""
        if node is not self._node:
            self.removeObservers()
            self._job.drop()
            if self._node:
                dim_all_but(self._node, [])
            self._node = node
            self._table.clearSelection()
            if node:
                for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified"):
                    self.addObserver(node.GetSegmentation(), getattr(slicer.vtkSegmentation, event), self._on_changed)
        self.editing.show(node)
        self.refresh()

    def enter(self) -> None:
        """The panel is seen."""
        self.editing.enter()
        self._dim()

    def leave(self) -> None:
        """The panel is not seen any more: the views and the keys belong to others."""
        self.editing.leave()
        if self._node:
            dim_all_but(self._node, [])

    def close(self) -> None:
        """The application closes or the module is reloaded."""
        self._job.drop()
        self.leave()
        self.editing.close()
        self.removeObservers()

    def refresh(self) -> None:
        """Bring the rows up to date; the selection stays."""
        self._refresh_is_due = False
        self._rows = review_rows(self._node) if self._node else []
        statuses = (_("not started"), _("in progress"), _("done"), _("flagged"))
        reasons = _reasons()
        self._showing = True
        self._table.rowCount = len(self._rows)
        for number, row in enumerate(self._rows):
            self._show_row(number, row, statuses[row.status], reasons)
        self._showing = False
        done = sum(row.status == DONE for row in self._rows)
        left = sum(row.wants_a_look for row in self._rows)
        counts = _("{done} of {all} done; {left} with something to look at.").format(
            done=done, all=len(self._rows), left=left
        )
        self._ui.reviewLabel.text = (
            f"{counts} {self._refusal}".strip() if self._rows else _("There are no contours to review yet.")
        )
        running = self._job.running
        empty = "" if self._rows else _("There are no contours to review yet.")
        for name in ("previousButton", "nextButton", "nextFlaggedButton", "checkAgainButton"):
            allow(getattr(self._ui, name), empty)
        allow(self._ui.surfacesButton, empty or (_("Wait for what is being done, or cancel it.") if running else ""))
        self._ui.checkAgainButton.text = _("Cancel") if running else _("Check again")
        self._ui.surfacesButton.checked = bool(self._rows) and has_surfaces(self._node)
        self._ui.reviewProgressBar.visible = running
        self._show_selected()

    def selected(self) -> list[ReviewRow]:
        """The selected rows, from top to bottom."""
        numbers = sorted({item.row() for item in self._table.selectedItems()})
        return [self._rows[number] for number in numbers if number < len(self._rows)]

    def selected_names(self) -> list[str]:
        """What the selected structures are called."""
        return [row.name for row in self.selected()]

    def mark_done(self) -> None:
        """Accept the selected structures. Of several, targets stay as they are: each is accepted on its own."""
        rows = self.selected()
        targets = [row.name for row in rows if row.is_target] if len(rows) > 1 else []
        for row in rows:
            if row.name not in targets:
                set_status(self._node, row.segment_id, DONE)
        refusal = _("Not accepted: {names}. Accept each tumour volume on its own.").format(names=", ".join(targets))
        self._refusal = refusal if targets else ""
        self.refresh()
        if len(rows) == 1:
            self._step(1, lambda row: row.status != DONE)

    def toggle_flag(self) -> None:
        """Flag the selected structures for later, or take the flag away."""
        for row in self.selected():
            set_status(self._node, row.segment_id, IN_PROGRESS if row.status == FLAGGED else FLAGGED)
        self.refresh()

    def edit(self) -> None:
        """Open the Segment Editor on the selected structure, so that painting it never erases its neighbours."""
        (row,) = self.selected()
        if row.status == NOT_STARTED:
            set_status(self._node, row.segment_id, IN_PROGRESS)
        self.editing.start(row.segment_id)

    def check_again_or_cancel(self) -> None:
        """Check the contours as they now are, or stop doing what is being done."""
        if self._job.running:
            self._job.cancel()
            return
        node = self._node
        try:
            image, segments = image_of_volume(ct_of(node)), hold_segments(node)
        except SegRapError as error:
            self._failed(error)
            return

        def work(progress: ProgressCallback) -> Any:
            progress(Progress(_("Reading the contours"), 0.0))
            contours = segments.contours(image.geometry, image.shape)
            return contours, check(contours, image, progress)

        def done(result: Any) -> None:
            note_findings(node, *result)
            self.refresh()

        self._job.start(work, done, self._failed)
        self.refresh()

    def toggle_surfaces(self, *_ignored: Any) -> None:
        """Show the surfaces of all segments in the 3-D views, or take them away."""
        node = self._node
        if has_surfaces(node):
            remove_surfaces(node)
            self.refresh()
            return
        try:
            held = hold_labels(node)
        except SegRapError as error:
            self._failed(error)
            return

        def done(surfaces: Any) -> None:
            attach_surfaces(node, held, surfaces)
            self.refresh()

        self._job.start(lambda progress: make_surfaces(held, progress), done, self._failed)
        self.refresh()

    def _failed(self, error: SegRapError) -> None:
        self._refusal = str(error)
        self.refresh()
        if error.exit_status != Cancelled.exit_status:
            slicer.util.errorDisplay(str(error))

    def _show_progress(self, progress: Progress) -> None:
        self._ui.reviewProgressBar.value = round(100 * progress.fraction)

    def _show_row(self, number: int, row: ReviewRow, status: str, reasons: dict[Kind, str]) -> None:
        serious = [reasons[remark.kind] for remark in row.remarks if remark.severity != "note"]
        texts = {
            NAME: row.name,
            VOLUME: "" if row.volume_cc is None else words_for_cc(row.volume_cc),
            FINDINGS: ", ".join(dict.fromkeys(serious)),
            STATUS: status,
        }
        for column, text in texts.items():
            item = self._table.item(number, column)
            if item is None:
                item = qt.QTableWidgetItem()
                self._table.setItem(number, column, item)
            item.setText(text)
            item.setToolTip("\n".join(remark.message for remark in row.remarks))
        pixmap = qt.QPixmap(12, 12)
        pixmap.fill(qt.QColor(*(round(255 * part) for part in row.colour)))
        self._table.item(number, NAME).setIcon(qt.QIcon(pixmap))

    def _step(self, direction: int, wanted: Callable[[ReviewRow], bool]) -> None:
        """Select the next row from the current one on that is wanted, beginning again at the other end."""
        selected = {row.segment_id for row in self.selected()}
        start = next((n for n, row in enumerate(self._rows) if row.segment_id in selected), -1 if direction > 0 else 0)
        for step in range(1, len(self._rows) + 1):
            number = (start + direction * step) % len(self._rows)
            if wanted(self._rows[number]):
                self._table.selectRow(number)
                self._table.scrollToItem(self._table.item(number, NAME))
                return

    def _on_selected(self, *_ignored: Any) -> None:
        if self._showing or not self._node:
            return
        self._refusal = ""
        self._dim()
        rows = self.selected()
        if len(rows) == 1 and rows[0].place_ras:
            look_at(self._node, rows[0].place_ras)
        self._show_selected()

    def _dim(self) -> None:
        if self._node:
            wanted = self.selected() if self._ui.dimCheckBox.checked else []
            dim_all_but(self._node, [row.segment_id for row in wanted])

    def _show_selected(self) -> None:
        rows = self.selected()
        self._ui.findingsLabel.text = "\n".join(remark.message for remark in rows[0].remarks) if len(rows) == 1 else ""
        nothing = "" if rows else _("Select a structure in the table first.")
        allow(self._ui.doneButton, nothing)
        allow(self._ui.flagButton, nothing)
        several = _("Select one structure only: they are edited one by one.") if len(rows) > 1 else ""
        allow(self._ui.editButton, nothing or several)

    def _on_changed(self, caller: Any = None, event: Any = None) -> None:
        # One edit or check changes many segments: look once, when all of it is done.
        if not self._refresh_is_due:
            self._refresh_is_due = True
            qt.QTimer.singleShot(0, self.refresh)

    def _shortcut(self, key: str, slot: Callable[[], None]) -> Any:
        shortcut = qt.QShortcut(qt.QKeySequence(key), self._table)
        shortcut.context = qt.Qt.WidgetWithChildrenShortcut
        shortcut.activated.connect(slot)
        return shortcut


def _reasons() -> dict[Kind, str]:
    """What a check found, in few enough words for the table; the whole sentence stands beneath it."""
    return {
        "empty": _("not found"),
        "side": _("wrong side"),
        "order": _("wrong height"),
        "overlap": _("overlaps"),
        "containment": _("sticks out"),
        "air": _("in air"),
        "gap": _("empty slices"),
        "pieces": _("in pieces"),
        "edge": _("cut by the scan"),
        "slices": _("thick slices"),
        "volume": _("volume"),
        "density": _("density"),
        "confidence": _("low confidence"),
    }
