"""The made-up patient's body: skin, fat, muscles, vessels, shoulders, lungs, spine.

Same frame and same rules as phantom.anatomy.
"""

from __future__ import annotations

import numpy as np

from segrap.training.phantom.shapes import Array, Point, Shape, ellipsoid, join, tube
from segrap.training.phantom.strokes import Brush, Tissue, Variation, blob, bone, canal_y, cord_y, muscle, pipe, waves


def _spine(part: str) -> Shape:
    """Vertebral bodies, discs or arches C1..T3 along the canal, 17.5 mm per level."""
    level = np.float32(17.5)

    def distance(x: Array, y: Array, z: Array) -> Array:
        back = y - canal_y(z)
        phase = np.abs(np.mod(z + 9, level) - level / 2)
        if part == "bodies" or part == "discs":
            flare = np.where(z < -100, np.float32(2.0), np.float32(0))
            radial = (np.sqrt((x / (13 + flare)) ** 2 + ((back + 18) / 9) ** 2) - 1) * 9
            gap = phase - np.float32(6.4) if part == "bodies" else np.float32(6.4) - phase
            return np.asarray(np.maximum(radial, gap))
        ring = np.abs(np.sqrt((x / 1.15) ** 2 + back**2) - 11.5) - 2.2
        ring = np.maximum(ring, -(back + 3))
        spinous = np.maximum(np.abs(x) - 2.6, np.abs(back - 22 + 0 * z) - 10)
        transverse = np.maximum(np.maximum(np.abs(back + 9) - 4, np.abs(np.abs(x) - 20) - 8), phase - 5)
        # The foramen of the vertebral artery.
        transverse = np.maximum(transverse, 3.2 - np.sqrt((np.abs(x) - 19) ** 2 + (back + 9) ** 2))
        arch = np.maximum(np.minimum(ring, spinous), phase - 6.5)
        return np.asarray(np.minimum(arch, transverse))

    return Shape(np.array([-32.0, -24, -235]), np.array([32.0, 100, 22]), distance)


def canal_path() -> list[Point]:
    """The middle of the spinal canal, from the skull base down past the scan's end."""
    return [(0.0, cord_y(float(z)), float(z)) for z in np.arange(50, -250, -10)]


