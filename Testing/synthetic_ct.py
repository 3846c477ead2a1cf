"""Small made-up CTs, in memory and as DICOM series, for tests: any orientation, any table of faults.

The bodies here are blocks and balls with the CT numbers of tissue; the patient with anatomy is segrap.training.phantom.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from segrap.geometry import Geometry
from segrap.image import Image

HEAD_FIRST_SUPINE = np.eye(3)
# The columns are the directions of rising x, y and z index; z is always row x column here, as DICOM readers stack.
FEET_FIRST_SUPINE = np.diag([-1.0, 1.0, -1.0])
HEAD_FIRST_PRONE = np.diag([-1.0, -1.0, 1.0])
HEAD_FIRST_DECUBITUS_RIGHT = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def head_like(
    shape: tuple[int, int, int] = (20, 64, 64),
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    enhancement_hu: float = 0.0,
    noise_hu: float = 8.0,
    seed: int = 0,
    direction: np.ndarray = HEAD_FIRST_SUPINE,
) -> Image:
    """A skull with brain, jaw, airway and two vessels in air, centred on the grid; int16 HU.

    shift_mm moves the patient (LPS) inside the grid; enhancement_hu brightens the vessels and a gland.
    """
    z, y, x = shape
    centre_index = np.array([(x - 1) / 2, (y - 1) / 2, (z - 1) / 2])
    origin = -(direction @ (centre_index * np.asarray(spacing_mm)))
    geometry = Geometry(spacing_mm, tuple(origin), direction)
    index = np.stack(np.meshgrid(np.arange(x), np.arange(y), np.arange(z), indexing="ij"), axis=-1).transpose(
        2, 1, 0, 3
    )
    place = geometry.to_lps(index) - np.asarray(shift_mm)
    left, back, up = place[..., 0], place[..., 1], place[..., 2]

    hu = np.full(shape, -1000.0)
    neck = (left / 52) ** 2 + ((back - 8) / 58) ** 2 < 1
    skull_radius = np.sqrt((left / 68) ** 2 + (back / 82) ** 2 + ((up - 10) / 75) ** 2)
    hu[neck | (skull_radius < 1)] = 45.0
    hu[(skull_radius < 0.93) & (skull_radius > 0.84)] = 900.0
    hu[skull_radius <= 0.84] = 35.0
    jaw_radius = np.hypot(left / 42, (back + 12) / 52)
    hu[neck & (jaw_radius < 1) & (jaw_radius > 0.85) & (back < 10) & (np.abs(up + 24) < 9)] = 1100.0
    hu[np.hypot(left, (back + 18) / 1.4) < 9] = -1000.0
    hu[np.hypot(left - 3, back - 38) < 11] = 400.0  # spine, not quite in the middle
    for side in (-1, 1):
        hu[np.hypot(left - side * 26, back - 10) < 6] = 40.0 + enhancement_hu
    hu[np.linalg.norm(place - (30.0, -8.0, -18.0), axis=-1) < 11] = 50.0 + 0.5 * enhancement_hu
    hu += np.random.default_rng(seed).normal(0.0, noise_hu, shape)
    return Image(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), geometry)


def write_ct_series(
    folder: Path,
    array_hu: np.ndarray,
    geometry: Geometry,
    *,
    slice_shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    leave_out: tuple[int, ...] = (),
    rescale: tuple[float, float] = (1.0, -1024.0),
    **tags: Any,
) -> list[Path]:
    """Write `array_hu` (z, y, x) as one CT series into `folder` (made if missing); the files in slice order.

    The z column of geometry.direction need not be row x column: slices lie where it points. slice_shift_mm is added
    to the position once more with every slice (a tilted gantry moves slices in plane); slices `leave_out` are not
    written. Any DICOM attribute may be set by keyword and overrides the default: StudyInstanceUID, FrameOfReferenceUID,
    PatientPosition, ContrastBolusAgent, SeriesDescription, Modality, ... A callable value receives the slice number.
    File names are in no useful order and have no ending, as clinical exports often are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slope, intercept = rescale
    exact = np.rint((np.asarray(array_hu, dtype=np.float64) - intercept) / slope)
    stored = exact.astype(np.int16 if tags.get("PixelRepresentation") == 1 else np.uint16)
    if not np.array_equal(stored, exact):
        raise ValueError("these values do not fit into 16 bits with this rescale")
    common = {
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
    }
    count, rows, columns = stored.shape
    scrambled = np.random.default_rng(count).permutation(count)
    paths = []
    for number in range(count):
        if number in leave_out:
            continue
        position = geometry.to_lps([0, 0, number]) + number * np.asarray(slice_shift_mm)
        header = _header(common)
        header.InstanceNumber = count - number
        header.Rows, header.Columns = rows, columns
        header.PixelSpacing = [_decimal(geometry.spacing_mm[1]), _decimal(geometry.spacing_mm[0])]
        header.SliceThickness = _decimal(geometry.spacing_mm[2])
        header.ImageOrientationPatient = [_decimal(value) for value in geometry.direction[:, :2].T.ravel()]
        header.ImagePositionPatient = [_decimal(value) for value in position]
        header.RescaleSlope, header.RescaleIntercept = _decimal(slope), _decimal(intercept)
        header.PixelData = stored[number].tobytes()
        for keyword, value in tags.items():
            setattr(header, keyword, value(number) if callable(value) else value)
        path = folder / f"IM{scrambled[number]:05d}"
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value + 0.0:.10f}"[:16].rstrip("0").rstrip(".")


def _header(common: dict[str, str]) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SpecificCharacterSet = "ISO_IR 100"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = generate_uid()
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = "20240102"
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = "101112"
    header.AccessionNumber = ""
    header.Modality = "CT"
    header.Manufacturer = "Made up"
    header.ReferringPhysicianName = ""
    header.PatientName = "Made^Up"
    header.PatientID = "MADEUP01"
    header.PatientBirthDate = ""
    header.PatientSex = "O"
    header.BodyPartExamined = "HEADNECK"
    header.KVP = "120"
    header.PatientPosition = "HFS"
    for keyword, value in common.items():
        setattr(header, keyword, value)
    header.StudyID = "1"
    header.SeriesNumber = 1
    header.AcquisitionNumber = 1
    header.PositionReferenceIndicator = ""
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    header.RescaleType = "HU"
    return header
