"""The benchmark's data: a small download made of made-up patients, each trap planted once, and what becomes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from conftest import run_segrap
from test_engine_against_nnunetv2 import PEER_PYTHON

from segrap import anatomy
from segrap.dataset.check import Report, check_download
from segrap.dataset.convert import convert, dataset_json, folds
from segrap.dataset.patients import MasksOnDisk, find_patients
from segrap.dataset.statistics import measure, read_expected, write_statistics
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid
from segrap.image import Image, read_image, write_image
from segrap.models.labels import read_labels
from segrap.training.phantom import Phantom

SPACING = (6.0, 6.0, 6.0)


@pytest.fixture(scope="module")
def clean_download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training patients with all files, in the layout of the challenge's archives, and one for validation."""
    root = tmp_path_factory.mktemp("download")
    for number in (0, 1):
        case = Phantom(10 + number).render(spacing_mm=SPACING)
        name = f"segrap_{number:04d}"
        folder = root / "SegRap2023_Training_Set_120cases" / name
        folder.mkdir(parents=True)
        write_image(case.non_contrast, folder / "image.nii.gz")
        write_image(case.contrast, folder / "image_contrast.nii.gz")
        labels = case.subclasses.array
        for structure, mask in anatomy.masks_from_subclasses(labels).items():
            write_image(Image(mask.astype(np.uint8), case.subclasses.geometry), folder / f"{structure}.nii.gz")
        one_hot = root / "SegRap2023_Training_Set_120cases_OneHot_Labels"
        for task, volume in (("Task001", np.where(labels > 54, 0, labels)), ("Task002", np.maximum(labels, 54) - 54)):
            (one_hot / task).mkdir(parents=True, exist_ok=True)
            write_image(Image(volume.astype(np.uint8), case.subclasses.geometry), one_hot / task / f"{name}.nii.gz")
    case = Phantom(12).render(spacing_mm=SPACING)
    for folder, image in (("head-neck-ct", case.non_contrast), ("head-neck-contrast-enhanced-ct", case.contrast)):
        place = root / "SegRap2023_Validation_Set_20cases" / folder
        place.mkdir(parents=True)
        write_image(image, place / "segrap_0120.mha")
    return root


@pytest.fixture
def download(clean_download: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(clean_download, tmp_path / "download"))


def patient_folder(download: Path) -> Path:
    return download / "SegRap2023_Training_Set_120cases" / "segrap_0000"


def change(path: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    image = read_image(path)
    write_image(Image(how(image.array), image.geometry), path)


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


def plant_missing(download: Path) -> None:
    (patient_folder(download) / "Lens_L.nii.gz").unlink()


def plant_update(download: Path) -> None:
    """Corrected organs, of which one is larger than before."""
    new = download / "SegRap2023_Training_Set_120cases_Update_Labels" / "segrap_0000"
    new.mkdir(parents=True)
    for organ in anatomy.ORGANS:
        shutil.copyfile(patient_folder(download) / f"{organ.name}.nii.gz", new / f"{organ.name}.nii.gz")
    change(new / "Parotid_L.nii.gz", lambda a: np.maximum(a, np.roll(a, 1, axis=1)))


def plant_crop(download: Path) -> None:
    folder = download / "SegRap2023_Training_Set_120cases" / "segrap_0001"
    for path in folder.iterdir():
        image = read_image(path)
        write_image(Image(np.ascontiguousarray(image.array[:, :, 4:-5]), image.geometry), path)
    for path in download.glob("*OneHot*/*/segrap_0001.nii.gz"):
        path.unlink()


def plant_axes(download: Path) -> None:
    """The whole first patient stored as RAS, every voxel where it was."""
    for path in (*patient_folder(download).glob("*.nii.gz"), *download.glob("*OneHot*/*/segrap_0000.nii.gz")):
        volume = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.DICOMOrient(volume, "RAS"), str(path))


