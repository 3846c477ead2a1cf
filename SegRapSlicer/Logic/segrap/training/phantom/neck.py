"""The made-up patient's throat and neck organs, and its tumours: strokes painted after those of the head.

Same frame and same rules as phantom.anatomy.
"""

from __future__ import annotations

import numpy as np

from segrap.training.phantom.shapes import Array, Point, Shape, box, common, cut, ellipsoid, grow, join, slab, tube
from segrap.training.phantom.strokes import Brush, Tissue, Variation, bone, canal_y, keeping

# Heights (mm) that part the larynx: its top is the hyoid, its bottom the cricoid's lower edge.
LARYNX_TOP, SUPRAGLOTTIS_TOP, GLOTTIS_TOP, GLOTTIS_BOTTOM, LARYNX_BOTTOM = -18.0, -28.0, -50.0, -64.0, -78.0


def front_of_spine(z: Array | float) -> Array:
    """y (mm) of the vertebral bodies' front at height z."""
    return canal_y(z) - np.float32(27.0)


def _pharynx(width: float, inset: float, low: float, high: float, open_front: bool) -> Shape:
    """The pharynx as an upright column in front of the spine, shrunk by `inset`; a U where the front is cut off."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        half = np.interp(z, (-76, -45, -10, 30), (14.5, 15.5, 16, 17)).astype(np.float32) * np.float32(width)
        middle = front_of_spine(z) - np.float32(14.5)
        across, along = (x / half) ** 2, ((y - middle) / 13) ** 2
        column = (np.sqrt(np.sqrt(across * across + along * along)) - 1) * 13 + np.float32(inset)
        if open_front:
            column = np.maximum(column, middle - 3 - y)
        return np.asarray(np.maximum(column, np.maximum(z - np.float32(high), np.float32(low) - z)))

    return Shape(np.array([-20.0, -46, low]), np.array([20.0, -2, high]), distance)


def _windpipe(radii: Point, forward: float, aside: float = 0.0) -> Shape:
    """A tube in front of the spine from the cricoid's lower edge down past the scan's end."""
    rx, ry = np.float32(radii[0]), np.float32(radii[1])

    def distance(x: Array, y: Array, z: Array) -> Array:
        middle = front_of_spine(z) - np.float32(forward)
        norm = np.sqrt(((x - np.float32(aside)) / rx) ** 2 + ((y - middle) / ry) ** 2)
        return np.asarray(np.maximum((norm - 1) * min(rx, ry), z - np.float32(LARYNX_BOTTOM)))

    reach = float(rx) + abs(aside)
    return Shape(np.array([-reach, -64.0, -245]), np.array([reach, 40.0, LARYNX_BOTTOM]), distance)


def paint_neck(brush: Brush, vary: Variation) -> None:
    """Pharynx, larynx, trachea, esophagus, thyroid."""
    paint = brush.paint
    shift, size = vary.draw(0.8, 0.03)
    middle = np.array([shift[0] * 0.4, -37.0 + shift[1] * 0.4, 0.0])
    width = vary.uniform(0.96, 1.04)

    def column(rx: float, ry: float, low: float, high: float, dy: float = 0.0, power: float = 2.0) -> Shape:
        centre = middle + np.array([0, dy, (low + high) / 2])
        shape = ellipsoid(centre, (rx * size[0], ry * size[1], 900.0), power)
        return common(shape, slab(low, high))

    def shell(shape: Shape, thickness: float) -> Shape:
        return cut(shape, grow(shape, -thickness))

    # ---- pharynx above the larynx ------------------------------------------------------------------------------------
    paint(_pharynx(width, -1.2, -74, 27, False), -60)
    paint(_pharynx(width, 0, -74, 27, False), 50, 70)
    # ---- larynx ------------------------------------------------------------------------------------------------------
    paint(column(19.5, 20, LARYNX_BOTTOM, LARYNX_TOP + 1.5, 0, 2.6), -75)
    paint(column(17.4, 18.0, LARYNX_BOTTOM, LARYNX_TOP, 0, 2.6), 35, 46, 48)
    paint(column(11.5, 11.0, GLOTTIS_TOP, SUPRAGLOTTIS_TOP, -4), 5, 30, keeping({48: 50}), only=(48,))
    paint(column(12.0, 12.5, GLOTTIS_BOTTOM, GLOTTIS_TOP, -4), 78, 96, keeping({48: 49}), only=(48,))
    # The thyroid cartilage is a shield open to the back; the cricoid a ring.
    shield = cut(shell(column(15.5, 16.0, -68, -34, -2), 3.0), box(middle + np.array([0, 14, -50]), (10.5, 12, 40), 1))
    paint(shield, bone(330, 190, 0.9), only=(48, 49, 50))
    paint(shell(column(12.5, 12.5, LARYNX_BOTTOM + 0.5, -67, -1), 3.2), bone(380, 210, 0.9), only=(48,))
    horns: list[Point] = [(-19, 4, -20), (-15, -9, -22), (0, -16, -23), (15, -9, -22), (19, 4, -20)]
    paint(tube([middle + np.array(point) for point in horns], 2.6, (1, 1, 1.4)), bone(700, 300, 1.0))

    wall = cut(_pharynx(width, 0, -74, 27, True), _pharynx(width, 3.4, -200, 200, False))
    paint(wall, 66, 112, keeping({0: 52, 48: 51, 49: 51, 50: 51}))
    # ---- airway ------------------------------------------------------------------------------------------------------
    nose_end = float(front_of_spine(45.0)) - 9.0
    paint(ellipsoid((0, nose_end - 8, 46), (13, 10, 15), 2.6), 45, 100, only=(0,))
    paint(ellipsoid((0, nose_end - 9, 46), (11, 8, 14), 2.6), -950, only=(0,))
    paint(box((0, nose_end - 11, 27), (12, 5, 12), 4), -950, only=(0,))
    paint(
        common(_pharynx(width, 4.6, -34, 30, False), tube([(0, -28, 30), (0, -28, -36)], 10, (1.25, 0.75, 1))),
        -950,
        only=(0, 48),
    )
    epiglottis = common(shell(column(11, 9, -42, -14, 2), 2.2), box(middle + np.array([0, -6, -28]), (9, 5, 14), 1))
    throat = [middle + np.array(point) for point in ((0, 0, -26), (0, -3, -46))]
    paint(tube(throat, [7.5, 4.5], (1.1, 1, 1)), -950, only=(48, 50))
    paint(epiglottis, 60, 80, only=(48, 50))
    paint(column(2.2, 8.5, GLOTTIS_BOTTOM + 1, GLOTTIS_TOP, -4), -900, only=(49, 50))
    paint(column(7.2, 8.0, LARYNX_BOTTOM - 2, GLOTTIS_BOTTOM + 1, -2), -950, only=(48, 49))

    # ---- trachea, esophagus, thyroid ---------------------------------------------------------------------------------
    bore = vary.uniform(0.95, 1.05)
    paint(_windpipe((10.4 * bore, 10.2 * bore), 22.0), -30, 0)
    gullet = vary.draw(0.5, 0.04)[1]
    aside = vary.uniform(2.0, 4.0)
    paint(_windpipe((11.0, 6.4), 6.0, aside), -90)
    lobes = vary.pair(1.0, 0.05)
    front = float(front_of_spine(-98.0)) - 22.0
    for sign in (1, -1):
        lobe = ellipsoid(
            np.array((17.5 * sign, front + 3, -97)) + lobes[sign][0],
            np.array((8.6, 11.0, 21)) * lobes[sign][1],
            2.2,
            12 * sign,
        )
        bridge = tube([(14 * sign, front - 8, -102), (0, front - 12.5, -103)], 4.0, (1, 1, 1.6))
        paint(join(lobe, bridge, smooth=3), 105, 205, 53, only=(0,))
    paint(_windpipe((9.7 * bore, 9.5 * bore), 22.0), 40, 62, 54)
    paint(_windpipe((8.3 * bore, 8.1 * bore), 22.0), -975, only=(54,))
    paint(_windpipe((9.4 * gullet[0], 4.9 * gullet[1]), 6.0, aside), 48, 76, 47, only=(0,))
    paint(_windpipe((2.6, 1.1), 6.0, aside), -250, only=(47,))


def paint_tumours(brush: Brush, vary: Variation) -> None:
    """GTVp in the nasopharynx, spreading to one side; GTVnd: one to four nodes on each side of the neck.

    They take tissue that belongs to no organ at risk, so they never change one.
    """
    lean = 1 if vary.uniform(0, 1) < 0.5 else -1
    bulk = vary.uniform(0.95, 1.1)
    back = float(front_of_spine(45.0)) - 4.0
    lumps = [ellipsoid((4 * lean, back - 11, 45), (20 * bulk, 16 * bulk, 19 * bulk), 2.3)]
    for x, y, z, radius in ((17, 2, 45, 13), (12, -14, 50, 12), (9, -2, 60, 11), (-12, -4, 42, 11), (10, -6, 30, 10)):
        jitter = vary.draw(2.0, 0.1)
        place = np.array((x * lean, back - 8 + y, z)) + jitter[0]
        lumps.append(ellipsoid(place, radius * bulk * jitter[1]))
    mass = join(*lumps, smooth=6)

    def rim_and_core(rim: float, core: float) -> Tissue:
        return lambda x, y, z, d: np.where(d > -3.0, np.float32(rim), np.float32(core))

    brush.paint(mass, 62, rim_and_core(128, 110), keeping({0: 55}), only=(0,), edge=1.5)

    # Neck levels II, III, IV and Va, on the left.
    levels = ((41, -15, 2), (39, -17, -42), (37, -14, -92), (50, 12, -40))
    for sign in (1, -1):
        count = int(vary.uniform(1, 4.999))
        order = np.argsort([vary.uniform(0, 1) for _ in levels])[:count]
        for index in order:
            x, y, z = levels[int(index)]
            jitter = vary.draw(2.5, 0.12)
            radii = np.array((8.2, 9.2, 11.5)) * jitter[1] * vary.uniform(0.9, 1.35)
            node = ellipsoid(np.array((x * sign, y, z)) + jitter[0], radii)
            brush.paint(grow(node, 2.0), -95, only=(0,))
            brush.paint(node, 58, rim_and_core(125, 75), keeping({0: 56}), only=(0,), edge=1.2)
