"""The pixels of one DICOM CT slice in Hounsfield units: compression, sign, rescale and padding."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from segrap.ct.hounsfield import AIR_HU
from segrap.errors import InputError

# Implicit and explicit little endian, big endian, deflated: the encodings that need no decoder.
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
# What pydicom raises on bytes that are not, or no longer, what they should be.
DAMAGE = (
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    struct.error,
)


def read_slice(path: Path, header: Any, dtype: np.dtype) -> np.ndarray:
    """One slice (y, x) in Hounsfield units, padding at -1024.

    header: its pydicom dataset. dtype: int16 for rescales in whole numbers, float32 for others.

    Raises InputError when the file is cut short, cannot be decoded, or holds values far from Hounsfield units.
    """
    import pydicom

    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    if syntax and syntax not in UNCOMPRESSED:
        values = _decode(path, header)
    else:
        try:
            dataset = pydicom.dcmread(path, force=True)
            if not syntax:  # a file from before DICOM part 10
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = UNCOMPRESSED[0 if implicit else 1]
            values = _rescaled(dataset.pixel_array, header)
        except (*DAMAGE, pydicom.errors.BytesLengthException) as error:
            raise InputError(f"The pixels of {path.name} are cut short or damaged. Copy the series again.") from error
    if values.shape != (header.Rows, header.Columns):
        raise InputError(
            f"{path.name} holds {values.shape} pixels, not the size that it states. Copy the series again."
        )
    _blank_padding(values, header)
    if dtype == np.int16 and (values.max() > 32767 or values.min() < -32768):
        raise InputError(
            f"{path.name} has values of {values.min():g} to {values.max():g}, which are no Hounsfield units: a wrong "
            "rescale. Export the series again from the scanner."
        )
    return values.astype(dtype)


def rescale(header: Any) -> tuple[float, float]:
    """(slope, intercept); 1 and 0 where the file states none."""
    return float(header.get("RescaleSlope", 1) or 0), float(header.get("RescaleIntercept", 0) or 0)


def _rescaled(stored: np.ndarray, header: Any) -> np.ndarray:
    """Stored pixels in Hounsfield units: int32 where the rescale is in whole numbers, otherwise float64."""
    slope, intercept = rescale(header)
    if slope == 1 and intercept.is_integer():  # nearly every CT there is, and several times as fast
        return stored.astype(np.int32) + np.int32(intercept)
    return stored * np.float64(slope) + np.float64(intercept)


def _decode(path: Path, header: Any) -> np.ndarray:
    """A compressed slice (y, x) in Hounsfield units, float64.

    Decoded by GDCM, which SimpleITK brings along for every DICOM compression; pydicom would need plugins.
    """
    import pydicom

    try:
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            # That is how to show the values (low ones bright); ITK turns the values themselves round for it.
            with TemporaryDirectory() as folder:
                values = _read_by_itk(_as_monochrome2(path, Path(folder)))
        else:
            values = _read_by_itk(path)
    except (RuntimeError, *DAMAGE, pydicom.errors.BytesLengthException) as error:
        syntax = header.file_meta.TransferSyntaxUID.name
        raise InputError(
            f"The pixels of {path.name} ({syntax}) cannot be decoded; the file is cut short or its compression is not "
            "supported. Export the series uncompressed."
        ) from error
    return values.reshape(values.shape[-2:]).astype(np.float64)


def _read_by_itk(path: Path) -> np.ndarray:
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO"))


def _as_monochrome2(path: Path, folder: Path) -> Path:
    """The pixels of a slice as a file in `folder` that calls them MONOCHROME2, and says nothing of the patient."""
    import pydicom

    whole = pydicom.dcmread(path)
    pixels = whole.group_dataset(0x0028)
    pixels.file_meta = whole.file_meta
    for keyword in ("SOPClassUID", "SOPInstanceUID", "PixelData"):
        pixels[keyword] = whole[keyword]
    pixels.PhotometricInterpretation = "MONOCHROME2"
    pixels.save_as(folder / "slice.dcm", enforce_file_format=True)
    return folder / "slice.dcm"


def _blank_padding(values: np.ndarray, header: Any) -> None:
    """Set what the scanner did not measure to air, in place."""
    if header.get("PixelPaddingValue") is None:
        return
    slope, intercept = rescale(header)
    first = int(header.PixelPaddingValue)
    last = int(header.get("PixelPaddingRangeLimit", first) or first)
    limit = 1 << int(header.BitsAllocated)
    # Some writers give the padding of signed pixels as an unsigned number, and the other way round.
    if header.get("PixelRepresentation", 0) == 1:
        first, last = (number - limit if number >= limit // 2 else number for number in (first, last))
    else:
        first, last = (number % limit for number in (first, last))
    low, high = sorted((first * slope + intercept, last * slope + intercept))
    # A "padding" in the middle of the tissue is a writer's mistake (0 in signed pixels): it would blank the patient.
    if high <= -1000 or low > 3071:
        values[(values >= low) & (values <= high)] = AIR_HU