@pytest.mark.parametrize(
    ("plant", "patient", "words"),
    [
        (plant_axes, "segrap_0000", "stored as RAS, not LPS"),
        (plant_255, "segrap_0000", "hold 0/255 instead of 0/1: GTVp"),
        (plant_type, "segrap_0000", "stored as float64: Brain"),
        (plant_duplicate, "segrap_0000", "Brain (1).nii.gz is named after no structure"),
        (plant_missing, "segrap_0000", "1 structures have no file: Lens_L"),
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


def ruin_grid(download: Path) -> None:
    path = patient_folder(download) / "Brain.nii.gz"
    image = read_image(path)
    moved = Geometry(image.geometry.spacing_mm, tuple(np.array(image.geometry.origin_mm) + 6), image.geometry.direction)
    write_image(Image(image.array, moved), path)


def ruin_file(download: Path) -> None:
    path = patient_folder(download) / "Brain.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])


def ruin_values(download: Path) -> None:
    (path,) = download.glob("*OneHot*/Task001/segrap_0000.nii.gz")
    change(path, lambda a: np.where(a == 54, 99, a).astype(np.uint8))


def ruin_twice(download: Path) -> None:
    """A later challenge's patient of the same number, unpacked into the same folder."""
    shutil.copytree(patient_folder(download), download / "SegRap2025_Validation" / "segrap_0000")


@pytest.mark.parametrize(
    ("ruin", "words"),
    [
        (ruin_twice, "Two files for one thing"),
        (ruin_contrast, "no contrast-enhanced image"),
        (ruin_same, "same scan"),
        (ruin_grid, "Brain.nii.gz does not lie on the grid"),
        (ruin_file, "Brain.nii.gz"),
        (ruin_values, "only whole numbers 0 to 54"),
    ],
)
def test_fault_is_found_and_named(download: Path, ruin: Callable[[Path], None], words: str) -> None:
    ruin(download)
    report = check_download(download)
    assert words in messages(report, "fault")
    assert not report.usable


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


def test_joint_conversion_keeps_every_voxel(clean_download: Path, tmp_path: Path) -> None:
    made = convert(clean_download, tmp_path, "joint")
    assert (made.training, made.test) == (2, 1)
    truth = Phantom(10).render(spacing_mm=SPACING).subclasses.array
    assert np.array_equal(read_image(made.folder / "labelsTr" / "segrap_0000.nii.gz").array, truth)
    contrast = read_image(made.folder / "imagesTr" / "segrap_0000_0001.nii.gz")
    assert np.array_equal(contrast.array, Phantom(10).render(spacing_mm=SPACING).contrast.array)
    assert (made.folder / "imagesTs" / "segrap_0120_0000.nii.gz").exists()
    splits = json.loads((made.folder / "splits_final.json").read_text())
    assert len(splits) == 5
    assert {name for fold in splits for name in fold["val"]} == {"segrap_0000", "segrap_0001"}


def test_all_arrays_are_converted_to_the_same_axes(download: Path, clean_download: Path, tmp_path: Path) -> None:
    plant_axes(download)
    turned, straight = (convert(one, tmp_path / one.parent.name, "joint").folder for one in (download, clean_download))
    for part in ("imagesTr/segrap_0000_0000", "imagesTr/segrap_0000_0001", "labelsTr/segrap_0000"):
        one, other = (read_image(folder / f"{part}.nii.gz") for folder in (turned, straight))
        assert np.array_equal(one.array, other.array)
        assert same_grid(one.geometry, one.shape, other.geometry, other.shape)


def test_that_a_mask_is_there_is_known_without_reading_it() -> None:
    like = Image(np.zeros((2, 2, 2), dtype=np.int16), Geometry((1.0, 1.0, 1.0)))
    masks = MasksOnDisk({"Brain": Path("not", "there.nii.gz")}, like)
    assert "Brain" in masks and "Chiasm" not in masks
    with pytest.raises(InputError):
        masks["Brain"]


def test_corrected_organs_come_before_the_first_ones(download: Path, tmp_path: Path) -> None:
    plant_update(download)
    made = convert(download, tmp_path, "oar")
    labels = read_image(made.folder / "labelsTr" / "segrap_0000.nii.gz").array
    updated = read_image(next(download.glob("*Update*/segrap_0000/Parotid_L.nii.gz"))).array > 0
    (own,) = anatomy.structure("Parotid_L").subclasses
    first = read_image(patient_folder(download) / "Parotid_L.nii.gz").array > 0
    assert np.count_nonzero((labels == own) & ~first) > 0
    assert not ((labels == own) & ~updated).any()


def test_volumes_alone_suffice(download: Path, tmp_path: Path) -> None:
    """The one-hot archive and the images, without a file per structure."""
    for path in download.glob("SegRap2023_Training_Set_120cases/*/*.nii.gz"):
        if not path.name.startswith("image"):
            path.unlink()
    made = convert(download, tmp_path, "oar")
    truth = Phantom(10).render(spacing_mm=SPACING).subclasses.array
    labels = read_image(made.folder / "labelsTr" / "segrap_0000.nii.gz").array
    assert np.array_equal(labels, np.where(truth > 54, 0, truth))
    targets = convert(download, tmp_path, "gtv")
    labels = read_image(targets.folder / "labelsTr" / "segrap_0000.nii.gz").array
    assert np.array_equal(labels, np.maximum(truth, 54) - 54)


def test_regions_paint_what_the_sub_classes_say() -> None:
    """A network whose regions are all right must give back the very sub-classes that it learned from."""
    content = dataset_json("oar-regions", 2)
    labels = read_labels(content, {})
    for number in range(1, 55):
        painted = 0
        regions = [value for name, value in content["labels"].items() if name != "background"]
        for values, paints in zip(regions, content["regions_class_order"], strict=True):
            if number in values:
                painted = paints
        assert painted == number, anatomy.SUBCLASSES[number]
    assert labels.covered == tuple(organ.name for organ in anatomy.ORGANS)


def test_interrupted_conversion_goes_on_and_leaves_nothing_half(download: Path, tmp_path: Path) -> None:
    whole = patient_folder(download) / "Brain.nii.gz"
    content = whole.read_bytes()
    second = download / "SegRap2023_Training_Set_120cases" / "segrap_0001" / "Brain.nii.gz"
    second.write_bytes(content[:1000])
    with pytest.raises(InputError):
        convert(download, tmp_path, "oar")
    folder = tmp_path / "Dataset231_SegRapOAR"
    assert [path.name for path in (folder / "labelsTr").iterdir()] == ["segrap_0000.nii.gz"]
    assert not (folder / "dataset.json").exists()
    written = (folder / "labelsTr" / "segrap_0000.nii.gz").stat().st_mtime_ns
    shutil.copyfile(whole, second)
    made = convert(download, tmp_path, "oar")
    assert made.training == 2
    assert (folder / "labelsTr" / "segrap_0000.nii.gz").stat().st_mtime_ns == written
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_folds_are_the_same_everywhere() -> None:
    names = [f"segrap_{number:04d}" for number in range(120)]
    parts = folds(names)
    assert [len(part["val"]) for part in parts] == [24] * 5
    assert sorted(name for part in parts for name in part["val"]) == names
    assert parts == folds(names)
    assert all(not set(part["train"]) & set(part["val"]) for part in parts)


def test_nnunet_finds_the_converted_data_sound(clean_download: Path, tmp_path: Path) -> None:
    if not PEER_PYTHON.exists():
        pytest.skip(f"nnunetv2 is not installed: run {sys.executable} Testing/make_peers.py")
    for task in ("joint", "oar-regions"):
        made = convert(clean_download, tmp_path, task)
        program = (
            "import sys\n"
            "from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity\n"
            "if __name__ == '__main__':\n"
            "    verify_dataset_integrity(sys.argv[1], num_processes=1)\n"
        )
        (tmp_path / "verify.py").write_text(program)
        environment = os.environ | {"nnUNet_raw": str(tmp_path), "nnUNet_preprocessed": str(tmp_path / "p")}
        done = subprocess.run(
            [PEER_PYTHON, tmp_path / "verify.py", made.folder],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "verify_dataset_integrity Done" in done.stdout


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
