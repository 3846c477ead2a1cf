"""The models at hand: those that ship with segrap, and those that the user installed.

Shipped models lie beside this file and cannot be removed; a user's models lie in the user's data folder (or where the
environment variable SEGRAP_MODELS says). Installing takes a model folder, an archive of one, or an address of an
archive; nothing enters the library before it was unpacked elsewhere with every member's name checked and read through
by `read_model`, and only the files that make a model do. The model may lie deeper in a folder (as in the results of
nnU-Net and TotalSegmentator) or archive, if it is the only one there. Models of nnU-Net v1 are converted on the way.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from segrap.errors import ModelError, OutputError, UsageError
from segrap.models import nnunet_v1, totalsegmentator
from segrap.models.download import download
from segrap.models.folder import Model, read_model
from segrap.models.plans import CHECKPOINT, choose_folds, read_facts
from segrap.models.totalsegmentator import Weights
from segrap.progress import ProgressCallback

SHIPPED = Path(__file__).parent / "shipped"
LARGEST_MODEL_BYTES = 8 * 2**30  # five folds of nnU-Net's largest preset, with optimizer state, are under 6 GB
BLOCK = 2**20
DEEPEST = 4  # folders down from where a person finds models: ~/.totalsegmentator/nnunet/results/DATASET/MODEL
# Training leaves other files, some very large; and what `read_model` does not check must not enter the library.
PARTS = ("dataset.json", "plans.json", "segrap.json", "LICEN[CS]E*", "NOTICE*", "*.md", f"fold_*/{CHECKPOINT}")
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError),
)


@dataclass(frozen=True)
class LibraryEntry:
    """One model of the library as its `segrap.json` describes it; nothing else of it has been read."""

    name: str
    folder: Path
    shipped: bool
    version: str
    licence: str
    intended_use: str
    description: str


def user_folder() -> Path:
    """Where the user's models lie (the folder need not exist)."""
    chosen = os.environ.get("SEGRAP_MODELS")
    return Path(chosen) if chosen else _data_folder() / "SegRapSlicer" / "models"


def conversions_folder(model_hash: str) -> Path:
    """Where what is made of a model for this computer is kept (the folder need not exist). It can be deleted freely."""
    return user_folder() / ".converted" / model_hash.removeprefix("sha256:")[:32]


def _data_folder() -> Path:
    """Where the programs of this user keep their data."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def list_models() -> list[LibraryEntry]:
    """All models, shipped ones first, each group by name. Nothing of them but segrap.json is read."""
    entries = []
    for root in (SHIPPED, user_folder()):
        # A model has plans; a combination of models (see `combinations`) has its list.
        found = {path.parent for pattern in ("plans.json", "combination.json") for path in root.glob(f"*/{pattern}")}
        for folder in sorted(found):
            if folder.name.startswith("."):
                continue
            try:
                facts = read_facts(folder)
            except ModelError as fault:
                facts = {"description": f"Damaged: {fault}"}  # one such folder must not hide the others
            entries.append(
                LibraryEntry(
                    name=folder.name,
                    folder=folder,
                    shipped=root == SHIPPED,
                    version=str(facts.get("version", "unknown")),
                    licence=str(facts.get("licence", "unknown")),
                    intended_use=str(facts.get("intended_use", "research")),
                    description=str(facts.get("description", "")),
                )
            )
    return entries


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of a model of the library (its name in any case), or a model folder given by its path.

    Raises UsageError, listing the models at hand, when there is neither.
    """
    entries = list_models()
    for entry in entries:
        if entry.name.casefold() == str(name_or_folder).casefold():
            return entry.folder
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder)
    known = ", ".join(entry.name for entry in entries) or "none yet"
    raise UsageError(f"There is no model or model folder {name_or_folder}. Models at hand: {known}.")


