"""Voxels from a file plane by plane, deflated or not, so that a volume need not be held twice (or at all)."""

from __future__ import annotations

import zlib
from typing import BinaryIO

import numpy as np

from segrap.errors import InputError

_CHUNK_BYTES = 1 << 20


class VoxelStream:
    """Fills arrays with the voxels that follow in an open file; `name` is what error messages call the file.

    Deflated data may have zlib's or gzip's wrapping; its checksum is compared by `finish`.
    """

    def __init__(self, file: BinaryIO, compressed: bool, name: str) -> None:
        self._file = file
        self._name = name
        self._inflater = zlib.decompressobj(32 + zlib.MAX_WBITS) if compressed else None
        self._waiting = b""

    def fill(self, array: np.ndarray) -> None:
        """Fill a contiguous array with the voxels that come next. Raises InputError when the file is damaged."""
        view = memoryview(array.reshape(-1).view(np.uint8))
        while view:
            data = self._next(len(view))
            if not data:
                raise self._damaged("it is cut short")
            view[: len(data)] = data
            view = view[len(data) :]

    def finish(self) -> None:
        """Raise InputError when deflated data goes on, or when its checksum is missing or wrong."""
        if self._inflater and (self._next(1) or not self._inflater.eof):
            raise self._damaged("it does not end where it should")

    def _next(self, most: int) -> bytes:
        if self._inflater is None:
            return self._file.read(min(most, _CHUNK_BYTES))
        data = b""
        while not data and not self._inflater.eof:
            source = self._waiting or self._file.read(_CHUNK_BYTES)
            if not source:
                break
            try:
                data = self._inflater.decompress(source, most)
            except zlib.error as error:
                raise self._damaged("its compressed data is broken") from error
            self._waiting = self._inflater.unconsumed_tail
        return data

    def _damaged(self, how: str) -> InputError:
        return InputError(f"{self._name} cannot be read: {how}. Make or copy the file again.")
