"""CT series in a folder of DICOM files: slices in order, their UIDs and geometry, and every fault refused by its name.

A CT that is wrong in a way nobody notices puts contours in the wrong place. So a series is either a stack of whole,
parallel, evenly spaced slices that lie straight above one another, in Hounsfield units, or an InputError says which
slice is not, in millimetres. Nothing here repairs, guesses or resamples. No message repeats a patient's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segrap.ct.contrast_words import names_agent
from segrap.ct.dicom_pixels import DAMAGE, read_slice, rescale
from segrap.ct.hounsfield import hounsfield_fault
from segrap.ct.slice_stack import check_straight, even_spacing_mm, order_along_normal, right_angled
from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.image import Image

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DICOMDIR_STORAGE = "1.2.840.10008.1.3.10"

# Fewer slices are a scout, a dose sheet or the watching of the bolus, not a scan to contour.
FEWEST_SLICES = 5
ORIENTATION_TOLERANCE = 1e-4

# Everything that is asked of a header here is asked once when it is read, so that damage is found there.
PLACE_ATTRIBUTES = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
NUMBER_ATTRIBUTES = ("Rows", "Columns", "RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "NumberOfFrames")
OTHER_ATTRIBUTES = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "ImageType", "PatientID"),
    *("SeriesDescription", "ContrastBolusAgent", "ContrastBolusAgentSequence", "AcquisitionDateTime"),
    *("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "SeriesDate", "SeriesTime"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    "PhotometricInterpretation",
)
# Texts that objects made from a CT repeat, of type 2 in the modules Patient, General Study and Frame of Reference.
PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
# And of type 3, which they repeat where the CT has them.
MORE_ON_PATIENT_AND_STUDY = (
    *("IssuerOfPatientID", "PatientBirthTime", "PatientIdentityRemoved", "DeidentificationMethod", "StudyDescription"),
)
SAME_IN_ALL_SLICES: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("sizes", lambda header: f"{header.Rows} x {header.Columns}"),
    ("pixel spacings", lambda header: " x ".join(f"{mm:.4f}" for mm in _numbers(header.PixelSpacing))),
    ("rescales (stated and not)", lambda header: str("RescaleSlope" in header)),
    ("studies", lambda header: str(header.get("StudyInstanceUID", ""))),
    ("Frames of Reference", lambda header: str(header.get("FrameOfReferenceUID", ""))),
)


@dataclass(frozen=True, eq=False)
class CTSeries:
    """One CT series whose slices passed every check, in the order of the z index of its image.

    folder: where it was found. files, headers: one per slice (headers are pydicom datasets without their pixels), in
    the direction of row x column, so that the geometry is right-handed whichever way the patient lay. slice_origins_mm:
    (slice, 3), centre of the first voxel of each slice, LPS, as the files state it. geometry: of the whole stack.
    texts: the values of PATIENT_AND_STUDY and MORE_ON_PATIENT_AND_STUDY in the first slice, as `texts_as_stated`.
    remarks: what was left out or assumed, in sentences.
    """

    folder: Path
    files: tuple[Path, ...]
    headers: tuple[Any, ...]
    geometry: Geometry
    slice_origins_mm: np.ndarray
    texts: Mapping[str, bytes]
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
        agent = str(header.get("ContrastBolusAgent", "") or "")
        return names_agent(agent) if agent.strip() else bool(header.get("ContrastBolusAgentSequence"))

    def image(self) -> Image:
        """The voxels in Hounsfield units: int16 where the rescale is in whole numbers, otherwise float32.

        Padding outside the scanner's circle is set to -1024. Raises InputError when a file is cut short, cannot be
        decoded, or when the values cannot be Hounsfield units.
        """
        whole_numbers = all(float(value).is_integer() for header in self.headers for value in rescale(header))
        array = np.empty(self.shape, dtype=np.int16 if whole_numbers else np.float32)
        for number, (path, header) in enumerate(zip(self.files, self.headers, strict=True)):
            array[number] = read_slice(path, header, array.dtype)
        fault = hounsfield_fault(array)
        if fault:
            slope, intercept = rescale(self.headers[0])
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
    if damaged:
        raise InputError(
            f"{_count(len(damaged), 'DICOM file')} in {folder} cannot be read (cut short or damaged), "
            f"{damaged[0].name} first; slices would be missing. Copy or export the series again."
        )
    by_series: dict[str, list[tuple[Path, Any]]] = {}
    for path, header in headers:
        by_series.setdefault(str(header.SeriesInstanceUID), []).append((path, header))

    found: list[CTSeries] = []
    for members in by_series.values():
        without_scouts = [member for member in members if "LOCALIZER" not in (member[1].get("ImageType") or ())]
        if not without_scouts:
            others["CT scout"] += len(members)
            continue
        slices, copies = _without_copies(without_scouts)
        if len(slices) < FEWEST_SLICES or _watches_one_place(slices):
            others["CT image outside of any scan"] += len(slices)
            continue
        found.append(_stack(folder, slices, copies))
    if not found:
        raise _no_ct(folder, others)
    return sorted(found, key=lambda series: (series.acquired, series.series_uid))


def texts_as_stated(path: str | Path) -> dict[str, bytes]:
    """The texts of a DICOM file on its patient and study, by keyword, as the bytes that stand there, without padding.

    Bytes do not always fit the character set that a file declares, and what does not fit is lost by decoding: a name
    that is to stay what it is must be copied and compared as bytes.
    """
    import pydicom

    wanted = [*PATIENT_AND_STUDY, *MORE_ON_PATIENT_AND_STUDY]
    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=wanted)
    return {
        keyword: (dataset.get_item(keyword).value or b"").rstrip(b" \0") for keyword in wanted if keyword in dataset
    }


def is_dicom(path: Path) -> bool:
    """True for a DICOM file, by its content."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}).") from error
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
            directory = header.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR_STORAGE
            for keyword in PLACE_ATTRIBUTES:
                _numbers(header.get(keyword))
            for keyword in NUMBER_ATTRIBUTES:
                float(header.get(keyword) or 0)
            for keyword in OTHER_ATTRIBUTES:
                header.get(keyword)
        except (*DAMAGE, pydicom.errors.BytesLengthException):
            damaged.append(path)
            continue
        if directory:
            continue
        if sop_class == CT_IMAGE_STORAGE and modality in ("CT", ""):
            complete = header.get("SOPInstanceUID") and header.get("SeriesInstanceUID")
            if complete:
                slices.append((path, header))
            else:
                damaged.append(path)
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
        uid = str(header.SOPInstanceUID)
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
    positions = {tuple(_numbers(header.get("ImagePositionPatient"))) for _, header in slices}
    return len(positions) == 1 and () not in positions


