"""Slicer's .seg.nrrd files: as written, as Slicer or others write them, and refused when they are damaged."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
from made_contours import (
    DEMONSTRATION,
    GEOMETRIES,
    STRAIGHT,
    assert_same_masks,
    every_structure,
    every_structure_masks,
    one_voxel,
)

from segrap.contour_files.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from segrap.contours import Contours
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid


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
    folds = {n: f.fold_disagreement for n, f in back.structures.items() if f.fold_disagreement}
    assert folds == {"Brain": 0.0125, "Lens_L": 0.25}
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
