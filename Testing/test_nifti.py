"""NIfTI files: complete, in their place, and refused when they are not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from made_contours import GEOMETRIES
from small_disk import full_disk

from segrap.errors import InputError, OutputError
from segrap.geometry import Geometry, same_grid
from segrap.image import Image, read_image, write_image

STRAIGHT = GEOMETRIES["straight"]


def numbered(dtype: str = "int16", geometry: Geometry = STRAIGHT) -> Image:
    return Image(np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(dtype), geometry)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64"])
def test_itk_reads_what_was_written(dtype: str, ending: str, tmp_path: Path) -> None:
    write_image(numbered(dtype), tmp_path / f"ct{ending}")
    volume = SimpleITK.ReadImage(str(tmp_path / f"ct{ending}"))
    array = SimpleITK.GetArrayFromImage(volume)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, numbered(dtype).array)


@pytest.mark.parametrize("stated", ["sform", "qform"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_both_ways_in_which_nifti_states_a_place_are_right(geometry: Geometry, stated: str, tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    write_image(numbered(geometry=geometry), path)
    data = bytearray(path.read_bytes())
    other = {"sform": 252, "qform": 254}[stated]
    data[other : other + 2] = b"\0\0"
    path.write_bytes(data)
    back = read_image(path)
    assert same_grid(back.geometry, back.shape, geometry, (5, 6, 7))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("lost", [1, 9, 200])
def test_a_file_cut_short_is_refused_where_itk_fills_in_water(lost: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ct{ending}"
    write_image(numbered(), path)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(InputError, match="cut short"):
        read_image(path)


def test_a_file_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    write_image(numbered(), path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_full_disk_is_reported_where_itk_keeps_silent(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 30_000, (20, 30, 40)).astype(np.int16)
    with full_disk(tmp_path / "disk") as disk:
        with pytest.raises(OutputError, match="disk is full"):
            write_image(Image(noise, STRAIGHT), disk / f"ct{ending}")
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_scan_with_a_fourth_axis_of_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    write_image(numbered(), path)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[40] = 4  # dimensions: x, y, z and a fourth of size 1
    path.write_bytes(gzip.compress(bytes(data)))
    np.testing.assert_array_equal(read_image(path).array, numbered().array)
