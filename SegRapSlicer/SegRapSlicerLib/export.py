"""Export of reviewed contours: which, as what, under which names and whither; then the work, beside the window."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from segrap import anatomy
from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.delivery import Delivery, Kind, deliver
from segrap.errors import Cancelled, InputError, OutputError, SegRapError
from segrap.naming import Names, read_names
from segrap.progress import Progress, ProgressCallback
from segrap.scene.review import DONE, review_rows, review_tags
from segrap.scene.segmentation import hold_segments
from segrap.scene.volumes import grid_of_volume
from segrap.writing import cannot_write
from SegRapSlicerLib.dicom_database import add_file, instance_folder
from SegRapSlicerLib.inputs import ct_of
from SegRapSlicerLib.panel import allow
from SegRapSlicerLib.side_job import SideJob

FOLDER_KEY, NAMES_KEY = "SegRapSlicer/ExportFolder", "SegRapSlicer/NamesFile"
REFER_TO_DICOM = ("rtstruct", "dicom-seg")


class Export:
    """Works the export's widgets, those of Export.ui, all called export*.

    selected: gives the names that are selected in the review's table. prepare: makes sure that Slicer has what writes
    DICOM files; True when nothing more is to be done.
    """

    def __init__(self, ui: Any, selected: Callable[[], list[str]], prepare: Callable[[], bool]) -> None:
        self._ui = ui
        self._prepare = prepare
        self._selected = selected
        self._node: Any = None
        self._choices: Any = None
        self._job = SideJob(self._show_progress)
        self._format = Choice(
            ui.exportFormatComboBox,
            {
                "rtstruct": _("RTSTRUCT (DICOM)"),
                "dicom-seg": _("DICOM SEG"),
                "seg.nrrd": _("Slicer segmentation (.seg.nrrd)"),
                "challenge": _("SegRap challenge (.mha)"),
            },
            self._on_chosen,
        )
        self._structures = Choice(
            ui.exportStructuresComboBox,
            {"all": _("All"), "done": _("Those that are done"), "selected": _("Those selected in the review")},
            self._on_chosen,
        )
        self._names = Choice(
            ui.exportNamesComboBox,
            {"tg263": _("TG-263"), "segrap": _("SegRap"), "site": _("The site's own")},
            self._on_chosen,
        )
        self._place = Choice(
            ui.exportPlaceComboBox, {"folder": _("A folder"), "database": _("Slicer's DICOM database")}, self._on_chosen
        )
        ui.exportDirectoryButton.directory, ui.exportNamesPathLineEdit.currentPath = remembered()
        ui.exportButton.clicked.connect(self._on_export_or_cancel)
        self.show(None, None)

    def show(self, node: Any, choices: Any) -> None:
        """Export this vtkMRMLSegmentationNode from now on; choices: the parameter node, which keeps what is chosen."""
        if node is not self._node:
            self._job.drop()
            self._ui.exportLabel.text = ""
        self._node, self._choices = node, choices
        if choices:
            self._format.show(choices.exportFormat)
            self._structures.show(choices.exportStructures)
            self._names.show(choices.exportNames)
            self._place.show(choices.exportPlace)
        to_dicom = self._format.chosen in REFER_TO_DICOM
        plain = "" if to_dicom else _("Files of this format always hold SegRap's names.")
        allow(self._ui.exportNamesComboBox, plain)
        own = "" if self._names.chosen == "site" else _("Choose the site's own names first.")
        allow(self._ui.exportNamesPathLineEdit, plain or own)
        allow(self._ui.exportPlaceComboBox, "" if to_dicom else _("Only DICOM files go into Slicer's DICOM database."))
        kept = _("Slicer's DICOM database keeps its files in its own folder.") if self._into_database else ""
        allow(self._ui.exportDirectoryButton, kept)
        allow(self._ui.exportButton, "" if node else _("There are no contours to export yet."))
        self._ui.exportButton.text = _("Cancel") if self._job.running else _("Export")
        self._ui.exportProgressBar.visible = self._job.running

    def close(self) -> None:
        """Stop what is being written; nothing of it is left."""
        self._job.drop()

    @property
    def _into_database(self) -> bool:
        return self._format.chosen in REFER_TO_DICOM and self._place.chosen == "database"

    def _on_chosen(self) -> None:
        boxes = (self._format, self._structures, self._names, self._place)
        chosen = [box.chosen for box in boxes]  # all of them first: every change of the node shows it anew
        if self._choices:
            (
                self._choices.exportFormat,
                self._choices.exportStructures,
                self._choices.exportNames,
                self._choices.exportPlace,
            ) = chosen
        self.show(self._node, self._choices)

    def _on_export_or_cancel(self) -> None:
        if self._job.running:
            self._job.cancel()
            return
        try:
            wanted = self._wanted()
            if self._format.chosen in REFER_TO_DICOM and self._prepare():
                return
            if not self._confirmed(wanted):
                self._ui.exportLabel.text = _("Nothing was written.")
                return
            self._start(wanted)
        except SegRapError as error:
            self._failed(error)
        self.show(self._node, self._choices)

    def _wanted(self) -> list[str]:
        """The SegRap names that are to be written."""
        rows = {row.name: row for row in review_rows(self._node)}
        names = {
            "all": list(rows),
            "done": [name for name, row in rows.items() if row.status == DONE],
            "selected": self._selected(),
        }[self._structures.chosen]
        found = [anatomy.find_structure(name) for name in names]
        wanted = [structure.name for structure in found if structure]
        if not wanted:
            reasons = {
                "all": _("No segment has a SegRap name (such as BrainStem), so there is nothing to write."),
                "done": _("No structure is done yet, so there is nothing to write."),
                "selected": _("No SegRap structure is selected in the review, so there is nothing to write."),
            }
            raise InputError(reasons[self._structures.chosen])
        return wanted

    def _confirmed(self, wanted: list[str]) -> bool:
        open_rows = [
            row.name
            for row in sorted(review_rows(self._node), key=lambda row: not row.is_target)
            if row.status != DONE and row.name in wanted
        ]
        question = _("{count} structures are not reviewed: {names}.\n\nExport them all the same?").format(
            count=len(open_rows), names=", ".join(open_rows)
        )
        return not open_rows or slicer.util.confirmOkCancelDisplay(question)

    def _start(self, wanted: list[str]) -> None:
        kind: Kind = self._format.chosen
        names: Names = self._names.chosen
        if names == "site" and kind in REFER_TO_DICOM:
            names = read_names(self._ui.exportNamesPathLineEdit.currentPath)
        volume = ct_of(self._node)
        segments = hold_segments(self._node)
        tags = review_tags(self._node)
        into_database = self._into_database
        remember(self._ui.exportDirectoryButton.directory, self._ui.exportNamesPathLineEdit.currentPath)
        if kind in REFER_TO_DICOM:
            folder_and_uid = instance_folder(volume)
        else:
            grid = grid_of_volume(volume)
        directory = None if into_database else Path(self._ui.exportDirectoryButton.directory)

        def work(progress: ProgressCallback) -> tuple[Delivery, tuple[str, ...]]:
            progress(Progress(_("Reading the contours"), 0.0))
            series = _series(*folder_and_uid) if kind in REFER_TO_DICOM else None
            contours = segments.contours(*((series.geometry, series.shape) if series else grid))
            folder = directory or _temporary_folder()
            try:
                delivery = deliver(
                    contours,
                    folder,
                    kind,
                    series=series,
                    structures=wanted,
                    names=names,
                    review=tags,
                    progress=progress,
                )
            except BaseException:
                if not directory:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            return delivery, contours.left_out

        def done(result: tuple[Delivery, tuple[str, ...]]) -> None:
            self._delivered(*result, into_database)

        self._job.start(work, done, self._failed)

    def _delivered(self, delivery: Delivery, left_out: tuple[str, ...], into_database: bool) -> None:
        place = str(delivery.path)
        if into_database:
            try:
                add_file(delivery.path)
            except OutputError as error:
                self._failed(error)
                return
            finally:
                shutil.rmtree(delivery.path.parent, ignore_errors=True)
            place = _("Slicer's DICOM database")
        words = [
            _("{place} now holds {count} structures; what was written was read back and checked.").format(
                place=place, count=len(delivery.written)
            )
        ]
        if delivery.empty:
            words.append(_("Empty, hence not in it: {names}.").format(names=", ".join(delivery.empty)))
        if left_out:
            words.append(_("No SegRap structures, hence not in it: {names}.").format(names=", ".join(left_out)))
        self._ui.exportLabel.text = " ".join([*words, *delivery.warnings])
        self.show(self._node, self._choices)

    def _failed(self, error: SegRapError) -> None:
        self._ui.exportLabel.text = str(error)
        self.show(self._node, self._choices)
        if error.exit_status != Cancelled.exit_status:
            slicer.util.errorDisplay(str(error))

    def _show_progress(self, progress: Progress) -> None:
        self._ui.exportProgressBar.value = round(100 * progress.fraction)
        self._ui.exportLabel.text = f"{progress.stage} {progress.message}".strip()


def remember(folder: str, names: str) -> None:
    """Keep where the person exports to and the site's names for the next session: they belong to no scene."""
    slicer.app.userSettings().setValue(FOLDER_KEY, folder)
    slicer.app.userSettings().setValue(NAMES_KEY, names)


