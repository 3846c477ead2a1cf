"""The benchmark's data: a small download made of made-up patients, each trap planted once, and what is said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap
from dataset_cases import SPACING, change, patient_folder, plant_axes, plant_update, ruin_twice, volume
from synthetic_ct import head_like

from segrap import anatomy
from segrap.dataset.check import Report, check_download
from segrap.dataset.convert import convert
from segrap.dataset.patients import MasksOnDisk, find_patients
from segrap.dataset.statistics import measure, read_expected, write_statistics
from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.image import Image, read_image, write_image
from segrap.training.phantom import Phantom


def messages(report: Report, severity: str, patient: str = "segrap_0000") -> str:
    return " ".join(one.message for one in report.remarks if (one.severity, one.patient) == (severity, patient))


def test_all_layouts_are_found(clean_download: Path) -> None:
    patients = find_patients(clean_download)
    assert list(patients) == ["segrap_0000", "segrap_0001", "segrap_0120"]
    first, validation = patients["segrap_0000"], patients["segrap_0120"]
    assert set(first.masks) == set(anatomy.NAMES)
    assert first.subclasses and first.targets and first.non_contrast and first.contrast
    assert validation.non_contrast and validation.contrast and not validation.best_masks


def test_clean_download_has_no_fault(clean_download: Path) -> None:
    report = check_download(clean_download)
    assert report.usable
    assert (report.patients, report.with_pair, report.with_all_masks) == (3, 3, 2)
    assert "Images only" in messages(report, "note", "segrap_0120")
    # A tumour takes its voxels from the organs in these volumes, but not in the masks: nothing else differs.
    assert not [one for one in report.remarks if "sub-classes" in one.message]
    assert any("118 of the 120 training patients are not here" in one.message for one in report.remarks)


def plant_255(download: Path) -> None:
    change(patient_folder(download) / "GTVp.nii.gz", lambda a: (a * 255).astype(np.uint8))


def plant_type(download: Path) -> None:
    change(patient_folder(download) / "Brain.nii.gz", lambda a: a.astype(np.float64))


def plant_duplicate(download: Path) -> None:
    shutil.copyfile(patient_folder(download) / "Brain.nii.gz", patient_folder(download) / "Brain (1).nii.gz")


def plant_second_volume(download: Path) -> None:
    path = volume(download, "Task001")
    shutil.copyfile(path, path.with_name("segrap_0000 (1).nii.gz"))


def plant_second_folder(download: Path) -> None:
    shutil.copytree(patient_folder(download), patient_folder(download).with_name("segrap_0000 (1)"))


def plant_no_file_but_a_volume(download: Path) -> None:
    (patient_folder(download) / "Lens_L.nii.gz").unlink()


def plant_crop(download: Path) -> None:
    folder = download / "SegRap2023_Training_Set_120cases" / "segrap_0001"
    for path in folder.iterdir():
        image = read_image(path)
        write_image(Image(np.ascontiguousarray(image.array[:, :, 4:-5]), image.geometry), path)
    for path in download.glob("*OneHot*/*/segrap_0001.nii.gz"):
        path.unlink()


@pytest.mark.parametrize(
    ("plant", "patient", "words"),
    [
        (plant_axes, "segrap_0000", "stored as RAS, not LPS"),
        (plant_255, "segrap_0000", "hold 0/255 instead of 0/1: GTVp"),
        (plant_type, "segrap_0000", "stored as float64: Brain"),
        (plant_duplicate, "segrap_0000", "Brain (1).nii.gz is named after no structure"),
        (plant_second_volume, "segrap_0000", "segrap_0000 (1).nii.gz is named after no structure or patient"),
        (plant_second_folder, "segrap_0000", "segrap_0000 (1) is named after no structure or patient"),
        (plant_no_file_but_a_volume, "segrap_0000", "taken from the volume of sub-classes: Lens_L."),
        (plant_update, "segrap_0000", "not what the masks as corrected say: Parotid_L"),
        (plant_crop, "segrap_0001", "cropped to"),
    ],
)
def test_trap_is_found_and_does_not_keep_the_data_from_use(
    download: Path, plant: Callable[[Path], None], patient: str, words: str
) -> None:
    plant(download)
    before = {path: path.stat().st_mtime_ns for path in download.rglob("*")}
    report = check_download(download)
    assert words in messages(report, "trap", patient)
    assert report.usable
    assert {path: path.stat().st_mtime_ns for path in download.rglob("*")} == before


def ruin_contrast(download: Path) -> None:
    (patient_folder(download) / "image_contrast.nii.gz").unlink()


def ruin_same(download: Path) -> None:
    shutil.copyfile(patient_folder(download) / "image.nii.gz", patient_folder(download) / "image_contrast.nii.gz")


def ruin_order(download: Path) -> None:
    """Plain scan and contrast scan under each other's names."""
    plain, contrast = (patient_folder(download) / f"{name}.nii.gz" for name in ("image", "image_contrast"))
    plain.rename(plain.with_name("aside.nii.gz"))
    contrast.rename(plain)
    plain.with_name("aside.nii.gz").rename(contrast)


