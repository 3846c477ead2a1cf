"""Slicer's segmentation file, .seg.nrrd: all label layers, names, colours, terminology, review status, reference grid.

Written slab by slab, layers side by side (the layer is the fastest axis, as Slicer wants it), so that nothing of the
size of the volume is held twice. Read from our own files and from what Slicer saves after an edit: layers in another
order, segments added, renamed or removed, the grid cropped. Format: NRRD, teem.sourceforge.net/nrrd/format.html; keys:
vtkMRMLSegmentationStorageNode of 3D Slicer.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segrap import anatomy
from segrap.contour_files import slicer_segments
from segrap.contour_files.voxel_stream import VoxelStream
from segrap.contours import Contours, Provenance
from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.image import check_orthogonal
from segrap.label_layers import GridLayers
from segrap.writing import replacing

# Label layers are mostly background: level 1 takes half the time of level 6 and a few megabytes more.
_COMPRESSION_LEVEL = 1

_INTEGERS = {
    "B": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "h": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "H": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i": ("int", "signed int", "int32", "int32_t"),
    "I": ("uint", "unsigned int", "uint32", "uint32_t"),
}
_TYPES = {name: code for code, names in _INTEGERS.items() for name in names}

_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}


def write_seg_nrrd(contours: Contours, path: str | Path, review: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Write `contours` as a segmentation file that 3D Slicer opens with everything in place.

    review: tags of a structure's segment that are to stand in it besides or instead of its usual ones, which call it
    not started.
    Raises OutputError; nothing partial is left behind.
    """
    n_layers, n_slices, rows, columns = contours.layers.shape
    slab = np.empty((rows, columns, n_layers), dtype=np.uint8)
    compressor = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_header(contours, review or {}).encode("utf-8"))
        for z in range(n_slices):
            for layer in range(n_layers):
                slab[..., layer] = contours.layers[layer, z]
            file.write(compressor.compress(slab))
        file.write(compressor.flush())


def _header(contours: Contours, review: Mapping[str, Mapping[str, str]]) -> str:
    n_layers, *shape_zyx = contours.layers.shape
    sizes = [str(size) for size in shape_zyx[::-1]]
    axes = [_vector(column) for column in contours.geometry.index_to_lps[:3, :3].T]
    kinds = ["domain"] * 3
    if n_layers > 1:  # Slicer writes a single layer without a layer axis
        sizes, axes, kinds = [str(n_layers), *sizes], ["none", *axes], ["list", *kinds]
    grid = slicer_segments.serialise_grid(contours.geometry, contours.shape)
    fields = {
        "type": "unsigned char",
        "dimension": str(len(sizes)),
        "space": "left-posterior-superior",
        "sizes": " ".join(sizes),
        "space directions": " ".join(axes),
        "kinds": " ".join(kinds),
        "encoding": "gzip",
        "space origin": _vector(contours.geometry.origin_mm),
    }
    notes = {
        "Segmentation_MasterRepresentation": slicer_segments.REPRESENTATION,
        "Segmentation_ContainedRepresentationNames": f"{slicer_segments.REPRESENTATION}|",
        "Segmentation_ConversionParameters": f"{slicer_segments.REFERENCE_GEOMETRY}|{grid}|&",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        "SegRap_Title": contours.title,
        "SegRap_Provenance": contours.provenance.to_json(),
    }
    for number, name in enumerate(contours.structures):
        for key, value in _segment_notes(contours, name, review.get(name, {})).items():
            notes[f"Segment{number}_{key}"] = value
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in fields.items())]
    lines += [f"{key}:={_escape(value)}" for key, value in notes.items()]
    return "\n".join(lines) + "\n\n"


def _segment_notes(contours: Contours, name: str, review: Mapping[str, str]) -> dict[str, str]:
    facts = contours.structures[name]
    tags = {**slicer_segments.tags(contours, name), **review}
    # First and last voxel of x, y, z; Slicer writes 0 -1 for an empty segment.
    extent = [(s.start, s.stop - 1) for s in reversed(facts.box)] if facts.box else [(0, -1)] * 3
    return {
        "ID": name,
        "Name": name,
        "NameAutoGenerated": "0",
        "Color": " ".join(f"{part:.6g}" for part in slicer_segments.colour(anatomy.structure(name))),
        "ColorAutoGenerated": "0",
        "Layer": str(facts.layer),
        "LabelValue": str(facts.value),
        "Extent": " ".join(f"{first} {last}" for first, last in extent),
        "Tags": "".join(f"{key}:{value}|" for key, value in tags.items()),
    }


def _vector(values: np.ndarray | tuple[float, ...]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)


@dataclass(frozen=True)
class _File:
    """What the header of a .seg.nrrd says. shape: (z, y, x); placement: (layer, value) by segment number."""

    shape: tuple[int, int, int]
    n_layers: int
    dtype: np.dtype
    encoding: str
    geometry: Geometry
    notes: Mapping[str, str]
    names: tuple[str, ...]
    placement: tuple[tuple[int, int], ...]
    tags: tuple[Mapping[str, str], ...]


