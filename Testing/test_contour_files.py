"""The challenge's stacks, NIfTI masks and the table; and no file, of any format, that is half written."""

from __future__ import annotations

import csv
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from made_contours import (
    GEOMETRIES,
    STRAIGHT,
    assert_same_masks,
    every_structure,
    every_structure_masks,
    one_voxel,
)
from small_disk import full_disk, mounted

from segrap import anatomy
from segrap.contour_files.formats import (
    read_challenge_mha,
    read_nifti_folder,
    write_challenge_mha,
    write_nifti_folder,
    write_structures_csv,
)
from segrap.contour_files.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from segrap.contours import Contours
from segrap.errors import InputError, OutputError
from segrap.geometry import Geometry, same_grid
from segrap.image import Image, write_image

WRITERS: dict[str, Callable[[Contours, Path], object]] = {
    "contours.seg.nrrd": write_seg_nrrd,
    "challenge": write_challenge_mha,
    "nifti": write_nifti_folder,
    "structures.csv": write_structures_csv,
}


# The challenge's stacks


def test_challenge_stacks_have_the_channels_size_and_spacing_of_the_challenge(tmp_path: Path) -> None:
    write_challenge_mha(every_structure(GEOMETRIES["oblique"]), tmp_path)
    masks = every_structure_masks()
    for file_name, structures in (("oars.mha", anatomy.ORGANS), ("gtvs.mha", anatomy.TARGETS)):
        stack = SimpleITK.ReadImage(str(tmp_path / file_name))
        assert stack.GetSize() == (20, 17, 10, len(structures))
        assert stack.GetPixelID() == SimpleITK.sitkUInt8
        assert stack.GetSpacing() == (1.0, 1.5, 3.0, 1.0)
        assert stack.GetOrigin() == (0, 0, 0, 0)
        expected = np.stack([masks[s.name] for s in sorted(structures, key=lambda s: s.channel)])
        np.testing.assert_array_equal(SimpleITK.GetArrayViewFromImage(stack), expected)


def test_the_header_has_the_fields_of_the_challenges_own_example(shared_data: Path, tmp_path: Path) -> None:
    def header(path: Path) -> dict[str, str]:
        text = path.read_bytes().split(b"ElementDataFile")[0].decode()
        return dict(line.split(" = ") for line in text.splitlines())

    write_challenge_mha(every_structure(), tmp_path)
    theirs = header(shared_data / "segrap_example" / "gtvs_output_example.mha")
    ours = header(tmp_path / "gtvs.mha")
    differing = {"CompressedDataSize", "DimSize", "ElementSpacing"}
    # Largest and smallest value are left out: optional, and known only after the last voxel.
    same = set(theirs) - differing - {"LargestImagePixelValue", "SmallestImagePixelValue"}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


def test_challenge_stacks_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_challenge_mha(every_structure(), tmp_path)
    assert_same_masks(read_challenge_mha(tmp_path), every_structure_masks())


def test_the_challenges_own_example_is_read(shared_data: Path) -> None:
    contours = read_challenge_mha(shared_data / "segrap_example" / "gtvs_output_example.mha")
    assert [contours.structures[name].voxels for name in ("GTVp", "GTVnd")] == [61601, 26275]


def test_contours_without_targets_give_no_target_stack(tmp_path: Path) -> None:
    written = write_challenge_mha(every_structure().subset(["Brain"]), tmp_path)
    assert [path.name for path in written] == ["oars.mha"]
    assert read_challenge_mha(tmp_path).is_empty("Eye_L")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_stacks_of_other_programs_are_read_by_what_is_above_0(dtype: str, tmp_path: Path) -> None:
    stack = np.zeros((2, 3, 4, 5), dtype=dtype)
    stack[1, 2, 3, 4] = 100
    volume = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(channel) for channel in stack])
    SimpleITK.WriteImage(volume, str(tmp_path / "gtvs.mha"), useCompression=dtype == "int16")
    contours = read_challenge_mha(tmp_path)
    np.testing.assert_array_equal(np.argwhere(contours.mask("GTVnd")), [[2, 3, 4]])
    assert contours.is_empty("GTVp")


@pytest.mark.parametrize("channels", [1, 44, 54])
def test_a_stack_with_another_number_of_channels_is_refused(channels: int, tmp_path: Path) -> None:
    volumes = [SimpleITK.Image([4, 3, 2], SimpleITK.sitkUInt8)] * channels
    SimpleITK.WriteImage(SimpleITK.JoinSeries(volumes), str(tmp_path / "oars.mha"))
    with pytest.raises(InputError, match=f"{channels} channel"):
        read_challenge_mha(tmp_path / "oars.mha")


