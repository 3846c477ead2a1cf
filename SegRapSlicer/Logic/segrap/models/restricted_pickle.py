"""Reading Python pickles of numbers, text and plain containers, and refusing all that could run code.

nnU-Net v1 keeps its plans in pickles. Python's own unpickler calls whatever function a file names; this one knows a
handful of names, none of which does more than build a number, an array or a dictionary.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from segrap.errors import ModelError

_REBUILD_ARRAY = np.zeros(0).__reduce__()[0]
_REBUILD_NUMBER = np.float64(0).__reduce__()[0]


def _dtype(kind: Any, *flags: Any) -> np.dtype:
    found = np.dtype(kind, *flags)
    if found.hasobject or found.fields:
        raise pickle.UnpicklingError(f"a numpy array of {found}")
    return found


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding}")
    return text.encode("latin1")


_KNOWN = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,  # how pickles of protocol 2 hold bytes
    "numpy.dtype": _dtype,
    "numpy.ndarray": np.ndarray,
    # numpy 1 and 2 call these by different module names; a file may hold either.
    "numpy.core.multiarray.scalar": _REBUILD_NUMBER,
    "numpy._core.multiarray.scalar": _REBUILD_NUMBER,
    "numpy.core.multiarray._reconstruct": _REBUILD_ARRAY,
    "numpy._core.multiarray._reconstruct": _REBUILD_ARRAY,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def read_pickle(path: Path) -> Any:
    """What a pickle holds. Raises ModelError when it is missing, damaged, or holds more than data."""
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except pickle.UnpicklingError as fault:
        raise ModelError(
            f"{path} was not loaded: it contains {fault} beside numbers, text and lists, and might run code. Use a "
            "model that nnU-Net saved, from a source that you trust."
        ) from None
    except FileNotFoundError:
        raise ModelError(f"The model is incomplete: {path} is missing.") from None
    except (EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError) as fault:
        raise ModelError(f"{path} is damaged or no pickle ({fault}). Copy or download the model again.") from None
