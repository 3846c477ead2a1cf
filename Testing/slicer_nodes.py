"""Real segmentation nodes of 3D Slicer for tests: filled both ways, looked into, edited, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.contour_files.slicer_segments import index_to_ras
from segrap.contours import Contours
from segrap.geometry import Geometry
from segrap.scene.segmentation import contours_from_segmentation, fill_segmentation

LABELMAP = "Binary labelmap"
Logic = slicer.vtkSlicerSegmentationsModuleLogic


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
