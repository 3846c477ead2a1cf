"""Combinations: named lists of models in the library, so that several models are chosen as easily as one.

A combination is a folder of the user's library with `combination.json` ({"models": [name or folder, ...]}, the best
first) and a `segrap.json` as models have. Each structure comes from the first of its models that contours it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from segrap.errors import ModelError
from segrap.models.folder import read_model
from segrap.models.library import check_new_name, find_model, user_folder
from segrap.writing import replacing_folder

COMBINATION = "combination.json"


def combine(name: str, models: Sequence[str]) -> Path:
    """Put a combination of models into the library, under a new name, and return its folder.

    models: names or folders, the best first. Raises UsageError (no such model, fewer than two), ModelError (a model
    that cannot be run, a demonstration model, a name that is taken), OutputError.
    """
    folders = [folder for model in models for folder in members(find_model(model))]
    read = [read_model(folder) for folder in folders]
    if len(read) < 2 or any(model.intended_use == "demonstration" for model in read):
        raise ModelError("A combination needs two or more models, none of them for demonstration.")
    target = user_folder() / check_new_name(name)
    facts = {
        "name": name,
        "version": "+".join(model.version for model in read),
        "licence": "; ".join(f"{model.name}: {model.licence}" for model in read),
        "intended_use": "clinical" if all(model.intended_use == "clinical" for model in read) else "research",
        "description": f"Each structure from the first of {', '.join(model.name for model in read)} that contours it.",
    }
    ours = user_folder().resolve()
    entries = [folder.name if folder.resolve().parent == ours else str(folder.resolve()) for folder in folders]
    user_folder().mkdir(parents=True, exist_ok=True)
    with replacing_folder(target) as folder:
        (folder / COMBINATION).write_text(json.dumps({"models": entries}, indent=1), encoding="utf-8")
        (folder / "segrap.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return target


def members(folder: Path) -> tuple[Path, ...]:
    """The model folders of a combination, the best first; the folder alone when it is no combination.

    Raises ModelError when it is damaged, one of its models is gone, or it is a model as well: which of both would run?
    """
    path = folder / COMBINATION
    if not path.is_file():
        return (folder,)
    if (folder / "plans.json").exists():
        raise ModelError(f"{folder} is a model, but {COMBINATION} in it names others. Remove that file to use it.")
    try:
        names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["models"]]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ModelError(f"{path} cannot be read ({fault}). Make the combination again.") from None
    found = tuple(folder.parent / name for name in names)  # an absolute path stays what it is
    missing = [str(one) for one in found if not one.is_dir()]
    if missing or not found:
        raise ModelError(f"A model of the combination {folder.name} is gone: {', '.join(missing)}. Make it again.")
    return found
