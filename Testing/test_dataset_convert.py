"""`segrap dataset convert`: a download as training data, and what must never be taught from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap
from dataset_cases import SPACING, change, patient_folder, plant_axes, plant_update, volume
from test_engine_against_nnunetv2 import PEER_PYTHON

from segrap import anatomy
from segrap.dataset.convert import convert, dataset_json, folds
from segrap.dataset.patients import find_patients
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import read_image
from segrap.models.labels import read_labels
from segrap.training.phantom import Phantom


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


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.nii.gz").unlink()


ORGANS = tuple(organ.name for organ in anatomy.ORGANS)
TARGETS = tuple(target.name for target in anatomy.TARGETS)


@pytest.mark.parametrize("missing", [TARGETS, ("GTVnd",), (*ORGANS, *TARGETS), ORGANS, ("Chiasm",), ORGANS[1:]])
def test_what_has_no_mask_is_taken_from_the_volumes(download: Path, tmp_path: Path, missing: tuple[str, ...]) -> None:
    """Tumours that are in the volume only, one organ's file that got lost, one that is left of 45: all is there."""
    without(patient_folder(download), *missing)
    truth = Phantom(10).render(spacing_mm=SPACING).subclasses.array
    expected = {"joint": truth, "oar": np.where(truth > 54, 0, truth), "gtv": np.maximum(truth, 54) - 54}
    for task, labels in expected.items():
        made = convert(download, tmp_path, task)
        assert np.array_equal(read_image(made.folder / "labelsTr" / "segrap_0000.nii.gz").array, labels), task
        assert made.unmodelled_voxels == {}


@pytest.mark.parametrize(
    ("missing", "volumes", "left_out_of"),
    [
        (("Chiasm",), ("Task001",), {"oar", "oar-regions", "joint"}),
        (("GTVnd",), ("Task002",), {"gtv", "joint"}),
        (TARGETS, ("Task002",), {"gtv", "joint"}),
    ],
)
def test_a_patient_without_a_contour_is_left_out_rather_than_taught_as_background(
    download: Path, tmp_path: Path, missing: tuple[str, ...], volumes: tuple[str, ...], left_out_of: set[str]
) -> None:
    without(patient_folder(download), *missing)
    for task in volumes:
        volume(download, task).unlink()
    for task in ("oar", "oar-regions", "gtv", "joint"):
        made = convert(download, tmp_path, task)
        left_out = "segrap_0000" in made.without_contours
        assert left_out == (task in left_out_of)
        assert (made.folder / "labelsTr" / "segrap_0000.nii.gz").exists() != left_out
        assert (made.folder / "imagesTr" / "segrap_0000_0000.nii.gz").exists() != left_out
        assert made.training == 2 - left_out
    reason = convert(download, tmp_path, "joint").without_contours["segrap_0000"]
    assert reason == f"no contour of {', '.join(missing)}"


def test_who_is_left_out_and_why_is_said(download: Path, tmp_path: Path) -> None:
    without(patient_folder(download), "GTVnd")
    volume(download, "Task002").unlink()
    done = run_segrap("dataset", "convert", download, "--output", tmp_path / "raw", "--task", "gtv")
    assert done.returncode == 0, done.stderr
    assert "Not for training, no contour of GTVnd: segrap_0000." in done.stderr
    assert "Not for training, no contours for this task: segrap_0120." in done.stderr
    assert "1 patients for training, 1 for testing." in done.stderr


def test_where_nobody_has_contours_nothing_pretends_to_be_a_data_set(download: Path, tmp_path: Path) -> None:
    shutil.rmtree(download / "SegRap2023_Validation_Set_20cases")
    for folder in download.glob("SegRap2023_Training_Set_120cases/*"):
        without(folder, *TARGETS)
    shutil.rmtree(volume(download, "Task002").parent)
    done = run_segrap("dataset", "convert", download, "--output", tmp_path / "raw", "--task", "gtv")
    assert done.returncode == 3
    assert "no contours for this task" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "raw").rglob("dataset.json"))


def test_all_arrays_are_converted_to_the_same_axes(download: Path, clean_download: Path, tmp_path: Path) -> None:
    plant_axes(download)
    turned, straight = (convert(one, tmp_path / one.parent.name, "joint").folder for one in (download, clean_download))
    for part in ("imagesTr/segrap_0000_0000", "imagesTr/segrap_0000_0001", "labelsTr/segrap_0000"):
        one, other = (read_image(folder / f"{part}.nii.gz") for folder in (turned, straight))
        assert np.array_equal(one.array, other.array)
        assert same_grid(one.geometry, one.shape, other.geometry, other.shape)


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
    for folder in download.glob("SegRap2023_Training_Set_120cases/*"):
        without(folder, *anatomy.NAMES)
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


