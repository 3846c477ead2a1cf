"""Contours and their files: nothing is flattened, nothing is lost, nothing is half written."""

from __future__ import annotations

import csv
import resource
from collections.abc import Callable
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK
from made_contours import DEMONSTRATION, GEOMETRIES, STRAIGHT, every_structure, every_structure_masks, one_voxel
from small_disk import full_disk, mounted

from segrap import anatomy
from segrap.contour_files import (
    read_challenge_mha,
    read_nifti_folder,
    read_seg_nrrd,
    write_challenge_mha,
    write_nifti_folder,
    write_seg_nrrd,
    write_structures_csv,
)
from segrap.contours import Contours, Provenance
from segrap.errors import InputError, OutputError
from segrap.image import Geometry, Image, same_grid, write_image

WRITERS: dict[str, Callable[[Contours, Path], object]] = {
    "contours.seg.nrrd": write_seg_nrrd,
    "challenge": write_challenge_mha,
    "nifti": write_nifti_folder,
    "structures.csv": write_structures_csv,
}


def assert_same_masks(contours: Contours, masks: dict[str, np.ndarray]) -> None:
    assert contours.names == tuple(name for name in anatomy.NAMES if name in masks)
    for name, mask in masks.items():
        np.testing.assert_array_equal(contours.mask(name), mask, err_msg=name)


# What Contours are


def test_47_structures_with_every_allowed_overlap_take_four_layers() -> None:
    contours = every_structure()
    assert contours.layers.shape[0] == 4
    assert_same_masks(contours, every_structure_masks())


def test_structures_are_placed_where_the_table_has_them() -> None:
    contours = every_structure()
    assert {n: (f.layer, f.value) for n, f in contours.structures.items()} == {
        name: anatomy.layer_and_value(name) for name in anatomy.NAMES
    }


@pytest.mark.parametrize("seed", range(3))
def test_organs_that_should_not_overlap_but_do_keep_every_voxel(seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = {name: random.random((5, 6, 7)) < 0.3 for name in ("Parotid_L", "Mandible_L", "Brain", "GTVnd", "GTVp")}
    assert_same_masks(Contours.from_masks(masks, STRAIGHT, DEMONSTRATION), masks)


def test_masks_may_come_one_at_a_time() -> None:
    masks = every_structure_masks()
    assert_same_masks(Contours.from_masks(iter(masks.items()), STRAIGHT, DEMONSTRATION), masks)


def test_volume_is_the_voxels_times_their_size() -> None:
    contours = every_structure()
    brain = int(every_structure_masks()["Brain"].sum())
    assert contours.structures["Brain"].voxels == brain
    assert contours.structures["Brain"].volume_cc == pytest.approx(brain * 1.0 * 1.5 * 3.0 / 1000)


def test_the_bounding_box_holds_the_structure_and_no_smaller_one_does() -> None:
    contours = every_structure()
    for name, mask in every_structure_masks().items():
        inside, box = contours.mask_in_box(name)
        np.testing.assert_array_equal(inside, mask[box])
        assert inside.sum() == mask.sum()
        for axis in range(3):
            rows = inside.any(axis=tuple({0, 1, 2} - {axis}))
            assert rows[0] and rows[-1]


def test_facts_are_right_where_rows_are_no_multiple_of_eight_voxels() -> None:
    mask = np.random.default_rng(0).random((3, 5, 7)) < 0.2
    facts = Contours.from_masks({"Larynx": mask}, STRAIGHT, DEMONSTRATION).structures["Larynx"]
    z, y, x = np.nonzero(mask)
    assert facts.voxels == mask.sum()
    assert facts.box == tuple(slice(axis.min(), axis.max() + 1) for axis in (z, y, x))


@pytest.mark.parametrize(
    ("zyx", "geometry", "faces"),
    [
        ((2, 3, 3), "straight", ()),
        ((0, 3, 3), "straight", ("feet",)),
        ((4, 3, 3), "straight", ("head",)),
        ((2, 0, 6), "straight", ("left", "front")),
        ((2, 5, 0), "straight", ("right", "back")),
        ((2, 3, 0), "left and right swapped", ("left",)),
        ((0, 3, 3), "head first backwards", ("head",)),
        ((0, 3, 3), "sagittal", ("right",)),
        ((2, 0, 3), "sagittal", ("feet",)),
    ],
)
def test_touching_the_edge_of_the_scan_is_named_from_the_patients_side(
    zyx: tuple[int, int, int], geometry: str, faces: tuple[str, ...]
) -> None:
    facts = one_voxel("GTVp", zyx, GEOMETRIES[geometry]).structures["GTVp"]
    assert (facts.cut_at, facts.touches_edge) == (faces, bool(faces))


def test_an_empty_structure_stays_with_volume_0() -> None:
    contours = Contours.from_masks({"Lens_L": np.zeros((3, 4, 5), dtype=bool)}, STRAIGHT, DEMONSTRATION)
    assert contours.is_empty("Lens_L")
    assert contours.structures["Lens_L"].volume_cc == 0
    assert contours.mask_in_box("Lens_L")[0].size == 0


def test_the_fingerprint_changes_when_one_voxel_moves() -> None:
    prints = {one_voxel("GTVp", (2, 3, x), STRAIGHT).structures["GTVp"].fingerprint for x in range(7)}
    assert len(prints) == 7


def test_a_subset_holds_the_chosen_structures_only() -> None:
    masks = every_structure_masks()
    subset = every_structure().subset(["Parotid_L", "Hippocampus_L"])
    assert_same_masks(subset, {name: masks[name] for name in ("Hippocampus_L", "Parotid_L")})
    assert np.count_nonzero(subset.layers) == masks["Hippocampus_L"].sum() + masks["Parotid_L"].sum()


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"Spleen": (0, 1)}, "Spleen"),
        ({"Brain": (0, 1), "GTVp": (0, 1)}, "share"),
        ({"Brain": (1, 1)}, "layer 1"),
        ({"Brain": (0, 0)}, "value 0"),
        ({"Brain": (0, 2)}, "value 1, which belongs to no structure"),
        ({}, "no structure"),
    ],
)
def test_a_placement_that_does_not_fit_the_layers_is_refused(
    placement: dict[str, tuple[int, int]], message: str
) -> None:
    layers = np.zeros((1, 3, 4, 5), dtype=np.uint8)
    layers[0, 1, 1, 1] = 1
    with pytest.raises(InputError, match=message):
        Contours.from_layers(layers, STRAIGHT, placement, DEMONSTRATION)


