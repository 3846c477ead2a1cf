"""A CT series is read in the right order, place and unit, whatever the scanner called it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_cases import OTHER_OBJECTS, only_series, write_other_object
from pydicom.uid import generate_uid
from synthetic_ct import (
    FEET_FIRST_SUPINE,
    HEAD_FIRST_DECUBITUS_RIGHT,
    HEAD_FIRST_PRONE,
    HEAD_FIRST_SUPINE,
    head_like,
    write_ct_series,
)

from segrap.ct.dicom_series import read_series_folder
from segrap.geometry import Geometry, same_grid
from segrap.image import Image

POSITIONS = {
    "HFS": HEAD_FIRST_SUPINE,
    "FFS": FEET_FIRST_SUPINE,
    "HFP": HEAD_FIRST_PRONE,
    "HFDR": HEAD_FIRST_DECUBITUS_RIGHT,
}


# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", POSITIONS)
def test_every_patient_position_comes_back_voxel_for_voxel_in_its_place(position: str, tmp_path: Path) -> None:
    head = head_like((12, 40, 48), (4.0, 4.0, 3.0), direction=POSITIONS[position])
    write_ct_series(tmp_path, head.array, head.geometry, PatientPosition=position)
    image = only_series(tmp_path).image()
    assert same_grid(image.geometry, image.shape, head.geometry, head.shape)
    assert image.array.dtype == np.int16
    assert np.array_equal(image.array, head.array)


def test_an_oblique_series_keeps_its_obliqueness(tmp_path: Path) -> None:
    row, column = np.array([0.96, 0.28, 0.0]), np.array([-0.28 * 0.8, 0.96 * 0.8, 0.6])
    head = head_like((12, 40, 48), (4.0, 4.0, 3.0), direction=np.column_stack((row, column, np.cross(row, column))))
    write_ct_series(tmp_path, head.array, head.geometry)
    image = only_series(tmp_path).image()
    assert same_grid(image.geometry, image.shape, head.geometry, head.shape)
    assert np.array_equal(image.array, head.array)


def test_slices_stored_from_head_to_feet_are_stacked_along_row_cross_column(head: Image, tmp_path: Path) -> None:
    upside_down = Geometry(head.geometry.spacing_mm, tuple(head.geometry.to_lps([0, 0, 11])), np.diag([1.0, 1.0, -1.0]))
    write_ct_series(tmp_path, head.array[::-1], upside_down)
    image = only_series(tmp_path).image()
    assert same_grid(image.geometry, image.shape, head.geometry, head.shape)
    assert np.array_equal(image.array, head.array)


def test_files_headers_and_origins_stand_in_the_order_of_the_slices(head: Image, tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, head.array, head.geometry)
    series = only_series(tmp_path)
    assert series.files == tuple(written)
    assert series.sop_instance_uids == tuple(str(pydicom.dcmread(path).SOPInstanceUID) for path in written)
    assert [str(header.SOPInstanceUID) for header in series.headers] == list(series.sop_instance_uids)
    assert np.allclose(series.slice_origins_mm, [head.geometry.to_lps([0, 0, number]) for number in range(12)])
    assert series.shape == (12, 40, 48)
    assert not any("PixelData" in header for header in series.headers)


def test_identities_and_contrast_agent_are_those_of_the_files(head: Image, tmp_path: Path) -> None:
    uids = {name: generate_uid() for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    write_ct_series(
        tmp_path, head.array, head.geometry, SeriesDescription="Neck C+ ", ContrastBolusAgent="Iohexol", **uids
    )
    series = only_series(tmp_path)
    found = (series.series_uid, series.study_uid, series.frame_of_reference_uid)
    assert found == tuple(uids.values())
    assert series.description == "Neck C+"
    assert series.has_contrast_tag
    assert series.acquired == "20240102101112"


@pytest.mark.parametrize("agent", ["", "NO", "None", "NO CONTRAST", "NON CONTRAST", "OHNE KM"])
def test_a_contrast_agent_that_says_none_is_none(agent: str, head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, ContrastBolusAgent=agent)
    assert not only_series(tmp_path).has_contrast_tag


def test_the_written_test_series_are_conformant(head: Image, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    path = write_ct_series(tmp_path, head.array, head.geometry, ContrastBolusAgent="Iohexol")[0]
    verdict = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    assert "Error" not in verdict.stderr


def test_all_series_below_a_folder_are_found_the_earliest_first(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "b" / "deep", head.array, head.geometry, AcquisitionTime="101000")
    write_ct_series(tmp_path / "a", head.array, head.geometry, AcquisitionTime="101500")
    assert [series.acquired[-6:] for series in read_series_folder(tmp_path)] == ["101000", "101500"]


def test_what_is_not_a_ct_scan_is_left_out(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", head.array, head.geometry)
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_ct_series(tmp_path / "scout", head.array[:2], head.geometry, ImageType=scout)
    write_ct_series(tmp_path / "dose report", head.array[:1], head.geometry)
    here = list(head.geometry.origin_mm)
    write_ct_series(tmp_path / "bolus watch", head.array, head.geometry, ImagePositionPatient=here)
    for modality in OTHER_OBJECTS:
        write_other_object(tmp_path / modality, modality)
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty").touch()
    assert len(only_series(tmp_path).files) == 12


def test_a_localizer_inside_the_series_is_not_a_slice_of_it(head: Image, tmp_path: Path) -> None:
    uid = generate_uid()
    write_ct_series(tmp_path / "ct", head.array, head.geometry, SeriesInstanceUID=uid)
    sagittal = Geometry((4.0, 4.0, 4.0), (0.0, -90.0, 90.0), np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]))
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_ct_series(tmp_path / "scout", head.array[:1, :30], sagittal, SeriesInstanceUID=uid, ImageType=kind)
    assert len(only_series(tmp_path).files) == 12


def test_files_without_a_preamble_are_dicom_too(head: Image, tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path, head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[:2] == b"\x08\x00"
    assert np.array_equal(only_series(tmp_path).image().array, head.array)


def test_copies_of_a_file_are_left_out_and_said(head: Image, tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, head.array, head.geometry)
    for path in paths[:3]:
        shutil.copy(path, tmp_path / f"{path.name}-copy")
    series = only_series(tmp_path)
    assert len(series.files) == 12
    assert "3 files left out" in series.remarks[0]


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(head: Image, tmp_path: Path) -> None:
    geometry = Geometry((4.0, 4.0, 0.625), head.geometry.origin_mm)
    rounded = [[-94.0, -78.0, round(0.625 * number, 1)] for number in range(12)]
    write_ct_series(tmp_path, head.array, geometry, ImagePositionPatient=lambda number: rounded[number])
    assert only_series(tmp_path).geometry.spacing_mm[2] == pytest.approx(0.625, abs=0.01)


def test_a_slice_spacing_of_3_023_mm_is_kept_as_it_is(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, Geometry((0.98, 0.97, 3.023), head.geometry.origin_mm))
    assert only_series(tmp_path).geometry.spacing_mm == pytest.approx((0.98, 0.97, 3.023), abs=1e-6)


# --- real scans ----------------------------------------------------------------------------------------------------


def test_a_real_series_is_read_as_simpleitk_reads_it(shared_data: Path) -> None:
    series = only_series(shared_data / "visible_human_head")
    image = series.image()
    assert series.shape == (245, 512, 512)
    assert image.geometry.spacing_mm == (1.0, 1.0, 1.0)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in series.files])
    volume = reader.Execute()
    assert np.array_equal(SimpleITK.GetArrayViewFromImage(volume), image.array)
    assert np.allclose(volume.GetOrigin(), image.geometry.origin_mm)
