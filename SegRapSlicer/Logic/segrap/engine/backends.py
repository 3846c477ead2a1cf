"""Running the network on one tile: on the CPU or a CUDA GPU with torch.

A backend turns a patch into `channels` maps at the patch's resolution, and has a `Head` that turns those into class
scores, voxel by voxel. Because the head is linear, whatever is linear afterwards (mirroring means, the weighted sum
over tiles, interpolation, the mean over folds) may be done on the maps, which are fewer than the classes, and the head
is applied once per voxel at the end. Where the classes are fewer, the maps are the class scores and the head is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import torch

from segrap.errors import ResourceError
from segrap.models.folder import Model
from segrap.models.network import UNet


class Head:
    """Class scores from feature maps: weight @ features + bias, or the features themselves."""

    def __init__(self, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """(features, voxels) to (voxels, classes), float32."""
        if self.weight is None or self.bias is None:
            return features.t()
        return torch.addmm(self.bias, features.t(), self.weight.t())


class Backend(Protocol):
    """What the stream needs of whatever runs the network."""

    device: torch.device
    channels: int
    head: Head

    def features(self, patch: np.ndarray) -> torch.Tensor:
        """(channel, z, y, x) float32 patch to (channels, z, y, x) float32 maps on `device`."""


class TorchBackend:
    """The networks of a model's folds in torch. float32 on the CPU; on CUDA float16 autocast, as nnU-Net runs there.

    mirror: average over all flips along the model's mirror axes.
    in_feature_space: None chooses the smaller of features and class scores. Models of nnU-Net v1 have their class
        probabilities averaged, which is not linear in the features: their maps are probabilities.
    check: called before every layer, so that even a slow tile can be stopped at once; raises Cancelled.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        *,
        mirror: bool = True,
        in_feature_space: bool | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.device = device
        self._networks = [network.to(device) for network in model.load_networks()]
        axes = [axis + 2 for axis in model.mirror_axes] if mirror else []
        self._flips = [flip for count in range(1, len(axes) + 1) for flip in combinations(axes, count)]
        heads = [network.head for network in self._networks]
        features, classes = sum(head.in_channels for head in heads), heads[0].out_channels
        self._probabilities = model.of_nnunet_v1
        self._in_feature_space = features <= classes if in_feature_space is None else in_feature_space
        self._in_feature_space &= not self._probabilities
        self.channels = features if self._in_feature_space else classes
        self.head = Head(None, None)
        if self._in_feature_space:
            weight = torch.cat([head.weight.flatten(1) for head in heads], dim=1) / len(heads)
            bias = torch.stack([head.bias for head in heads]).mean(0)
            self.head = Head(weight, bias)
        if check is not None:
            for module in (module for network in self._networks for module in network.modules()):
                if isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
                    module.register_forward_pre_hook(lambda module, inputs: check())

    def features(self, patch: np.ndarray) -> torch.Tensor:
        """See Backend."""
        x = torch.from_numpy(patch)[None].to(self.device)
        with torch.inference_mode(), self._precision():
            maps = [self._mean_over_flips(network, x) for network in self._networks]
            return torch.cat(maps) if self._in_feature_space else torch.stack(maps).mean(0)

    def _mean_over_flips(self, network: UNet, x: torch.Tensor) -> torch.Tensor:
        def run(x: torch.Tensor) -> torch.Tensor:
            if self._in_feature_space:
                return network.features(x)
            return network(x).float().softmax(1) if self._probabilities else network(x)

        total = run(x)[0].float()
        for flip in self._flips:
            total += torch.flip(run(torch.flip(x, flip)), flip)[0].float()
        return total / (len(self._flips) + 1)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.float16)
        return nullcontext()


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA if there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises ResourceError when there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind == "cuda" and (number.isdigit() or not number):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) < count:
            return torch.device(name)
        raise ResourceError(
            f"The device {name} was asked for, but torch {torch.__version__} sees {count} CUDA devices here. "
            "Choose --device auto or cpu."
        )
    raise ResourceError(f"There is no device {name!r}. Choose auto, cpu, cuda or cuda:N.")


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Turn every way of running out of memory into a ResourceError that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        words = str(fault).lower()
        on_gpu = "cuda" in words
        if not isinstance(fault, MemoryError) and "out of memory" not in words and "allocate memory" not in words:
            raise
        where = "The GPU has too little free memory" if on_gpu else "There is too little free memory"
        advice = "Choose --device cpu" if on_gpu else "Close other programs"
        raise ResourceError(f"{where} for this model and CT. {advice}, or use a smaller model.") from None
