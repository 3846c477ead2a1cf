"""The engine: runs a model on CT arrays with nnU-Net's exact semantics, in a stream of slabs.

`segment` is the one way in. `prepare` makes the network's input, `body` finds the patient, `tiles` lays the sliding
window, `backends` runs the network (with torch or OpenVINO), `stream` adds up the tiles and paints the label layers,
`confidence` measures how sure the model is of each contour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segrap.errors import Cancelled
from segrap.progress import CancelCheck, Progress, ProgressCallback

if TYPE_CHECKING:
    from segrap.engine.backends import Networks
    from segrap.models.folder import Model
    from segrap.models.labels import OutputPlan


class Segmentation(NamedTuple):
    """What a run gives: label layers (layers, z, y, x) uint8 on the images' grid; what ran the network, in words, for
    example "torch 2.13.0 on CPU, float32" ("" where there was nothing to run on); what its reader should know; and how
    sure the model is of each structure that it found, 0 to 1 (see `segrap.engine.confidence`)."""

    layers: np.ndarray
    engine: str = ""
    remarks: tuple[str, ...] = ()
    confidence: Mapping[str, float] = MappingProxyType({})


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
    networks: Networks | None = None,
) -> Segmentation:
    """Contour images with a model: label layers on the images' grid.

    images: one (z, y, x) array of Hounsfield units per model channel, in the model's order, all on one grid whose axes
        run along the patient's (LPS: x to the left, y to the back, z to the head).
    spacing_zyx: mm, in array order.
    output_plan: `model.output_plan(...)`.
    device: auto (CUDA, then MPS where there is one), cpu, cuda, cuda:N or mps.
    progress: called before every tile. cancelled: asked before every slice and every layer of the network.
    mirror: average over flips along the axes that the model allows, as nnU-Net does by default.
    skip_air: leave out tiles on which no voxel of the body depends; then labels are nnU-Net's inside the body (above
        -500 HU, without what is thin and lies apart, as couch and mask), and background where no tile was run.
    quick: compute in bfloat16 where the CPU can: faster, and labels differ in a few voxels of ten thousand.
    networks: what keeps the model ready from one call to the next; None makes it ready for this call only.

    Labels equal those of nnunetv2's predictor with its default settings, up to its float16 rounding of class scores;
    for models imported from nnU-Net v1, those of nnunet's.
    Raises ModelError (wrong number of images), InputError (images that cannot be used), ResourceError (no such device,
    out of memory), Cancelled.
    """
    from segrap.engine.backends import Networks, choose_device, memory_errors_explained
    from segrap.engine.body import tiles_with_body
    from segrap.engine.confidence import ShellMargins
    from segrap.engine.prepare import NetworkInput, plan_frame
    from segrap.engine.stream import FeatureRing, LayerPainter
    from segrap.engine.tiles import importance, plan_tiles, tile_grid

    def check() -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("The contouring was cancelled.")

    def report(stage: str, fraction: float, message: str = "") -> None:
        check()
        if progress is not None:
            progress(Progress(stage, fraction, message))

    with memory_errors_explained():
        choose_device(device)  # an impossible one is refused before anything takes time
        report("Preparing the images", 0.0)
        frame = plan_frame(model, images, spacing_zyx)
        grid = tile_grid(frame.network_shape, model.patch_size)
        plan = plan_tiles(grid, tiles_with_body(frame, images, grid, check) if skip_air else None)
        layers = np.zeros((output_plan.table.shape[0], *images[0].shape), dtype=np.uint8)
        if plan.count == 0:
            return Segmentation(layers)
        source = NetworkInput(model, frame, grid, images, plan, check)
        report("Loading the model", 0.0, model.name)
        backend, remarks = (networks or Networks()).open(
            model,
            device,
            mirror=mirror,
            quick=quick,
            patches=plan.count,
            check=check,
            say=lambda words: report("Loading the model", 0.0, words),
        )
        report("Contouring", 0.0, backend.name)
        weights = importance(grid.patch, rounded=not model.of_nnunet_v1)
        ring = FeatureRing(grid, plan, backend.channels, backend.device, weights)
        painter = LayerPainter(frame, grid, plan, output_plan, backend.head, layers, backend.device)
        shells = ShellMargins(
            output_plan, painter.table, backend.head, model.spacing_mm, probabilities=model.of_nnunet_v1
        )
        done = 0
        for number, row in enumerate(plan.rows):
            for y, x in row.tiles:
                report("Contouring", done / plan.count, f"tile {done + 1} of {plan.count}")
                ring.add(backend.features(source.patch((row.start, y, x))), (row.start, y, x))
                done += 1
            last = number + 1 == len(plan.rows)
            for z, maps, covered in ring.take(row.start, grid.padded[0] if last else plan.rows[number + 1].start):
                shells.add(z, maps, painter.paint(z, maps, covered), covered)
        report("Contouring", 1.0)
        return Segmentation(layers, backend.name, remarks, shells.finish())
