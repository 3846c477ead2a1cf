"""The made-up patient's anatomy: what is painted where, in which order, with which Hounsfield units and sub-class.

Everything is in the patient's own frame: x to the left, y to the back, z to the head, mm; the origin lies in the
midline at the height of the mandibular angles. Sub-class ids are the challenge's 1..54, then 55 GTVp, 56 GTVnd.
The whole is drawn by painting in order, so sub-classes are exclusive by construction.
"""

from __future__ import annotations

import numpy as np

from segrap.training.phantom_neck import paint_neck, paint_tumours
from segrap.training.phantom_shapes import (
    Array,
    Point,
    Shape,
    box,
    common,
    ellipsoid,
    grow,
    join,
    side,
    slab,
    tube,
)
from segrap.training.phantom_strokes import (
    Brush,
    Paint,
    Variation,
    air_cells,
    becomes,
    bone,
    brain,
    canal_y,
    cord_y,
    keeping,
    muscle,
    waves,
)


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


def _mandible_u(half_thickness: float, low: float, high: float, spread: float = 1.0, back_y: float = -34.0) -> Shape:
    """A horseshoe standing upright between two heights: the mandible's body, a row of teeth, the maxilla's ridge."""
    line = np.array([(0, -88), (14, -85), (25, -75), (35, -59), (42, -44), (46, back_y)], dtype=np.float32)
    line[:, 0] *= spread
    middle, half = np.float32((low + high) / 2), np.float32((high - low) / 2)

    def distance(x: Array, y: Array, z: Array) -> Array:
        x = np.abs(x)
        best: Array | None = None
        for (ax, ay), (bx, by) in zip(line[:-1], line[1:], strict=True):
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


