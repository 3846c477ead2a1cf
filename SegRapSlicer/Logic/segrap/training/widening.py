"""A larger network that begins as a smaller, trained one: the same outputs, more features to learn with.

Net2Net's idea (Chen, Goodfellow, Shlens, ICLR 2016) without copies of features: the trained weights keep their places,
new features begin at random, and nothing old listens to them yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segrap.errors import ModelError

if TYPE_CHECKING:
    from segrap.models.network import UNet


def begin_as(network: UNet, trained: Mapping[str, Any]) -> None:
    """Give `network` the weights of `trained`, the state of a network of as many stages and the same or fewer features.

    Afterwards both give the same outputs; where the features are as many, the weights are the same too.
    Raises ModelError when the networks differ in more than their features.
    """
    import torch

    state = network.state_dict()
    if state.keys() != trained.keys():
        raise ModelError("Training cannot go on from a model with another network.")
    with torch.no_grad():
        for name, weight in state.items():
            old = trained[name]
            if weight.ndim != old.ndim or weight.shape[2:] != old.shape[2:]:
                raise ModelError(f"Training cannot go on from a model whose {name} has the shape {list(old.shape)}.")
            if any(now < before for now, before in zip(weight.shape, old.shape, strict=True)):
                raise ModelError("Training cannot go on from a model with more features than the recipe's.")
            if weight.ndim == 1:
                weight[: len(old)] = old
                continue
            if ".transpconvs." in name:  # weights are (from, to, ...) here, (to, from, ...) in other convolutions
                weight, old = weight.transpose(0, 1), old.transpose(0, 1)
            # The first convolution of a decoder stage hears upsampled and skipped features, half and half.
            parts = 2 if "decoder.stages." in name and ".convs.0." in name else 1
            weight[: old.shape[0]] = 0
            size = weight.shape[1] // parts
            for part, share in enumerate(old.chunk(parts, 1)):
                weight[: old.shape[0], part * size : part * size + share.shape[1]] = share
