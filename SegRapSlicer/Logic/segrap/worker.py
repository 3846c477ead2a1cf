"""The background process that contours while its caller (3D Slicer, a server) stays free: `python -m segrap.worker`.

It reads one JSON object per line from stdin and answers with one JSON object per line on stdout; what is meant for
people goes to stderr. Voxels travel in .npy files of a folder that the caller made for the job and owns; nothing else
about a patient reaches this process. `segrap.background` is the caller's side of it.

Requests:
    {"request": "contour", "job": 1, "folder": PATH, "non_contrast": VOLUME, "contrast": VOLUME or null,
     "models": [NAME_OR_FOLDER, ...], "structures": [NAME, ...] or null, "device": "auto", "allow_demo_model": false,
     "quick": false}
        models: the best first; none for what suits best
        VOLUME: {"name": what messages call it, "file": NAME.npy in the folder, (z, y, x) Hounsfield units,
                 "spacing_mm", "origin_mm", "direction": as in segrap.geometry.Geometry}
    {"request": "cancel"}     end the running job, if there is one; the process stays
    {"request": "quit"}       end the process, and the running job with it

Replies:
    {"reply": "ready"}                                       requests are being read
    {"reply": "progress", "job", "stage", "fraction", "message"}
        the first of the stage "Contouring" names what computes in its message, the others the tile; those of the stage
        "Memory" tell what the run will take and what is free, and each step down to less
    {"reply": "result", "job", "layers": NAME.npy in the folder, (layer, z, y, x) uint8 on the non-contrast CT's grid,
     "structures": {NAME: facts}, "provenance", "channels": of the models, "findings"}
        facts, provenance, findings: the fields of segrap.contours.StructureFacts (box as [[start, stop], ...]),
        segrap.contours.Provenance and segrap.quality.Finding
    {"reply": "error", "job", "kind": name of a class of segrap.errors, "message", "about": see SegRapError}

Every contour request gets progress and then one result or error. A request while a job is running is refused with a
UsageError. When stdin ends, the caller is gone: the job's folder is removed and the process ends at once. The process
stays between jobs, with torch loaded and the last model ready.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from segrap.contours import Contours, StructureFacts
from segrap.errors import Cancelled, ResourceError, SegRapError
from segrap.geometry import Geometry
from segrap.image import Image
from segrap.job_folders import remove_job_folder
from segrap.progress import Progress

if TYPE_CHECKING:
    from segrap.engine.backends import Networks

LAYERS_FILE = "layers.npy"


class Worker:
    """One process's conversation: a thread that listens, and this one, which works."""

    def __init__(self, requests: TextIO, replies: TextIO) -> None:
        self._requests = requests
        self._replies = replies
        self._jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancelled = threading.Event()
        self._running: dict[str, Any] | None = None
        self._writing = threading.Lock()
        self._networks: Networks | None = None

    def run(self) -> None:
        """Work until the caller says quit or is gone."""
        self._reply("ready")
        threading.Thread(target=self._listen, daemon=True).start()
        while (request := self._jobs.get()) is not None:
            try:
                answer = self._answer(request)
                self._running = None  # before the answer is out: the caller may send the next job at once
                self._reply(job=request["job"], **answer)
            except OSError:  # nobody takes answer or log: the caller is gone, and may not have been missed yet
                remove_job_folder(Path(request["folder"]))
                return
            if self._networks is not None:
                self._networks.give_back_gpu_memory()  # Slicer's views need it while this process waits

    def _listen(self) -> None:
        for line in self._requests:
            request = json.loads(line)
            if request["request"] == "cancel":
                self._cancelled.set()
            elif request["request"] == "quit":
                break
            elif self._running is not None:
                refusal = _error("UsageError", "A job is running already. Wait for it, or cancel it.")
                self._reply(job=request["job"], **refusal)
            else:
                self._cancelled.clear()
                self._running = request
                self._jobs.put(request)
        running = self._running
        if running is not None:
            remove_job_folder(Path(running["folder"]))
            os._exit(Cancelled.exit_status)  # a network in the middle of a layer would not end otherwise
        self._jobs.put(None)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"reply": "result", **self._contour(request)}
        except SegRapError as error:
            return _error(type(error).__name__, str(error), error.about)
        except MemoryError:
            return _error(ResourceError.__name__, "There is not enough memory. Close other programs, and try again.")
        except Exception as error:
            # A defect of this software: the process must answer all the same, and the log must tell where it was.
            traceback.print_exc()
            message = f"An unexpected fault ({type(error).__name__}: {error}). The log says more."
            return _error(SegRapError.__name__, message)

    def _contour(self, request: dict[str, Any]) -> dict[str, Any]:
        self._progress(request, Progress("Starting", 0.0))
        from segrap.composition import channels, choose_models, compose
        from segrap.ct.pair import pair_images
        from segrap.engine.backends import Networks
        from segrap.quality import check

        folder = Path(request["folder"])
        self._progress(request, Progress("Checking the CT", 0.0))
        volumes = [volume for volume in (request["non_contrast"], request["contrast"]) if volume]
        images = [_read_volume(folder, volume) for volume in volumes]
        names = (volumes[0]["name"], volumes[-1]["name"])
        pair = pair_images(images[0], images[1] if len(images) > 1 else None, names)
        self._progress(request, Progress("Reading the model", 0.0))
        models = choose_models(pair, request["models"], request["structures"])
        self._networks = self._networks or Networks()
        contours = compose(
            pair,
            models,
            request["structures"],
            lambda progress: self._progress(request, progress),
            self._cancelled.is_set,
            device=request["device"],
            allow_demo_model=request["allow_demo_model"],
            quick=request["quick"],
            networks=self._networks,
        )
        self._progress(request, Progress("Checking the contours", 1.0))
        findings = check(contours, pair.non_contrast)
        _write_layers(contours, folder / LAYERS_FILE)
        return {
            "layers": LAYERS_FILE,
            "structures": {name: facts_to_json(facts) for name, facts in contours.structures.items()},
            "provenance": contours.provenance.to_json(),
            "channels": channels(models),
            "findings": [asdict(finding) for finding in findings],
        }

    def _progress(self, request: dict[str, Any], progress: Progress) -> None:
        if self._cancelled.is_set():
            raise Cancelled("The contouring was cancelled.")
        self._reply("progress", job=request["job"], **progress._asdict())

    def _reply(self, reply: str, **entries: Any) -> None:
        with self._writing:
            self._replies.write(json.dumps({"reply": reply, **entries}) + "\n")
            self._replies.flush()


