"""Time and memory of the whole road: `segrap demo`, and a 1024 x 1024 x 130 pair with the shipped model.

    python Testing/benchmarks/road.py [--repeats 3]

Each run is a process of its own, started after the one before has ended. Wall and CPU seconds are those of the process;
peak memory is the largest resident size that the operating system saw (one process, no children). The pair is a
made-up patient rendered once at 0.488 x 0.488 x 3 mm and kept as uncompressed .mha files, so that reading is fast.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(*arguments: object) -> tuple[float, float, float]:
    """Run `segrap ARGUMENTS`; wall seconds, CPU seconds, peak resident GB."""
    script = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run([sys.executable, '-m', 'segrap', *sys.argv[1:]], stdout=2).returncode\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)\n"
        "sys.exit(code)"
    )
    begin = time.perf_counter()
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu, memory = map(float, done.stdout.split())
    return time.perf_counter() - begin, cpu, memory


def large_pair(folder: Path) -> list[Path]:
    """A made-up patient of 1024 x 1024 x 130 voxels as two .mha files."""
    from segrap.image import write_image
    from segrap.training.phantom import Phantom

    case = Phantom(2).render(spacing_mm=(500 / 1024, 500 / 1024, 3.0), size=(1024, 1024, 130))
    paths = [folder / "non_contrast.mha", folder / "contrast.mha"]
    for image, path in zip((case.non_contrast, case.contrast), paths, strict=True):
        write_image(image, path, compress=False)
    return paths


def main() -> None:
    """Print one line per job: medians, and the range of the wall time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(f"{os.cpu_count()} processors, {repeats} runs each")
    print(f"{'job':28} {'wall s':>8} {'range':>15} {'CPU s':>8} {'peak GB':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair = large_pair(folder)
        jobs = {
            "segrap demo": lambda n: measure("demo", "--output", folder / f"demo{n}"),
            "segrap contour, 1024 pair": lambda n: measure("contour", *pair, "--output", folder / f"large{n}"),
        }
        for title, job in jobs.items():
            runs = [job(number) for number in range(repeats)]
            wall, cpu, memory = ([run[column] for run in runs] for column in range(3))
            spread = f"{min(wall):.1f} to {max(wall):.1f}"
            middle = statistics.median
            print(f"{title:28} {middle(wall):8.1f} {spread:>15} {middle(cpu):8.1f} {max(memory):8.2f}")


if __name__ == "__main__":
    main()
