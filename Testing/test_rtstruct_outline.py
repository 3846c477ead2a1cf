"""Masks as polygons along voxel edges, and polygons as masks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rtstruct_cases import SHAPE, difficult_masks

from segrap.rtstruct.crossings import self_crossing
from segrap.rtstruct.fill import fill, voxels_in_dispute
from segrap.rtstruct.outline import outline, outlines


def filled_again(polygons: list[list[np.ndarray]], shape: tuple[int, int, int]) -> np.ndarray:
    flat = [(z, polygon) for z, of_slice in enumerate(polygons) for polygon in of_slice]
    mask = np.zeros(shape, dtype=bool)
    if flat:
        region = fill(
            np.concatenate([polygon for _, polygon in flat]),
            np.array([len(polygon) for _, polygon in flat]),
            np.array([z for z, _ in flat]),
            shape,
        )
        mask[region.box] = region.mask
    return mask


def winding_numbers(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """How often the polygons go around each voxel centre: an independent, slow count of crossings to its left."""
    winding = np.zeros(shape, dtype=int)
    for polygon in polygons:
        for (x0, y0), (_, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            rows = slice(int(np.ceil(min(y0, y1))), int(np.ceil(max(y0, y1))))
            winding[rows, int(np.ceil(x0)) :] += int(np.sign(y1 - y0))
    return winding


def enclosed_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


MASKS = difficult_masks()
NOISE = {f"noise of {density:.0%}": np.random.default_rng(7).random(SHAPE) < density for density in (0.1, 0.5, 0.9)}


def test_a_single_voxel_becomes_the_square_around_it():
    mask = np.zeros((5, 5), dtype=bool)
    mask[2, 3] = True
    (square,) = outline(mask)
    assert square.tolist() == [[2.5, 1.5], [3.5, 1.5], [3.5, 2.5], [2.5, 2.5]]


def test_a_straight_edge_has_no_points_but_its_corners():
    (rectangle,) = outline(np.ones((7, 9), dtype=bool))
    assert len(rectangle) == 4
    assert enclosed_area(rectangle) == 63


def test_an_empty_mask_has_no_polygon():
    assert outline(np.zeros((4, 4), dtype=bool)) == []


def test_voxels_that_touch_by_a_corner_become_two_polygons():
    polygons = outline(np.eye(2, dtype=bool))
    assert [enclosed_area(polygon) for polygon in polygons] == [1.0, 1.0]


def test_a_hole_and_its_surroundings_become_one_polygon_with_a_cut_of_no_width():
    mask = np.ones((5, 5), dtype=bool)
    mask[2, 2] = False
    (ring,) = outline(mask)
    assert enclosed_area(ring) == 24
    edges = {(tuple(a), tuple(b)) for a, b in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True)}
    assert [(a, b) for a, b in edges if (b, a) in edges and a[1] < b[1]] == [((1.5, -0.5), (1.5, 1.5))]


def test_an_island_in_a_hole_is_a_polygon_of_its_own():
    mask = np.ones((7, 7), dtype=bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert sorted(enclosed_area(polygon) for polygon in outline(mask)) == [1.0, 24.0]


@pytest.mark.parametrize("name", [*MASKS, *NOISE])
def test_the_polygons_enclose_exactly_the_voxels(name):
    mask = (MASKS | NOISE)[name]
    assert np.array_equal(filled_again(outlines(mask), mask.shape), mask)


@pytest.mark.parametrize("name", ["OralCavity", "GTVp", "Trachea", "noise of 50%", "noise of 90%"])
def test_even_odd_and_non_zero_readers_see_the_same_voxels_around_holes(name):
    mask = (MASKS | NOISE)[name]
    for of_slice, polygons in zip(mask, outlines(mask), strict=True):
        winding = winding_numbers(polygons, of_slice.shape)
        assert np.array_equal(winding != 0, of_slice)
        assert np.array_equal(winding % 2 == 1, of_slice)


@pytest.mark.parametrize("name", ["Trachea", "noise of 50%", "noise of 90%"])
def test_no_polygon_crosses_itself_or_repeats_a_point_at_once(name):
    for polygons in filter(None, outlines((MASKS | NOISE)[name])):
        for polygon in polygons:
            steps = np.abs(np.roll(polygon, -1, axis=0) - polygon)
            assert ((steps > 0).sum(axis=1) == 1).all()
        points = np.concatenate(polygons)
        lengths = np.array([len(polygon) for polygon in polygons])
        assert not self_crossing(np.column_stack((points, np.zeros(len(points)))), lengths).any()


def test_filling_takes_the_voxels_whose_centres_are_inside():
    triangle = np.array([[0.6, 0.6], [4.3, 0.6], [0.6, 4.3]])
    region = fill(triangle, np.array([3]), np.array([1]), (3, 6, 6))
    inside = {(y + region.first[1], x + region.first[2]) for _, y, x in np.argwhere(region.mask)}
    assert region.first[0] == 1
    assert inside == {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1)}


def test_filling_leaves_out_what_lies_beyond_the_grid():
    square = np.array([[-3.0, -3.0], [1.5, -3.0], [1.5, 1.5], [-3.0, 1.5]])
    region = fill(square, np.array([4]), np.array([0]), (1, 5, 5))
    assert region.first == (0, 0, 0)
    assert region.mask.sum() == 4


def test_a_contour_inside_another_of_the_slice_is_a_hole():
    outer = np.array([[-0.5, -0.5], [4.5, -0.5], [4.5, 4.5], [-0.5, 4.5]])
    inner = outer * 0.2 + 1.6
    region = fill(np.concatenate((outer, inner)), np.array([4, 4]), np.array([0, 0]), (1, 5, 5))
    assert region.mask.sum() == 24
    assert not region.mask[0, 2, 2]


def test_voxels_that_readers_dispute_are_those_inside_two_contours_of_a_slice():
    outer = np.array([[-0.5, -0.5], [4.5, -0.5], [4.5, 4.5], [-0.5, 4.5]])
    points = np.concatenate((outer, outer * 0.4 + 1.2, outer + 10, outer * 0.4 + 11.2))
    for slices, disputed in (([0, 0, 0, 0], 8), ([0, 1, 0, 0], 4), ([0, 1, 2, 3], 0)):
        assert voxels_in_dispute(points, np.array([4, 4, 4, 4]), np.array(slices), (4, 20, 20)) == disputed


def test_readers_dispute_nothing_in_what_we_outline():
    for mask in (MASKS | NOISE).values():
        flat = [(z, polygon) for z, of_slice in enumerate(outlines(mask)) for polygon in of_slice]
        points = np.concatenate([polygon for _, polygon in flat])
        lengths = np.array([len(polygon) for _, polygon in flat])
        assert voxels_in_dispute(points, lengths, np.array([z for z, _ in flat]), mask.shape) == 0


@pytest.mark.parametrize(
    ("points", "crosses"),
    [
        ([(0, 0), (4, 4), (4, 0), (0, 4)], True),
        ([(0, 0), (4, 0), (4, 4), (0, 4)], False),
        ([(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (3, 6), (6, 6), (6, 3), (3, 3)], False),  # a keyhole
        ([(0, 0), (2, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2), (0, 2)], False),  # touches itself in a point
        ([(0, 0), (4, 0), (4, 0.001), (0, -0.001)], False),  # rounding
    ],
    ids=["bow tie", "square", "keyhole", "touching", "rounding"],
)
def test_crossing_is_told_from_touching(points, crosses):
    flat = np.array(points, dtype=float)
    for axis in range(3):  # whichever way the slice lies
        points_mm = np.insert(flat, axis, 5.0, axis=1)
        assert self_crossing(points_mm, np.array([len(points)])).tolist() == [crosses]


def test_a_brain_at_full_resolution_is_outlined_in_a_fraction_of_a_second():
    z, y, x = np.ogrid[:30, :400, :380]
    folds = 0.05 * np.sin(x / 3.0) * np.sin(y / 3.0)
    brain = ((x - 190) / 180) ** 2 + ((y - 200) / 185) ** 2 + ((z - 15) / 14) ** 2 < 1 + folds
    started = time.process_time()
    polygons = outlines(brain)
    assert time.process_time() - started < 2.0
    assert np.array_equal(filled_again(polygons, brain.shape), brain)
