"""The Python packages that contouring needs, installed into Slicer when they are first needed and after asking.

From the network, or from a folder of wheels where there is none (docs/offline.md). What is called installed was found
and imported by a process like the one that contours.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import slicer
from packaging.requirements import Requirement
from slicer.i18n import tr as _

from segrap.errors import SegRapError

NEVER_REPLACED = ("numpy", "scipy", "SimpleITK", "vtk", "torch")
"""Other modules of Slicer live on these as they are."""
PATIENCE_SECONDS = 300


def missing(path: str, only: Collection[str] = ()) -> list[Requirement]:
    """Those that the requirements.txt at `path` lists and that are not installed in a version that will do.

    only: look at these of them alone.
    """
    importlib.invalidate_caches()
    return [one for one in _listed(path, only) if not _will_do(one, _version(one.name))]


def loaded_too_old(path: str, only: Collection[str] = ()) -> list[str]:
    """Packages, with versions, that this process loaded before better ones were installed; a restart helps."""
    loaded = [(one, getattr(sys.modules.get(one.name), "__version__", "")) for one in _listed(path, only)]
    return [f"{one.name} {version}" for one, version in loaded if version and not _will_do(one, version)]


def _listed(path: str, only: Collection[str]) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [one for one in (Requirement(line) for line in lines if line) if not only or one.name in only]


def _will_do(one: Requirement, version: str) -> bool:
    return one.specifier.contains(version or "0", prereleases=True)


def ensure_requirements(path: str, wheels: str | None = None, only: Collection[str] = ()) -> list[str]:
    """Make sure that what the requirements.txt at `path` lists is there; asks the user before anything is downloaded.

    only: these of them alone. wheels: a folder of wheels, the only place then to install from. PyTorch comes through
    the PyTorch extension where that is installed, because it knows which build fits the GPU. Nothing of NEVER_REPLACED
    is replaced.

    Returns the names of packages that Slicer had loaded already and that were replaced: Slicer itself uses the new ones
    only after a restart, a new process at once. Raises SegRapError, which says what to do, when the user declines, an
    installation fails, or what was installed does not work.
    """
    lacking = missing(path, only)
    if not lacking:
        return []
    for one in lacking:
        if one.name in NEVER_REPLACED and _version(one.name):
            words = _(
                "{name} {version} is installed, and contouring needs {wanted}. It is not replaced without you, because "
                "other modules may use it: uninstall it (Python console: pip_uninstall('{name}')), restart Slicer, and "
                "try again."
            )
            raise SegRapError(words.format(name=one.name, version=_version(one.name), wanted=one))
    before = _loaded_versions()
    try:
        with _constraints() as constraints:
            if wheels is not None:
                options = ["--no-index", "--find-links", wheels, "-c", constraints]
                slicer.util.pip_install([*map(str, lacking), *options])
            else:
                _download(path, only, constraints)
    except subprocess.CalledProcessError as error:
        raise SegRapError(_failed(lacking, wheels)) from error
    except (RuntimeError, ImportError, OSError) as error:
        # pip_ensure: declined. PythonSlicer is not found. What PyTorch's own extension imports after its installation.
        words = _("Contouring needs Python packages that are missing ({packages}): {reason}.")
        raise SegRapError(words.format(packages=_names(lacking), reason=str(error).rstrip("."))) from error
    if missing(path, only):
        raise SegRapError(_failed(missing(path, only), wheels))
    _try_out(lacking)
    after = _loaded_versions()
    return sorted(name for name, version in before.items() if after.get(name, version) != version)


def _download(path: str, only: Collection[str], constraints: str) -> None:
    torch = next((one for one in missing(path, only) if one.name == "torch"), None)
    if torch is not None and importlib.util.find_spec("PyTorchUtils") is not None:
        import PyTorchUtils

        floor = str(torch.specifier)
        if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=floor) is None:
            raise RuntimeError(_("PyTorch was not installed"))
    lacking = [str(one) for one in missing(path, only)]
    if not lacking:
        return
    if importlib.util.find_spec("slicer.packaging") is not None:
        from slicer.packaging import pip_ensure

        pip_ensure(lacking, constraints=constraints, prompt_restart=False, requester="SegRapSlicer")
        return
    # Slicer 5.10
    words = _("Contouring needs Python packages: {packages}. Download and install them into Slicer?")
    if not slicer.util.confirmOkCancelDisplay(words.format(packages=", ".join(lacking))):
        raise RuntimeError(_("you declined the installation"))
    slicer.util.pip_install([*lacking, "-c", constraints])


def _failed(lacking: list[Requirement], wheels: str | None) -> str:
    if wheels is not None:
        words = _(
            "Not installed: {packages}. The folder {folder} lacks a wheel that fits this Slicer (Python {python}); "
            "Slicer's Python console names it. See docs/offline.md for how to make the folder."
        )
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return words.format(packages=_names(lacking), folder=wheels, python=python)
    words = _(
        "Not installed: {packages}. Slicer's Python console says why. Check the connection, the proxy and the free "
        "disk space, and try again; without a network, choose Install from folder... (docs/offline.md)."
    )
    return words.format(packages=_names(lacking))


def _try_out(installed: list[Requirement]) -> None:
    """Import the packages in a process like the one that contours. A package that is there may still not work."""
    python = shutil.which("PythonSlicer") or sys.executable
    imports = "import " + ", ".join(one.name.replace("-", "_") for one in installed)
    window = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    words = _(
        "Installed, but not usable: {packages} ({reason}). Restart Slicer and try again; if it stays so, uninstall it "
        "(Python console: pip_uninstall('{first}')) and install it anew."
    )
    try:
        done = subprocess.run(
            [python, "-c", imports],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            check=False,
            **window,
        )
        reason = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        raise SegRapError(words.format(packages=_names(installed), reason=reason, first=installed[0].name))


@contextmanager
def _constraints() -> Iterator[str]:
    """A file for pip that holds what is never replaced to the versions that are installed."""
    lines = [f"{name}=={version}" for name in NEVER_REPLACED if (version := _version(name))]
    with tempfile.TemporaryDirectory(prefix="segrap-pip-") as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        yield str(path)


def _version(name: str) -> str:
    """The installed version, "" when there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _loaded_versions() -> dict[str, str]:
    """The version of every distribution that this process has imported something of."""
    importlib.invalidate_caches()
    owners = importlib.metadata.packages_distributions()
    return {owner: _version(owner) for name in owners if name in sys.modules for owner in owners[name]}


def _names(requirements: list[Requirement]) -> str:
    return ", ".join(str(one) for one in requirements)
