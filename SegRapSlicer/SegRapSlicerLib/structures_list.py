"""The list of structures in anatomical groups, with a tick, a colour and an explanation each, and the presets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from segrap import anatomy
from segrap.errors import SegRapError
from segrap.presets import Presets, delete_preset, import_presets, read_presets, save_preset, write_presets
from SegRapSlicerLib.panel import allow

FILE_KIND = "JSON (*.json)"


class StructuresList:
    """Works the widgets of Structures.ui. `changed` is called with the names that lost their tick or never had it, in
    table order, when the user ticks or chooses a preset."""

    def __init__(self, ui: Any, changed: Callable[[list[str]], None]) -> None:
        self._ui = ui
        self._tree = ui.structuresTree
        self._changed = changed
        self._names: tuple[str, ...] = ()
        self._skipped: set[str] = set()
        self._items: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._presets: Presets = {}
        self._showing = False
        self._tree.itemChanged.connect(self._on_ticked)
        ui.filterLineEdit.textChanged.connect(self._filter)
        ui.allButton.clicked.connect(lambda: self.tick(anatomy.NAMES))
        ui.organsButton.clicked.connect(lambda: self.tick([one.name for one in anatomy.ORGANS]))
        ui.targetsButton.clicked.connect(lambda: self.tick([one.name for one in anatomy.TARGETS]))
        ui.presetComboBox.activated.connect(self._on_preset)
        self._menu = qt.QMenu(ui.presetMenuButton)
        for words, slot in (
            (_("Save the ticked structures as a preset..."), self._on_save),
            (_("Delete the chosen preset"), self._on_delete),
            (_("Import presets from a file..."), self._on_import),
            (_("Export all presets to a file..."), self._on_export),
        ):
            self._menu.addAction(words).triggered.connect(slot)
        ui.presetMenuButton.setMenu(self._menu)

    @property
    def wanted(self) -> list[str]:
        """The names with a tick."""
        return [name for name in self._names if name not in self._skipped]

    def tick(self, names: Sequence[str]) -> None:
        """Want these structures and no others."""
        self._changed([name for name in anatomy.NAMES if name not in set(names)])

    def read_presets(self) -> None:
        """Read the user's presets anew: another window of Slicer may have changed them."""
        self._try(read_presets)

    def show(self, names: Sequence[str], skipped: Sequence[str]) -> None:
        """List these structures, with a tick at each that is not skipped."""
        self._showing = True
        if self._names != tuple(names):
            self._names = tuple(names)
            self._list()
        self._skipped = set(skipped)
        for name, item in self._items.items():
            _set_state(item, qt.Qt.Unchecked if name in self._skipped else qt.Qt.Checked)
        for group, item in self._groups.items():
            wanted = [one.name not in self._skipped for one in self._members(group)]
            partly = qt.Qt.PartiallyChecked if any(wanted) else qt.Qt.Unchecked
            _set_state(item, qt.Qt.Checked if all(wanted) else partly)
            item.setText(0, f"{_(group)} ({sum(wanted)}/{len(wanted)})")
        self._showing = False
        self._show_presets()

    def _members(self, group: str) -> list[anatomy.Structure]:
        return [one for one in anatomy.GROUPS[group] if one.name in self._names]

    def _list(self) -> None:
        self._tree.clear()
        self._items, self._groups = {}, {}
        for group in anatomy.GROUPS:
            if not self._members(group):
                continue
            parent = qt.QTreeWidgetItem()
            parent.setText(0, group)
            parent.setCheckState(0, qt.Qt.Unchecked)  # without a state of its own an item has no box
            self._tree.addTopLevelItem(parent)
            parent.setExpanded(True)
            self._groups[group] = parent
            for structure in self._members(group):
                self._items[structure.name] = _item(structure)
                parent.addChild(self._items[structure.name])
        self._filter(self._ui.filterLineEdit.text)

    def _on_ticked(self, item: Any, column: int) -> None:
        if self._showing:
            return
        checked = item.checkState(0) == qt.Qt.Checked
        names = {name for name, one in self._items.items() if one is item or one == item}
        for group, one in self._groups.items():
            if one == item:
                names = {member.name for member in self._members(group)}
        skipped = self._skipped - names if checked else self._skipped | names
        self._changed([name for name in anatomy.NAMES if name in skipped])

    def _filter(self, text: str) -> None:
        wanted = text.strip().casefold()
        for group, parent in self._groups.items():
            whole = wanted in _(group).casefold()
            for structure in self._members(group):
                fits = whole or wanted in structure.name.casefold() or wanted in structure.snomed[1].casefold()
                self._items[structure.name].setHidden(not fits)
            parent.setHidden(all(self._items[one.name].isHidden() for one in self._members(group)))

    def _show_presets(self) -> None:
        """Name the preset that is ticked, if one is."""
        box = self._ui.presetComboBox
        listed = [_("Presets"), *self._presets]
        if [box.itemText(row) for row in range(box.count)] != listed:
            box.clear()
            box.addItems(listed)
        wanted = set(self.wanted)
        fitting = [name for name, names in self._presets.items() if set(names) & set(self._names) == wanted and wanted]
        box.currentIndex = listed.index(fitting[0]) if fitting else 0
        none = _("There is no preset of your own yet: tick structures, then choose Save in the menu beside.")
        allow(box, "" if self._presets else none)

    def _on_preset(self, *_ignored: Any) -> None:
        name = self._ui.presetComboBox.currentText
        if name in self._presets:
            self.tick(self._presets[name])

    def _on_save(self, *_ignored: Any) -> None:
        name = qt.QInputDialog.getText(self._tree, _("Save a preset"), _("Name:"))
        name = name[0] if isinstance(name, tuple) else name  # PythonQt gives the text alone
        if name:
            self._try(lambda: save_preset(name, self.wanted))

    def _on_delete(self, *_ignored: Any) -> None:
        name = self._ui.presetComboBox.currentText
        if name in self._presets and slicer.util.confirmOkCancelDisplay(_("Delete the preset {0}?").format(name)):
            self._try(lambda: delete_preset(name))

    def _on_import(self, *_ignored: Any) -> None:
        path = _chosen(qt.QFileDialog.getOpenFileName(self._tree, _("Import presets"), "", FILE_KIND))
        if path:
            self._try(lambda: import_presets(path))

    def _on_export(self, *_ignored: Any) -> None:
        path = _chosen(qt.QFileDialog.getSaveFileName(self._tree, _("Export presets"), "presets.json", FILE_KIND))
        if path:
            self._try(lambda: write_presets(self._presets, path))

    def _try(self, do: Callable[[], Presets | None]) -> None:
        """Do something with the presets, show those that it gives, and tell the person when it fails."""
        try:
            presets = do()
        except SegRapError as error:
            slicer.util.errorDisplay(str(error))
            return
        if presets is not None:
            self._presets = presets
        self._show_presets()


def _chosen(answer: Any) -> str:
    """The path from a file dialog, which PythonQt gives alone and PySide with the filter."""
    return str(answer[0] if isinstance(answer, tuple) else answer)


def _set_state(item: Any, state: Any) -> None:
    if item.checkState(0) != state:
        item.setCheckState(0, state)


def _item(structure: anatomy.Structure) -> Any:
    item = qt.QTreeWidgetItem()
    item.setText(0, structure.name)
    item.setToolTip(0, structure.description or structure.snomed[1])
    item.setCheckState(0, qt.Qt.Checked)
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*structure.colour))
    item.setIcon(0, qt.QIcon(pixmap))
    return item
