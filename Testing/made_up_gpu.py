"""A GPU made of the CPU: tensors that say they lie on a GPU, computed by the CPU, refused wherever a GPU would refuse.

It shows, where no GPU is at hand, that every tensor of a run is put where it belongs and comes back: an operation on
tensors of two devices raises, as does float64 on Apple's MPS. It says nothing of speed, memory, or what a driver
computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from segrap.engine import backends

MOVES = {"_to_copy", "copy_"}
# Before these torch turns to the real GPU's library.
GUARDED = (torch.Tensor.__getitem__, torch.Tensor.__setitem__, torch.Tensor.__invert__, torch.Tensor.nonzero)


@dataclass
class Faults:
    """largest_bytes: the most memory that one tensor may take. wrong: convolutions come out wrong. lacking: the words
    with which an operation that is not there is refused, here a convolution.

    given_back: torch was told to leave to others what it does not use.
    """

    largest_bytes: int | None = None
    wrong: bool = False
    lacking: str = ""
    given_back: bool = False


GPU = Faults()


class OnGPU(torch.Tensor):
    """A tensor whose content lies in `content` on the CPU, and whose device is the made-up one."""

    content: torch.Tensor

    @staticmethod
    def __new__(cls, content: torch.Tensor, device: torch.device) -> OnGPU:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            content.shape,
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=device,
        )
        made.content = content
        return made

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in GUARDED:
            return compute(function, args, kwargs or {})
        return torch._C._disabled_torch_function_impl(function, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


def compute(function: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on the CPU; what it gives lies where torch would put it."""
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    devices = {one.device for one in tensors if one.ndim or isinstance(one, OnGPU)}
    name = function.__name__.split(".")[0]
    if name == "_has_compatible_shallow_copy_type":
        return False  # a parameter of a module is replaced, not refilled: refilled, it would lose its content
    if len(devices) > 1 and name not in MOVES:
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} of {sorted(map(str, devices))}")
    target = kwargs.get("device") or (args[0].device if name == "copy_" else next(iter(devices), torch.device("cpu")))
    if "device" in kwargs:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map(lambda one: one.content if isinstance(one, OnGPU) else one, (args, kwargs))
    found = function(*args, **kwargs)
    if "conv" in name and torch.device(target).type != "cpu":
        if GPU.lacking:
            raise RuntimeError(GPU.lacking)
        found = found.flip(1) if GPU.wrong else found
    if torch.device(target).type == "cpu":
        return found
    return tree_map(lambda one: _on(one, torch.device(target)) if isinstance(one, torch.Tensor) else one, found)


def _on(content: torch.Tensor, device: torch.device) -> OnGPU:
    if device.type == "mps" and content.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    if GPU.largest_bytes is not None and content.nbytes > GPU.largest_bytes:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {content.nbytes} bytes.")
    return OnGPU(content, device)


class _Factories(TorchDispatchMode):
    """What makes tensors on the made-up device, or brings them there from the CPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


@contextmanager
def made_up_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """While it lasts there seems to be a GPU, "cuda" or "mps"; gives what can be made to go wrong on it."""
    GPU.largest_bytes, GPU.wrong, GPU.lacking, GPU.given_back = None, False, "", False
    for module in (torch.cuda, torch.mps):
        monkeypatch.setattr(module, "_lazy_init", lambda: None, raising=False)
    if kind == "mps":
        monkeypatch.setattr(backends, "choose_device", lambda name: torch.device("mps", 0))  # without a number, torch
        # looks for a real one
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "made-up GPU")
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(GPU, "given_back", True))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device=None: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**10, 10**10))
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else a module keeps its parameters' own kind
    try:
        with _Factories():
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
