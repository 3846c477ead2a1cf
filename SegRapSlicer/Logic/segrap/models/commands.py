"""`segrap models`: the library of models from a terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segrap.terminal import as_json, give, progress_bar, say, some_path

if TYPE_CHECKING:
    from segrap.models.folder import Model
    from segrap.progress import Progress, ProgressCallback


@click.group()
def models() -> None:
    """Models at hand: list, show, install, combine, remove, check."""


@models.command("list")
@as_json
def list_models(as_json: bool) -> None:
    """The models that ship with segrap and those you installed."""
    from segrap.models import library

    entries = [asdict(entry) | {"folder": str(entry.folder)} for entry in library.list_models()]
    lines = [f"{one['name']} {one['version']}, {one['intended_use']}: {one['description']}" for one in entries]
    give({"models": entries}, as_json, "\n".join(lines) or "There is no model yet.")


@models.command("show")
@click.argument("name")
@as_json
def show_model(name: str, as_json: bool) -> None:
    """What a model needs and contours, its licence and its hash."""
    from segrap.models.library import find_model

    _show(find_model(name), as_json)


@models.command("check")
@click.argument("folder", type=some_path)
@as_json
def check_model(folder: Path, as_json: bool) -> None:
    """Read an nnU-Net v2 model folder without running code of it; say what cannot be honoured, if anything."""
    _show(folder, as_json)


@models.command("install")
@click.argument("source", metavar="FILE_OR_URL")
@click.option("--name", help="What to call it.")
@click.option("--sha256", help="Expected SHA-256 of the file.")
@click.option("--accept-licence", is_flag=True, help="Agree to the licence of weights that state one.")
@as_json
def install_model(source: str, name: str | None, sha256: str | None, accept_licence: bool, as_json: bool) -> None:
    """Install a model from a folder, a .zip or .tar file, or an address (the only command that uses the network).

    Models are nnU-Net v2 folders; those of nnU-Net v1 are converted. totalsegmentator:TASK is TotalSegmentator's:
    head_glands_cavities, craniofacial_structures, total_organs, total_brain_cord, total_fast, headneck_muscles,
    total_v3_organs, total_v3_brain_cord, total_v3_fast.
    """
    from segrap.models.library import install

    bar = _DownloadBar()

    def accept(terms: str) -> bool:
        bar.close()
        if accept_licence:
            say(terms)
        return accept_licence or (sys.stdin.isatty() and click.confirm(f"{terms}\nDo you accept this?", err=True))

    with bar:
        model = install(source, name, sha256, accept, progress=bar)
    _show(model.folder, as_json)


@models.command("combine")
@click.argument("name")
@click.argument("members", metavar="MODEL...", nargs=-1, required=True)
@as_json
def combine_models(name: str, members: tuple[str, ...], as_json: bool) -> None:
    """Call several models by one NAME: each structure comes from the first MODEL that contours it."""
    from segrap.models.combinations import combine

    _show(combine(name, members), as_json)


@models.command("remove")
@click.argument("name")
def remove_model(name: str) -> None:
    """Delete a model that you installed."""
    from segrap.models.library import remove

    say(f"Removed {remove(name)}.")


class _DownloadBar(ExitStack):
    """A progress bar that appears when a download begins, after a line with its size."""

    _show: ProgressCallback | None = None

    def __call__(self, progress: Progress) -> None:
        if self._show is None:
            if sys.stderr.isatty():  # elsewhere the first line of the bar is this one
                say(f"{progress.stage} {progress.message}.")
            self._show = self.enter_context(progress_bar())
        self._show(progress)


def _show(folder: Path, as_json: bool) -> None:
    from segrap.composition import share_out
    from segrap.models.combinations import members
    from segrap.models.folder import read_model
    from segrap.models.plans import read_facts

    read = [read_model(one) for one in members(folder)]
    if len(read) == 1:
        facts = _facts(read[0])
    else:
        keys = ("name", "version", "intended_use", "licence", "description")
        shares = {model.name: list(structures) for model, structures in share_out(read)}
        facts = {key: read_facts(folder).get(key, "") for key in keys} | {"folder": str(folder)} | shares
    words = (
        f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in facts.items()
    )
    give(facts, as_json, "\n".join(words))


def _facts(model: Model) -> dict[str, Any]:
    from segrap.contouring import coverage

    return {
        "name": model.name,
        "version": model.version,
        "intended_use": model.intended_use,
        "licence": model.licence,
        "description": model.description,
        "channels": list(model.channels),
        "coverage": coverage(model.structures),
        "structures": list(model.structures),
        "folds": list(model.folds),
        "spacing_mm": list(model.spacing_zyx[::-1]),
        "folder": str(model.folder),
        "hash": model.hash,
    }
