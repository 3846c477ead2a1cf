"""The caller's side of the background process: start a job, look at it from time to time, cancel it.

Nothing here blocks and nothing knows Qt: voxels are handed over by a thread, replies are read by another, and `poll`,
called from a timer or a loop, gives what has arrived since. See `segrap.worker` for what is said between the two.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segrap import errors
from segrap.contours import Contours, Provenance
from segrap.ct.hounsfield import hounsfield_array
from segrap.errors import Cancelled, OutputError, ResourceError, SegRapError, UsageError
from segrap.image import Image
from segrap.job_folders import new_job_folder, remove_job_folder
from segrap.progress import Progress
from segrap.quality.findings import Finding
from segrap.worker import facts_from_json

# A network's layer takes up to half a second on a slow computer, but what comes before has no layers to stop at:
# a job that has not stopped by itself after this is stopped with its process, well within the promised second.
PATIENCE_SECONDS = 0.5
LOG_LINES = 500


@dataclass(frozen=True)
class Scan:
    """A CT for a job: its voxels in Hounsfield units, what messages call it, and its DICOM series ("" if unknown).

    The voxels may be of any number type. The name and UID stay with the caller's patient: the name should be a role or
    a file's name, not a person's.
    """

    image: Image
    name: str
    series_uid: str = ""


@dataclass(frozen=True)
class Outcome:
    """A finished job: contours on the grid of the non-contrast CT, and what the checks found in them."""

    contours: Contours
    findings: tuple[Finding, ...]


Event = Progress | Outcome | SegRapError


class BackgroundContouring:
    """Contours one patient after the other in a process that stays warm between them.

    python: the interpreter that has torch. environment: variables for the process besides this one's own.
    """

    def __init__(self, python: str | Path = sys.executable, environment: Mapping[str, str] | None = None) -> None:
        self._python = str(python)
        self._environment = dict(environment or {})
        self._worker: _WorkerProcess | None = None
        self._job = 0
        self._scans: tuple[Scan, ...] = ()
        self._folder: Path | None = None
        self._cancel_by: float | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES)

    @property
    def running(self) -> bool:
        """True from `start` until `poll` has given the job's Outcome or error."""
        return self._folder is not None

    @property
    def log(self) -> str:
        """What the process has told on stderr, the last 500 lines."""
        return "\n".join(self._log)

    def start(
        self,
        non_contrast: Scan,
        contrast: Scan | None = None,
        *,
        model: str | Path | Sequence[str | Path] | None = None,
        structures: Sequence[str] | None = None,
        device: str = "auto",
        allow_demo_model: bool = False,
        quick: bool = False,
    ) -> None:
        """Begin a job; see `segrap.composition.compose` and `choose_models` for what the words mean.

        model: one or several, the best first; None for what suits best.

        The voxels must not change until the first Progress has arrived. Raises UsageError when a job is running,
        OutputError when there is no place for the voxels, ResourceError when the process cannot be started.
        """
        if self.running:
            raise UsageError("A job is running already. Wait for it, or cancel it.")
        if self._worker is None or not self._worker.is_alive:
            self._worker = _WorkerProcess(self._python, self._environment, self._log)
        self._job += 1
        self._cancel_by = None
        self._scans = (non_contrast,) if contrast is None else (non_contrast, contrast)
        try:
            self._folder = new_job_folder()
        except OSError as error:
            raise OutputError(_no_room(Path(tempfile.gettempdir()), error)) from error
        request = {
            "request": "contour",
            "job": self._job,
            "folder": str(self._folder),
            "models": [str(one) for one in ([model] if isinstance(model, (str, Path)) else model or ())],
            "structures": None if structures is None else list(structures),
            "device": device,
            "allow_demo_model": allow_demo_model,
            "quick": quick,
            "contrast": None,
        }
        self._worker.hand_over(request, self._scans)

    def poll(self, share_seconds: float = 0.0) -> list[Event]:
        """What has happened since the last call, in order: Progress, and at the end an Outcome or an error.

        After that the next job may start. An error is one of `segrap.errors`, with a message for the person.
        share_seconds: waits at most this long for the threads that carry voxels, while they do. A window that waits for
        events in C++ may hold Python's lock meanwhile, and they would not get on.
        """
        events: list[Event] = []
        if self._worker is not None:
            self._worker.wait_for_voxels(share_seconds)
        while self.running and self._worker is not None:
            reply = self._worker.next_reply()
            if reply is None:
                break
            event = self._event(reply)
            if isinstance(event, Progress):
                events.append(event)
            elif event is not None:
                self._end_job()
                events.append(event)
        if self.running and self._cancel_by is not None and time.monotonic() > self._cancel_by:
            self.close()
            events.append(Cancelled("The contouring was cancelled."))
        return events

    def cancel(self) -> None:
        """Ask for the end of the job; `poll` gives Cancelled within a second, by force where asking does not help."""
        if self.running and self._worker is not None and self._cancel_by is None:
            self._cancel_by = time.monotonic() + PATIENCE_SECONDS
            self._worker.send({"request": "cancel"})

    def close(self) -> None:
        """End the process, its children and the job, at once. A later `start` begins a new process."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None
        self._end_job()

    def _end_job(self) -> None:
        if self._folder is not None:
            # Deleting a gigabyte takes a while; no daemon, so that it is done even when the program ends now.
            threading.Thread(target=remove_job_folder, args=(self._folder,)).start()
        self._folder = None
        self._scans = ()

    def _event(self, reply: dict[str, Any]) -> Event | None:
        kind = reply["reply"]
        if kind == "ended":
            self._worker = None
            return self._ended(reply["status"]) if self._cancel_by is None else Cancelled(_CANCELLED)
        if reply.get("job") != self._job:
            return None
        if self._cancel_by is not None:
            # What was already on its way when the person cancelled is not wanted any more.
            return None if kind == "progress" else Cancelled(_CANCELLED)
        if kind == "progress":
            return Progress(reply["stage"], reply["fraction"], reply["message"])
        if kind == "error":
            return _named_error(reply["kind"], reply["message"], reply["about"])
        return self._outcome(reply)

    def _outcome(self, reply: dict[str, Any]) -> Outcome:
        provenance = Provenance.from_json(reply["provenance"])
        used = [
            scan
            for scan, role in zip(self._scans, ("non_contrast", "contrast"), strict=False)
            if role in reply["channels"]
        ]
        uids = tuple(scan.series_uid for scan in used or self._scans if scan.series_uid)
        contours = Contours(
            reply["layers"],
            self._scans[0].image.geometry,
            {name: facts_from_json(facts) for name, facts in reply["structures"].items()},
            replace(provenance, input_series_uids=uids),
        )
        findings = tuple(
            Finding(**{**entries, "where": entries["where"] and tuple(entries["where"])})
            for entries in reply["findings"]
        )
        return Outcome(contours, findings)

    def _ended(self, status: int) -> SegRapError:
        last = self._log[-1] if self._log else "it left no message"
        # Slicer's launcher of Python (CTKAppLauncher) tells of a child that was killed in these words, and ends with 1.
        if -status == getattr(signal, "SIGKILL", None) or "exit abnormally" in last:
            return ResourceError(
                "The background process was ended from outside, most often by the system because memory ran out. "
                "Close other programs, or use a smaller model. Nothing in the scene was changed."
            )
        return SegRapError(
            f"The background process ended unexpectedly (status {status}): {last}. Nothing in the scene was changed. "
            "Press Auto-contour again. If it stays so, close other programs, as memory may have run out; then open Log "
            "and report what it says."
        )


def _no_room(folder: Path, error: OSError) -> str:
    """Nobody chose the temporary folder: say what can be done about it."""
    return (
        f"The CTs cannot be written to {folder}, where the background process reads them: "
        f"{error.strerror or 'the disk is full'}. Free some space there, or let the environment variable TMPDIR "
        "(TEMP on Windows) name another folder."
    )


_CANCELLED = "The contouring was cancelled."


def _named_error(kind: str, message: str, about: str) -> SegRapError:
    error = getattr(errors, kind, SegRapError)
    return error(message, about)  # type: ignore[no-any-return]


class _WorkerProcess:
    """One `segrap.worker` process with the threads that read from it and hand voxels over."""

    def __init__(self, python: str, environment: Mapping[str, str], log: deque[str]) -> None:
        package_root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # A session (on Windows a group) of its own, so that it can be ended together with its children, and so that
        # Ctrl-C in a terminal reaches the caller alone, which then cancels.
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            self._process = subprocess.Popen(
                [python, "-m", "segrap.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "PYTHONPATH": path, **environment},
                **own_group,
            )
        except OSError as error:
            raise ResourceError(f"The background process cannot be started with {python}: {error.strerror}.") from error
        self._log = log
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._folder: Path | None = None
        self._writing = threading.Lock()
        self._carried = threading.Event()  # no thread is carrying voxels
        self._carried.set()
        log_reader = threading.Thread(target=self._read_log, daemon=True)
        log_reader.start()
        threading.Thread(target=self._read_replies, args=(log_reader,), daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def next_reply(self) -> dict[str, Any] | None:
        """The next reply that has arrived, with the label layers in memory, or None."""
        try:
            return self._replies.get_nowait()
        except queue.Empty:
            return None

    def hand_over(self, request: dict[str, Any], scans: Sequence[Scan]) -> None:
        """Write the voxels and then send the request, without keeping the caller waiting."""
        self._folder = Path(request["folder"])
        self._carried.clear()
        threading.Thread(target=self._hand_over, args=(request, scans), daemon=True).start()

    def wait_for_voxels(self, seconds: float) -> None:
        """Wait until no thread is carrying voxels, at most this long."""
        self._carried.wait(seconds)

    def send(self, request: dict[str, Any]) -> None:
        """Say something to the process; that it is gone will be noticed where its replies are read."""
        with self._writing:
            try:
                assert self._process.stdin
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                return

    def kill(self) -> None:
        """End the process and its children at once."""
        if sys.platform == "win32":
            command = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
            subprocess.run(command, creationflags=subprocess.CREATE_NO_WINDOW, capture_output=True, check=False)
        elif self.is_alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _hand_over(self, request: dict[str, Any], scans: Sequence[Scan]) -> None:
        try:
            self._write_and_send(request, scans)
        finally:
            self._carried.set()

    def _write_and_send(self, request: dict[str, Any], scans: Sequence[Scan]) -> None:
        folder = Path(request["folder"])
        for role, scan in zip(("non_contrast", "contrast"), scans, strict=False):
            file = f"{role}.npy"
            try:
                np.save(folder / file, hounsfield_array(scan.image.array))
            except OSError as error:
                self._fail(request["job"], OutputError(_no_room(folder, error)))
                return
            except MemoryError:
                self._fail(request["job"], ResourceError("There is not enough memory to hand the CTs over."))
                return
            geometry = scan.image.geometry
            request[role] = {
                "name": scan.name,
                "file": file,
                "spacing_mm": geometry.spacing_mm,
                "origin_mm": geometry.origin_mm,
                "direction": geometry.direction.tolist(),
            }
        self.send(request)

    def _fail(self, job: int, error: SegRapError) -> None:
        kind = type(error).__name__
        self._replies.put({"reply": "error", "job": job, "kind": kind, "message": str(error), "about": error.about})

    def _read_replies(self, log_reader: threading.Thread) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if not line.startswith("{"):  # said before segrap.worker took the channel for itself
                self._log.append(line.rstrip())
                continue
            reply = json.loads(line)
            if reply["reply"] == "result":
                self._carried.clear()
                reply = self._with_layers(reply)
            self._replies.put(reply)
            self._carried.set()
        log_reader.join(timeout=1.0)
        self._replies.put({"reply": "ended", "status": self._process.wait()})

    def _with_layers(self, reply: dict[str, Any]) -> dict[str, Any]:
        """The result with its label layers: read rather than mapped, for the file goes and the contours stay."""
        try:
            assert self._folder
            return {**reply, "layers": np.load(self._folder / reply["layers"])}
        except (OSError, ValueError, MemoryError) as error:
            message = f"The contours could not be taken over from the background process: {error}. Try again."
            return {"reply": "error", "job": reply["job"], "kind": "ResourceError", "message": message, "about": ""}

    def _read_log(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._log.append(line.rstrip())
