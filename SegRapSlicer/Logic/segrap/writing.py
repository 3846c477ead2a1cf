"""Files appear whole or not at all: everything that segrap writes goes through here."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segrap.errors import OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary file name beside `path`, of the same ending; move it onto `path` when the block ends well.

    Whatever ends the block early (an error, Ctrl-C) removes the temporary file and leaves an older `path` untouched.

    Raises OutputError when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    ending = "".join(path.suffixes[-2:])  # writers choose the format by ending: .nii.gz, .seg.nrrd
    try:
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=ending, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to the user; the result gets the rights of any new file here.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path, instead_of: Iterable[str] = ()) -> Iterator[Path]:
    """Give a temporary folder beside `path`; when the block ends well, its files are moved into the folder `path`.

    Files of other names that are already in `path` and its folders stay, but for those in `instead_of` (relative to
    `path`; a folder stands for all in it), which go. Whatever ends the block early, or keeps one file from being
    replaced, leaves `path` as it was.

    Raises OutputError when the place cannot be written or the disk is full.
    """
    path = Path(path)
    existed = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=path))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        _exchange(new, path, old, instead_of)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not existed and not any(path.iterdir()):
            path.rmdir()


def _exchange(new: Path, path: Path, old: Path, instead_of: Iterable[str]) -> None:
    """Move the files in `new` into `path`, and what they replace into `old`; if that fails, move everything back."""
    files = sorted(file.relative_to(new) for file in new.rglob("*") if not file.is_dir())
    leaving = [Path(name) for name in instead_of]
    replaced = [file for file in files if not any(file.is_relative_to(one) for one in leaving)]
    moved: list[tuple[Path, Path]] = []
    made: list[Path] = []

    def move(source: Path, target: Path) -> None:
        made.extend(folder for folder in target.parents if not folder.exists())
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        moved.append((source, target))

    name = Path()
    try:
        for name in (*leaving, *replaced):
            if name in replaced and (path / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            if os.path.lexists(path / name):
                move(path / name, old / name)
        for name in files:
            move(new / name, path / name)
    except BaseException as error:  # Ctrl-C included
        for source, target in reversed(moved):
            target.rename(source)
        for folder in sorted(made, reverse=True):  # the innermost first
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(path / name, error) from error
        raise


def check_writable(path: str | Path) -> None:
    """Raise OutputError, and leave nothing, when no file could be made in the folder `path`, were it made."""
    path = Path(path)
    place = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.lexists(one))
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Say in words why `path` could not be written and what to do about it."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"The disk is full: {path} was not written. Free some space or choose another place.", "output"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        if path.is_file() and os.access(path.parent, os.W_OK):
            return OutputError(f"{path} cannot be replaced. If another program has it open, close it there.", "output")
        return OutputError(f"{path} cannot be written (no permission). Choose another folder.", "output")
    return OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.", "output")
