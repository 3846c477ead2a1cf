"""What a site expects of its own patients: measured from its cases, and used by the checks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap

from segrap import anatomy
from segrap.ct.dicom_series import read_series_folder
from segrap.dataset.statistics import measure, read_volume_ranges
from segrap.errors import InputError
from segrap.rtstruct.write import write_rtstruct
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import truth, write_dicom_pair
from segrap.writing import replacing


def test_a_clinics_own_cases_are_measured_under_its_own_names(tmp_path: Path) -> None:
    """Patients as a planning system keeps them: both CTs, and an RTSTRUCT on the one without contrast."""
    clinic, file, names = tmp_path / "clinic", tmp_path / "volumes.json", tmp_path / "names.json"
    volumes, hu = [], []
    for seed in (3, 4):
        case = Phantom(seed).render(spacing_mm=(8.0, 8.0, 8.0))
        place = clinic / f"patient {seed}"
        plain, _ = write_dicom_pair(case, place, seed)
        (series,) = read_series_folder(plain)
        write_rtstruct(truth(case, seed), series, place / "RS.dcm", ["Larynx"], names={"Larynx": "LX"})
        mask = truth(case, seed).mask("Larynx")
        volumes.append(int(mask.sum()) * 0.512)
        hu.append(case.non_contrast.array[mask])
    names.write_text('{"Larynx": "LX"}', encoding="utf-8")
    done = run_segrap("dataset", "statistics", clinic, "--names", names, "--output", file)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["patients"] == found["structures"]["Larynx"]["patients"] == 2
    assert read_volume_ranges(file) == {"Larynx": pytest.approx((min(volumes), max(volumes)))}
    measured = found["structures"]["Larynx"]["non_contrast_hu"]
    assert measured["mean"] == pytest.approx(np.concatenate(hu).mean(), abs=0.01)


def test_a_folder_without_contours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no contours"):
        measure(tmp_path)


def test_site_volumes_take_the_place_of_the_published(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    everything_is_larger = {name: {"volume_cc": {"min": 1e6, "max": 2e6}} for name in anatomy.NAMES}
    file = tmp_path / "volumes.json"
    with replacing(file) as temporary:
        temporary.write_text(json.dumps({"structures": everything_is_larger}))
    scans = (coarse_patient / "image.nii.gz", coarse_patient / "image_contrast.nii.gz")
    command = ("contour", *scans, "--model", small_model, "--output", tmp_path / "out", "--volumes")
    done = run_segrap(*command, file)
    assert done.returncode == 0, done.stderr
    assert "of the patients whose volumes were given" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    file.write_text("{}")
    assert run_segrap(*command, file).returncode == 3
