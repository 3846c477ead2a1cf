"""What is wrong with an RTSTRUCT that conformance checkers do not see: contours and references that contradict the CT.

`dciodvfy` and its like read attribute by attribute. A contour 1.2 mm beside its slice, a wrong Frame of Reference, two
ROIs of one number pass them, and the reader at the other end puts a contour in the wrong place or drops it in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segrap import anatomy
from segrap.ct.dicom_series import CTSeries, texts_as_stated
from segrap.naming import SHOWN, as_shown
from segrap.rtstruct.contents import Contents, Roi, read_contents
from segrap.rtstruct.crossings import self_crossing
from segrap.rtstruct.fill import voxels_in_dispute
from segrap.rtstruct.planes import PLANE_TOLERANCE_MM, SlicePlanes
from segrap.rtstruct.read import known_structure

Severity = Literal["error", "warning"]

# Limits of the value representations: SH, LO, DS.
_SHORT_STRING, _LONG_STRING, _DECIMAL_STRING = 16, 64, 16
_ROI_NAME = re.compile(r"[A-Za-z0-9_^~+-]+")
_ALGORITHMS = ("", "AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
_INTERPRETED_TYPES = (
    *("", "EXTERNAL", "PTV", "CTV", "GTV", "TREATED_VOLUME", "IRRAD_VOLUME", "OAR", "BOLUS", "AVOIDANCE", "ORGAN"),
    *("MARKER", "REGISTRATION", "ISOCENTER", "CONTRAST_AGENT", "CAVITY", "BRACHY_CHANNEL", "BRACHY_ACCESSORY"),
    *("BRACHY_SRC_APP", "BRACHY_CHNL_SHLD", "SUPPORT", "FIXATION", "DOSE_REGION", "CONTROL", "DOSE_MEASUREMENT"),
)
_APPROVALS = ("APPROVED", "UNAPPROVED", "REJECTED")
_NOT_FILLED_TYPES = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_OFF_IMAGE_PIXELS = 0.01
_UIDS = ("StudyInstanceUID", "FrameOfReferenceUID")

# Attributes of the modules that an RTSTRUCT must have: type 1 must have a value, type 2 must be there.
_TYPE_1 = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "StructureSetLabel")
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
    *("Manufacturer", "SeriesNumber", "OperatorsName", "StructureSetDate", "StructureSetTime"),
)
_ITEMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "StructureSetROISequence": (("ROINumber", "ReferencedFrameOfReferenceUID"), ("ROIName", "ROIGenerationAlgorithm")),
    "ROIContourSequence": (("ReferencedROINumber",), ()),
    "RTROIObservationsSequence": (
        ("ObservationNumber", "ReferencedROINumber"),
        ("RTROIInterpretedType", "ROIInterpreter"),
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. error: some reader will lose or misplace something. warning: some reader may mind."""

    severity: Severity
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.what}"


def lint(path: str | Path, series: CTSeries | None = None) -> list[Finding]:
    """All findings in an RTSTRUCT file, errors first; what refers to the CT is checked where `series` is given.

    Raises InputError when the file cannot be read as an RTSTRUCT at all.
    """
    contents = read_contents(path)
    return sorted([*findings(contents, series), *exchanged_sides(contents)], key=lambda finding: finding.severity)


def findings(contents: Contents, series: CTSeries | None = None) -> list[Finding]:
    """What is wrong with the file as such, whatever anatomy its contours show."""
    found = [*_attributes(contents.dataset), *_rois_together(contents)]
    planes = SlicePlanes(series) if series is not None else None
    if series is not None:
        found += _references(contents.dataset, series)
    for roi in contents.rois:
        found += _roi(roi)
        if series is not None and planes is not None:
            found += _roi_on_ct(roi, series, planes)
    return found


def _error(where: str, what: str) -> Finding:
    return Finding("error", where, what)


def _warning(where: str, what: str) -> Finding:
    return Finding("warning", where, what)


def _attributes(dataset: Any) -> Iterator[Finding]:
    yield from _missing("file", dataset, _TYPE_1, _TYPE_2)
    for sequence, (type_1, type_2) in _ITEMS.items():
        for number, item in enumerate(dataset.get(sequence) or (), start=1):
            yield from _missing(f"{sequence} item {number}", item, type_1, type_2)
            for keyword, terms in (
                ("ROIGenerationAlgorithm", _ALGORITHMS),
                ("RTROIInterpretedType", _INTERPRETED_TYPES),
            ):
                if str(item.get(keyword) or "") not in terms:
                    yield _warning(f"{sequence} item {number}", f"{keyword} '{item.get(keyword)}' is no defined term.")
            if "ContourSequence" in item and not item.ContourSequence:
                yield _error(f"{sequence} item {number}", "its ContourSequence is empty; leave an empty ROI out.")
    if not dataset.get("StructureSetROISequence"):
        yield _error("file", "it holds no ROI.")
    label = str(dataset.get("StructureSetLabel") or "")
    if len(label) > _SHORT_STRING:
        yield _error("file", f"StructureSetLabel has {len(label)} characters; {_SHORT_STRING} are allowed.")
    approval = dataset.get("ApprovalStatus")
    if approval is not None and approval not in _APPROVALS:
        yield _error("file", f"ApprovalStatus '{approval}' is none of {', '.join(_APPROVALS)}.")


