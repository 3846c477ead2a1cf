"""One fold's network, run by OpenVINO on the CPU: about 1.9 times torch's speed, three times in bfloat16.

OpenVINO is optional (`pip install segrap[openvino]`). A network is converted once, in a process of its own, for that
takes seconds and some gigabytes (`conversion`), and kept in the user's library, checksummed. OpenVINO reports its use
to its makers over the network, at its very import; here that part of it is never loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from segrap.engine.runners import FoldRunner, Maps, NotUsable, Stop
from segrap.models.folder import Model
from segrap.models.library import conversions_folder

SUMS = "sha256.json"
POLL_MS = 100


def import_openvino() -> Any:
    """The module openvino, without its telemetry: it falls back to doing nothing where that cannot be imported."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def openvino_runners(
    model: Model, maps: Maps, half: bool, convert: bool, stop: Stop, say: Callable[[str], None]
) -> tuple[list[FoldRunner], str]:
    """A runner per fold of the model, and what runs them, in words.

    Converts the model if that has not been done yet, unless `convert` is False. Raises NotUsable: without words where
    OpenVINO is not installed or the model not converted, else with the reason; Cancelled.
    """
    if importlib.util.find_spec("openvino") is None:
        raise NotUsable
    try:
        openvino = import_openvino()
        core = openvino.Core()
        hardware = core.get_property("CPU", "FULL_DEVICE_NAME")
        version = openvino.__version__.split("-")[0]
        precision = "bfloat16" if half else "float32"
        folder = converted(model, maps, precision, version, convert, stop, say)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # the person goes on working on the same cores
        }
        runners = [
            OpenVINORunner(core.compile_model(str(folder / f"{fold}.xml"), "CPU", settings), stop)
            for fold in model.folds
        ]
    except (ImportError, OSError, RuntimeError) as fault:
        first = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise NotUsable(f"OpenVINO could not be used ({first}): torch was.") from None
    return list(runners), f"OpenVINO {version} on {hardware}, {precision}"


class OpenVINORunner:
    """A compiled network."""

    def __init__(self, compiled: Any, stop: Stop) -> None:
        self._request = compiled.create_infer_request()
        self._stop = stop

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._request.start_async({0: x.contiguous().numpy()})
        try:
            while not self._request.wait_for(POLL_MS):
                self._stop.check()
        except BaseException:
            self._request.cancel()
            self._request.wait()
            raise
        return torch.from_numpy(self._request.get_output_tensor(0).data)


def converted(
    model: Model, maps: Maps, precision: str, version: str, convert: bool, stop: Stop, say: Callable[[str], None]
) -> Path:
    """The folder of a model's converted networks, one <fold>.xml and .bin each; made if it is not there whole.

    precision: float32 or bfloat16, for which the networks are laid out.

    Raises NotUsable (not there and `convert` is False, or the conversion failed), OSError (the library cannot be
    written), Cancelled.
    """
    patch = "x".join(str(n) for n in model.patch_size)
    target = conversions_folder(model.hash) / f"openvino-{version}-{maps}-last-joined-{precision}-{patch}"
    if _whole(target, model):
        return target
    if not convert:
        raise NotUsable
    say("Converting the model for OpenVINO, once")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        _convert_in_child(model, maps, precision, scratch, stop)
        sums = {path.name: _sum(path) for path in sorted(scratch.iterdir())}
        (scratch / SUMS).write_text(json.dumps(sums), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert_in_child(model: Model, maps: Maps, precision: str, folder: Path, stop: Stop) -> None:
    package_root = str(Path(__file__).parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    job = [str(model.folder), maps, precision, str(folder), *model.folds]
    command = [sys.executable, "-m", "segrap.engine.conversion", *job]
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            while child.poll() is None:
                stop.check()
                time.sleep(POLL_MS / 1000)
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            words.seek(0)
            last = (words.read().decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
            raise NotUsable(f"OpenVINO could not convert the model ({last}): torch was used.")


def _whole(folder: Path, model: Model) -> bool:
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        expected = {f"{fold}.{ending}" for fold in model.folds for ending in ("xml", "bin")}
        return set(sums) == expected and all(_sum(folder / name) == sums[name] for name in expected)
    except (OSError, ValueError):
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
