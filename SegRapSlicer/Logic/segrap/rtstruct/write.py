"""Contours in, RTSTRUCT out, written against the original CT: its patient, study, Frame of Reference and images.

Nothing that is left behind has not been read back: the file gives exactly the masks that went in, or it is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segrap import anatomy
from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries
from segrap.errors import InputError, OutputError, UsageError
from segrap.geometry import same_grid
from segrap.naming import Names, names_of
from segrap.progress import Progress, ProgressCallback
from segrap.rtstruct.attributes import (
    add_references,
    check_texts,
    header,
    image_reference,
    observation_item,
    roi_item,
)
from segrap.rtstruct.contents import Contents, read_contents
from segrap.rtstruct.lint import exchanged_sides, findings
from segrap.rtstruct.outline import outlines
from segrap.rtstruct.planes import SlicePlanes
from segrap.rtstruct.read import filled
from segrap.writing import replacing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class WriteReport:
    """What an export did, by SegRap names.

    written: structures in the file, in its order. empty: asked for, but without a voxel, hence not in the file.
    warnings: sentences on what in the file needs a look, such as left and right exchanged.
    """

    written: tuple[str, ...]
    empty: tuple[str, ...]
    warnings: tuple[str, ...]


def write_rtstruct(
    contours: Contours,
    series: CTSeries,
    path: str | Path,
    structures: Iterable[str] | None = None,
    names: Names = "tg263",
    progress: ProgressCallback | None = None,
) -> WriteReport:
    """Write structures (SegRap names; all of `contours` if None) as an RTSTRUCT on the CT that they were drawn on.

    names: what ROIs are called, see `segrap.naming`; the SegRap name stands in ROIDescription whatever they are called.
    progress: is told how far it is; what it raises ends the work.
    The file is whole or not there. Contours run along the voxels' edges, so that a reader which takes a voxel whose
    centre is inside gets the very same masks; that is checked by reading the file back.

    Raises UsageError for a structure that `contours` does not cover, InputError when the grid of `contours` is not that
    of `series`, the CT lacks what an RTSTRUCT must refer to, no structure has a voxel, or a name cannot be used;
    OutputError when the file cannot be written, does not read back the same, or the lint finds an error in it.
    """
    chosen = contours.names if structures is None else tuple(structures)
    unknown = [name for name in chosen if name not in contours.structures]
    if unknown:
        raise UsageError(f"These contours do not cover {', '.join(unknown)}; they have {', '.join(contours.names)}.")
    _check_series(contours, series)
    written = tuple(name for name in contours.names if name in chosen and not contours.is_empty(name))
    empty = tuple(name for name in contours.names if name in chosen and contours.is_empty(name))
    if not written:
        raise InputError(f"None of the {len(empty)} structures has a voxel, so there is no RTSTRUCT to write.")

    roi_names = names_of(written, names)
    dataset = header(contours, series)
    add_references(dataset, series)
    planes = SlicePlanes(series)
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    for number, name in enumerate(written, start=1):
        if progress:
            progress(Progress("Drawing outlines", 0.8 * (number - 1) / len(written), name))
        structure, facts = anatomy.structure(name), contours.structures[name]
        dataset.StructureSetROISequence.append(roi_item(number, roi_names[name], structure, facts, contours, series))
        dataset.ROIContourSequence.append(_roi_contour(number, structure, contours, series, planes))
        dataset.RTROIObservationsSequence.append(observation_item(number, structure))

    with replacing(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
        if progress:
            progress(Progress("Reading the file back", 0.8))
        check_texts(temporary, series, "RTSTRUCT")
        contents = read_contents(temporary)
        _check_masks(contents, contours, series, planes, written)
        warnings = _check_file(contents, series, roi_names)
    return WriteReport(written, empty, warnings)


def missing_uid(series: CTSeries) -> str | None:
    """Which of the identifiers that an RTSTRUCT must repeat the CT lacks, or None."""
    needed = ("StudyInstanceUID", "FrameOfReferenceUID")
    return next((keyword for keyword in needed if not series.headers[0].get(keyword)), None)


def _check_series(contours: Contours, series: CTSeries) -> None:
    if not same_grid(contours.geometry, contours.shape, series.geometry, series.shape):
        raise InputError(
            f"The contours ({' x '.join(map(str, contours.shape))} voxels) do not lie on the grid of the CT series "
            f"({' x '.join(map(str, series.shape))}). Give the CT on which they were drawn."
        )
    missing = missing_uid(series)
    if missing:
        raise InputError(f"The CT series has no {missing}, so no RTSTRUCT can refer to it. Export the CT again.")


def _check_masks(
    contents: Contents, contours: Contours, series: CTSeries, planes: SlicePlanes, written: tuple[str, ...]
) -> None:
    for name, roi in zip(written, contents.rois, strict=True):
        region, _ = filled(roi, planes, series.shape)
        facts = contours.structures[name]
        same_inside = np.array_equal(region.mask, contours.layers[facts.layer][region.box] == facts.value)
        if not same_inside or int(np.count_nonzero(region.mask)) != facts.voxels:
            raise OutputError(
                f"The RTSTRUCT was not written: read back, {name} has {np.count_nonzero(region.mask)} voxels where "
                f"{facts.voxels} went in. This is a defect of SegRapSlicer; please report it."
            )


def _check_file(contents: Contents, series: CTSeries, names: Mapping[str, str]) -> tuple[str, ...]:
    found = findings(contents, series)
    errors = [f"{finding.where}: {finding.what}" for finding in found if finding.severity == "error"]
    if errors:
        raise OutputError(
            f"The RTSTRUCT was not written: a check of it finds {len(errors)} errors, the first in {errors[0]} "
            "This is a defect of SegRapSlicer; please report it."
        )
    # Exchanged sides are no fault of the file: it shows the contours as they are.
    return tuple(f"{finding.where}: {finding.what}" for finding in (*found, *exchanged_sides(contents, names)))


def _roi_contour(
    number: int, structure: anatomy.Structure, contours: Contours, series: CTSeries, planes: SlicePlanes
) -> Dataset:
    from pydicom.dataset import Dataset

    mask, box = contours.mask_in_box(structure.name)
    polygons = [(box[0].start + z, polygon) for z, of_slice in enumerate(outlines(mask)) for polygon in of_slice]
    slice_numbers = np.array([z for z, _ in polygons])
    lengths = np.array([len(polygon) for _, polygon in polygons])
    pixels = np.concatenate([polygon for _, polygon in polygons]) + np.array([box[2].start, box[1].start])
    points_mm = planes.to_lps(np.repeat(slice_numbers, lengths), pixels)

    roi_contour = Dataset()
    roi_contour.ROIDisplayColor = list(structure.colour)
    roi_contour.ReferencedROINumber = number
    roi_contour.ContourSequence = [
        _contour(count, length, data, series.headers[z])
        for count, (z, length, data) in enumerate(
            zip(slice_numbers.tolist(), lengths.tolist(), _decimals(points_mm, lengths), strict=True), start=1
        )
    ]
    return roi_contour


def _contour(number: int, length: int, data: bytes, header: Any) -> Dataset:
    from pydicom.charset import default_encoding
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import Tag

    contour = Dataset()
    contour.ContourImageSequence = [image_reference(header)]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = length
    contour.ContourNumber = number
    # As the bytes that go into the file: pydicom would make an object of each of some hundred thousand numbers.
    contour_data = Tag("ContourData")
    contour[contour_data] = RawDataElement(contour_data, "DS", len(data), data, 0, True, True)
    contour.set_original_encoding(is_implicit_vr=True, is_little_endian=True, character_encoding=default_encoding)
    return contour


def _decimals(points_mm: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    # DICOM's decimal strings have at most 16 characters; a ten-thousandth of a millimetre is enough and leaves no "-0".
    whole = np.rint(points_mm.ravel() * 1e4).astype(np.int64)
    values, place = np.unique(whole, return_inverse=True)
    texts = np.array([f"{value / 1e4:.4f}".rstrip("0").rstrip(".") for value in values.tolist()], dtype=object)
    texts = texts[place.ravel()].tolist()
    ends = (3 * np.cumsum(lengths)).tolist()
    joined = ["\\".join(texts[begin:end]).encode("ascii") for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [data + b" " * (len(data) % 2) for data in joined]