def test_layers_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match="int16"):
        Contours.from_layers(np.zeros((1, 3, 4, 5), dtype=np.int16), STRAIGHT, {"Brain": (0, 1)}, DEMONSTRATION)


def test_masks_of_different_sizes_are_refused() -> None:
    masks = {"Brain": np.zeros((3, 4, 5), dtype=bool), "Eye_L": np.zeros((3, 4, 6), dtype=bool)}
    with pytest.raises(InputError, match="Eye_L"):
        Contours.from_masks(masks, STRAIGHT, DEMONSTRATION)


def test_provenance_survives_json() -> None:
    assert Provenance.from_json(DEMONSTRATION.to_json()) == DEMONSTRATION


@pytest.mark.parametrize("text", ["", "{}", '{"model_name": "x"}', "[1]", '{"remarks": [], "input_series_uids": 3}'])
def test_damaged_provenance_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        Provenance.from_json(text)


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        (DEMONSTRATION, "DEMONSTRATION MODEL Phantom 0.3, not for clinical use"),
        (Provenance("Net", "1.2", intended_use="research"), "research model Net 1.2"),
        (Provenance("Net", "1.2", intended_use="clinical"), "(model Net 1.2)"),
        (Provenance(), "source not stated"),
    ],
)
def test_the_title_says_what_made_the_contours_and_that_nobody_reviewed_them(
    provenance: Provenance, words: str
) -> None:
    title = every_structure(provenance=provenance).title
    assert words in title
    assert title.endswith("not reviewed")


# Slicer's .seg.nrrd


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_seg_nrrd_comes_back_as_it_was_written(geometry: Geometry, tmp_path: Path) -> None:
    contours = every_structure(geometry)
    write_seg_nrrd(contours, tmp_path / "c.seg.nrrd")
    back = read_seg_nrrd(tmp_path / "c.seg.nrrd")
    assert_same_masks(back, every_structure_masks())
    assert same_grid(back.geometry, back.shape, contours.geometry, contours.shape)
    assert back.provenance == contours.provenance
    assert {f.origin for f in back.structures.values()} == {"model"}
    assert {n: f.confidence for n, f in back.structures.items() if f.confidence} == {"Brain": 0.9321, "Lens_L": 0.5}
    assert back.left_out == ()


def test_another_nrrd_reader_finds_the_same_layers_and_geometry(tmp_path: Path) -> None:
    contours = every_structure(GEOMETRIES["oblique"])
    write_seg_nrrd(contours, tmp_path / "c.seg.nrrd")
    voxels, header = nrrd.read(str(tmp_path / "c.seg.nrrd"))
    np.testing.assert_array_equal(voxels.transpose(0, 3, 2, 1), contours.layers)
    np.testing.assert_allclose(header["space directions"][1:].T, contours.geometry.index_to_lps[:3, :3])
    np.testing.assert_allclose(header["space origin"], contours.geometry.origin_mm)
    assert header["kinds"] == ["list", "domain", "domain", "domain"]


def test_the_stated_extent_of_a_segment_is_its_bounding_box_in_x_y_z(tmp_path: Path) -> None:
    write_seg_nrrd(one_voxel("GTVp", (4, 3, 2), STRAIGHT), tmp_path / "c.seg.nrrd")
    assert nrrd.read_header(str(tmp_path / "c.seg.nrrd"))["Segment0_Extent"] == "2 2 3 3 4 4"


def test_an_empty_structure_survives_the_file(tmp_path: Path) -> None:
    masks = {"Brain": np.ones((3, 4, 5), dtype=bool), "GTVp": np.zeros((3, 4, 5), dtype=bool)}
    write_seg_nrrd(Contours.from_masks(masks, STRAIGHT, DEMONSTRATION), tmp_path / "c.seg.nrrd")
    assert_same_masks(read_seg_nrrd(tmp_path / "c.seg.nrrd"), masks)