def ruin_other_patient(download: Path) -> None:
    path = patient_folder(download) / "image_contrast.nii.gz"
    image = read_image(path)
    other = head_like(image.shape, image.geometry.spacing_mm, enhancement_hu=130)
    write_image(Image(other.array, image.geometry), path)


def ruin_units(download: Path) -> None:
    change(patient_folder(download) / "image_contrast.nii.gz", lambda a: a + 1024)


def ruin_organ(download: Path) -> None:
    (patient_folder(download) / "Chiasm.nii.gz").unlink()
    volume(download, "Task001").unlink()


def ruin_tumour(download: Path) -> None:
    (patient_folder(download) / "GTVnd.nii.gz").unlink()
    volume(download, "Task002").unlink()


def exchange_eyes(folder: Path) -> None:
    left, right = (read_image(folder / f"Eye_{side}.nii.gz") for side in "LR")
    write_image(right, folder / "Eye_L.nii.gz")
    write_image(left, folder / "Eye_R.nii.gz")


def ruin_sides(download: Path) -> None:
    exchange_eyes(patient_folder(download))


def ruin_sides_in_a_volume(download: Path) -> None:
    """The only contours of the organs, with all left and right ones exchanged, as a mirrored array would have them."""
    for organ in anatomy.ORGANS:
        (patient_folder(download) / f"{organ.name}.nii.gz").unlink()
    change(volume(download, "Task001"), lambda a: np.ascontiguousarray(a[:, :, ::-1]))


def ruin_grid(download: Path) -> None:
    path = patient_folder(download) / "Brain.nii.gz"
    image = read_image(path)
    moved = Geometry(image.geometry.spacing_mm, tuple(np.array(image.geometry.origin_mm) + 6), image.geometry.direction)
    write_image(Image(image.array, moved), path)


def ruin_file(download: Path) -> None:
    path = patient_folder(download) / "Brain.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])


def ruin_values(download: Path) -> None:
    change(volume(download, "Task001"), lambda a: np.where(a == 54, 99, a).astype(np.uint8))


@pytest.mark.parametrize(
    ("ruin", "words"),
    [
        (ruin_twice, "Two files for one thing"),
        (ruin_contrast, "no contrast-enhanced image"),
        (ruin_same, "same scan"),
        (ruin_order, "seem to be swapped"),
        (ruin_other_patient, "do not show the same patient"),
        (ruin_units, "The contrast-enhanced image is not a CT in Hounsfield units"),
        (ruin_organ, "No contour of Chiasm: left out of the tasks oar, oar-regions and joint."),
        (ruin_tumour, "No contour of GTVnd: left out of the tasks gtv and joint."),
        (ruin_sides, "to the patient's right of the right one: Eye."),
        (ruin_sides_in_a_volume, "to the patient's right of the right one: TemporalLobe, Hippocampus, Eye"),
        (ruin_grid, "Brain.nii.gz does not lie on the grid"),
        (ruin_file, "Brain.nii.gz"),
        (ruin_values, "only whole numbers 0 to 54"),
    ],
)
def test_fault_is_found_and_named(download: Path, ruin: Callable[[Path], None], words: str) -> None:
    ruin(download)
    shutil.rmtree(download / "SegRap2023_Validation_Set_20cases")  # the one patient takes long enough
    report = check_download(download)
    assert words in messages(report, "fault")
    assert not report.usable


