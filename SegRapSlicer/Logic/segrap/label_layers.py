"""Label layers: what is in one (values, counts, bounding boxes), and how masks that overlap are laid into few of them.

A layer is a uint8 (z, y, x) array in which every value above 0 is one structure.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np

from segrap import anatomy
from segrap.errors import InputError

Box = tuple[slice, slice, slice]
"""A bounding box as (z, y, x) slices."""

NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


class LayerStack:
    """Puts masks into label layers one by one: where the table has them, elsewhere when they overlap against it."""

    def __init__(self) -> None:
        self.layers: list[np.ndarray] = []
        self.placement: dict[str, tuple[int, int]] = {}
        self._home: dict[int, int] = {}  # layer of the table -> layer here

    def add(self, name: str, mask: np.ndarray) -> None:
        """Lay down one structure; mask: (z, y, x), above 0 inside. Raises InputError (unknown, twice, wrong shape)."""
        if name not in anatomy.NAMES or name in self.placement:
            raise InputError(f"'{name}' is {'given twice' if name in self.placement else 'no SegRap structure'}.")
        if mask.ndim != 3 or (self.layers and mask.shape != self.layers[0].shape):
            raise InputError(
                f"{name} has the shape {mask.shape} where {self.layers[0].shape} belongs."
                if self.layers
                else f"{name} is not a 3-D mask."
            )
        inside = np.ascontiguousarray(mask if mask.dtype == bool else mask > 0)
        region = scan_layer(inside.view(np.uint8)).get(1)
        box = region.box if region else NOWHERE
        self.add_in_box(name, inside[box], box, mask.shape)

    def add_in_box(self, name: str, inside: np.ndarray, box: Box, shape: tuple[int, ...]) -> None:
        """Lay down one structure of a volume of `shape` of which only its bounding box is given: inside is bool."""
        if name in self.placement:
            raise InputError(f"'{name}' is given twice.")
        table_layer, value = anatomy.layer_and_value(name)
        home = self._home.get(table_layer)
        others = [layer for layer in range(len(self.layers)) if layer not in self._home.values()]
        for layer in ([] if home is None else [home]) + others:
            if not self.layers[layer][box][inside].any():
                break
        else:
            layer = len(self.layers)
            self.layers.append(np.zeros(shape, dtype=np.uint8))
            self._home.setdefault(table_layer, layer)
        taken = {v for where, v in self.placement.values() if where == layer}
        if value in taken:
            value = min(set(range(1, 256)) - taken)
        self.layers[layer][box][inside] = value
        self.placement[name] = (layer, value)

    def take(self) -> np.ndarray:
        """All layers as one array (layer, z, y, x). The stack lets go of its own one by one: memory is not doubled."""
        whole = np.empty((len(self.layers), *self.layers[0].shape), dtype=np.uint8)
        for number in range(len(whole)):
            whole[number] = self.layers.pop(0)
        return whole


class GridLayers:
    """Takes over label planes from elsewhere (a file, a scene) onto a grid (z, y, x): claimed labels only.

    claims: for each structure the source that it comes from (any key) and its label there. Every structure gets a value
    of its own, so that labels of any size and order will do; sources that turn out empty take no layer.
    """

    def __init__(self, claims: Mapping[str, tuple[Hashable, int]], shape: tuple[int, int, int], where: str) -> None:
        self._where = where
        self._claims = claims
        self._shape = shape
        self._tables: dict[Hashable, np.ndarray] = {}
        self._slots: dict[Hashable, int] = {}
        for name, (source, label) in claims.items():
            table = self._tables.setdefault(source, np.zeros(1 << 16, dtype=np.uint8))
            if not 0 < label < len(table) or table[label]:
                raise InputError(f"{where} gives {name} a label value that it cannot have ({label}).")
            table[label] = 1 + anatomy.NAMES.index(name)
        self._layers = np.zeros((len(self._tables), *shape), dtype=np.uint8)

    def add_plane(self, source: Hashable, labels: np.ndarray, corner: tuple[int, int, int]) -> None:
        """Take over the plane `labels` (y, x), whose first voxel is voxel `corner` (z, y, x) of the grid.

        Raises InputError when a claimed voxel lies outside the grid.
        """
        if source not in self._tables or not labels.any():
            return
        if labels.dtype.itemsize > 1 and not 0 <= labels.min() <= labels.max() < 1 << 16:
            raise InputError(f"{self._where} holds label values outside 0 to 65535.")
        values = self._tables[source][labels]
        layer = self._layers[self._slots.setdefault(source, len(self._slots))]
        if 0 <= corner[0] < self._shape[0]:
            in_plane, in_grid = _common_part(corner[1:], values.shape, self._shape[1:])
            layer[corner[0]][in_grid] = values[in_plane]
            values[in_plane] = 0
        if values.any():
            raise InputError(f"{self._where} holds contours beyond the edge of its CT. Cut them off there.")

    @property
    def layers(self) -> np.ndarray:
        """The layers (layer, z, y, x) that are in use; at least one."""
        return self._layers[: max(len(self._slots), 1)]

    @property
    def placement(self) -> dict[str, tuple[int, int]]:
        """(layer, value) of each structure."""
        return {
            name: (self._slots.get(source, 0), 1 + anatomy.NAMES.index(name))
            for name, (source, _) in self._claims.items()
        }


def _common_part(
    offset: tuple[int, ...], size: tuple[int, ...], whole: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The overlap of a block of `size` voxels at `offset` with a grid of `whole` voxels: in the block, in the grid."""
    first = np.maximum(offset, 0)
    last = np.maximum(np.minimum(np.add(offset, size), whole), first)
    in_grid = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    in_block = tuple(slice(s.start - o, s.stop - o) for s, o in zip(in_grid, offset, strict=True))
    return in_block, in_grid


