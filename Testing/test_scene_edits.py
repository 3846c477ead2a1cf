"""Contours that come back from 3D Slicer, from the scene or from a file, after somebody has edited them there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from made_contours import GEOMETRIES, STRAIGHT, every_structure, every_structure_masks, one_voxel
from slicer_nodes import (
    WAYS_IN,
    Logic,
    add_segment,
    back,
    filled,
    new_node,
    paint,
    save,
    written_and_loaded,
)

from segrap import anatomy
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Provenance
from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.scene.segmentation import contours_from_segmentation


@pytest.fixture
def scene() -> Any:
    return slicer.vtkMRMLScene()


@pytest.fixture(params=WAYS_IN.values(), ids=WAYS_IN)
def way_in(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_unedited_contours_come_back_as_they_were(geometry: Geometry, scene: Any, tmp_path: Path) -> None:
    contours = every_structure(geometry)
    for way in WAYS_IN.values():
        again = back(way(scene, contours, tmp_path), contours)
        np.testing.assert_array_equal(
            [again.structures[n].fingerprint for n in anatomy.NAMES],
            [contours.structures[n].fingerprint for n in anatomy.NAMES],
        )
        assert {facts.origin for facts in again.structures.values()} == {"model"}
        assert again.structures["Brain"].confidence == 0.9321
        assert again.provenance == contours.provenance


def test_painting_one_structure_changes_no_neighbour_in_its_layer(way_in: Any, scene: Any, tmp_path: Path) -> None:
    contours, masks = every_structure(), every_structure_masks()
    node = way_in(scene, contours, tmp_path)
    assert contours.structures["Parotid_L"].layer == contours.structures["Mandible_L"].layer
    brush = masks["Mandible_L"] | masks["Trachea"]
    paint(node, "Parotid_L", brush, contours.geometry)
    again = back(node, contours)
    masks["Parotid_L"] |= brush
    for name, mask in masks.items():
        np.testing.assert_array_equal(again.mask(name), mask, err_msg=name)


def test_only_what_was_edited_is_marked_as_edited_and_loses_the_models_confidence(scene: Any) -> None:
    contours = every_structure()
    node = filled(scene, contours, Path())
    paint(node, "Brain", every_structure_masks()["Trachea"], contours.geometry)
    again = back(node, contours)
    assert [name for name, facts in again.structures.items() if facts.origin == "edited"] == ["Brain"]
    brain, lens = (again.structures[name] for name in ("Brain", "Lens_L"))
    assert (brain.confidence, brain.fold_disagreement) == (None, None)
    assert (lens.confidence, lens.fold_disagreement) == (0.5, 0.25)


def test_a_structure_that_was_erased_comes_back_empty(scene: Any) -> None:
    contours = every_structure()
    node = filled(scene, contours, Path())
    paint(node, "Brain", np.zeros(contours.shape, dtype=bool), contours.geometry, Logic.MODE_REPLACE)
    again = back(node, contours)
    assert again.is_empty("Brain")
    np.testing.assert_array_equal(again.mask("BrainStem"), every_structure_masks()["BrainStem"])


def test_segments_removed_renamed_and_added_by_the_user_are_accounted_for(
    way_in: Any, scene: Any, tmp_path: Path
) -> None:
    contours, masks = every_structure(), every_structure_masks()
    node = way_in(scene, contours, tmp_path)
    segmentation = node.GetSegmentation()
    segmentation.RemoveSegment("Lens_L")
    segmentation.GetSegment("Lens_R").SetName("PTV 70")
    add_segment(node, "Ring", masks["Larynx"], contours.geometry)
    again = back(node, contours)
    assert again.names == tuple(name for name in anatomy.NAMES if name not in ("Lens_L", "Lens_R"))
    assert again.left_out == ("PTV 70", "Ring")
    for name in again.names:
        np.testing.assert_array_equal(again.mask(name), masks[name], err_msg=name)


def test_a_structure_that_the_user_drew_is_taken_and_not_called_the_models(scene: Any) -> None:
    contours = one_voxel("GTVp", (1, 2, 3), STRAIGHT)
    node = filled(scene, contours, Path())
    mask = np.zeros(contours.shape, dtype=bool)
    mask[2, 2:4, 2:4] = True
    add_segment(node, "thyroid", mask, STRAIGHT)
    again = back(node, contours)
    np.testing.assert_array_equal(again.mask("Thyroid"), mask)
    assert again.structures["Thyroid"].origin == "imported"


def test_two_segments_of_one_structure_are_refused(scene: Any) -> None:
    contours = one_voxel("GTVp", (1, 2, 3), STRAIGHT)
    node = filled(scene, contours, Path())
    add_segment(node, "GTVp", contours.mask("GTVp"), STRAIGHT)
    with pytest.raises(InputError, match="two segments named GTVp"):
        back(node, contours)


def test_contours_beyond_the_ct_are_refused(scene: Any) -> None:
    contours = one_voxel("GTVp", (4, 2, 3), STRAIGHT)
    node = filled(scene, contours, Path())
    with pytest.raises(InputError, match="beyond the edge"):
        contours_from_segmentation(node, STRAIGHT, (4, 6, 7))


@pytest.mark.parametrize(
    "other",
    [
        Geometry(STRAIGHT.spacing_mm, (-7.0, 4.5, 100.125)),
        Geometry((1.0, 1.5, 2.5), STRAIGHT.origin_mm),
        GEOMETRIES["oblique"],
    ],
    ids=["quarter of a voxel off", "other spacing", "other direction"],
)
def test_a_segmentation_off_the_voxels_of_the_ct_is_refused(other: Geometry, scene: Any) -> None:
    contours = one_voxel("GTVp", (1, 2, 3), STRAIGHT)
    node = filled(scene, contours, Path())
    with pytest.raises(InputError, match="does not lie on the voxels"):
        contours_from_segmentation(node, other, contours.shape)


def test_a_segmentation_under_a_transform_is_refused(scene: Any) -> None:
    contours = one_voxel("GTVp", (1, 2, 3), STRAIGHT)
    node = filled(scene, contours, Path())
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="transform"):
        back(node, contours)


def test_an_empty_segmentation_is_refused(scene: Any) -> None:
    with pytest.raises(InputError, match="no segment with a SegRap name"):
        contours_from_segmentation(new_node(scene), STRAIGHT, (5, 6, 7))


# Saved by Slicer, and back


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("crop", [False, True], ids=["whole grid", "cropped"])
def test_a_file_that_slicer_saved_is_read_on_the_cts_grid(
    geometry: Geometry, crop: bool, scene: Any, tmp_path: Path
) -> None:
    contours, masks = every_structure(geometry), every_structure_masks()
    node = written_and_loaded(scene, contours, tmp_path)
    node.GetSegmentation().RemoveSegment("Brain")
    paint(node, "Parotid_L", masks["Mandible_L"], geometry)
    save(scene, node, tmp_path / "saved.seg.nrrd", crop)
    again = read_seg_nrrd(tmp_path / "saved.seg.nrrd")
    assert again.shape == contours.shape
    del masks["Brain"]
    masks["Parotid_L"] |= masks["Mandible_L"]
    for name, mask in masks.items():
        np.testing.assert_array_equal(again.mask(name), mask, err_msg=name)
    assert again.provenance == contours.provenance
    assert [name for name, facts in again.structures.items() if facts.origin == "edited"] == ["Parotid_L"]


def test_names_that_only_the_user_knows_are_listed_from_a_file_that_slicer_saved(scene: Any, tmp_path: Path) -> None:
    node = written_and_loaded(scene, every_structure(), tmp_path)
    node.GetSegmentation().GetSegment("Brain").SetName("Größe | 1")
    save(scene, node, tmp_path / "saved.seg.nrrd")
    assert read_seg_nrrd(tmp_path / "saved.seg.nrrd").left_out == ("Größe | 1",)


def test_a_file_of_slicers_without_our_tags_is_read_as_imported(scene: Any, tmp_path: Path) -> None:
    node = new_node(scene)
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1:3, 2:4, 3:5] = True
    add_segment(node, "SpinalCord", mask, GEOMETRIES["oblique"])
    save(scene, node, tmp_path / "saved.seg.nrrd")
    again = read_seg_nrrd(tmp_path / "saved.seg.nrrd")
    assert again.structures["SpinalCord"].origin == "imported"
    assert again.provenance.model_name == ""
    assert again.structures["SpinalCord"].voxels == 8


def test_the_title_without_a_model_makes_no_claim(scene: Any) -> None:
    node = filled(scene, every_structure(provenance=Provenance()), Path())
    assert node.GetName() == "SegRap contours (source not stated), not reviewed"
