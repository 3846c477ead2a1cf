"""Downloads of model archives: asked for by a person, shown while they run, gone on with after an interruption.

What has arrived is kept as a `.part` file in the library until the file is whole, so that a broken line costs nothing
but the rest; the server's own mark of the file (ETag, Last-Modified) tells whether the rest still fits. Proxies are
those of the environment and the system (HTTPS_PROXY and its kind, REQUESTS_CA_BUNDLE for a hospital's certificates),
as `requests` finds them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segrap.errors import ModelError, OutputError
from segrap.progress import Progress, ProgressCallback
from segrap.writing import cannot_write

if TYPE_CHECKING:
    import requests

SECONDS = 30.0
BLOCK = 2**16


@dataclass(frozen=True)
class Offer:
    """What lies behind an address, asked before anything is downloaded. size_bytes: None when the server is silent."""

    address: str
    host: str
    size_bytes: int | None

    @property
    def size(self) -> str:
        """The size in words."""
        return "of unknown size" if self.size_bytes is None else megabytes(self.size_bytes)


def megabytes(count: int) -> str:
    """A number of bytes for people: "0.3 MB", "1240 MB"."""
    return f"{count / 1e6:.1f} MB" if count < 10e6 else f"{count / 1e6:.0f} MB"


def ask(address: str) -> Offer:
    """What would be downloaded from an http(s) address; nothing is but its headers. Raises ModelError."""
    with _get(address, {}, head=True) as response:
        length = response.headers.get("Content-Length")
        return Offer(address, _host(response.url), int(length) if length and length.isdigit() else None)


def download(address: str, folder: Path, name: str, sha256: str | None, progress: ProgressCallback | None) -> Path:
    """Bring a file into `folder` under `name` and return its path; goes on where an earlier try was interrupted.

    sha256: in hexadecimal, checked before the file gets its name; a file that does not match is removed.
    progress is called with the size before the first block and after every block; what it raises ends the download,
    which can be taken up again.
    Raises ModelError (no such file, the line broke, another checksum), OutputError (no space).
    """
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    part, mark = folder / f".{key}.part", folder / f".{key}.mark"
    done = part.stat().st_size if part.exists() and mark.exists() else 0
    headers = {}
    if done:
        headers = {"Range": f"bytes={done}-", "If-Range": mark.read_text(encoding="utf-8")}
    try:
        with _get(address, headers) as response:
            going_on = response.status_code == 206
            done = done if going_on else 0
            total = _total(response, done)
            _check_room(folder, (total or 0) - done)
            if not going_on:
                part.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)
                stated = _mark(response)
                if stated:
                    mark.write_text(stated, encoding="utf-8")
            if progress:
                size = megabytes(total) if total else "a file of unknown size"
                kept = f" ({megabytes(done)} of it are here already)" if done else ""
                fraction = done / total if total else 0.0
                progress(Progress("Downloading", fraction, f"{size} from {_host(response.url)}{kept}"))
            with part.open("ab") as out:
                for block in response.iter_content(BLOCK):
                    out.write(block)
                    done += len(block)
                    if progress:
                        fraction = done / total if total else 0.0
                        size = f"{megabytes(done)} of {megabytes(total)}" if total else megabytes(done)
                        progress(Progress("Downloading", min(1.0, fraction), size))
    except OSError as error:
        if _of_the_net(error):
            raise _broken(address, error, done) from None
        raise cannot_write(part, error) from error
    if total and done != total:
        raise _broken(address, f"{megabytes(done)} of {megabytes(total)} arrived", done)
    _check(part, mark, address, sha256)
    mark.unlink(missing_ok=True)
    return part.replace(folder / name)


def _get(address: str, headers: dict[str, str], head: bool = False) -> requests.Response:
    import requests

    try:
        # No compression on the way: what is counted, resumed and checked is the file itself.
        headers = {**headers, "Accept-Encoding": "identity"}
        method = requests.head if head else requests.get
        response: Any = method(address, headers=headers, timeout=SECONDS, stream=True, allow_redirects=True)
        if response.status_code == 416:  # nothing is left to send: begin anew
            response.close()
            response = requests.get(address, timeout=SECONDS, stream=True)
        response.raise_for_status()
    except OSError as error:  # those of requests, and a REQUESTS_CA_BUNDLE that is not there
        raise _broken(address, error, 0) from None
    return response  # type: ignore[no-any-return]


def _host(address: object) -> str:
    return urlsplit(str(address)).netloc.rpartition("@")[2]


def _broken(address: str, fault: object, done: int) -> ModelError:
    """What went wrong, in words: errors of requests quote its own objects."""
    import requests

    kept = f" What has arrived ({megabytes(done)}) is kept: try again to go on from there." if done else ""
    host = _host(getattr(getattr(fault, "request", None), "url", None) or address)
    by_hand = "or download the file elsewhere, copy it here and install it from disk"
    if found := re.search(r"certificate verify failed: ([^(]*)", str(fault)):
        return ModelError(
            f"The certificate of {host} cannot be verified: {found[1].strip(' .')}. Where a proxy inspects "
            f"connections, let REQUESTS_CA_BUNDLE name the file with its certificates, {by_hand}.{kept}"
        )
    if isinstance(fault, requests.ConnectionError | requests.Timeout):
        return ModelError(
            f"{host} cannot be reached. Check the connection and the proxy (HTTPS_PROXY, REQUESTS_CA_BUNDLE), "
            f"{by_hand}.{kept}"
        )
    if isinstance(fault, requests.exceptions.ChunkedEncodingError):
        return ModelError(f"The connection to {host} broke off.{kept or ' Try again.'}")
    return ModelError(f"{address} could not be downloaded: {fault}.{kept}")


def _of_the_net(error: OSError) -> bool:
    import requests

    return isinstance(error, requests.RequestException)


def _check_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise OutputError(
            f"{megabytes(wanted)} are still to be downloaded, and {folder} has {megabytes(free)} left. Free some space "
            "there, or set SEGRAP_MODELS to another folder."
        )


def _mark(response: requests.Response) -> str:
    """What tells this state of the file from others, for If-Range; "" when the server cannot go on in the middle."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _total(response: requests.Response, done: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return done + int(length) if length.isdigit() else None


def _check(part: Path, mark: Path, address: str, sha256: str | None) -> None:
    if not sha256:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = sha256.strip().lower().removeprefix("sha256:")
    if found != wanted:
        part.unlink()
        mark.unlink(missing_ok=True)
        raise ModelError(
            f"{address} was downloaded but not used: its SHA-256 is {found}, not {wanted}. It is damaged or not the "
            "right file."
        )
