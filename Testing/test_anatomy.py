"""The table of structures: what SegRap2023 defines, what planning systems accept, and the sub-class algebra."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from segrap import anatomy
from segrap.errors import InputError, UsageError


@pytest.fixture(scope="module")
def subclasses() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 57, (11, 12, 13)).astype(np.uint8)


def test_there_are_45_organs_and_2_targets_of_47_different_names() -> None:
    assert (len(anatomy.ORGANS), len(anatomy.TARGETS)) == (45, 2)
    assert len({name.casefold() for name in anatomy.NAMES}) == 47


def test_channels_are_the_challenges_order() -> None:
    channels = {s.name: s.channel for s in anatomy.STRUCTURES}
    expected = {"Brain": 0, "Lens_R": 10, "ETbone_R": 24, "Pituitary": 25, "SpinalCord": 37, "Trachea": 44}
    assert {name: channels[name] for name in expected} == expected
    assert (channels["GTVp"], channels["GTVnd"]) == (0, 1)


def test_alphabetical_order_ignores_letter_case() -> None:
    names = [organ.name for organ in anatomy.alphabetical()]
    assert names[:4] == ["Brain", "BrainStem", "Chiasm", "Cochlea_L"]
    assert names.index("TMjoint_R") < names.index("Trachea") < names.index("TympanicCavity_L")


def test_tg263_names_fit_into_16_plain_characters() -> None:
    assert [s.tg263_name for s in anatomy.STRUCTURES if not re.fullmatch(r"[A-Za-z0-9_]{1,16}", s.tg263_name)] == []


def test_tg263_names_differ_even_where_letter_case_is_ignored() -> None:
    assert len({s.tg263_name.casefold() for s in anatomy.STRUCTURES}) == 47


@pytest.mark.parametrize(
    ("name", "tg263_name", "snomed_code"),
    [
        ("BrainStem", "Brainstem", "119238007"),
        ("OpticNerve_R", "OpticNrv_R", "18234004"),
        ("MiddleEar_L", "Ear_Middle_L", "117590005"),
        ("PharynxConst", "Musc_Constrict", "4866005"),
        ("Larynx_Supraglot", "Larynx_SG", "119255006"),
        ("GTVnd", "GTVn", "14799000"),
    ],
)
def test_names_and_codes_are_those_looked_up(name: str, tg263_name: str, snomed_code: str) -> None:
    structure = anatomy.structure(name)
    assert (structure.tg263_name, structure.snomed[0]) == (tg263_name, snomed_code)


def test_colours_are_all_different() -> None:
    assert len({s.colour for s in anatomy.STRUCTURES}) == 47


def test_left_and_right_have_visibly_different_colours() -> None:
    pairs = [(s, anatomy.structure(s.name[:-1] + "R")) for s in anatomy.ORGANS if s.laterality == "left"]
    assert len(pairs) == 16
    assert min(np.abs(np.subtract(left.colour, right.colour)).sum() for left, right in pairs) >= 60


def test_laterality_follows_the_name() -> None:
    sides = {"_L": "left", "_R": "right"}
    assert all(s.laterality == sides.get(s.name[-2:], "") for s in anatomy.STRUCTURES)


def test_the_nsd_tolerance_is_1_mm_but_for_larynx_and_oral_cavity() -> None:
    wider = {s.name: s.nsd_tolerance_mm for s in anatomy.STRUCTURES if s.nsd_tolerance_mm != 1}
    assert wider == {"Larynx": 2, "OralCavity": 3}


def test_the_54_subclasses_have_the_challenges_names() -> None:
    expected = {
        1: "Brain",
        6: "TemporalLobe_Hippocampus_OverLap_L",
        25: "MiddleEar_VestibulSemi_OverLap_R",
        31: "MiddleEar_ETbone_OverLap_R",
        51: "Larynx_PharynxConst_OverLap",
        54: "Trachea",
        55: "GTVp",
        56: "GTVnd",
    }
    assert {number: anatomy.SUBCLASSES[number] for number in expected} == expected
    assert sorted(anatomy.SUBCLASSES) == list(range(1, 57))


def test_23_pairs_of_organs_may_overlap() -> None:
    assert len(anatomy.OVERLAPS) == 23
    assert frozenset(("TemporalLobe_L", "Hippocampus_L")) in anatomy.OVERLAPS
    assert frozenset(("TemporalLobe_L", "Hippocampus_R")) not in anatomy.OVERLAPS


def test_contained_structures_are_those_the_challenge_defines() -> None:
    parents = {"Brain", "Eye_L", "Eye_R", "MiddleEar_L", "MiddleEar_R", "Larynx"}
    assert {parent for _, parent in anatomy.CONTAINMENTS} == parents
    assert {child for child, parent in anatomy.CONTAINMENTS if parent == "Larynx"} == {
        "Larynx_Glottic",
        "Larynx_Supraglot",
    }
    assert {child for child, parent in anatomy.CONTAINMENTS if parent == "MiddleEar_L"} == {"IAC_L", "Cochlea_L"}


def test_four_layers_hold_all_structures_and_no_overlapping_pair_shares_one() -> None:
    assert len(anatomy.LAYERS) == 4
    assert sorted(name for layer in anatomy.LAYERS for name in layer) == sorted(anatomy.NAMES)
    shared = [pair for layer in anatomy.LAYERS for pair in combinations(layer, 2) if anatomy.may_overlap(*pair)]
    assert shared == []


def test_fewer_than_three_layers_cannot_hold_the_organs() -> None:
    triple = ("Brain", "TemporalLobe_L", "Hippocampus_L")
    assert all(frozenset(pair) in anatomy.OVERLAPS for pair in combinations(triple, 2))


def test_masks_of_random_subclasses_overlap_exactly_where_the_table_allows(subclasses: np.ndarray) -> None:
    masks = anatomy.masks_from_subclasses(subclasses)
    organs = [organ.name for organ in anatomy.ORGANS]
    found = {frozenset(pair) for pair in combinations(organs, 2) if (masks[pair[0]] & masks[pair[1]]).any()}
    assert found == anatomy.OVERLAPS


def test_every_voxel_of_a_contained_structure_is_in_its_parent(subclasses: np.ndarray) -> None:
    masks = anatomy.masks_from_subclasses(subclasses)
    assert [pair for pair in anatomy.CONTAINMENTS if (masks[pair[0]] & ~masks[pair[1]]).any()] == []


def test_subclasses_survive_the_way_to_masks_and_back(subclasses: np.ndarray) -> None:
    back, unmodelled = anatomy.subclasses_from_masks(anatomy.masks_from_subclasses(subclasses))
    np.testing.assert_array_equal(back, subclasses)
    assert unmodelled == {}


def test_an_overlap_that_no_subclass_models_is_counted_and_named(subclasses: np.ndarray) -> None:
    masks = anatomy.masks_from_subclasses(subclasses)
    cord = masks["SpinalCord"]
    masks["GTVp"] = masks["GTVp"] | cord
    back, unmodelled = anatomy.subclasses_from_masks(masks)
    assert unmodelled == {"SpinalCord + GTVp": int(cord.sum())}
    np.testing.assert_array_equal(back[~cord], subclasses[~cord])


def test_a_tumour_stays_a_tumour_in_whatever_it_grows_into() -> None:
    """Temporal lobe lies in the brain: both together are nearer to the lobe's sub-class than to the tumour's."""
    grid = np.zeros((1, 1, 6), dtype=bool)
    masks = {organ.name: grid.copy() for organ in anatomy.ORGANS} | {"GTVp": grid.copy(), "GTVnd": grid.copy()}
    masks["Brain"][..., :5] = masks["TemporalLobe_L"][..., 1:4] = masks["GTVp"][..., 2:4] = True
    masks["GTVnd"][..., 3:6] = True
    back, unmodelled = anatomy.subclasses_from_masks(masks)
    names = [anatomy.SUBCLASSES.get(int(number), "") for number in back.ravel()]
    assert names == ["Brain", "TemporalLobe_L", "GTVp", "GTVp", "GTVnd", "GTVnd"]
    assert sum(unmodelled.values()) == 3


def test_without_the_mask_of_an_organ_there_are_no_subclasses(subclasses: np.ndarray) -> None:
    masks = anatomy.masks_from_subclasses(subclasses)
    del masks["Chiasm"], masks["GTVnd"]
    with pytest.raises(ValueError, match="no masks of Chiasm"):
        anatomy.subclasses_from_masks(masks)


def test_the_hippocampus_outside_the_temporal_lobe_still_belongs_to_the_brain() -> None:
    masks = anatomy.masks_from_subclasses(np.array([8], dtype=np.uint8))
    assert [name for name, mask in masks.items() if mask[0]] == ["Brain", "Hippocampus_L"]


def test_a_label_beyond_the_table_is_refused() -> None:
    with pytest.raises(InputError, match="57"):
        anatomy.masks_from_subclasses(np.array([57], dtype=np.uint8))


def test_structures_are_chosen_in_any_letter_case_and_come_in_table_order() -> None:
    assert anatomy.choose(["parotid_l", "BRAIN"]) == ("Brain", "Parotid_L")
    assert anatomy.choose(["gtvs", "Lens_R"]) == ("Lens_R", "GTVp", "GTVnd")


def test_an_unknown_structure_is_named_in_the_refusal() -> None:
    with pytest.raises(UsageError, match="Spleen"):
        anatomy.choose(["Brain", "Spleen"])


def test_published_volumes_lie_inside_their_range() -> None:
    outside = [s.name for s in anatomy.STRUCTURES if not s.volume_range_cc[0] < s.volume_mean_cc < s.volume_range_cc[1]]
    assert outside == []
