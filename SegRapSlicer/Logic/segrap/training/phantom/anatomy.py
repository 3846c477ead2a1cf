"""The made-up patient's anatomy: what is painted where, in which order, with which Hounsfield units and sub-class.

Everything is in the patient's own frame: x to the left, y to the back, z to the head, mm; the origin lies in the
midline at the height of the mandibular angles. Sub-class ids are the challenge's 1..54, then 55 GTVp, 56 GTVnd.
The whole is drawn by painting in order, so sub-classes are exclusive by construction. Organs lie and measure as in
adults of ordinary build, sized so that their volumes fall inside the ranges published for SegRap2023 (anatomy.csv);
contrast at borders that CT does not show (hippocampus, temporal lobe, glottis) is stronger than in life, so that a
small network can learn the whole set.
"""

from __future__ import annotations

import numpy as np

from segrap.training.phantom.body import paint_body
from segrap.training.phantom.brain import paint_brain
from segrap.training.phantom.face import paint_face, paint_jaws_and_ears
from segrap.training.phantom.neck import paint_neck, paint_tumours
from segrap.training.phantom.strokes import Brush, Paint, Variation


def strokes(rng: np.random.Generator) -> list[Paint]:
    """The strokes of one patient, in the order in which they are painted."""
    vary, brush = Variation(rng), Brush()
    skin = paint_body(brush, vary)
    mastoids = paint_brain(brush, vary)
    paint_face(brush, vary)
    paint_jaws_and_ears(brush, vary, skin, mastoids)
    paint_neck(brush, vary)
    paint_tumours(brush, vary)
    return brush.strokes
