"""Volumes and Hounsfield units of every structure over the patients of a download: what a site expects of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segrap import anatomy
from segrap.dataset.patients import MasksOnDisk, find_patients
from segrap.errors import InputError
from segrap.image import read_image
from segrap.progress import Progress, ProgressCallback
from segrap.writing import replacing

PERCENTILES = (0.5, 5, 50, 95, 99.5)
_HU = np.arange(-1024, 3072)


def measure(folder: str | Path, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure every structure of every patient that has masks; the corrected ones where there are any.

    Returns {"patients": n, "structures": {name: {"patients": with a voxel of it, "volume_cc": {"min", "p0.5", "p5",
    "p50", "p95", "p99.5", "max", "mean"}, "non_contrast_hu": {"p0.5", ..., "mean", "sd"}}}}; Hounsfield units outside
    -1024 to 3071 count as these.
    Raises InputError when no patient has masks, or a file is damaged or on another grid.
    """
    volumes: dict[str, list[float]] = {name: [] for name in anatomy.NAMES}
    histograms = {name: np.zeros(len(_HU), dtype=np.int64) for name in anatomy.NAMES}
    patients = find_patients(folder)
    measured = 0
    for done, patient in enumerate(patients.values()):
        if progress:
            progress(Progress("Measuring the patients", done / len(patients), patient.name))
        if not patient.best_masks or patient.non_contrast is None:
            continue
        patient.refuse_twice()
        measured += 1
        image = read_image(patient.non_contrast)
        for name, mask in MasksOnDisk(patient.best_masks, image).items():
            inside = image.array[mask]
            if inside.size:
                volumes[name].append(inside.size * image.geometry.voxel_volume_cc)
                levels = np.clip(np.round(inside), _HU[0], _HU[-1]).astype(np.int64) - _HU[0]
                histograms[name] += np.bincount(levels, minlength=len(_HU))
    if not measured:
        raise InputError(f"No patient under {folder} has both a non-contrast image and masks of structures.")
    return {
        "patients": measured,
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
