"""Contours in 3D Slicer: tested on real MRML scenes, segmentation nodes, storage nodes and Slicer's own editing."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from made_contours import DEMONSTRATION, GEOMETRIES, STRAIGHT, every_structure, every_structure_masks, one_voxel
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from segrap import anatomy
from segrap.contour_files import read_seg_nrrd, write_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.errors import InputError
from segrap.image import Geometry
from segrap.scene import contours_from_segmentation, empty_segmentation, fill_segmentation
from segrap.slicer_segments import OUR_TAGS, index_to_ras

LABELMAP = "Binary labelmap"
Logic = slicer.vtkSlicerSegmentationsModuleLogic


@pytest.fixture
def scene() -> Any:
    return slicer.vtkMRMLScene()


def new_node(scene: Any) -> Any:
    return scene.AddNewNodeByClass("vtkMRMLSegmentationNode")


def load(scene: Any, path: Path) -> Any:
    """Open a file as Slicer does: a storage node reads it into a segmentation node."""
    node = new_node(scene)
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    return node


def save(scene: Any, node: Any, path: Path, crop: bool = False) -> None:
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    storage.SetCropToMinimumExtent(crop)
    assert storage.WriteData(node)


def written_and_loaded(scene: Any, contours: Contours, folder: Path) -> Any:
    write_seg_nrrd(contours, folder / "c.seg.nrrd")
    return load(scene, folder / "c.seg.nrrd")


def filled(scene: Any, contours: Contours, folder: Path) -> Any:
    node = new_node(scene)
    fill_segmentation(node, contours)
    return node


WAYS_IN = {"file": written_and_loaded, "scene": filled}


@pytest.fixture(params=WAYS_IN.values(), ids=WAYS_IN)
def way_in(request: pytest.FixtureRequest) -> Any:
    return request.param


def segments_of(node: Any) -> list[Any]:
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]


def segment_mask(node: Any, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """What Slicer holds as this segment, on the whole grid (z, y, x)."""
    image = slicer.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation(name, image)
    mask = np.zeros(shape, dtype=bool)
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    if x1 >= x0:
        labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
        mask[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = labels > 0
    return mask


def paint(node: Any, name: str, mask: np.ndarray, geometry: Geometry, mode: int = Logic.MODE_MERGE_MAX) -> None:
    """Change a segment as Slicer's editor does in the mode "overwrite none"."""
    image = labelmap(mask.astype(np.uint8), geometry)
    assert Logic.SetBinaryLabelmapToSegment(image, node, name, mode, image.GetExtent(), False, [])


def labelmap(labels: np.ndarray, geometry: Geometry) -> Any:
    z, y, x = labels.shape
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(index_to_ras(geometry).ravel().tolist())
    image = slicer.vtkOrientedImageData()
    image.SetExtent(0, x - 1, 0, y - 1, 0, z - 1)
    image.SetImageToWorldMatrix(matrix)
    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(), deep=1))
    return image


def add_segment(node: Any, name: str, mask: np.ndarray, geometry: Geometry) -> None:
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.AddRepresentation(LABELMAP, labelmap(mask.astype(np.uint8), geometry))
    node.GetSegmentation().AddSegment(segment)


def back(node: Any, contours: Contours) -> Contours:
    return contours_from_segmentation(node, contours.geometry, contours.shape)


# Into Slicer


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


# Edited in Slicer, and back


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
    assert (again.structures["Brain"].confidence, again.structures["Lens_L"].confidence) == (None, 0.5)


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
