"""From tiles to label layers, one slab at a time, so that nothing of the size classes x volume ever exists.

`FeatureRing` adds up the weighted feature maps of overlapping tiles for one patch depth of slices and gives each slice
away when no later tile can change it. `LayerPainter` turns finished slices into labels on the image's own grid. Both
give what whole-volume accumulation, whole-volume linear interpolation and a final argmax give: the sums are the same
sums, and where all network voxels around an image voxel have one and the same highest class, any weighted mean of
their scores has it too, so only the other voxels are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from segrap.engine.head import Head
from segrap.engine.prepare import Frame
from segrap.engine.tiles import TileGrid, TilePlan
from segrap.models.labels import OutputPlan

VOXELS_AT_ONCE = 1 << 15  # voxels whose class scores exist at the same time: 8 MB for 60 classes


class FeatureRing:
    """Weighted means of feature maps over `patch` depth slices of the tile plan's window. weights: of a tile's voxels.

    dtype: of what is kept of the maps. In float32 and float64 they are sums, divided by the weights at the end. In
    float16 they are the means so far: near the edge of a tile weights are so small that sums would vanish.
    Slices lie at index z modulo depth. Everything is counted in the padded volume until a slice is given away.
    """

    def __init__(
        self,
        grid: TileGrid,
        plan: TilePlan,
        channels: int,
        device: torch.device,
        weights: np.ndarray,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._grid, self._plan = grid, plan
        rows, columns = (part.stop - part.start for part in plan.window)
        depth = grid.patch[0]
        # A tensor for each slice, so that a change of type or device needs room for one slice only.
        self._kept = [torch.zeros((rows, columns, channels), device=device, dtype=dtype) for _ in range(depth)]
        exact = torch.float32 if dtype == torch.float16 else dtype
        self._weights = torch.zeros((depth, rows, columns), device=device, dtype=exact)
        self._importance = torch.from_numpy(weights).to(device, exact)

    @property
    def dtype(self) -> torch.dtype:
        """Of what is kept of the maps."""
        return self._kept[0].dtype

    def add(self, features: torch.Tensor, start: tuple[int, int, int]) -> None:
        """Add the (z, y, x, channels) maps of the tile at `start`."""
        depth, height, width = self._grid.patch
        y, x = start[1] - self._plan.window[0].start, start[2] - self._plan.window[1].start
        here = (slice(y, y + height), slice(x, x + width))
        for i in range(depth):
            place = (start[0] + i) % depth
            kept, total, weights = self._kept[place][here], self._weights[place][here], self._importance[i]
            total += weights
            if self.dtype == torch.float16:
                kept.copy_(torch.lerp(kept.float(), features[i], (weights / total)[..., None]))
            else:
                kept.addcmul_(features[i], weights[..., None])

    def take(self, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Give away the finished slices start to stop and empty them: their z in the network's grid, their mean maps
        (y, x, channels) and where a tile was run (y, x), both inside the window without padding."""
        before, shape = self._grid.before, self._grid.shape
        inside = tuple(
            slice(part.start + b - w.start, part.stop + b - w.start)
            for part, b, w in zip(self._plan.inside(self._grid), before[1:], self._plan.window, strict=True)
        )
        for padded_z in range(start, stop):
            kept, weights = self._kept[padded_z % self._grid.patch[0]], self._weights[padded_z % self._grid.patch[0]]
            z = padded_z - before[0]
            if 0 <= z < shape[0]:
                covered = weights[inside] > 0
                if self.dtype == torch.float16:
                    yield z, kept[inside].float(), covered
                else:
                    yield z, kept[inside] / weights[inside].masked_fill(~covered, 1)[..., None], covered
            kept.zero_()
            weights.zero_()

    def to_float16(self) -> None:
        """Go on in half the memory, with what has been added so far."""
        for place, kept in enumerate(self._kept):
            weights = self._weights[place]
            self._kept[place] = kept.div_(weights.masked_fill(weights == 0, 1)[..., None]).half()

    def to(self, device: torch.device) -> None:
        """Go on in another device's memory, with what has been added so far."""
        for place, kept in enumerate(self._kept):
            self._kept[place] = kept.to(device)
        self._weights, self._importance = self._weights.to(device), self._importance.to(device)


class _Slice:
    """One finished slice of the network's grid: its maps, the index of each voxel's label, and for each cell of four
    neighbouring voxels (named after the first) whether they disagree and whether a tile is missing at one of them."""

    def __init__(self, maps: torch.Tensor, labels: torch.Tensor, covered: torch.Tensor) -> None:
        self.maps = maps
        self.labels = labels.masked_fill_(~covered, 0)  # without a tile there is air: background
        self.mixed = torch.zeros_like(covered)
        down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
        self.mixed[:-1] |= down
        self.mixed[:, :-1] |= across
        self.mixed[:-1, :-1] |= labels[1:, 1:] != labels[:-1, :-1]
        self.missing = ~covered
        self.missing[:-1] |= ~covered[1:]
        self.missing[:, :-1] |= self.missing[:, 1:].clone()


