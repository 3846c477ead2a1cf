"""Contours to and from what others read: the SegRap challenge's stacks, one NIfTI per structure, and a table.

Every file is written under a temporary name and appears whole or not at all. One structure is handled at a time: 45
channels of a 1024 x 1024 x 130 scan would be 6 GB.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segrap import anatomy
from segrap.contour_files.voxel_stream import VoxelStream
from segrap.contours import Contours, Provenance
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid
from segrap.image import read_image
from segrap.nifti import write_nifti
from segrap.writing import replacing, replacing_folder

CHALLENGE_FILES = {"oars.mha": anatomy.ORGANS, "gtvs.mha": anatomy.TARGETS}
"""The challenge's two stacks, with their channels in order."""

_COMPRESSION_LEVEL = 1

_MET_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def write_challenge_mha(contours: Contours, folder: str | Path) -> tuple[Path, ...]:
    """Write `oars.mha` (45 channels) and `gtvs.mha` (2) as the SegRap challenge wants them; returns the files written.

    Each is one 4-D image of 0 and 1, size (x, y, z, channel), channels in the challenge's order, with spacing but, as
    in the challenge's own example, without origin and direction: its evaluation compares voxel by voxel. A kind of
    which these contours hold no structure is not written; a structure that they do not cover is an empty channel.

    Raises OutputError; nothing partial is left behind.
    """
    written = []
    with replacing_folder(folder) as temporary:
        for file_name, structures in CHALLENGE_FILES.items():
            if any(structure.name in contours.structures for structure in structures):
                _write_stack(contours, structures, temporary / file_name)
                written.append(Path(folder) / file_name)
    return tuple(written)


