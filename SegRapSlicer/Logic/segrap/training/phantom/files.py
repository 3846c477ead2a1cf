"""A made-up patient as files: two DICOM series as a scanner would send them, or NIfTI as SegRap2023 is laid out.

The patient is called Phantom^Seed<n> in every header. The UIDs follow from the seed and the grid, so the same patient
written twice is the same study.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import segrap
from segrap import anatomy
from segrap.contour_files.formats import write_nifti_folder
from segrap.contours import Contours, Provenance
from segrap.geometry import Geometry
from segrap.image import Image, write_image
from segrap.training.phantom import PhantomCase
from segrap.writing import cannot_write

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
AIR_HU = -1024
# A fixed day keeps the files the same from run to run.
STUDY_DATE = "20230701"
SERIES = (
    ("non-contrast", "Head Neck 3.0 non-contrast", "101500", None),
    ("contrast", "Head Neck 3.0 contrast", "102100", "IOHEXOL 300"),
)


def truth(case: PhantomCase, seed: int) -> Contours:
    """The true contours of a rendered phantom: all 47 structures, origin 'drawn'."""
    provenance = Provenance(
        intended_use="demonstration",
        software=f"segrap {segrap.__version__}",
        remarks=(f"The truth of the made-up patient with seed {seed}; no real person.",),
    )
    masks = anatomy.masks_from_subclasses(case.subclasses.array)
    return Contours.from_masks(masks, case.subclasses.geometry, provenance, origin="drawn")


def write_nifti_pair(case: PhantomCase, folder: str | Path, seed: int) -> None:
    """Write image.nii.gz, image_contrast.nii.gz and one <structure>.nii.gz each: the layout of SegRap2023's cases.

    Raises OutputError.
    """
    folder = _made(folder)
    write_image(case.non_contrast, folder / "image.nii.gz")
    write_image(case.contrast, folder / "image_contrast.nii.gz")
    write_nifti_folder(truth(case, seed), folder)


def write_dicom_pair(case: PhantomCase, folder: str | Path, seed: int) -> tuple[Path, Path]:
    """Write the two scans as CT series of one study and Frame of Reference; returns their two folders.

    They lie in `non-contrast` and `contrast` below `folder`, one file per slice. The grid must be axial (identity
    direction), as `Phantom.render` makes it. Raises OutputError.
    """
    folder = _made(folder)
    written = []
    for number, (image, (name, description, time, agent)) in enumerate(
        zip((case.non_contrast, case.contrast), SERIES, strict=True), start=1
    ):
        target = _made(folder / name)
        _write_series(image, target, seed, number, description, time, agent)
        written.append(target)
    return written[0], written[1]


def write_dicom_patient(case: PhantomCase, folder: str | Path, seed: int) -> None:
    """Write the two scans as `write_dicom_pair` does, and the true contours as RTSTRUCT.dcm on the non-contrast one.

    Raises OutputError.
    """
    from segrap.ct.dicom_series import read_series_folder
    from segrap.rtstruct.write import write_rtstruct

    plain, _ = write_dicom_pair(case, folder, seed)
    (series,) = read_series_folder(plain)
    write_rtstruct(truth(case, seed), series, Path(folder) / "RTSTRUCT.dcm")


def _write_series(
    image: Image, folder: Path, seed: int, number: int, description: str, time: str, agent: str | None
) -> None:
    geometry = image.geometry
    stored = np.clip(image.array.astype(np.int32) - AIR_HU, 0, 4095).astype("<u2")
    for index, plane in enumerate(stored):
        header = _header(geometry, image.shape, seed, number, description, time, agent, index)
        header.PixelData = plane.tobytes()
        path = folder / f"{index + 1:04d}.dcm"
        try:
            header.save_as(path, enforce_file_format=True)
        except OSError as error:
            raise cannot_write(path, error) from error


def _header(  # type: ignore[no-untyped-def]
    geometry: Geometry,
    shape: tuple[int, int, int],
    seed: int,
    number: int,
    description: str,
    time: str,
    agent: str | None,
    index: int,
):
    """A CT image (pydicom FileDataset without pixels) of one slice, after PS3.3 A.3."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    rows, columns = shape[1:]
    series, instance = _uid(geometry, shape, seed, number), _uid(geometry, shape, seed, number, index)
    place = geometry.to_lps(np.array([0.0, 0.0, index]))

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT_IMAGE_STORAGE
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CT_IMAGE_STORAGE
    header.SOPInstanceUID = instance
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = STUDY_DATE
    header.StudyTime = "101000"
    header.SeriesTime = header.AcquisitionTime = header.ContentTime = time
    header.AccessionNumber = ""
    header.Modality = "CT"
    header.Manufacturer = "SegRapSlicer"
    header.ManufacturerModelName = "Phantom"
    header.SoftwareVersions = segrap.__version__
    header.ReferringPhysicianName = ""
    header.StudyDescription = "Made-up patient, no real person"
    header.SeriesDescription = description
    header.PatientName = f"Phantom^Seed{seed}"
    header.PatientID = f"SEGRAP-PHANTOM-{seed}"
    header.PatientBirthDate = ""
    header.PatientSex = "O"
    header.PatientPosition = "HFS"
    header.BodyPartExamined = "HEADNECK"
    header.StudyInstanceUID = _uid(geometry, shape, seed)
    header.SeriesInstanceUID = series
    header.FrameOfReferenceUID = _uid(geometry, shape, seed, "frame of reference")
    header.PositionReferenceIndicator = ""
    header.StudyID = str(seed)[:16]
    header.SeriesNumber = number
    header.AcquisitionNumber = number
    header.InstanceNumber = index + 1
    header.KVP = "120"
    header.ConvolutionKernel = "PHANTOM"
    if agent:
        header.ContrastBolusAgent = agent
        header.ContrastBolusRoute = "IV"
    header.SliceThickness = f"{geometry.spacing_mm[2]:.6g}"
    header.PixelSpacing = [f"{geometry.spacing_mm[1]:.10g}", f"{geometry.spacing_mm[0]:.10g}"]
    header.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    header.ImagePositionPatient = [f"{value:.8g}" for value in place]
    header.SliceLocation = f"{place[2]:.8g}"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = rows, columns
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = str(AIR_HU), "1", "HU"
    header.WindowCenter, header.WindowWidth = "40", "400"
    return header


def _uid(geometry: Geometry, shape: tuple[int, int, int], seed: int, *parts: object) -> str:
    """The same UID for the same patient on the same grid, another for anything else."""
    from pydicom.uid import generate_uid

    grid = (geometry.spacing_mm, geometry.origin_mm, shape)
    return str(generate_uid(entropy_srcs=["SegRapSlicer phantom", str(seed), str(grid), *map(str, parts)]))


def _made(folder: str | Path) -> Path:
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder
