"""One fold's network, run by torch: patches in, their maps out. `openvino_runner` has the other kind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from segrap.models.network import UNet

Maps = Literal["features", "scores", "probabilities"]
"""What a network gives: its decoder's features, before the head, class scores, or their softmax."""


class NotUsable(Exception):
    """A way of running a network that cannot be taken here; the message is for the person, or empty."""


@dataclass
class Stop:
    """What is asked again and again while a network runs; it raises Cancelled when the job is to end."""

    check: Callable[[], None] = lambda: None


class FoldRunner(Protocol):
    """(n, channel, z, y, x) float32 patches to (n, z, y, x, maps) float32, on the patches' device. n is 1 but on CUDA.

    The maps may lie in memory that the next call reuses.
    """

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class MapsOf(torch.nn.Module):
    """A network as a module whose output are its maps, those of one voxel side by side.

    So the fastest kernels write them, and so they are read: a voxel's maps are weighted, added and scored together.
    """

    def __init__(self, network: UNet, maps: Maps) -> None:
        super().__init__()
        self.network, self.maps = network, maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channel, z, y, x) to (n, z, y, x, maps)."""
        if self.maps == "features":
            maps = self.network.features(x)
        else:
            scores = self.network(x)
            maps = scores.float().softmax(1) if self.maps == "probabilities" else scores
        return maps.permute(0, 2, 3, 4, 1)


class TorchRunner:
    """A network in torch. half: in float16 on CUDA, as nnU-Net runs there, and in bfloat16 on the CPU.

    Apple's MPS runs in float32: its half precision has not been tried. It runs nothing but the network: much else is
    missing there, float64 for a start, and its memory is the CPU's anyway.
    """

    def __init__(self, network: UNet, maps: Maps, device: torch.device, half: bool, stop: Stop) -> None:
        self._module, self._device = MapsOf(network.to(device), maps).eval(), device
        self._precision: Callable[[], AbstractContextManager[Any]] = nullcontext
        precision = "float32"
        if device.type == "cuda":
            self._module.to(memory_format=torch.channels_last_3d)
            torch.backends.cudnn.benchmark = True  # every patch has the same shape
        if half and device.type != "mps":
            kind = torch.float16 if device.type == "cuda" else torch.bfloat16
            self._precision = lambda: torch.autocast(device.type, dtype=kind)
            precision = str(kind).removeprefix("torch.")
        hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
        self.name = f"torch {torch.__version__.split('+')[0]} on {hardware}, {precision}"
        for module in self._module.modules():
            if isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
                module.register_forward_pre_hook(lambda module, inputs: stop.check())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._precision():
            return self._module(x.to(self._device)).float().to(x.device)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself; older torch cannot tell, which counts as no."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
