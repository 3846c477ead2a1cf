"""How fast, how lean and how exact the engine is, beside nnunetv2, MONAI and TotalSegmentator's export.

    python Testing/benchmarks/inference.py [--case 512x130 ...] [--mirror] [--only NAME ...] [--repeats 5] [--threads 1]
                                           [--device cuda]

Downloads nothing. A case is a made-up patient (tiny, 512x60, 512x130, 1024x130) or a folder with a CT pair; the model
is the shipped one or any folder that nnunetv2 can run too. All contestants run in turn (A B C A B C ...), each in a
process of its own, on the same processors with as many threads, from the same arrays and the same weights. The peers
live in the environment that `make_peers.py` makes; what is missing or does not fit into memory is said.

With --device cuda, segrap, nnunetv2 and TotalSegmentator's export run on the first NVIDIA GPU (both environments need a
torch for CUDA); their GPU memory is what torch held of it at most.

Every run is kept in build/benchmarks, and another call adds to them, so that a long comparison can be made in parts;
runs of another state of the engine are left out. Each case's section of RESULTS.md, beside this file, is written anew
from all its runs. With one thread, five runs of all on 512x60 take about half an hour.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from inference_cases import MADE_UP, make_case
from inference_race import CONTESTANTS, HERE, PACKAGE, REPOSITORY, Race
from inference_report import write_section

from segrap.models.folder import read_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=["512x60"], help=f"{', '.join(MADE_UP)}, or a folder")
    parser.add_argument("--model", type=Path, default=PACKAGE / "models" / "shipped" / "SegRapPhantom")
    parser.add_argument("--mirror", action="store_true", help="let the model be mirrored over all axes, as many are")
    parser.add_argument("--only", nargs="+", choices=[c.name for c in CONTESTANTS], help="default: all that fit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "benchmarks")
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} sees no CUDA device here")
    model = read_model(given.model)
    contestants = [c for c in CONTESTANTS if given.only is None or c.name in given.only]
    contestants = [c for c in contestants if c.on_gpu or given.device == "cpu"]
    contestants = [c for c in contestants if given.mirror or c.options.get("mirror", True)]
    for name in given.case:
        case = make_case(name, given.work)
        race = Race(case, model, given.work, mirrored=given.mirror, threads=given.threads, device=given.device)
        race.run(contestants, given.repeats)
        write_section(given.results, race)
        print(f"written to {given.results.name}")


if __name__ == "__main__":
    main()
