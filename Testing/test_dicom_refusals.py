"""A series that cannot be used is refused with the fault by its name, and nothing is changed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_cases import only_series, refusal, write_other_object
from pydicom.uid import generate_uid
from synthetic_ct import (
    head_like,
    write_ct_series,
)

from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.image import Image


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
