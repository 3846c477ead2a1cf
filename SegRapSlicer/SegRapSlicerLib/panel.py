"""The panel's widgets, from one .ui file per part."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import qt
import slicer

FIRST_TIP = "SegRapFirstToolTip"
PARTS = {
    "Model": "modelCollapsibleButton",
    "Structures": "structuresCollapsibleButton",
    "Review": "reviewCollapsibleButton",
    "Edit": "editCollapsibleButton",
    "Export": "exportCollapsibleButton",
}


def allow(widget: Any, reason: str) -> None:
    """Switch a widget on, with the tooltip that it had at first, or off with the reason as its tooltip."""
    if widget.property(FIRST_TIP) is None:
        widget.setProperty(FIRST_TIP, widget.toolTip)
    widget.enabled = not reason
    widget.toolTip = reason or widget.property(FIRST_TIP)


def sentence(words: Any) -> str:
    """Words or an error as a sentence: messages may begin with what a CT is called here."""
    return str(words)[:1].upper() + str(words)[1:]


def load_panel(resource_path: Callable[[str], str]) -> Any:
    """The panel's top-level widget, with every part in its box; the Tab key goes through all from top to bottom."""
    panel = slicer.util.loadUI(resource_path("UI/SegRapSlicer.ui"))
    for part, box in PARTS.items():
        slicer.util.findChild(panel, box).layout().addWidget(slicer.util.loadUI(resource_path(f"UI/{part}.ui")))
    widgets = vars(slicer.util.childWidgetVariables(panel))
    for before, after in pairwise(_tab_stops(resource_path)):
        qt.QWidget.setTabOrder(widgets[before], widgets[after])
    return panel


def _tab_stops(resource_path: Callable[[str], str]) -> list[str]:
    """Names of the widgets that take the keyboard, those of each part where its box stands."""

    def stated(name: str) -> ElementTree.Element:
        return ElementTree.parse(resource_path(f"UI/{name}.ui")).getroot()

    main, parts = stated("SegRapSlicer"), {box: part for part, box in PARTS.items()}
    own = {str(one.text) for one in main.iter("tabstop")}

    def stops(element: ElementTree.Element) -> Iterator[str]:
        for child in element:
            yield from stops(child)
        name = str(element.get("name"))
        if name in own:
            yield name
        elif name in parts:  # below what the box itself holds
            yield from (str(one.text) for one in stated(parts[name]).iter("tabstop"))

    return list(stops(main))
