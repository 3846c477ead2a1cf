"""The module's own test in Slicer (Reload and Test, ctest): from a made-up patient to contours, and a cancelled job."""

from __future__ import annotations

import tempfile
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from segrap.delivery import deliver
from segrap.errors import Cancelled
from segrap.image import Image
from segrap.scene.segmentation import fill_segmentation, hold_segments
from segrap.scene.surfaces import CLOSED_SURFACE, attach_surfaces, hold_labels, make_surfaces
from segrap.scene.volumes import add_volume


class SegRapSlicerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer; the module gives its logic."""

    logicClass: Any = None

    def runTest(self) -> None:
        for test in (
            self.test_made_up_patient_is_contoured,
            self.test_cancelled_job_leaves_the_scene_as_it_was,
            self.test_contours_are_shown_edited_and_delivered,
        ):
            slicer.mrmlScene.Clear()
            test()

    def addJaw(self) -> list[Any]:
        """Some slices of a made-up patient: few tiles for the network."""
        from segrap.training.phantom import Phantom

        case = Phantom(1).render(spacing_mm=(4.0, 4.0, 6.0))
        images = {"non-contrast": case.non_contrast, "with contrast": case.contrast}
        slabs = {name: Image(image.array[32:42], image.geometry) for name, image in images.items()}
        return [add_volume(slicer.mrmlScene, slab, name) for name, slab in slabs.items()]

    def test_made_up_patient_is_contoured(self) -> None:
        self.delayDisplay("Contouring a made-up patient")
        ncct, cect = self.addJaw()
        logic = self.logicClass()
        segmentation = logic.autoContour(ncct, cect, structures=["Mandible_L", "GTVp"])
        logic.close()
        segments = segmentation.GetSegmentation()
        self.assertEqual(list(segments.GetSegmentIDs()), ["Mandible_L", "GTVp"])
        mandible = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "Mandible_L", ncct)
        self.assertGreater(mandible.sum(), 0)

    def test_cancelled_job_leaves_the_scene_as_it_was(self) -> None:
        self.delayDisplay("Cancelling a job")
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

    def test_contours_are_shown_edited_and_delivered(self) -> None:
        from segrap.training.phantom import Phantom
        from segrap.training.phantom.files import truth

        self.delayDisplay("Showing, editing and delivering true contours")
        contours = truth(Phantom(1).render(spacing_mm=(4.0, 4.0, 6.0)), 1)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        fill_segmentation(node, contours)
        held = hold_labels(node)
        attach_surfaces(node, held, make_surfaces(held))
        segment = node.GetSegmentation().GetSegment("Parotid_L")
        before = segment.GetRepresentation(CLOSED_SURFACE).GetNumberOfPolys()
        self.assertGreater(before, 0)

        empty = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation("Parotid_L", empty)
        empty.GetPointData().GetScalars().Fill(0)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetBinaryLabelmapToSegment(empty, node, "Parotid_L", logic.MODE_REPLACE, empty.GetExtent())
        self.assertEqual(segment.GetRepresentation(CLOSED_SURFACE).GetNumberOfPolys(), 0)

        edited = hold_segments(node).contours(contours.geometry, contours.shape)
        self.assertEqual(edited.structures["Parotid_L"].voxels, 0)
        self.assertEqual(edited.structures["Parotid_R"].fingerprint, contours.structures["Parotid_R"].fingerprint)
        with tempfile.TemporaryDirectory() as folder:
            self.assertTrue(deliver(edited, folder, "seg.nrrd").path.is_file())
