"""The CT's patient arrives in files made from it byte by byte, whatever its character set; and nothing odd stops it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from rtstruct_cases import DEMONSTRATION, SHAPE, SPACING_MM, contours_of, difficult_masks
from synthetic_ct import write_ct_series

from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.dicom_seg.read import read_dicom_seg
from segrap.dicom_seg.write import write_dicom_seg
from segrap.geometry import Geometry
from segrap.rtstruct.lint import lint
from segrap.rtstruct.read import read_rtstruct
from segrap.rtstruct.write import write_rtstruct

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, on what does not fit

WRITERS = {"RTSTRUCT": write_rtstruct, "DICOM SEG": write_dicom_seg}
READERS = {"RTSTRUCT": read_rtstruct, "DICOM SEG": read_dicom_seg}

# Character set that the CT declares, and the bytes in it.
TEXTS = {
    "as declared, UTF-8": ("ISO_IR 192", "Müller^Jürgen".encode()),
    "as declared, Chinese": ("GB18030", "Zhang^XiaoDong=张^小东".encode("gb18030")),
    "as declared, Japanese": ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "Latin-1 called UTF-8": ("ISO_IR 192", "Müller^Jürgen".encode("latin-1")),
    "GBK called UTF-8": ("ISO_IR 192", "张^小东".encode("gbk")),
    "GBK called Latin-1": ("ISO_IR 100", "张^小东".encode("gbk")),
    "UTF-8 called nothing": ("", "Müller^Jürgen".encode()),
    "bytes that Thai has not": ("ISO_IR 166", b"Na\xfc\xfe^Me"),
    "a character set that does not exist": ("ISO_IR 999", "Müller^Jürgen".encode("latin-1")),
}


def ct_with(folder: Path, charset: str = "ISO_IR 100", **texts: bytes) -> CTSeries:
    """A CT with these very bytes as the values of some attributes."""
    stand_ins = {
        keyword: str(number) * (12 if keyword == "SeriesNumber" else 40) for number, keyword in enumerate(texts, 1)
    }
    tags = stand_ins | {"SpecificCharacterSet": charset.split("\\")}
    geometry = Geometry(SPACING_MM, (-20.37, -151.2, 33.33))
    for path in write_ct_series(folder, np.zeros(SHAPE), geometry, **tags):
        data = path.read_bytes()
        for keyword, stand_in in stand_ins.items():
            assert data.count(stand_in.encode()) == 1
            data = data.replace(stand_in.encode(), texts[keyword].ljust(len(stand_in)))
        path.write_bytes(data)
    (series,) = read_series_folder(folder)
    return series


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("text", TEXTS)
def test_names_and_numbers_of_the_patient_are_those_of_the_ct_byte_by_byte(kind, text, tmp_path):
    charset, value = TEXTS[text]
    series = ct_with(tmp_path / "ct", charset, PatientName=value, PatientID=b"7" + value, StudyDescription=value)
    str(series.headers[0].PatientName)  # having been looked at changes nothing
    contours = contours_of(difficult_masks(), series)
    WRITERS[kind](contours, series, tmp_path / "file.dcm")
    written = pydicom.dcmread(tmp_path / "file.dcm")
    for keyword, expected in (("PatientName", value), ("PatientID", b"7" + value), ("StudyDescription", value)):
        assert written.get_item(keyword).value.rstrip() == expected, keyword
    assert written.get("SpecificCharacterSet") == series.headers[0].get("SpecificCharacterSet")
    again = READERS[kind](tmp_path / "file.dcm", series)
    assert np.array_equal(again.mask("Parotid_L"), contours.mask("Parotid_L"))
    if kind == "RTSTRUCT":
        assert [finding for finding in lint(tmp_path / "file.dcm", series) if "Patient" in finding.what] == []


def test_a_name_of_which_letters_were_lost_on_the_way_is_found(tmp_path):
    series = ct_with(tmp_path / "ct", "ISO_IR 192", PatientName="Müller^Jürgen".encode("latin-1"))
    write_rtstruct(contours_of(difficult_masks(), series), series, tmp_path / "good.dcm")
    dataset = pydicom.dcmread(tmp_path / "good.dcm")
    dataset.PatientName = str(dataset.PatientName)  # as programs do that decode and encode
    assert "\ufffd" in str(dataset.PatientName)
    dataset.save_as(tmp_path / "altered.dcm")
    assert "its PatientName is not that of the CT." in [one.what for one in lint(tmp_path / "altered.dcm", series)]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("stated", "given"),
    [(b"3a", 9000), (b"7", 9007), (b"", 9000), (b"2147483647", 9000), (b"1\\2", 9000), (b"1e99", 9000), (b"-2", 8998)],
)
def test_a_series_number_that_is_none_does_not_stop_an_export(kind, stated, given, tmp_path):
    series = ct_with(tmp_path / "ct", SeriesNumber=stated)
    WRITERS[kind](contours_of(difficult_masks(), series), series, tmp_path / "file.dcm")
    assert pydicom.dcmread(tmp_path / "file.dcm").SeriesNumber == given


def test_dates_and_study_numbers_that_break_the_rules_are_copied_as_they_are(tmp_path):
    series = ct_with(tmp_path / "ct", PatientBirthDate=b"1970.01.02", StudyID=b"a study of many characters")
    write_rtstruct(contours_of(difficult_masks(), series), series, tmp_path / "RTSTRUCT.dcm")
    written = pydicom.dcmread(tmp_path / "RTSTRUCT.dcm")
    assert written.get_item("PatientBirthDate").value.rstrip() == b"1970.01.02"
    assert written.get_item("StudyID").value.rstrip() == b"a study of many characters"


# --- what else a DICOM SEG takes over from the CT ---


def change(folder: Path, changed: Callable[[pydicom.Dataset], None]) -> CTSeries:
    write_ct_series(folder, np.zeros(SHAPE), Geometry(SPACING_MM, (-20.37, -151.2, 33.33)))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        changed(dataset)
        dataset.save_as(path)
    (series,) = read_series_folder(folder)
    return series


def test_a_segmentation_of_a_ct_that_lost_something_by_compression_says_so(tmp_path):
    def lossy(dataset: pydicom.Dataset) -> None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = "12.5"
        dataset.LossyImageCompressionMethod = "ISO_15444_1"

    for name, series, expected in (
        ("lossy", change(tmp_path / "lossy", lossy), ("01", 12.5, "ISO_15444_1")),
        ("whole", change(tmp_path / "whole", lambda dataset: None), ("00", None, None)),
    ):
        write_dicom_seg(contours_of(difficult_masks(), series), series, tmp_path / f"{name}.dcm")
        written = pydicom.dcmread(tmp_path / f"{name}.dcm")
        keywords = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
        assert tuple(written.get(keyword) for keyword in keywords) == expected


def test_positions_of_more_characters_than_allowed_are_shortened(tmp_path):
    def too_long(dataset: pydicom.Dataset) -> None:
        position = [f"{float(value) + 1e-7:.17f}" for value in dataset.ImagePositionPatient]
        dataset.ImagePositionPatient = position
        dataset.ImageOrientationPatient = ["1.00000000000000000", "0", "0", "0", "1.00000000000000000", "0"]

    series = change(tmp_path / "ct", too_long)
    contours = contours_of(difficult_masks(), series, DEMONSTRATION)
    write_dicom_seg(contours, series, tmp_path / "SEG.dcm")
    written = pydicom.dcmread(tmp_path / "SEG.dcm")
    for frame in written.PerFrameFunctionalGroupsSequence:
        data = frame.PlanePositionSequence[0].get_item("ImagePositionPatient").value
        assert max(map(len, data.rstrip().split(b"\\"))) <= 16
    again = read_dicom_seg(tmp_path / "SEG.dcm", series)
    assert [name for name in again.names if not np.array_equal(again.mask(name), contours.mask(name))] == []