def install(
    source: str | Path,
    name: str | None = None,
    sha256: str | None = None,
    accept: Callable[[str], bool] = lambda terms: False,
    agree: Callable[[Model], bool] = lambda model: True,
    progress: ProgressCallback | None = None,
) -> Model:
    """Put a model into the user's library and return it, read and checked.

    source: a model folder or one that holds a single model, a .zip or .tar (.gz, .bz2, .xz) file of such a folder, an
        http(s) address of such a file, or totalsegmentator:TASK.
    name: what to call it; by default its own name from segrap.json, else that of its folder or its nnU-Net dataset.
    sha256: of the file, in hexadecimal, checked before it is opened; not for folders.
    accept: asked with the terms of TotalSegmentator's weights, before they are downloaded where that can be.
    agree: asked with any model, read and checked, before it enters the library.
    progress: called while a download runs; an interrupted one is gone on with when it is asked for again.
    Raises UsageError: terms that were not accepted, no such task, folder or file. ModelError (nothing is installed
    then): not a model that can be run, an unsafe archive, a wrong checksum, a failed download, a name that is taken.
    OutputError: the library cannot be written.
    """
    weights = totalsegmentator.recognise(source)
    if str(source).startswith(totalsegmentator.SCHEME):
        weights = totalsegmentator.weights_of_task(str(source).removeprefix(totalsegmentator.SCHEME))
        source = weights.address
    _agree(weights, accept)
    library = user_folder()
    try:
        library.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".installing-", dir=library) as scratch:
            place, origin = _fetch(source, sha256, Path(scratch), progress)
            found = _find_model(place, source)
            if weights is None:
                weights = totalsegmentator.recognise(found.resolve(), Path(source).resolve())
                _agree(weights, accept)
            folder = _take(found, Path(scratch) / "model", shutil.move if origin else shutil.copyfile)
            if weights:
                totalsegmentator.prepare(folder, weights, origin)
            model = read_model(folder)
            if not agree(model):
                raise UsageError(f"{model.name} was not installed: its licence was not accepted.")
            own_name = read_facts(folder).get("name") or _name_by_place(found, place, source)
            target = library / check_new_name(name or str(own_name))
            folder.replace(target)
    except OSError as error:
        raise OutputError(
            f"The model was not installed in {library}: {error.strerror or error}. Free some space there, or set "
            "SEGRAP_MODELS to another folder."
        ) from error
    return read_model(target)


def remove(name: str) -> Path:
    """Delete one of the user's models and return where it was.

    Raises UsageError when there is none of that name or it ships with segrap, OutputError when it cannot be deleted.
    """
    for entry in list_models():
        if entry.name.casefold() == name.casefold():
            if entry.shipped:
                raise UsageError(f"{entry.name} ships with segrap and cannot be removed.")
            try:
                shutil.rmtree(entry.folder)
            except OSError as error:
                raise OutputError(f"{entry.folder} could not be removed: {error.strerror or error}.") from error
            return entry.folder
    raise UsageError(f"There is no installed model {name}.")


def _agree(weights: Weights | None, accept: Callable[[str], bool]) -> None:
    if weights and not accept(weights.terms):
        raise UsageError(f"{weights.terms}\nNothing was installed: these terms were not accepted.", "licence")


