"""Stand-ins for the few CTK and qMRML widgets that the module's .ui file uses, over the real scene.

Properties and signals are those of Slicer's headers (Libs/MRML/Widgets/qMRMLNodeComboBox.h, qMRMLWidget.h,
ctkCollapsibleButton.h); only what the module uses is here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import slicer
from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import (
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QStyle,
    QStyleOptionButton,
    QStylePainter,
    QWidget,
)


class QMRMLWidget(QWidget):
    """The top-level widget of a module's .ui: hands the scene to the widgets that the .ui connects to it."""

    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self.mrmlSceneChanged.emit(scene)


class QMRMLNodeComboBox(QComboBox):
    """Chooses a node of the scene; follows nodes that come, go and are renamed."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._node_types: list[str] = []
        self._flags = {"noneEnabled": False}
        self._observed: set[str] = set()
        self._filling = False
        self.currentIndexChanged.connect(self._tell)

    def _get_node_types(self) -> list[str]:
        return self._node_types

    def _set_node_types(self, types: list[str]) -> None:
        self._node_types = list(types)
        self._fill()

    nodeTypes = Property("QStringList", _get_node_types, _set_node_types)
    noneEnabled = Property(
        bool, lambda self: self._flags["noneEnabled"], lambda self, value: self._flags.update(noneEnabled=value)
    )
    addEnabled = Property(bool, lambda self: False, lambda self, value: None)
    removeEnabled = Property(bool, lambda self: False, lambda self, value: None)
    renameEnabled = Property(bool, lambda self: False, lambda self, value: None)
    showChildNodeTypes = Property(bool, lambda self: True, lambda self, value: None)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
            scene.AddObserver(event, lambda caller, name: self._fill())
        self._fill()

    def currentNode(self) -> Any:
        node_id = self.itemData(self._index())
        return self._scene.GetNodeByID(node_id) if node_id else None

    def setCurrentNode(self, node: Any) -> None:
        self._choose(self.findData(node.GetID()) if node else (0 if self._flags["noneEnabled"] else -1))

    def _index(self) -> int:
        return int(self.property("currentIndex"))

    def _choose(self, index: int) -> None:
        self.setProperty("currentIndex", index)

    def _fill(self) -> None:
        if self._scene is None:
            return
        before = self.itemData(self._index())
        self._filling = True
        self.clear()
        if self._flags["noneEnabled"]:
            self.addItem("None", None)
        for number in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(number)
            if any(node.IsA(kind) for kind in self._node_types) and not node.GetHideFromEditors():
                self.addItem(node.GetName(), node.GetID())
                if node.GetID() not in self._observed:
                    self._observed.add(node.GetID())
                    node.AddObserver("ModifiedEvent", self._rename)
        found = self.findData(before) if before else -1
        self._choose(found if found >= 0 else (0 if self._flags["noneEnabled"] else -1))
        self._filling = False
        if self.itemData(self._index()) != before:
            self._tell()

    def _rename(self, node: Any, event: str) -> None:
        index = self.findData(node.GetID())
        if index >= 0:
            self.setItemText(index, node.GetName())

    def _tell(self) -> None:
        if not self._filling:
            self.currentNodeChanged.emit(self.currentNode())


class CtkCollapsibleButton(QWidget):
    """A titled box that can be folded."""

    contentsCollapsed = Signal(bool)
    TITLE_HEIGHT = 26

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(0, self.TITLE_HEIGHT, 0, 0)

    def _set_text(self, text: str) -> None:
        self._text = text

    def _set_collapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        for child in self.children():
            if isinstance(child, QWidget):
                child.setProperty("visible", not collapsed)
        self.setFixedHeight(self.TITLE_HEIGHT) if collapsed else self.setMaximumHeight(16777215)
        self.contentsCollapsed.emit(collapsed)

    text = Property(str, lambda self: self._text, _set_text)
    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)

    def paintEvent(self, event: Any) -> None:
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self.TITLE_HEIGHT)
        option.text = ("▸ " if self._collapsed else "▾ ") + self._text
        QStylePainter(self).drawControl(QStyle.CE_PushButton, option)

    def mousePressEvent(self, event: Any) -> None:
        if event.position().y() < self.TITLE_HEIGHT:
            self._set_collapsed(not self._collapsed)


class CtkDirectoryButton(QPushButton):
    """Chooses a folder."""

    directoryChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._directory = ""

    def _set_directory(self, directory: str) -> None:
        self._directory = directory
        self.setProperty("text", directory)
        self.directoryChanged.emit(directory)

    directory = Property(str, lambda self: self._directory, _set_directory)


class CtkPathLineEdit(QLineEdit):
    """Chooses a file."""

    currentPathChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name_filters: list[str] = []
        self.textChanged.connect(self.currentPathChanged.emit)

    currentPath = Property(str, lambda self: self.property("text"), lambda self, path: self.setProperty("text", path))
    nameFilters = Property(
        "QStringList", lambda self: self._name_filters, lambda self, filters: setattr(self, "_name_filters", filters)
    )


class QMRMLSegmentEditorWidget(QLabel):
    """The segment editor, as far as it keeps its state in a vtkMRMLSegmentEditorNode; undo is the real history's."""

    currentSegmentIDChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty(
            "text", "Slicer's own segment editor stands here:\nPaint, Draw, Erase, Scissors, Undo, Redo ..."
        )
        self.setProperty("minimumHeight", 90)
        self.setProperty("frameShape", QLabel.Shape.StyledPanel)
        self.setProperty("alignment", Qt.AlignmentFlag.AlignCenter)
        self._node: Any = None
        self.observes_views = self.has_shortcuts = False
        self.history = slicer.vtkSegmentationHistory()
        self.active_effect: Any = None

    segmentationNodeSelectorVisible = Property(bool, lambda self: False, lambda self, value: None)
    sourceVolumeNodeSelectorVisible = Property(bool, lambda self: False, lambda self, value: None)
    switchToSegmentationsButtonVisible = Property(bool, lambda self: False, lambda self, value: None)
    maximumNumberOfUndoStates = Property(
        int,
        lambda self: self.history.GetMaximumNumberOfStates(),
        lambda self, number: self.history.SetMaximumNumberOfStates(number),
    )

    def setMRMLScene(self, scene: Any) -> None:
        pass

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        self._node.SetAndObserveSegmentationNode(node)
        self.history.SetSegmentation(node.GetSegmentation() if node else None)

    def setSourceVolumeNode(self, node: Any) -> None:
        self._node.SetAndObserveSourceVolumeNode(node)

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._node.SetSelectedSegmentID(segment_id)
        self.currentSegmentIDChanged.emit(segment_id)

    def setActiveEffect(self, effect: Any) -> None:
        self.active_effect = effect

    def setupViewObservations(self) -> None:
        self.observes_views = True

    def removeViewObservations(self) -> None:
        self.observes_views = False

    def installKeyboardShortcuts(self) -> None:
        self.has_shortcuts = True

    def uninstallKeyboardShortcuts(self) -> None:
        self.has_shortcuts = False

    def saveStateForUndo(self) -> None:
        self.history.SaveState()

    def undo(self) -> None:
        self.history.RestorePreviousState()


