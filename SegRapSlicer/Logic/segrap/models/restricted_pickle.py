"""Reading Python pickles of numbers, text and plain containers, and refusing all that could run code.

nnU-Net v1 keeps its plans in pickles. Python's own unpickler calls whatever function a file names; this one knows a
handful of names, none of which does more than build a number, an array or a dictionary. numpy's own types take any
state that a file gives them, even one by which they read memory outside the file: they are rebuilt here instead.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from segrap.errors import ModelError


class NumberKind:
    """What a pickle calls a numpy dtype: numbers or text of one kind, nothing else."""

    def __init__(self, kind: Any, *_flags: Any) -> None:
        self.dtype = np.dtype(kind if isinstance(kind, str) else "O")
        if self.dtype.kind not in "biufcSU":
            raise pickle.UnpicklingError(f"a numpy array of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        _version, order, base, names, fields, *_sizes = state
        if (base, names, fields) != (None, None, None):
            raise pickle.UnpicklingError(f"a numpy array of {self.dtype} with parts")
        self.dtype = self.dtype.newbyteorder(order)


def rebuild_number(kind: Any, raw: Any) -> Any:
    """The number of numpy with these bytes."""
    if not isinstance(kind, NumberKind):
        raise pickle.UnpicklingError("a number of no kind")
    return np.frombuffer(raw, kind.dtype, 1)[0]


class _Array(np.ndarray):
    def __setstate__(self, state: Any) -> None:
        version, shape, kind, by_column, raw = state
        if not isinstance(kind, NumberKind) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("a numpy array of other things than numbers")
        super().__setstate__((version, shape, kind.dtype, by_column, raw))  # checks the number of bytes


def _empty_array(_kind: Any, _shape: Any, _code: Any) -> np.ndarray:
    return _Array((0,), np.int8)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding}")
    return text.encode("latin1")


_KNOWN = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,  # how pickles of protocol 2 hold bytes
    "numpy.dtype": NumberKind,
    "numpy.ndarray": "numpy.ndarray",  # named as an argument only
    # numpy 1 and 2 call these by different module names; a file may hold either.
    "numpy.core.multiarray.scalar": rebuild_number,
    "numpy._core.multiarray.scalar": rebuild_number,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray._reconstruct": _empty_array,
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
