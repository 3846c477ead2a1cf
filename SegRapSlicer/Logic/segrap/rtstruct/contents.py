"""What an RTSTRUCT file states, as plain values and arrays: one reading of the file for the reader and for the lint.

Nothing is judged here beyond what keeps the file from being read at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrap.errors import InputError

MANUFACTURER = "SegRapSlicer"
# At most 16 characters fit into a StructureSetLabel.
LABEL = "AI_NPC"
DEMONSTRATION_LABEL = "DEMO_NO_CLINIC"

RT_STRUCTURE_SET_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
# Even-odd filling, which the reader does anyway, is the very meaning of the XOR type.
FILLED_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

_CONTOUR_DATA = 0x30060050


@dataclass(frozen=True)
class Roi:
    """One ROI: what names it, and its contours one after another.

    number: None where the file gives none. frame_of_reference_uid: in which it was drawn, "" where the file does not
    say. algorithm: ROIGenerationAlgorithm. points_mm: (n, 3) LPS. Per contour: lengths (points found), stated_lengths
    (NumberOfContourPoints, -1 where it is missing), geometric_types, image_uids ("" for none), longest_decimals
    (characters of its longest coordinate), broken (whole points cannot be made of its coordinates), oversized (too long
    for the encoding: its data came as bytes of unknown kind).
    """

    number: int | None
    name: str
    frame_of_reference_uid: str
    algorithm: str
    points_mm: np.ndarray
    lengths: np.ndarray
    stated_lengths: np.ndarray
    geometric_types: tuple[str, ...]
    image_uids: tuple[str, ...]
    longest_decimals: np.ndarray
    broken: np.ndarray
    oversized: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Index of the first point of every contour."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def is_filled(self) -> np.ndarray:
        """True for the contours that enclose an area."""
        return np.isin(self.geometric_types, FILLED_TYPES)


@dataclass(frozen=True)
class Contents:
    """An RTSTRUCT: its dataset, and its ROIs in the order of the StructureSetROISequence."""

    dataset: Any
    rois: tuple[Roi, ...]


def read_contents(path: str | Path) -> Contents:
    """Read an RTSTRUCT file. Raises InputError when it is missing, damaged, or no RTSTRUCT."""
    import pydicom

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    # What pydicom raises on damaged files, by experience with such.
    damage = (
        *(pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, NotImplementedError),
        *(EOFError, OSError, ValueError, TypeError, KeyError, AttributeError),
    )
    try:
        dataset = pydicom.dcmread(path)
        if _is_cut_short(dataset):
            raise EOFError
        sop_class = str(dataset.get("SOPClassUID", ""))
        modality = str(dataset.get("Modality", "unknown"))
    except damage as error:
        raise InputError(f"{path.name} cannot be read as DICOM; it is damaged, cut short or another format.") from error
    if sop_class != RT_STRUCTURE_SET_STORAGE:
        raise InputError(f"{path.name} is no RTSTRUCT; its modality is {modality}.")
    try:
        return Contents(dataset, _read_rois(dataset))
    except damage as error:
        raise InputError(
            f"The contours in {path.name} are damaged: {error}. Export the structure set again."
        ) from error


def _is_cut_short(dataset: Any) -> bool:
    # pydicom reads what is there of the last attribute and says nothing.
    last = dataset.get_item(max(dataset.keys()))
    return isinstance(last.value, bytes) and len(last.value) < last.length < 0xFFFFFFFF


def _read_rois(dataset: Any) -> tuple[Roi, ...]:
    contour_items: dict[int | None, list[Any]] = {}
    for item in dataset.get("ROIContourSequence", ()):
        contour_items.setdefault(_number(item, "ReferencedROINumber"), []).extend(item.get("ContourSequence") or ())
    return tuple(
        _read_roi(item, contour_items.get(_number(item, "ROINumber"), []))
        for item in dataset.get("StructureSetROISequence", ())
    )


def _read_roi(roi: Any, contours: list[Any]) -> Roi:
    raw = [_contour_bytes(contour) for contour in contours]
    texts = [text.strip(b" \0\\") for text, _ in raw]
    parts = [text.split(b"\\") if text else [] for text in texts]
    counts = np.array([len(part) for part in parts], dtype=np.intp)
    whole = [part[: len(part) // 3 * 3] for part in parts]
    stated = [_number(item, "NumberOfContourPoints") for item in contours]
    values = np.array([float(number) for part in whole for number in part], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"a coordinate of ROI '{roi.get('ROIName', '')}' is not a number")
    return Roi(
        number=_number(roi, "ROINumber"),
        name=str(roi.get("ROIName") or "").strip(),
        frame_of_reference_uid=str(roi.get("ReferencedFrameOfReferenceUID") or ""),
        algorithm=str(roi.get("ROIGenerationAlgorithm") or ""),
        points_mm=values.reshape(-1, 3),
        lengths=counts // 3,
        stated_lengths=np.array([-1 if count is None else count for count in stated], dtype=np.intp),
        geometric_types=tuple(str(item.get("ContourGeometricType") or "") for item in contours),
        image_uids=tuple(_image_uid(item) for item in contours),
        longest_decimals=np.array([max(map(len, part), default=0) for part in parts], dtype=np.intp),
        broken=counts % 3 != 0,
        oversized=np.array([oversized for _, oversized in raw], dtype=bool),
    )


def _contour_bytes(contour: Any) -> tuple[bytes, bool]:
    # The bytes as they stand in the file: pydicom would make an object of each of some hundred thousand numbers.
    if _CONTOUR_DATA not in contour:
        return b"", False
    element = contour.get_item(_CONTOUR_DATA)
    if isinstance(element.value, bytes):
        return element.value, element.VR == "UN"
    return "\\".join(str(value) for value in element.value or ()).encode("ascii"), False


def _number(item: Any, keyword: str) -> int | None:
    value = item.get(keyword)
    return None if value in (None, "") else int(value)


def _image_uid(contour: Any) -> str:
    images = list(contour.get("ContourImageSequence") or ())
    return str(images[0].get("ReferencedSOPInstanceUID", "")) if images else ""
