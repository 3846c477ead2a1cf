"""The Python packages that contouring needs, installed into Slicer when they are first needed and after asking."""

from __future__ import annotations

import importlib.util

from slicer.i18n import tr as _

from segrap.errors import SegRapError


def ensure_requirements(path: str) -> None:
    """Make sure that what the requirements.txt at `path` lists is there; asks the user before installing.

    PyTorch comes through the PyTorch extension where that is installed, because it knows which build fits the GPU. What
    is installed already is never replaced.

    Raises SegRapError when the user declines or an installation fails.
    """
    if importlib.util.find_spec("torch") is None and importlib.util.find_spec("PyTorchUtils") is not None:
        import PyTorchUtils

        if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
            raise SegRapError(_("PyTorch was not installed; contouring needs it."))
    if importlib.util.find_spec("slicer.packaging") is not None:
        import slicer.packaging

        try:
            slicer.packaging.pip_ensure(slicer.packaging.load_requirements(path), requester="SegRapSlicer")
        except RuntimeError as error:
            raise SegRapError(_("Contouring needs Python packages that are missing: {0}").format(error)) from error
    elif importlib.util.find_spec("torch") is None:  # Slicer 5.10
        if not slicer.util.confirmOkCancelDisplay(_("Contouring needs PyTorch. Download and install it?")):
            raise SegRapError(_("PyTorch was not installed; contouring needs it."))
        slicer.util.pip_install(["-r", path])