def written(folder: Path) -> dict[str, int]:
    """When each image and label of a conversion was written, ns."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*T[rs]/*")}


def test_whose_files_have_changed_is_converted_again_and_nobody_else(download: Path, tmp_path: Path) -> None:
    """The corrected masks of the challenge came months after the first ones."""
    made = convert(download, tmp_path, "oar")
    before = written(made.folder)
    assert convert(download, tmp_path, "oar").redone == 0
    assert written(made.folder) == before
    plant_update(download)
    done = run_segrap("dataset", "convert", download, "--output", tmp_path, "--task", "oar")
    assert done.returncode == 0 and "1 patients were converted again" in done.stderr, done.stderr
    changed = {name for name, when in written(made.folder).items() if when != before[name]}
    assert changed == {"segrap_0000.nii.gz", "segrap_0000_0000.nii.gz", "segrap_0000_0001.nii.gz"}
    updated = read_image(next(download.glob("*Update*/segrap_0000/Parotid_L.nii.gz"))).array > 0
    labels = read_image(made.folder / "labelsTr" / "segrap_0000.nii.gz").array
    assert np.array_equal(np.isin(labels, anatomy.structure("Parotid_L").subclasses), updated & (labels != 0))


def test_a_file_that_was_replaced_by_one_of_the_same_name_is_seen(download: Path, tmp_path: Path) -> None:
    made = convert(download, tmp_path, "gtv")
    change(patient_folder(download) / "GTVp.nii.gz", lambda a: np.roll(a, 1, axis=2))
    assert convert(download, tmp_path, "gtv").redone == 1
    labels = read_image(made.folder / "labelsTr" / "segrap_0000.nii.gz").array
    assert np.array_equal(labels == 1, read_image(patient_folder(download) / "GTVp.nii.gz").array > 0)
    assert convert(download, tmp_path, "joint").redone == 0


def test_who_has_lost_a_contour_is_taken_out_again(download: Path, tmp_path: Path) -> None:
    assert convert(download, tmp_path, "gtv").training == 2
    without(patient_folder(download), *TARGETS)
    volume(download, "Task002").unlink()
    made = convert(download, tmp_path, "gtv")
    assert made.training == 1 and "segrap_0000" in made.without_contours
    assert not [path for path in made.folder.glob("*Tr/*") if "segrap_0000" in path.name]


def test_a_conversion_by_an_older_version_is_made_anew(download: Path, tmp_path: Path) -> None:
    """Its record does not say what it was made of."""
    made = convert(download, tmp_path, "oar")
    (made.folder / "conversion.json").write_text('{"task": "oar", "unmodelled_voxels": {}}')
    assert convert(download, tmp_path, "oar").redone == 2


def test_while_a_change_is_taken_in_the_data_set_does_not_pass_for_whole(download: Path, tmp_path: Path) -> None:
    made = convert(download, tmp_path, "oar")
    change(patient_folder(download) / "Parotid_L.nii.gz", lambda a: np.roll(a, 1, axis=1))
    second = download / "SegRap2023_Training_Set_120cases" / "segrap_0001" / "Brain.nii.gz"
    content = second.read_bytes()
    second.write_bytes(content[:1000])
    with pytest.raises(InputError):
        convert(download, tmp_path, "oar")
    assert not (made.folder / "dataset.json").exists()
    second.write_bytes(content)
    assert convert(download, tmp_path, "oar").redone == 1  # the first patient is done
    assert (made.folder / "dataset.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_after_ctrl_c_the_same_command_goes_on(download: Path, tmp_path: Path) -> None:
    for number in range(1, 12):
        copy = patient_folder(download).with_name(f"segrap_{number:04d}")
        shutil.copytree(patient_folder(download), copy, dirs_exist_ok=True)
    command = [sys.executable, "-m", "segrap", "dataset", "convert", str(download), "--output", str(tmp_path)]
    command += ["--task", "oar"]
    labels = tmp_path / "Dataset231_SegRapOAR" / "labelsTr"
    # A shell that started the tests in the background may have told its children to ignore Ctrl-C.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as job:
        assert job.stderr is not None
        while not (labels / "segrap_0001.nii.gz").exists():
            assert job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        assert job.wait(timeout=30) == 130
        assert job.stderr.read().endswith(
            "Cancelled. What is finished stays: the same command goes on where it stopped.\n"
        )
    finished = {path.name: path.stat().st_mtime_ns for path in labels.iterdir()}
    assert len(finished) < 12 and not list(tmp_path.rglob(".writing*"))
    assert not (labels.parent / "dataset.json").exists()
    made = convert(download, tmp_path, "oar")
    assert made.training == 12
    # Of the last one, Ctrl-C may have come between its label and the note that it is finished.
    assert sum(path.stat().st_mtime_ns != finished.get(path.name) for path in labels.iterdir()) <= 13 - len(finished)


def test_what_was_converted_into_the_download_is_no_part_of_it(download: Path) -> None:
    for task in ("gtv", "joint"):
        made = convert(download, download / "nnUNet_raw", task)
        assert (made.training, made.test, made.redone) == (2, 1, 0)
    assert convert(download, download / "nnUNet_raw", "gtv").redone == 0
    assert find_patients(download)["segrap_0000"].twice == []


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