def _missing(where: str, item: Any, type_1: tuple[str, ...], type_2: tuple[str, ...]) -> Iterator[Finding]:
    for keyword in type_1:
        if item.get(keyword) in (None, ""):
            yield _error(where, f"{keyword} is missing or empty.")
    for keyword in type_2:
        if keyword not in item:
            yield _warning(where, f"{keyword} is missing; it may be empty, but must be there.")


def _rois_together(contents: Contents) -> Iterator[Finding]:
    dataset = contents.dataset
    numbers = Counter(roi.number for roi in contents.rois)
    names = Counter(roi.name.casefold() for roi in contents.rois)
    for number, count in numbers.items():
        if count > 1:
            yield _error("file", f"{count} ROIs have the number {number}; readers keep one of them.")
    for name, count in names.items():
        if count > 1:
            yield _error("file", f"{count} ROIs are called '{name}' (letter case ignored); readers keep one of them.")
    for shown, count in Counter(as_shown(name) for name in names).items():
        if count > 1:
            what = f"{count} ROIs are '{shown}' where names are cut after {SHOWN} characters (letter case ignored)"
            yield _warning("file", f"{what}; one may be taken for the other.")
    for sequence in ("ROIContourSequence", "RTROIObservationsSequence"):
        referenced = Counter(item.get("ReferencedROINumber") for item in dataset.get(sequence) or ())
        for number, count in referenced.items():
            if number not in numbers:
                yield _error(sequence, f"it refers to ROI {number}, which is not there.")
            elif count > 1:
                yield _error(sequence, f"it has {count} items for ROI {number}.")
        for number in numbers.keys() - referenced.keys():
            yield _warning(sequence, f"it has no item for ROI {number}.")


