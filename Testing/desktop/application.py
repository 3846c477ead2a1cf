"""The application: one scene, the modules in it, what Slicer's base classes and dialogs do."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pydicom
import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from desktop import names, packages, parameters, widgets

MARGIN = 3
"""Pixels of a picture around what it shows."""

MODULES = Path(__file__).resolve().parent.parent.parent / "SegRapSlicer"


class Application:
    """What `slicer.app` is asked for."""

    def __init__(self) -> None:
        self.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        self.startup: list[Callable[[], None]] = []
        self._settings = QtCore.QSettings(str(Path(tempfile.mkdtemp()) / "Slicer.ini"), QtCore.QSettings.IniFormat)

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    def processEvents(self) -> None:
        self.qt.processEvents()

    def connect(self, signal: str, slot: Callable[[], None]) -> None:
        assert signal == "startupCompleted()", signal
        self.startup.append(slot)

    def layoutManager(self) -> None:
        """There is none, as in a Slicer without its main window."""

    def topLevelWidgets(self) -> list[Any]:
        return list(self.qt.topLevelWidgets())

    def testingEnabled(self) -> bool:
        return False

    def moduleManager(self) -> SimpleNamespace:
        return SimpleNamespace(connect=lambda *_: None, disconnect=lambda *_: None)


class ScriptedLoadableModule:
    """Base of the class that describes a module."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    """Base of a module's panel."""

    def __init__(self, parent: Any) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def setup(self) -> None:
        pass

    def cleanup(self) -> None:
        pass

    def resourcePath(self, name: str) -> str:
        return str(MODULES / "Resources" / name)

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """Base of a module's logic, with its one parameter node per scene."""

    def __init__(self) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node.SetName(self.moduleName)
            node = scene.AddNode(node)
        elif node.GetAttribute("ModuleName") != self.moduleName:
            node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of a module's self test."""

    def delayDisplay(self, message: str, msec: int = 0) -> None:
        logging.info(message)


class ModuleWidget(QtWidgets.QWidget):
    """The frame that holds a module's panel, a qSlicerScriptedLoadableModuleWidget in Slicer."""

    isEntered = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        QtWidgets.QVBoxLayout(self)
        # As in Slicer's module panel, which a panel that is higher than the window scrolls in.
        self.scroll_area = QtWidgets.QScrollArea()
        self.scroll_area.setProperty("objectName", "qSlicerMainWindow")
        self.scroll_area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarAlwaysOff)
        self.scroll_area.setWidget(self)
        self.scroll_area.setWidgetResizable(True)
        self.scroll_area.resize(480, 760)

    def reload(self) -> None:
        """Make the module's widget anew, from the class as it now is."""
        widget = getattr(sys.modules[self._name], f"{self._name}Widget")(self)
        setattr(slicer.modules, f"{self._name}Widget", widget)
        widget.setup()


class DicomDatabase:
    """What Slicer's DICOM database knows of instances: where their files are. folder: where it keeps copies."""

    isOpen = True

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="desktop-dicom-"))

    def fileForInstance(self, uid: str) -> str:
        return self.files.get(uid, "")

    def instanceValue(self, uid: str, tag: str) -> str:
        if uid not in self.files:
            return ""
        header = pydicom.dcmread(self.files[uid], stop_before_pixels=True)
        element = header.get(tuple(int(part, 16) for part in tag.split(",")))
        return str(element.value) if element else ""


class CtkDICOMIndexer:
    """Puts files into the database; a file that cannot be read or copied is passed over in silence, as by CTK's own."""

    def addFile(self, database: DicomDatabase, path: str, copyFile: bool = False) -> None:
        try:
            uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            kept = shutil.copy(path, database.folder / f"{uid}.dcm") if copyFile else path
        except (OSError, pydicom.errors.InvalidDicomError):
            return
        database.files[uid] = str(kept)

    def waitForImportFinished(self, msecTimeout: int = -1) -> None:
        pass


