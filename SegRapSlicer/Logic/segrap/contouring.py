"""The job itself: a CT pair and a model in, contours out, with progress on the way.

It turns the images into the axis order that the model was trained on, lets the engine run, turns the label layers back
onto the non-contrast CT's own grid, and states where the contours come from. A demonstration model is refused on
anything but made-up patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import numpy as np

import segrap
from segrap import anatomy
from segrap.contours import Contours, IntendedUse, Provenance
from segrap.ct.pair import CTPair
from segrap.engine.tiles import STEP
from segrap.errors import ModelError, UsageError
from segrap.image import AxisOrder
from segrap.midline import split_sides
from segrap.models.folder import Model
from segrap.pieces import remove_stray_pieces
from segrap.progress import CancelCheck, Progress, ProgressCallback

if TYPE_CHECKING:
    from segrap.engine.backends import Networks


def contour(
    pair: CTPair,
    model: Model,
    structures: Sequence[str] | None = None,
    device: str = "auto",
    allow_demo_model: bool = False,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    *,
    quick: bool = False,
    step: float = STEP,
    networks: Networks | None = None,
) -> Contours:
    """Contour a CT pair (or one CT, if the model wants one).

    structures: SegRap names, or None for all that the model contours. device: "auto", "cpu", "cuda", "cuda:N" or "mps".
    allow_demo_model: run a demonstration model on images that are not a made-up patient's.
    quick: bfloat16 where the CPU can; the contours say so. step: the part of a tile between one and the next; another
    than nnU-Net's 0.5 changes the contours, and they say so. networks: keeps the model ready for the next patient.
    progress is called from this thread; cancelled is asked at least once a second.

    Returns contours on the grid of the non-contrast CT, none of them reviewed by anybody.
    Raises UsageError (a structure that the model does not contour, an impossible step), InputError (the model wants a
    CT that is not there), ModelError, ResourceError, Cancelled.
    """
    from segrap.engine import segment

    if structures is not None:
        absent = [name for name in structures if name not in model.structures]
        if absent:
            raise UsageError(f"The model {model.name} does not contour {', '.join(absent)}.")
    refuse_demo_on_patients(pair, model, allow_demo_model)
    images = pair.images(model.channels)
    if progress:
        progress(Progress("Preparing", 0.0, f"{model.name} {model.version}, {len(model.structures)} structures"))

    order = AxisOrder.towards_lps(pair.non_contrast.geometry)
    spacing_zyx = order.turn(pair.non_contrast).geometry.spacing_mm[::-1]
    plan = model.output_plan(structures)
    segmentation = segment(
        model,
        [order.apply(image) for image in images],
        (spacing_zyx[0], spacing_zyx[1], spacing_zyx[2]),
        plan,
        device=device,
        progress=progress,
        cancelled=cancelled,
        quick=quick,
        step=step,
        networks=networks,
    )
    layers = segmentation.layers
    hu = order.apply(pair.non_contrast.array)
    remarks = [*segmentation.remarks, *split_sides(layers, plan.placement, plan.pairs, spacing_zyx, hu)]
    if model.one_piece and (removed := remove_stray_pieces(layers, plan.placement, spacing_zyx)):
        amounts = ", ".join(f"{name} {volume:.2g} cc" for name, volume in removed.items())
        remarks.append(f"Small pieces apart from the structure were removed, as the model asks: {amounts}.")
    origin = provenance(pair, model)
    contours = Contours.from_layers(
        np.ascontiguousarray(order.undo(layers)),
        pair.non_contrast.geometry,
        plan.placement,
        replace(origin, engine=segmentation.engine, remarks=(*origin.remarks, *remarks)),
        segmentation.confidence,
        fold_disagreement=segmentation.disagreement,
    )
    return contours if structures is None or not plan.pairs else contours.subset(structures)


def refuse_demo_on_patients(pair: CTPair, model: Model, allowed: bool) -> None:
    """Raise ModelError when a demonstration model is about to run on what is not a made-up patient, unless allowed."""
    if model.intended_use == "demonstration" and not allowed:
        from segrap.training.phantom import looks_like_phantom

        if not looks_like_phantom(pair.non_contrast):
            raise ModelError(
                f"{model.name} is a demonstration model: it knows made-up patients only, and this scan is not one of "
                "them. Choose another model.",
                "demonstration",
            )


def provenance(pair: CTPair, model: Model) -> Provenance:
    """Where contours of this pair by this model come from, as it is written into every file made of them."""
    split = [
        f"{left} and {right} are one to {model.name}, parted into left and right afterwards."
        for left, right in model.labels.pairs
    ]
    series = (pair.non_contrast_series, pair.contrast_series if "contrast" in model.channels else None)
    return Provenance(
        model_name=model.name,
        model_version=model.version,
        model_hash=model.hash,
        intended_use=cast(IntendedUse, model.intended_use),  # read_model lets no other pass
        licence=model.licence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        software=f"segrap {segrap.__version__}",
        input_series_uids=tuple(one.series_uid for one in series if one),
        remarks=(*pair.remarks, *split),
    )


def coverage(names: Sequence[str]) -> str:
    """What a set of structures amounts to, in words: "45 organs at risk, 2 tumour volumes"."""
    targets = sum(anatomy.structure(name).is_target for name in names)
    organs = len(names) - targets
    words = [f"{organs} organ{'s' * (organs != 1)} at risk"] * (organs > 0)
    return ", ".join(words + [f"{targets} tumour volume{'s' * (targets != 1)}"] * (targets > 0))