def paint_body(brush: Brush, vary: Variation) -> Shape:
    """All that lies under the organs; returns the skin, in which everything else must stay."""
    paint = brush.paint
    # ---- the body: skin, fat, muscle -------------------------------------------------------------------------------
    shoulder = vary.uniform(185, 215)
    nose, chin = vary.uniform(-2, 3), vary.uniform(-3, 3)
    skin = join(
        ellipsoid((0, 9, 92), (80, 98, 85)),
        ellipsoid((0, -40, 22), (65, 67, 62), 2.5),
        ellipsoid((50, -14, 18), (31, 34, 44)),
        ellipsoid((-50, -14, 18), (31, 34, 44)),
        ellipsoid((0, -80 - chin, -6), (32, 29, 24)),
        ellipsoid((0, -104 - nose, 47), (13, 20, 20)),
        tube([(0, 14, 30), (0, 0, -45), (0, 12, -110), (0, 28, -165)], [62, 60, 62, 75], (1.03, 1.0, 1.0)),
        tube(
            [(45 - shoulder, 38, -228), (-70, 36, -205), (0, 34, -198), (70, 36, -205), (shoulder - 45, 38, -228)],
            [46, 58, 70, 58, 46],
        ),
        ellipsoid((0, 30, -260), (150, 76, 75), 2.5),
        smooth=22,
    )
    ears = vary.pair(1.5, 0.08)
    for sign in (1, -1):
        paint(blob((83, 6, 56), (4.5, 15, 29), sign, ears[sign], 2.5, 14), -10)
    scalp = vary.uniform(4.5, 6.5)
    depth = vary.uniform(5, 11)

    def layers(cutis: float, flesh: Tissue) -> Tissue:
        """Skin, fat under it, muscle inside, by the depth below the surface: one stroke, as the surface is costly."""

        def tissue(x: Array, y: Array, z: Array, d: Array) -> Array:
            fat_begins, fat = d + 2.2, scalp + depth * np.clip((-z - 20) / 130, 0, 1) + 1.5 * waves(x, y, z, 90)
            level = np.where(
                fat_begins < 0.5, cutis + (-100 - cutis) * np.clip(0.5 - fat_begins, 0, 1), np.float32(cutis)
            )
            assert callable(flesh)
            return np.asarray(level + (flesh(x, y, z, d) - level) * np.clip(0.5 - (d + fat), 0, 1))

        return tissue

    paint(skin, layers(5, muscle(56)), layers(15, muscle(68)))

    # ---- fat spaces, large muscles, vessels ------------------------------------------------------------------------
    masseter, cheek = vary.pair(1.0, 0.08), vary.pair(1.5, 0.1)
    nodes_fat = vary.pair(1.0, 0.06)
    for sign in (1, -1):
        paint(blob((47, -57, 30), (11, 20, 21), sign, cheek[sign]), -105)
        paint(blob((50, -30, 70), (13, 28, 22), sign), -70)  # temporal fossa
        paint(blob((52, -34, 74), (8, 22, 26), sign), 54, 64)
        paint(
            pipe(
                [(33, -12, 40), (37, -16, 5), (36, -18, -40), (38, -16, -100), (46, -2, -150)],
                13,
                sign,
                nodes_fat[sign],
            ),
            -95,
        )
        paint(pipe([(19, -26, 50), (26, -27, 20)], [6, 8], sign), -85)  # parapharyngeal fat
        paint(
            pipe(
                [(60, 14, 30), (52, -4, -40), (38, -22, -105), (18, -30, -175)], [9, 11, 10, 7], sign, None, (1, 1.3, 1)
            ),
            -80,
        )
        paint(
            pipe(
                [(60, 14, 34), (52, -4, -40), (38, -22, -105), (18, -30, -175)],
                [7.5, 9.5, 8.5, 5.5],
                sign,
                None,
                (1, 1.3, 1),
            ),
            60,
            74,
        )
        paint(
            pipe([(56, -24, -14), (60, -30, 20), (61, -32, 50)], [7, 8, 5], sign, masseter[sign], (1, 1.8, 1)), 62, 74
        )
        paint(pipe([(44, -24, -10), (34, -24, 25), (28, -28, 45)], [5, 7, 6], sign, None, (1, 1.6, 1)), 58, 70)
    neck = vary.uniform(-2, 2)
    for sign in (1, -1):
        paint(
            pipe(
                [(27, -3, 48), (27, -12, 5), (27 + neck, -18, -45), (24, -24, -100), (24, 0, -165), (20, 15, -215)],
                3.4,
                sign,
            ),
            42,
            195,
        )
        paint(
            pipe(
                [(32, 2, 42), (34, -6, 5), (35 + neck, -14, -45), (33, -20, -100), (30, -4, -165), (26, 0, -215)],
                5.2 - sign * 0.6,
                sign,
            ),
            42,
            165,
        )
        paint(pipe([(19, -6, 20), (19, -1, -90), (20, 12, -135)], 1.6, sign), 42, 170)

    # ---- lungs, shoulder girdle, ribs ------------------------------------------------------------------------------
    lungs = vary.pair(3, 0.06)
    for sign in (1, -1):
        paint(blob((62, 32, -228), (40, 52, 58), sign, lungs[sign]), -860, -850)
        for low in (0, 32):
            ring = [
                (18, cord_y(-172 - low) - 12, -172 - low),
                (48, 55, -178 - low),
                (88 + low * 0.3, 48, -196 - low),
                (92 + low * 0.3, 10, -212 - low),
                (50, -28, -228 - low),
            ]
            paint(pipe(ring, 4.2, sign), bone(650, 250, 1.6))
        paint(
            pipe([(16, -34, -200), (60, -36, -190), (110, -8, -178), (155, 24, -170)], [8, 5.5, 5.5, 6], sign),
            bone(750, 250, 1.7),
        )
        paint(pipe([(168, 38, -196), (170, 40, -240)], [23, 13], sign), bone(600, 200, 1.8))
        paint(
            pipe([(150, 56, -188), (110, 88, -190), (70, 96, -225)], [7, 4, 3], sign, None, (1, 1, 2)),
            bone(600, 250, 1.5),
        )

    # ---- spine, canal, cord ----------------------------------------------------------------------------------------
    paint(_spine("discs"), 85, 95)
    paint(_spine("bodies"), bone(620, 270, 1.6))
    paint(_spine("arch"), bone(700, 380, 1.4))
    odontoid = [(0.0, cord_y(8) - 12.0, -5.0), (0.0, cord_y(20) - 12.5, 18.0)]
    paint(tube(odontoid, [6, 4.5]), bone(800, 350, 1.4))
    paint(
        tube(
            [
                (-20, 10, 13),
                (-12, -2, 13),
                (0, -6, 13),
                (12, -2, 13),
                (20, 10, 13),
                (12, 26, 13),
                (0, 30, 13),
                (-12, 26, 13),
                (-20, 10, 13),
            ],
            3.6,
            (1, 1, 1.5),
        ),
        bone(800, 450, 1.4),
    )
    return skin
