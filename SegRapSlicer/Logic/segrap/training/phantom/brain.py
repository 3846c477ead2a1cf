"""The made-up patient's skull, brain, brain stem and spinal cord.

Same frame and same rules as phantom.anatomy.
"""

from __future__ import annotations

import numpy as np

from segrap.training.phantom.body import canal_path
from segrap.training.phantom.shapes import Point, box, common, ellipsoid, grow, join, slab, tube
from segrap.training.phantom.strokes import RIGHT, Brush, Change, Variation, blob, bone, brain, keeping, pipe


def paint_brain(brush: Brush, vary: Variation) -> dict[int, Change]:
    """Skull, temporal bones without their cavities, and sub-classes 1, 2, 4 to 9 and 46.

    Returns how the mastoids were moved and sized, by side.
    """
    paint = brush.paint
    # ---- skull -----------------------------------------------------------------------------------------------------
    brow = vary.draw(0.0, 0.012)[1]
    cranium = ellipsoid((0, 10, 97), np.array((75.0, 86.5, 74.5)) * brow, 2.2)
    inner = ellipsoid((0, 10, 97), np.array((68.5, 79.5, 67.5)) * brow, 2.2)
    lobes, cerebellum_by = vary.pair(1.2, 0.03), vary.draw(1.2, 0.03)
    lobe = {
        sign: common(blob((44, 4, 92), (24.4, 39.7, 24.8), sign, lobes[sign], 2.3), grow(inner, -1.5))
        for sign in (1, -1)
    }
    cerebellum = common(blob((0, 46, 63), (56, 38, 30), 1, cerebellum_by, 2.3), grow(inner, -1.0))
    cerebrum = common(grow(inner, -1.0), slab(low_z=86, slope_y=-0.06))
    stem_by = vary.draw(0.8, 0.03)
    stem = common(
        pipe([(0, 4, 92), (0, 5, 74), (0, 12, 48), (0, 15, 22)], [12.4, 14.4, 9.3, 7.5], 1, stem_by, (1.06, 1, 1)),
        slab(low_z=27),
    )
    floor = join(grow(lobe[1], 6), grow(lobe[-1], 6), grow(cerebellum, 6), smooth=6)
    paint(common(floor, slab(high_z=78), grow(inner, 6.5)), bone(900, 480, 2.0), edge=1.4)
    paint(common(cranium, slab(low_z=64, slope_y=-0.34)), bone(1150, 620, 2.2))
    clivus = tube([(0, -24, 75), (0, -10, 58), (0, 1, 32)], [15, 12, 6], (1.25, 1, 1))
    paint(clivus, bone(750, 380, 2.0))
    petrous_by, mastoid_by = vary.pair(0.6, 0.02), vary.pair(0.9, 0.05)
    for sign in (1, -1):
        paint(pipe([(14, -9, 60), (36, 1, 60), (56, 8, 60)], [8, 11, 12], sign, petrous_by[sign]), bone(1000, 820, 2.0))
        paint(blob((56, 13, 50), (12.5, 15.5, 22), sign, mastoid_by[sign]), 850)
    # Meninges and fluid, then the brain in it.
    paint(common(grow(join(cerebrum, lobe[1], lobe[-1], cerebellum, smooth=3), 2.2), inner), 10, 14)
    paint(common(tube([(0, -6, 94), (0, -6, 76), (0, 6, 48), (0, 15, 24)], [21, 17, 14, 12]), inner), 9, 12)
    paint(tube(canal_path(), 8.4, (1.2, 1, 1)), 12, 16)
    paint(cerebrum, brain, lambda x, y, z, d: brain(x, y, z, d) + 4, 1)
    paint(cerebellum, brain, lambda x, y, z, d: brain(x, y, z, d) + 4, 1)
    paint(common(box((0, 10, 130), (1.0, 78, 42), 0.9), inner), 58, 110)
    for sign in (1, -1):
        paint(pipe([(9, -22, 110), (11, 0, 117), (16, 28, 114), (24, 42, 104)], [5, 7, 7.5, 4], sign), 4, 6, only=(1,))
        paint(blob((0, 6, 104), (3, 12, 9)), 8, 11, only=(1,))
        paint(blob((20, -4, 107), (8, 20, 9), sign), 39, 44, only=(1,))
        paint(blob((11, 10, 102), (7, 14, 9), sign), 38, 43, only=(1,))
        # The Sylvian fissure above, then the lobe itself.
        paint(grow(lobe[sign], 2.0), 8, 14, only=(1,))
        paint(
            lobe[sign],
            lambda x, y, z, d: brain(x, y, z, d) + 8,
            lambda x, y, z, d: brain(x, y, z, d) + 13,
            4 + RIGHT[sign],
        )
    hippocampus_by = vary.pair(0.7, 0.05)
    for sign in (1, -1):
        path: list[Point] = [(23, -9, 81), (24.4, 4, 83), (27, 19, 87), (24.5, 30, 93)]
        body = pipe(path, [6.4, 6.2, 5.6, 4.6], sign, hippocampus_by[sign])
        paint(grow(body, 1.6), 9, 12, only=(1, 4, 5))
        paint(body, 27, 30, keeping({1: 8 + RIGHT[sign], 4 + RIGHT[sign]: 6 + RIGHT[sign]}), only=(1, 4, 5))
    paint(grow(common(stem, slab(low_z=40)), 2.0), 9, 12)
    paint(stem, 40, 46, 2)
    cord_by = vary.draw(0.0, 0.04)[1]
    # The cord is written after the stem, and ends where the stem begins: at the foramen magnum.
    paint(common(tube(canal_path(), 5.6 * float(cord_by[0]), (1.16, 1, 1)), slab(high_z=27)), 38, 42, 46)
    return mastoid_by
