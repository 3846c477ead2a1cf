"""What a check of contours says to the person who reviews them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segrap.label_layers import Box

Severity = Literal["fault", "unusual", "note"]
Kind = Literal[
    "empty",
    "side",
    "order",
    "overlap",
    "containment",
    "air",
    "density",
    "gap",
    "pieces",
    "edge",
    "slices",
    "volume",
    "confidence",
]
Place = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    severity: 'fault' contradicts the definition of the structure; 'unusual' may be right but deserves a look; 'note'
    is expected and only worth knowing. message: whole sentences that do not repeat the structure's name. where:
    (z, y, x) index on the grid of the contours of the worst place, or None when there is no such place. other: the
    second structure concerned, when two are.
    """

    structure: str
    kind: Kind
    severity: Severity
    message: str
    where: Place | None = None
    other: str | None = None


def words_for_cc(volume_cc: float) -> str:
    """A volume with as many digits as it deserves: 1371, 29.1, 0.17."""
    return f"{volume_cc:.{2 if volume_cc < 10 else 1 if volume_cc < 100 else 0}f}"


def only_plane(mask: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A copy of `mask` with nothing but one plane of it."""
    kept = np.zeros_like(mask)
    at = tuple(index if axis == other else slice(None) for other in range(3))
    kept[at] = mask[at]
    return kept


def middle_voxel(mask: np.ndarray, box: Box) -> Place:
    """The voxel of `mask`, cut out of the volume at `box`, that lies nearest to the mean of them all."""
    voxels = np.argwhere(mask)
    nearest = voxels[int(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    z, y, x = (int(index) + axis.start for index, axis in zip(nearest, box, strict=True))
    return z, y, x