def read_seg_nrrd(path: str | Path) -> Contours:
    """Read a .seg.nrrd that segrap or 3D Slicer wrote, on its reference grid (the CT's) where it states one.

    Segments that are no SegRap structures are listed in `left_out` of the result. Structures that were changed since
    segrap made them have the origin 'edited'.

    Raises InputError when the file is missing, damaged, no segmentation, holds no SegRap structure or one twice, or
    was drawn beyond the CT.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            header = _read_header(file, path.name)
            known, left_out = slicer_segments.recognise(header.names, path.name)
            geometry, shape = _reference_grid(header)
            offset = slicer_segments.voxel_offset(header.geometry, geometry, path.name)
            claims = {name: header.placement[number] for number, name in known.items()}
            grid = GridLayers(claims, shape, path.name)
            voxels = VoxelStream(file, header.encoding != "raw", path.name)
            slab = np.empty((*header.shape[1:], header.n_layers), dtype=header.dtype)
            for z in range(header.shape[0]):
                voxels.fill(slab)
                for layer in range(header.n_layers):
                    grid.add_plane(layer, slab[..., layer], (offset[0] + z, *offset[1:]))
            voxels.finish()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    note = header.notes.get("SegRap_Provenance")
    provenance = Provenance.from_json(note) if note else slicer_segments.stated_provenance(header.tags, path.name)
    contours = Contours.from_layers(grid.layers, geometry, grid.placement, provenance, left_out=left_out)
    return slicer_segments.settle_origins(contours, {name: header.tags[number] for number, name in known.items()})


def _read_header(file: BinaryIO, name: str) -> _File:
    if not file.readline().startswith(b"NRRD000"):
        raise InputError(f"{name} is no .seg.nrrd segmentation.")
    fields, notes = _read_lines(file)
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
        n_layers = sizes.pop(0) if len(sizes) == 4 else 1
        x, y, z = sizes
        dtype = np.dtype(_TYPES[fields["type"].lower()])
        big = fields.get("endian", "little") == "big"
        geometry = _geometry(fields)
        numbers = range(sum(bool(re.fullmatch(r"Segment\d+_ID", key)) for key in notes))
        placement = tuple(
            (int(notes.get(f"Segment{n}_Layer", n)), int(notes.get(f"Segment{n}_LabelValue", 1))) for n in numbers
        )
        encoding = fields["encoding"].lower()
    except (KeyError, ValueError) as error:
        raise InputError(f"{name} is no segmentation that 3D Slicer would write (at {error}).") from error
    if min(n_layers, x, y, z) < 1 or any(not 0 <= layer < n_layers for layer, _ in placement):
        raise InputError(f"{name} states layers or sizes that contradict each other.")
    if encoding not in ("gzip", "gz", "raw") or {"data file", "datafile", "line skip", "byte skip"} & set(fields):
        raise InputError(f"{name} keeps its voxels in a way that is not read here. Save it from Slicer as .seg.nrrd.")
    check_orthogonal(geometry, name)
    names = tuple(notes.get(f"Segment{n}_Name", notes.get(f"Segment{n}_ID", "")) for n in numbers)
    tags = tuple(
        dict(entry.split(":", 1) for entry in notes.get(f"Segment{n}_Tags", "").split("|") if ":" in entry)
        for n in numbers
    )
    dtype = dtype.newbyteorder(">" if big else "<")
    return _File((z, y, x), n_layers, dtype, encoding, geometry, notes, names, placement, tags)


def _read_lines(file: BinaryIO) -> tuple[dict[str, str], dict[str, str]]:
    """The fields ("key: value") and the notes ("key:=value") up to the empty line."""
    fields: dict[str, str] = {}
    notes: dict[str, str] = {}
    for raw in iter(file.readline, b""):
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            break
        if line.startswith("#"):
            continue
        key, separator, value = line.partition(":=")
        if separator:
            notes[key] = _unescape(value)
        else:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    return fields, notes


def _geometry(fields: Mapping[str, str]) -> Geometry:
    """The place of the file's own grid. Raises KeyError or ValueError when it is not stated."""
    flip = np.array(_TO_LPS[fields["space"].lower()])
    vectors = re.findall(r"\(([^)]*)\)", fields["space directions"])
    axes = np.array([[float(part) for part in vector.split(",")] for vector in vectors]).reshape(3, 3) * flip
    origin = np.array([float(part) for part in fields["space origin"].strip("()").split(",")]) * flip
    spacing = np.linalg.norm(axes, axis=1)
    if not np.all(spacing > 0):
        raise ValueError("space directions")
    x, y, z = spacing.tolist()
    return Geometry((x, y, z), tuple(origin.tolist()), (axes / spacing[:, None]).T)


def _reference_grid(header: _File) -> tuple[Geometry, tuple[int, int, int]]:
    parameters = header.notes.get("Segmentation_ConversionParameters", "").split("&")
    for parameter in parameters:
        name, _, rest = parameter.partition("|")
        if name == slicer_segments.REFERENCE_GEOMETRY and rest.split("|")[0]:
            return slicer_segments.parse_grid(rest.split("|")[0])
    return header.geometry, header.shape
