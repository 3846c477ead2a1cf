"""A site's own presets: named choices of structures, kept in one JSON file that can be handed to colleagues.

The file is {"presets": {NAME: [STRUCTURE, ...]}}, in the user's folder beside the models (see `segrap.models.library`),
so that updates of the extension leave it alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from segrap import anatomy
from segrap.errors import InputError, UsageError
from segrap.models.library import user_folder
from segrap.writing import replacing

Presets = dict[str, tuple[str, ...]]
LONGEST_NAME = 40


def presets_file() -> Path:
    """Where this user's presets are kept (the file need not exist)."""
    return user_folder().parent / "presets.json"


def read_presets(path: str | Path | None = None) -> Presets:
    """The presets of a file, or this user's own (none where there is no file yet), structures in table order.

    Raises InputError when the file is no file of presets, or names a structure that does not exist.
    """
    source = presets_file() if path is None else Path(path)
    if path is None and not source.exists():
        return {}
    try:
        held = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read as presets: {error}.") from error
    presets = held.get("presets") if isinstance(held, dict) else None
    if not isinstance(presets, dict):
        raise InputError(f'{source} holds no presets. It must be like {{"presets": {{"Our list": ["Parotid_L"]}}}}.')
    return {_checked_name(name): _checked(name, names, source) for name, names in presets.items()}


def write_presets(presets: Mapping[str, Sequence[str]], path: str | Path | None = None) -> None:
    """Write presets to a file, or as this user's own. Raises OutputError when it cannot be written."""
    target = presets_file() if path is None else Path(path)
    if path is None:
        target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"presets": {name: list(names) for name, names in presets.items()}}, indent=1)
    with replacing(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def save_preset(name: str, names: Sequence[str]) -> Presets:
    """Keep a choice of structures under a name, in place of one of that name; returns all presets.

    Raises UsageError when the name is empty or too long.
    """
    presets = {**read_presets(), _checked_name(name): tuple(names)}
    write_presets(presets)
    return presets


def delete_preset(name: str) -> Presets:
    """Forget a preset; returns the others."""
    presets = {other: names for other, names in read_presets().items() if other != name}
    write_presets(presets)
    return presets


def import_presets(path: str | Path) -> Presets:
    """Add a file's presets to this user's own, in place of those of the same names; returns all. Raises InputError."""
    presets = {**read_presets(), **read_presets(path)}
    write_presets(presets)
    return presets


def _checked_name(name: str) -> str:
    stripped = name.strip()
    if not 0 < len(stripped) <= LONGEST_NAME:
        raise UsageError(f"A preset needs a name of 1 to {LONGEST_NAME} characters.")
    return stripped


def _checked(preset: str, names: object, source: Path) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{source}: the preset {preset!r} is not a list of structures.")
    try:
        return anatomy.choose(names)
    except UsageError as error:
        raise InputError(f"{source}, preset {preset!r}: {error}") from error