def test_a_file_without_provenance_says_so(tmp_path: Path) -> None:
    path = tmp_path / "c.seg.nrrd"
    write_plain_seg_nrrd(path, {"Segment0_ID": "a", "Segment0_Name": "brain"})
    contours = read_seg_nrrd(path)
    assert contours.structures["Brain"].origin == "imported"
    assert "does not say" in contours.provenance.remarks[0]


def write_plain_seg_nrrd(path: Path, notes: dict[str, str], voxels: np.ndarray | None = None, **fields: str) -> None:
    """A .seg.nrrd of 3 x 4 x 5 voxels (x, y, z), as somebody else's program might write it."""
    header = {
        "space": "right-anterior-superior",
        "space directions": [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 3.0]],
        "space origin": [1.0, 2, 3],
        **fields,
        **notes,
    }
    nrrd.write(str(path), np.ones((3, 4, 5), dtype=np.int16) if voxels is None else voxels, header)


def test_a_file_in_ras_lies_where_it_says(tmp_path: Path) -> None:
    path = tmp_path / "c.seg.nrrd"
    write_plain_seg_nrrd(path, {"Segment0_ID": "a", "Segment0_Name": "Brain"})
    geometry = read_seg_nrrd(path).geometry
    np.testing.assert_allclose(geometry.to_lps(np.array([1, 1, 1])), [-2.0, -3.0, 6.0])


def test_label_values_above_255_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.seg.nrrd"
    voxels = np.zeros((3, 4, 5), dtype=np.int16)
    voxels[1, 2, 3] = 300
    voxels[0, 0, 0] = 44  # 300 and 44 are one in 8 bits
    notes = {"Segment0_ID": "a", "Segment0_Name": "Brain", "Segment0_LabelValue": "300", "Segment0_Layer": "0"}
    write_plain_seg_nrrd(path, notes, voxels)
    np.testing.assert_array_equal(np.argwhere(read_seg_nrrd(path).mask("Brain")), [[3, 2, 1]])


def test_segments_that_are_no_segrap_structures_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "c.seg.nrrd"
    notes = {"Segment0_ID": "a", "Segment0_Name": "Brain", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    notes |= {"Segment1_ID": "b", "Segment1_Name": "Ring", "Segment1_LabelValue": "2", "Segment1_Layer": "0"}
    write_plain_seg_nrrd(path, notes)
    assert read_seg_nrrd(path).left_out == ("Ring",)


@pytest.mark.parametrize(
    ("names", "message"),
    [(("Ring", "PTV"), "It holds Ring, PTV"), (("Brain", "BRAIN"), "two segments named Brain"), ((), "no segment")],
)
def test_a_file_without_clear_segrap_structures_is_refused(
    names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.seg.nrrd"
    notes = {f"Segment{n}_{key}": name for n, name in enumerate(names) for key in ("ID", "Name")}
    notes |= {f"Segment{n}_Layer": "0" for n in range(len(names))}
    write_plain_seg_nrrd(path, notes)
    with pytest.raises(InputError, match=message):
        read_seg_nrrd(path)


def test_a_file_cut_short_at_any_place_is_refused(tmp_path: Path) -> None:
    write_seg_nrrd(every_structure(), tmp_path / "whole.seg.nrrd")
    whole = (tmp_path / "whole.seg.nrrd").read_bytes()
    short = tmp_path / "short.seg.nrrd"
    for length in (0, 3, 100, whole.index(b"\n\n"), len(whole) // 2, len(whole) - 4, len(whole) - 1):
        short.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_seg_nrrd(short)


def test_a_file_with_a_broken_voxel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.seg.nrrd"
    write_seg_nrrd(every_structure(), path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in gzip's checksum
    path.write_bytes(data)
    with pytest.raises(InputError, match="broken"):
        read_seg_nrrd(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"type: unsigned char", b"type: float"), "float"),
        ((b"space origin: ", b"space origin: x"), "segmentation"),
        ((b"_Layer:=3", b"_Layer:=9"), "contradict"),
        ((b"encoding: gzip", b"encoding: bzip2"), "Save it from Slicer"),
        ((b"kinds: list", b"data file: other.raw\nkinds: list"), "Save it from Slicer"),
        ((b"_LabelValue:=2\n", b"_LabelValue:=1\n"), "label value"),
        ((b"NRRD0004", b"NIFTI"), "no .seg.nrrd"),
        ((b"space: left-posterior-superior", b"space: scanner-xyz"), "scanner-xyz"),
    ],
)
def test_a_header_that_cannot_be_honoured_is_refused(change: tuple[bytes, bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.seg.nrrd"
    write_seg_nrrd(every_structure(), path)
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(InputError, match=message):
        read_seg_nrrd(path)


@pytest.mark.parametrize("reader", [read_seg_nrrd, read_challenge_mha, read_nifti_folder])
def test_a_missing_file_is_refused(reader: Callable[[Path], Contours], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        reader(tmp_path / "absent")


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
        "origin": "model",
    }


# Whole or not at all


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