class UiLoader(QUiLoader):
    """Qt's own loader with these widgets, and with the scene connections that a module's .ui states."""

    KNOWN = {  # noqa: RUF012
        "qMRMLWidget": QMRMLWidget,
        "qMRMLNodeComboBox": QMRMLNodeComboBox,
        "ctkCollapsibleButton": CtkCollapsibleButton,
        "ctkDirectoryButton": CtkDirectoryButton,
        "ctkPathLineEdit": CtkPathLineEdit,
    }

    def createWidget(self, class_name: str, parent: QWidget | None = None, name: str = "") -> QWidget:
        known = self.KNOWN.get(class_name)
        if known is None:
            return super().createWidget(class_name, parent, name)
        widget = known(parent)
        widget.setProperty("objectName", name)
        return widget

    def load(self, file: Any, parent: QWidget | None = None) -> QWidget:
        tree = ElementTree.fromstring(bytes(file.readAll().data()))
        stated = tree.findall("./connections/connection")
        # Qt knows no vtkMRMLScene; those connections are made here.
        file.seek(0)
        widget = super().load(file, parent)
        for connection in stated:
            words = {key: str(connection.findtext(key)) for key in ("sender", "signal", "receiver", "slot")}
            if words["signal"] == "mrmlSceneChanged(vtkMRMLScene*)" and words["slot"] == "setMRMLScene(vtkMRMLScene*)":
                widget.mrmlSceneChanged.connect(widget.findChild(QWidget, words["receiver"]).setMRMLScene)
        return widget
