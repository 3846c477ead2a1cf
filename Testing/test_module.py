"""The panel as a person meets it, on the desktop host of `Testing/desktop`: real scene, real .ui, real jobs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import slicer
from desktop import Desktop
from nnunet_folders import write_model_folder

from segrap.errors import InputError, UsageError
from segrap.image import Image
from segrap.training.phantom import Phantom, PhantomCase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill with POSIX signals")

PLAIN, ENHANCED = "Head non-contrast", "Head with contrast"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's library: one model for a pair, one for a single CT, one that takes minutes."""
    library = tmp_path_factory.mktemp("models")
    facts = {"version": "0.1", "licence": "CC0-1.0", "intended_use": "research"}
    pair = {"channels": ["non_contrast", "contrast"]}
    write_model_folder(library / "Pair", facts=facts | pair, spacing=[5.0, 5.0, 5.0])
    one = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False], "spacing": [5.0, 5.0, 5.0]}
    write_model_folder(library / "Single", facts=facts, channels=("CT",), **one)
    write_model_folder(library / "Slow", facts=facts | pair, spacing=[0.7, 0.7, 0.7])
    os.environ["SEGRAP_MODELS"] = str(library)
    yield library
    del os.environ["SEGRAP_MODELS"]


@pytest.fixture(scope="module")
def case() -> PhantomCase:
    return Phantom(3).render(spacing_mm=(5.0, 5.0, 5.0))


@pytest.fixture(scope="module")
def desktop(models: Path) -> Iterator[Desktop]:
    desktop = Desktop()
    desktop.open("SegRapSlicer")
    yield desktop
    desktop.close("SegRapSlicer")


@pytest.fixture
def panel(desktop: Desktop) -> Iterator[Panel]:
    yield Panel(desktop)
    desktop.close_scene()
    desktop.dialogs.clear()


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


def test_without_a_scan_the_button_says_what_to_do(panel: Panel) -> None:
    assert panel.button_off_because == "Choose the non-contrast CT, or load one."


@pytest.mark.parametrize("order", [(PLAIN, ENHANCED), (ENHANCED, PLAIN)])
def test_pair_fills_itself_in_by_name_in_whatever_order_it_is_loaded(
    panel: Panel, case: PhantomCase, order: tuple[str, str]
) -> None:
    images = {PLAIN: case.non_contrast, ENHANCED: case.contrast}
    for name in order:
        panel.load(name, images[name])
    assert (panel.names("nonContrastSelector"), panel.names("contrastSelector")) == (PLAIN, ENHANCED)
    assert panel.text("inputsLabel").startswith(
        "Non-contrast CT of 100 x 100 x 78 voxels (5 x 5 x 5 mm); the contrast CT is on the same grid."
    )
    assert panel.button_off_because == ""
    panel.wait_until_measured()
    assert "Aligned within 0." in panel.text("inputsLabel")
    assert "HU brighter in the contrast CT." in panel.text("inputsLabel")


def test_pair_without_telling_names_is_known_by_its_vessels(panel: Panel, case: PhantomCase) -> None:
    panel.load("CT a", case.contrast)
    panel.load("CT b", case.non_contrast)
    panel.wait_until_measured()
    assert (panel.names("nonContrastSelector"), panel.names("contrastSelector")) == ("CT b", "CT a")


def test_swapped_pair_is_refused_before_the_click_and_swap_helps(panel: Panel, case: PhantomCase) -> None:
    plain, enhanced = panel.load_pair(case)
    panel.ui.nonContrastSelector.setCurrentNode(enhanced)
    panel.ui.contrastSelector.setCurrentNode(plain)
    panel.wait_until_measured()
    assert "seem to be swapped" in panel.button_off_because and panel.button_off_because.endswith("Press Swap.")
    panel.click("swapButton")
    panel.wait_until_measured()
    assert panel.button_off_because == ""


def test_displaced_pair_is_said_before_the_click(panel: Panel, case: PhantomCase) -> None:
    _, enhanced = panel.load_pair(case)
    x, y, z = enhanced.GetOrigin()
    enhanced.SetOrigin(x + 6.0, y, z)
    panel.widget.show()
    panel.wait_until_measured()
    assert "displaced by 6.0 mm" in panel.text("inputsLabel")


