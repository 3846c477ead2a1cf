"""What is in a SegRap download, and what of it would mislead whoever trains on it. Nothing is changed.

The traps are those that users of the challenge's data have met: masks of 0 and 255, data types that differ from file to
file, duplicates of a download, corrected contours that the volumes of sub-classes know nothing of, cropped images.
The faults are those that nobody would see in a trained model: a structure without a contour, exchanged sides or scans.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segrap import anatomy
from segrap.ct.pair import pair_images
from segrap.dataset.patients import Patient, find_patients, values_in_volume, volume_fault
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import Image, read_image, stored_axes
from segrap.progress import Progress, ProgressCallback

Severity = Literal["fault", "trap", "note"]
Found = tuple[Severity, str]
FULL_MATRICES = (512, 1024)
SLICE_MM = 3.0


@dataclass(frozen=True)
class Remark:
    """One thing about one patient. fault: cannot be converted, or not for the tasks that the message names, or would be
    converted into something wrong; trap: `convert` copes, others may not; note: to know."""

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
        """True when all of it can be converted."""
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
    everyone = [patient for patient in patients.values() if patient.has_parts]
    remarks += _gaps(everyone)
    return Report(
        patients=len(everyone),
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


def _gaps(patients: list[Patient]) -> Iterator[Remark]:
    numbers = {patient.number for patient in patients}
    for begin, end, what in ((0, 120, "training"), (120, 140, "validation")):
        absent = sorted(set(range(begin, end)) - numbers)
        if 0 < len(absent) < end - begin:
            some = ", ".join(f"{n:04d}" for n in absent[:5]) + (", ..." if len(absent) > 5 else "")
            yield Remark("", "note", f"{len(absent)} of the {end - begin} {what} patients are not here: {some}")


def _check(patient: Patient) -> Iterator[Found]:
    for path in patient.strays:
        yield (
            "trap",
            f"{path.name} is named after no structure or patient: a duplicate of the download? It is left out.",
        )
    if not patient.has_parts:
        yield "note", "Nothing else of it is here."
        return
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
    if not patient.sources:
        yield "note", "Images only, no contours."
        return
    subclasses = yield from _check_kind(patient, image, of_targets=False)
    yield from _check_kind(patient, image, of_targets=True)
    middles = {} if subclasses is None else _middles_in_volume(subclasses, image)
    for released, files in (("", patient.masks), (" as corrected", patient.updated)):
        newest = subclasses if not patient.updated or released else None
        middles |= yield from _check_masks(released, files, image, newest)
    yield from _check_sides(middles)


def _check_kind(patient: Patient, image: Image, of_targets: bool) -> Generator[Found, None, np.ndarray | None]:
    """Check that each organ, or each target, has a contour; returns the array of their volume, if there is one."""
    names = [s.name for s in anatomy.STRUCTURES if s.is_target == of_targets]
    path = patient.targets if of_targets else patient.subclasses
    tasks = "gtv and joint" if of_targets else "oar, oar-regions and joint"
    absent = [name for name in names if name not in patient.best_masks]
    if path is not None:
        if 0 < len(absent) < len(names):
            volume = f"the volume of {'targets' if of_targets else 'sub-classes'}"
            yield "trap", f"Without a file, and taken from {volume}: {', '.join(absent)}."
        return (yield from _labels(path, image, of_targets, absent))
    if len(absent) == len(names):
        yield "note", f"No contours of {'tumours' if of_targets else 'organs'}: left out of the tasks {tasks}."
    elif absent:
        yield "fault", f"No contour of {', '.join(absent)}: left out of the tasks {tasks}."
    return None


def _check_images(patient: Patient, image: Image) -> Iterator[Found]:
    contrast = None
    if patient.contrast is None:
        yield "fault", "There is no contrast-enhanced image."
    else:
        contrast = yield from _read(patient.contrast)
        if contrast and not same_grid(contrast.geometry, contrast.shape, image.geometry, image.shape):
            yield "fault", "The two images do not lie on one grid."
            contrast = None
    try:  # what `segrap contour` would say of them
        remarks = pair_images(image, contrast, ("the non-contrast image", "the contrast-enhanced image")).remarks
    except InputError as fault:
        message = str(fault) + " Here, the two files bear each other's names." * (fault.about == "order")
        yield "fault", message[0].upper() + message[1:]
    else:
        for remark in remarks:
            yield "note", remark
    if patient.non_contrast and (axes := stored_axes(patient.non_contrast)) != "LPS":
        yield "trap", f"The images are stored as {axes}, not LPS: arrays alone would mix up the sides."
    depth, rows, columns = image.shape
    if rows != columns or rows not in FULL_MATRICES:
        yield "trap", f"The image is cropped to {columns} x {rows} pixels: statistics of whole images will differ."
    spacing = image.geometry.spacing_mm[2]
    if abs(spacing - SLICE_MM) > 1e-3:
        yield "note", f"Its {depth} slices lie {spacing:g} mm apart, not 3."


def _check_masks(
    released: str, files: dict[str, Path], image: Image, subclasses: np.ndarray | None
) -> Generator[Found, None, dict[str, np.ndarray]]:
    """Check the masks of one release; returns where the middles of those lie that have a side, LPS mm."""
    middles: dict[str, np.ndarray] = {}
    odd_values: dict[str, list[str]] = {}
    odd_types: dict[str, list[str]] = {}
    empty: list[str] = []
    differing: dict[str, int] = {}
    of_subclass = None if subclasses is None else _counts(subclasses)
    for name, path in files.items():
        mask = yield from _read(path)
        if mask is None:
            continue
        if not same_grid(mask.geometry, mask.shape, image.geometry, image.shape):
            yield "fault", f"{path.name}{released} does not lie on the grid of the image."
            continue
        inside = _inside(mask.array)
        values = _values(mask.array, inside)
        if not inside.size:
            empty.append(name)
        elif anatomy.structure(name).laterality:
            middles[name] = _middle([axis.mean() for axis in np.unravel_index(inside, mask.shape)], image)
        if not np.isin(values, [0, 1]).all():
            odd_values.setdefault("/".join(f"{value:g}" for value in values[:4]), []).append(name)
        if (kind := _stored_type(path)) != "uint8":
            odd_types.setdefault(kind, []).append(name)
        ids = list(anatomy.structure(name).subclasses)
        if subclasses is not None and of_subclass is not None and not anatomy.structure(name).is_target:
            in_both = int(np.count_nonzero(np.isin(subclasses.ravel()[inside], ids)))
            if different := int(of_subclass[ids].sum()) + inside.size - 2 * in_both:
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
    return middles


def _these(names: list[str], files: dict[str, Path]) -> str:
    """Names of structures that have a file, or in short what all of them, or all but a few, are."""
    rest = [name for name in files if name not in names]
    if not rest and len(names) > 1:
        return f"all {len(names)}"
    return f"all but {', '.join(rest)}" if len(rest) < len(names) and len(names) > 10 else ", ".join(names)


def _labels(path: Path, image: Image, of_targets: bool, absent: list[str]) -> Generator[Found, None, np.ndarray | None]:
    """Check a label volume, from which the structures `absent` are taken; returns its array, None if of no use."""
    labels = yield from _read(path)
    if labels is None:
        return None
    if not same_grid(labels.geometry, labels.shape, image.geometry, image.shape):
        yield "fault", f"{_where(path)} does not lie on the grid of the image."
        return None
    if fault := volume_fault(labels.array, of_targets):
        yield "fault", f"{_where(path)} {fault}."
        return None
    if (kind := _stored_type(path)) != "uint8":
        yield "trap", f"{_where(path)} is stored as {kind}, which nnU-Net stumbles over."
    found = set(np.flatnonzero(_counts(labels.array)).tolist())
    if empty := [name for name in absent if not found & set(values_in_volume(anatomy.structure(name)))]:
        yield "note", f"Empty in the volume of {'targets' if of_targets else 'sub-classes'}: {', '.join(empty)}."
    return labels.array


def _middles_in_volume(subclasses: np.ndarray, image: Image) -> dict[str, np.ndarray]:
    """Where the middles of the organs lie that have a side, LPS mm; (z, y, x) sub-class ids, all in one pass."""
    voxels, inside = _counts(subclasses), _inside(subclasses)
    held = subclasses.ravel()[inside].astype(np.intp)
    sums = [np.bincount(held, axis, len(voxels)) for axis in np.unravel_index(inside, subclasses.shape)]
    middles = {}
    for organ in anatomy.ORGANS:
        ids = list(organ.subclasses)
        if organ.laterality and (count := voxels[ids].sum()):
            middles[organ.name] = _middle([axis[ids].sum() / count for axis in sums], image)
    return middles


def _middle(index_zyx: list[float], image: Image) -> np.ndarray:
    return image.geometry.to_lps(np.array(index_zyx[::-1]))


def _check_sides(middles: dict[str, np.ndarray]) -> Iterator[Found]:
    """The rule of `segrap.quality`: the middle of a left structure lies to the patient's left of its partner's."""
    wrong = []
    for left in middles:
        name = left.removesuffix("_L")
        right = middles.get(f"{name}_R")
        if left != name and right is not None and middles[left][0] <= right[0]:
            wrong.append(name)
    if wrong:
        message = f"The left one lies to the patient's right of the right one: {', '.join(wrong)}."
        yield "fault", f"{message} Their files are exchanged, or the patient is mirrored."


def _where(path: Path) -> str:
    """Folder and file: volumes of either kind have the same names."""
    return f"{path.parent.name}/{path.name}"


def _inside(array: np.ndarray) -> np.ndarray:
    """The flat indices of what is not 0; from int16 directly it would take seven times as long."""
    return np.flatnonzero(array != 0)


def _values(array: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The values in an array, sorted: `np.unique`, in a tenth of its time."""
    values = np.unique(array.ravel()[inside])
    return values if inside.size == array.size else np.union1d(values, [0])


def _counts(labels: np.ndarray) -> np.ndarray:
    """How many voxels hold each sub-class, or target, by its number; none is counted for background."""
    return np.bincount(labels[labels != 0].astype(np.intp), minlength=len(anatomy.SUBCLASSES) + 1)


def _read(path: Path) -> Generator[Found, None, Image | None]:
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
