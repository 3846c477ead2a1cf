"""A CT series is read in the right order, place and unit, or refused with the fault by its name."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import MPEG2MPML, ImplicitVRLittleEndian, RLELossless, generate_uid
from synthetic_ct import (
    FEET_FIRST_SUPINE,
    HEAD_FIRST_DECUBITUS_RIGHT,
    HEAD_FIRST_PRONE,
    HEAD_FIRST_SUPINE,
    head_like,
    write_ct_series,
)

from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid
from segrap.image import Image

POSITIONS = {
    "HFS": HEAD_FIRST_SUPINE,
    "FFS": FEET_FIRST_SUPINE,
    "HFP": HEAD_FIRST_PRONE,
    "HFDR": HEAD_FIRST_DECUBITUS_RIGHT,
}
OTHER_OBJECTS = {
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
}


@pytest.fixture(scope="session")
def head() -> Image:
    return head_like((12, 40, 48), (4.0, 4.0, 3.0))


def only_series(folder: Path) -> CTSeries:
    (series,) = read_series_folder(folder)
    return series


def refusal(folder: Path) -> str:
    """What the person is told; the folder is as it was."""
    before = sorted(folder.rglob("*")) if folder.exists() else []
    with pytest.raises(InputError) as caught:
        for series in read_series_folder(folder):
            series.image()
    assert (sorted(folder.rglob("*")) if folder.exists() else []) == before
    assert caught.value.exit_status == 3
    assert "Made" not in str(caught.value)  # the patient's name
    return str(caught.value)


def write_other_object(path: Path, modality: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SOPClassUID = OTHER_OBJECTS[modality]
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


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


@pytest.mark.parametrize("agent", ["", "NO", "None"])
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


# --- Hounsfield units ----------------------------------------------------------------------------------------------


def test_signed_and_unsigned_pixels_give_the_same_hounsfield_units(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "u", head.array, head.geometry, rescale=(1.0, -1024.0))
    write_ct_series(tmp_path / "s", head.array, head.geometry, rescale=(1.0, 0.0), PixelRepresentation=1)
    assert np.array_equal(only_series(tmp_path / "u").image().array, head.array)
    assert np.array_equal(only_series(tmp_path / "s").image().array, head.array)


def test_twelve_bit_pixels_with_something_in_the_spare_bits_are_read_without_it(head: Image, tmp_path: Path) -> None:
    clipped = np.clip(head.array, -1024, 2000)
    for path in write_ct_series(tmp_path, clipped, head.geometry, BitsStored=12, HighBit=11):
        dataset = pydicom.dcmread(path)
        pixels = np.frombuffer(dataset.PixelData, np.uint16) | np.uint16(0x4000)
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path).image().array, clipped)


def test_a_rescale_slope_that_is_no_whole_number_gives_floats(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, rescale=(0.5625, -1024.0))
    array = only_series(tmp_path).image().array
    assert array.dtype == np.float32
    assert np.abs(array - head.array).max() <= 0.29  # half a step of the stored values


def test_every_slice_is_rescaled_by_its_own_numbers(head: Image, tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, head.array, head.geometry)
    other = tmp_path / "other"
    shutil.copy(write_ct_series(other, head.array, head.geometry, rescale=(1.0, -2048.0))[4], tmp_path / "five")
    moved = pydicom.dcmread(tmp_path / "five")
    original = pydicom.dcmread(paths[4])
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        moved[keyword] = original[keyword]
    moved.save_as(paths[4])
    (tmp_path / "five").unlink()
    shutil.rmtree(other)
    assert np.array_equal(only_series(tmp_path).image().array, head.array)


@pytest.mark.parametrize("stated", [-2000, 63536])
def test_padding_outside_the_scanner_circle_becomes_air(stated: int, head: Image, tmp_path: Path) -> None:
    padded = head.array.copy()
    padded[:, :6, :6] = -2000
    for path in write_ct_series(tmp_path, padded, head.geometry, rescale=(1.0, 0.0), PixelRepresentation=1):
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS" if stated < 0 else "US", stated)
        dataset.save_as(path)
    image = only_series(tmp_path).image()
    assert np.all(image.array[:, :6, :6] == -1024)
    assert np.array_equal(image.array[:, 6:], head.array[:, 6:])


def test_a_padding_value_in_the_middle_of_the_tissue_does_not_blank_the_patient(head: Image, tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path, head.array, head.geometry, rescale=(1.0, 0.0), PixelRepresentation=1):
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS", 35)
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path).image().array, head.array)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_slices_are_decoded_without_a_plugin(compressor: str, head: Image, tmp_path: Path) -> None:
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(str(tmp_path / "compressed.dcm"))
    for path in write_ct_series(tmp_path / "ct", head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        writer.Execute(SimpleITK.GetImageFromArray(dataset.pixel_array))
        compressed = pydicom.dcmread(tmp_path / "compressed.dcm")
        assert compressed.file_meta.TransferSyntaxUID.is_compressed
        dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        dataset["PixelData"] = compressed["PixelData"]
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path / "ct").image().array, head.array)


def test_run_length_encoded_slices_are_decoded(head: Image, tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path, head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path).image().array, head.array)


def test_a_compression_that_is_none_for_ct_is_named(head: Image, tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path, head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
        dataset.save_as(path)
    assert "(MPEG2 Main Profile / Main Level) cannot be decoded" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tags", "rescale"),
    [
        ({"RescaleIntercept": "0"}, (1.0, -1024.0)),
        ({"RescaleIntercept": "-2048"}, (1.0, -1024.0)),
        ({"RescaleSlope": "10"}, (1.0, -1024.0)),
        ({"RescaleSlope": "0.1"}, (1.0, -1024.0)),
        ({"RescaleIntercept": "40000"}, (1.0, -1024.0)),
    ],
    ids=["intercept 0", "intercept twice", "slope 10", "slope 0.1", "beyond int16"],
)
def test_a_wrong_rescale_is_refused(tags: dict, rescale: tuple, head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, rescale=rescale, **tags)
    assert "rescale" in refusal(tmp_path)


def test_a_rescale_slope_of_zero_or_without_intercept_is_refused(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "zero", head.array, head.geometry, RescaleSlope="0")
    assert "wrong rescale" in refusal(tmp_path / "zero")
    for path in write_ct_series(tmp_path / "half", head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        del dataset.RescaleIntercept
        dataset.save_as(path)
    assert "wrong rescale" in refusal(tmp_path / "half")


def test_a_ct_without_any_rescale_is_taken_as_hounsfield_units_and_that_is_said(head: Image, tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path, head.array, head.geometry, rescale=(1.0, 0.0), PixelRepresentation=1):
        dataset = pydicom.dcmread(path)
        del dataset.RescaleIntercept, dataset.RescaleSlope
        dataset.save_as(path)
    series = only_series(tmp_path)
    assert np.array_equal(series.image().array, head.array)
    assert "no rescale" in series.remarks[0]


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere does not exist" in refusal(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "holds no DICOM files" in refusal(tmp_path)


def test_a_folder_of_rtstructs_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    for number in range(3):
        write_other_object(tmp_path / f"RS{number}.dcm", "RTSTRUCT")
    assert "holds 3 RTSTRUCT objects and no CT" in refusal(tmp_path)


def test_a_folder_of_several_other_things_names_them_all(tmp_path: Path) -> None:
    for number, modality in enumerate(["RTSTRUCT", "SEG", "SEG", "PT"]):
        write_other_object(tmp_path / f"{number}", modality)
    assert "2 SEG objects, 1 RTSTRUCT object, 1 PT object and no CT" in refusal(tmp_path)


def test_mr_instead_of_ct_is_refused_as_mr(tmp_path: Path) -> None:
    for number in range(12):
        write_other_object(tmp_path / f"MR{number}", "MR")
    assert "12 MR images: this is MR, not CT" in refusal(tmp_path)


def test_a_scout_alone_is_no_ct(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array[:2], head.geometry, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert "2 CT scouts and no CT" in refusal(tmp_path)


def test_a_multi_frame_ct_is_refused_with_what_to_do(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array[:1], head.geometry, SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1")
    assert "multi-frame CT" in refusal(tmp_path)
    assert "single CT slices" in refusal(tmp_path)


def test_a_missing_slice_is_refused_with_its_place(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, leave_out=(5,))
    message = refusal(tmp_path)
    assert "1 missing slice: a gap of 6.0 mm where 3.0 mm is usual" in message
    assert "between z = -4.5 mm and z = 1.5 mm" in message


def test_missing_slices_in_several_places_are_counted(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, leave_out=(3, 7, 8))
    assert "3 missing slices: a gap of 9.0 mm" in refusal(tmp_path)


def test_a_duplicate_slice_is_refused_with_its_place(head: Image, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, head.array, head.geometry)[4]
    twin = pydicom.dcmread(path)
    twin.SOPInstanceUID = generate_uid()
    twin.file_meta.MediaStorageSOPInstanceUID = twin.SOPInstanceUID
    twin.save_as(tmp_path / "twin")
    message = refusal(tmp_path)
    assert "duplicate slice: two different images lie at z = -4.5 mm (one such place)" in message


def test_two_acquisitions_in_one_series_are_a_duplicate(head: Image, tmp_path: Path) -> None:
    uids = {name: generate_uid() for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    for number in (1, 2):
        write_ct_series(tmp_path / str(number), head.array, head.geometry, AcquisitionNumber=number, **uids)
    assert "12 such places" in refusal(tmp_path)


def test_two_images_under_one_identity_are_refused(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, SOPInstanceUID="1.2.3.4.5")
    assert "claim to be one" in refusal(tmp_path)


def test_slices_of_another_spacing_halfway_are_refused_as_uneven(head: Image, tmp_path: Path) -> None:
    heights = np.cumsum([2.5] * 6 + [4.0] * 6)
    write_ct_series(
        tmp_path, head.array, head.geometry, ImagePositionPatient=lambda number: [-94.0, -78.0, float(heights[number])]
    )
    assert "uneven slices: they lie 2.50 to 4.00 mm apart" in refusal(tmp_path)


def test_a_slice_a_tenth_of_a_millimetre_off_is_uneven(head: Image, tmp_path: Path) -> None:
    heights = 3.0 * np.arange(12) + np.where(np.arange(12) == 5, 0.12, 0.0)
    write_ct_series(
        tmp_path, head.array, head.geometry, ImagePositionPatient=lambda number: [-94.0, -78.0, float(heights[number])]
    )
    assert "uneven slices" in refusal(tmp_path)


def mix(folder: Path, head: Image, other: Image, **tags: str) -> None:
    """Slices 0-8 of `head` and the rest of `other` under one series UID."""
    uids = {name: generate_uid() for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    write_ct_series(folder / "a", head.array, head.geometry, leave_out=(9, 10, 11), **uids)
    write_ct_series(folder / "b", other.array, other.geometry, leave_out=tuple(range(9)), **(uids | tags))


def test_slices_of_mixed_sizes_are_refused_and_counted(head: Image, tmp_path: Path) -> None:
    mix(tmp_path, head, Image(head.array[:, :20, :24], head.geometry))
    assert "mixed sizes: 9 of 40 x 48 and 3 of 20 x 24" in refusal(tmp_path)


def test_slices_of_mixed_pixel_spacings_are_refused(head: Image, tmp_path: Path) -> None:
    mix(tmp_path, head, Image(head.array, Geometry((3.9, 3.9, 3.0), head.geometry.origin_mm)))
    assert "mixed pixel spacings" in refusal(tmp_path)


def test_slices_of_mixed_orientations_are_refused(head: Image, tmp_path: Path) -> None:
    turned = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
    mix(tmp_path, head, Image(head.array, Geometry(head.geometry.spacing_mm, head.geometry.origin_mm, turned)))
    assert "mixed orientations" in refusal(tmp_path)


def test_slices_of_two_frames_of_reference_are_refused(head: Image, tmp_path: Path) -> None:
    mix(tmp_path, head, head, FrameOfReferenceUID=generate_uid())
    assert "mixed Frames of Reference" in refusal(tmp_path)


def test_gantry_tilt_is_refused_with_its_degrees(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, slice_shift_mm=(0.0, 3.0 * np.tan(np.radians(10.0)), 0.0))
    assert "tilted gantry (10.0 degrees; its slices shift by 5.8 mm" in refusal(tmp_path)


def test_gantry_tilt_stated_by_the_orientation_is_found_too(head: Image, tmp_path: Path) -> None:
    cos, sin = np.cos(np.radians(12.0)), np.sin(np.radians(12.0))
    leaning = np.array([[1.0, 0.0, 0.0], [0.0, cos, 0.0], [0.0, sin, 1.0]])  # tilted slices, stacked straight up
    write_ct_series(tmp_path, head.array, Geometry(head.geometry.spacing_mm, head.geometry.origin_mm, leaning))
    assert "tilted gantry (12.0 degrees" in refusal(tmp_path)


def test_a_slice_that_is_shifted_sideways_is_refused(head: Image, tmp_path: Path) -> None:
    write_ct_series(
        tmp_path,
        head.array,
        head.geometry,
        ImagePositionPatient=lambda number: [-94.0 + 7.0 * (number == 6), -78.0, 3.0 * number],
    )
    assert "shifted sideways by up to 7.0 mm" in refusal(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_without_its_place_is_refused_by_the_attribute(keyword: str, head: Image, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, head.array, head.geometry)[3]
    dataset = pydicom.dcmread(path)
    del dataset[keyword]
    dataset.save_as(path)
    assert f"{path.name} has no usable {keyword}" in refusal(tmp_path)


def test_a_file_cut_short_in_its_pixels_is_refused_by_name(head: Image, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, head.array, head.geometry)[3]
    path.write_bytes(path.read_bytes()[:-1000])
    assert re.search(f"pixels of {path.name} are cut short", refusal(tmp_path))


def test_a_file_cut_short_anywhere_in_its_header_is_refused(head: Image, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, head.array[:6], head.geometry)[3]
    whole = path.read_bytes()
    for length in range(133, 1100, 31):
        path.write_bytes(whole[:length])
        refusal(tmp_path)


def test_a_header_with_spoilt_bytes_is_read_or_refused_but_never_fails(tmp_path: Path) -> None:
    head = head_like((6, 16, 16), (10.0, 10.0, 3.0))
    path = write_ct_series(tmp_path, head.array, head.geometry)[2]
    whole = path.read_bytes()
    dice = np.random.default_rng(5)
    refused = 0
    for _ in range(60):
        spoilt = bytearray(whole)
        for place in dice.integers(132, len(whole) - 512, 3):
            spoilt[place] = dice.integers(256)
        path.write_bytes(spoilt)
        try:
            only_series(tmp_path).image()
        except InputError:
            refused += 1
    assert refused > 20


def test_a_slice_without_rescale_among_others_is_refused(head: Image, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, head.array, head.geometry)[3]
    dataset = pydicom.dcmread(path)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.save_as(path)
    assert "mixed rescales" in refusal(tmp_path)


def test_a_file_that_is_random_bytes_is_not_dicom_and_does_no_harm(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry)
    (tmp_path / "thumbs.db").write_bytes(np.random.default_rng(0).bytes(5000))
    assert len(only_series(tmp_path).files) == 12


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
