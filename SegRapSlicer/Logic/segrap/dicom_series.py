"""CT series in a folder of DICOM files: slices in order, their UIDs and geometry, and every fault refused by its name.

A CT that is wrong in a way nobody notices puts contours in the wrong place. So a series is either a stack of whole,
parallel, evenly spaced slices that lie straight above one another, in Hounsfield units, or an InputError says which
slice is not, in millimetres. Nothing here repairs, guesses or resamples. No message repeats a patient's name.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segrap.errors import InputError
from segrap.hounsfield import AIR_HU, hounsfield_fault
from segrap.image import Geometry, Image
from segrap.slice_stack import check_straight, even_spacing_mm, order_along_normal

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
# Implicit and explicit little endian, big endian, deflated: the encodings that need no decoder.
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
DICOMDIR_STORAGE = "1.2.840.10008.1.3.10"

# Fewer slices are a scout, a dose sheet or the watching of the bolus, not a scan to contour.
FEWEST_SLICES = 5
ORIENTATION_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CTSeries:
    """One CT series whose slices passed every check, in the order of the z index of its image.

    folder: where it was found. files, headers: one per slice (headers are pydicom datasets without their pixels), in
    the direction of row x column, so that the geometry is right-handed whichever way the patient lay. slice_origins_mm:
    (slice, 3), centre of the first voxel of each slice, LPS, as the files state it. geometry: of the whole stack.
    remarks: what was left out or assumed, in sentences.
    """

    folder: Path
    files: tuple[Path, ...]
    headers: tuple[Any, ...]
    geometry: Geometry
    slice_origins_mm: np.ndarray
    remarks: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x): slices, rows, columns."""
        return len(self.files), int(self.headers[0].Rows), int(self.headers[0].Columns)

    @property
    def series_uid(self) -> str:
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def study_uid(self) -> str:
        return str(self.headers[0].get("StudyInstanceUID", ""))

    @property
    def frame_of_reference_uid(self) -> str:
        """Scans of one Frame of Reference share coordinates; "" where the files name none."""
        return str(self.headers[0].get("FrameOfReferenceUID", ""))

    @property
    def description(self) -> str:
        return str(self.headers[0].get("SeriesDescription", "")).strip()

    @cached_property
    def sop_instance_uids(self) -> tuple[str, ...]:
        return tuple(str(header.SOPInstanceUID) for header in self.headers)

    @property
    def acquired(self) -> str:
        """When the first slice was taken, YYYYMMDDHHMMSS; sorts by time. "" where the files do not say."""
        header = self.headers[0]
        if header.get("AcquisitionDateTime"):
            return str(header.AcquisitionDateTime)[:14]
        for kind in ("Acquisition", "Content", "Series"):
            if header.get(f"{kind}Date") and header.get(f"{kind}Time"):
                return str(header[f"{kind}Date"].value) + str(header[f"{kind}Time"].value)[:6]
        return ""

    @property
    def has_contrast_tag(self) -> bool:
        """True when the files state a contrast agent.

        Many scanners state it for every series of the examination, so that it tells two series apart only where one
        has it and the other has not.
        """
        header = self.headers[0]
        agent = str(header.get("ContrastBolusAgent", "") or "").strip().upper()
        if agent:
            return agent not in ("NO", "N", "NONE", "WITHOUT", "W/O", "NA", "N/A", "0")
        return bool(header.get("ContrastBolusAgentSequence"))

    def image(self) -> Image:
        """The voxels in Hounsfield units: int16 where the rescale is in whole numbers, otherwise float32.

        Padding outside the scanner's circle is set to -1024. Raises InputError when a file is cut short, cannot be
        decoded, or when the values cannot be Hounsfield units.
        """
        whole_numbers = all(float(value).is_integer() for header in self.headers for value in _rescale(header))
        array = np.empty(self.shape, dtype=np.int16 if whole_numbers else np.float32)
        for number, (path, header) in enumerate(zip(self.files, self.headers, strict=True)):
            array[number] = _read_slice(path, header, array.dtype)
        fault = hounsfield_fault(array)
        if fault:
            slope, intercept = _rescale(self.headers[0])
            raise InputError(
                f"{_title(self.folder, self.headers)} is not in Hounsfield units: {fault}. The files state "
                f"rescale slope {slope:g} and intercept {intercept:g}, which must be wrong. Export the "
                "series again from the scanner."
            )
        return Image(array, self.geometry)


