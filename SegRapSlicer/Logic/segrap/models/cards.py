"""What a person is shown of a model before choosing it, read without torch and without opening its weights.

A card does not say that a model can be run; `segrap.models.folder.read_model` finds that out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segrap import anatomy
from segrap.errors import ModelError
from segrap.models.combinations import members
from segrap.models.labels import read_labels
from segrap.models.library import LibraryEntry, list_models
from segrap.models.plans import read_facts


@dataclass(frozen=True)
class ModelCard:
    """A model of the library: what it is and what it contours. fault: why it cannot be chosen, "" when it can."""

    entry: LibraryEntry
    structures: tuple[str, ...]
    wants_pair: bool
    fault: str = ""


def list_cards() -> list[ModelCard]:
    """The cards of all models at hand, in the library's order."""
    return [_card(entry) for entry in list_models()]


def _card(entry: LibraryEntry) -> ModelCard:
    try:
        facts = [_structures_and_channels(folder) for folder in members(entry.folder)]
    except (OSError, ValueError, ModelError) as error:
        return ModelCard(entry, (), False, f"{entry.name} cannot be used: {error}")
    covered = {name for structures, _ in facts for name in structures}
    structures = tuple(name for name in anatomy.NAMES if name in covered)
    return ModelCard(entry, structures, any(count == 2 for _, count in facts))


def _structures_and_channels(folder: Path) -> tuple[tuple[str, ...], int]:
    """What the model in a folder contours, and how many CTs it needs."""
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    if not isinstance(dataset, Mapping):
        raise ValueError("dataset.json is not a JSON object")
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    return read_labels(dataset, read_facts(folder)).covered, len(channels)
