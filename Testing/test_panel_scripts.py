"""Auto-contour from a script, without a click on the panel."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import slicer
from panel import PLAIN, Panel

from segrap.errors import InputError, UsageError
from segrap.training.phantom import PhantomCase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill with POSIX signals")


def test_second_job_from_a_script_is_refused_while_one_runs(panel: Panel, case: PhantomCase) -> None:
    plain, enhanced = panel.load_pair(case)
    panel.begin("Slow")
    with pytest.raises(UsageError, match="running already"):
        panel.logic.autoContour(plain, enhanced, model="Pair")
    panel.click("autoContourButton")
    panel.wait_until_idle()


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


def test_contours_of_an_oblique_scan_lie_where_it_is_shown(panel: Panel, case: PhantomCase) -> None:
    from segrap.scene.segmentation import contours_from_segmentation
    from segrap.scene.volumes import image_of_volume

    plain = panel.load(PLAIN, case.non_contrast)
    here = panel.logic.autoContour(plain, model="Single")
    about_z, about_x = np.eye(4), np.eye(4)
    about_z[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    about_x[1:3, 1:3] = [[0.96, -0.28], [0.28, 0.96]]
    matrix = about_z @ about_x
    matrix[:3, 3] = 30.0, -20.0, 7.0
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    plain.SetAndObserveTransformNodeID(transform.GetID())
    moved = image_of_volume(plain).geometry
    ras = np.diag([-1, -1, 1, 1])
    assert np.allclose(moved.index_to_lps, ras @ matrix @ ras @ case.non_contrast.geometry.index_to_lps)

    there = panel.logic.autoContour(plain, model="Single")
    plain.HardenTransform()
    assert panel.button_off_because == ""
    hardened = panel.logic.autoContour(plain, model="Single")
    old = contours_from_segmentation(here, case.non_contrast.geometry, case.non_contrast.shape)
    for node in (there, hardened):
        read = contours_from_segmentation(node, moved, case.non_contrast.shape)  # refuses labels off these voxels
        assert np.array_equal(read.layers, old.layers) and read.names == old.names
