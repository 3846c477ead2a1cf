"""Contours in, DICOM Segmentation out, on the original CT: one bit per voxel, so that every overlap stays.

Frames are made slice by slice from the label layers. Libraries that write the same object (highdicom, dcmqi) want every
structure as an array of the whole scan first, 6 GB for 47 structures at 1024 x 1024 x 130; highdicom reads it in tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segrap import anatomy
from segrap.contour_files.slicer_segments import TARGET_REGIONS
from segrap.contours import Contours, StructureFacts
from segrap.ct.dicom_series import CTSeries
from segrap.errors import InputError, OutputError
from segrap.geometry import same_grid
from segrap.naming import Names, names_of
from segrap.progress import Progress, ProgressCallback
from segrap.rtstruct.attributes import (
    SIDES,
    ascii_only,
    check_texts,
    code,
    image_reference,
    label,
    of_patient_and_study,
)
from segrap.writing import replacing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"

_ALGORITHMS = {"model": "AUTOMATIC", "edited": "SEMIAUTOMATIC", "drawn": "MANUAL", "imported": "SEMIAUTOMATIC"}
_ORGAN = ("123037004", "Anatomical Structure")
_TUMOUR = ("49755003", "Morphologically Altered Structure")


def write_dicom_seg(
    contours: Contours,
    series: CTSeries,
    path: str | Path,
    structures: Iterable[str] | None = None,
    names: Names = "tg263",
    progress: ProgressCallback | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write structures (SegRap names; all of `contours` if None) as one DICOM SEG on the CT that they were drawn on.

    names: what segments are called, see `segrap.naming`. progress: is told how far it is; what it raises ends the work.
    Returns the names of what was written and of what is empty and hence not in the file, which is whole or not there.

    Raises InputError when the grid of `contours` is not that of `series`, the CT lacks what the file must refer to, no
    structure has a voxel, or a name cannot be used; OutputError when the file cannot be written or reads back as
    something else.
    """
    chosen = contours.names if structures is None else tuple(structures)
    written = tuple(name for name in contours.names if name in chosen and not contours.is_empty(name))
    empty = tuple(name for name in contours.names if name in chosen and contours.is_empty(name))
    if not same_grid(contours.geometry, contours.shape, series.geometry, series.shape):
        raise InputError("The contours do not lie on the grid of the CT series. Give the CT on which they were drawn.")
    if not series.study_uid or not series.frame_of_reference_uid:
        raise InputError("The CT series states no study or Frame of Reference for a DICOM SEG. Export the CT again.")
    if not written:
        raise InputError(f"None of the {len(empty)} structures has a voxel, so there is no DICOM SEG to write.")
    labels = names_of(written, names)
    dataset = _header(contours, series)
    dataset.SegmentSequence = []
    dataset.PerFrameFunctionalGroupsSequence = []
    planes: list[np.ndarray] = []
    for number, name in enumerate(written, start=1):
        if progress:
            progress(Progress("Drawing frames", 0.6 * (number - 1) / len(written), name))
        facts = contours.structures[name]
        dataset.SegmentSequence.append(_segment(number, labels[name], anatomy.structure(name), facts, contours))
        for z, plane in _planes(contours, name):
            planes.append(np.packbits(plane.ravel(), bitorder="little") if plane.size % 8 == 0 else plane.ravel())
            dataset.PerFrameFunctionalGroupsSequence.append(_frame(number, z, series))
    dataset.NumberOfFrames = len(planes)
    bits = np.concatenate(planes)
    del planes
    pixels = (bits if bits.dtype == np.uint8 else np.packbits(bits, bitorder="little")).tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OB"
    with replacing(path) as temporary:
        if progress:
            progress(Progress("Writing", 0.6))
        dataset.save_as(temporary, enforce_file_format=True)
        if progress:
            progress(Progress("Reading the file back", 0.8))
        check_texts(temporary, series, "DICOM SEG")
        _check(temporary, contours, series, written)
        if progress:
            progress(Progress("Done", 1.0))
    return written, empty


def _planes(contours: Contours, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """The slices (y, x) in which the structure has a voxel, bool, with their numbers."""
    facts = contours.structures[name]
    if facts.box is None:
        return
    for z in range(facts.box[0].start, facts.box[0].stop):
        plane = contours.layers[facts.layer, z] == facts.value
        if plane.any():
            yield z, plane


def _header(contours: Contours, series: CTSeries) -> Dataset:
    from pydicom.dataset import Dataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    # Explicit, for the length of a binary value is not limited there; receivers know it best.
    dataset = of_patient_and_study(contours, series, ExplicitVRLittleEndian)
    image = series.headers[0]
    dataset.SOPClassUID = SEGMENTATION_STORAGE
    dataset.Modality = "SEG"
    dataset.DeviceSerialNumber = contours.provenance.model_digest[:12] or "none"
    dataset.ContentDate, dataset.ContentTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.ContentLabel = label(contours)
    dataset.ContentDescription = dataset.SeriesDescription
    dataset.ContentCreatorName = ""
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    _state_compression(dataset, series)
    dataset.SegmentationType = "BINARY"
    dataset.SegmentsOverlap = "YES"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    _, dataset.Rows, dataset.Columns = series.shape
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0

    references = Dataset()
    references.SeriesInstanceUID = series.series_uid
    references.ReferencedInstanceSequence = [image_reference(header) for header in series.headers]
    dataset.ReferencedSeriesSequence = [references]

    organization = generate_uid(prefix=None)
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
            DimensionDescriptionLabel=words,
        )
        for pointer, group, words in (
            (0x0062000B, 0x0062000A, "Segment Number"),
            (0x00200032, 0x00209113, "Image Position Patient"),
        )
    ]
    spacing = float(series.geometry.spacing_mm[2])
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=_decimals(image.ImageOrientationPatient))],
            PixelMeasuresSequence=[
                _item(
                    PixelSpacing=_decimals(image.PixelSpacing),
                    SliceThickness=f"{spacing:.6f}",
                    SpacingBetweenSlices=f"{spacing:.6f}",
                )
            ],
        )
    ]
    return dataset


