"""RTSTRUCTs before judges that are not ours: dicom3tools and plastimatch (Debian packages), pydicom at strictest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from rtstruct_cases import ORIENTATIONS, contours_of, difficult_masks, small_series

from segrap import anatomy
from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.geometry import same_grid
from segrap.image import read_image
from segrap.rtstruct.read import read_rtstruct
from segrap.rtstruct.write import write_rtstruct


def judge(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a judge; without it the test is skipped. plastimatch never ends on some wrong files, hence the time limit."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed (Debian packages dicom3tools, plastimatch)")
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)


class Export:
    def __init__(self, folder: Path, direction: np.ndarray) -> None:
        self.ct = folder / "ct"
        self.series = small_series(self.ct, direction)
        self.contours = contours_of(difficult_masks(), self.series)
        self.path = folder / "RTSTRUCT.dcm"
        write_rtstruct(self.contours, self.series, self.path)


@pytest.fixture(scope="module", params=ORIENTATIONS)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return Export(tmp_path_factory.mktemp("export"), ORIENTATIONS[request.param])


def complaints_of_dciodvfy(path: Path) -> list[str]:
    verdict = judge("dciodvfy", "-new", path)
    complaints = [line for line in verdict.stderr.splitlines() if line.startswith(("Error", "Warning"))]
    assert "RTStructureSet" in verdict.stderr
    assert verdict.returncode == bool(any(line.startswith("Error") for line in complaints))
    return complaints


def test_dciodvfy_finds_neither_error_nor_warning(export):
    assert complaints_of_dciodvfy(export.path) == []


def test_dcentvfy_finds_the_patient_and_study_of_the_ct(export):
    verdict = judge("dcentvfy", *export.series.files, export.path)
    assert (verdict.returncode, verdict.stderr) == (0, "")


@pytest.mark.parametrize("fill_rule", [[], ["--xor-contours"]], ids=["union", "even-odd"])
def test_plastimatch_reads_back_exactly_the_same_masks(fill_rule, export, tmp_path):
    verdict = judge(
        *("plastimatch", "convert", "--input", export.path, "--referenced-ct", export.ct, *fill_rule),
        *("--output-prefix", tmp_path, "--prefix-format", "nrrd"),
    )
    assert verdict.returncode == 0, verdict.stderr
    differing = []
    for name in export.contours.names:
        image = read_image(tmp_path / f"{anatomy.structure(name).tg263_name}.nrrd")
        assert same_grid(image.geometry, image.shape, export.series.geometry, export.series.shape)
        if not np.array_equal(image.array > 0, export.contours.mask(name)):
            differing.append(name)
    assert differing == []


def test_pydicom_accepts_every_value_at_its_strictest(export, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    values = [element.value for element in pydicom.dcmread(export.path).iterall()]
    assert len(values) > 1000


@pytest.fixture(scope="module")
def real_series(shared_data: Path) -> CTSeries:
    (series,) = read_series_folder(shared_data / "visible_human_head")
    return series


def test_contours_on_a_real_ct_pass_the_judges_and_come_back(real_series, tmp_path):
    z, y, x = np.ogrid[tuple(slice(0, size) for size in real_series.shape)]
    brain = ((z - 180) / 50) ** 2 + ((y - 200) / 90) ** 2 + ((x - 256) / 70) ** 2 < 1
    lens = ((z - 120) / 3) ** 2 + ((y - 110) / 2) ** 2 + ((x - 290) / 4) ** 2 < 1
    masks = {"Brain": brain, "Lens_L": lens}
    contours = contours_of(masks, real_series)
    path = tmp_path / "RTSTRUCT.dcm"
    write_rtstruct(contours, real_series, path)
    again: Contours = read_rtstruct(path, real_series)
    for name, mask in masks.items():
        assert np.array_equal(again.mask(name), mask)
    # dciodvfy warns of the names in this old CT itself, which are copied as they are.
    assert [complaint for complaint in complaints_of_dciodvfy(path) if complaint.startswith("Error")] == []
    verdict = judge("dcentvfy", *real_series.files, path)
    assert (verdict.returncode, verdict.stderr) == (0, "")
