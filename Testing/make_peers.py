"""Makes the Python environment in which nnunetv2 and its like run for the tests and benchmarks that compare with them.

    python Testing/make_peers.py [FOLDER]        default: .venv-peers in the repository

nnunetv2 is installed without its dependencies: its requirements would replace a CPU build of torch by a CUDA one.
torch, numpy, scipy and what else is there come from the environment that runs this script, through a .pth file;
`peers.txt` lists the rest, pinned. Safe to call again: an environment that is already complete is left alone.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(folder: Path) -> None:
    """Make or complete the environment in `folder`."""
    wanted = (HERE / "peers.txt").read_text()
    done = folder / "installed-peers.txt"
    if done.is_file() and done.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout.strip())
    (packages / "main-environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*install, "--requirement", HERE / "peers.txt"], check=True)
    done.write_text(wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / ".venv-peers")