def read_series_folder(folder: str | Path) -> list[CTSeries]:
    """All CT scans below a folder, the earliest first; files are known as DICOM by their content.

    Other objects (RTSTRUCT, SEG, PET, secondary captures), scouts and series of fewer than 5 slices are left out.

    Raises InputError when there is no CT, and when any CT series has a fault: mixed sizes, spacings or orientations,
    a duplicate or missing slice, uneven slices, gantry tilt. A faulty series is never left out in silence, because it
    may be the one that was meant.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is not a folder.")
    headers, damaged, others = _read_headers(folder)
    by_series: dict[str, list[tuple[Path, Any]]] = {}
    for path, header in headers:
        by_series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))

    found: list[CTSeries] = []
    for members in by_series.values():
        without_scouts = [member for member in members if "LOCALIZER" not in member[1].get("ImageType", ())]
        if not without_scouts:
            others["CT scout"] += len(members)
            continue
        slices, copies = _without_copies(without_scouts)
        if len(slices) < FEWEST_SLICES or _watches_one_place(slices):
            others["CT image outside of any scan"] += len(slices)
            continue
        found.append(_stack(folder, slices, copies))
    if damaged:
        raise InputError(
            f"{_count(len(damaged), 'DICOM file')} in {folder} cannot be read (cut short or damaged), "
            f"{damaged[0].name} first; slices would be missing. Copy or export the series again."
        )
    if not found:
        raise _no_ct(folder, others)
    return sorted(found, key=lambda series: (series.acquired, series.series_uid))


def is_dicom(path: Path) -> bool:
    """True for a DICOM file, by its content."""
    with path.open("rb") as file:
        start = file.read(132)
    # Files from before DICOM part 10 have no preamble; they begin with (0008,0000 to 0018), little endian.
    return start[128:132] == b"DICM" or (start[:2] == b"\x08\x00" and start[2:4] <= b"\x18\x00" and start[3:4] == b"\0")


def _read_headers(folder: Path) -> tuple[list[tuple[Path, Any]], list[Path], Counter[str]]:
    """The CT slices below `folder`, the DICOM files that cannot be read, and how many objects of other kinds."""
    import pydicom

    slices: list[tuple[Path, Any]] = []
    damaged: list[Path] = []
    others: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not is_dicom(path):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            sop_class, modality = str(header.get("SOPClassUID", "")), str(header.get("Modality", ""))
        except (pydicom.errors.BytesLengthException, EOFError, ValueError, KeyError, AttributeError, struct.error):
            damaged.append(path)
            continue
        if header.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR_STORAGE:
            continue
        if sop_class == CT_IMAGE_STORAGE and modality in ("CT", ""):
            slices.append((path, header))
        elif sop_class in MULTI_FRAME_CT_STORAGE:
            others["multi-frame CT"] += 1
        elif sop_class:
            others[modality if modality not in ("CT", "") else "secondary capture"] += 1
        else:
            damaged.append(path)
    return slices, damaged, others


def _no_ct(folder: Path, others: Counter[str]) -> InputError:
    if not others:
        return InputError(f"{folder} holds no DICOM files. Give the folder of a CT series.")
    held = ", ".join(_count(number, kind if " " in kind else f"{kind} object") for kind, number in others.most_common())
    if set(others) == {"multi-frame CT"}:
        return InputError(f"{folder} holds {held}, which is not read here. Export it as single CT slices.")
    if set(others) == {"MR"}:
        return InputError(f"{folder} holds {_count(others['MR'], 'MR image')}: this is MR, not CT. Give a CT series.")
    return InputError(f"{folder} holds {held} and no CT. Give the folder of a CT series.")


def _without_copies(members: Sequence[tuple[Path, Any]]) -> tuple[list[tuple[Path, Any]], int]:
    """One file per image, and how many files were further copies of the same image."""
    kept: dict[str, tuple[Path, Any]] = {}
    for path, header in members:
        uid = str(header.get("SOPInstanceUID", path))
        if uid not in kept:
            kept[uid] = (path, header)
        elif header.get("ImagePositionPatient") != kept[uid][1].get("ImagePositionPatient"):
            raise InputError(
                f"{path.name} and {kept[uid][0].name} are two images that claim to be one (same SOP Instance UID, "
                "other positions). Export the series again from the scanner."
            )
    return list(kept.values()), len(members) - len(kept)


def _watches_one_place(slices: Sequence[tuple[Path, Any]]) -> bool:
    """True for many images of one slice, as taken to see the contrast agent arrive."""
    positions = {tuple(header.get("ImagePositionPatient") or ()) for _, header in slices}
    return len(positions) == 1 and () not in positions


def _stack(folder: Path, slices: list[tuple[Path, Any]], copies: int) -> CTSeries:
    """The slices of one series in order, or InputError with the fault."""
    title = _title(folder, [header for _, header in slices])
    for path, header in slices:
        _check_slice(path, header, title)
    for keyword, words in (
        (("Rows", "Columns"), "sizes"),
        (("PixelSpacing",), "pixel spacings"),
        (("StudyInstanceUID",), "studies"),
        (("FrameOfReferenceUID",), "Frames of Reference"),
    ):
        _check_uniform(slices, keyword, words, title)

    row, column = _axes(slices[0][1], title)
    for path, header in slices:
        if np.abs(np.concatenate(_axes(header, title)) - np.concatenate((row, column))).max() > ORIENTATION_TOLERANCE:
            raise InputError(
                f"{title} has mixed orientations: {path.name} does not lie parallel to {slices[0][0].name}. Give a "
                "series of one orientation."
            )
    normal = np.cross(row, column)
    origins = np.array([_numbers(header.ImagePositionPatient) for _, header in slices])
    order = order_along_normal(origins, normal)
    slices, origins = [slices[number] for number in order], origins[order]
    spacing_rows, spacing_columns = _numbers(slices[0][1].PixelSpacing)
    spacing = even_spacing_mm(origins, normal, title)
    check_straight(origins, normal, min(spacing_rows, spacing_columns), title)

    remarks = []
    if copies:
        remarks.append(f"{_count(copies, 'file')} left out: each repeats an image of the series.")
    if "RescaleSlope" not in slices[0][1]:
        remarks.append("The CT states no rescale; its values were taken as Hounsfield units.")
    return CTSeries(
        folder,
        tuple(path for path, _ in slices),
        tuple(header for _, header in slices),
        Geometry(
            (float(spacing_columns), float(spacing_rows), spacing),
            (float(origins[0, 0]), float(origins[0, 1]), float(origins[0, 2])),
            np.column_stack((row, column, normal)),
        ),
        origins,
        tuple(remarks),
    )


def _check_slice(path: Path, header: Any, title: str) -> None:
    lengths = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    for keyword, length in lengths.items():
        values = header.get(keyword)
        if values is None or len(values) != length or not np.isfinite(_numbers(values)).all():
            raise InputError(f"{title} cannot be placed: {path.name} has no usable {keyword}. Export the series again.")
    if min(_numbers(header.PixelSpacing)) <= 0 or not header.get("Rows") or not header.get("Columns"):
        raise InputError(f"{title} cannot be read: {path.name} states no size or pixel spacing. Export it again.")
    if ("RescaleSlope" in header) != ("RescaleIntercept" in header) or _rescale(header)[0] <= 0:
        raise InputError(f"{title} has a wrong rescale: {path.name} states no slope above 0 with an intercept.")
    if header.get("SamplesPerPixel", 1) != 1 or header.get("NumberOfFrames", 1) not in (1, None):
        raise InputError(f"{title} is not a stack of CT slices: {path.name} holds colours or several frames.")


def _check_uniform(slices: Sequence[tuple[Path, Any]], keywords: tuple[str, ...], words: str, title: str) -> None:
    """Raise InputError when the attributes differ between slices."""
    values = Counter(_as_text(header, keywords) for _, header in slices)
    if len(values) == 1:
        return
    (usual, usual_count), (other, other_count) = values.most_common(2)
    named = "" if "UID" in keywords[0] else f": {usual_count} of {usual} and {other_count} of {other}"
    raise InputError(f"{title} has slices of mixed {words}{named}. Give a folder with one scan per series.")


def _as_text(header: Any, keywords: tuple[str, ...]) -> str:
    values: list[str] = []
    for keyword in keywords:
        value = header.get(keyword, "")
        if keyword == "PixelSpacing":
            values.extend(f"{number:.4f}" for number in _numbers(value))
        else:
            values.append(str(value))
    return " x ".join(values)


def _read_slice(path: Path, header: Any, dtype: np.dtype) -> np.ndarray:
    """One slice (y, x) in Hounsfield units, padding at -1024."""
    import pydicom

    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    if syntax and syntax not in UNCOMPRESSED:
        values = _decode(path, header)
    else:
        try:
            dataset = pydicom.dcmread(path, force=True)
            if not syntax:  # a file from before DICOM part 10
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = UNCOMPRESSED[0 if implicit else 1]
            values = _rescaled(dataset.pixel_array, header)
        except (ValueError, AttributeError, EOFError, KeyError, NotImplementedError) as error:
            raise InputError(f"The pixels of {path.name} are cut short or damaged. Copy the series again.") from error
    if values.shape != (header.Rows, header.Columns):
        raise InputError(
            f"{path.name} holds {values.shape} pixels, not the size that it states. Copy the series again."
        )
    _blank_padding(values, header)
    if dtype == np.int16 and (values.max() > 32767 or values.min() < -32768):
        raise InputError(
            f"{path.name} has values of {values.min():g} to {values.max():g}, which are no Hounsfield units: a wrong "
            "rescale. Export the series again from the scanner."
        )
    return values.astype(dtype)


def _rescaled(stored: np.ndarray, header: Any) -> np.ndarray:
    """Stored pixels in Hounsfield units: int32 where the rescale is in whole numbers, otherwise float64."""
    slope, intercept = _rescale(header)
    if slope == 1 and intercept.is_integer():  # nearly every CT there is, and several times as fast
        return stored.astype(np.int32) + np.int32(intercept)
    return stored * np.float64(slope) + np.float64(intercept)


def _decode(path: Path, header: Any) -> np.ndarray:
    """A compressed slice (y, x) in Hounsfield units, float64.

    Decoded by GDCM, which SimpleITK brings along for every DICOM compression; pydicom would need plugins.
    """
    import SimpleITK

    try:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        syntax = header.file_meta.TransferSyntaxUID.name
        raise InputError(
            f"The pixels of {path.name} ({syntax}) cannot be decoded; the file is cut short or its compression is not "
            "supported. Export the series uncompressed."
        ) from error
    return values.reshape(values.shape[-2:]).astype(np.float64)


def _blank_padding(values: np.ndarray, header: Any) -> None:
    """Set what the scanner did not measure to air, in place."""
    if header.get("PixelPaddingValue") is None:
        return
    slope, intercept = _rescale(header)
    first = int(header.PixelPaddingValue)
    last = int(header.get("PixelPaddingRangeLimit", first) or first)
    limit = 1 << int(header.BitsAllocated)
    # Some writers give the padding of signed pixels as an unsigned number, and the other way round.
    if header.get("PixelRepresentation", 0) == 1:
        first, last = (number - limit if number >= limit // 2 else number for number in (first, last))
    else:
        first, last = (number % limit for number in (first, last))
    low, high = sorted((first * slope + intercept, last * slope + intercept))
    # A "padding" in the middle of the tissue is a writer's mistake (0 in signed pixels): it would blank the patient.
    if high <= -1000 or low > 3071:
        values[(values >= low) & (values <= high)] = AIR_HU


def _rescale(header: Any) -> tuple[float, float]:
    """(slope, intercept); 1 and 0 where the file states none."""
    return float(header.get("RescaleSlope", 1) or 0), float(header.get("RescaleIntercept", 0) or 0)


def _axes(header: Any, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row (rising x index) and down a column (rising y index), LPS."""
    values = _numbers(header.ImageOrientationPatient)
    row, column = values[:3], values[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, atol=1e-3) or abs(row @ column) > 1e-3:
        raise InputError(f"{title} states axes that are not at right angles ({values.tolist()}). Export it again.")
    row = row / lengths[0]
    column = column / lengths[1]
    column = column - (row @ column) * row  # files state six decimals; what is left over would shear the grid
    return row, column / np.linalg.norm(column)


def _numbers(values: Iterable[Any]) -> np.ndarray:
    return np.array([float(value) for value in values])


def _title(folder: Path, headers: Sequence[Any]) -> str:
    description = str(headers[0].get("SeriesDescription", "") or "").strip()
    return f"The CT series '{description}' in {folder}" if description else f"The CT series in {folder}"


def _count(number: int, noun: str) -> str:
    """ "1 file", "3 files"."""
    return f"{number} {noun}{'s' * (number != 1)}"
