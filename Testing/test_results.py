"""The folder of results: never of two patients, never over what is there unless asked, refused before the work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pydicom
import pytest
from conftest import run_segrap
from test_cli import contour

from segrap.contour_files.seg_nrrd import read_seg_nrrd


@pytest.fixture(scope="module")
def dicom_patient(tmp_path_factory: pytest.TempPathFactory, case) -> Path:
    """A made-up patient's two series in one folder."""
    from segrap.training.phantom.files import write_dicom_pair

    folder = tmp_path_factory.mktemp("dicom")
    write_dicom_pair(case, folder, seed=1)
    return folder


def refused(done: subprocess.CompletedProcess[str], status: int, words: str) -> bool:
    return (done.returncode, words in done.stderr, "Contouring" in done.stderr) == (status, True, False)


def test_results_of_another_run_are_replaced_only_when_asked_and_then_all_of_them(
    dicom_patient: Path, coarse_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", ("--model", small_model, "--output", tmp_path / "out")
    formats = ("--format", "rtstruct", "--format", "nifti", "--structures", "BrainStem")
    assert run_segrap("contour", dicom_patient, *formats, *options).returncode == 0
    (out / "nifti" / "ct.nii.gz").write_bytes(b"of the clinic")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == 5

    assert refused(contour(coarse_patient, out, "--model", small_model), 2, "--overwrite")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    done = contour(coarse_patient, out, "--model", small_model, "--overwrite")
    assert done.returncode == 0, done.stderr
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {"contours.seg.nrrd", "structures.csv", "report.html", "nifti/ct.nii.gz"}
    assert len(read_seg_nrrd(out / "contours.seg.nrrd").names) == 2


@pytest.mark.parametrize("name", ["RTSTRUCT.dcm", "nifti/BrainStem.nii.gz"])
def test_a_clinics_own_contours_are_not_replaced_whatever_is_asked(
    coarse_patient: Path, small_model: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"of the clinic")
    done = contour(coarse_patient, tmp_path, "--model", small_model, "--overwrite")
    assert refused(done, 2, "not of an earlier run")
    assert (tmp_path / name).read_bytes() == b"of the clinic"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_a_ct_among_masks_is_not_lost(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    """Input and output in one folder, which a format calls its own too."""
    place = tmp_path / "P01" / "nifti"
    place.mkdir(parents=True)
    scans = [place / name for name in ("ct.nii.gz", "contrast.nii.gz")]
    for scan, name in zip(scans, ("image.nii.gz", "image_contrast.nii.gz"), strict=True):
        scan.write_bytes((coarse_patient / name).read_bytes())
    before = [scan.read_bytes() for scan in scans]
    done = run_segrap("contour", *scans, "--output", tmp_path / "P01", "--format", "nifti", "--model", small_model)
    assert done.returncode == 0, done.stderr
    assert [scan.read_bytes() for scan in scans] == before and (place / "BrainStem.nii.gz").is_file()


def test_a_ct_that_dicom_cannot_refer_to_is_contoured_without_rtstruct_and_it_says_so(
    dicom_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    for path in sorted(dicom_patient.rglob("*.dcm")):
        header = pydicom.dcmread(path)
        del header.FrameOfReferenceUID
        target = tmp_path / "ct" / path.relative_to(dicom_patient)
        target.parent.mkdir(parents=True, exist_ok=True)
        header.save_as(target)
    options = ("--model", small_model, "--output", tmp_path / "out")
    asked = run_segrap("contour", tmp_path / "ct", *options, "--format", "rtstruct")
    assert refused(asked, 3, "FrameOfReferenceUID")
    done = run_segrap("contour", tmp_path / "ct", *options)
    assert done.returncode == 0 and "no FrameOfReferenceUID" in done.stderr
    assert not (tmp_path / "out" / "RTSTRUCT.dcm").exists() and (tmp_path / "out" / "contours.seg.nrrd").is_file()


def test_dicom_of_an_image_file_is_refused_before_the_contouring(
    coarse_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    done = contour(coarse_patient, tmp_path / "out", "--model", small_model, "--format", "rtstruct")
    assert refused(done, 2, "DICOM folder")


def test_a_demonstration_does_not_remove_what_is_there(tmp_path: Path) -> None:
    scans = tmp_path / "made-up patient"
    scans.mkdir()
    (scans / "0001.dcm").write_bytes(b"of the clinic")
    done = run_segrap("demo", "--output", tmp_path)
    assert done.returncode == 2 and "made-up patient" in done.stderr
    assert (scans / "0001.dcm").read_bytes() == b"of the clinic"


def test_a_made_up_patient_does_not_replace_another(tmp_path: Path) -> None:
    (tmp_path / "P" / "contrast").mkdir(parents=True)
    done = run_segrap("dataset", "phantom", "--output", tmp_path / "P")
    assert done.returncode == 2 and "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "P").iterdir()] == ["contrast"]


def test_the_folder_of_both_scans_serves_to_check_and_read_the_rtstruct(
    dicom_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_segrap("contour", dicom_patient, "--model", small_model, "--output", out).returncode == 0
    checked = run_segrap("rtstruct", "check", out / "RTSTRUCT.dcm", dicom_patient)
    assert checked.returncode == 0, checked.stderr
    read = run_segrap("rtstruct", "read", out / "RTSTRUCT.dcm", dicom_patient, "--output", tmp_path / "again.seg.nrrd")
    assert read.returncode == 0, read.stderr
    first, again = read_seg_nrrd(out / "contours.seg.nrrd"), read_seg_nrrd(tmp_path / "again.seg.nrrd")
    assert (again.mask("BrainStem") == first.mask("BrainStem")).all() and first.mask("BrainStem").any()


def test_a_folder_that_cannot_be_written_is_refused_before_the_contouring(
    coarse_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert refused(contour(coarse_patient, tmp_path / "file" / "out", "--model", small_model), 5, "cannot be written")