class Desktop:
    """Slicer for a test: `open` a module, `close_scene`, `screenshot`.

    dialogs: the messages that popped up. answer: what the person says to questions. module: the one selected last.
    restarts: how often the application was told to restart. faults: exceptions that nothing caught, which Slicer and Qt
    only print: `tidy` raises them.
    """

    def __init__(self) -> None:
        self.app = Application()
        self.dialogs: list[str] = []
        self.faults: list[BaseException] = []
        sys.excepthook = lambda kind, fault, trace: self.faults.append(fault)
        self.answer = True
        self.module = ""
        self.sample_data = SampleDataLogic.sources
        self.dicom = DicomDatabase()
        slicer.app = self.app
        slicer.mrmlScene = slicer.vtkMRMLScene()
        slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = widgets.QMRMLWidget, widgets.QMRMLNodeComboBox
        slicer.qMRMLSegmentEditorWidget = widgets.QMRMLSegmentEditorWidget
        # In Slicer the Segmentations module registers what makes surfaces of labelmaps.
        rules = slicer.vtkSegmentationConverterFactory.GetInstance()
        rules.RegisterConverterRule(slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule())
        slicer.modules = SimpleNamespace()
        for name in ("errorDisplay", "warningDisplay", "infoDisplay"):
            setattr(slicer.util, name, lambda text, **_: self.dialogs.append(text))
        for name, logic in (
            ("segmentations", slicer.vtkSlicerSegmentationsModuleLogic()),
            ("volumes", slicer.vtkSlicerVolumesLogic()),
        ):
            logic.SetMRMLScene(slicer.mrmlScene)
            setattr(slicer.modules, name, SimpleNamespace(logic=lambda logic=logic: logic))
        slicer.util.selectModule = lambda name: setattr(self, "module", name)
        slicer.util.confirmOkCancelDisplay = self._ask
        self.restarts = 0
        slicer.util.restart = self._restart
        packages.use(self._ask)
        names.install(
            widgets.UiLoader,
            {"ctkCollapsibleButton": widgets.CtkCollapsibleButton, "ctkDICOMIndexer": CtkDICOMIndexer},
        )
        sys.path.insert(0, str(MODULES))  # as Slicer does with every folder of modules
        parts = (
            "structures_list",
            "model_choice",
            "review_table",
            "editing",
            "side_job",
            "export",
            "inputs",
            "model_library",
            "requirements_row",
            "run_display",
            "self_test",
            "panel",
        )
        for name in ("slicer.util", "SegRapSlicer", *(f"SegRapSlicerLib.{part}" for part in parts)):
            names.use_properties_as_attributes(name)
        _give("i18n", tr=lambda text: text, translate=lambda context, text: text)
        _give("parameterNodeWrapper", parameterNodeWrapper=parameters.parameter_node_wrapper)
        _give("packaging", pip_ensure=packages.pip_ensure)
        bases = (
            *(ScriptedLoadableModule, ScriptedLoadableModuleWidget),
            *(ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest),
        )
        _give("ScriptedLoadableModule", __all__=[base.__name__ for base in bases], **{b.__name__: b for b in bases})
        sys.modules["SampleData"] = ModuleType("SampleData")
        sys.modules["SampleData"].SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
        # In Slicer a plugin of the application gives every new node its place in the subject hierarchy.
        slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, _list_in_hierarchy)

    def open(self, name: str) -> Any:
        """Load a module and show its panel, as choosing it in Slicer's module selector does; returns its widget."""
        if not hasattr(slicer.modules, f"{name}Widget"):
            spec = importlib.util.spec_from_file_location(name, MODULES / f"{name}.py")
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            description = SimpleNamespace(path=str(MODULES / f"{name}.py"))
            getattr(module, name)(description)
            self.start()
            parent = ModuleWidget(name)
            setattr(
                slicer.modules,
                name.lower(),
                SimpleNamespace(path=description.path, widgetRepresentation=lambda: parent),
            )
            parent.reload()
            parent.scroll_area.show()
        widget = getattr(slicer.modules, f"{name}Widget")
        widget.enter()
        self.app.processEvents()
        return widget

    def start(self) -> None:
        """What Slicer does when all modules are loaded; the DICOM module opens its database last."""
        vars(slicer).pop("dicomDatabase", None)
        for started in self.app.startup:
            started()
        slicer.dicomDatabase = self.dicom
        self.app.processEvents()

    def close(self, name: str) -> None:
        """Close the application as far as one module is concerned."""
        getattr(slicer.modules, f"{name}Widget").cleanup()
        window = getattr(slicer.modules, name.lower()).widgetRepresentation().scroll_area
        window.setProperty("objectName", "")  # the next desktop of this process has a main window of its own
        window.close()
        delattr(slicer.modules, f"{name}Widget")

    def close_scene(self) -> None:
        """File > Close scene."""
        slicer.mrmlScene.Clear()
        self.app.processEvents()

    def tidy(self) -> None:
        """Close the scene and forget what the person said; raises what went wrong unseen since the last time."""
        self.close_scene()
        self.dialogs.clear()
        self.answer, self.restarts = True, 0
        faults, self.faults = self.faults, []
        if faults:
            raise faults[0]

    def _ask(self, question: str) -> bool:
        self.dialogs.append(question)
        return self.answer

    def _restart(self) -> None:
        self.restarts += 1

    def wait(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        """Let the application run until something is so; fails when that takes longer."""
        timer = QtCore.QElapsedTimer()
        timer.start()
        while not condition():
            self.app.qt.processEvents(QtCore.QEventLoop.AllEvents | QtCore.QEventLoop.WaitForMoreEvents, 20)
            assert timer.elapsed() < seconds * 1000, "waited in vain"

    @contextmanager
    def longest_gap(self) -> Iterator[list[float]]:
        """While open, watches how long the event loop stands still; the list then holds the longest gap, seconds."""
        timer, clock = QtCore.QTimer(), QtCore.QElapsedTimer()
        gaps, result = [0], [0.0]
        timer.timeout.connect(lambda: gaps.append(clock.restart()))
        clock.start()
        timer.start(5)
        try:
            yield result
        finally:
            timer.stop()
            result[0] = max(gaps) / 1000

    def screenshot(self, widget: Any, path: Path, *names: str) -> None:
        """A picture of a module's panel, or of that part of it in which the named widgets lie."""
        for _round in range(5):  # a label that wraps gets its height only after its neighbours have theirs
            self.app.processEvents()
        part = QtCore.QRect()
        for name in names:
            shown = getattr(widget.ui, name)
            part |= QtCore.QRect(shown.mapTo(widget.parent, QtCore.QPoint(0, 0)), shown.size())
        whole = widget.parent.rect()
        part = part.adjusted(-MARGIN, -MARGIN, MARGIN, MARGIN) & whole if names else whole
        assert widget.parent.grab(part).save(str(path))


class SampleDataLogic:
    """The Sample Data module, as far as modules register with it; `sources` holds (category, name) and what a click on
    it calls."""

    sources: ClassVar[dict[tuple[str, str], Callable[[Any], Any]]] = {}

    @classmethod
    def registerCustomSampleDataSource(
        cls,
        category: str,
        sampleName: str,
        uris: list[str],
        fileNames: list[str],
        customDownloader: Callable[[Any], Any],
    ) -> None:
        if len(uris) != len(fileNames):
            raise ValueError("All fields of sample data source must have the same length")
        cls.sources[category, sampleName] = customDownloader


def _give(module: str, **attributes: Any) -> None:
    made = ModuleType(f"slicer.{module}")
    made.__spec__ = ModuleSpec(made.__name__, None)
    vars(made).update(attributes)
    sys.modules[f"slicer.{module}"] = made
    setattr(slicer, module, made)


def _list_in_hierarchy(scene: Any, event: str) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
        for number in range(scene.GetNumberOfNodesByClass(kind)):
            node = scene.GetNthNodeByClass(number, kind)
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
