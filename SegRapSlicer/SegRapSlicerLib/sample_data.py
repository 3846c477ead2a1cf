"""The made-up patient in Slicer's Sample Data module: painted on this computer, nothing is downloaded."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from segrap.scene.volumes import add_volume, show_in_slice_views

SPACING_MM = (2.0, 2.0, 3.0)
"""Fine enough to see every structure, coarse enough to be painted while one waits."""


def register_sample_data() -> None:
    """Offer the made-up patient in the Sample Data module."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SegRapSlicer",
        sampleName="SegRapMadeUpPatient",
        uris=[],
        fileNames=[],
        customDownloader=lambda source: add_made_up_patient(),
    )


def add_made_up_patient(seed: int = 1, spacing_mm: tuple[float, float, float] = SPACING_MM) -> tuple[Any, Any]:
    """Add the two CTs of a made-up patient to the scene; returns (non-contrast, contrast) volume nodes."""
    from segrap.training.phantom import Phantom

    with slicer.util.WaitCursor():
        case = Phantom(seed).render(spacing_mm=spacing_mm)
    images = {_("Made-up patient non-contrast"): case.non_contrast, _("Made-up patient contrast"): case.contrast}
    plain, enhanced = (add_volume(slicer.mrmlScene, image, name) for name, image in images.items())
    show_in_slice_views(plain)
    views = slicer.app.layoutManager()
    if views:  # there are none without a main window
        views.resetSliceViews()
    return plain, enhanced
