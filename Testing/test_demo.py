"""The whole road on a made-up patient: two DICOM series in; segmentation, RTSTRUCT, table and report out."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap

from segrap import anatomy
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.ct.dicom_series import read_series_folder


@pytest.fixture(scope="module")
def contours(demo_folder: Path):
    return read_seg_nrrd(demo_folder / "contours.seg.nrrd")


def test_everything_is_there(demo_folder: Path) -> None:
    files = {"RTSTRUCT.dcm", "contours.seg.nrrd", "report.html", "structures.csv", "made-up patient"}
    assert {path.name for path in demo_folder.iterdir()} == files


def test_all_47_structures_are_found(contours) -> None:
    assert contours.names == anatomy.NAMES
    assert not [name for name in contours.names if contours.is_empty(name)]
    assert len(contours.layers) == 4


def test_contours_agree_with_the_truth(contours) -> None:
    """Dice with the patient's true contours, of which the model has never seen one."""
    from segrap.training.phantom import Phantom

    truth = anatomy.masks_from_subclasses(Phantom(1).render().subclasses.array)
    dice = {}
    for name, true in truth.items():
        found = contours.mask(name)
        dice[name] = 2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true))
    organs = [dice[organ.name] for organ in anatomy.ORGANS]
    assert np.mean(organs) >= 0.90
    assert min(organs) >= 0.65
    assert min(dice["GTVp"], dice["GTVnd"]) >= 0.80


def test_left_is_left(contours) -> None:
    """In LPS every left structure lies at larger x than its right twin."""
    for left in (organ for organ in anatomy.ORGANS if organ.laterality == "left"):
        right = left.name.removesuffix("_L") + "_R"
        centres = [np.argwhere(contours.mask(name)).mean(0)[::-1] for name in (left.name, right)]
        assert contours.geometry.to_lps(centres[0])[0] > contours.geometry.to_lps(centres[1])[0], left.name


def test_demonstration_shows_everywhere(demo_folder: Path, contours) -> None:
    import pydicom

    assert "DEMONSTRATION" in contours.title
    assert "demonstration" in (demo_folder / "report.html").read_text(encoding="utf-8").lower()
    file = pydicom.dcmread(demo_folder / "RTSTRUCT.dcm")
    assert "DEMO" in file.StructureSetLabel
    assert "DEMONSTRATION" in file.StructureSetDescription


def test_table_has_a_row_per_structure(demo_folder: Path) -> None:
    with (demo_folder / "structures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(anatomy.NAMES)
    assert all(float(row["volume_cc"]) > 0 for row in rows)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_in_the_rtstruct(demo_folder: Path) -> None:
    judged = subprocess.run(
        ["dciodvfy", "-new", demo_folder / "RTSTRUCT.dcm"], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 0, judged.stderr
    assert "Error" not in judged.stdout + judged.stderr


@pytest.mark.skipif(not shutil.which("plastimatch"), reason="plastimatch (Debian package) is not installed")
def test_plastimatch_reads_the_same_masks(demo_folder: Path, contours, tmp_path: Path) -> None:
    import SimpleITK

    ct = demo_folder / "made-up patient" / "non-contrast"
    command = ["plastimatch", "convert", "--input", demo_folder / "RTSTRUCT.dcm", "--referenced-ct", ct]
    command += ["--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for structure in anatomy.STRUCTURES:
        image = SimpleITK.ReadImage(str(tmp_path / "masks" / f"{structure.tg263_name}.nrrd"))
        read = SimpleITK.GetArrayViewFromImage(image) > 0
        assert np.array_equal(read, contours.mask(structure.name)), structure.name


def test_command_line_turns_segmentation_into_rtstruct_and_back(demo_folder: Path, contours, tmp_path: Path) -> None:
    ct = demo_folder / "made-up patient"
    file, back = tmp_path / "some.dcm", tmp_path / "back.seg.nrrd"
    chosen = ("--structures", "GTVs,Lens_L", "--names", "segrap")
    done = run_segrap("rtstruct", "write", demo_folder / "contours.seg.nrrd", ct, "--output", file, *chosen)
    assert done.returncode == 0, done.stderr
    planning_ct = ct / "non-contrast"
    assert run_segrap("rtstruct", "check", file, planning_ct).returncode == 0
    assert run_segrap("rtstruct", "read", file, planning_ct, "--output", back).returncode == 0
    read = read_seg_nrrd(back)
    assert read.names == ("Lens_L", "GTVp", "GTVnd")
    assert all(np.array_equal(read.mask(name), contours.mask(name)) for name in read.names)


def test_rtstruct_on_another_ct_is_refused(demo_folder: Path, tmp_path: Path) -> None:
    ct = demo_folder / "made-up patient" / "contrast"
    done = run_segrap("rtstruct", "check", demo_folder / "RTSTRUCT.dcm", ct)
    assert done.returncode == 3
    assert "not in" in done.stdout or "series" in done.stdout


def test_demonstration_model_is_refused_on_a_real_patient(shared_data: Path, tmp_path: Path) -> None:
    ct = shared_data / "dicom2stl_head" / "ct_head.nii.gz"
    done = run_segrap("contour", ct, "--model", "SegRapPhantom", "--output", tmp_path / "out")
    assert done.returncode == 4
    assert "made-up patients" in done.stderr and "--allow-demo-model" in done.stderr
    assert not (tmp_path / "out").exists()


def test_pair_keeps_the_identifiers_of_its_series(demo_folder: Path, contours) -> None:
    series = read_series_folder(demo_folder / "made-up patient")
    assert set(contours.provenance.input_series_uids) == {one.series_uid for one in series}
