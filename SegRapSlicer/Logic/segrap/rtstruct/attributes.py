"""What an RTSTRUCT says besides its contours: whose it is, what it refers to, who made it, what each ROI is.

Compatible on purpose: every attribute is known to the validators and planning systems of 2022 and before.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segrap
from segrap import anatomy
from segrap.contours import Contours, StructureFacts
from segrap.ct.dicom_series import PATIENT_AND_STUDY, CTSeries, texts_as_stated
from segrap.errors import OutputError
from segrap.rtstruct.contents import DEMONSTRATION_LABEL, LABEL, MANUFACTURER, RT_STRUCTURE_SET_STORAGE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Far from the numbers that scanners give, so that no list shows the CT and its contours under one.
_SERIES_NUMBER_STEP = 9000
_LARGEST_SERIES_NUMBER = 2**31 - 1 - _SERIES_NUMBER_STEP  # what is left of the room in an integer string
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # what the standard asks for here, though retired as an object
_ALGORITHMS = {"model": "AUTOMATIC", "edited": "SEMIAUTOMATIC", "drawn": "MANUAL", "imported": ""}
SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}


def of_patient_and_study(contours: Contours, series: CTSeries, transfer_syntax: str) -> Dataset:
    """A new dataset of the CT's patient, study and Frame of Reference, as a series of its own made by this software.

    transfer_syntax: the UID of that in which it is to be saved, little endian. Texts are copied as the bytes that they
    are in the CT (see `texts_as_stated`); `check_texts` tells whether they arrived in the file.
    """
    from pydicom.charset import convert_encodings, default_encoding
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.tag import Tag
    from pydicom.uid import UID, generate_uid

    image = series.headers[0]
    now = datetime.datetime.now()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    for keyword in ("SpecificCharacterSet", "DeidentificationMethodCodeSequence"):
        if keyword in image:
            dataset[keyword] = image[keyword]
    for keyword, text in ({name: b"" for name in PATIENT_AND_STUDY} | dict(series.texts)).items():
        tag, data = Tag(keyword), text + b" " * (len(text) % 2)
        dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(data), data, 0, True, True)
    # So that pydicom writes these bytes as they are.
    declared = (
        convert_encodings(dataset.SpecificCharacterSet) if "SpecificCharacterSet" in dataset else default_encoding
    )
    dataset.set_original_encoding(dataset.file_meta.TransferSyntaxUID.is_implicit_VR, True, declared)
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    dataset.InstanceCreationDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.SeriesTime = now.strftime("%H%M%S")
    dataset.StudyInstanceUID = series.study_uid
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesNumber = _series_number(image)
    dataset.SeriesDescription = (
        "SegRap DEMONSTRATION, not for clinical use"
        if contours.provenance.intended_use == "demonstration"
        else "SegRap contours, not reviewed"
    )
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = _software_versions(contours)
    dataset.FrameOfReferenceUID = series.frame_of_reference_uid
    dataset.InstanceNumber = 1
    return dataset


def check_texts(path: Path, series: CTSeries, kind: str) -> None:
    """Raise OutputError when a text on patient and study is not, byte by byte, that of the CT. kind: of the file."""
    written = texts_as_stated(path)
    altered = [keyword for keyword, text in series.texts.items() if written.get(keyword) != text]
    if altered:
        raise OutputError(
            f"The {kind} was not written: {', '.join(altered)} in it would not be as in the CT. This is a defect of "
            "SegRapSlicer; please report it."
        )


def _series_number(image: Any) -> int:
    try:
        number = int(image.get("SeriesNumber") or 0)
    except (ValueError, TypeError, OverflowError):  # "3a", or several
        number = 0
    return _SERIES_NUMBER_STEP + (number if abs(number) < _LARGEST_SERIES_NUMBER else 0)


def label(contours: Contours) -> str:
    """What a list of structure sets shows, 16 characters at most."""
    return DEMONSTRATION_LABEL if contours.provenance.intended_use == "demonstration" else LABEL


def header(contours: Contours, series: CTSeries) -> Dataset:
    """A new RTSTRUCT dataset of the CT's patient and study, with UIDs of its own, and nothing in it yet."""
    from pydicom.uid import ImplicitVRLittleEndian

    provenance = contours.provenance
    # Implicit VR: in explicit VR a contour of more than 65,534 bytes cannot be written, and readers lose it.
    dataset = of_patient_and_study(contours, series, ImplicitVRLittleEndian)
    dataset.SOPClassUID = RT_STRUCTURE_SET_STORAGE
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.Modality = "RTSTRUCT"
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = label(contours)
    description = [contours.title + "."]
    if provenance.model_hash:
        description.append(f"Model files SHA-256 {provenance.model_digest[:12]}.")
    if provenance.input_series_uids:
        description.append(f"Made from CT series {', '.join(provenance.input_series_uids)}.")
    description += provenance.remarks
    dataset.StructureSetDescription = ascii_only(" ".join(description), 1024)
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _software_versions(contours: Contours) -> list[str]:
    # One entry each, as the reader takes them apart again. 64 characters fit into each, just enough for the digits of a
    # SHA-256 (but not at the end, where padding to even length may follow).
    provenance = contours.provenance
    entries = [f"segrap {segrap.__version__}"]
    for kind in ("name", "version"):
        value = getattr(provenance, f"model_{kind}")
        entries += [f"model-{kind} {value}"] if value else []
    entries += [provenance.model_digest] if provenance.model_hash else []
    entries += [f"created {provenance.created}"] if provenance.created else []
    return [ascii_only(entry, 64) for entry in entries]


