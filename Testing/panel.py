"""What a person does with the panel in a test, and what is to be seen on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import slicer
from desktop import Desktop

from segrap.image import Image
from segrap.training.phantom import PhantomCase

PLAIN, ENHANCED = "Head non-contrast", "Head with contrast"


class Panel:
    """What a person does with the panel, and what is to be seen on it."""

    def __init__(self, desktop: Desktop) -> None:
        self.desktop = desktop
        self.widget = desktop.open("SegRapSlicer")
        self.ui = self.widget.ui
        self.logic = self.widget.logic

    def text(self, name: str) -> str:
        return str(getattr(self.ui, name).property("text"))

    def load(self, name: str, image: Image) -> Any:
        from segrap.scene.volumes import add_volume

        node = add_volume(slicer.mrmlScene, image, name)
        self.desktop.app.processEvents()
        return node

    def load_pair(self, case: PhantomCase) -> tuple[Any, Any]:
        return self.load(PLAIN, case.non_contrast), self.load(ENHANCED, case.contrast)

    def choose_model(self, name: str) -> None:
        self.ui.modelComboBox.setProperty("currentIndex", self.ui.modelComboBox.findText(name))

    def click(self, name: str) -> None:
        getattr(self.ui, name).click()
        self.desktop.app.processEvents()

    @property
    def button_off_because(self) -> str:
        button = self.ui.autoContourButton
        return "" if button.property("enabled") else str(button.property("toolTip"))

    def wait_until(self, condition: Callable[[], Any]) -> None:
        self.desktop.wait(condition)

    def wait_until_measured(self) -> None:
        self.wait_until(lambda: not self.widget._inputs.measuring)

    def wait_until_idle(self) -> None:
        self.wait_until(lambda: self.text("autoContourButton") == "Auto-contour")

    def begin(self, model: str) -> None:
        """Click, and wait until the network runs."""
        self.choose_model(model)
        self.click("autoContourButton")
        self.wait_until(lambda: self.text("statusLabel").startswith("Contouring"))

    def names(self, role: str) -> str | None:
        node = getattr(self.ui, role).currentNode()
        return node.GetName() if node else None

    def structures(self) -> list[Any]:
        """The items of the structures, without their groups."""
        tree = self.ui.structuresTree
        groups = [tree.topLevelItem(row) for row in range(tree.property("topLevelItemCount"))]
        return [group.child(row) for group in groups for row in range(group.childCount())]

    def ticked(self) -> set[str]:
        return {item.text(0) for item in self.structures() if item.checkState(0).value == 2}


def segmentations() -> list[Any]:
    scene = slicer.mrmlScene
    count = scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    return [scene.GetNthNodeByClass(number, "vtkMRMLSegmentationNode") for number in range(count)]


def workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "segrap.worker" in child.cmdline()]
