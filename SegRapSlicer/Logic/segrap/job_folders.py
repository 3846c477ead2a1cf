"""Temporary folders that hold a patient's voxels for the time of a job, and no longer."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "segrap-job-"
STALE_SECONDS = 24 * 3600  # no job takes that long
PATIENCE_SECONDS = 15.0


def new_job_folder() -> Path:
    """A new folder; what a program that was killed left there more than a day ago goes first. Raises OSError."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            stale = time.time() - left.stat().st_mtime > STALE_SECONDS
        except OSError:
            continue  # another program removes it just now
        if stale:
            shutil.rmtree(left, ignore_errors=True)  # it may be another user's
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def remove_job_folder(folder: Path) -> None:
    """Remove a folder with all that is in it. On Windows a process that was ended holds its files a little longer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(0.2)
