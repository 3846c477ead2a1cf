"""Scores of one structure: the challenge's definitions and regression vectors, and DeepMind's surface-distance."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import surface_distance
from surface_distance import lookup_tables

from segrap.errors import UsageError
from segrap.evaluation.metrics import (
    SurfaceDistances,
    added_path_length_mm,
    challenge_rounding,
    missing,
    score,
    tolerances_mm,
)
from segrap.evaluation.nearest import nearest_mm
from segrap.evaluation.surfels import Cutout, surface_of, surfel_areas_mm2

SEGRAP_SPACING_MM = (0.5234375, 0.5234375, 3.0)


def box(shape: tuple[int, int, int], z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[z, y, x] = True
    return mask


def blob(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A random lump with holes, islands and a ragged surface; at the edge of the volume now and then."""
    z, y, x = np.indices(shape)
    centre = [random.uniform(0.2, 0.8) * n for n in shape]
    radius = [random.uniform(0.2, 0.6) * n for n in shape]
    distance = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radius, strict=True))
    return np.asarray(distance + random.normal(0, 0.25, shape) < 1)


# --- the challenge's vectors ---


def test_a_single_voxel_has_eight_border_points_of_area_1_732():
    surface = surface_of(Cutout.of(box((3, 3, 3), slice(1, 2), slice(1, 2), slice(1, 2))), (1.0, 1.0, 1.0))
    assert len(surface.areas_mm2) == 8
    assert surface.areas_mm2.sum() == pytest.approx(1.7320508, abs=1e-7)


def test_a_cube_that_fills_its_volume_has_a_whole_surface():
    surface = surface_of(Cutout.of(np.ones((4, 4, 4), dtype=bool)), (1.0, 1.0, 1.0))
    assert surface.areas_mm2.sum() == pytest.approx(81.187895, abs=1e-6)


@pytest.mark.parametrize(
    ("axis", "shift", "dsc", "nsd"),
    [
        (0, 1, 0.8571, (0.7746, 0.8055, 1.0)),
        (1, 1, 0.95, (1.0, 1.0, 1.0)),
        (1, 2, 0.90, (0.6391, 1.0, 1.0)),
    ],
)
def test_shifted_boxes_score_as_in_the_challenge(axis: int, shift: int, dsc: float, nsd: tuple[float, ...]):
    reference = box((20, 40, 40), slice(5, 12), slice(10, 30), slice(10, 30))
    prediction = np.roll(reference, shift, axis)
    found = [score(reference, prediction, SEGRAP_SPACING_MM, tolerance) for tolerance in (1.0, 2.0, 3.0)]
    assert challenge_rounding(found[0].dsc) == dsc
    assert tuple(challenge_rounding(one.nsd) for one in found) == nsd


FULL = box((6, 8, 8), slice(2, 4), slice(2, 6), slice(2, 6))
EMPTY = np.zeros_like(FULL)


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"), [(EMPTY, EMPTY, 1), (EMPTY, FULL, 0), (FULL, EMPTY, 0), (FULL, FULL, 1)]
)
def test_empty_contours_score_as_in_the_challenge(reference: np.ndarray, prediction: np.ndarray, expected: int):
    found = score(reference, prediction, SEGRAP_SPACING_MM, 1.0)
    assert (found.dsc, found.nsd) == (expected, expected)


@pytest.mark.parametrize(("reference", "prediction"), [(EMPTY, EMPTY), (EMPTY, FULL), (FULL, EMPTY)])
def test_without_two_surfaces_there_is_no_distance(reference: np.ndarray, prediction: np.ndarray):
    found = score(reference, prediction, SEGRAP_SPACING_MM, 1.0)
    assert math.isnan(found.hd95_mm) and math.isnan(found.mean_surface_distance_mm)


def test_a_structure_that_was_not_handed_in_scores_0_even_where_the_reference_is_empty():
    assert [
        (missing(mask, SEGRAP_SPACING_MM, 1.0).dsc, missing(mask, SEGRAP_SPACING_MM, 1.0).nsd) for mask in (EMPTY, FULL)
    ] == [(0.0, 0.0), (0.0, 0.0)]


def test_scores_are_rounded_to_four_decimals_of_the_case():
    assert challenge_rounding(2 / 3) == 0.6667


def test_published_tolerances_are_1_mm_but_for_larynx_and_oral_cavity():
    wide = {name: value for name, value in tolerances_mm("published").items() if value != 1.0}
    assert wide == {"Larynx": 2.0, "OralCavity": 3.0}


def test_in_the_2023_test_channels_14_and_27_had_the_wide_tolerances():
    wide = {name: value for name, value in tolerances_mm("2023-test-as-run").items() if value != 1.0}
    assert wide == {"MiddleEar_R": 2.0, "Mandible_L": 3.0}


