"""Several models for one patient: each structure from the first of them that contours it.

The models run one after another, each for its own share of the structures, so that only one is in memory at a time.
Which model made a structure stays with it (`StructureFacts.model`) and stands in every table and file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from segrap import anatomy
from segrap.contouring import contour
from segrap.contours import Contours, IntendedUse, Provenance
from segrap.ct.pair import CTPair
from segrap.errors import ModelError, UsageError
from segrap.label_layers import LayerStack
from segrap.models.combinations import members
from segrap.models.folder import Model, read_model
from segrap.models.library import find_model, list_models
from segrap.progress import CancelCheck, Progress, ProgressCallback


def compose(
    pair: CTPair,
    models: Sequence[Model],
    structures: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **settings: Any,
) -> Contours:
    """Contour a CT pair with one or several models; of a structure that several contour, the first one's counts.

    structures: SegRap names, or None for all that the models contour together. settings: passed on to
    `segrap.contouring.contour`, whose words they are; so are the errors.
    Returns contours whose provenance names all models that were run.
    """
    shares = share_out(models, structures)
    parts: list[Contours] = []
    for number, (model, share) in enumerate(shares, 1):
        report = progress if len(shares) == 1 else _counted(progress, number, len(shares))
        parts.append(contour(pair, model, share, progress=report, cancelled=cancelled, **settings))
    return parts[0] if len(parts) == 1 else merge(parts)


def share_out(models: Sequence[Model], structures: Sequence[str] | None = None) -> list[tuple[Model, tuple[str, ...]]]:
    """Which model contours which structures; models that nothing is left for are not in it.

    Raises UsageError when no model contours a wanted structure.
    """
    left = [name for name in anatomy.NAMES if structures is None or name in structures]
    shares = []
    for model in models:
        share = tuple(name for name in left if name in model.structures)
        left = [name for name in left if name not in share]
        if share:
            shares.append((model, share))
    if structures is not None and left:
        many = "None of the models" if len(models) > 1 else f"The model {models[0].name}"
        words = f"{many} {'contours' if len(models) > 1 else 'does not contour'} {', '.join(left)}."
        raise UsageError(words, "model")
    return shares


def _counted(progress: ProgressCallback | None, number: int, count: int) -> ProgressCallback | None:
    if progress is None:
        return None
    tell = progress

    def report(one: Progress) -> None:
        tell(Progress(f"{one.stage}, model {number} of {count}", (number - 1 + one.fraction) / count, one.message))

    return report


def merge(parts: Sequence[Contours]) -> Contours:
    """Contours on one grid, of different structures, as one; each structure is told which model made it.

    Two structures that should not overlap, but do because two models drew them, are both kept whole.
    """
    stack = LayerStack()
    measured: dict[str, dict[str, Any]] = {}
    for part in parts:
        for name, facts in part.structures.items():
            stack.add_in_box(name, *part.mask_in_box(name), part.shape)
            measured[name] = {
                "model": part.maker(name),
                "confidence": facts.confidence,
                "fold_disagreement": facts.fold_disagreement,
            }
    whole = Contours.from_layers(
        stack.take(), parts[0].geometry, stack.placement, _common_provenance([p.provenance for p in parts])
    )
    structures = {name: replace(facts, **measured[name]) for name, facts in whole.structures.items()}
    return replace(whole, structures=structures)


def _common_provenance(several: Sequence[Provenance]) -> Provenance:
    uses: tuple[IntendedUse, ...] = ("demonstration", "research", "clinical")
    hashes = "\n".join(one.model_hash for one in several)
    return replace(
        several[0],
        model_name=" + ".join(f"{one.model_name} {one.model_version}".strip() for one in several),
        model_version="",
        model_hash=f"sha256:{hashlib.sha256(hashes.encode()).hexdigest()}",
        intended_use=min((one.intended_use for one in several), key=uses.index),
        licence="; ".join(f"{one.model_name}: {one.licence}" for one in several),
        engine="; ".join(_once(one.engine for one in several)),
        input_series_uids=_once(uid for one in several for uid in one.input_series_uids),
        remarks=_once(remark for one in several for remark in one.remarks),
    )


def _once(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def channels(models: Sequence[Model]) -> tuple[str, ...]:
    """Which CTs the models want together, the non-contrast first."""
    wanted = {channel for model in models for channel in model.channels}
    return tuple(channel for channel in ("non_contrast", "contrast") if channel in wanted)


def choose_models(
    pair: CTPair, names: Sequence[str] = (), structures: Sequence[str] | None = None
) -> tuple[Model, ...]:
    """The models of those names or folders, in that order, or, without names, what of the library suits the pair best.

    A combination stands for its models. Without names, made-up patients get a demonstration model, others never; of
    what needs no more CTs than there are, what contours most of the wanted structures comes first, then what the user
    installed before what ships, then what contours most structures.
    structures: the wanted ones, SegRap names, or None for whatever there is.

    Raises UsageError (no such model), ModelError (no installed model suits, or the models do not go together).
    """
    from segrap.training.phantom import looks_like_phantom

    if names:
        models = tuple(read_model(folder) for name in names for folder in members(find_model(name)))
        if len(models) > 1 and any(model.intended_use == "demonstration" for model in models):
            raise ModelError("A demonstration model cannot be used together with others.")
        return models
    made_up = looks_like_phantom(pair.non_contrast)
    entries = [entry for entry in list_models() if (entry.intended_use == "demonstration") == made_up]
    choices = [(entry.shipped, tuple(read_model(folder) for folder in members(entry.folder))) for entry in entries]
    suitable = [(shipped, models) for shipped, models in choices if pair.contrast or "contrast" not in channels(models)]
    if not suitable:
        have = "a CT pair" if pair.contrast else "a single CT"
        raise ModelError(
            f"No installed model contours {have} of a real patient. Install one, or give the folder of one.",
            "model",
        )

    def order(choice: tuple[bool, tuple[Model, ...]]) -> tuple[int, bool, int]:
        shipped, models = choice
        contoured = {name for model in models for name in model.structures}
        return len(set(structures or ()) - contoured), shipped, -len(contoured)

    return min(suitable, key=order)[1]
