"""Implicit shapes for the made-up patient: each knows its box and its (approximate) signed distance in millimetres.

A distance is negative inside. It is exact enough near the border to give partial volume there, not to measure with.
This room knows no anatomy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Point = Sequence[float] | Array
Distance = Callable[[Array, Array, Array], Array]


class Shape(NamedTuple):
    """A solid: `low` and `high` corner of a box that holds it (x, y, z, mm), and its signed distance (mm)."""

    low: Array
    high: Array
    distance: Distance


def ellipsoid(centre: Point, radii: Point, power: float = 2.0, turn_deg: float = 0.0) -> Shape:
    """A superquadric |x/a|^p + |y/b|^p + |z/c|^p = 1, turned about z (positive: +x towards +y); power 2: ellipsoid."""
    cx, cy, cz = (np.float32(value) for value in centre)
    a, b, c = (np.float32(value) for value in radii)
    smallest = np.float32(min(radii))
    cosine, sine = np.float32(np.cos(np.radians(turn_deg))), np.float32(np.sin(np.radians(turn_deg)))

    def distance(x: Array, y: Array, z: Array) -> Array:
        dx, dy, dz = x - cx, y - cy, z - cz
        if turn_deg:
            dx, dy = cosine * dx + sine * dy, cosine * dy - sine * dx
        dx, dy, dz = dx / a, dy / b, dz / c
        if power == 2.0:
            norm = np.sqrt(dx * dx + dy * dy + dz * dz)
        else:
            norm = (_raised(dx, power) + _raised(dy, power) + _raised(dz, power)) ** np.float32(1 / power)
        return np.asarray((norm - np.float32(1)) * smallest)

    reach = np.array(
        [max(radii[0], radii[1]) if turn_deg else radii[0], max(radii[:2]) if turn_deg else radii[1], radii[2]]
    )
    return Shape(np.asarray(centre) - reach, np.asarray(centre) + reach, distance)


def _raised(value: Array, power: float) -> Array:
    """|value| ** power, without the slow general power for the two that the large shapes have."""
    size = np.abs(value)
    if power == 2.5:
        return np.asarray(size * size * np.sqrt(size))
    if power == 3.0:
        return np.asarray(size * size * size)
    return np.asarray(size**power)


def box(centre: Point, halves: Point, rounding: float = 2.0, turn_deg: float = 0.0) -> Shape:
    """A box with rounded edges, turned about z."""
    cx, cy, cz = (np.float32(value) for value in centre)
    hx, hy, hz = (np.float32(value - rounding) for value in halves)
    cosine, sine = np.float32(np.cos(np.radians(turn_deg))), np.float32(np.sin(np.radians(turn_deg)))

    def distance(x: Array, y: Array, z: Array) -> Array:
        dx, dy, dz = x - cx, y - cy, np.abs(z - cz) - hz
        if turn_deg:
            dx, dy = cosine * dx + sine * dy, cosine * dy - sine * dx
        dx, dy = np.abs(dx) - hx, np.abs(dy) - hy
        outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2 + np.maximum(dz, 0) ** 2)
        inside = np.minimum(np.maximum(dx, np.maximum(dy, dz)), 0)
        return np.asarray(outside + inside - np.float32(rounding))

    flat = float(np.hypot(halves[0], halves[1]))
    reach = np.array([flat if turn_deg else halves[0], flat if turn_deg else halves[1], halves[2]])
    return Shape(np.asarray(centre) - reach, np.asarray(centre) + reach, distance)


def tube(points: Sequence[Point], radius: float | Sequence[float] | Array, stretch: Point = (1.0, 1.0, 1.0)) -> Shape:
    """A tube along a polyline, the radius running from point to point; `stretch` widens it along x, y, z."""
    path = np.asarray(points, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))
    widen = np.asarray(stretch, dtype=np.float64)
    scaled = (path / widen).astype(np.float32)

    def distance(x: Array, y: Array, z: Array) -> Array:
        x, y, z = (axis if w == 1.0 else axis / np.float32(w) for axis, w in zip((x, y, z), widen, strict=True))
        best: Array | None = None
        for (ax, ay, az), (bx, by, bz), first, last in zip(scaled[:-1], scaled[1:], radii[:-1], radii[1:], strict=True):
            ux, uy, uz = bx - ax, by - ay, bz - az
            length2 = max(float(ux * ux + uy * uy + uz * uz), 1e-6)
            along = ((x - ax) * ux + (y - ay) * uy + (z - az) * uz) / np.float32(length2)
            along = np.clip(along, 0, 1)
            gap = np.sqrt((x - ax - along * ux) ** 2 + (y - ay - along * uy) ** 2 + (z - az - along * uz) ** 2)
            gap = gap - (np.float32(first) + np.float32(last - first) * along)
            best = gap if best is None else np.minimum(best, gap)
        assert best is not None
        return best

    reach = float(radii.max()) * widen
    return Shape(path.min(axis=0) - reach, path.max(axis=0) + reach, distance)


def join(*shapes: Shape, smooth: float = 0.0) -> Shape:
    """The union; with `smooth` > 0 (mm) the pieces flow into each other."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        result = shapes[0].distance(x, y, z)
        for shape in shapes[1:]:
            other = shape.distance(x, y, z)
            if smooth:
                blend = np.clip(0.5 + 0.5 * (other - result) / np.float32(smooth), 0, 1)
                result = other + (result - other) * blend - np.float32(smooth) * blend * (1 - blend)
            else:
                result = np.minimum(result, other)
        return np.asarray(result)

    low = np.min([shape.low for shape in shapes], axis=0) - smooth
    return Shape(low, np.max([shape.high for shape in shapes], axis=0) + smooth, distance)


