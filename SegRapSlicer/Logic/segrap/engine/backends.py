"""Running the networks on patches, and what makes them run: torch on the CPU, CUDA or MPS, or OpenVINO on the CPU.

A backend turns patches into `channels` maps at their resolution, and has a `Head` that turns those into class
scores, voxel by voxel. Because the head is linear, whatever is linear afterwards (mirroring means, the weighted sum
over tiles, interpolation, the mean over folds) may be done on the maps, which are fewer than the classes, and the head
is applied once per voxel at the end. Where the classes are fewer, the maps are the class scores and the head is empty;
so it is for models of nnU-Net v1, whose class probabilities are averaged. Of several folds, the head also tells how
many decide otherwise.

`Networks` chooses: OpenVINO on the CPU where it is installed, else torch. Whatever is not torch's float32 on the CPU
must first agree with it on one patch (`self_test`); what does not is not used, and the remarks say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

from segrap.engine.head import Head, share_that_differs
from segrap.engine.memory import Runner
from segrap.engine.openvino_runner import openvino_runners
from segrap.engine.runners import FoldRunner, Maps, NotUsable, Stop, TorchRunner, cpu_has_bfloat16
from segrap.engine.self_test import check_against_torch
from segrap.errors import ResourceError
from segrap.models.folder import Model

CPU = torch.device("cpu")
GPU_TOO_SMALL = "The GPU has too little free memory for this model and CT: the CPU was used."
WORTH_CONVERTING = 10_000_000  # voxels to run: for fewer, a conversion (5 s) takes longer than it saves


class Backend:
    """The networks of a model's folds, ready to run on patches.

    name: what runs them, in words. runs_on: where the networks run. device: where maps and head lie, the CPU for MPS.
    channels: how many maps there are.
    stop: what a job puts its own check into, so that even a slow tile can be stopped at once.
    """

    def __init__(
        self,
        model: Model,
        runners: Sequence[FoldRunner],
        maps: Maps,
        head: Head,
        name: str,
        runs_on: torch.device,
        stop: Stop,
        *,
        mirror: bool,
    ) -> None:
        self.name, self.head, self.stop = name, head, stop
        self.runs_on, self.device = runs_on, _results_on(runs_on)
        self._runners, self._maps = runners, maps
        axes = model.mirror_axes if mirror else ()
        self._flips = [flip for count in range(1, len(axes) + 1) for flip in combinations(axes, count)]
        self._regions = model.labels.region_order is not None
        scores = model.labels.score_channels + (len(runners) > 1)
        self.channels = scores if head.weight is None else head.weight.shape[1]

    def features(self, patches: np.ndarray) -> torch.Tensor:
        """(n, channel, z, y, x) float32 patches to (n, z, y, x, channels) float32 maps on `device`. n is 1 but on CUDA.

        They may lie in memory that the next call reuses.
        """
        x = torch.from_numpy(patches).to(self.device)
        with torch.inference_mode():
            maps = [self._mean_over_flips(runner, x) for runner in self._runners]
            if len(maps) == 1:
                return maps[0]
            if self._maps == "features":
                return torch.cat(maps, dim=-1)
            mean = torch.stack(maps).mean(0)
            return torch.cat((mean, share_that_differs(maps, mean, regions=self._regions)[..., None]), dim=-1)

    def _mean_over_flips(self, runner: FoldRunner, x: torch.Tensor) -> torch.Tensor:
        maps = runner(x)
        if not self._flips:
            return maps
        total = maps.clone()
        for flip in self._flips:
            mirrored = runner(torch.flip(x, [axis + 2 for axis in flip]))
            total += torch.flip(mirrored, [axis + 1 for axis in flip])
        return total.div_(len(self._flips) + 1)


class Opened(NamedTuple):
    """A backend, and what the person should know of how it was chosen."""

    backend: Backend
    remarks: tuple[str, ...]


class Networks:
    """Opens backends and keeps the last one, so that the next patient with the same model need not wait for it.

    openvino: False keeps to torch.
    """

    def __init__(self, openvino: bool = True) -> None:
        self._openvino = openvino
        self._key: tuple | None = None
        self._kept: Opened | None = None

    def open(
        self,
        model: Model,
        device: str,
        *,
        mirror: bool = True,
        quick: bool = False,
        maps: Maps | None = None,
        patches: int | None = None,
        check: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda words: None,
    ) -> Opened:
        """Make a model ready to run.

        device: auto, cpu, cuda, cuda:N or mps. mirror: average over all flips along the model's mirror axes.
        quick: bfloat16 where the CPU has it (GPUs run in float16 anyway, as nnU-Net's do).
        maps: None chooses the fewer of features and class scores. patches: how many will be run, if that is known:
        a model is not converted for a few small ones.
        check: raises Cancelled when the job is to end. say: told what takes long.
        Raises ModelError (damaged weights), ResourceError (no such device), Cancelled.
        """
        chosen = choose_device(device)
        key = (model.hash, model.folds, str(chosen), mirror, quick, maps)
        if self._kept is None or key != self._key:
            self.close()  # two models need not lie in memory at once
            convert = patches is None or patches * np.prod(model.patch_size) >= WORTH_CONVERTING
            self._kept = _open(model, chosen, mirror, quick, maps, self._openvino, bool(convert), check, say)
            self._key = key
        self._kept.backend.stop.check = check
        return self._kept

    def close(self) -> None:
        """Keep nothing, so that its memory is free."""
        self._key, self._kept = None, None

    def give_back_gpu_memory(self) -> None:
        """Leave to other programs what a run took of the GPU's memory beside the model, which stays."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()

    def likely_runner(self, device: torch.device) -> Runner:
        """What will run on a device, as far as that is known before anything is opened."""
        if device.type == "cuda":
            return "GPU"
        found = self._openvino and importlib.util.find_spec("openvino") is not None
        return "OpenVINO" if found and device.type == "cpu" else "torch"


def _open(
    model: Model,
    device: torch.device,
    mirror: bool,
    quick: bool,
    maps: Maps | None,
    openvino: bool,
    convert: bool,
    check: Callable[[], None],
    say: Callable[[str], None],
) -> Opened:
    networks = model.load_networks()
    heads = [network.head for network in networks]
    features, classes = sum(head.in_channels for head in heads), heads[0].out_channels
    if model.of_nnunet_v1:
        maps = "probabilities"  # v1 averages those, and they are not linear in the features
    maps = maps or ("features" if features <= classes else "scores")
    stop = Stop(check)
    remarks: list[str] = []
    halves = quick and cpu_has_bfloat16()
    if quick and device.type == "cpu" and not halves:
        remarks.append("This CPU does not compute in bfloat16, so the quick mode changed nothing: float32 was used.")
    if halves and device.type == "cpu":
        remarks.append("Computed in bfloat16 (quick mode): contours may differ from those of float32 at their borders.")

    def torch_runners(where: torch.device, half: bool) -> tuple[list[FoldRunner], str]:
        runners = [TorchRunner(network, maps, where, half, stop) for network in networks]
        return list(runners), runners[0].name

    ways: list[tuple[str, Callable[[], tuple[list[FoldRunner], str]]]] = []
    if device.type != "cpu":
        ways.append(("The GPU", lambda: torch_runners(device, True)))
    elif openvino:
        ways.append(("OpenVINO", lambda: openvino_runners(model, maps, halves, convert, stop, say)))
    if device.type == "cpu" and halves:
        ways.append(("bfloat16", lambda: torch_runners(CPU, True)))
    for means, way in ways:
        try:
            runners, name = way()
            say(f"Testing {name}")
            check_against_torch(model, networks, runners, maps, name, _results_on(device))
            break
        except (NotUsable, RuntimeError) as fault:
            reason = str(fault)
            if out_of_memory(fault):
                if device.type == "cpu":
                    raise
                reason = GPU_TOO_SMALL
            elif not isinstance(fault, NotUsable):  # a driver, a GPU too old for this torch, an operation that it lacks
                reason = f"{means} could not be used ({(reason.splitlines() or [type(fault).__name__])[0]})."
            remarks += [reason] if reason else []
    else:
        if device.type != "cpu":
            opened = _open(model, CPU, mirror, quick, maps, openvino, convert, check, say)
            return opened._replace(remarks=(*remarks, *opened.remarks))
        runners, name = torch_runners(CPU, False)
    head = Head(share_last=len(runners) > 1)
    if maps == "features":
        head = Head.of_folds(heads, _results_on(device), regions=model.labels.region_order is not None)
    return Opened(Backend(model, runners, maps, head, name, device, stop, mirror=mirror), tuple(remarks))


def _results_on(device: torch.device) -> torch.device:
    return CPU if device.type == "mps" else device


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA if there is one, else Apple's MPS, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises ResourceError when there is no such device.
    """
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    if name == "cpu" or (name == "mps" and has_mps):
        return torch.device(name)
    if name == "mps":
        raise ResourceError(
            "The device mps was asked for, but there is no Apple GPU here. Choose auto or cpu.",
            "device",
        )
    kind, _, number = name.partition(":")
    if kind == "cuda" and (number.isdigit() or not number):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) < count:
            return torch.device(name)
        raise ResourceError(
            f"The device {name} was asked for, but torch {torch.__version__} sees {count} CUDA devices here. "
            "Choose auto or cpu.",
            "device",
        )
    raise ResourceError(f"There is no device {name!r}. Choose auto, cpu, cuda, cuda:N or mps.")


def free_gpu_bytes(device: torch.device) -> int | None:
    """What torch can still take of a CUDA device's memory; None for other devices."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


def out_of_memory(fault: BaseException) -> bool:
    """Whether an error says, in the words of Python, torch, oneDNN, OpenVINO or CUDA, that memory ran out."""
    words = str(fault).lower()
    known = ("out of memory", "out_of_memory", "allocate memory", "not enough memory", "bad_alloc", "bad allocation")
    return isinstance(fault, MemoryError) or (isinstance(fault, RuntimeError) and any(one in words for one in known))


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Turn every way of running out of memory into a ResourceError that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not out_of_memory(fault):
            raise
        on_gpu = "cuda" in str(fault).lower()
        where = "The GPU has too little free memory" if on_gpu else "There is too little free memory"
        advice = "Choose the CPU" if on_gpu else "Close other programs"
        raise ResourceError(
            f"{where} for this model and CT. {advice}, or use a smaller model.", "device" * on_gpu
        ) from None