def check_new_name(name: str) -> str:
    """The name, if a new model of the library can have it. Raises ModelError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}", name) or name.endswith((".", " ")):
        raise ModelError(f"{name!r} cannot be a model's name: letters, digits, spaces and . _ + - make one.")
    if (user_folder() / name).exists() or any(entry.name.casefold() == name.casefold() for entry in list_models()):
        raise ModelError(f"There is a model called {name} already. Remove it first, or give this one another name.")
    return name


def _fetch(
    source: str | Path, sha256: str | None, scratch: Path, progress: ProgressCallback | None
) -> tuple[Path, str]:
    """A folder with what `source` holds: itself, or the archive unpacked in `scratch`. And a sentence on the archive
    and its SHA-256, by which the same file is known again; "" for a folder."""
    if re.match(r"https?://", str(source)):
        name = _file_name(source)
        fetched = download(str(source), user_folder(), f".{name}", sha256, progress)
        archive = fetched.replace(scratch / name)
    else:
        archive = Path(source)
        if archive.is_dir():
            if sha256:
                raise UsageError("A checksum can be given for a file or an address, not for a folder.")
            return archive, ""
        if not archive.is_file():
            raise UsageError(f"There is no model folder or archive {source}.")
        if sha256:
            _check_sum(archive, sha256)
    unpacked = scratch / "unpacked"
    _unpack(archive, unpacked)
    return unpacked, f"Installed from {archive.name}, SHA-256 {_digest(archive)}."


def _file_name(source: str | Path) -> str:
    if re.match(r"https?://", str(source)):
        return PurePosixPath(str(source).split("?")[0].split("#")[0]).name or "model"
    return Path(source).name


def _find_model(place: Path, source: str | Path) -> Path:
    """The folder of the one model that `place` is or holds. Raises ModelError when there is none, or several."""
    is_folder = Path(source).is_dir()
    if is_folder and (nnunet_v1.holds_v1_model(place) or (place / "plans.json").is_file()):
        return place
    downs = ["*/" * depth for depth in range(1, DEEPEST + 1)] if is_folder else ["**/"]
    found = {path.parents[1] for down in downs for path in place.glob(f"{down}fold_*/{CHECKPOINT}")}
    # nnU-Net also leaves copies of plans.json beside the scores of its folds: they have no weights.
    found = {path for path in found if (path / "plans.json").is_file()}
    found |= {path.parents[1] for down in downs for path in place.glob(f"{down}*/{nnunet_v1.CHECKPOINT}")}
    chosen = totalsegmentator.usual_model(sorted(found))
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        where = f", neither in it nor up to {DEEPEST} folders below" if is_folder else ""
        raise ModelError(
            f"{source} holds no model{where}. A model is a folder with plans.json and fold_*/{CHECKPOINT} (nnU-Net v2) "
            f"or with fold_*/{nnunet_v1.CHECKPOINT} (v1)."
        )
    names = [path.relative_to(place).as_posix() for path in chosen]
    more = f" and {len(names) - 9} more" if len(names) > 9 else ""
    raise ModelError(
        f"{source} holds {len(chosen)} models: {', '.join(names[:9])}{more}. "
        f"{'Install' if is_folder else 'Unpack it and install'} the folder of one of them."
    )


def _name_by_place(found: Path, place: Path, source: str | Path) -> str:
    """What to call a model that has no name of its own."""
    if found == place and not Path(source).is_dir():
        return re.sub(r"\.(zip|tar|tgz|gz|bz2|xz)", "", _file_name(source))
    found = found.resolve()
    # nnU-Net calls all models alike, TRAINER__PLANS__CONFIGURATION, below a folder named after their dataset.
    of_dataset = "__" in found.name and re.fullmatch(r"(Dataset|Task)\d{3}_\w+", found.parent.name)
    return found.parent.name if of_dataset else found.name


def _take(found: Path, target: Path, carry: Callable[[Path, Path], object]) -> Path:
    """Bring only the files that make a model to `target`."""
    if nnunet_v1.holds_v1_model(found):
        return nnunet_v1.convert(found, target)
    choose_folds(found, None)  # said of the folder that the person knows, before it is copied
    target.mkdir()
    for path in {path for pattern in PARTS for path in found.glob(pattern) if path.is_file()}:
        (target / path.relative_to(found)).parent.mkdir(exist_ok=True)
        carry(path, target / path.relative_to(found))
    return target


def _check_sum(archive: Path, sha256: str) -> None:
    found = _digest(archive)
    if found != sha256.lower().removeprefix("sha256:"):
        raise ModelError(f"{archive.name} has the SHA-256 {found}, not {sha256}: it is damaged or not the right file.")


def _digest(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir()
    room = LARGEST_MODEL_BYTES
    try:
        for name, stream in _members(archive):
            path = target / _checked_member(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with stream, path.open("xb") as out:
                # What is counted is what comes out: sizes that an archive states may be false.
                while block := stream.read(min(BLOCK, room + 1)):
                    room -= len(block)
                    if room < 0:
                        raise ModelError(f"{archive.name} unpacks to more than {LARGEST_MODEL_BYTES / 2**30:.0f} GB.")
                    out.write(block)
    except DAMAGED as fault:
        raise ModelError(f"{archive.name} is damaged or not an archive that can be read here: {fault}") from None
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise ModelError(f"{archive.name} holds two files of one name.") from None


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files of a .zip or .tar archive. Raises ModelError at anything but files and folders."""
    # Tar is asked first: a checkpoint is itself a zip file, and a tar that ends with one would look like a zip.
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tarred:
            for member in tarred:
                stream = tarred.extractfile(member) if member.isfile() else None
                if stream is not None:
                    yield member.name, stream
                elif not member.isdir():
                    raise ModelError(f"{archive.name} holds {member.name}, which is a link or device.")
    else:
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ModelError(f"{archive.name} holds {entry.filename}, which is a link or device.")
                if entry.flag_bits & 1:
                    raise ModelError(f"{archive.name} is encrypted.")
                if not entry.is_dir():
                    yield entry.filename, zipped.open(entry)


def _checked_member(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise ModelError(f"The archive holds a file named {name!r}, which would be written outside the model's folder.")
    return path
