"""Images keep every voxel where it is in the patient, through files, turns and resampling."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segrap.errors import InputError, OutputError
from segrap.geometry import Geometry, same_grid
from segrap.image import AxisOrder, Image, read_image, resample, write_image
from segrap.writing import replacing

ALL_48_DIRECTIONS = [
    np.eye(3)[:, order] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
A_TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])


def numbered(direction: np.ndarray, shape: tuple[int, int, int] = (3, 4, 5)) -> Image:
    """An image in which every voxel has its own value."""
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return Image(array, Geometry((0.7, 0.9, 3.0), (-12.0, 34.0, -56.0), direction))


def places(image: Image) -> dict[int, tuple[float, ...]]:
    """Where in the patient each value lies, rounded to a micrometre."""
    z, y, x = np.indices(image.shape).reshape(3, -1)
    points = np.round(image.geometry.to_lps(np.stack((x, y, z), axis=1)), 3) + 0.0
    return {int(value): tuple(point) for value, point in zip(image.array.ravel(), points, strict=True)}


@pytest.mark.parametrize("direction", ALL_48_DIRECTIONS)
def test_turning_towards_the_patient_axes_leaves_every_voxel_in_its_place(direction: np.ndarray) -> None:
    image = numbered(direction)
    order = AxisOrder.towards_lps(image.geometry)
    turned = order.turn(image)
    assert np.allclose(turned.geometry.direction, np.eye(3))
    assert places(turned) == places(image)
    assert np.array_equal(order.undo(turned.array), image.array)


@pytest.mark.parametrize("direction", ALL_48_DIRECTIONS)
def test_a_stack_of_label_layers_is_turned_like_the_image_and_back(direction: np.ndarray) -> None:
    image = numbered(direction)
    order = AxisOrder.towards_lps(image.geometry)
    layers = np.stack([image.array, image.array + 1000])
    assert np.array_equal(order.apply(layers)[1], order.apply(image.array) + 1000)
    assert np.array_equal(order.undo(order.apply(layers)), layers)


def test_an_oblique_image_stays_oblique_when_it_is_turned() -> None:
    image = numbered(A_TURN @ np.diag([-1.0, 1.0, -1.0]))
    turned = AxisOrder.towards_lps(image.geometry).turn(image)
    assert places(turned) == places(image)
    assert np.all(np.diag(turned.geometry.direction) > 0.9)
    assert np.allclose(turned.geometry.direction.T @ turned.geometry.direction, np.eye(3))


def test_an_image_along_the_patient_axes_is_not_turned_at_all() -> None:
    assert AxisOrder.towards_lps(numbered(np.eye(3)).geometry).changes_nothing
    assert not AxisOrder.towards_lps(numbered(np.diag([1.0, 1.0, -1.0])).geometry).changes_nothing


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1.0, 1.0, -1.0]), A_TURN], ids=["LPS", "RPI", "oblique"])
def test_every_format_keeps_voxels_and_places(ending: str, direction: np.ndarray, tmp_path: Path) -> None:
    image = numbered(direction)
    write_image(image, tmp_path / f"ct{ending}")
    back = read_image(tmp_path / f"ct{ending}")
    assert back.array.dtype == np.int16
    assert np.array_equal(back.array, image.array)
    assert same_grid(back.geometry, back.shape, image.geometry, image.shape)


@pytest.mark.parametrize(
    ("written", "read"),
    [(np.uint8, np.int16), (np.uint16, np.int16), (np.int32, np.int16), (np.float64, np.float32)],
)
def test_whole_numbers_come_as_int16_where_they_fit(written: type, read: type, tmp_path: Path) -> None:
    image = numbered(np.eye(3))
    write_image(Image(image.array.astype(written), image.geometry), tmp_path / "ct.nrrd")
    assert read_image(tmp_path / "ct.nrrd").array.dtype == read


def test_whole_numbers_beyond_int16_are_not_cut_off(tmp_path: Path) -> None:
    image = numbered(np.eye(3))
    write_image(Image(image.array.astype(np.int32) + 60_000, image.geometry), tmp_path / "ct.nrrd")
    assert read_image(tmp_path / "ct.nrrd").array.max() == 60_059


def test_index_and_millimetres_are_inverse_of_each_other() -> None:
    geometry = Geometry((0.5, 0.6, 3.0), (10.0, -20.0, 30.0), A_TURN)
    index = np.array([[0.0, 0.0, 0.0], [3.5, -2.0, 7.25]])
    assert np.allclose(geometry.to_index(geometry.to_lps(index)), index)
    assert np.allclose(geometry.to_lps([0, 0, 1]), (10.0, -20.0, 33.0))


def test_grids_are_the_same_only_when_every_corner_is() -> None:
    geometry = Geometry((0.5, 0.5, 3.0))
    shape = (100, 512, 512)
    assert same_grid(geometry, shape, Geometry((0.5, 0.5, 3.0), (0.001, 0.0, 0.0)), shape)
    assert not same_grid(geometry, shape, Geometry((0.5, 0.5, 3.0), (0.1, 0.0, 0.0)), shape)
    assert not same_grid(geometry, shape, Geometry((0.5, 0.5, 3.001)), shape)
    assert not same_grid(geometry, shape, geometry, (99, 512, 512))


def ramp(geometry: Geometry, shape: tuple[int, int, int]) -> Image:
    """An image whose value says where it is: 2 left + 3 back - up, in mm."""
    z, y, x = np.indices(shape)
    values = geometry.to_lps(np.stack((x, y, z), axis=-1)) @ (2.0, 3.0, -1.0)
    return Image(values.astype(np.float32), geometry)


def test_resampling_goes_by_place_not_by_index() -> None:
    source = ramp(Geometry((1.0, 1.0, 2.0), (-20.0, -20.0, -20.0), np.eye(3)), (21, 41, 41))
    flipped_and_turned = Geometry((0.8, 0.7, 1.5), (6.0, -5.0, 8.0), A_TURN @ np.diag([-1.0, 1.0, -1.0]))
    moved = resample(source, flipped_and_turned, (7, 9, 8))
    assert np.allclose(moved.array, ramp(flipped_and_turned, (7, 9, 8)).array, atol=1e-3)


def test_resampling_fills_what_was_not_scanned_with_air_and_rounds_whole_numbers() -> None:
    source = Image(np.full((4, 4, 4), 40, dtype=np.int16), Geometry((1.0, 1.0, 1.0)))
    source.array[:, :, 2:] = 43
    moved = resample(source, Geometry((1.0, 1.0, 1.0), (0.5, 0.0, 0.0)), (4, 4, 6))
    assert moved.array.dtype == np.int16
    assert moved.array[0, 0].tolist()[:3] == [40, 42, 43]  # 41.5 rounds to the even 42
    assert moved.array[0, 0, -1] == -1024


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.nii\.gz does not exist"):
        read_image(tmp_path / "nothing.nii.gz")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(InputError, match="no image format that is read here"):
        read_image(tmp_path / "plan.pdf")


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    write_image(numbered(np.eye(3), (8, 40, 40)), tmp_path / "ct.nrrd", compress=False)
    whole = (tmp_path / "ct.nrrd").read_bytes()
    (tmp_path / "ct.nrrd").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_image(tmp_path / "ct.nrrd")


@pytest.mark.parametrize("shape", [(30, 40), (1, 30, 40)], ids=["2-D", "one slice"])
def test_a_2d_image_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros(shape, np.int16)), str(tmp_path / "slice.nii.gz"))
    with pytest.raises(InputError, match="not a 3-D scan: its size is 40 x 30"):
        read_image(tmp_path / "slice.nii.gz")


def test_a_colour_volume_is_refused(tmp_path: Path) -> None:
    volume = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(volume, str(tmp_path / "colours.nrrd"))
    with pytest.raises(InputError, match="3 value"):
        read_image(tmp_path / "colours.nrrd")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_that_are_not_numbers_are_counted_and_refused(
    ending: str, value: float, dtype: type, tmp_path: Path
) -> None:
    array = np.zeros((4, 5, 6), dtype=dtype)
    array[1, 2, 3:5] = value
    write_image(Image(array, Geometry((1.0, 1.0, 1.0))), tmp_path / f"ct{ending}")
    with pytest.raises(InputError, match="2 voxels that are not numbers"):
        read_image(tmp_path / f"ct{ending}")


def test_axes_that_are_not_at_right_angles_are_refused(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
        "space directions: (1,0,0) (0,1,0) (0,0.3,2)\nspace origin: (0,0,0)\nencoding: raw\nendian: little\n\n"
    )
    (tmp_path / "tilted.nrrd").write_bytes(header.encode() + bytes(4 * 4 * 4 * 2))
    with pytest.raises(InputError, match=r"axes of tilted\.nrrd are not at right angles"):
        read_image(tmp_path / "tilted.nrrd")


def test_an_error_while_writing_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "contours.seg.nrrd"
    target.write_text("older")
    with pytest.raises(KeyboardInterrupt), replacing(target) as temporary:
        temporary.write_text("half of it")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["contours.seg.nrrd"]
    assert target.read_text() == "older"


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "ct.nii.gz"
    with replacing(target) as temporary:
        temporary.write_text("all of it")
        assert not target.exists()
        assert temporary.name.endswith(".nii.gz")
    assert target.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_image(numbered(np.eye(3)), tmp_path / "absent" / "ct.nii.gz")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OutputError, match="disk is full"), replacing(tmp_path / "ct.nrrd") as temporary:
        temporary.write_bytes(b"begun")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"the rest")
    assert list(tmp_path.iterdir()) == []
