"""The made-up patient's face: sinuses, nose, orbits, sella, jaws, mouth, salivary glands, ears.

Same frame and same rules as phantom.anatomy.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from segrap.training.phantom.shapes import Array, Shape, box, common, ellipsoid, grow, join, side, slab, tube
from segrap.training.phantom.strokes import (
    RIGHT,
    Brush,
    Change,
    Variation,
    air_cells,
    at,
    becomes,
    blob,
    bone,
    pipe,
    waves,
)


def _mandible_u(half_thickness: float, low: float, high: float, spread: float = 1.0, back_y: float = -34.0) -> Shape:
    """A horseshoe standing upright between two heights: the mandible's body, a row of teeth, the maxilla's ridge."""
    line = np.array([(0, -88), (14, -85), (25, -75), (35, -59), (42, -44), (46, back_y)], dtype=np.float32)
    line[:, 0] *= spread
    middle, half = np.float32((low + high) / 2), np.float32((high - low) / 2)

    def distance(x: Array, y: Array, z: Array) -> Array:
        x = np.abs(x)
        best: Array | None = None
        for (ax, ay), (bx, by) in pairwise(line):
            ux, uy = bx - ax, by - ay
            along = np.clip(((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy), 0, 1)
            gap = np.sqrt((x - ax - along * ux) ** 2 + (y - ay - along * uy) ** 2)
            best = gap if best is None else np.minimum(best, gap)
        assert best is not None
        flat, tall = best - np.float32(half_thickness - 2), np.abs(z - middle) - (half - 2)
        outside = np.sqrt(np.maximum(flat, 0) ** 2 + np.maximum(tall, 0) ** 2)
        return np.asarray(outside + np.minimum(np.maximum(flat, tall), 0) - 2)

    reach = 46 * spread + half_thickness
    return Shape(
        np.array([-reach, -90 - half_thickness, low]), np.array([reach, back_y + half_thickness, high]), distance
    )


def paint_face(brush: Brush, vary: Variation) -> None:
    """Nose, sinuses, orbits and sella: sub-classes 3, 10 to 15 and 34."""
    paint = brush.paint
    # ---- face: sinuses, nose, orbits -------------------------------------------------------------------------------
    maxilla_by, sphenoid_by = vary.pair(1.2, 0.07), vary.draw(1.0, 0.07)
    paint(box((0, -60, 48), (30, 26, 24), 10), bone(500, -60, 2.5))
    for sign in (1, -1):
        paint(
            pipe([(36, -72, 58), (56, -56, 56), (65, -34, 57), (66, -16, 57)], [7, 5, 3.2, 3.2], sign),
            bone(900, 350, 1.5),
        )
        paint(pipe([(13, -24, 48), (14, -30, 38), (18, -24, 30)], [3, 3, 2.4], sign, None, (1, 2, 1)), 700)
        sinus = blob((25.5, -64, 52), (13, 17, 15), sign, maxilla_by[sign], 3)
        paint(grow(sinus, 2.2), 650)
        paint(sinus, 30, 55)
        paint(grow(sinus, -1.2), -960)
    paint(blob((0, -62, 54), (13.5, 38, 22), 1, None, 3), 300)
    paint(pipe([(0, -104, 44), (0, -92, 48)], 7), 20, 50)
    paint(blob((0, -62, 54), (12, 37, 20.5), 1, None, 3), 35, 80)
    paint(blob((0, -62, 54), (10.5, 35.5, 19), 1, None, 3), -920)
    paint(box((0, -66, 55), (1.3, 34, 20), 1), 90, 110)
    for sign in (1, -1):
        paint(pipe([(8, -94, 40), (8, -88, 46)], 4.0, sign), -900)
        for height, reach in ((46, 3.6), (57, 3.2), (66, 2.4)):
            paint(pipe([(7.5, -84, height), (7.5, -44, height)], reach, sign, None, (0.9, 1, 1.4)), 40, 110)
    paint(blob((0, -55, 80), (13, 25, 11), 1, None, 3), air_cells(250, 17), air_cells(260, 17), 0)
    for sign in (1, -1):
        frontal = blob((12, -72, 102), (12, 5.0, 10), sign)
        paint(grow(frontal, 2.0), 900, None, 0)
        paint(frontal, -950)
    paint(blob((0, -29, 66), (13, 10.5, 9.5), 1, sphenoid_by, 2.6), 40, 70)
    paint(blob((0, -29, 66), (12, 9.5, 8.5), 1, sphenoid_by, 2.6), -950)
    paint(box((2, -29, 66), (0.8, 10, 9), 0.7), 400)

    eye_by, lens_by, nerve_by = vary.pair(0.8, 0.02), vary.pair(0.3, 0.03), vary.pair(0.4, 0.04)
    for sign in (1, -1):
        orbit = join(
            blob((30, -65, 84), (20, 17, 18), sign, eye_by[sign]),
            pipe([(29, -59, 84), (15, -34, 85)], [17, 5], sign),
            smooth=4,
        )
        paint(common(grow(orbit, 3), slab(low_z=62)), 900, None, 0)
        paint(orbit, -90, -88, 0)
        paint(blob((30, -81, 84), (19, 8, 13), sign, eye_by[sign]), 10, 25)
        for dx, dz in ((-10, 0), (10, 0), (0, 10), (0, -10)):
            paint(
                pipe(
                    [(29 + dx, -64, 84 + dz), (24 + 0.75 * dx, -50, 84 + 0.75 * dz), (15, -36, 85)],
                    [1.8, 2.4, 1.2],
                    sign,
                    eye_by[sign],
                ),
                52,
                95,
            )
        eye_centre = at((30, -70.5, 84), sign, eye_by[sign])
        eye_radius = 13.3 * float(eye_by[sign][1][0])
        nerve_shift = eye_by[sign][0]
        nerve = tube(
            [
                eye_centre + np.array([-1.0 * sign, eye_radius - 0.5, 0]),
                at((21, -45, 84), sign) + 0.6 * nerve_shift,
                at((13, -34, 85), sign),
            ],
            2.95 * float(nerve_by[sign][1][0]),
        )
        paint(nerve, 45, 62, 14 + RIGHT[sign])
        eye = ellipsoid(eye_centre, (eye_radius,) * 3)
        paint(
            eye,
            lambda x, y, z, d: np.where(d > -1.4, np.float32(60), np.float32(12)),
            lambda x, y, z, d: np.where(d > -1.4, np.float32(85), np.float32(14)),
            10 + RIGHT[sign],
        )
        lens = ellipsoid(
            eye_centre + np.array([0, -8.6, 0]) + lens_by[sign][0] * 0.5, np.array((4.8, 3.0, 4.8)) * lens_by[sign][1]
        )
        paint(lens, 135, 140, 12 + RIGHT[sign])

    # ---- sella: pituitary and chiasm -------------------------------------------------------------------------------
    chiasm_by, pituitary_by = vary.draw(0.6, 0.03), vary.draw(0.5, 0.04)
    paint(blob((0, -22, 87), (17, 14, 6.5)), 8, 12)
    paint(blob((0, -21, 80), (8.5, 7, 5)), 450, None, 0)
    paint(blob((0, -21, 80.3), (5.65, 4.75, 3.38), 1, pituitary_by, 2.4), 70, 175, 34)
    cross = join(
        pipe([(-11, -30, 87.0), (10, -14, 88.5)], 2.85, 1, chiasm_by),
        pipe([(11, -30, 87.0), (-10, -14, 88.5)], 2.85, 1, chiasm_by),
        smooth=2,
    )
    paint(cross, 50, 58, 3)


def paint_jaws_and_ears(brush: Brush, vary: Variation, skin: Shape, mastoid_by: dict[int, Change]) -> None:
    """Jaws, mouth, glands and the ears' cavities: sub-classes 16 to 33 and 35 to 45."""
    paint = brush.paint
    # ---- jaws, teeth, mouth, tongue --------------------------------------------------------------------------------
    mouth_by, jaw_by = vary.draw(1.0, 0.025), vary.draw(0.8, 0.015)
    paint(blob((0, -66, -24), (34, 30, 10)), -80, -78)
    paint(blob((0, -66, 10), (36, 36.5, 28.5), 1, mouth_by, 3), -70, -66)
    cavity = blob((0, -66, 10), (34.5, 35, 27), 1, mouth_by, 3)

    def tongue(x: Array, y: Array, z: Array, d: Array) -> Array:
        return np.asarray(58 - 45 * np.clip(1 - np.abs(x) / 1.5, 0, 1) - 18 * np.clip(waves(x, y, z, 14), 0, 1))

    paint(cavity, tongue, lambda x, y, z, d: tongue(x, y, z, d) + 12 + 28 * (d > -3), 35)
    paint(common(blob((0, -64, 31), (22, 24, 2.2)), cavity), -880)
    spread = float(jaw_by[1][0])
    paint(_mandible_u(5.5, 30, 41, 0.86 * spread), bone(850, 400, 1.6), None, 0)
    paint(box((0, -62, 38.5), (24, 26, 2.0), 1.5), 650, None, 0)
    jaw = _mandible_u(6.4, -21, 10, spread)
    for sign in (1, -1):
        ramus = join(
            box(at((50, -24, 12), sign), (5.2, 13.5, 31), 4.5),
            pipe([(50.5, -19, 34), (50, -15.5, 50)], [5.5, 5.5], sign),
            pipe([(48.5, -33, 34), (47.5, -36, 47)], [5, 2.2], sign),
        )
        half = common(jaw, side(sign))
        paint(common(join(half, ramus), slab(high_z=48)), bone(1250, 420, 2.2), None, 36 + RIGHT[sign], edge=0.8)
    bite = vary.uniform(-0.5, 0.5)

    def enamel(x: Array, y: Array, z: Array, d: Array) -> Array:
        angle = np.arctan2(x, y + 30)
        return np.asarray(900 + 950 * np.clip(np.cos(angle * 26) + 0.6, 0, 1))

    paint(_mandible_u(4.2, 8 + bite, 18, 0.97 * spread, -46), enamel, None, 0)
    paint(_mandible_u(4.2, 19, 31, 0.88 * spread, -46), enamel, None, 0)

    # ---- temporomandibular joints, glands --------------------------------------------------------------------------
    joint_by, parotid_by, submandibular_by = vary.pair(0.6, 0.025), vary.pair(1.2, 0.04), vary.pair(1.0, 0.05)
    for sign in (1, -1):
        paint(
            common(blob((60.5, -14, 20), (14.3, 22.5, 29), sign, parotid_by[sign], 2.3, -18), grow(skin, -2.5)),
            -18,
            28,
            40 + RIGHT[sign],
            only=(0,),
        )
        paint(
            grow(gland := blob((34.5, -37, -21), (10.5, 13.2, 17), sign, submandibular_by[sign], 2.2, 25), 1.8),
            -95,
            -92,
            None,
            only=(0,),
        )
        paint(gland, 42, 98, 38 + RIGHT[sign], only=(0,))
    for sign in (1, -1):
        joint = blob((50, -15, 54), (11.25, 7.45, 6.75), sign, joint_by[sign], 3)
        paint(grow(joint, 1.2), 950, only=(0,))
        paint(joint, 170, 185, 44 + RIGHT[sign])
        paint(pipe([(45, -14.5, 53), (55, -14.5, 53)], 4.0, sign, joint_by[sign]), bone(1000, 700, 1.2))

    # ---- temporal bone: mastoid, ear ---------------------------------------------------------------------------------
    ear_by = vary.pair(0.5, 0.015)
    for sign in (1, -1):
        i = RIGHT[sign]
        paint(blob((55.5, 14, 48), (11, 13.5, 20), sign, mastoid_by[sign], 2.2), air_cells(500, 15), None, 42 + i)
        paint(pipe([(45, -3, 57), (62, -4, 58), (84, -4, 57)], [3.2, 3.4, 4.2], sign, ear_by[sign]), -950, None, 0)
        by = ear_by[sign]
        paint(blob((37.2, 0.3, 59.5), (9.2, 7.0, 6.6), sign, by, 2.3, 8), 1500, None, 16 + i)
        paint(blob((43.4, -1.5, 57.5), (4.05, 4.95, 6.7), sign, by), -900, None, becomes(22 + i, {16 + i: 20 + i}))
        paint(
            pipe([(39.2, -6.4, 58), (32, -12.7, 56.5)], [2.3, 2.15], sign, by),
            -500,
            None,
            becomes(32 + i, {16 + i: 30 + i}),
        )
        paint(blob((39, 6.2, 61), (3.2, 4.5, 3.7), sign, by), 330, None, becomes(26 + i, {16 + i: 24 + i}))
        paint(blob((35, -2.6, 59.5), (3.65, 3.3, 3.7), sign, by), 650, None, 28 + i)
        paint(pipe([(23.5, 3, 61), (32.5, 3, 61)], 2.5, sign, by), 12, 16, 18 + i)
