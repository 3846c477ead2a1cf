"""The module's own tests in Slicer (Reload and Test, ctest): one for each thing that nobody may break."""

from __future__ import annotations

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from segrap.contours import Contours
from segrap.delivery import deliver
from segrap.errors import Cancelled, InputError
from segrap.geometry import Geometry
from segrap.image import Image
from segrap.quality import check
from segrap.scene.review import DONE, note_findings, review_rows, set_status
from segrap.scene.segmentation import contours_from_segmentation, fill_segmentation, hold_segments
from segrap.scene.surfaces import CLOSED_SURFACE, attach_surfaces, hold_labels, make_surfaces
from segrap.scene.volumes import add_volume, describe_pair, find_pair
from SegRapSlicerLib.requirements import missing

REQUIREMENTS = Path(__file__).resolve().parent.parent / "Resources" / "requirements.txt"


class SegRapSlicerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer; the module gives its logic."""

    logicClass: Any = None

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self, **ignored: Any) -> None:
        for name in unittest.TestLoader().getTestCaseNames(type(self)):
            self.delayDisplay(name)
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as reason:
                self.delayDisplay(f"{name} is skipped: {reason}")

    def needPackages(self) -> None:
        """Skip what needs more than Slicer brings; the tests install nothing."""
        if lacking := missing(str(REQUIREMENTS)):
            self.skipTest(f"not installed: {', '.join(map(str, lacking))}")

    def madeUpPatient(self) -> Any:
        from segrap.training.phantom import Phantom

        return Phantom(1).render(spacing_mm=(4.0, 4.0, 6.0))

    def addJaw(self) -> list[Any]:
        """A strip of some slices of a made-up patient, marker rod included: few tiles for the network."""
        case = self.madeUpPatient()
        images = {"non-contrast": case.non_contrast, "with contrast": case.contrast}
        slabs = {name: Image(image.array[34:38, :, 40:85], image.geometry) for name, image in images.items()}
        return [add_volume(slicer.mrmlScene, slab, name) for name, slab in slabs.items()]

    def trueContours(self) -> Contours:
        from segrap.training.phantom.files import truth

        return truth(self.madeUpPatient(), 1)

    def show(self, contours: Contours) -> Any:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        fill_segmentation(node, contours)
        return node

    def test_pair_of_the_scene_is_found_and_what_is_no_pair_refused(self) -> None:
        ncct, cect = self.addJaw()
        self.assertEqual(find_pair(slicer.mrmlScene), (ncct, cect))
        self.assertIn("on the same grid", describe_pair(ncct, cect))
        self.assertRaises(InputError, describe_pair, ncct, ncct)

    def test_panel_chooses_the_pair_and_forgets_it_with_the_scene(self) -> None:
        slicer.modules.segrapslicer.widgetRepresentation()
        widget = slicer.modules.SegRapSlicerWidget
        widget.enter()
        ncct, cect = self.addJaw()
        slicer.app.processEvents()
        self.assertEqual(widget.ui.nonContrastSelector.currentNode(), ncct)
        self.assertEqual(widget.ui.contrastSelector.currentNode(), cect)
        self.assertTrue(widget.ui.autoContourButton.enabled, widget.ui.autoContourButton.toolTip)
        slicer.mrmlScene.Clear()
        slicer.app.processEvents()
        widget.enter()
        self.assertIsNone(widget.ui.nonContrastSelector.currentNode())
        self.assertFalse(widget.ui.autoContourButton.enabled)

    def test_made_up_patient_is_contoured(self) -> None:
        self.needPackages()
        ncct, cect = self.addJaw()
        logic = self.logicClass()
        segmentation = logic.autoContour(ncct, cect, model="SegRapPhantom", structures=["Mandible_L", "GTVp"])
        logic.close()
        segments = segmentation.GetSegmentation()
        self.assertEqual(list(segments.GetSegmentIDs()), ["Mandible_L", "GTVp"])
        mandible = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "Mandible_L", ncct)
        self.assertGreater(mandible.sum(), 0)

    def test_cancelled_job_leaves_the_scene_as_it_was(self) -> None:
        self.needPackages()
        ncct, cect = self.addJaw()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        logic = self.logicClass()
        logic.autoContour(ncct, cect, wait=False)
        logic.cancel()
        with self.assertRaises(Cancelled):
            while True:
                logic.poll()
        logic.close()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_voxels_come_back_from_the_scene_as_they_went_in(self) -> None:
        contours = self.trueContours()
        again = contours_from_segmentation(self.show(contours), contours.geometry, contours.shape)
        prints = [{name: facts.fingerprint for name, facts in one.structures.items()} for one in (contours, again)]
        self.assertEqual(*prints)
        self.assertEqual(again.provenance, contours.provenance)

    def test_exchanged_sides_are_found_on_an_oblique_ct(self) -> None:
        turn = np.array([[-0.8, 0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])  # oblique, and mirrored in the array
        contours = self.trueContours().subset(["Parotid_L", "Parotid_R"])
        left, right = (contours.mask(name).copy() for name in contours.names)
        oblique = Geometry(contours.geometry.spacing_mm, (0.0, 0.0, 0.0), turn)
        for masks, kinds in (((left, right), {"side"}), ((right, left), set())):
            turned = Contours.from_masks(dict(zip(contours.names, masks, strict=True)), oblique, contours.provenance)
            node = self.show(turned)
            rightmost = max(contours.names, key=lambda name: node.GetSegmentCenterRAS(name)[0])
            self.assertEqual(rightmost == "Parotid_L", bool(kinds))
            found = check(hold_segments(node).contours(turned.geometry, turned.shape))
            self.assertEqual({finding.kind for finding in found} & {"side"}, kinds)

    def test_surfaces_follow_an_edit_and_neighbours_stay(self) -> None:
        contours = self.trueContours()
        node = self.show(contours)
        held = hold_labels(node)
        attach_surfaces(node, held, make_surfaces(held))
        segment = node.GetSegmentation().GetSegment("Parotid_L")
        self.assertGreater(segment.GetRepresentation(CLOSED_SURFACE).GetNumberOfPolys(), 0)

        empty = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation("Parotid_L", empty)
        empty.GetPointData().GetScalars().Fill(0)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetBinaryLabelmapToSegment(empty, node, "Parotid_L", logic.MODE_REPLACE, empty.GetExtent())
        self.assertEqual(segment.GetRepresentation(CLOSED_SURFACE).GetNumberOfPolys(), 0)
        edited = hold_segments(node).contours(contours.geometry, contours.shape)
        self.assertEqual(edited.structures["Parotid_L"].voxels, 0)
        self.assertEqual(edited.structures["Parotid_R"].fingerprint, contours.structures["Parotid_R"].fingerprint)

    def test_review_comes_back_from_a_file_that_slicer_saved(self) -> None:
        contours = self.trueContours()
        node = self.show(contours)
        note_findings(node, contours, check(contours))
        set_status(node, "BrainStem", DONE)
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
        with tempfile.TemporaryDirectory() as folder:
            storage.SetFileName(str(Path(folder) / "review.seg.nrrd"))
            self.assertTrue(storage.WriteData(node))
            again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
            self.assertTrue(storage.ReadData(again))
        plain = [[replace(row, colour=(0, 0, 0)) for row in review_rows(one)] for one in (node, again)]
        self.assertEqual(*plain)
        self.assertEqual([row.name for row in plain[1] if row.status == DONE], ["BrainStem"])

    def test_rtstruct_on_the_ct_reads_back_as_the_contours(self) -> None:
        self.needPackages()
        from segrap.ct.dicom_series import read_series_folder
        from segrap.rtstruct.read import read_rtstruct
        from segrap.training.phantom.files import truth, write_dicom_pair

        case = self.madeUpPatient()
        with tempfile.TemporaryDirectory() as folder:
            plain, _enhanced = write_dicom_pair(case, Path(folder) / "ct", 1)
            (series,) = read_series_folder(plain)
            contours = contours_from_segmentation(self.show(truth(case, 1)), series.geometry, series.shape)
            read = read_rtstruct(deliver(contours, folder, "rtstruct", series=series).path, series)
        for name in read.names:
            self.assertTrue(np.array_equal(read.mask(name), contours.mask(name)), name)
        self.assertIn("GTVp", read.names)
