"""Surfaces of structures: closed, in the right place, facing outwards, and made anew by Slicer after an edit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from reviewing import Review
from rtstruct_cases import ORIENTATIONS
from slicer_nodes import new_node
from vtk.util.numpy_support import vtk_to_numpy

from segrap.contours import Contours, Provenance
from segrap.errors import Cancelled
from segrap.geometry import Geometry
from segrap.progress import Progress
from segrap.scene.segmentation import fill_segmentation
from segrap.scene.surfaces import CLOSED_SURFACE, attach_surfaces, has_surfaces, hold_labels, make_surfaces


@pytest.fixture(scope="module", autouse=True)
def converter() -> None:
    """As the Segmentations module does in Slicer."""
    rules = slicer.vtkSegmentationConverterFactory.GetInstance()
    rules.RegisterConverterRule(slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule())


def masks() -> dict[str, np.ndarray]:
    z, y, x = np.ogrid[:20, :60, :50]
    ball = (3.0 * (z - 10)) ** 2 + (y - 30) ** 2 + (x - 15) ** 2 < 14**2
    touching = ((3.0 * (z - 10)) ** 2 + (y - 30) ** 2 + (x - 34) ** 2 < 14**2) & ~ball
    cut = (3.0 * z) ** 2 + (y - 50) ** 2 + (x - 25) ** 2 < 9**2
    return {"Parotid_L": touching, "Parotid_R": ball, "SpinalCord": cut, "Chiasm": np.zeros_like(ball)}


@pytest.fixture(params=["head first supine", "turned about all axes"])
def node(request: pytest.FixtureRequest) -> Iterator[Any]:
    geometry = Geometry((1.0, 1.0, 3.0), (10.0, -20.0, 30.0), ORIENTATIONS[request.param])
    scene = slicer.vtkMRMLScene()
    node = new_node(scene)
    fill_segmentation(node, Contours.from_masks(masks(), geometry, Provenance()))
    node.contours = Contours.from_masks(masks(), geometry, Provenance())
    yield node
    scene.Clear()


def volume_cc(surface: Any) -> float:
    """Signed: above 0 when the triangles face outwards."""
    points = vtk_to_numpy(surface.GetPoints().GetData()).astype(float)
    a, b, c = (points[corner] for corner in vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).T)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6000


def open_edges(surface: Any) -> int:
    edges = vtk.vtkFeatureEdges()
    edges.SetInputData(surface)
    edges.FeatureEdgesOff()
    edges.NonManifoldEdgesOff()
    edges.Update()
    return int(edges.GetOutput().GetNumberOfCells())


def test_surfaces_are_closed_face_outwards_and_lie_where_the_structures_are(node: Any) -> None:
    surfaces = make_surfaces(hold_labels(node))
    assert set(surfaces) == set(node.contours.names)
    assert surfaces["Chiasm"].GetNumberOfPolys() == 0
    for name in ("Parotid_L", "Parotid_R", "SpinalCord"):
        surface, facts = surfaces[name], node.contours.structures[name]
        assert open_edges(surface) == 0, name
        assert volume_cc(surface) == pytest.approx(facts.volume_cc, rel=0.1), name
        z, y, x = np.nonzero(node.contours.mask(name))
        middle = node.contours.geometry.to_lps(np.column_stack([x, y, z])).mean(axis=0) * [-1, -1, 1]
        bounds = np.array(surface.GetBounds())
        assert np.allclose((bounds[::2] + bounds[1::2]) / 2, middle, atol=1.5), name
        normals = vtk_to_numpy(surface.GetPointData().GetNormals())
        outwards = vtk_to_numpy(surface.GetPoints().GetData()) - surface.GetCenter()
        assert (np.einsum("ij,ij->i", normals, outwards) > 0).mean() > 0.95, name


def test_slicer_shows_them_and_makes_that_of_an_edited_segment_anew(node: Any) -> None:
    held = hold_labels(node)
    attach_surfaces(node, held, make_surfaces(held))

    def surface_of(name: str) -> Any:
        return node.GetSegmentation().GetSegment(name).GetRepresentation(CLOSED_SURFACE)

    assert has_surfaces(node)
    assert node.GetDisplayNode().GetDisplayRepresentationName3D() == CLOSED_SURFACE
    kept, before = surface_of("Parotid_L"), volume_cc(surface_of("Parotid_R"))
    half = slicer.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation("Parotid_R", half)
    labels = vtk_to_numpy(half.GetPointData().GetScalars())
    inside = np.flatnonzero(labels)
    labels[inside[: len(inside) // 2]] = 0
    half.Modified()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(half, node, "Parotid_R", logic.MODE_REPLACE, half.GetExtent())
    assert volume_cc(surface_of("Parotid_R")) == pytest.approx(before / 2, rel=0.15)
    assert surface_of("Parotid_L") is kept


def test_segment_edited_while_surfaces_are_made_gets_its_own_from_slicer(node: Any) -> None:
    held = hold_labels(node)
    surfaces = make_surfaces(held)
    node.GetSegmentation().GetSegment("SpinalCord").GetRepresentation("Binary labelmap").Modified()
    attach_surfaces(node, held, surfaces)
    attached = node.GetSegmentation().GetSegment("SpinalCord").GetRepresentation(CLOSED_SURFACE)
    assert attached is not surfaces["SpinalCord"] and attached.GetNumberOfPolys() > 0


def test_making_them_can_be_cancelled(node: Any) -> None:
    def cancel(progress: Progress) -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        make_surfaces(hold_labels(node), cancel)


def test_button_shows_and_hides_the_surfaces(review: Review) -> None:
    review.click("surfacesButton")
    review.desktop.wait(lambda: has_surfaces(review.node))
    assert review.ui.surfacesButton.property("checked")
    names = [segment for segment in review.contours.names if not review.contours.is_empty(segment)]
    segments = review.node.GetSegmentation()
    assert all(segments.GetSegment(name).GetRepresentation(CLOSED_SURFACE).GetNumberOfPolys() for name in names)
    review.click("surfacesButton")
    assert not has_surfaces(review.node)
    assert not review.ui.surfacesButton.property("checked")
