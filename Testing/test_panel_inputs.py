"""The inputs of the panel: which CT is which, what is said of the pair, what is refused before the click."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import slicer
from panel import ENHANCED, PLAIN, Panel

from segrap.errors import InputError
from segrap.training.phantom import Phantom, PhantomCase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill with POSIX signals")


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
    from segrap.ct.contrast_words import describes_contrast

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
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.desktop.sample_data["SegRapSlicer", "SegRapMadeUpPatient"](None)
    panel.desktop.app.processEvents()
    assert slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID()).GetName() == "Made-up patient non-contrast"
    assert panel.names("nonContrastSelector") == "Made-up patient non-contrast"
    assert panel.names("contrastSelector") == "Made-up patient contrast"
    panel.choose_model("SegRapPhantom")
    assert panel.button_off_because == ""


def test_volume_that_is_no_scan_beside_a_ct_leaves_the_panel_working(panel: Panel, case: PhantomCase) -> None:
    flat = replace(case.non_contrast, array=case.non_contrast.array[:1])
    panel.load("Scout", flat)
    panel.load("CT", case.non_contrast)
    panel.widget.enter()
    panel.ui.nonContrastSelector.setCurrentNode(slicer.util.getNode("CT"))
    panel.choose_model("Single")
    assert panel.button_off_because == ""
    panel.ui.nonContrastSelector.setCurrentNode(slicer.util.getNode("Scout"))
    assert panel.button_off_because == "Scout is not a 3-D scan. Choose a CT volume."


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


def test_same_scan_under_two_names_is_refused_in_a_sentence(panel: Panel, case: PhantomCase) -> None:
    panel.load(PLAIN, case.non_contrast)
    panel.load(ENHANCED, case.non_contrast)
    panel.wait_until_measured()
    assert panel.button_off_because.startswith("The non-contrast CT and the contrast CT are the same scan.")


def test_swap_exchanges_the_scans(panel: Panel, case: PhantomCase) -> None:
    panel.load_pair(case)
    panel.click("swapButton")
    assert (panel.names("nonContrastSelector"), panel.names("contrastSelector")) == (ENHANCED, PLAIN)


def test_scan_under_a_warping_transform_is_refused_with_advice(panel: Panel, case: PhantomCase) -> None:
    plain = panel.load(PLAIN, case.non_contrast)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    plain.SetAndObserveTransformNodeID(transform.GetID())
    panel.widget.show()
    assert "warping transform" in panel.button_off_because
    panel.load("Another CT", case.non_contrast)
    assert panel.names("nonContrastSelector") == PLAIN and "warping transform" in panel.button_off_because
    with pytest.raises(InputError, match="warping"):
        panel.logic.autoContour(plain, model="Single")
