"""What a running job says about itself, in the one form that the terminal, the worker and the tests all take."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """One message from a running job.

    stage: what is being done, in words for a person ("Reading the CT pair").
    fraction: how much of the whole job is done, 0 to 1.
    message: a detail worth a line (device in use, number of tiles), or "".
    """

    stage: str
    fraction: float
    message: str = ""


ProgressCallback = Callable[[Progress], None]
CancelCheck = Callable[[], bool]
