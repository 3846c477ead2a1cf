"""Files appear whole or not at all: everything that segrap writes goes through here."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
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
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; when the block ends well, its files are moved into the folder `path`.

    Files of other names that are already in `path` stay. Whatever ends the block early removes the temporary folder
    and leaves `path` as it was.

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
        yield temporary
        for item in sorted(temporary.iterdir()):
            target = path / item.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            item.replace(target)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not existed and not any(path.iterdir()):
            path.rmdir()


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Say in words why `path` could not be written and what to do about it."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"The disk is full: {path} was not written. Free some space or choose another place.", "output"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path} cannot be written (no permission). Choose another folder.", "output")
    return OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.", "output")
