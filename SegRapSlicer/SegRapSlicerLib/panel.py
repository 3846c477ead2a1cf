"""The panel's widgets, from one .ui file per part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

PARTS = {
    "Model": "modelCollapsibleButton",
    "Structures": "structuresCollapsibleButton",
    "Review": "reviewCollapsibleButton",
    "Edit": "editCollapsibleButton",
    "Export": "exportCollapsibleButton",
}


def load_panel(resource_path: Callable[[str], str]) -> Any:
    """The panel's top-level widget, with every part in its box."""
    panel = slicer.util.loadUI(resource_path("UI/SegRapSlicer.ui"))
    for part, box in PARTS.items():
        slicer.util.findChild(panel, box).layout().addWidget(slicer.util.loadUI(resource_path(f"UI/{part}.ui")))
    return panel
