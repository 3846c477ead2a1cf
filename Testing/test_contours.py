"""Contours: nothing is flattened, nothing is lost, and they say where they come from."""

from __future__ import annotations

import json

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

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.errors import InputError


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


def test_provenance_of_a_later_version_is_read_without_what_is_new_in_it() -> None:
    later = json.dumps(json.loads(DEMONSTRATION.to_json()) | {"reviewer": "somebody"})
    assert Provenance.from_json(later) == DEMONSTRATION


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
