"""What several test files need: the real CTs, a made-up patient, and one run of the demonstration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from desktop import Desktop
    from panel import Panel
    from pydicom import Dataset
    from reviewing import Review

    from segrap.contours import Contours
    from segrap.ct.dicom_series import CTSeries
    from segrap.image import Image
    from segrap.training.phantom import PhantomCase

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CTs; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SEGRAP_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real CTs at {folder} (set SEGRAP_TEST_DATA)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def library_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither see nor change what the person who runs them has installed and converted."""
    os.environ["SEGRAP_MODELS"] = str(tmp_path_factory.mktemp("library"))


@pytest.fixture
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of models for one test alone."""
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    return tmp_path / "library"


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> CTSeries:
    """The CT of `rtstruct_cases`, as files."""
    from rtstruct_cases import small_series

    return small_series(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def contours(series: CTSeries) -> Contours:
    """The difficult shapes of `rtstruct_cases`, and two structures without a voxel."""
    import numpy as np
    from rtstruct_cases import SHAPE, contours_of, difficult_masks

    empty = {"Eye_L": np.zeros(SHAPE, dtype=bool), "Eye_R": np.zeros(SHAPE, dtype=bool)}
    return contours_of(difficult_masks() | empty, series)


@pytest.fixture(scope="module")
def written(series: CTSeries, contours: Contours, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The RTSTRUCT of those contours, as read from its file."""
    import pydicom

    from segrap.rtstruct.write import write_rtstruct

    path = tmp_path_factory.mktemp("rtstruct") / "RTSTRUCT.dcm"
    write_rtstruct(contours, series, path)
    return pydicom.dcmread(path)


def run_segrap(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the `segrap` command as a person would, in a process of its own."""
    command = [sys.executable, "-m", "segrap", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def head() -> Image:
    """A small made-up head, as one CT."""
    from synthetic_ct import head_like

    return head_like((12, 40, 48), (4.0, 4.0, 3.0))


@pytest.fixture(scope="session")
def plain() -> Image:
    """The non-contrast scan of a made-up head."""
    from ct_pair_cases import scan

    return scan(seed=1)


@pytest.fixture(scope="session")
def enhanced() -> Image:
    """The contrast scan of the same head."""
    from ct_pair_cases import scan

    return scan(enhancement_hu=130, seed=2)


@pytest.fixture
def paths(plain: Image, enhanced: Image, tmp_path: Path) -> tuple[Path, Path]:
    """Both scans as files."""
    from ct_pair_cases import saved

    return saved(plain, tmp_path / "plain.nrrd"), saved(enhanced, tmp_path / "enhanced.nrrd")


@pytest.fixture(scope="session")
def coarse_patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up patient on a coarse grid (5 mm), as image.nii.gz, image_contrast.nii.gz and the truth per structure."""
    from segrap.training.phantom import Phantom
    from segrap.training.phantom.files import write_nifti_pair

    folder = tmp_path_factory.mktemp("coarse-patient")
    write_nifti_pair(Phantom(3).render(spacing_mm=(5.0, 5.0, 5.0)), folder, 3)
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An nnU-Net v2 model folder for a CT pair, too small to know anything, fast to run; marked research."""
    from nnunet_folders import write_model_folder

    facts = {"name": "Tiny", "version": "0.1", "intended_use": "research", "channels": ["non_contrast", "contrast"]}
    return write_model_folder(tmp_path_factory.mktemp("models") / "Tiny", facts=facts, spacing=[5.0, 5.0, 5.0])


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `segrap demo` leaves behind: run once, looked at by many tests."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    done = run_segrap("demo", "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def desktop() -> Iterator[Desktop]:
    """The desktop host with the module open; see `desktop`."""
    from desktop import Desktop

    desktop = Desktop()
    desktop.open("SegRapSlicer")
    yield desktop
    desktop.close("SegRapSlicer")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's library: one model for a pair, one for a single CT, one that takes minutes."""
    from nnunet_folders import write_model_folder

    library = tmp_path_factory.mktemp("models")
    facts = {"version": "0.1", "licence": "CC0-1.0", "intended_use": "research"}
    pair = {"channels": ["non_contrast", "contrast"]}
    write_model_folder(library / "Pair", facts=facts | pair, spacing=[5.0, 5.0, 5.0])
    one = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False], "spacing": [5.0, 5.0, 5.0]}
    write_model_folder(library / "Single", facts=facts, channels=("CT",), **one)
    write_model_folder(library / "Slow", facts=facts | pair, spacing=[0.7, 0.7, 0.7])
    before = os.environ["SEGRAP_MODELS"]
    os.environ["SEGRAP_MODELS"] = str(library)
    yield library
    os.environ["SEGRAP_MODELS"] = before


@pytest.fixture(scope="session")
def case() -> PhantomCase:
    """A made-up patient on a coarse grid (5 mm), in memory."""
    from segrap.training.phantom import Phantom

    return Phantom(3).render(spacing_mm=(5.0, 5.0, 5.0))


@pytest.fixture
def panel(models: Path, desktop: Desktop) -> Iterator[Panel]:
    """What a person does with the panel, with `models` to choose from; see `panel.Panel`."""
    from panel import Panel

    yield Panel(desktop)
    desktop.tidy()


@pytest.fixture(scope="session")
def spoilt_patient(tmp_path_factory: pytest.TempPathFactory) -> tuple[CTSeries, Contours]:
    """See `reviewing.spoilt_patient`."""
    from reviewing import spoilt_patient

    return spoilt_patient(tmp_path_factory.mktemp("dicom"))


@pytest.fixture
def review(desktop: Desktop, spoilt_patient: tuple[CTSeries, Contours]) -> Iterator[Review]:
    """The spoilt patient's scene after contouring, and what a person does in it."""
    from reviewing import Review

    yield Review(desktop, *spoilt_patient)
    desktop.tidy()


@pytest.fixture(scope="session")
def clean_download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `dataset_cases.write_download`; to be looked at only."""
    from dataset_cases import write_download

    return write_download(tmp_path_factory.mktemp("download"))


@pytest.fixture
def download(clean_download: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(clean_download, tmp_path / "download"))
