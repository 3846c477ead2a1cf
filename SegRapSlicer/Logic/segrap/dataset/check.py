"""What is in a SegRap download, and what of it would mislead whoever trains on it. Nothing is changed.

The traps are those that users of the challenge's data have met: masks of 0 and 255, data types that differ from file to
file, duplicates of a download, corrected contours that the volumes of sub-classes know nothing of, cropped images.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segrap import anatomy
from segrap.dataset.patients import Patient, find_patients
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import Image, read_image, stored_axes
from segrap.progress import Progress, ProgressCallback

Severity = Literal["fault", "trap", "note"]
FULL_MATRICES = (512, 1024)
SLICE_MM = 3.0


@dataclass(frozen=True)
class Remark:
    """One thing about one patient. fault: cannot be converted; trap: `convert` copes, others may not; note: to know."""

    patient: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class Report:
    """What a download holds: how many patients with what, and remarks in the order of the patients."""

    patients: int
    with_pair: int
    with_all_masks: int
    with_updates: int
    with_subclasses: int
    with_targets: int
    remarks: tuple[Remark, ...]

    @property
    def usable(self) -> bool:
        """True when nothing in it keeps it from being converted."""
        return not any(remark.severity == "fault" for remark in self.remarks)


def check_download(folder: str | Path, progress: ProgressCallback | None = None) -> Report:
    """Read every file of a download and report. Raises InputError when there is no patient in it."""
    patients = find_patients(folder)
    remarks: list[Remark] = []
    for done, patient in enumerate(patients.values()):
        if progress:
            progress(Progress("Checking the patients", done / len(patients), patient.name))
        for severity, message in _check(patient):
            remarks.append(Remark(patient.name, severity, message))
    remarks += _gaps(patients)
    everyone = patients.values()
    return Report(
        patients=len(patients),
        with_pair=sum(bool(one.non_contrast and one.contrast) for one in everyone),
        with_all_masks=sum(len(one.best_masks) == len(anatomy.NAMES) for one in everyone),
        with_updates=sum(bool(one.updated) for one in everyone),
        with_subclasses=sum(bool(one.subclasses) for one in everyone),
        with_targets=sum(bool(one.targets) for one in everyone),
        remarks=tuple(remarks),
    )


def in_words(report: Report) -> str:
    """The report for people: what is the same of several patients is said once."""
    lines = [
        f"{report.patients} patients: {report.with_pair} with both images, {report.with_all_masks} with masks of all "
        f"47 structures ({report.with_updates} with corrected ones), {report.with_subclasses} with a volume of "
        f"sub-classes, {report.with_targets} with one of targets."
    ]
    alike: dict[tuple[Severity, str], list[str]] = {}
    for remark in report.remarks:
        alike.setdefault((remark.severity, remark.message), []).append(remark.patient)
    for (severity, message), patients in alike.items():
        more = f" and {len(patients) - 2} more" if len(patients) > 2 else ""
        lines.append(f"{severity:5} {', '.join(patients[:2]) or 'all'}{more}: {message}")
    return "\n".join(lines)


def _gaps(patients: dict[str, Patient]) -> Iterator[Remark]:
    numbers = {patient.number for patient in patients.values()}
    for begin, end, what in ((0, 120, "training"), (120, 140, "validation")):
        absent = sorted(set(range(begin, end)) - numbers)
        if 0 < len(absent) < end - begin:
            some = ", ".join(f"{n:04d}" for n in absent[:5]) + (", ..." if len(absent) > 5 else "")
            yield Remark("", "note", f"{len(absent)} of the {end - begin} {what} patients are not here: {some}")


def _check(patient: Patient) -> Iterator[tuple[Severity, str]]:
    for path in patient.strays:
        yield "trap", f"{path.name} is named after no structure: a duplicate of the download? It is left out."
    for one, other in patient.twice:
        yield "fault", f"Two files for one thing: {one} and {other}."
    if patient.has_one_scan_by_name:
        yield "note", "One scan only, by its name (SegRap2025); not converted."
        return
    if patient.non_contrast is None:
        yield "fault", "There is no non-contrast image."
        return
    image = yield from _read(patient.non_contrast)
    if image is None:
        return
    yield from _check_images(patient, image)
    if not (patient.best_masks or patient.subclasses or patient.targets):
        yield "note", "Images only, no contours."
        return
    if patient.best_masks:
        absent = [name for name in anatomy.NAMES if name not in patient.best_masks]
        if absent:
            yield "trap", f"{len(absent)} structures have no file: {', '.join(absent)}."
    subclasses = None
    if patient.subclasses:
        subclasses = yield from _labels(patient.subclasses, image, 54)
    if patient.targets:
        yield from _labels(patient.targets, image, 2)
    if subclasses is not None and not patient.best_masks:
        return
    for released, files in (("", patient.masks), (" as corrected", patient.updated)):
        yield from _check_masks(released, files, image, subclasses if not patient.updated or released else None)


def _check_images(patient: Patient, image: Image) -> Iterator[tuple[Severity, str]]:
    if patient.contrast is None:
        yield "fault", "There is no contrast-enhanced image."
    else:
        contrast = yield from _read(patient.contrast)
        if contrast is not None and not same_grid(contrast.geometry, contrast.shape, image.geometry, image.shape):
            yield "fault", "The two images do not lie on one grid."
        elif contrast is not None and np.array_equal(contrast.array, image.array):
            yield "fault", "Both images are the same scan."
    if patient.non_contrast and (axes := stored_axes(patient.non_contrast)) != "LPS":
        yield "trap", f"The images are stored as {axes}, not LPS: arrays alone would mix up the sides."
    if int(image.array.min()) >= 0:
        yield "fault", "The image holds no value below 0: these are no Hounsfield units."
    depth, rows, columns = image.shape
    if rows != columns or rows not in FULL_MATRICES:
        yield "trap", f"The image is cropped to {columns} x {rows} pixels: statistics of whole images will differ."
    spacing = image.geometry.spacing_mm[2]
    if abs(spacing - SLICE_MM) > 1e-3:
        yield "note", f"Its {depth} slices lie {spacing:g} mm apart, not 3."


def _check_masks(
    released: str, files: dict[str, Path], image: Image, subclasses: np.ndarray | None
) -> Iterator[tuple[Severity, str]]:
    odd_values: dict[str, list[str]] = {}
    odd_types: dict[str, list[str]] = {}
    empty: list[str] = []
    differing: dict[str, int] = {}
    for name, path in files.items():
        mask = yield from _read(path)
        if mask is None:
            continue
        if not same_grid(mask.geometry, mask.shape, image.geometry, image.shape):
            yield "fault", f"{path.name}{released} does not lie on the grid of the image."
            continue
        values = _values(mask.array)
        if values[-1] == 0:
            empty.append(name)
        elif not np.array_equal(values, [0, 1]):
            odd_values.setdefault("/".join(f"{value:g}" for value in values[:4]), []).append(name)
        if (kind := _stored_type(path)) != "uint8":
            odd_types.setdefault(kind, []).append(name)
        if subclasses is not None and not anatomy.structure(name).is_target:
            other = np.isin(subclasses, anatomy.structure(name).subclasses)
            if different := int(np.count_nonzero(other != (mask.array > 0))):
                differing[name] = different
    for values_found, names in odd_values.items():
        yield "trap", f"Masks{released} hold {values_found} instead of 0/1: {_these(names, files)}."
    for kind, names in odd_types.items():
        yield "trap", f"Masks{released} are stored as {kind}: {_these(names, files)}."
    if empty:
        yield "note", f"Empty{released}: {', '.join(empty)}."
    if differing:
        some = ", ".join(f"{name} ({voxels} voxels)" for name, voxels in differing.items())
        yield "trap", f"The volume of sub-classes is not what the masks{released} say: {some}. The masks are used."


def _these(names: list[str], files: dict[str, Path]) -> str:
    """Names of structures that have a file, or in short what all of them, or all but a few, are."""
    rest = [name for name in files if name not in names]
    if not rest and len(names) > 1:
        return f"all {len(names)}"
    return f"all but {', '.join(rest)}" if len(rest) < len(names) and len(names) > 10 else ", ".join(names)


def _labels(path: Path, image: Image, highest: int) -> Generator[tuple[Severity, str], None, np.ndarray | None]:
    """Check a label volume; returns its array, None where it cannot be used."""
    labels = yield from _read(path)
    where = f"{path.parent.name}/{path.name}"
    if labels is None:
        return None
    if not same_grid(labels.geometry, labels.shape, image.geometry, image.shape):
        yield "fault", f"{where} does not lie on the grid of the image."
        return None
    found = _values(labels.array)
    if found[0] < 0 or found[-1] > highest or not np.array_equal(found, np.round(found)):
        held = f"{found[0]:g} to {found[-1]:g}"
        lymph_nodes = " (SegRap2025's lymph node levels are not known here)" if highest == 2 and found[-1] <= 6 else ""
        yield "fault", f"{where} holds values {held}; only whole numbers 0 to {highest} mean something{lymph_nodes}."
        return None
    if (kind := _stored_type(path)) != "uint8":
        yield "trap", f"{where} is stored as {kind}, which nnU-Net stumbles over."
    return labels.array


def _values(array: np.ndarray) -> np.ndarray:
    """The values in an array, sorted: `np.unique`, in a tenth of its time where nearly all is 0."""
    inside = array[array != 0]
    return np.unique(inside) if inside.size == array.size else np.union1d(inside, [0])


def _read(path: Path) -> Generator[tuple[Severity, str], None, Image | None]:
    """Read an image; returns None, after a remark, where that is impossible."""
    try:
        return read_image(path)
    except InputError as fault:
        yield "fault", str(fault)
        return None


def _stored_type(path: Path) -> str:
    """The numpy name of the type that voxels have on disk; `read_image` turns whole numbers into int16."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    kinds = {
        getattr(SimpleITK, f"sitk{name}"): name.lower()
        for name in ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")
    }
    return kinds.get(reader.GetPixelID(), "another type")
