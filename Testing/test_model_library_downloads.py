"""Downloads of models: shown while they run, gone on with after an interruption, and in words when they cannot be."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import run_segrap
from nnunet_folders import installed, write_model_folder, zipped

from segrap.errors import Cancelled, ModelError, OutputError
from segrap.models.download import ask
from segrap.models.library import install, list_models
from segrap.progress import Progress

pytestmark = pytest.mark.usefixtures("own_library")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {"name": "Neck 2", "version": "2.0", "licence": "CC0-1.0", "intended_use": "research", "description": "d"}
    return write_model_folder(tmp_path / "trained", facts=facts)


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
    with pytest.raises(ModelError, match=r"connection to 127.* broke off.* is kept: try again"):
        install(interrupting)
    assert [entry.name for entry in list_models() if not entry.shipped] == []
    told: list[Progress] = []
    checksum = hashlib.sha256(Interrupting.archive).hexdigest()
    assert install(interrupting, sha256=checksum, progress=told.append).name == "Neck 2"
    first, second = Interrupting.requests
    assert first is None and second and half / 2 < int(second.removeprefix("bytes=").rstrip("-")) <= half
    assert "MB of it are here already)" in told[0].message and told[0].fraction > 0.2
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


def test_downloads_go_through_the_proxy_of_the_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server)  # a proxy is asked for the whole address, which this server has not
    with pytest.raises(ModelError, match="404"):
        install("http://models.invalid/a.zip")


def test_the_command_says_size_and_host_and_shows_the_download(folder: Path, tmp_path: Path, server: str) -> None:
    size = zipped(folder, tmp_path / "a.zip").stat().st_size
    done = run_segrap("models", "install", f"{server}/a.zip")
    assert done.returncode == 0, done.stderr
    assert f"Downloading: {size / 1e6:.1f} MB from {server.removeprefix('http://')}" in done.stderr
    assert "name: Neck 2" in done.stdout and "Downloading" not in done.stdout


def test_a_host_that_cannot_be_reached_is_said_with_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
    done = run_segrap("models", "install", f"http://{host}/a.zip")
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{host} cannot be reached. Check the connection and the proxy (HTTPS_PROXY, ")
    assert "copy it here and install it from disk" in line and "Pool" not in line


@pytest.fixture
def own_certificate(tmp_path: Path) -> Iterator[str]:
    """The address of an https server whose certificate, server.pem, nobody has signed."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    pem = tmp_path / "server.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    files = ["-keyout", pem, "-out", tmp_path / "only.pem"]
    subprocess.run([*command.split(), "subjectAltName=DNS:localhost", *files], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "only.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"https://localhost:{running.server_port}"
        running.shutdown()


def test_a_certificate_that_cannot_be_verified_is_told_from_a_host_that_is_away(
    own_certificate: str, folder: Path, tmp_path: Path
) -> None:
    zipped(folder, tmp_path / "a.zip")
    done = run_segrap("models", "install", f"{own_certificate}/a.zip")
    assert done.returncode == 4
    assert "The certificate of localhost:" in done.stderr and "cannot be verified: self" in done.stderr
    assert "REQUESTS_CA_BUNDLE" in done.stderr and "Pool" not in done.stderr
    missing = run_segrap(
        *("models", "install", f"{own_certificate}/a.zip"), env=os.environ | {"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}
    )
    assert missing.returncode == 4 and "/nowhere/ca.pem" in missing.stderr
    trusting = os.environ | {"REQUESTS_CA_BUNDLE": str(tmp_path / "only.pem")}
    assert run_segrap("models", "install", f"{own_certificate}/a.zip", env=trusting).returncode == 0