def _write_stack(contours: Contours, structures: tuple[anatomy.Structure, ...], path: Path) -> None:
    z, y, x = contours.shape
    spacing = " ".join(repr(value) for value in contours.geometry.spacing_mm)
    length = "{:>16}"  # stands in the header before the data, is known after them
    header = (
        "ObjectType = Image\nNDims = 4\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
        f"CompressedDataSize = {length}\nTransformMatrix = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\nOffset = 0 0 0 0\n"
        f"CenterOfRotation = 0 0 0 0\nElementSpacing = {spacing} 1\nDimSize = {x} {y} {z} {len(structures)}\n"
        "AnatomicalOrientation = ????\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    compressor = zlib.compressobj(_COMPRESSION_LEVEL)
    with path.open("wb") as file:
        start = file.write(header.format(0).encode("ascii"))
        for structure in structures:
            for plane in _planes(contours, structure.name):
                file.write(compressor.compress(plane))
        file.write(compressor.flush())
        size = file.tell() - start
        file.seek(0)
        file.write(header.format(size).encode("ascii"))


def _planes(contours: Contours, name: str) -> Iterator[np.ndarray]:
    """The structure slice by slice, uint8 (y, x) of 0 and 1; all 0 when these contours do not cover it."""
    facts = contours.structures.get(name)
    empty = np.zeros(contours.shape[1:], dtype=np.uint8)
    for z in range(contours.shape[0]):
        if facts and facts.box and facts.box[0].start <= z < facts.box[0].stop:
            yield (contours.layers[facts.layer, z] == facts.value).view(np.uint8)
        else:
            yield empty


def read_challenge_mha(path: str | Path) -> Contours:
    """Read stacks in the challenge's format: a folder with `oars.mha`, `gtvs.mha` or both, or one stack of either kind.

    Voxels above 0 belong to the structure. The format has no origin or direction: give the contours the geometry of
    their CT before anything else is done with them.

    Raises InputError when a file is missing, damaged, or has neither 45 nor 2 channels, or the two disagree.
    """
    path = Path(path)
    files = [path / name for name in CHALLENGE_FILES if (path / name).is_file()] if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds neither oars.mha nor gtvs.mha.")
    stacks = [_read_stack_header(file) for file in files]
    kinds = {stack.structures for stack in stacks}
    grids = {(stack.shape, tuple(round(value, 4) for value in stack.spacing_mm)) for stack in stacks}
    if len(kinds) < len(stacks) or len(grids) > 1:
        raise InputError(f"The stacks in {path} do not belong together: the same structures twice, or different grids.")
    masks = (mask for stack in stacks for mask in _stack_masks(stack))
    return Contours.from_masks(masks, Geometry(stacks[0].spacing_mm), _not_stated(path), origin="imported")


@dataclass(frozen=True)
class _Stack:
    """What the header of a challenge stack says. shape: (z, y, x); start: where its voxels begin in the file."""

    path: Path
    structures: tuple[anatomy.Structure, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    dtype: np.dtype
    compressed: bool
    start: int


def _read_stack_header(path: Path) -> _Stack:
    fields: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            while "ElementDataFile" not in fields:
                key, separator, value = file.readline(10_000).decode("ascii").partition("=")
                if not separator:
                    raise ValueError("its header is broken")
                fields[key.strip()] = value.strip()
            start = file.tell()
        x, y, z, *more = (int(size) for size in fields["DimSize"].split())
        spacing = [float(value) for value in fields["ElementSpacing"].split()]
        order = ">" if fields.get("BinaryDataByteOrderMSB", "False") == "True" else "<"
        dtype = np.dtype(order + _MET_TYPES[fields["ElementType"]])
        if fields["ElementDataFile"] != "LOCAL" or fields.get("ElementNumberOfChannels", "1") != "1":
            raise ValueError("its voxels are kept in another file or have several values")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"{path.name} is not one of the challenge's 4-D .mha stacks ({error}).") from error
    kinds = {len(structures): structures for structures in CHALLENGE_FILES.values()}
    channels = more[0] if len(more) == 1 else 1
    if channels not in kinds or min(x, y, z) < 1:
        raise InputError(
            f"{path.name} has {channels} channel{'s' * (channels != 1)} of {x} x {y} x {z} voxels; "
            "the challenge's stacks have 45 (organs at risk) or 2 (GTVp, GTVnd)."
        )
    compressed = fields.get("CompressedData", "False") == "True"
    spacing_mm = (spacing[0], spacing[1], spacing[2])
    return _Stack(path, kinds[channels], (z, y, x), spacing_mm, dtype, compressed, start)


def _stack_masks(stack: _Stack) -> Iterator[tuple[str, np.ndarray]]:
    plane = np.empty(stack.shape[1:], dtype=stack.dtype)
    with stack.path.open("rb") as file:
        file.seek(stack.start)
        voxels = VoxelStream(file, stack.compressed, stack.path.name)
        for structure in stack.structures:
            mask = np.empty(stack.shape, dtype=bool)
            for z in range(stack.shape[0]):
                voxels.fill(plane)
                np.greater(plane, 0, out=mask[z])
            yield structure.name, mask
        voxels.finish()


def write_nifti_folder(contours: Contours, folder: str | Path) -> tuple[Path, ...]:
    """Write one `<SegRap name>.nii.gz` (uint8, 0 and 1) per structure, geometry kept; returns the files written.

    Raises OutputError; nothing partial is left behind.
    """
    with replacing_folder(folder) as temporary:
        for name in contours.structures:
            planes = _planes(contours, name)
            write_nifti(planes, contours.shape, contours.geometry, temporary / f"{name}.nii.gz")
    return tuple(Path(folder) / f"{name}.nii.gz" for name in contours.structures)


def read_nifti_folder(folder: str | Path) -> Contours:
    """Read a folder of masks named after the structures, as SegRap2023 publishes them (`Parotid_L.nii.gz`).

    Voxels above 0 belong to the structure, whatever the data type (the challenge's masks hold 0 and 255). CTs beside
    the masks (image.nii.gz, image_contrast.nii.gz) are passed over; other names are listed in `left_out`.

    Raises InputError when there is no mask, a file is damaged, two files hold one structure, or their grids differ.
    """
    folder = Path(folder)
    files: dict[str, Path] = {}
    left_out = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
        if stem == path.name or stem in ("image", "image_contrast"):
            continue
        found = anatomy.find_structure(stem)
        if found is None:
            left_out.append(stem)
        elif found.name in files:
            raise InputError(f"{folder} holds {found.name} twice: {files[found.name].name} and {path.name}.")
        else:
            files[found.name] = path
    if not files:
        raise InputError(f"{folder} holds no mask named after a SegRap structure (such as Parotid_L.nii.gz).")
    first = read_image(next(iter(files.values())))

    def masks() -> Iterator[tuple[str, np.ndarray]]:
        for name, file in files.items():
            image = read_image(file)
            if not same_grid(first.geometry, first.shape, image.geometry, image.shape):
                raise InputError(f"{file.name} lies on another grid than the other masks in {folder}.")
            yield name, image.array > 0

    provenance = _not_stated(folder)
    return Contours.from_masks(masks(), first.geometry, provenance, origin="imported", left_out=tuple(left_out))


def _not_stated(path: Path) -> Provenance:
    return Provenance(remarks=(f"Read from {path.name}, which does not say how these contours were made.",))


def write_structures_csv(contours: Contours, path: str | Path) -> None:
    """Write the table of structures: name, TG-263 name, volume and the range of the 120 training cases in cc, the faces
    of the scan that it touches, the model's confidence and how much its folds disagree (0 to 1, empty where there is
    none), where it comes from, and the model that made it.

    Raises OutputError; nothing partial is left behind.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        columns = ("name", "tg263_name", "volume_cc", "expected_min_cc", "expected_max_cc", "cut_at")
        table.writerow([*columns, "confidence", "fold_disagreement", "origin", "model"])
        for name, facts in contours.structures.items():
            structure = anatomy.structure(name)
            measured = (facts.confidence, facts.fold_disagreement)
            table.writerow(
                [
                    name,
                    structure.tg263_name,
                    f"{facts.volume_cc:.4f}",
                    *(f"{bound:g}" for bound in structure.volume_range_cc),
                    " ".join(facts.cut_at),
                    *("" if one is None else f"{one:.4f}" for one in measured),
                    facts.origin,
                    contours.maker(name),
                ]
            )