def _error(kind: str, message: str, about: str = "") -> dict[str, Any]:
    return {"reply": "error", "kind": kind, "message": message, "about": about}


def facts_to_json(facts: StructureFacts) -> dict[str, Any]:
    """The fields of StructureFacts with what JSON has no word for put into lists."""
    box = None if facts.box is None else [[axis.start, axis.stop] for axis in facts.box]
    return {**{name: getattr(facts, name) for name in facts.__dataclass_fields__}, "box": box}


def facts_from_json(entries: dict[str, Any]) -> StructureFacts:
    """The inverse of `facts_to_json`."""
    box = entries["box"] and tuple(slice(start, stop) for start, stop in entries["box"])
    return StructureFacts(**{**entries, "box": box, "cut_at": tuple(entries["cut_at"])})


def _read_volume(folder: Path, volume: dict[str, Any]) -> Image:
    geometry = Geometry(volume["spacing_mm"], volume["origin_mm"], np.array(volume["direction"]))
    return Image(np.load(folder / volume["file"], mmap_mode="r"), geometry)


def _write_layers(contours: Contours, path: Path) -> None:
    from segrap.writing import replacing

    with replacing(path) as temporary:
        np.save(temporary, contours.layers)


def main() -> None:
    """Serve on the process's stdin and stdout; whatever else is printed goes to stderr."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    Worker(os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8"), replies).run()


if __name__ == "__main__":
    main()