def remembered() -> tuple[str, str]:
    """The folder and the file of names that were used last; the home folder where there is none (any more)."""
    folder, names = (str(slicer.app.userSettings().value(key) or "") for key in (FOLDER_KEY, NAMES_KEY))
    return (folder if folder and Path(folder).is_dir() else str(Path.home())), names


class Choice:
    """A combo box of which one of a few values is chosen."""

    def __init__(self, combo_box: Any, texts: dict[str, str], chosen: Callable[[], None]) -> None:
        self._combo_box = combo_box
        self._values = list(texts)
        self._showing = True
        combo_box.addItems(list(texts.values()))
        self._showing = False
        self._told = chosen
        combo_box.currentIndexChanged.connect(self._on_changed)

    @property
    def chosen(self) -> Any:
        return self._values[self._combo_box.currentIndex]

    def show(self, value: str) -> None:
        """Choose a value without telling; one that is none of them is passed over."""
        if value in self._values:
            self._showing = True
            self._combo_box.currentIndex = self._values.index(value)
            self._showing = False

    def _on_changed(self, *_ignored: Any) -> None:
        if not self._showing:
            self._told()


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="segrap-export-"))
    except OSError as error:
        raise cannot_write(Path(tempfile.gettempdir()), error) from error


def _series(folder: Path, uid: str) -> CTSeries:
    """The series in a folder that the instance of this UID belongs to. Raises InputError when it cannot be used."""
    found = [one for one in read_series_folder(folder) if uid in one.sop_instance_uids]
    if not found:
        raise InputError(_("The DICOM files of the CT have changed since it was loaded. Load the CT again."))
    return found[0]
