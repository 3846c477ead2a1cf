"""Reading an nnU-Net v2 model folder without running any code of it.

A folder holds `dataset.json`, `plans.json` and `fold_*/checkpoint_final.pth`, and may hold our `segrap.json`:

    {"name": "...", "version": "1.0", "licence": "...", "description": "...",
     "intended_use": "demonstration" | "research" | "clinical",
     "channels": ["non_contrast", "contrast"],        one or two, in the model's channel order
     "one_piece": false,                               true: small pieces apart from an organ are removed
     "orientation": "LPS" | "RAS",                     how the arrays lay that it was trained on
     "structures": {"label name": ["Structure", ...]}, for labels with names of their own
     "split_at_midline": {"label name": ["Left", "Right"]}}  for labels that hold both sides

`read_model` checks all that can be checked before an image is there, and says with a ModelError what of the folder
cannot be honoured exactly: nothing is approximated. Not here: what the labels mean (`labels`), the networks (`network`,
`checkpoint`), running them (`segrap.engine`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrap.errors import ModelError
from segrap.models import nnunet_v1
from segrap.models.labels import OutputPlan
from segrap.models.plans import CHECKPOINT, PlannedModel, choose_folds, one_of, plan, read_facts, read_json

if TYPE_CHECKING:
    from segrap.models.network import UNet

INTENDED_USES = ("demonstration", "research", "clinical")
# nnU-Net's trainers that neither change the network that the plans describe nor what is done with its output.
# A checkpoint of any other trainer may need code that is not in the folder.
_TRAINER_PARTS = (
    r"(Benchmark|DA5|NoDA|NoMirroring|NoDeepSupervision|noDummy2DDA|onlyMirror01|DASegOrd0|DA5ord0|DA5Segord0"
    r"|CosAnneal|warmup|(Vanilla)?Adam(1en3|3en4)?|Adan(1en1|1en3|3en4)?|DiceLoss|DiceCELoss|noSmooth|CELoss"
    r"|(Dice)?Topk?K?10Loss(LS01)?|probabilisticOversampling|033|010|\d+ep(och)?s?)"
)
TRAINERS = re.compile(rf"nnUNetTrainer(_?{_TRAINER_PARTS})*")


@dataclass(frozen=True)
class Model(PlannedModel):
    """A model that can be run here.

    mirror_axes: axes, in network order, over which the network may be mirrored and averaged; () for none.
    one_piece: small pieces apart from the largest of each organ are to be removed (`segrap.pieces`).
    hash: "sha256:..." over every file that changes the result.
    """

    name: str
    version: str
    licence: str
    intended_use: str
    one_piece: bool
    description: str
    mirror_axes: tuple[int, ...]
    hash: str

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures it contours, in the order of `anatomy`."""
        return self.labels.covered

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """The spacing it was trained at, mm, in the order of image arrays."""
        by_axis = dict(zip(self.transpose_forward, self.spacing_mm, strict=True))
        return by_axis[0], by_axis[1], by_axis[2]

    def checkpoint_path(self, fold: str) -> Path:
        """Where the weights of one of its folds lie."""
        return self.folder / f"fold_{fold}" / CHECKPOINT

    def output_plan(self, structures: Sequence[str] | None = None) -> OutputPlan:
        """How its class scores become label layers; see `Labels.output_plan`."""
        return self.labels.output_plan(structures)

    def load_networks(self) -> list[UNet]:
        """Build one float32 network per fold, on the CPU, in evaluation mode, with its weights."""
        from segrap.models.checkpoint import load_network

        return [load_network(self, self.checkpoint_path(fold)) for fold in self.folds]


def read_model(folder: str | Path, folds: Sequence[str | int] | None = None) -> Model:
    """Read and check a model folder.

    folds: which of its folds to run as an ensemble; as in nnU-Net, all numbered ones by default, else `fold_all`.
    The configuration is the one that the first fold's checkpoint was trained with.
    Raises ModelError: incomplete or damaged folder, code in a checkpoint, or a setting that cannot be honoured exactly.
    """
    from segrap.models.checkpoint import check_weights, read_checkpoint

    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    if nnunet_v1.holds_v1_model(folder):
        raise ModelError(f"{folder} is a model of nnU-Net v1. Convert it with: segrap models install {folder}")
    dataset, plans = read_json(folder / "dataset.json"), read_json(folder / "plans.json")
    facts = read_facts(folder)
    names = choose_folds(folder, folds)
    checkpoints = [read_checkpoint(folder / f"fold_{name}" / CHECKPOINT) for name in names]
    configuration_name = checkpoints[0].configuration
    for checkpoint in checkpoints:
        if not (TRAINERS.fullmatch(checkpoint.trainer) or nnunet_v1.TRAINERS.fullmatch(checkpoint.trainer)):
            raise ModelError(
                f"The model was trained by {checkpoint.trainer}, which may change the network in ways that its folder "
                "does not tell. Only nnU-Net's own trainers that keep the planned network can be run here."
            )
        if checkpoint.configuration != configuration_name:
            raise ModelError(
                f"The folds of {folder} are of different configurations: "
                f"{configuration_name} and {checkpoint.configuration}."
            )
    planned = plan(folder, dataset, plans, facts, names, configuration_name)
    model = Model(
        **vars(planned),
        name=str(facts.get("name") or folder.resolve().name),
        version=str(facts.get("version") or "unknown"),
        licence=str(facts.get("licence") or "unknown"),
        intended_use=one_of(facts, "intended_use", INTENDED_USES, "research"),
        one_piece=_yes_or_no(facts, "one_piece"),
        description=str(facts.get("description") or dataset.get("description") or ""),
        mirror_axes=checkpoints[0].mirror_axes,
        hash=_hash(folder, names),
    )
    for fold, checkpoint in zip(names, checkpoints, strict=True):
        check_weights(model, fold, checkpoint.weights)
    return model


def _yes_or_no(facts: Mapping[str, Any], key: str) -> bool:
    value = facts.get(key, False)
    if not isinstance(value, bool):
        raise ModelError(f"The model's segrap.json has {key} {value!r}; it must be true or false.")
    return value


def _hash(folder: Path, folds: Sequence[str]) -> str:
    total = hashlib.sha256()
    for name in ("dataset.json", "plans.json", "segrap.json", *(f"fold_{fold}/{CHECKPOINT}" for fold in folds)):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"