def test_an_unknown_tolerance_profile_is_refused():
    with pytest.raises(UsageError, match="published"):
        tolerances_mm("generous")  # type: ignore[arg-type]


# --- against the surface-distance package ---


@pytest.mark.parametrize("spacing_zyx", [(1.0, 1.0, 1.0), (3.0, 0.5234375, 0.5234375), (3.02308, 0.7, 1.3)])
def test_surfel_areas_equal_the_table_of_surface_distance(spacing_zyx: tuple[float, float, float]):
    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_zyx)
    np.testing.assert_allclose(surfel_areas_mm2(spacing_zyx), theirs, rtol=1e-14)


def assert_equal_to_surface_distance(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, float, float]
) -> None:
    spacing_zyx = spacing_mm[::-1]
    theirs = surface_distance.compute_surface_distances(reference, prediction, spacing_zyx)
    hd95 = surface_distance.compute_robust_hausdorff(theirs, 95)
    mean = np.mean(surface_distance.compute_average_surface_distance(theirs))
    for tolerance in (1.0, 2.0, 3.0):
        ours = score(reference, prediction, spacing_mm, tolerance)
        nsd = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        dsc = surface_distance.compute_dice_coefficient(reference, prediction)
        assert (ours.nsd, ours.dsc) == (pytest.approx(nsd, abs=1e-9), pytest.approx(dsc, abs=1e-9))
        assert ours.hd95_mm == pytest.approx(hd95, abs=1e-9)
        assert ours.mean_surface_distance_mm == pytest.approx(mean, abs=1e-9)


SPACINGS_MM = [
    (1.0, 1.0, 1.0),
    SEGRAP_SPACING_MM,
    (0.54199219, 0.54199219, 3.02308),
    (0.2, 0.2, 1.0),  # 3, 4, 5 steps: distances equal to the tolerance by several ways
    (0.6, 0.6, 2.5),
    (1.1309, 0.9, 0.7),
]


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("seed", range(5))
def test_random_masks_score_as_with_surface_distance(seed: int, spacing_mm: tuple[float, float, float]):
    random = np.random.default_rng([seed, *(int(1000 * value) for value in spacing_mm)])
    shape = (14, 22, 18)
    assert_equal_to_surface_distance(blob(random, shape), blob(random, shape), spacing_mm)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_white_noise_scores_as_with_surface_distance(spacing_mm: tuple[float, float, float]):
    random = np.random.default_rng(7)
    reference, prediction = (random.random((9, 12, 10)) < share for share in (0.5, 0.03))
    assert_equal_to_surface_distance(reference, prediction, spacing_mm)


def test_structures_of_one_slice_score_as_with_surface_distance():
    reference = box((5, 20, 20), slice(2, 3), slice(4, 15), slice(5, 14))
    prediction = box((5, 20, 20), slice(3, 4), slice(5, 17), slice(5, 12))
    assert_equal_to_surface_distance(reference, prediction, SEGRAP_SPACING_MM)


def test_an_island_far_away_scores_as_with_surface_distance():
    reference = box((30, 60, 60), slice(4, 9), slice(5, 15), slice(5, 17))
    prediction = reference.copy()
    prediction[29, 59, 59] = True
    assert_equal_to_surface_distance(reference, prediction, SEGRAP_SPACING_MM)


@pytest.mark.parametrize("value", range(1, 8))
def test_real_contours_of_openkbp_score_as_with_surface_distance(shared_data: Path, value: int):
    from segrap.image import read_image

    labels = read_image(shared_data / "openkbp" / "validation" / "pt_201" / "labels.nii.gz")
    reference = labels.array == value
    if not reference.any():
        pytest.skip("not contoured in this patient")
    prediction = np.roll(reference, (1, 0, -1), (0, 1, 2))
    prediction[reference.nonzero()[0].min()] = False
    assert_equal_to_surface_distance(reference, prediction, labels.geometry.spacing_mm)


def test_the_challenges_example_scores_as_with_surface_distance(shared_data: Path):
    from segrap.contour_files.formats import read_challenge_mha

    contours = read_challenge_mha(shared_data / "segrap_example" / "gtvs_output_example.mha")
    mask, _ = contours.mask_in_box("GTVnd")
    reference = np.pad(mask, 3)
    assert_equal_to_surface_distance(reference, np.roll(reference, (1, 2, 3), (0, 1, 2)), contours.geometry.spacing_mm)


