"""The choices of the panel: model, structures, presets, and how they outlive scene and reload."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import slicer
from panel import ENHANCED, PLAIN, Panel, segmentations, workers
from PySide6 import QtCore

from segrap.training.phantom import PhantomCase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill with POSIX signals")


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


def test_every_group_has_a_box_also_where_nothing_in_it_is_ticked(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.choose_model("SegRapPhantom")
    panel.click("targetsButton")
    panel.choose_model("Pair")  # the list is made anew, with no structure of it ticked
    tree = panel.ui.structuresTree
    groups = [tree.topLevelItem(row) for row in range(tree.property("topLevelItemCount"))]
    assert groups and all(group.data(0, QtCore.Qt.CheckStateRole) is not None for group in groups)


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
    before = {
        name: module for name, module in sys.modules.items() if name.split(".")[0] in ("segrap", "SegRapSlicerLib")
    }
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
