"""A DICOM series on disk for a test: read as the only one, refused with nothing changed, or of another kind."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.errors import InputError

OTHER_OBJECTS = {
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
}


def only_series(folder: Path) -> CTSeries:
    (series,) = read_series_folder(folder)
    return series


def refusal(folder: Path) -> str:
    """What the person is told; the folder is as it was."""
    before = sorted(folder.rglob("*")) if folder.exists() else []
    with pytest.raises(InputError) as caught:
        for series in read_series_folder(folder):
            series.image()
    assert (sorted(folder.rglob("*")) if folder.exists() else []) == before
    assert caught.value.exit_status == 3
    assert "Made" not in str(caught.value)  # the patient's name
    return str(caught.value)


def write_other_object(path: Path, modality: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SOPClassUID = OTHER_OBJECTS[modality]
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
