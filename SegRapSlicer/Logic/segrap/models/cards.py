"""What a person is shown of a model before choosing it, read without torch and without opening its weights.

A card does not say that a model can be run; `segrap.models.folder.read_model` finds that out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from segrap.errors import ModelError
from segrap.models.labels import read_labels
from segrap.models.library import LibraryEntry, list_models


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
        dataset = json.loads((entry.folder / "dataset.json").read_text(encoding="utf-8"))
        facts_path = entry.folder / "segrap.json"
        facts = json.loads(facts_path.read_text(encoding="utf-8")) if facts_path.exists() else {}
        if not isinstance(dataset, Mapping):
            raise ValueError("dataset.json is not a JSON object")
        channels = dataset.get("channel_names") or dataset.get("modality") or {}
        structures = read_labels(dataset, facts.get("structures")).covered
    except (OSError, ValueError, ModelError) as error:
        return ModelCard(entry, (), False, f"{entry.name} cannot be used: {error}")
    return ModelCard(entry, structures, len(channels) == 2)
