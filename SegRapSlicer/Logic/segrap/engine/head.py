"""What the maps of a voxel mean: its class scores, and how many of the model's folds would decide otherwise.

Where the maps are the decoder features of all folds, side by side, each fold's own scores can still be told from them,
and only for the voxels that are asked. Where they are the mean class scores, the folds are counted when a patch is run,
and one more map carries the share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Head:
    """Class scores from maps.

    weight (class, map), bias (class): scores are weight @ maps + bias. None where the maps are the scores.
    folds: each fold's own (weight, bias) for its share of the maps, in their order; empty for one fold.
    share_last: the last map is no score but the share of folds that decide otherwise.
    regions: scores decide class by class, by their sign, instead of by the highest.
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        folds: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
        *,
        share_last: bool = False,
        regions: bool = False,
    ) -> None:
        self.weight, self.bias = weight, bias
        self._folds, self._share_last, self._regions = tuple(folds), share_last, regions

    @classmethod
    def of_folds(cls, heads: Sequence[nn.Conv3d], device: torch.device, *, regions: bool) -> Head:
        """The 1x1x1 convolutions of a model's folds, for their features side by side; scores are the folds' mean."""
        folds = []
        for head in heads:
            weight = head.weight.flatten(1).to(device)
            folds.append((weight, weight.new_zeros(len(weight)) if head.bias is None else head.bias.to(device)))
        weight = torch.cat([weight for weight, _ in folds], dim=1) / len(folds)
        bias = torch.stack([bias for _, bias in folds]).mean(0)
        return cls(weight, bias, folds if len(folds) > 1 else (), regions=regions)

    def scores(self, maps: torch.Tensor) -> torch.Tensor:
        """(voxels, maps) to (voxels, classes), float32."""
        if self.weight is None or self.bias is None:
            return maps[:, :-1] if self._share_last else maps
        return torch.addmm(self.bias, maps, self.weight.t())

    def disagreement(self, maps: torch.Tensor, scores: torch.Tensor) -> torch.Tensor | None:
        """Which share of the folds decides otherwise than the scores of all: (voxels,), 0 to 1; None for one fold."""
        if self._share_last:
            return maps[:, -1]
        if not self._folds:
            return None
        parts = maps.split([weight.shape[1] for weight, _ in self._folds], dim=1)
        own = [torch.addmm(bias, part, weight.t()) for part, (weight, bias) in zip(parts, self._folds, strict=True)]
        return share_that_differs(own, scores, regions=self._regions)


def share_that_differs(own: Sequence[torch.Tensor], scores: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Which share of several (..., classes) scores decides otherwise than `scores`: (...), 0 to 1."""
    if regions:
        differs = [((one > 0) != (scores > 0)).any(-1) for one in own]
    else:
        highest = scores.argmax(-1)
        differs = [one.argmax(-1) != highest for one in own]
    return torch.stack(differs).float().mean(0)
