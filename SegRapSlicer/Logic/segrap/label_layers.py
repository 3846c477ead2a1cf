"""Label layers: what is in one (values, counts, bounding boxes), and how masks that overlap are laid into few of them.

A layer is a uint8 (z, y, x) array in which every value above 0 is one structure.
"""

from __future__ import annotations

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
        inside = inside[box]
        table_layer, value = anatomy.layer_and_value(name)
        home = self._home.get(table_layer)
        others = [layer for layer in range(len(self.layers)) if layer not in self._home.values()]
        for layer in ([] if home is None else [home]) + others:
            if not self.layers[layer][box][inside].any():
                break
        else:
            layer = len(self.layers)
            self.layers.append(np.zeros(mask.shape, dtype=np.uint8))
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
