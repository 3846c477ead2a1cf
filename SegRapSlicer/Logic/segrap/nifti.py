"""NIfTI files, written plane by plane: ITK's own writer takes a full disk for success, so it is not used for them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segrap.image import Geometry
from segrap.writing import replacing

_COMPRESSION_LEVEL = 1

# Data types of the NIfTI-1 standard by numpy name.
_TYPE_CODES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256, "uint16": 512}


def write_nifti(
    planes: Iterable[np.ndarray], shape: tuple[int, int, int], geometry: Geometry, path: str | Path
) -> None:
    """Write a (z, y, x) volume, given as its z planes (y, x) one after another, as .nii or .nii.gz.

    All planes have one data type of int8, uint8, int16, uint16, int32, float32, float64; place and orientation are
    stated twice (qform and sform), as readers differ in which they take.

    Raises OutputError; nothing partial is left behind.
    """
    path = Path(path)
    compressor = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    compressed = path.name.lower().endswith(".gz")
    with replacing(path) as temporary, temporary.open("wb") as file:
        for number, plane in enumerate(planes):
            voxels = plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes()
            data = voxels if number else _header(shape, plane.dtype, geometry) + voxels
            file.write(compressor.compress(data) if compressed else data)
        if compressed:
            file.write(compressor.flush())


def _header(shape: tuple[int, int, int], dtype: np.dtype, geometry: Geometry) -> bytes:
    """The 348 bytes of a NIfTI-1 header and the 4 that say that no extension follows."""
    from scipy.spatial.transform import Rotation

    index_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.index_to_lps
    axes = index_to_ras[:3, :3] / np.asarray(geometry.spacing_mm)
    # The quaternion states a rotation only; a mirrored grid is a rotation with its third axis turned round.
    handedness = 1.0 if np.linalg.det(axes) > 0 else -1.0
    x, y, z, w = Rotation.from_matrix(axes * np.array([1.0, 1.0, handedness])).as_quat().tolist()
    quaternion = [value if w >= 0 else -value for value in (x, y, z)]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _TYPE_CODES[dtype.name], dtype.itemsize * 8)
    struct.pack_into("<4f", header, 76, handedness, *geometry.spacing_mm)
    struct.pack_into("<2f", header, 108, 352.0, 1.0)  # where voxels begin; their values are stored as they are
    struct.pack_into("<B", header, 123, 2)  # millimetres
    struct.pack_into("<2h", header, 252, 1, 1)  # both forms are in scanner coordinates
    struct.pack_into("<6f", header, 256, *quaternion, *index_to_ras[:3, 3])
    struct.pack_into("<12f", header, 280, *index_to_ras[:3].ravel())
    struct.pack_into("<4s", header, 344, b"n+1")
    return bytes(header)
