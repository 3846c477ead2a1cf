"""NIfTI files where ITK is not to be trusted with them: it takes a full disk for a file well written, and fills what a
file lacks, and every voxel that is no number, with 0, which is water.
"""

from __future__ import annotations

import gzip
import itertools
import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.writing import replacing

_COMPRESSION_LEVEL = 1

# Data types of the NIfTI-1 standard by numpy name.
_TYPE_CODES = {
    "uint8": 2,
    "int16": 4,
    "int32": 8,
    "float32": 16,
    "float64": 64,
    "int8": 256,
    "uint16": 512,
    "uint32": 768,
    "int64": 1024,
    "uint64": 1280,
}


def write_nifti(
    planes: Iterable[np.ndarray], shape: tuple[int, int, int], geometry: Geometry, path: str | Path
) -> None:
    """Write a (z, y, x) volume, given as its z planes (y, x) one after another, as .nii or .nii.gz.

    All planes have one data type, whole numbers or floats. Place and orientation are stated twice (qform and sform), as
    readers differ in which they take.

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


def check_nifti(path: Path) -> None:
    """Raise InputError when a NIfTI file that ITK has read must not be used.

    It is cut short, holds voxels that are not numbers, or does not say where they lie: ITK takes a file that states no
    orientation for one along the patient's axes, and of two it takes one; then left may be right.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(352)
            order = "<" if header[:4] == b"\x5c\x01\0\0" else ">"  # 348, low byte first
            sizes = struct.unpack_from(order + "8h", header, 40)
            kind, bits = struct.unpack_from(order + "2h", header, 70)
            (start,) = struct.unpack_from(order + "f", header, 108)
            file.seek(int(start))
            dtype = np.dtype(order + {16: "f4", 64: "f8"}.get(kind, "u1"))
            missing = math.prod(sizes[1 : 1 + sizes[0]]) * bits // 8
            bad = 0
            while chunk := file.read(1 << 22):
                missing -= len(chunk)
                if dtype.kind == "f":
                    values = np.frombuffer(chunk[: len(chunk) // dtype.itemsize * dtype.itemsize], dtype)
                    bad += int(np.count_nonzero(~np.isfinite(values)))
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path.name} is damaged or cut short. Copy or export it again.") from error
    if missing > 0:
        raise InputError(f"{path.name} is cut short: {missing} bytes of its voxels are missing. Copy it again.")
    check_numbers(bad, path.name)
    _check_places(header, order, path.name)


def _check_places(header: bytes, order: str, name: str) -> None:
    """Raise InputError when a header states no orientation, or two that put a corner of the volume in two places."""
    by_quaternion, by_matrix = struct.unpack_from(order + "2h", header, 252)
    if by_quaternion <= 0 and by_matrix <= 0:
        raise InputError(
            f"{name} states no orientation (its qform and sform codes are 0), so left cannot be told from right. "
            "Convert the original again with a program that keeps it, as dcm2niix and 3D Slicer do."
        )
    if by_quaternion <= 0 or by_matrix <= 0:
        return
    qfac, *spacing = struct.unpack_from(order + "4f", header, 76)
    b, c, d, *offset = struct.unpack_from(order + "6f", header, 256)
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    cross = np.array([[0, -d, c], [d, 0, -b], [-c, b, 0]])
    turn = np.eye(3) + (2 * a * cross + 2 * cross @ cross) / (a * a + b * b + c * c + d * d)
    last_index = np.array(struct.unpack_from(order + "3h", header, 42)) - 1
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, last) for last in last_index))])
    one = np.column_stack([turn * spacing * (1, 1, -1 if qfac < 0 else 1), offset])
    other = np.reshape(struct.unpack_from(order + "12f", header, 280), (3, 4))
    apart = np.linalg.norm(corners @ (one - other).T, axis=1).max()
    # A quaternion is rounded in the file so that the grid may turn by 0.0006, and the far corner of a scan with it.
    rounding = 1e-3 * np.linalg.norm(spacing * last_index)
    if not apart <= max(0.5 * min(spacing), rounding):
        raise InputError(
            f"{name} states two orientations, qform and sform, that put its voxels up to {apart:.1f} mm apart. Convert "
            "the original again, or remove the one that is wrong."
        )


def check_numbers(bad: int, name: str) -> None:
    """Raise InputError when `bad`, the count of voxels that are NaN or infinite, is not 0."""
    if bad:
        raise InputError(f"{name} holds {bad} voxels that are not numbers (NaN or infinite). Export it again.")
