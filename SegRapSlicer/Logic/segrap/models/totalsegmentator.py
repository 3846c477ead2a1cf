"""TotalSegmentator's published weights as models of segrap: which of its classes are which structures, and the terms.

`totalsegmentator.json` is the table: for each of its nnU-Net datasets the task, the licence, the address, the class
names in the order of their numbers, the SegRap structures that they are, and in words where the definitions differ or
were not compared. `prepare` makes a downloaded folder into a model that states all this.

TotalSegmentator turns images to RAS, crops them to a region that another model finds, resamples them to the model's
spacing (linearly by default since its version 2.16, for speed; with cubic splines before, and still on demand) and
brings labels back. Here the same networks see the whole patient, resampled with the cubic splines that their plans and
training state and its authors call slightly more accurate, and class scores are brought back by nnU-Net's own linear
interpolation: results are not voxel by voxel the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segrap.errors import ModelError, UsageError

SCHEME = "totalsegmentator:"


@dataclass(frozen=True)
class Weights:
    """One entry of the table. labels: class names, that of number 1 first; notes: structure -> what to know of it."""

    dataset: str
    task: str
    licence: str
    address: str
    version: str
    labels: tuple[str, ...]
    structures: Mapping[str, list[str]]
    split_at_midline: Mapping[str, list[str]]
    notes: Mapping[str, str]

    @property
    def terms(self) -> str:
        """What a person agrees to and should know before installing."""
        lines = [
            f"TotalSegmentator {self.task} ({self.dataset} {self.version}".rstrip() + ").",
            f"Licence of the weights: {self.licence}. Cite Wasserthal et al., Radiology: AI 2023, and nnU-Net.",
            "Not a medical device. Not measured on SegRap's patients.",
        ]
        return "\n".join([*lines, *(f"{name}: {note}" for name, note in self.notes.items())])


@cache
def known_weights() -> tuple[Weights, ...]:
    """All entries of the table."""
    table = json.loads((Path(__file__).parent / "totalsegmentator.json").read_text(encoding="utf-8"))["datasets"]
    found = []
    for dataset, entry in table.items():
        whole = table.get(entry.get("like"), {}) | {key: value for key, value in entry.items() if key != "like"}
        found.append(Weights(dataset=dataset, **whole | {"labels": tuple(whole["labels"].split())}))
    return tuple(found)


def weights_of_task(task: str) -> Weights:
    """The weights of a task that can be downloaded. Raises UsageError, which lists the tasks."""
    found = {one.task: one for one in known_weights()}
    if task not in found:
        raise UsageError(f"There is no task {task} here. Known are {', '.join(found)}.")
    if not found[task].address:
        raise UsageError(
            f"The weights of {task} cannot be downloaded by address: {found[task].licence}. Get them with "
            "TotalSegmentator itself, and install the folder (below ~/.totalsegmentator/nnunet/results)."
        )
    return found[task]


def recognise(*places: object) -> Weights | None:
    """The weights that a path or an address names by their dataset, or None."""
    named = {name for place in places for name in re.findall(r"Dataset\d{3}_\w+", str(place))}
    return next((one for one in known_weights() if one.dataset in named), None)


def usual_model(found: Sequence[Path]) -> list[Path]:
    """Of several model folders of one of its datasets, the one that TotalSegmentator runs unless it is asked for
    another ("big", not "small", for total_v3); else all that were found."""
    usual = [one for one in found if "__nnUNetPlans__" in one.name]
    of_one_dataset = len({one.parent for one in found}) == 1 and recognise(found[0].parent) is not None
    return usual if of_one_dataset and len(usual) == 1 else list(found)


def prepare(folder: Path, weights: Weights, origin: str = "") -> None:
    """Write into a model folder what its labels mean, its licence and its card, and how its images are resampled.

    origin: a sentence for the card on the file that it came from.

    Raises ModelError when its labels are not those of the table.
    """
    dataset = _read(folder / "dataset.json")
    theirs = {name: number for name, number in (dataset.get("labels") or {}).items() if name != "background"}
    expected = {name: number for number, name in enumerate(weights.labels, 1)}
    # TotalSegmentator goes by the numbers alone; a known name with another number tells that they have changed.
    if sorted(theirs.values(), key=str) != sorted(expected.values(), key=str) or any(
        expected.get(name, number) != number for name, number in theirs.items()
    ):
        raise ModelError(
            f"These weights do not have the labels of TotalSegmentator's {weights.task} that are known here."
        )
    dataset["labels"] = {"background": 0, **expected}
    plans = _read(folder / "plans.json")
    for configuration in (plans.get("configurations") or {}).values():
        for key in ("resampling_fn_data_kwargs", "resampling_fn_probabilities_kwargs"):
            if key in configuration:
                configuration[key]["force_separate_z"] = False
    known = {**weights.structures, **weights.split_at_midline}
    facts = {
        "name": f"TotalSegmentator {weights.task}",
        "version": weights.version or "unknown",
        "licence": weights.licence,
        "intended_use": "research",
        "description": f"TotalSegmentator's {weights.task}, one CT; definitions are TotalSegmentator's.",
        "channels": ["non_contrast"],
        "orientation": "RAS",
        "structures": {
            label: weights.structures.get(label, [])
            for label in weights.labels
            if label not in weights.split_at_midline
        },
        "split_at_midline": weights.split_at_midline,
    }
    rows = [f"| {label} | {', '.join(names)} |" for label, names in known.items()]
    card = [
        f"# {facts['name']}",
        "",
        weights.terms.replace("\n", "\n\n"),
        *(["", origin] if origin else []),
        "",
        "| its class | structures here |",
        "|---|---|",
        *rows,
    ]
    for name, content in (("dataset", dataset), ("plans", plans), ("segrap", facts)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text("\n".join(card) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ModelError(f"{path.name} of the weights cannot be read: {fault}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} of the weights is not a JSON object.")
    return content
