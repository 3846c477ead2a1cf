"""How sure a model is of each contour it draws, from the scores that the labels come from: the network runs no more.

A voxel's margin is the difference between its highest and its second highest class probability (softmax of the scores
that decide its label, after the means over tiles, mirrorings and folds). It is 0 where two classes are equally likely
and does not depend on how scores are scaled by the number of classes, as differences of raw scores would. For region
models it is |2p - 1| of the region channel that is least sure (p from the sigmoid). A structure's confidence is the
mean margin in the shell of SHELL_MM on both sides of its contour, on the network's grid. It tells how clear-cut the
model found the border; a model can be sure and wrong.

Of a model with several folds, the mean share of folds that decide otherwise than all together is measured in the same
shell: 0 where all folds agree on every voxel beside the contour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from segrap.engine.head import Head
from segrap.models.labels import OutputPlan

SHELL_MM = 2.0
VOXELS_AT_ONCE = 1 << 15


class ShellMargins:
    """Sums up the margins around all contours, slice by slice; holds only the slices that a shell reaches across.

    output: whose structures are measured. table: (layers, label indices), as `LayerPainter.table`. spacing_mm: of the
    network's grid, in its axis order. probabilities: the maps are class probabilities already (nnU-Net v1).
    """

    def __init__(
        self, output: OutputPlan, table: np.ndarray, head: Head, spacing_mm: Sequence[float], *, probabilities: bool
    ) -> None:
        self._names, self._pairs = tuple(output.placement), output.pairs
        self._head, self._regions, self._probabilities = head, output.region_order is not None, probabilities
        members = np.zeros(table.shape[1], dtype=np.int64)  # bit i: voxels of this label belong to structure i
        for number, (layer, value) in enumerate(output.placement.values()):
            members |= (table[layer] == value).astype(np.int64) << number
        self._members = torch.from_numpy(members)
        self._reach = [int(SHELL_MM / step) for step in spacing_mm]
        self._reach[1:] = [max(1, steps) for steps in self._reach[1:]]  # the voxels beside a contour always count
        depth, height, width = self._reach
        self._offsets = [
            (k, j, i)
            for k in range(-depth, depth + 1)
            for j in range(-height, height + 1)
            for i in range(-width, width + 1)
            if (k, j, i) != (0, 0, 0)
            and (
                np.hypot(np.hypot(k * spacing_mm[0], j * spacing_mm[1]), i * spacing_mm[2]) <= SHELL_MM
                or (k == 0 and abs(j) + abs(i) == 1)
            )
        ]
        self._planes: dict[int, _Plane] = {}
        self._next = 0
        self._sums = np.zeros((3, len(self._names)))  # of margins, of disagreements, and how many voxels
        self._several = False  # folds

    def add(self, z: int, maps: torch.Tensor, labels: torch.Tensor, covered: torch.Tensor) -> None:
        """Take network slice z, in ascending order: maps (y, x, channels), label indices and where a tile was run."""
        members = self._members.to(labels.device)[labels.long()]
        self._planes[z] = _Plane(maps, members, self._near_border(members), covered)
        while self._next + self._reach[0] <= z:
            self._measure(self._next)

    def to(self, device: torch.device, head: Head) -> None:
        """Go on in another device's memory."""
        self._head = head
        for plane in self._planes.values():
            plane.maps, plane.members = plane.maps.to(device), plane.members.to(device)
            plane.near_border, plane.covered = plane.near_border.to(device), plane.covered.to(device)

    def finish(self) -> tuple[dict[str, float], dict[str, float]]:
        """Of each structure that has a contour, 0 to 1: the confidence, and how much folds disagree, which is empty for
        one fold. Call it after the last slice."""
        while self._next in self._planes:
            self._measure(self._next)
        margins, disagreements, counts = self._sums
        return self._means(margins, counts), self._means(disagreements, counts) if self._several else {}

    def _means(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
        found = {
            name: float(total / count) for name, total, count in zip(self._names, sums, counts, strict=True) if count
        }
        return found | {right: found[left] for left, right in self._pairs if left in found}

    def _near_border(self, members: torch.Tensor) -> torch.Tensor:
        """Which voxels may have a border of this plane in reach, bool (y, x)."""
        border = torch.zeros_like(members, dtype=torch.bool)
        down, across = members[1:] != members[:-1], members[:, 1:] != members[:, :-1]
        border[1:] |= down
        border[:-1] |= down
        border[:, 1:] |= across
        border[:, :-1] |= across
        spread = border[None].float()
        for height, width in ((self._reach[1], 0), (0, self._reach[2])):
            kernel = (2 * height + 1, 2 * width + 1)
            spread = torch.nn.functional.max_pool2d(spread, kernel, stride=1, padding=(height, width))
        return spread[0] > 0

    def _measure(self, z: int) -> None:
        self._next = z + 1
        here = self._planes[z]
        near = here.near_border.clone()
        for k in range(-self._reach[0], self._reach[0] + 1):
            if k and z + k in self._planes:
                near |= self._planes[z + k].near_border | (self._planes[z + k].members != here.members)
        y, x = (near & here.covered).nonzero().unbind(1)
        own = here.members[y, x]
        shell = torch.zeros_like(own)
        rows, columns = here.members.shape
        for k, j, i in self._offsets:
            if z + k in self._planes:
                there = self._planes[z + k].members[(y + j).clamp(0, rows - 1), (x + i).clamp(0, columns - 1)]
                shell |= there ^ own
        inside = shell != 0
        y, x, shell = y[inside], x[inside], shell[inside]
        kinds, kind = shell.unique(return_inverse=True)
        sums = torch.zeros((3, len(kinds)), dtype=torch.float32, device=kinds.device)
        for part, margins, disagreements in self._margins(here.maps, y * columns + x):
            sums[0].index_add_(0, kind[part], margins)
            if disagreements is not None:
                self._several = True
                sums[1].index_add_(0, kind[part], disagreements)
            sums[2].index_add_(0, kind[part], torch.ones_like(margins))
        has = (kinds.cpu().numpy()[:, None] >> np.arange(len(self._names))) & 1
        self._sums += sums.cpu().numpy() @ has
        self._planes.pop(z - self._reach[0], None)

    def _margins(
        self, maps: torch.Tensor, voxels: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor | None]]:
        flat = maps.flatten(0, 1)
        for first in range(0, len(voxels), VOXELS_AT_ONCE):
            part = slice(first, first + VOXELS_AT_ONCE)
            chosen = flat[voxels[part]]
            scores = self._head.scores(chosen)
            if self._regions:
                margins = torch.tanh(scores.abs() / 2).amin(1)  # |2p - 1| of p = 1 / (1 + exp(-score))
            else:
                highest = (scores if self._probabilities else scores.softmax(1)).topk(2, dim=1).values
                margins = highest[:, 0] - highest[:, 1]
            yield part, margins, self._head.disagreement(chosen, scores)


class _Plane:
    """A slice of the network's grid: its maps, the structures of each voxel as bits, where a border is near, and where
    a tile was run."""

    def __init__(
        self, maps: torch.Tensor, members: torch.Tensor, near_border: torch.Tensor, covered: torch.Tensor
    ) -> None:
        self.maps, self.members, self.near_border, self.covered = maps, members, near_border, covered
