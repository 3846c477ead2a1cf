"""The SegRapSlicer module of 3D Slicer: the panel and its wiring. All work is done by the package `segrap` beside it.

From Slicer's Python console, without the panel:

    segmentation = SegRapSlicer.SegRapSlicerLogic().autoContour(nonContrastVolume, contrastVolume, model="MyModel")
"""

import shutil
import sys
import time
from pathlib import Path

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

LOGIC_FOLDER = str(Path(__file__).resolve().parent / "Logic")
if LOGIC_FOLDER not in sys.path:
    sys.path.insert(0, LOGIC_FOLDER)

from SegRapSlicerLib import go_on
from SegRapSlicerLib.export import Export
from SegRapSlicerLib.inputs import Inputs
from SegRapSlicerLib.model_choice import ModelChoice, why_not
from SegRapSlicerLib.model_library import ModelLibrary
from SegRapSlicerLib.panel import allow, load_panel, sentence
from SegRapSlicerLib.requirements_row import RequirementsRow
from SegRapSlicerLib.review_table import ReviewTable
from SegRapSlicerLib.run_display import RunDisplay
from SegRapSlicerLib.sample_data import register_sample_data
from SegRapSlicerLib.self_test import SegRapSlicerTest
from SegRapSlicerLib.structures_list import StructuresList

from segrap import anatomy
from segrap.background import BackgroundContouring, Outcome, Scan
from segrap.errors import Cancelled, InputError, SegRapError
from segrap.progress import Progress
from segrap.scene.review import note_findings
from segrap.scene.segmentation import empty_segmentation, fill_segmentation, is_ours, made_on
from segrap.scene.volumes import describe_pair, image_of_volume, place_beside, series_uid, volumes_of

POLL_MILLISECONDS = 50
SHARE_SECONDS = 0.01  # of each poll, for the threads that carry voxels