def _state_compression(dataset: Dataset, series: CTSeries) -> None:
    """What is made from an image that was ever compressed with loss has to say so, too."""
    lossy = next((image for image in series.headers if image.get("LossyImageCompression") == "01"), None)
    dataset.LossyImageCompression = "00" if lossy is None else "01"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if lossy is not None and lossy.get(keyword):
            dataset[keyword] = lossy[keyword]


def _decimals(values: Iterable[Any]) -> list[str]:
    """The numbers of a CT's attribute as it states them, in the 16 characters that DICOM has for each."""
    from pydicom.valuerep import format_number_as_ds

    return [str(value) if len(str(value)) <= 16 else format_number_as_ds(float(value)) for value in values]


def _segment(
    number: int, name: str, structure: anatomy.Structure, facts: StructureFacts, contours: Contours
) -> Dataset:
    kind = code(*structure.snomed)
    if structure.laterality:
        kind.SegmentedPropertyTypeModifierCodeSequence = [code(*SIDES[structure.laterality])]
    segment = _item(
        SegmentNumber=number,
        SegmentLabel=name,
        SegmentDescription=f"SegRap {structure.name}"[:64],
        SegmentAlgorithmType=_ALGORITHMS[facts.origin],
        SegmentedPropertyCategoryCodeSequence=[code(*(_TUMOUR if structure.is_target else _ORGAN))],
        SegmentedPropertyTypeCodeSequence=[kind],
        RecommendedDisplayCIELabValue=_lab(structure.colour),
    )
    if segment.SegmentAlgorithmType != "MANUAL":
        segment.SegmentAlgorithmName = ascii_only(contours.maker(structure.name) or "not stated", 64)
    if structure.is_target:
        _, value, meaning = TARGET_REGIONS[structure.name].split("^")
        segment.AnatomicRegionSequence = [code(value, meaning)]
    return segment


def _frame(number: int, z: int, series: CTSeries) -> Dataset:
    source = image_reference(series.headers[z])
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [
        code("121322", "Source image for image processing operation", scheme="DCM")
    ]
    return _item(
        FrameContentSequence=[_item(DimensionIndexValues=[number, z + 1])],
        PlanePositionSequence=[_item(ImagePositionPatient=_decimals(series.headers[z].ImagePositionPatient))],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
        DerivationImageSequence=[
            _item(DerivationCodeSequence=[code("113076", "Segmentation", scheme="DCM")], SourceImageSequence=[source])
        ],
    )


def _item(**attributes: Any) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _lab(colour: tuple[int, int, int]) -> list[int]:
    """An sRGB colour (0 to 255) as DICOM's CIELab numbers (part 3, C.10.7.1.1): IEC 61966-2-1, white point D65."""
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ linear / to_xyz.sum(axis=1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29).tolist()
    values = ((116 * y - 16) * 65535 / 100, (500 * (x - y) + 128) * 257, (200 * (y - z) + 128) * 257)
    return [min(max(round(value), 0), 65535) for value in values]


def _check(path: Path, contours: Contours, series: CTSeries, written: tuple[str, ...]) -> None:
    """Read the file and compare every frame with the slice that it is to be."""
    import pydicom

    dataset = pydicom.dcmread(path)
    bits = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    size = dataset.Rows * dataset.Columns
    slice_of = {tuple(map(float, _decimals(image.ImagePositionPatient))): z for z, image in enumerate(series.headers)}
    voxels = dict.fromkeys(written, 0)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        name = written[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        z = slice_of[tuple(map(float, frame.PlanePositionSequence[0].ImagePositionPatient))]
        first = number * size
        block = np.unpackbits(bits[first // 8 : (first + size + 7) // 8], bitorder="little")
        plane = block[first % 8 : first % 8 + size].reshape(dataset.Rows, dataset.Columns)
        facts = contours.structures[name]
        if not np.array_equal(plane.view(bool), contours.layers[facts.layer, z] == facts.value):
            raise _read_back_differs(name)
        voxels[name] += int(np.count_nonzero(plane))
    for name in written:
        if voxels[name] != contours.structures[name].voxels:
            raise _read_back_differs(name)


def _read_back_differs(name: str) -> OutputError:
    return OutputError(
        f"The DICOM SEG was not written: read back, {name} is not what went in. This is a defect of SegRapSlicer; "
        "please report it."
    )
