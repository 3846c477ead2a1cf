"""What a site expects of its own patients: measured from its cases, and used by the checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_segrap

from segrap import anatomy
from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.ct.dicom_series import read_series_folder
from segrap.dataset.statistics import measure, read_expected
from segrap.errors import InputError
from segrap.image import Image, write_image
from segrap.quality import Expected
from segrap.rtstruct.write import write_rtstruct
from segrap.training.phantom import Phantom, PhantomCase
from segrap.training.phantom.files import truth, write_dicom_pair, write_nifti_pair
from segrap.writing import replacing

SEEDS = (3, 4)
VOXEL_CC = 0.512


@pytest.fixture(scope="module")
def patients() -> dict[int, PhantomCase]:
    """Made-up patients on a coarse grid (8 mm), by their seeds."""
    return {seed: Phantom(seed).render(spacing_mm=(8.0, 8.0, 8.0)) for seed in SEEDS}


def hu_of(patients: dict[int, PhantomCase], structure: str) -> list[np.ndarray]:
    return [case.non_contrast.array[truth(case, seed).mask(structure)] for seed, case in patients.items()]


def write_labels(case: PhantomCase, path: Path, highest: int = 255, less: int = 0) -> None:
    """The ids above `less` and up to `highest`, less by that."""
    ids = case.subclasses.array.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(Image(np.where((ids > less) & (ids <= highest), ids - less, 0).astype(np.uint8),
                      case.subclasses.geometry), path)  # fmt: skip


# --- the layouts that people have ---


def segmentation_and_ct(case: PhantomCase, seed: int, root: Path) -> None:
    write_seg_nrrd(truth(case, seed), root / f"p{seed}.seg.nrrd")
    write_image(case.non_contrast, root / f"p{seed}.nii.gz")


def segmentation_and_channels(case: PhantomCase, seed: int, root: Path) -> None:
    write_seg_nrrd(truth(case, seed), root / f"p{seed}.seg.nrrd")
    write_image(case.non_contrast, root / f"p{seed}_0000.nii.gz")
    write_image(case.contrast, root / f"p{seed}_0001.nii.gz")


def labels_and_channels(case: PhantomCase, seed: int, root: Path) -> None:
    write_labels(case, root / f"p{seed}.nii.gz")
    write_image(case.non_contrast, root / f"p{seed}_0000.nii.gz")
    write_image(case.contrast, root / f"p{seed}_0001.nii.gz")


def a_folder_per_patient(case: PhantomCase, seed: int, root: Path) -> None:
    place = root / f"p{seed}"
    place.mkdir()
    write_image(case.non_contrast, place / "image.nii.gz")
    write_seg_nrrd(truth(case, seed), place / "by hand.seg.nrrd")


def a_folder_per_series(case: PhantomCase, seed: int, root: Path) -> None:
    place = root / f"p{seed}"
    plain, _ = write_dicom_pair(case, place, seed)
    (series,) = read_series_folder(plain)
    (place / "contours").mkdir()
    write_rtstruct(truth(case, seed), series, place / "contours" / "1-1.dcm")


def a_download_of_masks(case: PhantomCase, seed: int, root: Path) -> None:
    write_nifti_pair(case, root / "Training" / f"segrap_{seed:04d}", seed)


def a_download_of_volumes(case: PhantomCase, seed: int, root: Path) -> None:
    name = f"segrap_{seed:04d}"
    (root / "Training" / name).mkdir(parents=True)
    write_image(case.non_contrast, root / "Training" / name / "image.nii.gz")
    write_image(case.contrast, root / "Training" / name / "image_contrast.nii.gz")
    write_labels(case, root / "OneHot" / "Task001" / f"{name}.nii.gz", highest=54)
    write_labels(case, root / "OneHot" / "Task002" / f"{name}.nii.gz", less=54)


def a_mixed_download(case: PhantomCase, seed: int, root: Path) -> None:
    """The first patient has masks too, but for two structures."""
    a_download_of_volumes(case, seed, root)
    if seed == SEEDS[0]:
        a_download_of_masks(case, seed, root)
        for name in ("Larynx", "GTVp"):
            (root / "Training" / f"segrap_{seed:04d}" / f"{name}.nii.gz").unlink()


@pytest.mark.parametrize(
    "layout",
    [
        segmentation_and_ct,
        segmentation_and_channels,
        labels_and_channels,
        a_folder_per_patient,
        a_folder_per_series,
        a_download_of_masks,
        a_download_of_volumes,
        a_mixed_download,
    ],
)
def test_the_same_patients_measure_alike_in_every_layout(
    tmp_path: Path, patients: dict[int, PhantomCase], layout: Callable[[PhantomCase, int, Path], None]
) -> None:
    for seed, case in patients.items():
        layout(case, seed, tmp_path)
    found = measure(tmp_path)
    assert (found["patients"], found["left_out"]) == (2, [])
    for name in ("Larynx", "Brain", "GTVp"):
        hu = hu_of(patients, name)
        measured = found["structures"][name]
        volumes, medians = ([function(one) for one in hu] for function in (lambda one: one.size * VOXEL_CC, np.median))
        assert (measured["volume_cc"]["min"], measured["volume_cc"]["max"]) == pytest.approx(
            (min(volumes), max(volumes)), abs=1e-3
        )
        assert (measured["median_hu"]["min"], measured["median_hu"]["max"]) == (min(medians), max(medians))
        assert measured["non_contrast_hu"]["mean"] == pytest.approx(np.concatenate(hu).mean(), abs=0.01)


def test_a_dataset_of_nnunet_is_measured_with_its_images(tmp_path: Path, patients: dict[int, PhantomCase]) -> None:
    for seed, case in patients.items():
        write_labels(case, tmp_path / "labelsTr" / f"segrap_{seed:04d}.nii.gz")
        (tmp_path / "imagesTr").mkdir(exist_ok=True)
        write_image(case.non_contrast, tmp_path / "imagesTr" / f"segrap_{seed:04d}_0000.nii.gz")
    file = tmp_path / "site.json"
    command = ("dataset", "statistics", tmp_path / "labelsTr", "--output", file)
    done = run_segrap(*command)
    assert (done.returncode, file.exists()) == (3, False)
    assert "has no CT for segrap_0003, segrap_0004." in done.stderr and "--ct" in done.stderr
    done = run_segrap(*command, "--ct", tmp_path / "imagesTr", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["structures"]["Larynx"]["patients"] == 2


def test_patients_of_a_download_who_cannot_be_measured_are_named(
    tmp_path: Path, patients: dict[int, PhantomCase]
) -> None:
    (case, other) = patients.values()
    a_download_of_volumes(case, 0, tmp_path / "data")
    place = tmp_path / "data" / "Validation" / "head-neck-ct"
    place.mkdir(parents=True)
    write_image(other.non_contrast, place / "segrap_0120.mha")
    done = run_segrap("dataset", "statistics", tmp_path / "data", "--output", tmp_path / "site.json")
    assert done.returncode == 0, done.stderr
    assert "Left out, for they have no contours or no non-contrast CT: segrap_0120." in done.stderr
    assert json.loads((tmp_path / "site.json").read_text("utf-8"))["left_out"] == ["segrap_0120"]


def test_a_clinics_own_cases_are_measured_under_its_own_names(tmp_path: Path, patients: dict[int, PhantomCase]) -> None:
    """Patients as a planning system keeps them: both CTs, and an RTSTRUCT on the one without contrast."""
    clinic, file, names = tmp_path / "clinic", tmp_path / "volumes.json", tmp_path / "names.json"
    for seed, case in patients.items():
        place = clinic / f"patient {seed}"
        plain, _ = write_dicom_pair(case, place, seed)
        (series,) = read_series_folder(plain)
        write_rtstruct(truth(case, seed), series, place / "RS.dcm", ["Larynx"], names={"Larynx": "LX"})
    names.write_text('{"Larynx": "LX"}', encoding="utf-8")
    done = run_segrap("dataset", "statistics", clinic, "--names", names, "--output", file)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["patients"] == found["structures"]["Larynx"]["patients"] == 2
    volumes, medians = zip(*((one.size * VOXEL_CC, np.median(one)) for one in hu_of(patients, "Larynx")), strict=True)
    ((name, expected),) = read_expected(file).items()
    assert name == "Larynx"
    assert expected.volume_cc == pytest.approx((min(volumes), max(volumes)))
    assert expected.median_hu == (min(medians), max(medians))


# --- what cannot be measured ---


def test_a_folder_without_contours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no contours"):
        measure(tmp_path)


def test_a_download_without_images_is_refused(tmp_path: Path, patients: dict[int, PhantomCase]) -> None:
    write_labels(patients[3], tmp_path / "OneHot" / "Task001" / "segrap_0000.nii.gz", highest=54)
    with pytest.raises(InputError, match="has both a non-contrast image and contours"):
        measure(tmp_path)


def test_what_is_no_ct_is_refused(tmp_path: Path, patients: dict[int, PhantomCase]) -> None:
    write_labels(patients[3], tmp_path / "labels" / "p3.nii.gz")
    write_labels(patients[3], tmp_path / "images" / "p3.nii.gz")
    with pytest.raises(InputError, match=r"Case p3: .*p3\.nii\.gz is no CT in Hounsfield units"):
        measure(tmp_path / "labels", ct=tmp_path / "images")


def test_a_volume_of_targets_that_holds_lymph_node_levels_is_refused(
    tmp_path: Path, patients: dict[int, PhantomCase]
) -> None:
    a_download_of_volumes(patients[3], 0, tmp_path)
    write_labels(patients[3], tmp_path / "OneHot" / "Task002" / "segrap_0000.nii.gz", highest=6)
    with pytest.raises(InputError, match=r"Task002/segrap_0000\.nii\.gz holds values 0 to 6"):
        measure(tmp_path)


# --- what the checks make of it ---


def a_file(place: Path, **structures: Any) -> Path:
    path = place / "site.json"
    path.write_text(json.dumps({"patients": 200, "structures": structures}), encoding="utf-8")
    return path


def spread(low: float, high: float, **ends: float) -> dict[str, float]:
    return {"p0.5": low, "p5": low + 1, "p50": low + 2, "p95": high - 1, "p99.5": high, "mean": low + 2, **ends}


def test_one_bad_contour_among_many_patients_sets_no_limit(tmp_path: Path) -> None:
    brain = {"volume_cc": spread(1000, 1500, min=3, max=9000), "median_hu": spread(20, 40, min=-900, max=800)}
    file = a_file(tmp_path, Brain={"patients": 200, **brain}, Larynx={"patients": 29, **brain})
    assert read_expected(file) == {
        "Brain": Expected((1000, 1500), (20, 40)),
        "Larynx": Expected((3, 9000), (-900, 800)),
    }


def test_a_file_of_volumes_alone_is_read(tmp_path: Path) -> None:
    old = {"patients": 2, "volume_cc": {"min": 900, "max": 1400}, "non_contrast_hu": {"p0.5": -10, "p99.5": 80}}
    assert read_expected(a_file(tmp_path, Brain=old)) == {"Brain": Expected((900, 1400), None)}


@pytest.mark.parametrize(
    "one",
    [
        {},
        [],
        {"volume_cc": {"min": 5}},
        {"volume_cc": {"min": 5, "max": 4}},
        {"volume_cc": {"min": float("nan"), "max": 4}},
        {"patients": 30, "volume_cc": {"min": 1, "max": 4}},
        {"volume_cc": {"min": 1, "max": 4}, "median_hu": {}},
    ],
)
def test_a_file_that_says_no_limits_is_refused(tmp_path: Path, one: Any) -> None:
    with pytest.raises(InputError, match=r"site\.json is no file of volumes .* segrap dataset statistics"):
        read_expected(a_file(tmp_path, Brain=one))


def test_what_a_site_expects_takes_the_place_of_the_published(
    coarse_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    other = {"volume_cc": {"min": 1e6, "max": 2e6}, "median_hu": {"min": 2500, "max": 2600}}
    file = tmp_path / "volumes.json"
    with replacing(file) as temporary:
        temporary.write_text(json.dumps({"structures": dict.fromkeys(anatomy.NAMES, other)}))
    scans = (coarse_patient / "image.nii.gz", coarse_patient / "image_contrast.nii.gz")
    command = ("contour", *scans, "--model", small_model, "--output", tmp_path / "out", "--volumes")
    done = run_segrap(*command, file)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "among the patients whose volumes were given" in report
    assert "among the patients whose densities were given (2500 to 2600 HU)" in report
    file.write_text("{}")
    assert run_segrap(*command, file, "--overwrite").returncode == 3
