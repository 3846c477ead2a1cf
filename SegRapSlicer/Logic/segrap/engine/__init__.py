"""The engine: runs a model on CT arrays with nnU-Net's exact semantics, in a stream of slabs.

`segment` is the one way in. `prepare` makes the network's input, `body` finds the patient, `tiles` lays the sliding
window, `memory` tells what the run will take and chooses what fits, `backends` runs the network (with torch or
OpenVINO), `tile_run` goes on in less memory when it runs out all the same, `stream` adds up the tiles and paints the
label layers, `confidence` measures how sure the model is of each contour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segrap.engine.tiles import STEP
from segrap.errors import Cancelled, UsageError
from segrap.progress import CancelCheck, Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from segrap.engine.backends import Backend, Networks
    from segrap.engine.memory import Accumulators
    from segrap.models.folder import Model
    from segrap.models.labels import OutputPlan


MEMORY = "Memory"
"""The stage of the progress that says what memory the run takes, and when it goes on in less."""


class Segmentation(NamedTuple):
    """What a run gives: label layers (layers, z, y, x) uint8 on the images' grid; what ran the network, in words, for
    example "torch 2.13.0 on CPU, float32" ("" where there was nothing to run on); what its reader should know; and, of
    each structure that was found, how sure the model is and how much its folds disagree, 0 to 1 (see
    `segrap.engine.confidence`; the last is empty for a model of one fold)."""

    layers: np.ndarray
    engine: str = ""
    remarks: tuple[str, ...] = ()
    confidence: Mapping[str, float] = MappingProxyType({})
    disagreement: Mapping[str, float] = MappingProxyType({})


def segment(
    model: Model,
    images: Sequence[np.ndarray],
    spacing_zyx: Sequence[float],
    output_plan: OutputPlan,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    *,
    mirror: bool = True,
    skip_air: bool = True,
    quick: bool = False,
    step: float = STEP,
    networks: Networks | None = None,
    accumulators: Accumulators | None = None,
) -> Segmentation:
    """Contour images with a model: label layers on the images' grid.

    images: one (z, y, x) array of Hounsfield units per model channel, in the model's order, all on one grid whose axes
        run along the patient's (LPS: x to the left, y to the back, z to the head).
    spacing_zyx: mm, in array order.
    output_plan: `model.output_plan(...)`.
    device: auto (CUDA, then MPS where there is one), cpu, cuda, cuda:N or mps.
    progress: called before every tile, or before the few that a GPU runs at once. cancelled: asked before every slice
        and every layer of the network.
    mirror: average over flips along the axes that the model allows, as nnU-Net does by default.
    skip_air: leave out tiles on which no voxel of the body depends; then labels are nnU-Net's inside the body (above
        -500 HU, without what is thin and lies apart, as couch and mask), and background where no tile was run.
    quick: compute in bfloat16 where the CPU can: faster, and labels differ in a few voxels of ten thousand.
    step: the part of a tile, over 0 to 1, between one and the next; another than nnU-Net's 0.5 changes the labels.
    networks: what keeps the model ready from one call to the next; None makes it ready for this call only.
    accumulators: the type that tiles are added up in; None for float32, or float16 where only that fits into memory.

    Before the networks are loaded, progress is told under the stage MEMORY what the run will take and what is free, and
    again whenever it goes on in less memory; what of that concerns the contours stands in the remarks.

    Labels equal those of nnunetv2's predictor with its default settings, up to its float16 rounding of class scores;
    for models imported from nnU-Net v1, those of nnunet's.
    Raises UsageError (an impossible step), ModelError (wrong number of images), InputError (images that cannot be
    used), ResourceError (no such device, or too little memory: if that is foreseen, before anything is loaded),
    Cancelled.
    """
    from segrap.engine.backends import (
        CPU,
        GPU_TOO_SMALL,
        Networks,
        choose_device,
        free_gpu_bytes,
        memory_errors_explained,
    )
    from segrap.engine.body import tiles_with_body
    from segrap.engine.confidence import ShellMargins
    from segrap.engine.free_memory import free_bytes
    from segrap.engine.memory import choose, ways
    from segrap.engine.prepare import NetworkInput, plan_frame
    from segrap.engine.stream import FeatureRing, LayerPainter
    from segrap.engine.tile_run import OTHER_STEP, TileRun
    from segrap.engine.tiles import importance, plan_tiles, tile_grid

    def check() -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("The contouring was cancelled.")

    def report(stage: str, fraction: float, message: str = "") -> None:
        check()
        if progress is not None:
            progress(Progress(stage, fraction, message))

    if not 0 < step <= 1:
        raise UsageError(f"Tiles cannot be {step:g} of their size apart: choose a step over 0, up to 1.")
    with memory_errors_explained():
        where = choose_device(device)  # an impossible one is refused before anything takes time
        networks = networks or Networks()
        report("Preparing the images", 0.0)
        frame = plan_frame(model, images, spacing_zyx)
        grid = tile_grid(frame.network_shape, model.patch_size, step)
        plan = plan_tiles(grid, tiles_with_body(frame, images, grid, check) if skip_air else None)
        layer_count = output_plan.table.shape[0]
        if plan.count == 0:
            return Segmentation(np.zeros((layer_count, *images[0].shape), dtype=np.uint8))

        free = free_bytes()
        way = choose(
            ways(
                model,
                images[0].shape,
                spacing_zyx,
                layer_count,
                [networks.likely_runner(one) for one in ([where, CPU] if where.type == "cuda" else [where])],
                accumulators,
                window=[part.stop - part.start for part in plan.window],
                image_bytes=sum(image.nbytes for image in images),
            ),
            free,
            free_gpu_bytes(where),
        )
        report(MEMORY, 0.0, way.words(free))
        notes = [] if step == STEP else [OTHER_STEP.format(step)]
        if where.type == "cuda" and way.runner != "GPU":
            where = CPU
            notes.append(GPU_TOO_SMALL)
            report(MEMORY, 0.0, GPU_TOO_SMALL)
        layers = np.zeros((layer_count, *images[0].shape), dtype=np.uint8)
        source = NetworkInput(model, frame, grid, images, plan, check)
        report("Loading the model", 0.0, model.name)

        def open_on(chosen: torch.device) -> Backend:
            backend, remarks = networks.open(
                model,
                str(chosen),
                mirror=mirror,
                quick=quick,
                patches=plan.count,
                check=check,
                say=lambda words: report("Loading the model", 0.0, words),
            )
            notes.extend(remarks)
            return backend

        backend = open_on(where)
        report("Contouring", 0.0, backend.name)
        done = 0
        weights = importance(grid.patch, rounded=not model.of_nnunet_v1)
        run = TileRun(
            backend,
            lambda dtype, device: FeatureRing(grid, plan, backend.channels, device, weights, dtype),
            way.accumulators,
            way.batch if backend.runs_on != CPU else 1,
            source,
            lambda: open_on(CPU),
            lambda words: report(MEMORY, done / plan.count, words),
        )
        backend = run.backend
        painter = LayerPainter(frame, grid, plan, output_plan, backend.head, layers, backend.device)
        shells = ShellMargins(
            output_plan, painter.table, backend.head, model.spacing_mm, probabilities=model.of_nnunet_v1
        )
        run.followers = (painter, shells)
        for number, row in enumerate(plan.rows):
            for starts in row.groups(run.batch):
                report("Contouring", done / plan.count, f"tile {done + 1} of {plan.count}")
                run.add(starts)
                done += len(starts)
            last = number + 1 == len(plan.rows)
            for z, maps, covered in run.ring.take(row.start, grid.padded[0] if last else plan.rows[number + 1].start):
                shells.add(z, maps, painter.paint(z, maps, covered), covered)
        report("Contouring", 1.0)
        return Segmentation(layers, run.backend.name, (*notes, *run.remarks), *shells.finish())
