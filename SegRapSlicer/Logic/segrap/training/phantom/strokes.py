"""What the made-up patient is painted with: strokes, tissues with texture, and the random part.

The frame of the patient is that of phantom.anatomy. Nothing here knows where an organ lies, the spinal canal apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segrap.training.phantom.shapes import Array, Point, Shape, ellipsoid, tube

SUBCLASS_COUNT = 57
# Sub-classes come in pairs: the id of the right side is that of the left plus this, by the sign of x.
RIGHT = {1: 0, -1: 1}
Tissue = float | Callable[[Array, Array, Array, Array], Array]


class Paint(NamedTuple):
    """One stroke: fill `shape` with Hounsfield units, and relabel what lies in it by `table` (old id -> new id).

    `contrast`: HU in the contrast scan. `only`: the stroke touches voxels of these ids alone. `edge`: mm over which
    the HU blend at the border.
    """

    shape: Shape
    plain: Tissue
    contrast: Tissue
    table: Array | None = None
    only: tuple[int, ...] | None = None
    edge: float = 1.0


def becomes(new: int, exceptions: Mapping[int, int] | None = None) -> Array:
    """Every id becomes `new`, save the exceptions {old: new}."""
    table = np.full(SUBCLASS_COUNT, new, dtype=np.uint8)
    for old, other in (exceptions or {}).items():
        table[old] = other
    return table


def keeping(new: Mapping[int, int]) -> Array:
    """Ids stay as they are, save those named {old: new}."""
    table = np.arange(SUBCLASS_COUNT, dtype=np.uint8)
    for old, other in new.items():
        table[old] = other
    return table


def waves(x: Array, y: Array, z: Array, period_mm: float, shift: float = 0.0) -> Array:
    """A smooth field in about -1..1 without a visible lattice, for texture of the given size."""
    k = np.float32(2 * np.pi / period_mm)
    a, b, c = x * k + np.float32(shift), y * k + np.float32(1.7 * shift), z * k + np.float32(2.3 * shift)
    return np.asarray(
        (
            np.sin(a + np.float32(0.6) * b)
            + np.sin(np.float32(0.9) * b - np.float32(0.5) * c + np.float32(1.3))
            + np.sin(np.float32(1.1) * c - np.float32(0.7) * a + np.float32(2.1))
        )
        * np.float32(1 / 2.2)
    )


# A shift (3,) in mm and a size factor (3,).
Change = tuple[Array, Array]


class Variation:
    """The random part of one patient: sizes and places vary, the two sides together and a little apart."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def draw(self, shift_mm: float = 1.0, size: float = 0.05) -> Change:
        """Shift (3,) in mm and size factor (3,), normal, cut at two standard deviations.

        Sizes are cut earlier above, which keeps the largest organs inside the published volumes.
        """
        draw = np.clip(self._rng.standard_normal(6), -2, (2, 2, 2, 1.2, 1.2, 1.2))
        return draw[:3] * shift_mm, 1 + draw[3:] * size

    def pair(self, shift_mm: float = 1.0, size: float = 0.05) -> dict[int, Change]:
        """The same for left (+1) and right (-1): 85 % of the spread in common; +x of the shift is lateral."""
        shift, factor = self.draw(shift_mm, size)
        result = {}
        for sign in (1, -1):
            own_shift, own_factor = self.draw(0.3 * shift_mm, 0.3 * size)
            total = 0.85 * shift + own_shift
            result[sign] = (total * np.array([sign, 1, 1]), 1 + 0.85 * (factor - 1) + (own_factor - 1))
        return result

    def uniform(self, low: float, high: float) -> float:
        """One number between low and high."""
        return float(self._rng.uniform(low, high))


def cord_y(z: float) -> float:
    """How far back the spinal canal's middle lies at height z (mm)."""
    return float(np.interp(z, _CANAL_Z, _CANAL_Y))


_CANAL_Z = np.array([-240.0, -190, -150, -110, -80, -40, 0, 27, 50])
_CANAL_Y = np.array([60.0, 44, 29, 17.5, 11.5, 10, 12, 15, 14])


def canal_y(z: Array | float) -> Array:
    """The same for many heights, float32."""
    return np.interp(z, _CANAL_Z, _CANAL_Y).astype(np.float32)


def bone(cortex: float, marrow: float, thickness: float) -> Tissue:
    return lambda x, y, z, distance: np.where(distance > -thickness, np.float32(cortex), np.float32(marrow))


def muscle(level: float) -> Tissue:
    def tissue(x: Array, y: Array, z: Array, distance: Array) -> Array:
        # Sheets of fat between the muscles, where two fields cross zero.
        fascia = np.minimum(np.abs(waves(x, y, z * 0.25, 62)), np.abs(waves(y, x, z * 0.2, 75, 2.0)))
        return np.asarray(level - 140 * np.clip(1 - fascia / 0.09, 0, 1))

    return tissue


def brain(x: Array, y: Array, z: Array, distance: Array) -> Array:
    cortex = np.clip((distance + 6 + 3 * waves(x, y, z, 24)) / 2, 0, 1)
    sulci = np.clip(1 - np.abs(waves(x, y, z, 34, 1.0)) / 0.2, 0, 1) * np.clip((distance + 13) / 5, 0, 1)
    return np.asarray(26 + 11 * cortex - 24 * sulci)


def air_cells(wall: float, period: float) -> Tissue:
    def tissue(x: Array, y: Array, z: Array, distance: Array) -> Array:
        cells = np.abs(waves(x, y, z, period, 0.4)) + 0.35 * np.abs(waves(y, z, x, period * 0.7))
        return np.asarray(np.clip(wall - 1900 * (cells - 0.18), -850, wall))

    return tissue


class Brush:
    """Collects the strokes of one patient in order."""

    def __init__(self) -> None:
        self.strokes: list[Paint] = []

    def paint(
        self,
        shape: Shape,
        plain: Tissue,
        contrast: Tissue | None = None,
        label: int | Array | None = None,
        only: tuple[int, ...] | None = None,
        edge: float = 1.0,
    ) -> None:
        """One stroke; without `contrast` both scans get the same tissue; `label` is an id or a table (see Paint)."""
        table = becomes(label) if isinstance(label, int) else label
        self.strokes.append(Paint(shape, plain, plain if contrast is None else contrast, table, only, edge))


def at(centre: Point, sign: int, by: Change | None = None) -> Array:
    """A place given for the left (+x) on the side of `sign`, moved by the variation `by`."""
    point = np.asarray(centre, dtype=float) * np.array([sign, 1, 1])
    return point if by is None else point + by[0]


def blob(
    centre: Point,
    radii: Point,
    sign: int = 1,
    by: Change | None = None,
    power: float = 2.0,
    turn: float = 0.0,
) -> Shape:
    """An ellipsoid or superquadric on the side of `sign`, moved and sized by the variation `by`."""
    size = np.asarray(radii, dtype=float) * (1 if by is None else by[1])
    return ellipsoid(at(centre, sign, by), size, power, turn * sign)


def pipe(
    points: Sequence[Point],
    radius: float | list[float],
    sign: int = 1,
    by: Change | None = None,
    stretch: Point = (1, 1, 1),
) -> Shape:
    """A tube on the side of `sign`, moved and sized by the variation `by`."""
    size = np.asarray(radius, dtype=float) * (1 if by is None else float(np.mean(by[1])))
    return tube([at(point, sign, by) for point in points], size, stretch)