def test_sides_are_those_of_the_contours_that_would_be_used(download: Path) -> None:
    """Exchanged eyes in the first release, right ones among the corrected masks; and the other way."""
    plant_update(download)
    exchange_eyes(patient_folder(download))
    assert check_download(download).usable
    exchange_eyes(next(download.glob("*Update*/segrap_0000")))
    assert "of the right one: Eye." in messages(check_download(download), "fault")


def test_data_for_one_task_is_no_fault(download: Path) -> None:
    for target in anatomy.TARGETS:
        (patient_folder(download) / f"{target.name}.nii.gz").unlink()
    volume(download, "Task002").unlink()
    report = check_download(download)
    assert "No contours of tumours: left out of the tasks gtv and joint." in messages(report, "note")
    assert report.usable


def test_a_duplicate_alone_is_no_patient(download: Path) -> None:
    folder = patient_folder(download)
    folder.rename(folder.with_name("segrap_0007 (1)"))
    report = check_download(download)
    assert "segrap_0007 (1) is named after no structure or patient" in messages(report, "trap", "segrap_0007")
    assert report.patients == 3


def test_two_files_for_one_thing_are_never_chosen_between(download: Path, tmp_path: Path) -> None:
    ruin_twice(download)
    with pytest.raises(InputError, match="segrap_0000 has two files for one thing"):
        convert(download, tmp_path / "raw", "oar")
    with pytest.raises(InputError, match="segrap_0000 has two files for one thing"):
        measure(download)


def test_patients_of_2025_with_one_scan_are_said_and_left_out(download: Path, tmp_path: Path) -> None:
    folder = download / "SegRap2025_Training" / "segrap_nc_0001"
    folder.mkdir(parents=True)
    shutil.copyfile(patient_folder(download) / "image.nii.gz", folder / "image.nii.gz")
    report = check_download(download)
    assert "One scan only" in messages(report, "note", "segrap_nc_0001") and report.usable
    made = convert(download, tmp_path / "raw", "gtv")
    assert made.training == 2 and "segrap_nc_0001" in made.without_contours


def test_names_of_cropped_files_are_those_of_their_patients(download: Path) -> None:
    for folder in ("head-neck-ct", "head-neck-contrast-enhanced-ct"):
        (path,) = download.glob(f"*/{folder}/segrap_0120.mha")
        path.rename(path.with_name("segrap_0120_cropped.mha"))
    assert find_patients(download)["segrap_0120"].contrast is not None


def test_check_at_the_command_line(download: Path) -> None:
    done = run_segrap("dataset", "check", download)
    assert done.returncode == 0, done.stderr
    assert "3 patients: 3 with both images" in done.stdout
    assert "trap  segrap_0000, segrap_0001 and 1 more: The image is cropped" in done.stdout
    ruin_contrast(download)
    done = run_segrap("dataset", "check", download, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["usable"] is False
    done = run_segrap("dataset", "check", download / "SegRap2023_Training_Set_120cases" / "nowhere")
    assert done.returncode == 3


def test_that_a_mask_is_there_is_known_without_reading_it() -> None:
    like = Image(np.zeros((2, 2, 2), dtype=np.int16), Geometry((1.0, 1.0, 1.0)))
    masks = MasksOnDisk({"Brain": Path("not", "there.nii.gz")}, like)
    assert "Brain" in masks and "Chiasm" not in masks
    with pytest.raises(InputError):
        masks["Brain"]


def test_statistics_are_those_of_the_patients_and_the_checks_use_them(clean_download: Path, tmp_path: Path) -> None:
    found = measure(clean_download)
    assert found["patients"] == 2
    brains = [
        np.count_nonzero(np.isin(Phantom(seed).render(spacing_mm=SPACING).subclasses.array, range(1, 10))) * 0.216
        for seed in (10, 11)
    ]
    brain = found["structures"]["Brain"]
    assert brain["volume_cc"]["min"] == pytest.approx(min(brains), abs=0.001)
    assert brain["volume_cc"]["max"] == pytest.approx(max(brains), abs=0.001)
    assert 0 < brain["non_contrast_hu"]["p50"] < 60
    file = tmp_path / "volumes.json"
    write_statistics(found, file)
    assert read_expected(file)["Brain"].volume_cc == (brain["volume_cc"]["min"], brain["volume_cc"]["max"])