def strokes(rng: np.random.Generator) -> list[Paint]:
    """The strokes of one patient, in the order in which they are painted."""
    vary = Variation(rng)
    brush = Brush()
    paint = brush.paint

    def at(centre: Point, sign: int, by: tuple[Array, Array] | None = None) -> Array:
        point = np.asarray(centre, dtype=float) * np.array([sign, 1, 1])
        return point if by is None else point + by[0]

    def blob(
        centre: Point,
        radii: Point,
        sign: int = 1,
        by: tuple[Array, Array] | None = None,
        power: float = 2.0,
        turn: float = 0.0,
    ) -> Shape:
        size = np.asarray(radii, dtype=float) * (1 if by is None else by[1])
        return ellipsoid(at(centre, sign, by), size, power, turn * sign)

    def pipe(
        points: list[Point],
        radius: float | list[float],
        sign: int = 1,
        by: tuple[Array, Array] | None = None,
        stretch: Point = (1, 1, 1),
    ) -> Shape:
        size = np.asarray(radius, dtype=float) * (1 if by is None else float(np.mean(by[1])))
        return tube([at(point, sign, by) for point in points], size, stretch)

    ids = {1: 0, -1: 1}
    middle = vary.draw

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
    paint(skin, 5, 15)
    paint(grow(skin, -2.2), -100)
    scalp = vary.uniform(4.5, 6.5)
    depth = vary.uniform(5, 11)

    def deep(x: Array, y: Array, z: Array) -> Array:
        thickness = scalp + depth * np.clip((-z - 20) / 130, 0, 1) + 1.5 * waves(x, y, z, 90)
        return np.asarray(skin.distance(x, y, z) + thickness)

    paint(Shape(skin.low, skin.high, deep), muscle(56), muscle(68))

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
    levels = np.arange(50, -250, -10)
    canal = [(0.0, cord_y(z), float(z)) for z in levels]
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

    # ---- skull -----------------------------------------------------------------------------------------------------
    brow = vary.draw(0.0, 0.012)[1]
    cranium = ellipsoid((0, 10, 97), np.array((75.0, 86.5, 74.5)) * brow, 2.2)
    inner = ellipsoid((0, 10, 97), np.array((68.5, 79.5, 67.5)) * brow, 2.2)
    lobes, cerebellum_by = vary.pair(1.2, 0.03), middle(1.2, 0.03)
    lobe = {
        sign: common(blob((44, 4, 92), (24.5, 40, 25), sign, lobes[sign], 2.3), grow(inner, -1.5)) for sign in (1, -1)
    }
    cerebellum = common(blob((0, 46, 63), (56, 38, 30), 1, cerebellum_by, 2.3), grow(inner, -1.0))
    cerebrum = common(grow(inner, -1.0), slab(low_z=86, slope_y=-0.06))
    stem_by = middle(0.8, 0.03)
    stem = common(
        pipe([(0, 4, 92), (0, 5, 74), (0, 12, 48), (0, 15, 22)], [12.6, 14.6, 9.4, 7.6], 1, stem_by, (1.06, 1, 1)),
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
    paint(inner_space := common(grow(join(cerebrum, lobe[1], lobe[-1], cerebellum, smooth=3), 2.2), inner), 10, 14)
    del inner_space
    paint(common(tube([(0, -6, 94), (0, -6, 76), (0, 6, 48), (0, 15, 24)], [21, 17, 14, 12]), inner), 9, 12)
    paint(tube(canal, 8.4, (1.2, 1, 1)), 12, 16)
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
            4 + ids[sign],
        )
    hippocampus_by = vary.pair(0.7, 0.05)
    for sign in (1, -1):
        path: list[Point] = [(23, -9, 81), (24.4, 4, 83), (27, 19, 87), (24.5, 30, 93)]
        body = pipe(path, [6.4, 6.2, 5.6, 4.6], sign, hippocampus_by[sign])
        paint(grow(body, 1.6), 9, 12, only=(1, 4, 5))
        paint(body, 27, 30, keeping({1: 8 + ids[sign], 4 + ids[sign]: 6 + ids[sign]}), only=(1, 4, 5))
    paint(grow(common(stem, slab(low_z=40)), 2.0), 9, 12)
    paint(stem, 40, 46, 2)
    cord_by = middle(0.0, 0.04)[1]
    # The cord is written after the stem, and ends where the stem begins: at the foramen magnum.
    paint(common(tube(canal, 5.6 * float(cord_by[0]), (1.16, 1, 1)), slab(high_z=27)), 38, 42, 46)

    # ---- face: sinuses, nose, orbits -------------------------------------------------------------------------------
    maxilla_by, sphenoid_by = vary.pair(1.2, 0.07), middle(1.0, 0.07)
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
        paint(nerve, 45, 62, 14 + ids[sign])
        eye = ellipsoid(eye_centre, (eye_radius,) * 3)
        paint(
            eye,
            lambda x, y, z, d: np.where(d > -1.4, np.float32(60), np.float32(12)),
            lambda x, y, z, d: np.where(d > -1.4, np.float32(85), np.float32(14)),
            10 + ids[sign],
        )
        lens = ellipsoid(
            eye_centre + np.array([0, -8.6, 0]) + lens_by[sign][0] * 0.5, np.array((4.8, 3.0, 4.8)) * lens_by[sign][1]
        )
        paint(lens, 135, 140, 12 + ids[sign])

    # ---- sella: pituitary and chiasm -------------------------------------------------------------------------------
    chiasm_by, pituitary_by = middle(0.6, 0.03), middle(0.5, 0.04)
    paint(blob((0, -22, 87), (17, 14, 6.5)), 8, 12)
    paint(blob((0, -21, 80), (8.5, 7, 5)), 450, None, 0)
    paint(blob((0, -21, 80.3), (5.7, 4.8, 3.4), 1, pituitary_by, 2.4), 70, 175, 34)
    cross = join(
        pipe([(-11, -30, 87.0), (10, -14, 88.5)], 2.85, 1, chiasm_by),
        pipe([(11, -30, 87.0), (-10, -14, 88.5)], 2.85, 1, chiasm_by),
        smooth=2,
    )
    paint(cross, 50, 58, 3)

    # ---- jaws, teeth, mouth, tongue --------------------------------------------------------------------------------
    mouth_by, jaw_by = middle(1.0, 0.025), middle(0.8, 0.015)
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
        paint(common(join(half, ramus), slab(high_z=48)), bone(1250, 420, 2.2), None, 36 + ids[sign], edge=0.8)
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
            becomes(40 + ids[sign], {36: 36, 37: 37, 35: 35}),
            only=(0,),
        )
        paint(
            grow(gland := blob((34.5, -37, -21), (10.5, 13.2, 17), sign, submandibular_by[sign], 2.2, 25), 1.8),
            -95,
            -92,
            None,
            only=(0,),
        )
        paint(gland, 42, 98, 38 + ids[sign], only=(0,))
    for sign in (1, -1):
        # Ramus and masseter lie in front of the gland: they were there first, and bone wins.
        joint = blob((50, -15, 54), (11.3, 7.5, 6.8), sign, joint_by[sign], 3)
        paint(grow(joint, 1.2), 950, only=(0,))
        paint(joint, 170, 185, 44 + ids[sign])
        paint(pipe([(45, -14.5, 53), (55, -14.5, 53)], 4.0, sign, joint_by[sign]), bone(1000, 700, 1.2))

    # ---- temporal bone: mastoid, ear ---------------------------------------------------------------------------------
    ear_by = vary.pair(0.5, 0.015)
    for sign in (1, -1):
        i = ids[sign]
        paint(blob((55.5, 14, 48), (11, 13.5, 20), sign, mastoid_by[sign], 2.2), air_cells(500, 15), None, 42 + i)
        paint(pipe([(45, -3, 57), (62, -4, 58), (84, -4, 57)], [3.2, 3.4, 4.2], sign, ear_by[sign]), -950, None, 0)
        by = ear_by[sign]
        paint(blob((37.2, 0.3, 59.5), (9.2, 7.0, 6.6), sign, by, 2.3, 8), 1500, None, 16 + i)
        paint(blob((43.4, -1.5, 57.5), (4.1, 5.0, 6.8), sign, by), -900, None, becomes(22 + i, {16 + i: 20 + i}))
        paint(
            pipe([(39.2, -6.4, 58), (32, -12.7, 56.5)], [2.3, 2.15], sign, by),
            -500,
            None,
            becomes(32 + i, {16 + i: 30 + i}),
        )
        paint(blob((39, 6.2, 61), (3.2, 4.5, 3.7), sign, by), 330, None, becomes(26 + i, {16 + i: 24 + i}))
        paint(blob((35, -2.6, 59.5), (3.65, 3.3, 3.7), sign, by), 650, None, 28 + i)
        paint(pipe([(23.5, 3, 61), (32.5, 3, 61)], 2.5, sign, by), 12, 16, 18 + i)

    paint_neck(brush, vary)
    paint_tumours(brush, vary)
    return brush.strokes
