"""3-D surfaces of segments, all those of a label layer in one pass, for a thread beside Slicer's window.

Slicer converts one segment after the other, while its window stands still. What is made here is attached as the closed
surfaces that Slicer itself would make, so that it shows them, and makes them anew when a segment is edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segrap.contour_files.slicer_segments import REPRESENTATION
from segrap.errors import InputError
from segrap.progress import Progress, ProgressCallback

CLOSED_SURFACE = "Closed surface"


@dataclass(frozen=True)
class HeldLabels:
    """Segments that share a labelmap. labels: {segment ID: label}; changed: when the labelmap last was."""

    image: Any
    labels: Mapping[str, int]
    changed: int


def hold_labels(node: Any) -> list[HeldLabels]:
    """Take hold of the labelmaps of a vtkMRMLSegmentationNode; no voxel is looked at.

    Raises InputError when a segment is no labelmap.
    """
    segmentation = node.GetSegmentation()
    sharing: dict[Any, dict[str, int]] = {}
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        image = segment.GetRepresentation(REPRESENTATION)
        if image is None:
            raise InputError(f"{segment.GetName()} is no labelmap. Make it one in the Segmentations module.")
        sharing.setdefault(image, {})[segment_id] = segment.GetLabelValue()
    return [HeldLabels(image, labels, image.GetMTime()) for image, labels in sharing.items()]


def make_surfaces(held: list[HeldLabels], progress: ProgressCallback | None = None) -> dict[str, Any]:
    """A vtkPolyData in the segmentation's coordinates (RAS mm) for each segment ID, empty where the segment is.

    progress: is told how far it is; what it raises ends the work. Needs no MRML: any thread will do.
    """
    surfaces = {}
    for number, one in enumerate(held):
        if progress:
            progress(Progress("Making surfaces", number / len(held)))
        surfaces.update(_surfaces_of_labelmap(one))
    return surfaces


def attach_surfaces(node: Any, held: list[HeldLabels], surfaces: Mapping[str, Any]) -> None:
    """Give the surfaces to the segments of the vtkMRMLSegmentationNode that they were made of, and show them.

    Slicer converts what has been edited or added in the meantime.
    """
    import slicer

    segmentation = node.GetSegmentation()
    with slicer.util.NodeModify(node):
        for one in held:
            for segment_id in one.labels:
                segment = segmentation.GetSegment(segment_id)
                unchanged = segment and segment.GetRepresentation(REPRESENTATION) is one.image
                if unchanged and one.image.GetMTime() == one.changed:
                    segment.AddRepresentation(CLOSED_SURFACE, surfaces[segment_id])
        segmentation.CreateRepresentation(CLOSED_SURFACE)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
        display.SetPreferredDisplayRepresentationName2D(REPRESENTATION)


def remove_surfaces(node: Any) -> None:
    """Take the surfaces away again."""
    node.GetSegmentation().RemoveRepresentation(CLOSED_SURFACE)


def has_surfaces(node: Any) -> bool:
    """True when the segments have surfaces, whoever made them."""
    return bool(node.GetSegmentation().ContainsRepresentation(CLOSED_SURFACE))


def _surfaces_of_labelmap(held: HeldLabels) -> dict[str, Any]:
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

    empty = {segment_id: vtk.vtkPolyData() for segment_id in held.labels}
    if min(held.image.GetDimensions()) < 1:
        return empty
    # A border of background: structures that the scan cuts are closed there.
    x0, x1, y0, y1, z0, z1 = held.image.GetExtent()
    indices = vtk.vtkImageData()
    indices.ShallowCopy(held.image)
    indices.SetOrigin(0, 0, 0)
    indices.SetSpacing(1, 1, 1)
    padding = vtk.vtkImageConstantPad()
    padding.SetInputData(indices)
    padding.SetOutputWholeExtent(x0 - 1, x1 + 1, y0 - 1, y1 + 1, z0 - 1, z1 + 1)
    nets = vtk.vtkSurfaceNets3D()
    nets.SetInputConnection(padding.GetOutputPort())
    for number, label in enumerate(held.labels.values()):
        nets.SetLabel(number, label)
    nets.SetNumberOfIterations(4)  # of smoothing: enough for the eye, and 3 % of a parotid's volume at most
    nets.SetOutputMeshTypeToTriangles()
    nets.Update()
    mesh = nets.GetOutput()
    if not mesh.GetNumberOfPolys():
        return empty

    matrix = vtk.vtkMatrix4x4()
    held.image.GetImageToWorldMatrix(matrix)
    index_to_ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    points = vtk_to_numpy(mesh.GetPoints().GetData()) @ index_to_ras[:3, :3].T + index_to_ras[:3, 3]
    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    sides = vtk_to_numpy(mesh.GetCellData().GetArray("BoundaryLabels"))
    surfaces = {}
    for segment_id, label in held.labels.items():
        own = np.concatenate([triangles[sides[:, 0] == label], triangles[sides[:, 1] == label][:, ::-1]])
        used, own = np.unique(own, return_inverse=True)
        surface = empty[segment_id]
        surface.SetPoints(vtk.vtkPoints())
        surface.GetPoints().SetData(numpy_to_vtk(points[used].astype(np.float32), deep=1))
        cells = vtk.vtkCellArray()
        connectivity = numpy_to_vtkIdTypeArray(own.astype(np.int64).ravel(), deep=1)
        cells.SetData(3, connectivity)
        surface.SetPolys(cells)
        normals = vtk.vtkPolyDataNormals()
        normals.SetInputData(surface)
        normals.SplittingOff()
        normals.ConsistencyOff()
        normals.Update()
        surfaces[segment_id] = normals.GetOutput()
    return surfaces
