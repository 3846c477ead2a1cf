"""Contours in, RTSTRUCT out, written against the original CT: its patient, study, Frame of Reference and images.

Nothing that is left behind has not been read back: the file gives exactly the masks that went in, or it is not there.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import segrap
from segrap import anatomy
from segrap.contours import Contours, StructureFacts
from segrap.dicom_series import CTSeries
from segrap.errors import InputError, OutputError, UsageError
from segrap.image import same_grid
from segrap.rtstruct.contents import (
    DEMONSTRATION_LABEL,
    LABEL,
    MANUFACTURER,
    RT_STRUCTURE_SET_STORAGE,
    read_contents,
)
from segrap.rtstruct.outline import outlines
from segrap.rtstruct.planes import SlicePlanes
from segrap.rtstruct.read import filled
from segrap.writing import replacing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Names = Literal["tg263", "segrap"]

# Far from the numbers that scanners give, so that no list shows the CT and its contours under one.
_SERIES_NUMBER_STEP = 9000
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # what the standard asks for here, though retired as an object
_ALGORITHMS = {"model": "AUTOMATIC", "edited": "SEMIAUTOMATIC", "drawn": "MANUAL", "imported": ""}
_SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}

# Type 2 of the Patient, General Study and Frame of Reference modules: there, if need be empty.
_COPIED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
_COPIED_IF_THERE = (
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "PatientBirthTime",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
)


@dataclass(frozen=True)
class WriteReport:
    """What an export did, by SegRap names.

    written: structures in the file, in its order. empty: asked for, but without a voxel, hence not in the file.
    """

    written: tuple[str, ...]
    empty: tuple[str, ...]


def write_rtstruct(
    contours: Contours,
    series: CTSeries,
    path: str | Path,
    structures: Iterable[str] | None = None,
    names: Names = "tg263",
) -> WriteReport:
    """Write structures (SegRap names; all of `contours` if None) as an RTSTRUCT on the CT that they were drawn on.

    names: whether ROIs are called by their TG-263 or SegRap name; the SegRap name stands in ROIDescription either way.
    The file is whole or not there. Contours run along the voxels' edges, so that a reader which takes a voxel whose
    centre is inside gets the very same masks; that is checked by reading the file back.

    Raises UsageError for a structure that `contours` does not cover, InputError when the grid of `contours` is not that
    of `series`, the CT lacks what an RTSTRUCT must refer to, or no structure has a voxel; OutputError when the file
    cannot be written or does not read back the same.
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

    dataset = _header(contours, series)
    _add_references(dataset, series)
    planes = SlicePlanes(series)
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    for number, name in enumerate(written, start=1):
        structure, facts = anatomy.structure(name), contours.structures[name]
        dataset.StructureSetROISequence.append(_roi(number, structure, facts, contours, series, names))
        dataset.ROIContourSequence.append(_roi_contour(number, structure, contours, series, planes))
        dataset.RTROIObservationsSequence.append(_observation(number, structure))

    with replacing(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
        _check_reads_back(temporary, contours, series, planes, written)
    return WriteReport(written, empty)


def _check_series(contours: Contours, series: CTSeries) -> None:
    if not same_grid(contours.geometry, contours.shape, series.geometry, series.shape):
        raise InputError(
            f"The contours ({' x '.join(map(str, contours.shape))} voxels) do not lie on the grid of the CT series "
            f"({' x '.join(map(str, series.shape))}). Give the CT on which they were drawn."
        )
    for keyword, uid in (
        ("StudyInstanceUID", series.study_uid),
        ("FrameOfReferenceUID", series.frame_of_reference_uid),
    ):
        if not uid:
            raise InputError(f"The CT series has no {keyword}, so no RTSTRUCT can refer to it. Export the CT again.")


def _check_reads_back(
    path: Path, contours: Contours, series: CTSeries, planes: SlicePlanes, written: tuple[str, ...]
) -> None:
    rois = read_contents(path).rois
    for name, roi in zip(written, rois, strict=True):
        region, _ = filled(roi, planes, series.shape)
        facts = contours.structures[name]
        same_inside = np.array_equal(region.mask, contours.layers[facts.layer][region.box] == facts.value)
        if not same_inside or int(np.count_nonzero(region.mask)) != facts.voxels:
            raise OutputError(
                f"The RTSTRUCT was not written: read back, {name} has {np.count_nonzero(region.mask)} voxels where "
                f"{facts.voxels} went in. This is a defect of SegRapSlicer; please report it."
            )


def _header(contours: Contours, series: CTSeries) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, generate_uid

    image = series.headers[0]
    provenance = contours.provenance
    demonstration = provenance.intended_use == "demonstration"
    now = datetime.datetime.now()
    dataset = Dataset()
    for keyword in _COPIED_IF_THERE:
        if keyword in image:
            dataset[keyword] = image[keyword]
    for keyword in _COPIED:
        if keyword in image:
            dataset[keyword] = image[keyword]
        else:
            setattr(dataset, keyword, "")
    dataset.SOPClassUID = RT_STRUCTURE_SET_STORAGE
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    dataset.InstanceCreationDate = dataset.SeriesDate = dataset.StructureSetDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.SeriesTime = dataset.StructureSetTime = now.strftime("%H%M%S")
    dataset.Modality = "RTSTRUCT"
    dataset.StudyInstanceUID = series.study_uid
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesNumber = int(image.get("SeriesNumber") or 0) + _SERIES_NUMBER_STEP
    dataset.OperatorsName = ""
    dataset.SeriesDescription = _ascii(
        "DEMONSTRATION, not for clinical use" if demonstration else "AI, not reviewed", 64
    )
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = _software_versions(contours)
    dataset.FrameOfReferenceUID = series.frame_of_reference_uid
    dataset.StructureSetLabel = DEMONSTRATION_LABEL if demonstration else LABEL
    dataset.StructureSetName = dataset.SeriesDescription
    description = [contours.title + "."]
    if provenance.model_hash:
        description.append(f"Model files SHA-256 {provenance.model_hash[:12]}.")
    if provenance.input_series_uids:
        description.append(f"Made from CT series {', '.join(provenance.input_series_uids)}.")
    dataset.StructureSetDescription = _ascii(" ".join(description), 1024)
    dataset.InstanceNumber = 1
    dataset.ApprovalStatus = "UNAPPROVED"

    # Implicit VR: in explicit VR a contour of more than 65,534 bytes cannot be written, and readers lose it.
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def _software_versions(contours: Contours) -> list[str]:
    # One entry each, as the reader takes them apart again; 64 characters fit into each.
    provenance = contours.provenance
    entries = (
        ("segrap", segrap.__version__),
        ("model", provenance.model_name),
        ("version", provenance.model_version),
        ("created", provenance.created),
        (provenance.model_hash, " "),  # 64 characters by itself
    )
    return [_ascii(f"{kind} {value}".strip(), 64) for kind, value in entries if value]


def _add_references(dataset: Dataset, series: CTSeries) -> None:
    from pydicom.dataset import Dataset

    referenced_series = Dataset()
    referenced_series.SeriesInstanceUID = series.series_uid
    referenced_series.ContourImageSequence = [_image_reference(header) for header in series.headers]
    referenced_study = Dataset()
    referenced_study.ReferencedSOPClassUID = _STUDY_CLASS
    referenced_study.ReferencedSOPInstanceUID = series.study_uid
    referenced_study.RTReferencedSeriesSequence = [referenced_series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = series.frame_of_reference_uid
    frame_of_reference.RTReferencedStudySequence = [referenced_study]
    dataset.ReferencedFrameOfReferenceSequence = [frame_of_reference]


def _image_reference(header: Any) -> Dataset:
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return reference


def _roi(
    number: int,
    structure: anatomy.Structure,
    facts: StructureFacts,
    contours: Contours,
    series: CTSeries,
    names: Names,
) -> Dataset:
    from pydicom.dataset import Dataset

    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = series.frame_of_reference_uid
    roi.ROIName = structure.tg263_name if names == "tg263" else structure.name
    roi.ROIDescription = f"SegRap {structure.name}" + (f": {structure.description}" if structure.description else "")
    roi.ROIVolume = f"{facts.volume_cc:.4f}"
    roi.ROIGenerationAlgorithm = _ALGORITHMS[facts.origin]
    if facts.origin in ("model", "edited") and contours.provenance.model_name:
        model = f"{contours.provenance.model_name} {contours.provenance.model_version}".strip()
        roi.ROIGenerationDescription = _ascii(model + (", edited" if facts.origin == "edited" else ""), 64)
    return roi


def _observation(number: int, structure: anatomy.Structure) -> Dataset:
    from pydicom.dataset import Dataset

    code = _code(*structure.snomed)
    if structure.laterality:
        code.SegmentedPropertyTypeModifierCodeSequence = [_code(*_SIDES[structure.laterality])]
    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.ROIObservationLabel = structure.name
    observation.RTROIIdentificationCodeSequence = [code]
    observation.RTROIInterpretedType = structure.kind
    observation.ROIInterpreter = ""
    return observation


def _code(value: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = "SCT"
    code.CodeMeaning = meaning
    return code


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
    contour.ContourImageSequence = [_image_reference(header)]
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


def _ascii(text: str, longest: int) -> str:
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")[:longest]
