"""Installing Python packages as Slicer does: the real pip, into a folder of the test's own, never from a network.

slicer.util.pip_install and slicer.packaging.pip_ensure raise what Slicer's raise (Base/Python/slicer/packaging.py).
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import slicer.util

SITE = tempfile.mkdtemp(prefix="desktop-packages-")
_ask: Callable[[str], bool]


def use(ask: Callable[[str], bool]) -> None:
    """Make the application install into SITE; `ask` puts a question to the person."""
    global _ask
    _ask = ask
    slicer.util.pip_install = pip_install
    if SITE not in sys.path:
        sys.path.insert(0, SITE)
        os.environ["PYTHONPATH"] = os.pathsep.join([SITE, os.environ.get("PYTHONPATH", "")])


def pip_install(requirements: list[str], constraints: str | None = None) -> None:
    """Raises CalledProcessError, as Slicer's does."""
    new = tempfile.mkdtemp(prefix="desktop-install-")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", new, *requirements]
    if constraints:
        command += ["-c", constraints]
    alone = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    slicer.app.processEvents()  # as Slicer 5.10 does after every line that pip prints
    print(done.stdout, done.stderr)  # Slicer's Python console
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, "pip install", done.stdout, done.stderr)
    for record in Path(new).glob("*.dist-info"):  # with --target, pip itself leaves the old version's record behind
        for old in Path(SITE).glob(f"{record.name.split('-')[0]}-*.dist-info"):
            shutil.rmtree(old)
    shutil.copytree(new, SITE, dirs_exist_ok=True)
    importlib.invalidate_caches()


def pip_ensure(requirements: list[str], constraints: str, prompt_restart: bool, requester: str) -> None:
    """Asks, then installs what is listed: whoever calls it has looked at what is missing."""
    assert not prompt_restart and requester
    if not _ask(f"{len(requirements)} Python packages need to be installed."):
        raise RuntimeError("User declined package installation")
    pip_install(requirements, constraints)