def exchanged_sides(contents: Contents, names: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Pairs of structures known here whose left one does not lie on the patient's left of the right one (larger x).

    names: {structure: ROI name} for names that are neither SegRap's nor TG-263's.
    """
    called = {name.casefold(): anatomy.structure(structure) for structure, name in (names or {}).items()}
    means: dict[tuple[str, str], float] = {}
    for roi in contents.rois:
        structure = called.get(roi.name.casefold()) or known_structure(roi.name)
        if structure is not None and structure.laterality and len(roi.points_mm):
            means[structure.name[:-2], structure.laterality] = float(roi.points_mm[:, 0].mean())
    for pair, side in means:
        if side == "left" and means[pair, side] <= means.get((pair, "right"), -np.inf):
            yield _error(pair, "its left side lies on the patient's right: left and right are exchanged.")


def _references(dataset: Any, series: CTSeries) -> Iterator[Finding]:
    image = series.headers[0]
    texts = texts_as_stated(dataset.filename)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", *_UIDS):
        padding = " ^=" if keyword == "PatientName" else " "  # "Doe^Jane^^" is "Doe^Jane"
        ours, theirs = (str(one.get(keyword) or "").rstrip(padding) for one in (dataset, image))
        # Where a text does not fit its character set, U+FFFD stands for what was lost of it.
        lost = "\ufffd" in ours and texts.get(keyword) != series.texts.get(keyword)
        if (ours == theirs and not lost) or (keyword == "FrameOfReferenceUID" and not ours):
            continue
        # Not the values: findings go into logs and reports, and a patient's number has no place there.
        one_is_silent = keyword not in ("PatientID", *_UIDS) and not (ours and theirs)
        yield Finding("warning" if one_is_silent else "error", "file", f"its {keyword} is not that of the CT.")
    frames = dataset.get("ReferencedFrameOfReferenceSequence") or ()
    studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence") or ()]
    referenced_series = [item for study in studies for item in study.get("RTReferencedSeriesSequence") or ()]
    stated = [*(frame.get("FrameOfReferenceUID") for frame in frames)]
    stated += [roi.get("ReferencedFrameOfReferenceUID") for roi in dataset.get("StructureSetROISequence") or ()]
    others = {str(uid) for uid in stated} - {series.frame_of_reference_uid}
    if others:
        yield _error("file", f"it refers to the Frame of Reference {', '.join(sorted(others))}, which is not the CT's.")
    if any(str(study.get("ReferencedSOPInstanceUID")) != series.study_uid for study in studies):
        yield _error("file", "it refers to another study than the CT's.")
    if series.series_uid not in [str(item.get("SeriesInstanceUID")) for item in referenced_series]:
        yield _error("file", "it does not refer to this CT series.")


def _roi(roi: Roi) -> Iterator[Finding]:
    where = _title(roi)
    if len(roi.name) > _LONG_STRING:
        yield _error(where, f"its name has {len(roi.name)} characters; {_LONG_STRING} are allowed.")
    elif len(roi.name) > SHOWN:
        yield _warning(where, f"its name has {len(roi.name)} characters; planning systems cut it after {SHOWN}.")
    if not _ROI_NAME.fullmatch(roi.name):
        yield _warning(where, "its name has other characters than A-Z, a-z, 0-9 and _^~+-, which some systems garble.")
    if not len(roi.lengths):
        yield _warning(where, "it has no contour.")
        return

    types = Counter(kind for kind in roi.geometric_types if kind != "CLOSED_PLANAR")
    for kind, count in types.items():
        if kind == "CLOSEDPLANAR_XOR":
            yield _warning(where, f"{count} contours are of type {kind}, which many readers drop.")
        elif kind in _NOT_FILLED_TYPES:
            yield _warning(where, f"{count} contours of type {kind} enclose nothing.")
        else:
            yield _error(where, f"{count} contours are of the unknown type '{kind}'.")
    few = roi.is_filled & (roi.lengths < 3)
    repeated, twice = _repetitions(roi)
    crossing = self_crossing(roi.points_mm, roi.lengths) & roi.is_filled
    checks: tuple[tuple[Severity, np.ndarray, str], ...] = (
        ("error", roi.oversized, "are longer than the 65,534 bytes of explicit VR; readers lose them"),
        ("error", roi.broken, "have coordinates that make no whole points"),
        ("error", roi.lengths != roi.stated_lengths, "have another number of points than they state"),
        ("error", roi.longest_decimals > _DECIMAL_STRING, "have numbers of more than 16 characters"),
        ("error", few, "have fewer than 3 points"),
        ("error", crossing, "cross themselves"),
        ("error", twice & roi.is_filled, "are the same as another; readers that combine by even-odd see neither"),
        ("warning", repeated, "repeat a point, or their first at the end"),
        ("warning", np.array([not uid for uid in roi.image_uids]), "do not say to which image they belong"),
    )
    for severity, which, what in checks:
        if which.any():
            yield Finding(severity, where, f"{_count(which)} {what}.")


def _roi_on_ct(roi: Roi, series: CTSeries, planes: SlicePlanes) -> Iterator[Finding]:
    where = _title(roi)
    some = roi.is_filled & (roi.lengths > 0)  # points (isocentres, markers) and open lines need not lie on a slice
    if not some.any():
        return
    lengths = roi.lengths[some]
    points_mm = roi.points_mm[np.repeat(some, roi.lengths)]
    slice_numbers, distances_mm = planes.nearest(points_mm, lengths)
    off_plane = distances_mm > PLANE_TOLERANCE_MM
    if off_plane.any():
        yield _error(
            where, f"{_count(off_plane)} lie beside the slices of the CT, by up to {distances_mm.max():.2f} mm."
        )
    pixels = planes.to_pixels(np.repeat(slice_numbers, lengths), points_mm)
    _, rows, columns = series.shape
    limit = np.array([columns, rows]) - 0.5 + _OFF_IMAGE_PIXELS
    beyond = ((pixels < -0.5 - _OFF_IMAGE_PIXELS) | (pixels > limit)).any(axis=1)
    off_image = np.logical_or.reduceat(beyond, np.cumsum(lengths) - lengths)
    if off_image.any():
        yield _error(where, f"{_count(off_image)} reach beyond the image.")

    voxels = voxels_in_dispute(pixels, lengths, slice_numbers, series.shape)
    if voxels:
        yield _warning(
            where, f"contours of one slice overlap in {voxels} voxels: some readers see a hole there, some do not."
        )

    number_of = {uid: number for number, uid in enumerate(series.sop_instance_uids)}
    stated = np.array([number_of.get(uid, -1) if uid else -2 for uid in roi.image_uids])[some]
    if (stated == -1).any():
        yield _error(where, f"{_count(stated == -1)} refer to an image that is not in this CT series.")
    elsewhere = (stated >= 0) & (stated != slice_numbers) & ~off_plane
    if elsewhere.any():
        yield _error(where, f"{_count(elsewhere)} refer to the image of another slice than they lie in.")


def _repetitions(roi: Roi) -> tuple[np.ndarray, np.ndarray]:
    # Contours in which a point is followed by itself, and contours that are there already.
    repeated = np.zeros(len(roi.lengths), dtype=bool)
    twice = np.zeros(len(roi.lengths), dtype=bool)
    seen: set[bytes] = set()
    for number, (start, length) in enumerate(zip(roi.starts.tolist(), roi.lengths.tolist(), strict=True)):
        points = roi.points_mm[start : start + length]
        repeated[number] = length > 1 and bool((points == np.roll(points, 1, axis=0)).all(axis=1).any())
        key = points.tobytes()
        twice[number] = length > 0 and key in seen
        seen.add(key)
    return repeated, twice


def _title(roi: Roi) -> str:
    return f"ROI {roi.number} '{roi.name}'"


def _count(which: np.ndarray) -> str:
    return f"{np.count_nonzero(which)} of {len(which)} contours"
