"""The library of models: what may be installed, from where, and what is refused before anything is written."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from nnunet_folders import write_model_folder

from segrap.errors import Cancelled, ModelError, OutputError, UsageError
from segrap.models import library
from segrap.models.download import ask
from segrap.models.folder import Model, read_model
from segrap.models.library import find_model, install, list_models, remove, user_folder
from segrap.progress import Progress


@pytest.fixture(autouse=True)
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    return tmp_path / "library"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {"name": "Neck 2", "version": "2.0", "licence": "CC0-1.0", "intended_use": "research", "description": "d"}
    return write_model_folder(tmp_path / "trained", facts=facts)


def zipped(folder: Path, to: Path, inside: str = "Neck2") -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path(inside) / path.relative_to(folder))
    return to


def installed() -> list[str]:
    """What lies in the user's library, hidden leftovers included."""
    return sorted(path.name for path in user_folder().iterdir()) if user_folder().exists() else []


def test_a_folder_is_copied_without_what_only_training_needs(folder: Path) -> None:
    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"x")
    (folder / "MODEL_CARD.md").write_text("How it was measured")
    model = install(folder)
    assert model.folder == user_folder() / "Neck 2"
    files = {path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*") if path.is_file()}
    assert files == {"dataset.json", "plans.json", "segrap.json", "MODEL_CARD.md", "fold_0/checkpoint_final.pth"}
    assert installed() == ["Neck 2"]


def test_a_zip_file_is_installed_from_any_depth(folder: Path, tmp_path: Path) -> None:
    install(zipped(folder, tmp_path / "a.zip", inside="results/Dataset001/plans__3d"))
    assert installed() == ["Neck 2"]


def test_a_tar_file_is_installed_and_named_after_its_folder_or_itself(tmp_path: Path) -> None:
    nameless = write_model_folder(tmp_path / "Dataset005")
    with tarfile.open(tmp_path / "OnlyFiles.tar.gz", "w:gz") as archive:
        archive.add(nameless, ".")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(nameless, "Dataset005")
    assert install(tmp_path / "OnlyFiles.tar.gz").folder.name == "OnlyFiles"
    assert install(tmp_path / "b.tar").folder.name == "Dataset005"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that serves the temporary folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_address_is_downloaded_checked_and_installed(folder: Path, tmp_path: Path, server: str) -> None:
    archive = zipped(folder, tmp_path / "a.zip")
    assert install(f"{server}/a.zip", sha256=hashlib.sha256(archive.read_bytes()).hexdigest()).name == "Neck 2"


def test_a_download_with_another_checksum_is_not_installed(folder: Path, tmp_path: Path, server: str) -> None:
    zipped(folder, tmp_path / "a.zip")
    with pytest.raises(ModelError, match="downloaded but not used"):
        install(f"{server}/a.zip", sha256="0" * 64)
    assert installed() == []


def test_an_address_with_nothing_behind_it_is_said(server: str) -> None:
    with pytest.raises(ModelError, match="could not be downloaded"):
        install(f"{server}/nothing.zip")


def test_a_file_with_another_checksum_is_not_opened(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="damaged or not the right file"):
        install(zipped(folder, tmp_path / "a.zip"), sha256="0" * 64)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "C:\\outside", "a\\..\\outside"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_would_leave_the_folder_are_refused(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    archive = zipped(folder, tmp_path / "a.zip")
    if kind == "zip":
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr(name, "x")
    else:
        archive = tmp_path / "a.tar"
        with tarfile.open(archive, "w") as opened_tar:
            opened_tar.add(folder, "Neck2")
            opened_tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ModelError, match="outside"):
        install(archive)
    assert installed() == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_file_are_refused(folder: Path, tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("Neck2/link")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, "Neck2")
        archive.addfile(member)
    with pytest.raises(ModelError, match="link or device"):
        install(tmp_path / "a.tar")


def test_links_in_a_zip_file_are_refused(folder: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("Neck2/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(zipped(folder, tmp_path / "a.zip"), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="link or device"):
        install(tmp_path / "a.zip")


def test_an_archive_that_unpacks_to_too_much_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "LARGEST_MODEL_BYTES", 5000)
    with pytest.raises(ModelError, match="unpacks to more than"):
        install(zipped(folder, tmp_path / "a.zip"))
    assert installed() == []


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not an archive")
    with pytest.raises(ModelError, match="not an archive"):
        install(tmp_path / "a.zip")


def test_a_cut_off_archive_is_refused(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, "Neck2")
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged"):
        install(tmp_path / "a.tar.gz")
    assert installed() == []


def test_an_archive_of_no_model_or_of_two_is_refused(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    zipped(folder, tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "a") as archive:
        archive.write(folder / "plans.json", "Second/plans.json")
    for name, count in (("none.zip", 0), ("two.zip", 2)):
        with pytest.raises(ModelError, match=f"holds {count} model folders"):
            install(tmp_path / name)


def test_a_model_that_cannot_be_run_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cascade"):
        install(write_model_folder(tmp_path / "trained", previous_stage="3d_lowres"))
    assert installed() == []


def test_a_name_is_given_once(folder: Path) -> None:
    install(folder)
    with pytest.raises(ModelError, match="already"):
        install(folder, name="NECK 2")
    assert install(folder, name="Neck 3").folder.name == "Neck 3"


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a:b", "dot."])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(ModelError, match="cannot be a model's name"):
            install(write_model_folder(tmp_path / "trained"), name=name)
    else:
        assert install(write_model_folder(tmp_path / "trained"), name=name).folder.name == "trained"


def test_the_list_tells_each_models_own_words(folder: Path) -> None:
    install(folder)
    (entry,) = [entry for entry in list_models() if not entry.shipped]
    assert (entry.name, entry.version, entry.licence, entry.intended_use) == ("Neck 2", "2.0", "CC0-1.0", "research")


def test_a_damaged_model_is_listed_as_such_and_hides_no_other(folder: Path) -> None:
    install(folder)
    (install(folder, name="Other").folder / "segrap.json").write_text("{")
    described = {entry.name: entry.description for entry in list_models()}
    assert described["Neck 2"] == "d"
    assert described["Other"].startswith("Damaged")


def test_a_model_is_found_by_name_in_any_case_or_by_its_folder(folder: Path) -> None:
    install(folder)
    assert find_model("neck 2") == user_folder() / "Neck 2"
    assert find_model(folder) == folder
    with pytest.raises(UsageError, match=r"Models at hand: .*Neck 2"):
        find_model("Leg")


def test_a_removed_model_is_gone(folder: Path) -> None:
    install(folder)
    remove("Neck 2")
    assert installed() == []
    with pytest.raises(UsageError, match="no installed model"):
        remove("Neck 2")


def test_every_shipped_model_can_be_run_and_states_its_licence_and_use() -> None:
    shipped = [entry for entry in list_models() if entry.shipped]
    assert shipped
    for entry in shipped:
        model = read_model(entry.folder)
        assert model.name == entry.name
        assert model.licence != "unknown" and model.version != "unknown" and model.description


def test_a_shipped_model_cannot_be_removed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "shipped")
    shipped = write_model_folder(tmp_path / "shipped" / "Demo")
    with pytest.raises(UsageError, match="ships with segrap"):
        remove("Demo")
    assert shipped.exists()


class Interrupting(SimpleHTTPRequestHandler):
    """Serves one archive, breaks the line in the middle the first time, and goes on from where it is asked to."""

    archive = b""
    requests: ClassVar[list[str | None]] = []
    etag = '"one"'

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.archive)))
        self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and self.headers.get("If-Range") != self.etag:
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", self.etag)
        self.send_header("Content-Length", str(len(self.archive) - start))
        self.end_headers()
        rest = self.archive[start:]
        self.wfile.write(rest[: len(rest) // 2] if len(self.requests) == 1 else rest)


@pytest.fixture
def interrupting(folder: Path, tmp_path: Path) -> Iterator[str]:
    (folder / "log.md").write_bytes(np.random.default_rng(1).bytes(500_000))  # larger than what is read at once
    Interrupting.archive = zipped(folder, tmp_path / "a.zip").read_bytes()
    Interrupting.requests, Interrupting.etag = [], '"one"'
    with ThreadingHTTPServer(("127.0.0.1", 0), Interrupting) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/a.zip"
        running.shutdown()


def test_an_interrupted_download_goes_on_where_it_broke(interrupting: str) -> None:
    half = len(Interrupting.archive) // 2
    with pytest.raises(ModelError, match="is kept: try again"):
        install(interrupting)
    assert [entry.name for entry in list_models() if not entry.shipped] == []
    told: list[Progress] = []
    checksum = hashlib.sha256(Interrupting.archive).hexdigest()
    assert install(interrupting, sha256=checksum, progress=told.append).name == "Neck 2"
    first, second = Interrupting.requests
    assert first is None and second and half / 2 < int(second.removeprefix("bytes=").rstrip("-")) <= half
    assert told[-1].fraction == 1.0
    assert installed() == ["Neck 2"]


def test_a_file_that_changed_meanwhile_is_downloaded_from_its_beginning(interrupting: str) -> None:
    with pytest.raises(ModelError, match="is kept"):
        install(interrupting)
    Interrupting.etag = '"two"'
    assert install(interrupting).name == "Neck 2"


def test_a_cancelled_download_installs_nothing_and_can_be_taken_up(interrupting: str) -> None:
    def cancel(progress: Progress) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        install(interrupting, progress=cancel)
    assert install(interrupting).name == "Neck 2"


def test_size_of_a_download_is_known_before_it_begins(interrupting: str) -> None:
    offer = ask(interrupting)
    assert offer.size_bytes == len(Interrupting.archive) and Interrupting.requests == []
    assert offer.host.startswith("127.0.0.1")


def test_a_download_larger_than_the_disk_is_refused_before_it_begins(
    interrupting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(OutputError, match="Free some space"):
        install(interrupting)
    assert installed() == []


def test_a_model_whose_licence_is_not_accepted_is_not_installed(folder: Path) -> None:
    asked: list[str] = []

    def refuse(model: Model) -> bool:
        asked.append(model.licence)
        return False

    with pytest.raises(UsageError, match="was not accepted"):
        install(folder, agree=refuse)
    assert asked == ["CC0-1.0"] and installed() == []


def test_downloads_go_through_the_proxy_of_the_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server)  # a proxy is asked for the whole address, which this server has not
    with pytest.raises(ModelError, match="404"):
        install("http://models.invalid/a.zip")
