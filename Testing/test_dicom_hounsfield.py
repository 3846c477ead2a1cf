"""A series' pixels become Hounsfield units: every encoding, rescale and padding, or a refusal that names it."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_cases import only_series, refusal
from pydicom.uid import MPEG2MPML, RLELossless
from synthetic_ct import (
    write_ct_series,
)

from segrap.image import Image


def put_compressed(dataset: pydicom.Dataset, compressor: str) -> None:
    """Compress the pixels of a slice, without loss, as ITK does."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    with TemporaryDirectory() as folder:
        writer.SetFileName(f"{folder}/compressed.dcm")
        writer.Execute(SimpleITK.GetImageFromArray(dataset.pixel_array))
        compressed = pydicom.dcmread(f"{folder}/compressed.dcm")
    assert compressed.file_meta.TransferSyntaxUID.is_compressed
    dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
    dataset["PixelData"] = compressed["PixelData"]


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
    for path in write_ct_series(tmp_path, head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        put_compressed(dataset, compressor)
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path).image().array, head.array)


def test_run_length_encoded_slices_are_decoded(head: Image, tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path, head.array, head.geometry):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path).image().array, head.array)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("compressor", ["", "RLE", "JPEG", "JPEG2000"])
def test_pixels_that_are_shown_inverted_are_the_same_hounsfield_units(
    compressor: str, bits: int, signed: bool, head: Image, tmp_path: Path
) -> None:
    """MONOCHROME1 asks for low values to be shown bright; ITK turns compressed ones themselves round for it."""
    hu = np.clip(head.array, -1024, 1023)
    facts = {"BitsStored": bits, "HighBit": bits - 1, "PhotometricInterpretation": "MONOCHROME1"}
    stored = {"rescale": (1.0, 0.0), "PixelRepresentation": 1} if signed else {"rescale": (1.0, -1024.0)}
    for path in write_ct_series(tmp_path, hu, head.geometry, **facts, **stored):
        dataset = pydicom.dcmread(path)
        if compressor == "RLE":
            dataset.compress(RLELossless, generate_instance_uid=False)
        elif compressor:
            put_compressed(dataset, compressor)
        dataset.save_as(path)
    assert np.array_equal(only_series(tmp_path).image().array, hu)


def test_pixels_that_are_no_shades_of_grey_are_refused(head: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path, head.array, head.geometry, PhotometricInterpretation="PALETTE COLOR")
    assert "PALETTE COLOR pixels" in refusal(tmp_path)


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