def _stack(folder: Path, slices: list[tuple[Path, Any]], copies: int) -> CTSeries:
    """The slices of one series in order, or InputError with the fault."""
    title = _title(folder, [header for _, header in slices])
    for path, header in slices:
        _check_slice(path, header, title)
    for words, stated in SAME_IN_ALL_SLICES:
        kinds = Counter(stated(header) for _, header in slices)
        if len(kinds) > 1:
            (usual, most), (other, fewer) = kinds.most_common(2)
            numbers = f": {most} of {usual} and {fewer} of {other}" if " x " in usual else ""
            raise InputError(f"{title} has slices of mixed {words}{numbers}. Give a folder with one scan per series.")

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
        texts_as_stated(slices[0][0]),
        tuple(remarks),
    )


def _check_slice(path: Path, header: Any, title: str) -> None:
    for keyword, length in PLACE_ATTRIBUTES.items():
        values = _numbers(header.get(keyword))
        if values.size != length or not np.isfinite(values).all():
            raise InputError(f"{title} cannot be placed: {path.name} has no usable {keyword}. Export the series again.")
    if min(_numbers(header.PixelSpacing)) <= 0 or not header.get("Rows") or not header.get("Columns"):
        raise InputError(f"{title} cannot be read: {path.name} states no size or pixel spacing. Export it again.")
    if ("RescaleSlope" in header) != ("RescaleIntercept" in header) or not 0 < rescale(header)[0] < np.inf:
        raise InputError(f"{title} has a wrong rescale: {path.name} states no slope above 0 with an intercept.")
    if header.get("SamplesPerPixel", 1) != 1 or header.get("NumberOfFrames", 1) not in (1, None):
        raise InputError(f"{title} is not a stack of CT slices: {path.name} holds colours or several frames.")
    kind = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{title} is not a stack of CT slices: {path.name} holds {kind} pixels. Export it as CT.")


def _axes(header: Any, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row (rising x index) and down a column (rising y index), LPS."""
    values = _numbers(header.ImageOrientationPatient)
    row, column = values[:3], values[3:]
    if not np.allclose(np.linalg.norm((row, column), axis=1), 1, atol=1e-3) or abs(row @ column) > 1e-3:
        raise InputError(f"{title} states axes that are not at right angles ({values.tolist()}). Export it again.")
    return right_angled(row, column)


def _numbers(values: Any) -> np.ndarray:
    """The numbers of a DICOM attribute; none for one that is absent or empty."""
    return np.array([] if values is None or values == "" else values, dtype=np.float64).reshape(-1)


def _title(folder: Path, headers: Sequence[Any]) -> str:
    description = str(headers[0].get("SeriesDescription", "") or "").strip()
    return f"The CT series '{description}' in {folder}" if description else f"The CT series in {folder}"


def _count(number: int, noun: str) -> str:
    """ "1 file", "3 files"."""
    return f"{number} {noun}{'s' * (number != 1)}"
