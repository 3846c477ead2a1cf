"""Every way to spoil an RTSTRUCT that is known to have reached a planning system is found; a good one is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from rtstruct_cases import SHAPE, contours_of, difficult_masks

from segrap.ct.dicom_series import CTSeries
from segrap.errors import InputError
from segrap.rtstruct.lint import Finding, lint
from segrap.rtstruct.write import write_rtstruct

CONTOUR_DATA = Tag("ContourData")


@pytest.fixture(scope="module")
def good_file(series: CTSeries, tmp_path_factory: pytest.TempPathFactory) -> Path:
    masks = difficult_masks()
    right = np.zeros(SHAPE, dtype=bool)
    right[4:6, 12:18, 4:9] = True
    path = tmp_path_factory.mktemp("rtstruct") / "RTSTRUCT.dcm"
    names = ("Parotid_L", "Mandible_L", "OralCavity")
    write_rtstruct(contours_of({name: masks[name] for name in names} | {"Parotid_R": right}, series), series, path)
    return path


def roi_item(dataset: Dataset, name: str) -> Dataset:
    return next(item for item in dataset.StructureSetROISequence if item.ROIName == name)


def contours_in(dataset: Dataset, name: str) -> list[Dataset]:
    number = roi_item(dataset, name).ROINumber
    return next(item for item in dataset.ROIContourSequence if item.ReferencedROINumber == number).ContourSequence


def points_of(contour: Dataset) -> np.ndarray:
    return np.reshape(np.array(contour.ContourData, dtype=float), (-1, 3))


def set_points(contour: Dataset, points: np.ndarray) -> None:
    contour.ContourData = [f"{value:.4f}" for value in np.asarray(points).ravel()]
    contour.NumberOfContourPoints = len(points)


def square(contour: Dataset, low: float, high: float) -> np.ndarray:
    """Corners, in mm, of a square of pixels on the slice of this contour."""
    x, y = np.array([low, high]) * 0.9 - 20.37, np.array([low, high]) * 1.2 - 151.2
    return np.array([(x[i], y[j], points_of(contour)[0, 2]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))])


MUTANTS: dict[str, tuple[Callable[[Dataset], None], str, str]] = {}


def spoils(finding: str, severity: str = "error") -> Callable[[Callable[[Dataset], None]], Callable[[Dataset], None]]:
    """Enter a function that spoils a good file, with what the lint must say of the result."""

    def enter(mutate: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
        MUTANTS[mutate.__name__] = (mutate, severity, finding)
        return mutate

    return enter


@spoils("StructureSetLabel is missing or empty")
def no_label(dataset):
    del dataset.StructureSetLabel


@spoils("StructureSetLabel has 19 characters")
def label_too_long(dataset):
    dataset.StructureSetLabel = "L" * 19


@spoils("OperatorsName is missing", "warning")
def no_operators_name(dataset):
    del dataset.OperatorsName


@spoils("ROIGenerationAlgorithm is missing", "warning")
def no_generation_algorithm(dataset):
    del dataset.StructureSetROISequence[0].ROIGenerationAlgorithm


@spoils("ROIGenerationAlgorithm 'AI' is no defined term", "warning")
def unknown_generation_algorithm(dataset):
    dataset.StructureSetROISequence[0].ROIGenerationAlgorithm = "AI"


@spoils("RTROIInterpretedType 'GTVP' is no defined term", "warning")
def unknown_interpreted_type(dataset):
    dataset.RTROIObservationsSequence[0].RTROIInterpretedType = "GTVP"


@spoils("ApprovalStatus 'DRAFT' is none of")
def unknown_approval(dataset):
    dataset.ApprovalStatus = "DRAFT"


@spoils("have numbers of more than 16 characters")
def decimals_too_long(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    data = b"\\".join(f"{value:.14f}".encode() for value in contour.ContourData)
    data += b" " * (len(data) % 2)
    contour[CONTOUR_DATA] = RawDataElement(CONTOUR_DATA, "DS", len(data), data, 0, True, True)
    contour.set_original_encoding(True, True, pydicom.charset.default_encoding)


@spoils("have another number of points than they state")
def wrong_number_of_points(dataset):
    contours_in(dataset, "Parotid_L")[0].NumberOfContourPoints += 1


@spoils("have coordinates that make no whole points")
def a_coordinate_missing(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    contour.ContourData = contour.ContourData[:-1]


@spoils("1 of 9 contours lie beside the slices of the CT, by up to 1.20 mm")
def off_the_slice(dataset):
    contour = contours_in(dataset, "Cavity_Oral")[0]
    set_points(contour, points_of(contour) + np.array([0, 0, 1.2]))


@spoils("contours reach beyond the image")
def off_the_image(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    set_points(contour, points_of(contour) + np.array([100.0, 0, 0]))


@spoils("refer to an image that is not in this CT series")
def image_of_another_series(dataset):
    contours_in(dataset, "Parotid_L")[0].ContourImageSequence[0].ReferencedSOPInstanceUID = generate_uid()


@spoils("refer to the image of another slice than they lie in")
def image_of_another_slice(dataset):
    first, *_, last = contours_in(dataset, "Parotid_L")
    first.ContourImageSequence = last.ContourImageSequence


@spoils("do not say to which image they belong", "warning")
def no_image(dataset):
    del contours_in(dataset, "Parotid_L")[0].ContourImageSequence


@spoils("its FrameOfReferenceUID is not that of the CT")
def another_frame_of_reference(dataset):
    dataset.FrameOfReferenceUID = generate_uid()


@spoils("which is not the CT's")
def a_roi_in_another_frame_of_reference(dataset):
    dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = generate_uid()


@spoils("its PatientID is not that of the CT")
def another_patient(dataset):
    dataset.PatientID = "SOMEBODY"


@spoils("its PatientName is not that of the CT")
def another_name(dataset):
    dataset.PatientName = "Made^Down"


@spoils("its PatientSex is not that of the CT")
def another_sex(dataset):
    dataset.PatientSex = "F"


@spoils("its PatientBirthDate is not that of the CT", "warning")
def a_birth_date_where_the_ct_has_none(dataset):
    dataset.PatientBirthDate = "19700101"


@spoils("its StudyInstanceUID is not that of the CT")
def another_study(dataset):
    dataset.StudyInstanceUID = generate_uid()


@spoils("it does not refer to this CT series")
def another_series(dataset):
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()


@spoils("it refers to ROI 99, which is not there")
def an_observation_of_nothing(dataset):
    dataset.RTROIObservationsSequence[0].ReferencedROINumber = 99


@spoils("it refers to ROI 98, which is not there")
def contours_of_nothing(dataset):
    dataset.ROIContourSequence[0].ReferencedROINumber = 98


@spoils("2 ROIs have the number 1")
def a_number_twice(dataset):
    dataset.StructureSetROISequence[1].ROINumber = 1


@spoils("2 ROIs are called 'parotid_l'")
def a_name_twice(dataset):
    dataset.StructureSetROISequence[0].ROIName = "PAROTID_L"


@spoils("its name has 80 characters")
def name_far_too_long(dataset):
    dataset.StructureSetROISequence[0].ROIName = "N" * 80


@spoils("its name has 17 characters", "warning")
def name_too_long(dataset):
    dataset.StructureSetROISequence[0].ROIName = "N" * 17


@spoils("2 ROIs are 'submandibularis' where names are cut after 16 characters", "warning")
def names_that_are_one_where_they_are_cut(dataset):
    left, right = roi_item(dataset, "Parotid_L"), roi_item(dataset, "Parotid_R")
    left.ROIName, right.ROIName = "Submandibularis links", "Submandibularis rechts"


@spoils("its name has other characters", "warning")
def name_in_another_script(dataset):
    dataset.SpecificCharacterSet = "GB18030"
    dataset.StructureSetROISequence[0].ROIName = "脑干"


@spoils("have fewer than 3 points")
def a_single_point(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    set_points(contour, points_of(contour)[:1])


@spoils("repeat a point", "warning")
def a_point_twice(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    set_points(contour, points_of(contour)[[0, 1, 1, *range(2, contour.NumberOfContourPoints)]])


@spoils("their first at the end", "warning")
def the_first_point_again_at_the_end(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    set_points(contour, points_of(contour)[[*range(contour.NumberOfContourPoints), 0]])


@spoils("cross themselves")
def a_contour_that_crosses_itself(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    set_points(contour, square(contour, 20, 30)[[0, 2, 1, 3]])


@spoils("are the same as another")
def a_contour_twice(dataset):
    contours_in(dataset, "Parotid_L").append(contours_in(dataset, "Parotid_L")[0])


@spoils("contours of one slice overlap in 9 voxels", "warning")
def a_hole_as_a_contour_of_its_own(dataset):
    contours = contours_in(dataset, "Parotid_L")
    set_points(contours[0], square(contours[0], 9.5, 19.5))
    hole = Dataset()
    hole.update(contours[0])
    set_points(hole, square(contours[0], 12.5, 15.5))
    contours.insert(1, hole)


@spoils("are of type CLOSEDPLANAR_XOR", "warning")
def the_xor_type(dataset):
    for contour in contours_in(dataset, "Parotid_L"):
        contour.ContourGeometricType = "CLOSEDPLANAR_XOR"


@spoils("of type POINT enclose nothing", "warning")
def a_point_contour(dataset):
    contours_in(dataset, "Parotid_L")[0].ContourGeometricType = "POINT"


@spoils("of the unknown type 'CLOSED'")
def an_unknown_type(dataset):
    contours_in(dataset, "Parotid_L")[0].ContourGeometricType = "CLOSED"


@spoils("its ContourSequence is empty")
def an_empty_contour_sequence(dataset):
    dataset.ROIContourSequence[0].ContourSequence = []


@spoils("it has no contour", "warning")
def a_roi_without_contours(dataset):
    del dataset.ROIContourSequence[0].ContourSequence


@spoils("it holds no ROI")
def no_roi(dataset):
    dataset.StructureSetROISequence = []


@spoils("Parotid: its left side lies on the patient's right")
def left_and_right_exchanged(dataset):
    left, right = roi_item(dataset, "Parotid_L"), roi_item(dataset, "Parotid_R")
    left.ROIName, right.ROIName = "Parotid_R", "Parotid_L"


@spoils("are longer than the 65,534 bytes of explicit VR")
def a_long_contour_in_explicit_vr(dataset):
    contour = contours_in(dataset, "Parotid_L")[0]
    first, second, third, last = square(contour, 9.5, 19.5)
    side = np.linspace(first, second, 3000, endpoint=False)
    set_points(contour, np.concatenate((side, [second, third, last])))
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def test_a_file_as_we_write_it_has_no_finding(good_file, series):
    assert lint(good_file, series) == []


@pytest.mark.filterwarnings("ignore:.*exceeds the maximum length.*", "ignore:The value for the data element")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_lint_finds(mutant, good_file, series, tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    mutate, severity, expected = MUTANTS[mutant]
    dataset = pydicom.dcmread(good_file)
    mutate(dataset)
    dataset.save_as(tmp_path / "RTSTRUCT.dcm", implicit_vr=dataset.file_meta.TransferSyntaxUID.is_implicit_VR)
    found = lint(tmp_path / "RTSTRUCT.dcm", series)
    assert [finding for finding in found if finding.severity == severity and expected in str(finding)]


def test_each_spoilt_contour_is_found_on_its_own(good_file, series, tmp_path):
    dataset = pydicom.dcmread(good_file)
    wrong_number_of_points(dataset)
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert lint(tmp_path / "RTSTRUCT.dcm", series) == [
        Finding("error", "ROI 3 'Parotid_L'", "1 of 5 contours have another number of points than they state.")
    ]


def test_an_isocentre_or_marker_beside_the_slices_and_the_image_is_no_error(good_file, series, tmp_path):
    dataset = pydicom.dcmread(good_file)
    contours = contours_in(dataset, "Parotid_L")
    for contour, shift in zip(contours, ([0, 0, 1.2], [0, 0, -500.0], [900.0, 0, 0]), strict=False):
        set_points(contour, points_of(contour)[:1] + np.array(shift))
        contour.ContourGeometricType = "POINT"
        del contour.ContourImageSequence
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert [finding for finding in lint(tmp_path / "RTSTRUCT.dcm", series) if finding.severity == "error"] == []


def test_a_name_that_ends_in_empty_parts_is_the_same_name(good_file, series, tmp_path):
    dataset = pydicom.dcmread(good_file)
    dataset.PatientName = "Made^Up^^^"
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert lint(tmp_path / "RTSTRUCT.dcm", series) == []


def test_without_the_ct_only_the_file_itself_is_judged(good_file, tmp_path):
    dataset = pydicom.dcmread(good_file)
    another_patient(dataset)
    off_the_slice(dataset)
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert lint(tmp_path / "RTSTRUCT.dcm") == []


def test_errors_come_before_warnings(good_file, series, tmp_path):
    dataset = pydicom.dcmread(good_file)
    no_image(dataset)
    another_patient(dataset)
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    assert [finding.severity for finding in lint(tmp_path / "RTSTRUCT.dcm", series)] == ["error", "warning"]


def test_a_coordinate_that_is_no_number_is_refused(good_file, tmp_path):
    dataset = pydicom.dcmread(good_file)
    contour = contours_in(dataset, "Parotid_L")[0]
    contour[CONTOUR_DATA] = RawDataElement(CONTOUR_DATA, "DS", 12, b"1\\2\\nan\\4\\5 ", 0, True, True)
    contour.set_original_encoding(True, True, pydicom.charset.default_encoding)
    dataset.save_as(tmp_path / "RTSTRUCT.dcm")
    with pytest.raises(InputError, match="a coordinate of ROI 'Parotid_L' is not a number"):
        lint(tmp_path / "RTSTRUCT.dcm")
