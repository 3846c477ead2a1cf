"""The module's own test in Slicer (Reload and Test, ctest): from a made-up patient to contours, and a cancelled job."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from segrap.errors import Cancelled
from segrap.image import Image
from segrap.scene.volumes import add_volume


class SegRapSlicerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer; the module gives its logic."""

    logicClass: Any = None

    def runTest(self) -> None:
        for test in (self.test_made_up_patient_is_contoured, self.test_cancelled_job_leaves_the_scene_as_it_was):
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
