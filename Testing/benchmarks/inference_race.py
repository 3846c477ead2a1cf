"""The contestants of `inference.py` and their runs on one case: started in turn, each kept with what it was made of."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

import psutil
from inference_cases import Case, model_variant
from inference_measure import Measurement, run

import segrap
from segrap.engine import segment
from segrap.models.folder import Model

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PACKAGE = Path(segrap.__file__).resolve().parent
PEERS = Path(os.environ.get("SEGRAP_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python"))
ORACLE_GB = 6.0  # of a larger case no oracle is made


@dataclass(frozen=True)
class Contestant:
    """kind: segrap, or a function of `inference_peers.py`. knob: it changes the result on purpose, and runs once.
    on_gpu: it can run there too."""

    name: str
    title: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    torch_resampling: bool = False
    knob: bool = False
    on_gpu: bool = False


CONTESTANTS = (
    Contestant("segrap", "segrap", "segrap", on_gpu=True),
    Contestant("segrap-torch", "segrap without OpenVINO", "segrap", {"openvino": False}),
    Contestant("segrap-quick", "segrap `--quick` (bfloat16)", "segrap", {"quick": True}),
    Contestant("nnunetv2", "nnunetv2, defaults", "nnunetv2", on_gpu=True),
    Contestant("nnunetv2-torch", "nnunetv2, torch resampling", "nnunetv2", torch_resampling=True),
    Contestant("monai", "MONAI window, interpolate, argmax", "monai"),
    Contestant("totalsegmentator", "TotalSegmentator's export", "totalsegmentator", on_gpu=True),
    Contestant("segrap-all-tiles", "segrap, tiles of air too", "segrap", {"skip_air": False}, knob=True),
    Contestant("segrap-step-0.75", "segrap, tile step 0.75", "segrap", {"step": 0.75}, knob=True),
    Contestant("nnunetv2-step-0.75", "nnunetv2, tile step 0.75", "nnunetv2", {"step": 0.75}, knob=True),
    Contestant("segrap-no-mirroring", "segrap, no mirroring", "segrap", {"mirror": False}, knob=True),
    Contestant("nnunetv2-no-mirroring", "nnunetv2, no mirroring", "nnunetv2", {"mirror": False}, knob=True),
)
ORACLE = Contestant("oracle", "exact arithmetic", "oracle")
PARTS = Contestant("parts", "nnunetv2, sum of its parts", "parts")
BY_NAME = {contestant.name: contestant for contestant in (*CONTESTANTS, ORACLE, PARTS)}


def needed_gb(contestant: Contestant, classes: int, network_voxels: int, voxels: int) -> float:
    """About the memory that a peer takes at its peak: its arrays of classes x voxels, and 1 GB for all else.

    nnunetv2 holds scores in float16 with a float64 copy and the resampled ones in float16; torch's resampling works in
    float32 and copies its result; MONAI holds both grids in float32; the oracle sums in float64.
    """
    at_network, at_image = classes * network_voxels / 1e9, classes * voxels / 1e9
    if contestant.torch_resampling:
        return 1 + 6 * at_network + 8 * at_image
    bytes_each = {"nnunetv2": (10, 2), "monai": (4, 4), "totalsegmentator": (3, 0), "oracle": (8, 0), "parts": (0, 0)}
    network, image = bytes_each[contestant.kind]
    return 1 + network * at_network + image * at_image


class Race:
    """One case, one model, mirrored or not, on so many processors, and with a GPU or without; its runs and labels are
    kept under `work`."""

    def __init__(self, case: Case, model: Model, work: Path, *, mirrored: bool, threads: int, device: str) -> None:
        self.case, self.model, self.mirrored, self.device = case, model, mirrored, device
        self._user = work / "user"
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self.processors = sorted(usable)[:threads]
        known = model.hash.removeprefix("sha256:")[:8]
        self.title = f"{case.name}{', 8-fold mirroring' if mirrored else ''}{', GPU' if device != 'cpu' else ''}"
        mirroring = "mirrored" if mirrored else "plain"
        on_gpu = "" if device == "cpu" else f"-{device}"
        self._folder = work / f"{case.name}-{mirroring}-{known}-{len(self.processors)}{on_gpu}"
        self._folder.mkdir(parents=True, exist_ok=True)
        models = work / "models" / known
        self._model = model_variant(model, models / mirroring, mirrored=mirrored)
        count = len(self.processors)
        self._torch_model = models / f"{mirroring}-torch-resampling-{count}"
        model_variant(model, self._torch_model, mirrored=mirrored, torch_resampling=count)

    def labels(self, contestant: Contestant) -> Path:
        """Where the labels of its last run lie."""
        return self._folder / f"{contestant.name}.npy"

    def _job(self, contestant: Contestant) -> dict[str, Any]:
        return {
            "kind": contestant.kind,
            "model": str(self._torch_model if contestant.torch_resampling else self._model),
            "scans": [str(self.case.scan(role)) for role in self.model.channels],
            "spacing_mm": self.case.spacing_mm,
            "options": contestant.options,
            "processors": self.processors,
            "device": self.device,
            "out": str(self.labels(contestant)),
        }

    def _run_ours(self, job: dict[str, Any]) -> Measurement | str:
        folders = {name: str(self._user) for name in ("SEGRAP_MODELS", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        environment = folders | {"PYTHONPATH": str(PACKAGE.parent)}
        return run(Path(sys.executable), HERE / "inference_ours.py", job, environment)

    def measure(self, contestant: Contestant) -> Measurement | str:
        """Run a contestant once, or say why that cannot be."""
        job = self._job(contestant)
        if contestant.kind == "segrap":
            unknown = set(contestant.options) - {"openvino"} - set(inspect.signature(segment).parameters)
            if unknown:
                return f"the engine has no option {', '.join(sorted(unknown))}"
            return self._run_ours(job)
        if not PEERS.is_file():
            return "not installed: python Testing/make_peers.py"
        needed, free = self.needed_gb(contestant), psutil.virtual_memory().available / 1e9
        if needed > free:
            return f"does not run here: needs about {needed:.0f} GB of memory, {free:.0f} GB are free"
        return run(PEERS, HERE / "inference_peers.py", job, {})

    def needed_gb(self, peer: Contestant) -> float:
        network = prod(self.case.network_shape(self.model))
        return needed_gb(peer, self.model.labels.score_channels, network, prod(self.case.shape))

    def run(self, contestants: list[Contestant], repeats: int) -> None:
        """Run all in turn, so many times, and keep each run. What failed is not tried again."""
        runs = self.runs()
        for contestant in contestants:
            if contestant.kind == "segrap":
                self._run_ours(self._job(contestant) | {"kind": "open"})
        if (
            ORACLE.name not in runs
            and not self.mirrored
            and self.device == "cpu"
            and self.needed_gb(ORACLE) < ORACLE_GB
        ):
            self._run_once(ORACLE, "once")
        failed: set[str] = set()
        for number in range(repeats):
            for contestant in contestants:
                if contestant.name in failed or (contestant.knob and number):
                    continue
                if not self._run_once(contestant, f"run {number + 1}"):
                    failed.add(contestant.name)
        if "nnunetv2" in failed and PARTS.name not in runs and PEERS.is_file():
            self._run_once(PARTS, "once")

    def _run_once(self, contestant: Contestant, which: str) -> bool:
        found = self.measure(contestant)
        result: dict[str, Any] = {"contestant": contestant.name, "revision": revision(contestant.kind)}
        result["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
        if isinstance(found, str):
            result["failure"] = said = found
        else:
            result |= asdict(found)
            said = f"{found.cpu_s:.1f} s of processor, {found.wall_s:.1f} s by the clock, {found.peak_gb:.2f} GB"
            said += f", {found.gpu_gb:.2f} GB of the GPU" if found.gpu_gb else ""
            if contestant.kind != "parts":
                result["labels"] = hashlib.sha256(self.labels(contestant).read_bytes()).hexdigest()[:16]
        with (self._folder / "runs.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{self.title}, {which}: {contestant.title}: {said}", flush=True)
        return not isinstance(found, str)

    def runs(self) -> dict[str, list[dict[str, Any]]]:
        """The kept runs of each contestant, of the engine's present source and the peers' present versions only.
        Failures count only where nothing ran."""
        path = self._folder / "runs.jsonl"
        kept: dict[str, list[dict[str, Any]]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            one = json.loads(line)
            contestant = BY_NAME.get(one["contestant"])
            if contestant is not None and one["revision"] == revision(contestant.kind):
                kept.setdefault(contestant.name, []).append(one)
        done = {name: [one for one in found if "failure" not in one] for name, found in kept.items()}
        return {name: done[name] or found[-1:] for name, found in kept.items()}


@cache
def revision(kind: str) -> str:
    """What must be the same for runs to be put together: the engine's source, or the peers' versions."""
    if kind != "segrap":
        return ", ".join(f"{name} {version}" for name, version in peer_versions().items())
    total = hashlib.sha256()
    reading = [PACKAGE / "models" / f"{name}.py" for name in ("checkpoint", "folder", "labels", "network")]
    for path in sorted([*PACKAGE.glob("engine/**/*.py"), *reading]):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


@cache
def peer_versions() -> dict[str, str]:
    """Of the packages that matter: those of the peers' environment, and those that it shares with segrap's."""
    own = [str(path) for path in PEERS.parents[1].glob("lib/python*/site-packages")]
    found = {one.metadata["Name"].lower(): one.version for one in metadata.distributions(path=own)}
    found |= {name: metadata.version(name) for name in ("torch", "numpy", "scipy")}
    wanted = ("torch", "numpy", "scipy", "nnunetv2", "monai", "TotalSegmentator", "scikit-image")
    return {name: found[name.lower()] for name in wanted if name.lower() in found}