class LayerPainter:
    """Writes label layers, slice by slice of the network's grid.

    layers: (layers, z, y, x) uint8 zeros on the image's grid, to be painted. device: where maps and head lie.
    Its `table` gives the layers' values, (layers, label indices), of the label indices that `paint` returns.
    """

    def __init__(
        self,
        frame: Frame,
        grid: TileGrid,
        plan: TilePlan,
        output: OutputPlan,
        head: Head,
        layers: np.ndarray,
        device: torch.device,
    ) -> None:
        self._head = head
        # A voxel's label is kept as an index: the class, or 1 + the last positive channel of a region model. That
        # channel decides in any mean of voxels that share it, as a common highest class does.
        order = output.region_order
        self._regions = order is not None
        self.table = output.table if order is None else output.table[:, [0, *order]]
        self._views = [frame.view(layer) for layer in layers]
        self._depth_taps = frame.score_taps[0]
        window = plan.inside(grid)
        self._target = [t.within(w.start, w.stop) for t, w in zip(frame.score_taps[1:], window, strict=True)]
        self._taps = [
            tuple(torch.from_numpy(part[cut]).to(device) for part in (t.lower - w.start, t.upper - w.start, t.weight))
            for t, w, cut in zip(frame.score_taps[1:], window, self._target, strict=True)
        ]
        self._next = 0
        self._held: dict[int, _Slice | None] = {}

    def to(self, device: torch.device, head: Head) -> None:
        """Go on in another device's memory."""
        self._head = head
        self._taps = [tuple(part.to(device) for part in taps) for taps in self._taps]
        for held in self._held.values():
            if held is not None:
                held.maps, held.labels = held.maps.to(device), held.labels.to(device)
                held.mixed, held.missing = held.mixed.to(device), held.missing.to(device)

    def paint(self, z: int, maps: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
        """Take network slice z, in ascending order, as the ring gives it; paint all image slices that can be.

        Returns the label indices (y, x) uint8 of slice z itself.
        """
        run = bool(covered.any())
        labels = self._labels(maps) if run else torch.zeros_like(covered, dtype=torch.uint8)
        self._held[z] = _Slice(maps, labels, covered) if run else None
        lower, upper, weight = self._depth_taps.lower, self._depth_taps.upper, self._depth_taps.weight
        while self._next < len(lower) and upper[self._next] <= z:
            i = self._next
            self._paint_slice(i, self._held[int(lower[i])], self._held[int(upper[i])], float(weight[i]))
            self._next += 1
        oldest = lower[self._next] if self._next < len(lower) else z + 1
        for k in [k for k in self._held if k < oldest]:
            del self._held[k]
        return labels

    def _labels(self, maps: torch.Tensor) -> torch.Tensor:
        flat = maps.flatten(0, 1)
        labels = torch.empty(len(flat), dtype=torch.uint8, device=maps.device)
        for first in range(0, len(flat), VOXELS_AT_ONCE):
            part = slice(first, first + VOXELS_AT_ONCE)
            labels[part] = self._decide(self._head.scores(flat[part]))
        return labels.reshape(maps.shape[:2])

    def _decide(self, scores: torch.Tensor) -> torch.Tensor:
        """(voxels, classes) scores to label indices, uint8. Of equal scores the first class wins, as in numpy."""
        if not self._regions:
            return scores.argmax(1).to(torch.uint8)
        number = torch.arange(1, scores.shape[1] + 1, dtype=torch.uint8, device=scores.device)
        return ((scores > 0) * number).amax(1)

    def _paint_slice(self, z: int, below: _Slice | None, above: _Slice | None, weight: float) -> None:
        if below is None or above is None:
            return  # air
        (y0, y1, y_weight), (x0, x1, x_weight) = self._taps
        labels = below.labels[y0][:, x0]
        mixed = below.mixed & ~below.missing
        if below is not above:
            mixed = below.mixed | above.mixed | (below.labels != above.labels)
            mixed &= ~(below.missing | above.missing)
        where = mixed[y0][:, x0].nonzero()
        for first in range(0, len(where), VOXELS_AT_ONCE):
            y, x = where[first : first + VOXELS_AT_ONCE].unbind(1)
            maps = _interpolate_plane(below.maps, y0[y], y1[y], y_weight[y], x0[x], x1[x], x_weight[x])
            if below is not above:
                maps *= 1 - weight
                maps += weight * _interpolate_plane(above.maps, y0[y], y1[y], y_weight[y], x0[x], x1[x], x_weight[x])
            labels[y, x] = self._decide(self._head.scores(maps))
        painted = labels.cpu().numpy()
        for view, values in zip(self._views, self.table, strict=True):
            view[z, self._target[0], self._target[1]] = values[painted]


def _interpolate_plane(
    maps: torch.Tensor,
    y0: torch.Tensor,
    y1: torch.Tensor,
    y_weight: torch.Tensor,
    x0: torch.Tensor,
    x1: torch.Tensor,
    x_weight: torch.Tensor,
) -> torch.Tensor:
    """Bilinear interpolation of (y, x, channels) maps at voxels: (voxels, channels)."""
    flat, width = maps.flatten(0, 1), maps.shape[1]
    total = torch.zeros((len(y0), flat.shape[1]), device=maps.device, dtype=maps.dtype)
    for y, wy in ((y0, 1 - y_weight), (y1, y_weight)):
        for x, wx in ((x0, 1 - x_weight), (x1, x_weight)):
            total.addcmul_(flat[y * width + x], (wy * wx).to(maps.dtype)[:, None])
    return total
