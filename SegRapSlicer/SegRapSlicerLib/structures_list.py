"""The list of structures with a tick, a colour and an explanation each, which can be filtered by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt

from segrap import anatomy


class StructuresList:
    """Works a QListWidget and the QLineEdit that filters it. `changed` is called with the names that lost their tick
    or never had it, in table order, when the user ticks."""

    def __init__(self, widget: Any, filter_edit: Any, changed: Callable[[list[str]], None]) -> None:
        self._widget = widget
        self._filter_edit = filter_edit
        self._changed = changed
        self._names: tuple[str, ...] = ()
        self._skipped: set[str] = set()
        self._showing = False
        widget.itemChanged.connect(self._on_ticked)
        filter_edit.textChanged.connect(self._filter)

    @property
    def wanted(self) -> list[str]:
        """The names with a tick."""
        return [name for name in self._names if name not in self._skipped]

    def show(self, names: Sequence[str], skipped: Sequence[str]) -> None:
        """List these structures, with a tick at each that is not skipped."""
        self._showing = True
        if self._names != tuple(names):
            self._names = tuple(names)
            self._widget.clear()
            for name in names:
                self._widget.addItem(_item(anatomy.structure(name)))
            self._filter(self._filter_edit.text)
        self._skipped = set(skipped)
        for row, name in enumerate(names):
            state = qt.Qt.Unchecked if name in self._skipped else qt.Qt.Checked
            if self._widget.item(row).checkState() != state:
                self._widget.item(row).setCheckState(state)
        self._showing = False

    def _on_ticked(self, item: Any) -> None:
        if not self._showing:
            self._skipped ^= {item.text()}
            self._changed([name for name in anatomy.NAMES if name in self._skipped])

    def _filter(self, text: str) -> None:
        for row, name in enumerate(self._names):
            self._widget.item(row).setHidden(text.strip().casefold() not in name.casefold())


def _item(structure: anatomy.Structure) -> Any:
    item = qt.QListWidgetItem(structure.name)
    item.setToolTip(structure.description)
    item.setCheckState(qt.Qt.Checked)
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*structure.colour))
    item.setIcon(qt.QIcon(pixmap))
    return item