def add_references(dataset: Dataset, series: CTSeries) -> None:
    """Name the Frame of Reference, the study, the series and every image of it."""
    from pydicom.dataset import Dataset

    referenced_series = Dataset()
    referenced_series.SeriesInstanceUID = series.series_uid
    referenced_series.ContourImageSequence = [image_reference(header) for header in series.headers]
    referenced_study = Dataset()
    referenced_study.ReferencedSOPClassUID = _STUDY_CLASS
    referenced_study.ReferencedSOPInstanceUID = series.study_uid
    referenced_study.RTReferencedSeriesSequence = [referenced_series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = series.frame_of_reference_uid
    frame_of_reference.RTReferencedStudySequence = [referenced_study]
    dataset.ReferencedFrameOfReferenceSequence = [frame_of_reference]


def image_reference(header: Any) -> Dataset:
    """A reference to the image with this header."""
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return reference


def roi_item(
    number: int,
    name: str,
    structure: anatomy.Structure,
    facts: StructureFacts,
    contours: Contours,
    series: CTSeries,
) -> Dataset:
    """The item of StructureSetROISequence: number, name, volume and how the structure came about."""
    from pydicom.dataset import Dataset

    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = series.frame_of_reference_uid
    roi.ROIName = name
    roi.ROIDescription = f"SegRap {structure.name}" + (f": {structure.description}" if structure.description else "")
    roi.ROIVolume = f"{facts.volume_cc:.4f}"
    roi.ROIGenerationAlgorithm = _ALGORITHMS[facts.origin]
    if model := contours.maker(structure.name):
        roi.ROIGenerationDescription = ascii_only(model + (", edited" if facts.origin == "edited" else ""), 64)
    return roi


def observation_item(number: int, structure: anatomy.Structure) -> Dataset:
    """The item of RTROIObservationsSequence: what the structure is, in types and codes."""
    from pydicom.dataset import Dataset

    kind = code(*structure.snomed)
    if structure.laterality:
        kind.SegmentedPropertyTypeModifierCodeSequence = [code(*SIDES[structure.laterality])]
    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.ROIObservationLabel = structure.name
    observation.RTROIIdentificationCodeSequence = [kind]
    observation.RTROIInterpretedType = structure.kind
    observation.ROIInterpreter = ""
    return observation


def code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    """A code of a coding scheme, SNOMED CT unless another is named."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def ascii_only(text: str, longest: int) -> str:
    """The text without what a DICOM file may not be able to say, and not longer than that."""
    # No character that another SpecificCharacterSet than the CT's would need, nor the one that separates values.
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")[:longest]
