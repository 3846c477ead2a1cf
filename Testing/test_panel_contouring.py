"""Auto-contour from the panel: what arrives, cancelling, and what goes wrong meanwhile."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import slicer
from panel import PLAIN, Panel, segmentations, workers
from small_disk import full_disk

from segrap.training.phantom import PhantomCase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill with POSIX signals")


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
    assert panel.ui.segmentationSelector.property("currentText") == node.GetName()


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


def test_what_the_run_did_to_the_contours_is_said_in_the_panel(panel: Panel, case: PhantomCase, models: Path) -> None:
    facts = models / "Single" / "segrap.json"
    before = facts.read_text()
    facts.write_text(json.dumps(json.loads(before) | {"one_piece": True}))
    try:
        panel.load(PLAIN, case.non_contrast)
        panel.choose_model("Single")
        panel.click("autoContourButton")
        panel.wait_until_idle()
    finally:
        facts.write_text(before)
    assert "Small pieces apart from the structure were removed, as the model asks: " in panel.text("statusLabel")


def test_cancel_ends_the_job_within_a_second_and_leaves_the_scene_as_it_was(
    panel: Panel, case: PhantomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.load_pair(case)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    panel.logic.close()  # so that a new process begins, with something to tell
    (tmp_path / "sitecustomize.py").write_text("import sys; print('a new process', file=sys.stderr)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    panel.begin("Slow")
    assert str(panel.ui.logTextEdit.property("plainText")).startswith("a new process")
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
    assert panel.ui.contrastButton.property("enabled"), "a model for one CT is reviewed on both all the same"


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


def test_full_disk_is_said_in_words_and_the_next_job_runs(
    panel: Panel, case: PhantomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.load(PLAIN, case.non_contrast)
    panel.choose_model("Single")
    with full_disk(tmp_path / "full") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        panel.click("autoContourButton")
        panel.wait_until_idle()
        panel.wait_until(lambda: [path.name for path in disk.iterdir()] == ["filler"])
    (words,) = panel.desktop.dialogs
    assert "cannot be written" in words and "Free some space" in words and segmentations() == []
    monkeypatch.undo()
    panel.click("autoContourButton")
    panel.wait_until_idle()
    assert len(segmentations()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process")
def test_memory_that_runs_out_in_the_process_is_said_in_words_and_the_scene_stays(
    panel: Panel, case: PhantomCase
) -> None:
    import resource

    panel.load_pair(case)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    panel.begin("Slow")
    (worker,) = workers()
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (worker.memory_info().vms, resource.RLIM_INFINITY))
    panel.wait_until_idle()
    (words,) = panel.desktop.dialogs
    assert "too little free memory" in words or "not enough memory" in words, words
    assert panel.text("statusLabel") == words
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and segmentations() == []
