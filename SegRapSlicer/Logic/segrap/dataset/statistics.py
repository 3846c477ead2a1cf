"""Volumes and Hounsfield units of every structure over the patients of a download, or of a site: what it expects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segrap import anatomy
from segrap.dataset.patients import MasksOnDisk, Patient, find_patients
from segrap.errors import InputError
from segrap.evaluation.cases import Case, find_cases, read_case
from segrap.evaluation.scans import find_scans, read_scan
from segrap.geometry import same_grid
from segrap.image import read_image
from segrap.progress import Progress, ProgressCallback
from segrap.writing import replacing

PERCENTILES = (0.5, 5, 50, 95, 99.5)
_HU = np.arange(-1024, 3072)


class Inside(NamedTuple):
    """A structure of a patient: Hounsfield units of its voxels (n,), and the volume of each."""

    structure: str
    hu: np.ndarray
    voxel_cc: float


def measure(
    folder: str | Path, progress: ProgressCallback | None = None, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Measure every structure of every patient that has masks; the corrected ones where there are any.

    folder: a SegRap download, or a site's cases in any form that `segrap evaluate` reads, each with its CT (see
    `evaluation.scans.find_scans`). names: what the site calls its structures in DICOM, see `segrap.naming`.
    Returns {"patients": n, "structures": {name: {"patients": with a voxel of it, "volume_cc": {"min", "p0.5", "p5",
    "p50", "p95", "p99.5", "max", "mean"}, "non_contrast_hu": {"p0.5", ..., "mean", "sd"}}}}; Hounsfield units outside
    -1024 to 3071 count as these.
    Raises InputError when no patient has masks, or a file is damaged or on another grid.
    """
    volumes: dict[str, list[float]] = {name: [] for name in anatomy.NAMES}
    histograms = {name: np.zeros(len(_HU), dtype=np.int64) for name in anatomy.NAMES}
    readers = _readers(Path(folder), names)
    for done, (patient, read) in enumerate(readers.items()):
        if progress:
            progress(Progress("Measuring the patients", done / len(readers), patient))
        for one in read():
            if one.hu.size:
                volumes[one.structure].append(one.hu.size * one.voxel_cc)
                levels = np.clip(np.round(one.hu), _HU[0], _HU[-1]).astype(np.int64) - _HU[0]
                histograms[one.structure] += np.bincount(levels, minlength=len(_HU))
    return {
        "patients": len(readers),
        "structures": {
            name: {
                "patients": len(found),
                "volume_cc": _of_volumes(np.array(found)),
                "non_contrast_hu": _of_histogram(histograms[name]),
            }
            for name, found in volumes.items()
            if found
        },
    }


def _readers(folder: Path, names: Mapping[str, str] | None) -> dict[str, Callable[[], Iterator[Inside]]]:
    """By patient, what reads its structures."""
    try:
        patients = find_patients(folder)
    except InputError:  # no download: a site's own cases
        cases = find_cases(folder, names).cases
        scans = find_scans(folder, cases)
        return {name: partial(_of_case, case, scans[name]) for name, case in cases.items()}
    usable = {name: one for name, one in patients.items() if one.best_masks and one.non_contrast}
    if not usable:
        raise InputError(f"No patient under {folder} has both a non-contrast image and masks of structures.")
    return {name: partial(_of_patient, patient) for name, patient in usable.items()}


def _of_patient(patient: Patient) -> Iterator[Inside]:
    patient.refuse_twice()
    assert patient.non_contrast
    image = read_image(patient.non_contrast)
    for name, mask in MasksOnDisk(patient.best_masks, image).items():
        yield Inside(name, image.array[mask], image.geometry.voxel_volume_cc)


def _of_case(case: Case, scan: Path) -> Iterator[Inside]:
    contours = read_case(case, (scan,) if scan.is_dir() else ())
    image = read_scan(scan, contours.geometry, contours.shape, contours.provenance.input_series_uids)
    if not same_grid(image.geometry, image.shape, contours.geometry, contours.shape):
        raise InputError(f"Case {case.name}: the CT {scan} and the contours do not lie on one grid.")
    for name in contours.names:
        mask, box = contours.mask_in_box(name)
        yield Inside(name, image.array[box][mask], image.geometry.voxel_volume_cc)


def _of_volumes(volumes: np.ndarray) -> dict[str, float]:
    percentiles = {f"p{p:g}": float(np.percentile(volumes, p)) for p in PERCENTILES}
    numbers = {"min": float(volumes.min()), **percentiles, "max": float(volumes.max()), "mean": float(volumes.mean())}
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


def read_volume_ranges(path: str | Path) -> dict[str, tuple[float, float]]:
    """The smallest and largest volume, cc, of each structure in a file of `write_statistics`.

    Raises InputError when it is not one.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            anatomy.structure(name).name: (float(one["volume_cc"]["min"]), float(one["volume_cc"]["max"]))
            for name, one in content["structures"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            f"{path} is no file of volumes ({fault}). Make one with: segrap dataset statistics FOLDER --output FILE"
        ) from None