def test_dicom_tags_tell_the_pair_and_its_frame_of_reference(panel: Panel, tmp_path: Path) -> None:
    import pydicom

    from segrap.training.phantom.files import write_dicom_pair

    coarse = Phantom(3).render(spacing_mm=(8.0, 8.0, 8.0))
    write_dicom_pair(coarse, tmp_path, 3)
    uids: dict[str, list[str]] = {}
    for path in sorted(tmp_path.rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        uids.setdefault(str(header.SeriesDescription), []).append(str(header.SOPInstanceUID))
        panel.desktop.dicom.files[str(header.SOPInstanceUID)] = str(path)
    assert len(uids) == 2
    from segrap.ct.pair import describes_contrast

    for description, instances in uids.items():
        contrast = describes_contrast(description)
        node = panel.load("1" if contrast else "2", coarse.contrast if contrast else coarse.non_contrast)
        node.SetAttribute("DICOM.instanceUIDs", " ".join(instances))
    panel.widget.fillInputs()
    panel.wait_until_measured()
    assert (panel.names("nonContrastSelector"), panel.names("contrastSelector")) == ("2", "1")
    assert "Same Frame of Reference, aligned within 0." in panel.text("inputsLabel")


def test_two_plain_scans_are_left_to_the_user(panel: Panel, case: PhantomCase) -> None:
    panel.load("CT 1", case.non_contrast)
    panel.ui.nonContrastSelector.setCurrentNode(None)
    panel.load("CT 2", case.non_contrast)
    assert panel.names("nonContrastSelector") is None


def test_made_up_patient_comes_from_sample_data_and_fills_the_panel(panel: Panel) -> None:
    panel.desktop.sample_data["SegRapSlicer", "SegRapMadeUpPatient"](None)
    panel.desktop.app.processEvents()
    assert panel.names("nonContrastSelector") == "Made-up patient non-contrast"
    assert panel.names("contrastSelector") == "Made-up patient contrast"
    panel.choose_model("SegRapPhantom")
    assert panel.button_off_because == ""


def test_same_volume_twice_is_refused_before_the_click(panel: Panel, case: PhantomCase) -> None:
    plain, _ = panel.load_pair(case)
    panel.ui.contrastSelector.setCurrentNode(plain)
    assert "same volume" in panel.button_off_because
    assert panel.text("inputsLabel") == panel.button_off_because


def test_scans_that_do_not_overlap_are_refused_before_the_click(panel: Panel, case: PhantomCase) -> None:
    _, enhanced = panel.load_pair(case)
    enhanced.SetOrigin(5000, 0, 0)
    panel.widget.show()
    assert "do not overlap" in panel.button_off_because


def test_model_for_a_pair_asks_for_the_contrast_scan_and_a_single_one_does_not(panel: Panel, case: PhantomCase) -> None:
    panel.load(PLAIN, case.non_contrast)
    panel.choose_model("Pair")
    assert panel.button_off_because == "Pair needs a contrast CT too. Choose it."
    panel.choose_model("Single")
    assert panel.button_off_because == ""


def test_model_line_tells_coverage_licence_and_use(panel: Panel) -> None:
    panel.choose_model("Pair")
    assert panel.text("modelLabel") == ("Version 0.1, licence CC0-1.0: 2 organs at risk; needs both CTs; for research.")
    panel.choose_model("SegRapPhantom")
    assert "45 organs at risk, 2 tumour volumes" in panel.text("modelLabel")
    assert "FOR DEMONSTRATION ONLY" in panel.text("modelLabel")


def test_swap_exchanges_the_scans(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.click("swapButton")
    assert (panel.names("nonContrastSelector"), panel.names("contrastSelector")) == (ENHANCED, PLAIN)


def test_structures_are_ticked_by_group_and_filtered_by_name(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.choose_model("SegRapPhantom")
    assert len(panel.ticked()) == 47
    panel.click("targetsButton")
    assert panel.ticked() == {"GTVp", "GTVnd"}
    panel.click("organsButton")
    assert len(panel.ticked()) == 45 and "GTVp" not in panel.ticked()
    panel.ui.filterLineEdit.setProperty("text", "parotid")
    shown = [item.text(0) for item in panel.structures() if not item.isHidden()]
    assert shown == ["Parotid_L", "Parotid_R"]
    panel.ui.filterLineEdit.setProperty("text", "")
    panel.choose_model("Pair")
    panel.click("targetsButton")
    assert panel.button_off_because == "No structure is ticked."


def test_contours_arrive_named_and_placed_beside_their_scan_while_the_window_stays_alive(
    panel: Panel, case: PhantomCase
) -> None:
    plain, enhanced = panel.load_pair(case)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    for node, uid in ((plain, "1.2.3"), (enhanced, "1.2.4")):
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
        hierarchy.SetItemUID(hierarchy.GetItemByDataNode(node), "DICOM", uid)
    panel.choose_model("Pair")
    with panel.desktop.longest_gap() as gap:
        panel.click("autoContourButton")
        assert panel.text("autoContourButton") == "Cancel"
        panel.wait_until_idle()
    print(f"longest gap of the event loop: {gap[0]:.3f} s")
    assert gap[0] < 1.0  # a network, an import of torch or a wait for the process would take longer

    (node,) = segmentations()
    assert node.GetName() == "SegRap contours (research model Pair 0.1), not reviewed"
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["BrainStem", "SpinalCord"]
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) == plain
    from segrap.scene.segmentation import contours_from_segmentation

    image = case.non_contrast
    read = contours_from_segmentation(node, image.geometry, image.shape)
    assert read.provenance.input_series_uids == ("1.2.3", "1.2.4")
    assert read.provenance.model_name == "Pair"
    assert panel.text("statusLabel").startswith("Done. Review every contour")


def test_contours_that_arrive_while_another_module_is_open_are_there_on_return(panel: Panel, case: PhantomCase) -> None:
    panel.load(PLAIN, case.non_contrast)
    panel.choose_model("Single")
    panel.click("autoContourButton")
    panel.widget.exit()
    panel.wait_until_idle()
    panel.widget.enter()
    assert panel.ui.reviewTable.property("rowCount") == 2
    panel.widget.exit()
    panel.desktop.close_scene()
    assert panel.ui.reviewTable.property("rowCount") == 0


def test_cancel_ends_the_job_within_a_second_and_leaves_the_scene_as_it_was(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    panel.begin("Slow")
    started = time.monotonic()
    panel.click("autoContourButton")
    panel.wait_until_idle()
    assert time.monotonic() - started < 1.0
    assert panel.text("statusLabel") == "Cancelled. Nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert panel.desktop.dialogs == []


def test_killed_process_is_reported_and_the_next_job_runs(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.begin("Slow")
    for worker in workers():
        worker.send_signal(signal.SIGKILL)
    panel.wait_until_idle()
    assert "memory ran out" in panel.text("statusLabel") and "memory ran out" in panel.desktop.dialogs[0]
    assert segmentations() == []
    panel.choose_model("Single")
    panel.click("autoContourButton")
    panel.wait_until_idle()
    assert len(segmentations()) == 1


def test_closing_the_scene_ends_the_job_and_leaves_an_empty_scene(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.begin("Slow")
    panel.desktop.close_scene()
    assert workers() == []
    assert "scene was closed" in panel.text("statusLabel")
    assert panel.text("autoContourButton") == "Auto-contour"
    assert segmentations() == [] and panel.desktop.dialogs == []


def test_removing_a_scan_ends_its_job(panel: Panel, case: PhantomCase) -> None:
    plain, _ = panel.load_pair(case)
    panel.begin("Slow")
    slicer.mrmlScene.RemoveNode(plain)
    panel.wait_until_idle()
    assert panel.desktop.dialogs == [f"{PLAIN} was removed from the scene; its contouring was cancelled."]
    assert segmentations() == []


def test_second_job_from_a_script_is_refused_while_one_runs(panel: Panel, case: PhantomCase) -> None:
    plain, enhanced = panel.load_pair(case)
    panel.begin("Slow")
    with pytest.raises(UsageError, match="running already"):
        panel.logic.autoContour(plain, enhanced, model="Pair")
    panel.click("autoContourButton")
    panel.wait_until_idle()


def test_model_removed_while_listed_is_named_and_then_no_longer_offered(
    panel: Panel, case: PhantomCase, models: Path
) -> None:
    shutil.copytree(models / "Single", models / "Passing")
    panel.load(PLAIN, case.non_contrast)
    panel.widget.enter()
    panel.choose_model("Passing")
    shutil.rmtree(models / "Passing")
    panel.click("autoContourButton")
    panel.wait_until_idle()
    assert "Passing" in panel.desktop.dialogs[0]
    panel.widget.enter()
    assert panel.ui.modelComboBox.findText("Passing") == -1


def test_script_gets_the_segmentation_of_the_structures_it_names(panel: Panel, case: PhantomCase) -> None:
    plain, enhanced = panel.load_pair(case)
    node = panel.logic.autoContour(plain, enhanced, model="Pair", structures=["brainstem"])
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["BrainStem"]


def test_script_is_refused_what_the_panel_refuses(panel: Panel, case: PhantomCase) -> None:
    plain = panel.load(PLAIN, case.non_contrast)
    with pytest.raises(InputError, match="same volume"):
        panel.logic.autoContour(plain, plain, model="Pair")
    with pytest.raises(InputError, match="Choose the non-contrast CT"):
        panel.logic.autoContour(None)
    with pytest.raises(UsageError, match="Tonsil"):
        panel.logic.autoContour(plain, model="Single", structures=["Tonsil"])


def test_swapped_scans_are_told_by_their_roles_and_not_by_the_names_of_volumes(panel: Panel, case: PhantomCase) -> None:
    plain, enhanced = panel.load_pair(case)
    plain.SetName("Doe Jane")
    with pytest.raises(InputError, match="swapped: vessels in non-contrast CT") as caught:
        panel.logic.autoContour(enhanced, plain, model="Pair")
    assert "Doe" not in str(caught.value)


def test_contours_of_a_moved_scan_lie_where_it_is_shown(panel: Panel, case: PhantomCase) -> None:
    plain = panel.load(PLAIN, case.non_contrast)
    here = panel.logic.autoContour(plain, model="Single")
    matrix = np.array([[0.0, -1.0, 0.0, 30.0], [1.0, 0.0, 0.0, -20.0], [0.0, 0.0, 1.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    plain.SetAndObserveTransformNodeID(transform.GetID())
    from segrap.scene.volumes import image_of_volume

    moved = image_of_volume(plain)
    assert np.allclose(
        moved.geometry.index_to_lps,
        np.diag([-1, -1, 1, 1]) @ matrix @ np.diag([-1, -1, 1, 1]) @ case.non_contrast.geometry.index_to_lps,
    )
    there = panel.logic.autoContour(plain, model="Single")
    plain.HardenTransform()
    hardened = panel.logic.autoContour(plain, model="Single")
    bounds = [np.zeros(6) for _ in range(3)]
    for node, values in zip((here, there, hardened), bounds, strict=True):
        node.GetRASBounds(values)
    assert np.allclose(bounds[1], bounds[2]) and not np.allclose(bounds[0], bounds[1])


def test_scan_under_a_warping_transform_is_refused_with_advice(panel: Panel, case: PhantomCase) -> None:
    plain = panel.load(PLAIN, case.non_contrast)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    plain.SetAndObserveTransformNodeID(transform.GetID())
    panel.widget.show()
    assert "warping transform" in panel.button_off_because
    with pytest.raises(InputError, match="warping"):
        panel.logic.autoContour(plain, model="Single")


def test_choices_come_back_with_a_saved_scene(panel: Panel, case: PhantomCase, tmp_path: Path) -> None:
    panel.load_pair(case)
    panel.choose_model("SegRapPhantom")
    panel.click("targetsButton")
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()
    panel.desktop.close_scene()
    assert panel.names("nonContrastSelector") is None
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Connect()
    panel.desktop.app.processEvents()
    assert (panel.names("nonContrastSelector"), panel.names("contrastSelector")) == (PLAIN, ENHANCED)
    assert panel.ui.modelComboBox.property("currentText") == "SegRapPhantom"
    assert panel.ticked() == {"GTVp", "GTVnd"}


@pytest.fixture
def packages_as_before() -> Iterator[None]:
    """What a reload takes out of sys.modules is put back: other tests hold on to its classes."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "segrap"}
    yield
    sys.modules.update(before)


@pytest.mark.usefixtures("packages_as_before")
def test_reload_ends_the_old_process_and_gives_a_working_panel(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.begin("Slow")
    old = workers()
    panel.widget.onReload()
    psutil.wait_procs(old, timeout=5)
    assert workers() == []
    again = Panel(panel.desktop)
    assert again.widget is not panel.widget
    again.choose_model("Single")
    again.click("autoContourButton")
    again.wait_until_idle()
    assert len(segmentations()) == 1


def test_a_sites_own_preset_is_offered_and_ticks_its_structures(panel: Panel, models: Path) -> None:
    from segrap.presets import delete_preset, save_preset

    panel.choose_model("SegRapPhantom")
    assert not panel.ui.presetComboBox.property("enabled")
    save_preset("Glands", ["Parotid_L", "Parotid_R", "Thyroid"])
    panel.widget.enter()
    panel.ui.presetComboBox.setProperty("currentIndex", 1)
    panel.ui.presetComboBox.activated.emit(1)
    assert panel.ticked() == {"Parotid_L", "Parotid_R", "Thyroid"}
    panel.click("allButton")
    assert panel.ui.presetComboBox.property("currentText") == "Presets"
    delete_preset("Glands")
    panel.widget.enter()


def test_a_groups_tick_stands_for_all_of_its_structures(panel: Panel) -> None:
    panel.choose_model("SegRapPhantom")
    ears = panel.ui.structuresTree.topLevelItem(2)
    assert ears.text(0) == "Ears (14/14)"
    ears.setCheckState(0, type(ears.checkState(0))(0))
    assert len(panel.ticked()) == 47 - 14 and ears.text(0) == "Ears (0/14)"
    ears.child(0).setCheckState(0, type(ears.checkState(0))(2))
    assert ears.text(0) == "Ears (1/14)" and ears.checkState(0).value == 1
