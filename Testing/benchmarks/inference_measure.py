"""Runs one contestant of `inference.py` as a process and measures it from outside.

Memory is that of the whole process tree, added up five times a second, or, on Linux, the largest high-water mark of one
process, whichever is more. (Not the ru_maxrss of `wait4`: a child's begins with the size of what started it.) What else
the computer did meanwhile is measured too: it changes the clock's seconds, and, by shared caches, a little those of the
processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SAMPLE_S = 0.2


@dataclass(frozen=True)
class Measurement:
    """wall_s, cpu_s: the job alone, as the process itself says. process_*: all of the process and its children, from
    start to end. other_cores: how many processors other work kept busy meanwhile, on average. engine: what ran the
    network, in the words of segrap. gpu_gb: the most that torch held of the GPU's memory, in the process's words."""

    wall_s: float
    cpu_s: float
    process_wall_s: float
    process_cpu_s: float
    tree_gb: float
    largest_process_gb: float
    other_cores: float
    engine: str = ""
    parts: dict[str, float] | None = None
    gpu_gb: float = 0.0

    @property
    def peak_gb(self) -> float:
        return max(self.tree_gb, self.largest_process_gb)


def run(python: Path, script: Path, job: dict[str, Any], extra: dict[str, str]) -> Measurement | str:
    """Run a script on a job with as many threads as it has processors; what was measured, or why it failed."""
    threads = str(len(job["processors"]))
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = inherited | {f"{name}_NUM_THREADS": threads for name in names} | extra
    environment |= {"nnUNet_def_n_proc": threads}
    if job["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = job | {"answer": str(folder / "answer.json")}
        (folder / "job.json").write_text(json.dumps(job))
        with (folder / "said.txt").open("w") as said:
            before, begin = _busy_s(), time.perf_counter()
            process = subprocess.Popen([python, script, folder / "job.json"], env=environment, stdout=said, stderr=said)
            tree_gb, largest_gb, status, usage = _watch(process)
            wall = time.perf_counter() - begin
        cpu = usage.ru_utime + usage.ru_stime
        if status or not (folder / "answer.json").exists():
            why = (folder / "said.txt").read_text().strip().splitlines()[-1:] or ["it said nothing"]
            return "killed, probably for memory" if os.WIFSIGNALED(status) else why[0]
        answer = json.loads((folder / "answer.json").read_text())
        other = max(0.0, (_busy_s() - before - cpu) / wall)
        return Measurement(
            **{key: answer[key] for key in ("wall_s", "cpu_s", "engine", "parts", "gpu_gb") if key in answer},
            process_wall_s=wall,
            process_cpu_s=cpu,
            tree_gb=tree_gb,
            largest_process_gb=largest_gb,
            other_cores=other,
        )


def _watch(process: subprocess.Popen) -> tuple[float, float, int, Any]:
    """Largest memory in GB of the tree and of one process, exit status as `os.wait4` gives it, what the tree used."""
    root, most, largest = psutil.Process(process.pid), 0.0, 0.0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return most, largest, status, usage
        total = 0
        try:
            for one in [root, *root.children(recursive=True)]:
                total += one.memory_info().rss
                largest = max(largest, _high_water_gb(one.pid))
        except psutil.NoSuchProcess:
            continue
        most = max(most, total / 1e9)
        time.sleep(SAMPLE_S)


def _high_water_gb(pid: int) -> float:
    """The most memory that a process has held so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e9


def _busy_s() -> float:
    """Processor seconds that all processes of this computer have used."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "system", "nice", "irq", "softirq"))
