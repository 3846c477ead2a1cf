"""Volumes and Hounsfield units of every structure over the patients of a download, or of a site: what it expects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segrap import anatomy
from segrap.ct.hounsfield import hounsfield_fault
from segrap.dataset.patients import MasksOnDisk, Patient, find_patients
from segrap.errors import InputError
from segrap.evaluation.cases import Case, find_cases, read_case
from segrap.evaluation.scans import find_scans, read_scan
from segrap.geometry import same_grid
from segrap.image import Image, read_image
from segrap.progress import Progress, ProgressCallback
from segrap.quality import Expected
from segrap.writing import replacing

PERCENTILES = (0.5, 5, 50, 95, 99.5)
_ENOUGH_PATIENTS = 30
_HU = np.arange(-1024, 3072)


class Inside(NamedTuple):
    """A structure of a patient: Hounsfield units of its voxels (n,), and the volume of each."""

    structure: str
    hu: np.ndarray
    voxel_cc: float


def measure(
    folder: str | Path,
    progress: ProgressCallback | None = None,
    names: Mapping[str, str] | None = None,
    ct: str | Path | None = None,
) -> dict[str, Any]:
    """Measure every structure of every patient.

    folder: a SegRap download (of each structure the corrected mask, else the first one, else the volume of ids), or a
    site's cases in any form that `segrap evaluate` reads. ct: where the cases' CTs lie, see
    `evaluation.scans.find_scans`; without it, with the cases. names: what the site calls its structures in DICOM, see
    `segrap.naming`.
    Returns {"patients": n, "left_out": names of those of a download without contours or without a non-contrast CT,
    "structures": {name: {"patients": with a voxel of it, "volume_cc": {"min", "p0.5", "p5", "p50", "p95", "p99.5",
    "max", "mean"}, "median_hu": the same of the patients' medians, "non_contrast_hu": of all voxels, {"p0.5", ...,
    "mean", "sd"}, where Hounsfield units outside -1024 to 3071 count as these}}}.
    Raises InputError when there is no patient with both, or a file is damaged, on another grid, or no CT.
    """
    volumes: dict[str, list[float]] = {name: [] for name in anatomy.NAMES}
    medians: dict[str, list[float]] = {name: [] for name in anatomy.NAMES}
    histograms = {name: np.zeros(len(_HU), dtype=np.int64) for name in anatomy.NAMES}
    readers, left_out = _readers(Path(folder), names, ct)
    for done, (patient, read) in enumerate(readers.items()):
        if progress:
            progress(Progress("Measuring the patients", done / len(readers), patient))
        for one in read():
            if one.hu.size:
                volumes[one.structure].append(one.hu.size * one.voxel_cc)
                medians[one.structure].append(float(np.median(one.hu)))
                levels = np.clip(np.round(one.hu), _HU[0], _HU[-1]).astype(np.int64) - _HU[0]
                histograms[one.structure] += np.bincount(levels, minlength=len(_HU))
    return {
        "patients": len(readers),
        "left_out": left_out,
        "structures": {
            name: {
                "patients": len(found),
                "volume_cc": _of_patients(np.array(found)),
                "median_hu": _of_patients(np.array(medians[name])),
                "non_contrast_hu": _of_histogram(histograms[name]),
            }
            for name, found in volumes.items()
            if found
        },
    }


def _readers(
    folder: Path, names: Mapping[str, str] | None, ct: str | Path | None
) -> tuple[dict[str, Callable[[], Iterator[Inside]]], list[str]]:
    """By patient, what reads its structures; and who is left out."""
    try:
        patients = {} if ct else find_patients(folder)
    except InputError:  # no download: a site's own cases
        patients = {}
    usable = {name: one for name, one in patients.items() if one.non_contrast and one.sources}
    if usable:
        return {name: partial(_of_patient, one) for name, one in usable.items()}, sorted(set(patients) - set(usable))
    try:
        cases = find_cases(folder, names).cases
    except InputError:
        if not patients:
            raise
        raise InputError(
            f"No patient under {folder} has both a non-contrast image and contours. Give the folder that holds both, "
            "or that of the images as --ct."
        ) from None
    scans = find_scans(ct or folder, cases)
    return {name: partial(_of_case, case, scans[name]) for name, case in cases.items()}, []


def _of_patient(patient: Patient) -> Iterator[Inside]:
    patient.refuse_twice()
    assert patient.non_contrast
    image = read_image(patient.non_contrast)
    _check_ct(image, patient.name, patient.non_contrast)
    voxel_cc = image.geometry.voxel_volume_cc
    for name, mask in MasksOnDisk(patient.sources, image).items():
        yield Inside(name, image.array[mask], voxel_cc)


def _of_case(case: Case, scan: Path) -> Iterator[Inside]:
    contours = read_case(case, (scan,) if scan.is_dir() else ())
    image = read_scan(scan, contours.geometry, contours.shape, contours.provenance.input_series_uids)
    _check_ct(image, case.name, scan)
    if not same_grid(image.geometry, image.shape, contours.geometry, contours.shape):
        raise InputError(f"Case {case.name}: the CT {scan} and the contours do not lie on one grid.")
    for name in contours.names:
        mask, box = contours.mask_in_box(name)
        yield Inside(name, image.array[box][mask], image.geometry.voxel_volume_cc)


def _check_ct(image: Image, patient: str, path: Path) -> None:
    if fault := hounsfield_fault(image.array):
        raise InputError(f"Case {patient}: {path} is no CT in Hounsfield units: {fault}.")


def _of_patients(values: np.ndarray) -> dict[str, float]:
    percentiles = {f"p{p:g}": float(np.percentile(values, p)) for p in PERCENTILES}
    numbers = {"min": float(values.min()), **percentiles, "max": float(values.max()), "mean": float(values.mean())}
    return {name: round(value, 4) for name, value in numbers.items()}


def _of_histogram(counts: np.ndarray) -> dict[str, float]:
    total = counts.sum()
    below = np.cumsum(counts)
    percentiles = {f"p{p:g}": float(_HU[np.searchsorted(below, total * p / 100)]) for p in PERCENTILES}
    mean = float((counts * _HU).sum() / total)
    deviation = float(np.sqrt((counts * (_HU - mean) ** 2).sum() / total))
    return {**percentiles, "mean": round(mean, 2), "sd": round(deviation, 2)}


def write_statistics(found: Mapping[str, Any], path: str | Path) -> None:
    """Write what `measure` found as JSON. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_expected(path: str | Path) -> dict[str, Expected]:
    """What a file of `write_statistics` expects of each structure.

    From 30 patients on, limits are the percentiles 0.5 and 99.5, so that a few bad contours among many do not set
    them; of fewer, the smallest and the largest value. A file of before medians were measured gives none.

    Raises InputError when it is not one.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {anatomy.structure(name).name: _expected(one) for name, one in content["structures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            f"{path} is no file of volumes ({fault}). Make one with: segrap dataset statistics FOLDER --output FILE"
        ) from None


def _expected(stated: Mapping[str, Any]) -> Expected:
    ends = ("p0.5", "p99.5") if stated.get("patients", 0) >= _ENOUGH_PATIENTS else ("min", "max")

    def limits(quantity: str) -> tuple[float, float]:
        low, high = (float(stated[quantity][end]) for end in ends)
        if not low <= high:
            raise ValueError(f"{quantity} from {low:g} to {high:g}")
        return low, high

    return Expected(limits("volume_cc"), limits("median_hu") if "median_hu" in stated else None)