def test_a_stack_cut_short_is_refused(tmp_path: Path) -> None:
    write_challenge_mha(every_structure(), tmp_path)
    whole = (tmp_path / "oars.mha").read_bytes()
    for length in (0, 50, len(whole) // 2, len(whole) - 1):
        (tmp_path / "oars.mha").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"oars\.mha"):
            read_challenge_mha(tmp_path)


def test_stacks_of_two_patients_are_refused(tmp_path: Path) -> None:
    write_challenge_mha(every_structure(), tmp_path)
    write_challenge_mha(one_voxel("GTVp", (1, 1, 1), STRAIGHT), tmp_path)
    with pytest.raises(InputError, match="do not belong together"):
        read_challenge_mha(tmp_path)


# One NIfTI per structure


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_nifti_masks_come_back_in_their_place(geometry: Geometry, tmp_path: Path) -> None:
    written = write_nifti_folder(one_voxel("Eye_L", (1, 2, 3), geometry), tmp_path)
    assert [path.name for path in written] == ["Eye_L.nii.gz"]
    volume = SimpleITK.ReadImage(str(written[0]))
    assert volume.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_allclose(
        volume.TransformIndexToPhysicalPoint((3, 2, 1)), geometry.to_lps(np.array([3, 2, 1])), atol=1e-4
    )
    back = read_nifti_folder(tmp_path)
    assert same_grid(back.geometry, back.shape, geometry, (5, 6, 7))
    np.testing.assert_array_equal(np.argwhere(back.mask("Eye_L")), [[1, 2, 3]])


def test_masks_of_any_type_with_0_and_255_are_read(tmp_path: Path) -> None:
    mask = np.zeros((3, 4, 5))
    mask[1, 2, 3] = 255
    for name, dtype in (("Brain", "uint16"), ("GTVp", "float64"), ("Eye_L", "uint8")):
        volume = SimpleITK.GetImageFromArray(mask.astype(dtype))
        SimpleITK.WriteImage(volume, str(tmp_path / f"{name}.nii.gz"))
    contours = read_nifti_folder(tmp_path)
    assert contours.names == ("Brain", "Eye_L", "GTVp")
    assert {facts.voxels for facts in contours.structures.values()} == {1}


def test_scans_beside_the_masks_are_passed_over_and_strangers_listed(tmp_path: Path) -> None:
    write_nifti_folder(one_voxel("Eye_L", (1, 2, 3), STRAIGHT), tmp_path)
    for name in ("image", "image_contrast", "Brain (1)"):
        write_image(Image(np.zeros((5, 6, 7), dtype=np.int16), STRAIGHT), tmp_path / f"{name}.nii.gz")
    contours = read_nifti_folder(tmp_path)
    assert contours.names == ("Eye_L",)
    assert contours.left_out == ("Brain (1)",)


def test_masks_on_different_grids_are_refused(tmp_path: Path) -> None:
    write_nifti_folder(one_voxel("Eye_L", (1, 2, 3), STRAIGHT), tmp_path)
    write_nifti_folder(one_voxel("Eye_R", (1, 2, 3), GEOMETRIES["left and right swapped"]), tmp_path)
    with pytest.raises(InputError, match="another grid"):
        read_nifti_folder(tmp_path)


def test_one_structure_in_two_files_is_refused(tmp_path: Path) -> None:
    write_nifti_folder(one_voxel("Eye_L", (1, 2, 3), STRAIGHT), tmp_path)
    (tmp_path / "eye_l.nii").write_bytes(b"")
    with pytest.raises(InputError, match="twice"):
        read_nifti_folder(tmp_path)


# The table


def test_the_table_states_names_volume_expected_range_edge_confidence_and_origin(tmp_path: Path) -> None:
    write_structures_csv(one_voxel("GTVnd", (0, 3, 3), STRAIGHT), tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row == {
        "name": "GTVnd",
        "tg263_name": "GTVn",
        "volume_cc": "0.0045",
        "expected_min_cc": "3.7",
        "expected_max_cc": "153",
        "cut_at": "feet",
        "confidence": "",
        "fold_disagreement": "",
        "origin": "model",
        "model": "Phantom 0.3",
    }


# Whole or not at all, every format


@pytest.mark.parametrize("reader", [read_seg_nrrd, read_challenge_mha, read_nifti_folder])
def test_a_missing_file_is_refused(reader: Callable[[Path], Contours], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        reader(tmp_path / "absent")


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_reported_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        with pytest.raises(OutputError, match="disk is full"):
            WRITERS[name](every_structure(), disk / name)
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_folder_is_reported(name: str, tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "ro") as disk,
        pytest.raises(OutputError, match="cannot be written"),
    ):
        WRITERS[name](every_structure(), disk / name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_half_way_leaves_the_older_result(name: str, tmp_path: Path) -> None:
    WRITERS[name](every_structure(), tmp_path / name)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OutputError):
            WRITERS[name](every_structure(seed=1), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