class SegRapSlicer(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SegRapSlicer")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["DICOM", "SampleData", "Segmentations"]
        self.parent.contributors = ["SegRapSlicer maintainers"]
        self.parent.helpText = _(
            "Contours organs at risk and gross tumour volumes for radiotherapy of nasopharyngeal cancer from a "
            "non-contrast and a contrast CT. For research: every contour must be reviewed by a radiation oncologist."
        )
        self.parent.acknowledgementText = _("The structures are those of the SegRap2023 challenge.")
        slicer.app.connect("startupCompleted()", register_sample_data)
        slicer.app.connect("startupCompleted()", go_on.when_started)


@parameterNodeWrapper
class SegRapSlicerParameterNode:
    """What the panel shows, kept with the scene.

    skippedStructures: those that the user does not want, so that another model starts with all that it knows.
    exportFormat, exportStructures, exportNames, exportPlace: see SegRapSlicerLib.export.
    """

    nonContrast: vtkMRMLScalarVolumeNode
    contrast: vtkMRMLScalarVolumeNode
    model: str = ""
    skippedStructures: list[str]
    segmentation: vtkMRMLSegmentationNode
    exportFormat: str = "rtstruct"
    exportStructures: str = "all"
    exportNames: str = "tg263"
    exportPlace: str = "folder"


class SegRapSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. It shows the parameter node and calls the logic."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None
        self._card = None
        self._timer = qt.QTimer()

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = load_panel(self.resourcePath)
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SegRapSlicerLogic()

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self._run = RunDisplay(self.ui)
        self._inputs = Inputs(self.ui, self.show)
        self._models = ModelChoice(self.ui.modelComboBox, self.ui.modelLabel, self.onModelChosen)
        self._packages = RequirementsRow(self.ui, self.resourcePath("requirements.txt"))
        self._library = ModelLibrary(self.resourcePath, self._packages.ensure, self.onModelsChanged)
        self.ui.getModelsButton.clicked.connect(self._library.open)
        self._structures = StructuresList(self.ui, self.onStructuresSkipped)
        self._review = ReviewTable(self.ui)
        self._export = Export(self.ui, self._review.selected_names, self._packages.ensure_for_dicom)
        self.ui.autoContourButton.clicked.connect(self.onAutoContourOrCancel)
        self._timer.interval = POLL_MILLISECONDS
        self._timer.timeout.connect(self.onTimer)
        self.enter()

    def cleanup(self):
        """The application closes or the module is reloaded: the background process ends with it."""
        self._timer.stop()
        self.setParameterNode(None)
        self._inputs.close()
        self._library.close()
        self._review.close()
        self._export.close()
        self.removeObservers()
        self.logic.close()

    def enter(self):
        self._models.list_models()
        self._structures.read_presets()
        self.initializeParameterNode()
        self._review.enter()

    def exit(self):
        self._review.leave()
        self.setParameterNode(None)

    def onReload(self):
        for name in [name for name in sys.modules if name.split(".")[0] in ("segrap", "SegRapSlicerLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller=None, event=None):
        self.setParameterNode(None)
        self._inputs.close()
        self._review.show(None)
        self._export.show(None, None)
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if is_ours(node):
                empty_segmentation(node)  # else Slicer takes tens of seconds to close the scene
        if self.logic.running:
            self.logic.close()
            self.showIdle(_("The scene was closed; the contouring was cancelled."))

    def onSceneEndClose(self, caller=None, event=None):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        self.fillInputs()

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.show)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._guiTag = self._parameterNode.connectGui(self.ui)
            # The node, not its wrapper: a wrapper is made anew at each visit, and the mixin would keep them all.
            self.addObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.show)
            self.show()

    def onNodeAdded(self, caller=None, event=None):
        # A node is added before its voxels are read; look at it when whatever adds it is done.
        qt.QTimer.singleShot(0, self.fillInputs)

    def fillInputs(self):
        """Choose the CT pair of the scene where nothing is chosen yet."""
        if self._parameterNode and not self.logic.running:
            self._inputs.fill(self._parameterNode)

    def show(self, caller=None, event=None):
        """Bring everything that the parameter node's own connections do not show up to date."""
        if not self._parameterNode:
            return
        node = self._parameterNode
        self._card = self._models.show(node.model)
        self._structures.show(self._card.structures if self._card else (), node.skippedStructures)
        fault = self._inputs.show(node, self.logic.running)
        self.logic.takeUp(node.segmentation, node.nonContrast, None if fault else node.contrast)
        fault = fault or why_not(self._card, node.contrast, self._structures.wanted)
        self._review.show(node.segmentation)
        self._export.show(node.segmentation, node)
        allow(self.ui.autoContourButton, "" if self.logic.running else fault)

    def onStructuresSkipped(self, names):
        self._parameterNode.skippedStructures = names

    def onModelChosen(self, name):
        self._parameterNode.model = name

    def onModelsChanged(self, name):
        """A model came (its name) or went ("")."""
        self._models.list_models()
        if self._parameterNode:
            self._parameterNode.model = name or self._parameterNode.model
            self.show()

    def goOn(self, request):
        """Bring back what was chosen before Slicer was restarted, and contour."""
        node = self._parameterNode
        try:
            node.nonContrast, node.contrast = go_on.load(request["nonContrast"]), go_on.load(request["contrast"])
        except SegRapError as error:
            self.showIdle(sentence(error))
            return
        node.model, node.skippedStructures = request["model"], request["skippedStructures"]
        self.show()
        if self._card and self._card.entry.name == request["model"] and self.ui.autoContourButton.enabled:
            self.onAutoContourOrCancel()
        else:
            self.showIdle(_("Slicer was restarted. Look at the choices above, then press Auto-contour."))

    def onAutoContourOrCancel(self):
        if self.logic.running:
            self._run.cancelling()
            self.logic.cancel()
            return
        node = self._parameterNode
        try:
            node.model = self._card.entry.name
            if self._packages.ensure(node):
                return
            self.logic.start(
                node.nonContrast,
                node.contrast if self._card.wants_pair else None,
                model=self._card.entry.folder,
                structures=self._structures.wanted,
            )
        except SegRapError as error:
            self.showFault(error)
            return
        self._run.begin()
        self.show()
        self._timer.start()

    def onTimer(self):
        if not self.logic.running:
            self._timer.stop()
            return
        try:
            segmentation = self.logic.poll()
        except Cancelled:
            self.showIdle(_("Cancelled. Nothing was changed."))
        except SegRapError as error:
            self.showFault(error)
        else:
            if segmentation:
                # Also when the user is in another module by now and the panel follows no parameter node.
                self.logic.getParameterNode().segmentation = segmentation
                self.showIdle(
                    " ".join([_("Done. Review every contour before it is used."), *map(sentence, self.logic.remarks)])
                )
            else:
                self._run.show(self.logic)

    def showFault(self, error):
        self.showIdle(sentence(error))
        slicer.util.errorDisplay(sentence(error))

    def showIdle(self, message):
        self._timer.stop()
        self._run.end(message, self.logic.log)
        self.show()


class SegRapSlicerLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, for scripts too."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self._contouring = BackgroundContouring(shutil.which("PythonSlicer") or sys.executable)
        self._inputs = ()
        self.progress = None
        self.device = self.memory = ""
        self.remarks = ()

    def getParameterNode(self):
        return SegRapSlicerParameterNode(super().getParameterNode())

    @property
    def running(self):
        return self._contouring.running

    @property
    def log(self):
        """What the background process told."""
        return self._contouring.log

    def start(self, nonContrast, contrast=None, model=None, structures=None, device="auto", allowDemoModel=False):
        """Begin a job in the background process; call `poll` until it gives a segmentation or raises.

        Raises InputError (volumes that cannot be used), UsageError (a job is running), ResourceError, OutputError.
        """
        describe_pair(nonContrast, contrast)
        nodes = [nonContrast, contrast] if contrast else [nonContrast]
        # The background process is told roles: a volume may bear a patient's name.
        roles = (_("non-contrast CT"), _("contrast CT"))
        scans = [Scan(image_of_volume(node), role, series_uid(node)) for role, node in zip(roles, nodes, strict=False)]
        self._contouring.start(
            *scans, model=model, structures=structures, device=device, allow_demo_model=allowDemoModel
        )
        self._inputs = tuple(nodes)
        self.progress = None
        self.device = self.memory = ""

    def poll(self):
        """The new vtkMRMLSegmentationNode when the job is done, None while it runs. Raises its SegRapError."""
        gone = [node.GetName() for node in self._inputs if not slicer.mrmlScene.IsNodePresent(node)]
        if gone and self.running:
            self.close()
            words = _("{volume} was removed from the scene; its contouring was cancelled.")
            raise InputError(words.format(volume=gone[0]))
        for event in self._contouring.poll(SHARE_SECONDS):
            if isinstance(event, Progress):
                self.progress = event
                if event.stage.startswith("Contouring"):
                    self.device = self.device or event.message  # the first names what computes; see segrap.worker
                elif event.stage.startswith("Memory"):
                    self.memory = event.message
            elif isinstance(event, Outcome):
                return self._addSegmentation(event)
            else:
                raise event
        return None

    def _addSegmentation(self, outcome):
        self.remarks = outcome.contours.provenance.remarks  # on the inputs and on the run
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.CreateDefaultDisplayNodes()
        fill_segmentation(node, outcome.contours)
        note_findings(node, outcome.contours, outcome.findings)
        place_beside(node, *self._inputs)
        return node

    def takeUp(self, segmentation, nonContrast, contrast=None):
        """Let contours that refer to no CT (any more), such as those of a file, refer to that they were made on.

        contrast: what to look at beside it, also when the model did not want it.
        """
        if segmentation and nonContrast:
            own, beside = volumes_of(segmentation)
            lacks = contrast and not beside if own == nonContrast else not own and made_on(segmentation, nonContrast)
            if lacks:
                place_beside(segmentation, nonContrast, contrast or beside)

    def cancel(self):
        """Ask for the end of the job; `poll` raises Cancelled within a second."""
        self._contouring.cancel()

    def close(self):
        """End the background process and what it is doing, at once."""
        self._contouring.close()
        self._inputs = ()

    def autoContour(self, ncct, cect=None, model=None, structures=None, device="auto", allowDemoModel=False, wait=True):
        """Contour one CT or a pair and return the new segmentation node.

        ncct, cect: vtkMRMLScalarVolumeNode. model: name or folder, or several, the best first; what suits best if
        None. structures: SegRap names, or OARs, GTVs, all; what the models know if None. device: auto, cpu, cuda[:N].
        wait: False returns None at once; call `poll` from then on.
        Raises one of segrap.errors, whose message says what to do.
        """
        names = None if structures is None else anatomy.choose(structures)
        self.start(ncct, cect, model, names, device, allowDemoModel)
        node = None
        while wait and not node:
            node = self.poll()
            slicer.app.processEvents()
            time.sleep(POLL_MILLISECONDS / 1000)
        return node


SegRapSlicerTest.logicClass = SegRapSlicerLogic