@pytest.mark.parametrize("spacing_zyx", [(3.0, 0.5, 0.5), (0.1, 0.1, 0.1), (5.0, 4.0, 4.0), (0.3, 2.9, 3.1)])
def test_nearest_distances_equal_those_of_trying_every_pair(spacing_zyx: tuple[float, float, float]):
    random = np.random.default_rng(5)
    points, others = random.integers(0, 40, (300, 3)), random.integers(10, 60, (200, 3))
    others = np.concatenate([others, points[:40]])
    steps = (points[:, None] - others[None]) * np.asarray(spacing_zyx)
    np.testing.assert_allclose(nearest_mm(points, others, spacing_zyx), np.linalg.norm(steps, axis=2).min(axis=1))


# --- what a clinic asks besides ---


def test_swapping_reference_and_prediction_changes_the_sign_of_the_volume_difference_only():
    random = np.random.default_rng(3)
    a, b = blob(random, (10, 16, 16)), blob(random, (10, 16, 16))
    forth, back = score(a, b, SEGRAP_SPACING_MM, 1.0), score(b, a, SEGRAP_SPACING_MM, 1.0)
    assert (forth.dsc, forth.hd95_mm) == (back.dsc, back.hd95_mm)
    assert forth.nsd == pytest.approx(back.nsd, abs=1e-12)
    assert forth.volume_difference_cc == -back.volume_difference_cc != 0


def test_volumes_are_in_cubic_centimetres_and_per_cent_of_the_reference():
    reference = box((12, 12, 12), slice(1, 11), slice(1, 11), slice(1, 11))
    prediction = box((12, 12, 12), slice(1, 11), slice(1, 11), slice(1, 6))
    found = score(reference, prediction, (1.0, 1.0, 1.0), 1.0)
    assert (found.reference_cc, found.prediction_cc) == (1.0, 0.5)
    assert (found.volume_difference_cc, found.volume_difference_percent) == (-0.5, -50.0)


def test_the_added_path_of_a_missed_slice_is_the_length_of_its_outline():
    reference = box((6, 12, 12), slice(1, 4), slice(2, 10), slice(2, 10))
    prediction = reference.copy()
    prediction[2] = False
    # 8 x 8 voxels have an outline of 28 voxels of 0.5 mm; the slices above and below do not stand in for it.
    assert added_path_length_mm(Cutout.of(reference), Cutout.of(prediction), (0.5, 0.5, 0.1), 1.0) == 28 * 0.5


def test_the_added_path_spares_what_lies_within_the_tolerance():
    reference = box((3, 12, 12), slice(1, 2), slice(2, 10), slice(2, 10))
    prediction = box((3, 12, 12), slice(1, 2), slice(2, 10), slice(2, 8))
    lengths = [
        added_path_length_mm(Cutout.of(reference), Cutout.of(prediction), (1.0, 1.0, 3.0), tolerance)
        for tolerance in (0.0, 1.0, 2.0)
    ]
    # The right border of 8 voxels, and the end of the upper and the lower border beside it, are 2 voxels off.
    assert lengths == [10.0, 8.0, 0.0]


@pytest.mark.parametrize(("reference", "prediction", "length"), [(EMPTY, FULL, 0.0), (FULL, EMPTY, 24.0)])
def test_the_added_path_of_empty_contours(reference: np.ndarray, prediction: np.ndarray, length: float):
    found = score(reference, prediction, (1.0, 1.0, 3.0), 1.0)
    assert found.added_path_length_mm == length


def test_a_structure_keeps_its_scores_when_its_array_is_turned():
    random = np.random.default_rng(11)
    a, b = blob(random, (10, 16, 16)), blob(random, (10, 16, 16))
    flipped = score(a[::-1, :, ::-1], b[::-1, :, ::-1], SEGRAP_SPACING_MM, 1.0)
    straight = score(a, b, SEGRAP_SPACING_MM, 1.0)
    assert flipped.nsd == pytest.approx(straight.nsd, abs=1e-12)
    assert flipped.hd95_mm == pytest.approx(straight.hd95_mm, abs=1e-9)


def test_a_distance_equal_to_the_tolerance_is_within_it():
    reference = Cutout.of(box((3, 3, 9), slice(1, 2), slice(1, 2), slice(0, 1)))
    prediction = Cutout.of(box((3, 3, 9), slice(1, 2), slice(1, 2), slice(7, 8)))
    spacing_zyx = (1.0, 1.0, 0.1)
    surfaces = surface_of(reference, spacing_zyx), surface_of(prediction, spacing_zyx)
    distances = SurfaceDistances.between(*surfaces, spacing_zyx)
    assert distances.dice_at(0.7) == 1.0  # the left faces lie 7 x 0.1 mm apart, in floating point a little more
