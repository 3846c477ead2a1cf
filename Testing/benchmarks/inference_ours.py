"""Runs segrap's engine once on a case of `inference.py`, in a process of its own: python inference_ours.py JOB.json

The clock runs from a model folder on disk and images in memory to label layers in memory; imports are not counted, as
they are not for the other contestants. What measuring confidence takes of the processor is written down too.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path


class Stopwatch:
    """Adds up the processor seconds, of all threads, that functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable) -> Callable:
        def timed(*args):
            begin = time.process_time()
            try:
                return function(*args)
            finally:
                self.seconds += time.process_time() - begin

        return timed


def main(job: dict) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["processors"])
    import numpy as np
    import torch

    import segrap.engine
    from segrap.engine.backends import Networks
    from segrap.engine.confidence import ShellMargins
    from segrap.models.folder import read_model

    for module in pkgutil.iter_modules(segrap.engine.__path__, "segrap.engine."):
        with suppress(ImportError):
            import_module(module.name)
    torch.set_num_threads(len(job["processors"]))
    images = [np.load(scan) for scan in job["scans"]]

    options = dict(job["options"])
    networks = Networks(openvino=options.pop("openvino", True))
    if job["kind"] == "open":
        networks.open(read_model(job["model"]), job["device"], quick=options.get("quick", False))
        return
    confidence = Stopwatch()
    for method in ("add", "finish"):
        setattr(ShellMargins, method, confidence.around(getattr(ShellMargins, method)))
    begin, cpu = time.perf_counter(), sum(os.times()[:4])
    model = read_model(job["model"])
    plan = model.output_plan()
    found = segrap.engine.segment(model, images, job["spacing_mm"], plan, job["device"], networks=networks, **options)
    took = {"wall_s": time.perf_counter() - begin, "cpu_s": sum(os.times()[:4]) - cpu, "engine": found.engine}
    if job["device"] != "cpu":
        took["gpu_gb"] = torch.cuda.max_memory_reserved() / 1e9
    took["parts"] = {"confidence": confidence.seconds}

    np.save(job["out"], found.layers)
    Path(job["answer"]).write_text(json.dumps(took))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
