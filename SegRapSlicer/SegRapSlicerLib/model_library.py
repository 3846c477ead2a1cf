"""The window behind Get models...: what is at hand, installing from a file or an address, removing.

Nothing is asked of the network before the person clicks Install with an address; then the size is shown before the
download, and the licence before the model enters the library. Work is done beside the window (see `side_job`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from segrap.contouring import coverage
from segrap.errors import Cancelled, SegRapError, UsageError
from segrap.models.cards import ModelCard, list_cards
from segrap.models.download import ask
from segrap.models.library import install, remove, user_folder
from segrap.progress import Progress, ProgressCallback
from SegRapSlicerLib.panel import allow
from SegRapSlicerLib.side_job import SideJob

ARCHIVES = "(*.zip *.tar *.tar.gz *.tgz *.tar.bz2 *.tar.xz)"


class ModelLibrary:
    """Works the dialog of ModelLibrary.ui.

    prepare: makes sure that what reading a model needs is installed; may raise SegRapError. changed: called with the
    name of a model that was installed, or "" when one was removed.
    """

    def __init__(
        self, resource_path: Callable[[str], str], prepare: Callable[[], None], changed: Callable[[str], None]
    ) -> None:
        self.dialog = slicer.util.loadUI(resource_path("UI/ModelLibrary.ui"))
        self._ui = slicer.util.childWidgetVariables(self.dialog)
        self._prepare = prepare
        self._changed = changed
        self._cards: list[ModelCard] = []
        self._question: _Question | None = None
        self._job = SideJob(self._told)
        ui = self._ui
        ui.libraryTree.itemSelectionChanged.connect(self._show_buttons)
        ui.openFolderButton.clicked.connect(self._on_open_folder)
        ui.removeModelButton.clicked.connect(self._on_remove)
        ui.browseButton.clicked.connect(self._on_browse)
        ui.installButton.clicked.connect(self._on_install_or_cancel)
        ui.sourceLineEdit.textChanged.connect(self._show_buttons)
        ui.closeButton.clicked.connect(lambda: self.dialog.close())  # PythonQt would hand "checked" to close
        self.dialog.finished.connect(self._on_finished)

    def open(self) -> None:
        """Show the window; what is done in it goes on while the person works elsewhere."""
        self._list()
        self._ui.installLabel.text = ""
        self.dialog.show()
        self.dialog.raise_()

    def close(self) -> None:
        """The panel goes: let go of everything."""
        self._job.drop()
        self.dialog.close()

    def _list(self) -> None:
        ui = self._ui
        self._cards = list_cards()
        ui.libraryLabel.text = _("Models at hand. Yours lie in {0}, outside the extension.").format(user_folder())
        ui.libraryTree.clear()
        for card in self._cards:
            item = qt.QTreeWidgetItem()
            needs = _("both CTs") if card.wants_pair else _("one CT")
            covers = _("cannot be used") if card.fault else coverage(card.structures)
            entry = card.entry
            for column, text in enumerate(
                (entry.name, covers, needs, entry.intended_use, entry.licence, entry.version)
            ):
                item.setText(column, text)
                item.setToolTip(column, card.fault or entry.description)
            ui.libraryTree.addTopLevelItem(item)
        for column in range(ui.libraryTree.columnCount):
            ui.libraryTree.resizeColumnToContents(column)
        self._show_buttons()

    def _selected(self) -> ModelCard | None:
        items = self._ui.libraryTree.selectedItems()
        return next((card for card in self._cards if items and card.entry.name == items[0].text(0)), None)

    def _show_buttons(self, *_ignored: Any) -> None:
        ui, card, running = self._ui, self._selected(), self._job.running
        fault = _("Select a model that you installed.") if card is None else ""
        if card is not None and card.entry.shipped:
            fault = _("{0} comes with SegRapSlicer and cannot be removed.").format(card.entry.name)
        allow(ui.removeModelButton, fault or (_("Wait for what is being done, or cancel it.") if running else ""))
        ui.installButton.text = _("Cancel") if running else _("Install")
        given = running or ui.sourceLineEdit.text.strip()
        allow(ui.installButton, "" if given else _("Give a file or an address first."))
        ui.installProgressBar.visible = running

    def _on_open_folder(self, *_ignored: Any) -> None:
        folder = user_folder()
        folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def _on_browse(self, *_ignored: Any) -> None:
        kinds = f"{_('Models')} {ARCHIVES}"
        path = qt.QFileDialog.getOpenFileName(self.dialog, _("Choose a model's archive"), "", kinds)
        path = path[0] if isinstance(path, tuple) else path  # PythonQt gives the path alone
        if path:
            self._ui.sourceLineEdit.text = path

    def _on_remove(self, *_ignored: Any) -> None:
        card = self._selected()
        if card is None:
            return
        words = _("Delete the model {0} from this computer?").format(card.entry.name)
        if not slicer.util.confirmOkCancelDisplay(words):
            return
        try:
            self._ui.installLabel.text = _("Removed {0}.").format(remove(card.entry.name))
        except SegRapError as error:
            self._ui.installLabel.text = str(error)
        self._list()
        self._changed("")

    def _on_install_or_cancel(self, *_ignored: Any) -> None:
        if self._job.running:
            self._job.cancel()
            return
        source, sha256 = self._ui.sourceLineEdit.text.strip(), self._ui.sha256LineEdit.text.strip() or None
        try:
            if self._prepare():
                return  # Slicer restarts
        except SegRapError as error:
            self._failed(error)
            return

        def work(progress: ProgressCallback) -> str:
            def agree(words: str) -> bool:
                question = self._question = _Question(words)
                while not question.answered.wait(0.05):
                    progress(Progress(_("Waiting for an answer"), 0.0))  # raises Cancelled
                return question.answer

            progress(Progress(_("Asking for the size"), 0.0))
            if re.match(r"https?://", source):
                offer = ask(source)
                words = _("Download a file ({size}) from {host}?").format(size=offer.size, host=offer.host)
                if not agree(words):
                    raise UsageError(_("Nothing was downloaded."))
            progress(Progress(_("Reading the model"), 0.0))
            model = install(
                source,
                sha256=sha256,
                accept=agree,
                agree=lambda found: agree(_licence_words(found)),
                progress=progress,
            )
            return str(model.folder.name)

        self._ui.installLabel.text = ""
        self._job.start(work, self._done, self._failed)
        self._show_buttons()

    def _told(self, progress: Progress) -> None:
        self._ui.installProgressBar.value = round(100 * progress.fraction)
        self._ui.installLabel.text = f"{progress.stage} {progress.message}".strip()
        question, self._question = self._question, None
        if question:
            question.answer = slicer.util.confirmOkCancelDisplay(question.words)
            question.answered.set()

    def _done(self, name: str) -> None:
        self._list()
        self._ui.installLabel.text = _("{0} is installed.").format(name)
        self._changed(name)

    def _failed(self, error: SegRapError) -> None:
        self._show_buttons()
        self._ui.installLabel.text = _("Cancelled.") if isinstance(error, Cancelled) else str(error)

    def _on_finished(self, *_ignored: Any) -> None:
        self._job.drop()
        self._show_buttons()


class _Question:
    """Asked by the thread at work, answered in the window."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.answer = False
        self.answered = threading.Event()


def _licence_words(model: Any) -> str:
    return _(
        "{name} {version}: {covers}.\n\nLicence: {licence}. Made for: {use}.\n{description}\n\n"
        "Do you accept the licence and install it?"
    ).format(
        name=model.name,
        version=model.version,
        covers=coverage(model.structures),
        licence=model.licence,
        use=model.intended_use,
        description=model.description,
    )
