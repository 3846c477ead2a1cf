"""How long 47 structures at 1024 x 1024 x 130 take into and out of a Slicer segmentation, and to and from its file.

Run from the repository's root: python Testing/benchmarks/scene.py (needs the slicer-core package and 8 GB of memory).
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from segrap import anatomy
from segrap.contour_files.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from segrap.contour_files.slicer_segments import index_to_ras
from segrap.contours import Contours, Provenance
from segrap.geometry import Geometry
from segrap.scene.segmentation import contours_from_segmentation, empty_segmentation, fill_segmentation
from segrap.scene.surfaces import hold_labels, make_surfaces

SHAPE = (130, 1024, 1024)
GEOMETRY = Geometry((0.54, 0.54, 3.0))


def balls() -> Contours:
    """Every structure a ball of its published mean volume, those of one layer beside one another."""
    layers = np.zeros((len(anatomy.LAYERS), *SHAPE), dtype=np.uint8)
    spacing_zyx = np.array(GEOMETRY.spacing_mm[::-1])
    for layer, names in zip(layers, anatomy.LAYERS, strict=True):
        for name in names:
            structure, value = anatomy.structure(name), anatomy.layer_and_value(name)[1]
            number = anatomy.NAMES.index(name)
            centre_mm = spacing_zyx * SHAPE / 2 + [0.0, (number % 6 - 2.5) * 60, (number // 6 - 3.5) * 60]
            radius_mm = (structure.volume_mean_cc * 1000 * 3 / 4 / np.pi) ** (1 / 3)
            first = np.maximum(((centre_mm - radius_mm) / spacing_zyx).astype(int), 0)
            last = np.minimum(((centre_mm + radius_mm) / spacing_zyx).astype(int) + 2, SHAPE)
            box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            z, y, x = (axis * step for axis, step in zip(np.ogrid[box], spacing_zyx, strict=True))
            inside = (z - centre_mm[0]) ** 2 + (y - centre_mm[1]) ** 2 + (x - centre_mm[2]) ** 2 <= radius_mm**2
            layer[box][inside & (layer[box] == 0)] = value
    placement = {name: anatomy.layer_and_value(name) for name in anatomy.NAMES}
    return Contours.from_layers(layers, GEOMETRY, placement, Provenance("Balls", "1"))


def import_layers(node: Any, contours: Contours) -> None:
    """Slicer's own labelmap import, one layer after the other: the only one of its routes that keeps overlaps."""
    scene = node.GetScene()
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(index_to_ras(contours.geometry).ravel().tolist())
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for layer in contours.layers:
        image = vtk.vtkImageData()
        image.SetDimensions(*layer.shape[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(layer.ravel(), deep=0))
        volume = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        volume.SetAndObserveImageData(image)
        volume.SetIJKToRASMatrix(matrix)
        assert logic.ImportLabelmapToSegmentationNode(volume, node)
        scene.RemoveNode(volume)


def measure(what: str, work: Callable[[], object], repeats: int = 3) -> None:
    """Print the shortest of some runs."""
    seconds = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    print(f"{what:<58}{min(seconds) * 1000:>12,.1f} ms")


def main() -> None:
    contours = balls()
    scene = slicer.vtkMRMLScene()
    print(f"{len(contours.names)} structures in {len(contours.layers)} layers of 1024 x 1024 x 130 voxels")

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    measure("fill a segmentation node (segrap.scene)", lambda: fill_segmentation(node, contours))
    measure(
        "read contours back from the node (segrap.scene)",
        lambda: contours_from_segmentation(node, contours.geometry, contours.shape),
    )
    converters = slicer.vtkSegmentationConverterFactory.GetInstance()
    converters.RegisterConverterRule(slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule())
    measure("surfaces of all structures (segrap.scene)", lambda: make_surfaces(hold_labels(node)), repeats=1)
    measure("surfaces of all structures (Slicer)", node.CreateClosedSurfaceRepresentation, repeats=1)
    measure("remove all segments (segrap.scene)", lambda: empty_segmentation(node), repeats=1)
    fill_segmentation(node, contours)
    measure("remove all segments (Slicer)", node.GetSegmentation().RemoveAllSegments, repeats=1)
    measure("import the four layers (Slicer)", lambda: import_layers(node, contours), repeats=1)
    empty_segmentation(node)

    measure(
        "facts of all structures (Contours.from_layers)",
        lambda: Contours.from_layers(
            contours.layers,
            contours.geometry,
            {name: (facts.layer, facts.value) for name, facts in contours.structures.items()},
            contours.provenance,
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contours.seg.nrrd"
        measure("write .seg.nrrd", lambda: write_seg_nrrd(contours, path))
        print(f"{'   its size':<58}{path.stat().st_size / 1e6:>12,.1f} MB")
        measure("read .seg.nrrd", lambda: read_seg_nrrd(path))
        storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
        storage.SetFileName(str(path))
        loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        measure("read .seg.nrrd (Slicer)", lambda: storage.ReadData(loaded), repeats=1)
        empty_segmentation(loaded)


if __name__ == "__main__":
    main()
