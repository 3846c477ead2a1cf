"""A folder of results is replaced as a whole or not at all, and what others put beside it stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segrap.errors import OutputError
from segrap.writing import check_writable, replacing_folder


def fill(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


EARLIER = {"report": "old", "masks__Brain": "old", "masks__scan": "of the clinic", "notes": "of the clinic"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    fill(tmp_path / "out", **EARLIER, **{"plan__dose": "old"})
    return tmp_path / "out"


def test_new_files_replace_those_of_their_names_and_no_others(place: Path) -> None:
    with replacing_folder(place) as folder:
        fill(folder, report="new", masks__Brain="new", masks__Eye_L="new")
    assert contents(place) == {
        "masks": "folder",
        "masks/Brain": "new",
        "masks/Eye_L": "new",
        "masks/scan": "of the clinic",
        "notes": "of the clinic",
        "plan": "folder",
        "plan/dose": "old",
        "report": "new",
    }


def test_what_the_new_files_stand_instead_of_goes_with_all_that_is_in_it(place: Path) -> None:
    with replacing_folder(place, instead_of=["plan", "masks/Brain", "masks/Lens_L"]) as folder:
        fill(folder, report="new", plan__beams="new")
    found = contents(place)
    assert (found["plan/beams"], found["masks/scan"], found["report"]) == ("new", "of the clinic", "new")
    assert not {"plan/dose", "masks/Brain"} & set(found)


@pytest.mark.parametrize("kept", [True, False])
def test_an_error_before_the_end_leaves_everything_as_it_was(place: Path, kept: bool) -> None:
    before = contents(place)
    target = place if kept else place / "new"
    with pytest.raises(ValueError, match="stop"), replacing_folder(target, instead_of=["plan"]) as folder:
        fill(folder, report="new")
        raise ValueError("stop")
    assert contents(place) == before


@pytest.mark.parametrize("moves", range(6))
@pytest.mark.parametrize("fault", [KeyboardInterrupt, PermissionError(13, "Permission denied")])
def test_a_fault_while_files_are_exchanged_brings_everything_back(
    place: Path, monkeypatch: pytest.MonkeyPatch, moves: int, fault: BaseException
) -> None:
    """Ctrl-C, or a file that another program holds open, after any number of moves."""
    before, rename, done = contents(place), Path.rename, []

    def stumble(source: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == moves + 1:
            raise fault
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", stumble)
    expected = OutputError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected), replacing_folder(place, instead_of=["plan"]) as folder:
        fill(folder, report="new", masks__Brain="new", eyes__Eye_L="new")
    assert len(done) > moves and contents(place) == before


@pytest.mark.parametrize(
    ("in_the_way", "words"),
    [
        (lambda place: (place / "table").mkdir(), "table cannot be written: it is a folder"),
        (lambda place: (place / "eyes").write_text("a file"), r"eyes.* cannot be written"),
    ],
)
def test_a_folder_where_a_file_should_be_is_never_removed(
    place: Path, in_the_way: Callable[[Path], object], words: str
) -> None:
    in_the_way(place)
    before = contents(place)
    with pytest.raises(OutputError, match=words), replacing_folder(place) as folder:
        fill(folder, report="new", table="new", eyes__Eye_L="new")
    assert contents(place) == before


def test_a_place_is_tried_without_leaving_anything(place: Path) -> None:
    before = contents(place)
    check_writable(place)
    check_writable(place / "not" / "there" / "yet")
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(place / "notes" / "below a file")
    assert contents(place) == before
