"""The folders that hold a patient's voxels while a job runs go with it, and what a killed program left goes later."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from segrap import job_folders
from segrap.job_folders import PREFIX, new_job_folder, remove_job_folder


@pytest.fixture(autouse=True)
def temporary_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_behind(place: Path, name: str, hours_ago: float) -> Path:
    (place / name).mkdir()
    (place / name / "non_contrast.npy").write_bytes(b"a patient")
    then = time.time() - 3600 * hours_ago
    os.utime(place / name, (then, then))
    return place / name


def test_what_a_killed_program_left_a_day_ago_goes_and_nothing_else(temporary_place: Path) -> None:
    old = left_behind(temporary_place, f"{PREFIX}old", hours_ago=25)
    of_today, foreign = (
        left_behind(temporary_place, f"{PREFIX}today", hours_ago=2),
        left_behind(temporary_place, "another-program", hours_ago=99),
    )
    new = new_job_folder()
    assert not old.exists() and of_today.is_dir() and foreign.is_dir()
    assert new.is_dir() and new.name.startswith(PREFIX)


def test_a_folder_that_an_ended_process_still_holds_goes_when_it_lets_go(
    temporary_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, remove, tries = left_behind(temporary_place, f"{PREFIX}held", 0), shutil.rmtree, []

    def held(path: Path, ignore_errors: bool) -> None:
        tries.append(path)
        if len(tries) == 3:
            remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(job_folders.shutil, "rmtree", held)
    remove_job_folder(folder)
    assert not folder.exists() and len(tries) == 3