def cut(shape: Shape, *holes: Shape) -> Shape:
    """The shape less the holes."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        result = shape.distance(x, y, z)
        for hole in holes:
            result = np.maximum(result, -hole.distance(x, y, z))
        return result

    return Shape(shape.low, shape.high, distance)


def common(shape: Shape, *others: Shape) -> Shape:
    """The part that lies in all of them."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        result = shape.distance(x, y, z)
        for other in others:
            result = np.maximum(result, other.distance(x, y, z))
        return result

    low = np.max([shape.low, *(other.low for other in others)], axis=0)
    high = np.min([shape.high, *(other.high for other in others)], axis=0)
    return Shape(low, high, distance)


def grow(shape: Shape, millimetres: float) -> Shape:
    """The shape with its border moved outward (negative: inward)."""
    amount = np.float32(millimetres)
    margin = max(millimetres, 0.0) * 1.6
    return Shape(shape.low - margin, shape.high + margin, lambda x, y, z: shape.distance(x, y, z) - amount)


def slab(low_z: float = -1e4, high_z: float = 1e4, slope_y: float = 0.0) -> Shape:
    """All between two heights, tilted by slope_y mm per mm of y."""
    low, high, slope = np.float32(low_z), np.float32(high_z), np.float32(slope_y)

    def distance(x: Array, y: Array, z: Array) -> Array:
        height = z - slope * y if slope_y else z
        return np.asarray(np.maximum(low - height, height - high) + 0 * x)

    if slope_y:
        return Shape(np.full(3, -1e4), np.full(3, 1e4), distance)
    return Shape(np.array([-1e4, -1e4, low_z]), np.array([1e4, 1e4, high_z]), distance)


def side(sign: int) -> Shape:
    """The half space x > 0 (sign +1: the patient's left) or x < 0."""
    low, high = np.full(3, -1e4), np.full(3, 1e4)
    if sign > 0:
        low[0] = 0.0
    else:
        high[0] = 0.0
    return Shape(low, high, lambda x, y, z: np.asarray(-np.float32(sign) * x + 0 * y + 0 * z))
