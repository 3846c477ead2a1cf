"""Which slices show a patient at a glance: through the eyes, the parotids, the midline; and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from segrap.evaluation.views import SOFT_TISSUE, Frame, Plane, Views

Levels = tuple[tuple[str, tuple[str, ...]], ...]
"""In words, and the structures whose middle it is; the first of which one is there is taken."""

UPPER: Levels = (
    ("the eyes", ("Eye_L", "Eye_R")),
    ("the optic nerves", ("OpticNerve_L", "OpticNerve_R")),
    ("the brain stem", ("BrainStem",)),
)
LOWER: Levels = (
    ("the parotid glands", ("Parotid_L", "Parotid_R")),
    ("the submandibular glands", ("Submandibular_L", "Submandibular_R")),
    ("the oral cavity", ("OralCavity",)),
    ("the larynx", ("Larynx",)),
)
MIDLINE: Levels = (("the midline", ("BrainStem", "SpinalCord", "Pituitary", "Chiasm", "Larynx")),)

_MARGIN_MM = 20.0
_LEAST_MM = 220.0  # a few small structures are shown with the head around them
_FILL = 0.2


@dataclass(frozen=True)
class Cut:
    """A slice (index along its plane's axis, in the patient's axis order), and the part of it around all structures.

    words: what it goes through. edges: top, left, bottom and right in voxels, at their outer edges.
    """

    words: str
    plane: Plane
    index: int
    edges: tuple[float, float, float, float]
    height_over_width: float

    def of_height(self, height_px: int) -> Frame:
        """The part that is shown as a picture of that height, true to scale."""
        return Frame(*self.edges, height_px, round(height_px / self.height_over_width))

    def of_width(self, width_px: int) -> Frame:
        """The part that is shown as a picture of that width, true to scale."""
        return Frame(*self.edges, round(width_px * self.height_over_width), width_px)

    def draw(self, views: Views, frame: Frame) -> Pillow.Image:
        """The cut through these views: those that it was made for, or others on the same grid."""
        return views.draw(self.plane, self.index, frame, SOFT_TISSUE, fill=_FILL)


def cut_through(views: Views, plane: Plane, levels: Levels) -> Cut:
    """The slice at the first level of which a structure is there, else in the middle of all structures (or the scan).

    It shows all structures with a margin, and at least the size of a head where the scan has it.
    """
    low, high = _field(views)
    words, index = _level(views, levels, plane.through)
    down, across = plane.down, plane.across
    height_mm, width_mm = ((high[axis] - low[axis]) * views.spacing_zyx_mm[axis] for axis in (down, across))
    edges = (low[down], low[across], high[down], high[across])
    return Cut(f"{plane.name.capitalize()} at {words}", plane, index, edges, height_mm / width_mm)


def _field(views: Views) -> tuple[list[float], list[float]]:
    """First and last edge along each axis, in voxels."""
    if not views.places:
        return [0.0] * 3, [float(extent) for extent in views.ct.shape]
    low, high = [], []
    for axis, spacing_mm in enumerate(views.spacing_zyx_mm):
        margin = _MARGIN_MM / spacing_mm
        start = min(place.box[axis].start for place in views.places.values()) - margin
        stop = max(place.box[axis].stop for place in views.places.values()) + margin
        lacking = max(_LEAST_MM / spacing_mm - (stop - start), 0.0)
        low.append(max(start - lacking / 2, 0.0))
        high.append(min(stop + lacking / 2, float(views.ct.shape[axis])))
    return low, high


def _level(views: Views, levels: Levels, axis: int) -> tuple[str, int]:
    for words, names in levels:
        centres = [views.places[name].centre[axis] for name in names if name in views.places]
        if centres:
            return words, round(float(np.mean(centres)))
    if not views.places:
        return "the middle of the scan", views.ct.shape[axis] // 2
    return "the middle of all structures", round(float(np.mean([p.centre[axis] for p in views.places.values()])))
