"""Contours shown in 3D Slicer: tested on real MRML scenes, segmentation nodes and storage nodes."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from made_contours import DEMONSTRATION, GEOMETRIES, STRAIGHT, every_structure, every_structure_masks, one_voxel
from slicer_nodes import (
    LABELMAP,
    WAYS_IN,
    Logic,
    filled,
    segment_mask,
    segments_of,
)
from vtk.util.numpy_support import vtk_to_numpy

from segrap import anatomy
from segrap.contour_files.slicer_segments import OUR_TAGS, index_to_ras
from segrap.contours import Contours
from segrap.geometry import Geometry
from segrap.scene.segmentation import empty_segmentation, fill_segmentation


@pytest.fixture
def scene() -> Any:
    return slicer.vtkMRMLScene()


@pytest.fixture(params=WAYS_IN.values(), ids=WAYS_IN)
def way_in(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_slicer_shows_all_structures_by_name_in_table_order_and_four_layers(
    way_in: Any, scene: Any, tmp_path: Path
) -> None:
    node = way_in(scene, every_structure(), tmp_path)
    assert tuple(segment.GetName() for segment in segments_of(node)) == anatomy.NAMES
    assert node.GetSegmentation().GetNumberOfLayers() == 4
    assert node.GetSegmentation().GetSourceRepresentationName() == LABELMAP


def test_slicer_holds_the_same_voxels(way_in: Any, scene: Any, tmp_path: Path) -> None:
    contours = every_structure()
    node = way_in(scene, contours, tmp_path)
    for name, mask in every_structure_masks().items():
        np.testing.assert_array_equal(segment_mask(node, name, contours.shape), mask, err_msg=name)


def test_colours_are_those_of_the_table(way_in: Any, scene: Any, tmp_path: Path) -> None:
    for segment in segments_of(way_in(scene, every_structure(), tmp_path)):
        expected = np.array(anatomy.structure(segment.GetName()).colour) / 255
        np.testing.assert_allclose(segment.GetColor(), expected, atol=1e-5)


def test_slicer_reads_the_terminology_with_side_and_region(way_in: Any, scene: Any, tmp_path: Path) -> None:
    node = way_in(scene, every_structure(), tmp_path)
    found = {}
    for name in ("BrainStem", "Parotid_L", "Parotid_R", "GTVp", "GTVnd"):
        entry = slicer.vtkSlicerTerminologyEntry()
        text = node.GetSegmentation().GetSegment(name).GetTerminology()
        assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry)
        found[name] = (
            entry.GetCategoryObject().GetCodeMeaning(),
            entry.GetTypeObject().GetCodeValue(),
            entry.GetTypeModifierObject().GetCodeMeaning(),
            entry.GetRegionObject().GetCodeMeaning(),
        )
    assert found == {
        "BrainStem": ("Anatomical Structure", "119238007", None, None),
        "Parotid_L": ("Anatomical Structure", "45289007", "Left", None),
        "Parotid_R": ("Anatomical Structure", "45289007", "Right", None),
        "GTVp": ("Morphologically Altered Structure", "86049000", None, "Nasopharynx"),
        "GTVnd": ("Morphologically Altered Structure", "14799000", None, "Cervical lymph node"),
    }


def test_every_segment_is_marked_not_started(way_in: Any, scene: Any, tmp_path: Path) -> None:
    for segment in segments_of(way_in(scene, every_structure(), tmp_path)):
        assert segment.HasTag("Segmentation.Status")
        assert Logic.GetSegmentStatus(segment) == Logic.NotStarted


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_voxel_lies_at_the_same_place_of_the_patient(
    way_in: Any, geometry: Geometry, scene: Any, tmp_path: Path
) -> None:
    node = way_in(scene, one_voxel("Lens_L", (1, 2, 3), geometry), tmp_path)
    left, back_, head = geometry.to_lps(np.array([3, 2, 1]))
    np.testing.assert_allclose(node.GetSegmentCenterRAS("Lens_L"), [-left, -back_, head], atol=1e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_reference_geometry_is_the_cts_grid(way_in: Any, geometry: Geometry, scene: Any, tmp_path: Path) -> None:
    contours = every_structure(geometry)
    text = way_in(scene, contours, tmp_path).GetSegmentation().GetConversionParameter("Reference image geometry")
    image = slicer.vtkOrientedImageData()
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    np.testing.assert_allclose(
        [matrix.GetElement(r, c) for r in range(4) for c in range(4)], index_to_ras(geometry).ravel(), atol=1e-9
    )
    z, y, x = contours.shape
    assert image.GetExtent() == (0, x - 1, 0, y - 1, 0, z - 1)


def test_left_and_right_are_on_their_sides_whatever_the_orientation(scene: Any, tmp_path: Path) -> None:
    for geometry in GEOMETRIES.values():
        corners = {corner: geometry.to_lps(np.array(corner[::-1]))[0] for corner in ((0, 0, 0), (4, 5, 6))}
        right, left = sorted(corners, key=lambda corner: corners[corner])
        masks = {name: np.zeros((5, 6, 7), dtype=bool) for name in ("Parotid_L", "Parotid_R")}
        masks["Parotid_L"][left] = masks["Parotid_R"][right] = True
        contours = Contours.from_masks(masks, geometry, DEMONSTRATION)
        for way in WAYS_IN.values():
            node = way(scene, contours, tmp_path)
            # R grows to the patient's right.
            assert node.GetSegmentCenterRAS("Parotid_R")[0] > node.GetSegmentCenterRAS("Parotid_L")[0]


def test_both_ways_in_give_the_same_tags(scene: Any, tmp_path: Path) -> None:
    contours = every_structure()
    by_way = []
    for way in WAYS_IN.values():
        tags = {}
        for segment in segments_of(way(scene, contours, tmp_path)):
            for key in ("TerminologyEntry", "Segmentation.Status", *OUR_TAGS):
                value = vtk.reference("")
                tags[segment.GetName(), key] = str(value) if segment.GetTag(key, value) else None
        by_way.append(tags)
    assert by_way[0] == by_way[1]


def test_a_demonstration_model_shows_in_the_name_of_the_node(scene: Any) -> None:
    node = filled(scene, every_structure(), Path())
    assert "DEMONSTRATION MODEL" in node.GetName()


def test_a_single_layer_opens_too(way_in: Any, scene: Any, tmp_path: Path) -> None:
    contours = every_structure().subset(["Parotid_L", "Mandible_R"])
    node = way_in(scene, contours, tmp_path)
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    masks = every_structure_masks()
    np.testing.assert_array_equal(segment_mask(node, "Mandible_R", contours.shape), masks["Mandible_R"])


def test_an_empty_structure_is_an_empty_segment(way_in: Any, scene: Any, tmp_path: Path) -> None:
    masks = {"Brain": np.ones((3, 4, 5), dtype=bool), "GTVp": np.zeros((3, 4, 5), dtype=bool)}
    node = way_in(scene, Contours.from_masks(masks, STRAIGHT, DEMONSTRATION), tmp_path)
    assert not segment_mask(node, "GTVp", (3, 4, 5)).any()


def test_filling_copies_no_voxel_and_keeps_the_memory_alive(scene: Any) -> None:
    contours = every_structure()
    node = filled(scene, contours, Path())
    address = contours.layers.ctypes.data
    image = node.GetSegmentation().GetSegment("Brain").GetRepresentation(LABELMAP)
    assert vtk_to_numpy(image.GetPointData().GetScalars()).ctypes.data == address
    del contours, image
    gc.collect()
    litter = [np.full((4, 10, 17, 20), 255, dtype=np.uint8) for _ in range(50)]
    np.testing.assert_array_equal(segment_mask(node, "Brain", litter[0].shape[1:]), every_structure_masks()["Brain"])


def test_filling_again_leaves_the_new_contours_only(scene: Any) -> None:
    first, second = every_structure(seed=1), one_voxel("GTVp", (1, 1, 1), STRAIGHT)
    layers = first.layers.copy()
    node = filled(scene, first, Path())
    fill_segmentation(node, second)
    assert [segment.GetName() for segment in segments_of(node)] == ["GTVp"]
    np.testing.assert_array_equal(first.layers, layers)


def test_emptying_a_segmentation_changes_no_voxel_of_its_layers(scene: Any) -> None:
    contours = every_structure()
    layers = contours.layers.copy()
    node = filled(scene, contours, Path())
    empty_segmentation(node)
    assert segments_of(node) == []
    np.testing.assert_array_equal(contours.layers, layers)
