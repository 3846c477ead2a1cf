"""How a job speaks to a person at a terminal: a progress bar and one-line errors on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from segrap.errors import Cancelled, ResourceError, SegRapError
from segrap.progress import Progress, ProgressCallback

some_path = click.Path(path_type=Path)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")

# Where on the command line a person chooses what an error is about.
OPTIONS = {
    "output": "--output",
    "device": "--device",
    "model": "--model NAME_OR_FOLDER, or segrap models install FILE_OR_URL",
    "licence": "--accept-licence",
    "demonstration": "--model, or --allow-demo-model to see what it makes of the scan all the same",
}


def say(message: str) -> None:
    """A line for the person, on stderr."""
    print(message, file=sys.stderr, flush=True)


def give(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result, on stdout: one JSON object, or the text for a person."""
    print(json.dumps(result, indent=1) if as_json else text, flush=True)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Stage, percentage and time left on stderr; where that is no terminal, one line per stage."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=1.0)

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.stage, completed=progress.fraction)

        yield show


def _lines() -> ProgressCallback:
    stages: list[str] = []

    def show(progress: Progress) -> None:
        if progress.stage not in stages:
            stages.append(progress.stage)
            say(f"{progress.fraction:4.0%} {progress.stage}{': ' if progress.message else ''}{progress.message}")

    return show


@contextmanager
def errors_as_exit_status() -> Iterator[None]:
    """Turn the named errors into one line on stderr and an exit status; anything else is a defect and shows itself."""
    try:
        yield
    except KeyboardInterrupt:
        say("Cancelled.")
        raise SystemExit(Cancelled.exit_status) from None
    except MemoryError:
        say("There is not enough memory. Close other programs, or use a computer with more.")
        raise SystemExit(ResourceError.exit_status) from None
    except SegRapError as error:
        option = OPTIONS.get(error.about)
        say(f"{error} (Option {option}.)" if option else str(error))
        raise SystemExit(error.exit_status) from None
