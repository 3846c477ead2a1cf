"""nnU-Net's sliding window: where its tiles lie, how their voxels are weighted, and which of them hold only air.

Tile positions and weights are those of nnunetv2 (`compute_steps_for_sliding_window`, `compute_gaussian`), compared with
them in a test. A tile is left out only if no voxel of the body depends on it; inside the body the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

STEP = 0.5  # nnU-Net's default: neighbouring tiles overlap by half


def tile_starts(size: int, patch: int, step: float = STEP) -> list[int]:
    """First voxels of the tiles along one axis of `size` >= `patch` voxels; step: the part of a tile between two."""
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    spacing = (size - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(spacing * i)) for i in range(count)]


def importance(patch: Sequence[int], *, rounded: bool = True) -> np.ndarray:
    """Gaussian weights of a tile's voxels, float32, in the patch's shape: sigma an eighth of it, 10 at its centre.

    rounded: as nnU-Net v2 keeps them, in float16 (v1 keeps float32). What would round to 0 takes the smallest weight.
    """
    from scipy import ndimage  # not before it is needed: Slicer imports this module when it starts

    impulse = np.zeros(tuple(patch))
    impulse[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(impulse, [n / 8 for n in patch], order=0, mode="constant", cval=0)
    weights = (weights / (weights.max() / 10)).astype(np.float16 if rounded else np.float32)
    weights[weights == 0] = weights[weights > 0].min()
    return weights.astype(np.float32)


@dataclass(frozen=True)
class TileGrid:
    """nnU-Net's tiles over a volume of `shape`, which is padded with `before` (and after) to at least one patch.

    starts: per axis, the first voxels of the tiles, counted in the padded volume. All axes in network order.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    padded: tuple[int, int, int]
    before: tuple[int, int, int]
    starts: tuple[list[int], list[int], list[int]]


def tile_grid(shape: Sequence[int], patch: Sequence[int], step: float = STEP) -> TileGrid:
    """Lay nnU-Net's tiles over a volume: a smaller one is centred in one patch (odd voxels go behind it)."""
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    before = tuple((q - n) // 2 for q, n in zip(padded, shape, strict=True))
    starts = tuple(tile_starts(q, p, step) for q, p in zip(padded, patch, strict=True))
    return TileGrid(_three(shape), _three(patch), _three(padded), _three(before), (starts[0], starts[1], starts[2]))


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    a, b, c = (int(value) for value in values)
    return a, b, c


@dataclass(frozen=True)
class TileRow:
    """All tiles to run that start at slice `start`: their (y, x) starts. Counted in the padded volume."""

    start: int
    tiles: list[tuple[int, int]]

    def groups(self, most: int) -> Iterator[list[tuple[int, int, int]]]:
        """The (z, y, x) starts, in groups that run at once: of a power of two, so that there are few sizes, of which
        a GPU's library finds the fastest kernels once."""
        first = 0
        while first < len(self.tiles):
            size = 1 << (min(most, len(self.tiles) - first).bit_length() - 1)
            yield [(self.start, y, x) for y, x in self.tiles[first : first + size]]
            first += size


@dataclass(frozen=True)
class TilePlan:
    """The tiles to run, in rows along the first axis, and the window of (y, x) that they lie in (padded volume)."""

    rows: list[TileRow]
    window: tuple[slice, slice]

    def inside(self, grid: TileGrid) -> tuple[slice, slice]:
        """The window without padding, counted in the volume itself."""
        y, x = (
            slice(max(part.start - before, 0), min(part.stop - before, size))
            for part, before, size in zip(self.window, grid.before[1:], grid.shape[1:], strict=True)
        )
        return y, x

    @property
    def count(self) -> int:
        """How many tiles there are to run."""
        return sum(len(row.tiles) for row in self.rows)


def plan_tiles(grid: TileGrid, needed: np.ndarray | None) -> TilePlan:
    """Choose the tiles to run.

    needed: bool, one entry per tile along each axis, True where the body depends on it; None to run all.
    """
    if needed is None:
        needed = np.ones([len(starts) for starts in grid.starts], dtype=bool)
    z_starts, y_starts, x_starts = grid.starts
    rows = [
        TileRow(start, [(y_starts[j], x_starts[k]) for j, k in np.argwhere(needed[i]).tolist()])
        for i, start in enumerate(z_starts)
    ]
    window = []
    for axis, starts in ((1, y_starts), (2, x_starts)):
        used = np.flatnonzero(needed.any(axis=(0, 3 - axis)))
        window.append(slice(starts[used[0]], starts[used[-1]] + grid.patch[axis]) if len(used) else slice(0, 0))
    return TilePlan(rows, (window[0], window[1]))