class Region(NamedTuple):
    """The voxels of one value of a layer: how many, their bounding box, and a number that changes with any of them."""

    voxels: int
    box: Box
    fingerprint: int


def scan_layer(layer: np.ndarray) -> dict[int, Region]:
    """The region of each value above 0 that occurs in a (z, y, x) uint8 layer, in one pass.

    Most voxels are background: they are skipped eight at a time, and only what is left is looked at.
    """
    voxels = np.zeros(256, dtype=np.int64)
    fingerprint = np.zeros(256, dtype=np.uint64)
    low = np.full((3, 256), np.iinfo(np.int64).max)
    high = np.full((3, 256), -1)
    for z, plane in enumerate(layer):
        values, index = _foreground(plane.reshape(-1))
        if not values.size:
            continue
        index = index[np.argsort(values, kind="stable")]
        in_plane = np.bincount(values, minlength=256)
        present = np.flatnonzero(in_plane)
        starts = np.concatenate(([0], np.cumsum(in_plane[present])[:-1]))
        voxels += in_plane
        fingerprint[present] += np.add.reduceat(_scramble(index + z * plane.size), starts)
        y, x = np.divmod(index, plane.shape[1])
        low[0, present] = np.minimum(low[0, present], z)
        high[0, present] = z
        for axis, position in ((1, y), (2, x)):
            low[axis, present] = np.minimum(low[axis, present], np.minimum.reduceat(position, starts))
            high[axis, present] = np.maximum(high[axis, present], np.maximum.reduceat(position, starts))
    regions = {}
    for value in np.flatnonzero(voxels).tolist():
        first, last = low[:, value].tolist(), high[:, value].tolist()
        box = (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1), slice(first[2], last[2] + 1))
        regions[value] = Region(int(voxels[value]), box, int(fingerprint[value]))
    return regions


def _foreground(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values above 0 of a flat uint8 array and where they are."""
    whole = flat.size // 8 * 8
    words = flat[:whole].view(np.uint64)
    hits = np.flatnonzero(words)
    values = np.concatenate([words[hits].view(np.uint8), flat[whole:]])
    index = np.concatenate([(hits[:, None] * 8 + np.arange(8)).reshape(-1), np.arange(whole, flat.size)])
    inside = values > 0
    return values[inside], index[inside]


def _scramble(index: np.ndarray) -> np.ndarray:
    """Voxel numbers as well-mixed 64-bit numbers (the finaliser of SplitMix64), whose sum identifies a set of them."""
    mixed = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def keep_values(layer: np.ndarray, values: list[int]) -> np.ndarray:
    """A copy of `layer` in which every other value than these has become 0."""
    table = np.zeros(256, dtype=np.uint8)
    table[values] = values
    return table[layer]
