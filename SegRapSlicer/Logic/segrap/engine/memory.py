"""How much memory a run takes, told before it starts from the model's plans and the size of the scan alone.

Nothing here needs torch. The large parts are counted one by one: the process with its libraries, images and label
layers, the weights, the activations of one tile, and, for one patch's depth of network slices, the maps that the tiles
are added up in (the ring, see `stream`) and the network's input. Where a number was measured, that is said beside it;
the tests hold the sum against the resident size of real runs. `choose` takes the best way that fits into what is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from segrap.engine.resampling import resampled_shape
from segrap.engine.tiles import tile_grid
from segrap.errors import ResourceError
from segrap.models.architecture import architecture_of
from segrap.models.plans import PlannedModel

Runner = Literal["torch", "OpenVINO", "GPU"]
Accumulators = Literal["float32", "float16"]

# Resident sizes in bytes, Linux, x86-64, Python 3.11, torch 2.13.0+cpu, OpenVINO 2026.4.1, measured 2026-11-24.
PROCESS = 255_000_000  # Python with numpy, scipy and torch
RUNNER = {"torch": 50_000_000, "OpenVINO": 120_000_000, "GPU": 1_500_000_000}  # the last is assumed, not measured
GPU_CONTEXT = 600_000_000  # an assumption, not measured
# How many tensors of the size of the network's first features exist at once at the end of its decoder, beside what the
# encoder keeps: with torch the joined input (2), the output, and the three copies in the order its kernels want.
FULL_SIZE_TENSORS = {"torch": 6, "OpenVINO": 5, "GPU": 6}
# A GPU runs so many tiles at once that it has work to spread: tiles of about so many voxels together, at most so many.
# Both are assumptions, not measured. The number is a power of two, see `TileRow.groups`.
GPU_VOXELS, GPU_TILES = 2_000_000, 8
SLICES_AT_ONCE = 3  # finished slices that are interpolated and measured, with their means in float32


@dataclass(frozen=True)
class Forecast:
    """What a run takes at its peak, in bytes.

    present: what the process holds before the run, images included. to_come: what the run adds to that.
    gpu: what it takes of the GPU's memory. batch: how many tiles are run at once.
    """

    runner: Runner
    accumulators: Accumulators
    present: int
    to_come: int
    gpu: int = 0
    batch: int = 1

    @property
    def total(self) -> int:
        """The resident size of the whole process at its peak."""
        return self.present + self.to_come

    @property
    def needs(self) -> str:
        """In words: "about 1.2 GB of memory"."""
        gpu = f"about {_gigabytes(self.gpu)} of the GPU's memory and " if self.gpu else ""
        return f"{gpu}about {_gigabytes(self.total)} of memory"

    def words(self, free: int | None) -> str:
        """A line for the person: what the run will take, and what is free if that is known."""
        known = "" if free is None else f"; {_gigabytes(free)} are free"
        at_once = f", {self.batch} tiles at once" if self.batch > 1 else ""
        return f"{self.needs[0].upper()}{self.needs[1:]}, tiles added up in {self.accumulators}{at_once}{known}"


def forecast(
    model: PlannedModel,
    shape: Sequence[int],
    spacing_zyx: Sequence[float],
    layers: int,
    runner: Runner,
    accumulators: Accumulators = "float32",
    *,
    batch: int = 1,
    window: Sequence[int] | None = None,
    image_bytes: int | None = None,
) -> Forecast:
    """What contouring a scan takes.

    shape, spacing_zyx: voxels and mm of the images, in array order (z, y, x). layers: label layers that are made.
    batch: how many tiles are run at once.
    window: rows and columns of the network's grid that tiles cover; None for all, which is what a scan without air
    needs. image_bytes: of all images together; None for int16.
    Raises ModelError when the plans do not describe a network that can be run here.
    """
    voxels = prod(shape)
    images = 2 * len(model.channels) * voxels if image_bytes is None else image_bytes
    order = model.transpose_forward
    grid = tile_grid(
        resampled_shape([shape[a] for a in order], [spacing_zyx[a] for a in order], model.spacing_mm), model.patch_size
    )
    rows, columns = grid.padded[1:] if window is None else window
    area, depth = rows * columns, grid.patch[0]
    network = _Network(model)
    each = 2 if accumulators == "float16" else 4
    ring = depth * area * (each * network.maps + 4)
    slices = SLICES_AT_ONCE * area * (4 * network.maps + 16)
    fed = 4 * len(model.channels) * depth * area
    tile = 4 * batch * (network.kept + FULL_SIZE_TENSORS[runner] * network.first + network.more_maps)
    weights = network.weights_bytes * len(model.folds)
    made = layers * voxels
    if runner == "GPU":
        gpu = GPU_CONTEXT + weights + ring + slices + tile
        return Forecast(runner, accumulators, PROCESS + images, RUNNER[runner] + weights + made + fed, gpu, batch)
    if runner == "OpenVINO":
        weights *= 2  # it keeps them in its own order beside what it read
    return Forecast(
        runner, accumulators, PROCESS + images, RUNNER[runner] + weights + made + fed + ring + slices + tile
    )


def ways(
    model: PlannedModel,
    shape: Sequence[int],
    spacing_zyx: Sequence[float],
    layers: int,
    runners: Sequence[Runner],
    accumulators: Accumulators | None = None,
    *,
    window: Sequence[int] | None = None,
    image_bytes: int | None = None,
) -> list[Forecast]:
    """What a run may do, the best way first: the runners in their order, each with more tiles at once before fewer and
    in float32 before float16, or only in the accumulators that are asked for. The rest as for `forecast`."""
    kinds: tuple[Accumulators, ...] = (accumulators,) if accumulators else ("float32", "float16")
    found = []
    for runner in runners:
        steps = [(kinds[0], batch) for batch in _batches(model, runner)] + [(kind, 1) for kind in kinds[1:]]
        for kind, batch in steps:
            told = forecast(
                model, shape, spacing_zyx, layers, runner, kind, batch=batch, window=window, image_bytes=image_bytes
            )
            found.append(told)
    return found


def _batches(model: PlannedModel, runner: Runner) -> list[int]:
    """How many tiles to run at once, the best number first, always down to 1."""
    most = min(GPU_TILES, GPU_VOXELS // prod(model.patch_size)) if runner == "GPU" else 1
    return [1 << power for power in reversed(range(max(1, most).bit_length()))]


def choose(possible: Sequence[Forecast], free: int | None, gpu_free: int | None = None) -> Forecast:
    """The first way that fits; the first of all where it is not known what is free.

    free, gpu_free: bytes that this process can still take. Raises ResourceError when none fits.
    """
    for way in possible:
        if (free is None or way.to_come <= free) and (way.gpu == 0 or gpu_free is None or way.gpu <= gpu_free):
            return way
    least = min(possible, key=lambda way: way.to_come)
    raise ResourceError(
        f"There is too little free memory for this model and CT: {_gigabytes(least.to_come)} are needed at least, "
        f"{_gigabytes(free or 0)} are free. Close other programs, use a smaller model, or crop the CT."
    )


class _Network:
    """What the plans tell about the size of a network, in numbers of values."""

    def __init__(self, model: PlannedModel) -> None:
        _, arguments = architecture_of(model.configuration)
        features = _per_stage(arguments["features_per_stage"], int(arguments["n_stages"]))
        kernels = [prod(_three(kernel)) for kernel in _per_stage(arguments["kernel_sizes"], len(features))]
        strides = [_three(stride) for stride in _per_stage(arguments["strides"], len(features))]
        repeats = arguments.get("n_conv_per_stage") or arguments.get("n_blocks_per_stage")
        convolutions = _per_stage(repeats, len(features))
        twice = 2 if "n_blocks_per_stage" in arguments else 1  # a residual block has two convolutions
        decoder = _per_stage(arguments["n_conv_per_stage_decoder"], len(features) - 1)
        size, voxels = list(model.patch_size), []
        for stride in strides:
            size = [n // step for n, step in zip(size, stride, strict=True)]
            voxels.append(prod(size))
        self.first = features[0] * voxels[0]
        self.kept = sum(f * v for f, v in zip(features, voxels, strict=True))
        folds, scores = len(model.folds), model.labels.score_channels
        by_scores = model.of_nnunet_v1 or features[0] * folds > scores
        self.maps = scores + (folds > 1) if by_scores else features[0] * folds
        # Of a tile, beside the last features: class scores, and what other folds gave.
        self.more_maps = voxels[0] * (scores * folds if by_scores else features[0] * (folds - 1))
        values = sum(twice * n * f * f * k for n, f, k in zip(convolutions, features, kernels, strict=True))
        for n, f, below, k, stride in zip(decoder, features, features[1:], kernels, strides[1:], strict=False):
            values += (n + 1) * f * f * k + f * below * prod(stride)
        self.weights_bytes = 4 * values


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.{1 if count >= 1e9 else 2}f} GB"


def _per_stage(value: Any, count: int) -> list[Any]:
    return [value] * count if isinstance(value, int) else list(value)


def _three(value: Any) -> list[int]:
    return [value] * 3 if isinstance(value, int) else [int(v) for v in value]
