"""Which scan is the contrast scan: by tags, words and vessels, or a refusal to guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_pair_cases import refusal, saved, scan
from pydicom.uid import generate_uid
from synthetic_ct import write_ct_series

from segrap.ct.contrast_words import describes_contrast, names_agent
from segrap.ct.pair import load_pair
from segrap.image import Image, read_image

# --- which is which ------------------------------------------------------------------------------------------------


def test_swapped_scans_are_refused_with_the_enhancement(paths: tuple[Path, Path], tmp_path: Path) -> None:
    message = refusal(tmp_path, paths[1], paths[0])
    assert "seem to be swapped: vessels in enhanced.nrrd" in message
    assert "HU brighter than in plain.nrrd" in message


def test_words_alone_swap_no_scans_but_are_said_when_no_enhancement_is_seen(plain: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", plain.array, plain.geometry, ContrastBolusAgent="Iohexol")
    write_ct_series(tmp_path / "b", scan(seed=5).array, plain.geometry)
    wrong, right = (" ".join(load_pair(*(tmp_path / name for name in order)).remarks) for order in ("ab", "ba"))
    assert "No enhancement was found" in wrong and "check that they are not swapped" in wrong
    assert "No enhancement was found" in right and "swapped" not in right


@pytest.mark.parametrize(
    "tags",
    [
        {"SeriesDescription": "Neck no contrast"},
        {"SeriesDescription": "Hals ohne KM"},
        {"ContrastBolusAgent": "NO CONTRAST"},
    ],
    ids=["no contrast", "ohne KM", "agent NO CONTRAST"],
)
def test_a_denial_puts_two_scans_in_the_right_order(tags: dict, plain: Image, enhanced: Image, tmp_path: Path) -> None:
    faint = Image(((plain.array.astype(np.int32) * 3 + enhanced.array) // 4).astype(np.int16), plain.geometry)
    write_both(tmp_path, plain, faint, tags, {"SeriesDescription": "Neck C+"})
    for pair in (load_pair(tmp_path), load_pair(tmp_path / "2", tmp_path / "1")):
        assert np.array_equal(pair.non_contrast.array, plain.array)
        assert not any("swapped" in remark for remark in pair.remarks)


def test_a_contrast_scan_without_enhancement_is_said(plain: Image, tmp_path: Path) -> None:
    pair = load_pair(saved(plain, tmp_path / "a.nrrd"), saved(scan(seed=5), tmp_path / "b.nrrd"))
    assert any("No enhancement was found" in remark for remark in pair.remarks)


def test_the_same_file_twice_is_refused(paths: tuple[Path, Path], tmp_path: Path) -> None:
    assert "Both scans are the same" in refusal(tmp_path, paths[0], paths[0])


def test_the_same_scan_under_two_names_is_refused(paths: tuple[Path, Path], plain: Image, tmp_path: Path) -> None:
    copy = saved(plain, tmp_path / "copy.nii.gz")
    assert "plain.nrrd and copy.nii.gz are the same scan" in refusal(tmp_path, paths[0], copy)


def test_scans_of_two_patients_are_refused_by_their_ids(plain: Image, enhanced: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", plain.array, plain.geometry, PatientID="1")
    write_ct_series(tmp_path / "b", enhanced.array, enhanced.geometry, PatientID="2")
    assert "different patient IDs" in refusal(tmp_path, tmp_path / "a", tmp_path / "b")


def test_scans_that_look_like_two_patients_are_refused(shared_data: Path, tmp_path: Path) -> None:
    first, second = (shared_data / "openkbp" / "validation" / f"pt_{number}" / "ct.nii.gz" for number in (201, 202))
    here, there = read_image(first), read_image(second)
    # The second patient laid into the first one's place, as a mixed-up export would.
    offset = here.corners_lps_mm().mean(axis=0) - there.corners_lps_mm().mean(axis=0)
    origin = tuple(np.asarray(there.geometry.origin_mm) + offset)
    laid = saved(Image(there.array, replace(there.geometry, origin_mm=origin)), tmp_path / "other.nii.gz")
    assert "do not show the same patient" in refusal(tmp_path, first, laid)


# --- a folder that holds both --------------------------------------------------------------------------------------


def write_both(folder: Path, plain: Image, enhanced: Image, plain_tags: dict, enhanced_tags: dict) -> None:
    common = {"FrameOfReferenceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    write_ct_series(folder / "1", enhanced.array, enhanced.geometry, **(common | enhanced_tags))
    write_ct_series(folder / "2", plain.array, plain.geometry, **(common | plain_tags))


@pytest.mark.parametrize(
    ("plain_tags", "enhanced_tags"),
    [
        ({}, {"ContrastBolusAgent": "Iohexol"}),
        ({"SeriesDescription": "Neck plain"}, {"SeriesDescription": "Neck C+ 3 mm"}),
        (
            {"SeriesDescription": "HN non-contrast", "ContrastBolusAgent": "Iohexol"},
            {"SeriesDescription": "HN ceCT", "ContrastBolusAgent": "Iohexol"},
        ),
        ({"SeriesDescription": "鼻咽平扫"}, {"SeriesDescription": "鼻咽增强"}),
        ({}, {}),
        ({"ContrastBolusAgent": "Iohexol"}, {"ContrastBolusAgent": "Iohexol"}),
    ],
    ids=["agent", "words", "words before agent", "Chinese words", "enhancement alone", "agent stated for both"],
)
def test_the_contrast_scan_in_a_folder_of_both_is_recognised(
    plain_tags: dict, enhanced_tags: dict, plain: Image, enhanced: Image, tmp_path: Path
) -> None:
    chinese = {"SpecificCharacterSet": "ISO_IR 192"}
    write_both(tmp_path, plain, enhanced, plain_tags | chinese, enhanced_tags | chinese)
    pair = load_pair(tmp_path)
    assert np.array_equal(pair.non_contrast.array, plain.array)
    assert np.array_equal(pair.contrast.array, enhanced.array)
    assert pair.non_contrast_series.files[0].parent.name == "2"
    assert pair.contrast_series.files[0].parent.name == "1"


@pytest.mark.parametrize(
    ("description", "meaning"),
    [
        *(
            (words, True)
            for words in (
                *(
                    "Neck C+",
                    "H&N +C 3.0",
                    "ceCT",
                    "Head CE 3mm",
                    "neck_c+_3mm",
                    "Hals KM",
                    "Hals mit Kontrast",
                    "增强",
                ),
                *("鼻咽增強", "con contraste", "avec contraste", "Neck non-ionic contrast", "Series no 2 contrast"),
            )
        ),
        *(
            (words, False)
            for words in (
                *("Neck C-", "NCCT", "Neck w/o contrast", "Non-contrast", "nativ", "plain", "平扫", "平掃"),
                *("Neck no contrast", "NO CONTRAST", "No C+", "neck_no_contrast", "no i.v. contrast", "No IV", "no CE"),
                *("not enhanced", "no enhancement", "Hals ohne KM", "ohne i.v. KM", "o. KM", "kein KM", "vor KM"),
                *("sans contraste", "sans produit de contraste", "sin contraste", "sin medio de contraste"),
                *("senza contrasto", "senza mezzo di contrasto", "未增强", "非增强", "无增强", "未注射造影剂"),
            )
        ),
        *(
            (words, None)
            for words in (
                "Neck 3.0",
                "C-Spine",
                "Post-op",
                "Alternative two",
                "",
                "No motion",
                "Sinus",
                "未知",
                "No. 3",
            )
        ),
    ],
)
def test_the_words_of_a_description_are_understood(description: str, meaning: bool | None) -> None:
    assert describes_contrast(description) is meaning


@pytest.mark.parametrize(
    ("agent", "named"),
    [
        *((words, True) for words in ("Iohexol", "OMNIPAQUE 350", "IV CONTRAST", "Non-ionic", "NIOPAM", "碘海醇")),
        *((words, True) for words in ("非离子型对比剂", "Natrium", "ORAL & IV")),
        *((words, False) for words in ("", " ", "NO", "N", "none", "None given", "N/A", "W/O", "0", "-", "nein")),
        *(
            (words, False)
            for words in ("NO CONTRAST", "NON CONTRAST", "NON", "OHNE", "kein KM", "无", "无造影剂", "否")
        ),
    ],
)
def test_the_words_for_an_agent_are_understood(agent: str, named: bool) -> None:
    assert names_agent(agent) is named


def test_tags_that_contradict_the_vessels_are_refused(plain: Image, enhanced: Image, tmp_path: Path) -> None:
    write_both(tmp_path, plain, enhanced, {"ContrastBolusAgent": "Iohexol"}, {})
    assert "seem to be swapped" in refusal(tmp_path, tmp_path)


def test_two_series_that_nothing_tells_apart_are_refused(plain: Image, tmp_path: Path) -> None:
    write_both(tmp_path, plain, scan(seed=5), {}, {})
    assert "Give the folder of each: non-contrast first" in refusal(tmp_path, tmp_path)


def test_more_than_two_series_in_a_folder_are_listed(plain: Image, enhanced: Image, tmp_path: Path) -> None:
    write_both(tmp_path, plain, enhanced, {"SeriesDescription": "Plain"}, {"SeriesDescription": "C+ 3 mm"})
    write_ct_series(tmp_path / "3", plain.array[:20], plain.geometry)
    message = refusal(tmp_path, tmp_path)
    assert "holds 3 CT series" in message
    for listed in ("'Plain', 32 slices", "'C+ 3 mm', 32 slices", "'no description', 20 slices"):
        assert listed in message


def test_two_series_of_different_frames_of_reference_are_not_paired_unasked(
    plain: Image, enhanced: Image, tmp_path: Path
) -> None:
    write_both(tmp_path, plain, enhanced, {}, {"FrameOfReferenceUID": generate_uid()})
    assert "different Frames of Reference" in refusal(tmp_path, tmp_path)


def test_two_folders_of_different_frames_of_reference_are_a_pair_with_a_remark(
    plain: Image, enhanced: Image, tmp_path: Path
) -> None:
    write_both(tmp_path, plain, enhanced, {}, {"FrameOfReferenceUID": generate_uid()})
    pair = load_pair(tmp_path / "2", tmp_path / "1")
    assert any("different Frames of Reference" in remark and "0.0 mm apart" in remark for remark in pair.remarks)
    # Whoever imports the contours reads it too, and finds them on the non-contrast scan alone.
    from rtstruct_cases import contours_of

    from segrap.contours import Provenance
    from segrap.rtstruct.write import write_rtstruct

    brain = np.zeros(pair.non_contrast.shape, dtype=bool)
    brain[10:20, 20:40, 20:40] = True
    series, other = pair.non_contrast_series, pair.contrast_series
    stated = Provenance(input_series_uids=(series.series_uid, other.series_uid), remarks=pair.remarks)
    write_rtstruct(contours_of({"Brain": brain}, series, stated), series, tmp_path / "RTSTRUCT.dcm")
    written = pydicom.dcmread(tmp_path / "RTSTRUCT.dcm")
    assert "different Frames of Reference" in written.StructureSetDescription
    (frame,) = written.ReferencedFrameOfReferenceSequence
    (referred,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert (frame.FrameOfReferenceUID, referred.SeriesInstanceUID) == (
        series.frame_of_reference_uid,
        series.series_uid,
    )
    assert other.frame_of_reference_uid not in str(written)


def test_a_folder_of_both_given_as_one_of_two_is_refused(
    paths: tuple[Path, Path], plain: Image, enhanced: Image, tmp_path: Path
) -> None:
    write_both(tmp_path / "both", plain, enhanced, {}, {})
    assert "holds 2 CT series" in refusal(tmp_path, tmp_path / "both", paths[1])


def test_a_dicom_series_and_a_file_make_a_pair(paths: tuple[Path, Path], plain: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", plain.array, plain.geometry)
    pair = load_pair(tmp_path / "ct", paths[1])
    assert pair.non_contrast_series.folder == tmp_path / "ct"
    assert pair.contrast_series is None
    assert pair.alignment_mm < 0.1
