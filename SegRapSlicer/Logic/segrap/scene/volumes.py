"""CT volumes of a 3D Slicer scene: their voxels as images, which two are the pair, and where contours of them belong.

Needs MRML (the `slicer` package), not Qt. Contours go in and out of the scene in `segrap.scene`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from segrap.contour_files.slicer_segments import geometry_from_ras, index_to_ras
from segrap.ct.contrast_words import describes_contrast
from segrap.errors import InputError
from segrap.geometry import Geometry, grid_corners_lps_mm, same_grid
from segrap.image import Image

_CONTRAST = "SegRap.Contrast"  # the role in which a segmentation refers to its contrast CT


def image_of_volume(node: Any) -> Image:
    """The CT in a vtkMRMLScalarVolumeNode where it lies in the scene, transforms included, its voxels as they are.

    Nothing is copied, so that it takes no time; `segrap.ct.hounsfield.hounsfield_array` brings them into a type.
    Raises InputError when it holds no 3-D scalar volume, or lies under a transform that does more than move and turn
    (then the voxels would have to be resampled, which is the user's decision).
    """
    import slicer

    if not _is_scan(node):
        raise InputError(f"{node.GetName()} is not a 3-D scan. Choose a CT volume.")
    return Image(slicer.util.arrayFromVolume(node), geometry_of_volume(node))


def _is_scan(node: Any) -> bool:
    data = node.GetImageData()
    return data is not None and min(data.GetDimensions()) > 1 and data.GetNumberOfScalarComponents() == 1


def add_volume(scene: Any, image: Image, name: str) -> Any:
    """Add a CT to a scene; returns its vtkMRMLScalarVolumeNode, with a copy of the voxels."""
    import slicer
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(index_to_ras(image.geometry).ravel().tolist())
    node.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image.array))
    node.CreateDefaultDisplayNodes()
    return node


def geometry_of_volume(node: Any) -> Geometry:
    """Where the voxels of a vtkMRMLScalarVolumeNode lie in the scene, transforms included. Raises as above."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    transform = node.GetParentTransformNode()
    if transform is not None:
        advice = "Harden it onto a resampled copy (module Resample Scalar/Vector/DWI Volume) and choose the copy."
        if not transform.IsTransformToWorldLinear():
            raise InputError(f"{node.GetName()} lies under a warping transform. {advice}")
        to_world = vtk.vtkMatrix4x4()
        transform.GetMatrixTransformToWorld(to_world)
        turn = _array(to_world)[:3, :3]
        if not np.allclose(turn.T @ turn, np.eye(3), atol=1e-3):
            raise InputError(f"{node.GetName()} lies under a transform that scales or shears it. {advice}")
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    return geometry_from_ras(_array(matrix))


def grid_of_volume(node: Any) -> tuple[Geometry, tuple[int, int, int]]:
    """The grid of a vtkMRMLScalarVolumeNode: its geometry and (z, y, x) shape. Raises as above, or when it is empty."""
    return geometry_of_volume(node), _shape(node)


def series_uid(node: Any) -> str:
    """The UID of the DICOM series that a volume was loaded from, "" when it was no DICOM."""
    hierarchy = _hierarchy(node)
    item = hierarchy.GetItemByDataNode(node)
    return str(hierarchy.GetItemUID(item, "DICOM")) if item else ""


def scan_volumes(scene: Any) -> list[Any]:
    """The volume nodes of a scene that may be CTs: scalar volumes in 3-D, no label maps and no scouts."""
    volumes = [scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(_count(scene))]
    return [node for node in volumes if node.GetClassName() == "vtkMRMLScalarVolumeNode" and _is_scan(node)]


def find_pair(
    scene: Any, states_contrast: Callable[[Any], bool | None] = lambda node: describes_contrast(node.GetName())
) -> tuple[Any, Any]:
    """The (non-contrast, contrast) volume nodes of a scene, None for each that is not plain to see.

    states_contrast: whether a volume is a contrast scan, None for one that does not say; by default told by its name,
    which Slicer makes of the series' description. A single volume that does not call itself a contrast scan is taken
    as the non-contrast CT. Of several that fit, none is taken.
    """
    volumes = scan_volumes(scene)
    stated = [states_contrast(node) for node in volumes]
    enhanced = [node for node, contrast in zip(volumes, stated, strict=True) if contrast]
    plain = [node for node, contrast in zip(volumes, stated, strict=True) if contrast is False]
    silent = [node for node, contrast in zip(volumes, stated, strict=True) if contrast is None]
    if not plain:
        plain = silent
    return plain[0] if len(plain) == 1 else None, enhanced[0] if len(enhanced) == 1 else None


def describe_pair(non_contrast: Any | None, contrast: Any | None) -> str:
    """What was found, in a line: sizes, and how the two volumes lie to each other.

    Raises InputError when they cannot be contoured: no non-contrast volume, the same volume twice, no common place, or
    as `image_of_volume`.
    """
    if non_contrast is None:
        raise InputError("Choose the non-contrast CT, or load one.")
    geometry, shape = _grid_of_scan(non_contrast)
    found = f"Non-contrast CT of {_size(geometry, shape)}"
    if contrast is None:
        return f"{found}; no contrast CT."
    if contrast is non_contrast:
        raise InputError("Both selectors show the same volume. Choose the non-contrast and the contrast CT.")
    other, other_shape = _grid_of_scan(contrast)
    if same_grid(geometry, shape, other, other_shape):
        return f"{found}; the contrast CT is on the same grid."
    low, high = _box(geometry, shape)
    other_low, other_high = _box(other, other_shape)
    if np.any(np.minimum(high, other_high) <= np.maximum(low, other_low)):
        raise InputError(
            "The two volumes lie in different places and do not overlap. Choose two scans of one examination."
        )
    return f"{found}; the contrast CT, {_size(other, other_shape)}, will be resampled onto it."


def place_beside(segmentation: Any, volume: Any, contrast: Any = None) -> None:
    """Put a segmentation under the study of a volume, and make that volume the one it is edited on.

    contrast: the contrast CT of the same examination, to be looked at meanwhile.
    """
    hierarchy = _hierarchy(volume)
    volume_item = hierarchy.GetItemByDataNode(volume)
    segmentation_item = hierarchy.GetItemByDataNode(segmentation)
    if volume_item and segmentation_item:
        hierarchy.SetItemParent(segmentation_item, hierarchy.GetItemParent(volume_item))
    segmentation.SetNodeReferenceID(segmentation.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    segmentation.SetNodeReferenceID(_CONTRAST, contrast.GetID() if contrast else None)


def volumes_of(segmentation: Any) -> tuple[Any, Any]:
    """The volume that a segmentation is edited on, and the contrast CT beside it; None for what is not there."""
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role), segmentation.GetNodeReference(_CONTRAST)


def show_in_slice_views(volume: Any) -> None:
    """Show a volume behind everything else in all slice views."""
    scene = volume.GetScene()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode").SetBackgroundVolumeID(volume.GetID())


def _hierarchy(node: Any) -> Any:
    import slicer

    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())


def _count(scene: Any) -> int:
    return int(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"))


def _grid_of_scan(node: Any) -> tuple[Geometry, tuple[int, int, int]]:
    image = image_of_volume(node)
    return image.geometry, image.shape


def _shape(node: Any) -> tuple[int, int, int]:
    data = node.GetImageData()
    if data is None:
        raise InputError(f"{node.GetName()} is empty. Choose a CT volume.")
    x, y, z = data.GetDimensions()
    return z, y, x


def _size(geometry: Geometry, shape: tuple[int, int, int]) -> str:
    voxels = " x ".join(str(number) for number in shape[::-1])
    spacing = " x ".join(
        f"{number:.{0 if math.isclose(number, round(number)) else 2}f}" for number in geometry.spacing_mm
    )
    return f"{voxels} voxels ({spacing} mm)"


def _box(geometry: Geometry, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    points = grid_corners_lps_mm(geometry, shape)
    return points.min(axis=0), points.max(axis=0)


def _array(matrix: Any) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
