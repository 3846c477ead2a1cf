"""NIfTI files: complete, in their place, and refused when they are not."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from made_contours import GEOMETRIES
from scipy.spatial.transform import Rotation
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


# --- where the voxels lie ---


def changed(path: Path, offset: int, form: str, *values: float) -> Path:
    """The file with numbers of its header replaced."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_what_itk_and_slicer_write_is_read(geometry: Geometry, tmp_path: Path) -> None:
    volume = SimpleITK.GetImageFromArray(numbered().array)
    volume.SetSpacing(geometry.spacing_mm)
    volume.SetOrigin(geometry.origin_mm)
    volume.SetDirection(geometry.direction.ravel().tolist())
    SimpleITK.WriteImage(volume, str(tmp_path / "ct.nii.gz"))
    back = read_image(tmp_path / "ct.nii.gz")
    assert same_grid(back.geometry, back.shape, geometry, (5, 6, 7))


@pytest.mark.parametrize("degrees", [0.002, 0.027, 0.3])
def test_the_rounding_of_a_quaternion_is_no_contradiction(degrees: float, tmp_path: Path) -> None:
    """Of a patient who lies nearly straight the file loses how little: at 0.027 degrees 0.7 voxels at this corner."""
    turned = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    large = Image(np.zeros((3, 1024, 1024), np.uint8), Geometry((0.5, 0.5, 3.0), (-250.0, -250.0, 0.0), turned))
    write_image(large, tmp_path / "ct.nii.gz")
    assert read_image(tmp_path / "ct.nii.gz").shape == (3, 1024, 1024)


@pytest.mark.parametrize("dtype", ["int16", "uint8"], ids=["scan", "mask"])
def test_a_file_that_states_no_orientation_is_refused(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    write_image(numbered(dtype), path)
    changed(path, 252, "<2h", 0, 0)
    with pytest.raises(InputError, match=r"ct\.nii states no orientation .* Convert the original again") as caught:
        read_image(path)
    assert caught.value.exit_status == 3


def test_a_mirrored_second_statement_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    write_image(numbered(), path)
    first_row = struct.unpack_from("<4f", path.read_bytes(), 280)
    changed(path, 280, "<4f", *(-value for value in first_row))
    with pytest.raises(
        InputError, match=r"two orientations, qform and sform, that put its voxels up to 14\.5 mm apart"
    ):
        read_image(path)


@pytest.mark.parametrize(("shift_mm", "refused"), [(0.4, False), (0.6, True), (float("nan"), True)])
def test_half_a_voxel_between_both_statements_is_the_limit(shift_mm: float, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    write_image(numbered(), path)
    (offset,) = struct.unpack_from("<f", path.read_bytes(), 268)
    changed(path, 268, "<f", offset + shift_mm)
    if refused:
        with pytest.raises(InputError, match="two orientations"):
            read_image(path)
    else:
        assert same_grid(read_image(path).geometry, (5, 6, 7), STRAIGHT, (5, 6, 7))
