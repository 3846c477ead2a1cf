"""DICOM SEG: what goes in comes out of another reader voxel for voxel, and the conformance checker has no error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from rtstruct_cases import ORIENTATIONS, SHAPE, contours_of, difficult_masks, small_series
from small_disk import full_disk, mounted
from synthetic_ct import write_ct_series

from segrap import anatomy
from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries, read_series_folder
from segrap.ct.pair import load_pair
from segrap.dicom_seg import write_dicom_seg
from segrap.errors import Cancelled, InputError, OutputError
from segrap.geometry import Geometry
from segrap.progress import Progress
from segrap.results import write_results
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import truth, write_dicom_pair


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> CTSeries:
    return small_series(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def contours(series: CTSeries) -> Contours:
    return contours_of(difficult_masks() | {"Eye_L": np.zeros(SHAPE, dtype=bool)}, series)


def masks_by_highdicom(path: Path, series: CTSeries) -> dict[str, np.ndarray]:
    """The masks of the file's segments on the CT's images, as another library reads them."""
    highdicom = pytest.importorskip("highdicom")
    seg = highdicom.seg.segread(path)
    voxels = seg.get_pixels_by_source_instance(
        list(series.sop_instance_uids), assert_missing_frames_are_empty=True, ignore_spatial_locations=True
    )
    return {
        seg.get_segment_description(number).SegmentDescription.removeprefix("SegRap "): voxels[..., number - 1] > 0
        for number in seg.segment_numbers
    }


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_another_reader_finds_the_very_same_masks_in_every_orientation(orientation: str, tmp_path: Path) -> None:
    series = small_series(tmp_path / "ct", ORIENTATIONS[orientation])
    contours = contours_of(difficult_masks(), series)
    write_dicom_seg(contours, series, tmp_path / "SEG.dcm")
    found = masks_by_highdicom(tmp_path / "SEG.dcm", series)
    assert tuple(found) == contours.names
    assert [name for name in contours.names if not np.array_equal(found[name], contours.mask(name))] == []


def test_masks_come_back_where_the_pixels_of_a_frame_do_not_fill_whole_bytes(tmp_path: Path) -> None:
    geometry = Geometry((1.0, 1.0, 2.0))
    write_ct_series(tmp_path / "ct", np.zeros((6, 5, 7)), geometry)
    (series,) = read_series_folder(tmp_path / "ct")
    masks = {name: np.random.default_rng(n).random((6, 5, 7)) < 0.4 for n, name in enumerate(("Brain", "Eye_L"))}
    contours = contours_of(masks, series)
    write_dicom_seg(contours, series, tmp_path / "SEG.dcm")
    found = masks_by_highdicom(tmp_path / "SEG.dcm", series)
    assert [name for name in masks if not np.array_equal(found[name], masks[name])] == []


@pytest.mark.parametrize("orientation", ["head first supine", "turned about all axes"])
def test_dciodvfy_finds_no_error(orientation: str, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    series = small_series(tmp_path / "ct", ORIENTATIONS[orientation])
    write_dicom_seg(contours_of(difficult_masks(), series), series, tmp_path / "SEG.dcm")
    verdict = subprocess.run(["dciodvfy", "-new", tmp_path / "SEG.dcm"], capture_output=True, text=True, check=False)
    assert "Segmentation" in verdict.stderr
    assert [line for line in verdict.stderr.splitlines() if line.startswith("Error")] == []
    assert verdict.returncode == 0


def test_segments_are_named_coded_and_owned_by_the_ct(contours: Contours, series: CTSeries, tmp_path: Path) -> None:
    written, empty = write_dicom_seg(contours, series, tmp_path / "SEG.dcm", names={"Parotid_L": "Parotis li"})
    assert empty == ("Eye_L",)
    assert set(written) == set(contours.names) - {"Eye_L"}
    dataset = pydicom.dcmread(tmp_path / "SEG.dcm")
    image = series.headers[0]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert dataset[keyword].value == image[keyword].value
    assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
    assert dataset.ContentLabel == "DEMO_NO_CLINIC"
    segments = {str(item.SegmentLabel): item for item in dataset.SegmentSequence}
    parotid = segments["Parotis li"].SegmentedPropertyTypeCodeSequence[0]
    assert parotid.CodeValue == anatomy.structure("Parotid_L").snomed[0]
    assert parotid.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert segments["GTVp"].AnatomicRegionSequence[0].CodeMeaning == "Nasopharynx"
    assert segments["Brain"].SegmentAlgorithmType == "AUTOMATIC"


def test_chosen_structures_only_are_written(contours: Contours, series: CTSeries, tmp_path: Path) -> None:
    write_dicom_seg(contours, series, tmp_path / "SEG.dcm", ["GTVp", "Lens_L"])
    assert list(masks_by_highdicom(tmp_path / "SEG.dcm", series)) == ["Lens_L", "GTVp"]


def test_nothing_is_left_behind_when_cancelled_refused_or_out_of_space(
    contours: Contours, series: CTSeries, tmp_path: Path
) -> None:
    def cancel(progress: Progress) -> None:
        if progress.fraction >= 0.8:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        write_dicom_seg(contours, series, tmp_path / "SEG.dcm", progress=cancel)
    with pytest.raises(InputError, match="None of the 1 structures has a voxel"):
        write_dicom_seg(contours, series, tmp_path / "SEG.dcm", ["Eye_L"])
    with pytest.raises(InputError, match="do not lie on the grid"):
        elsewhere = contours_of(difficult_masks(), small_series(tmp_path / "ct", ORIENTATIONS["head first prone"]))
        write_dicom_seg(elsewhere, series, tmp_path / "SEG.dcm")
    assert not (tmp_path / "SEG.dcm").exists()
    with full_disk(tmp_path / "full") as disk:
        with pytest.raises(OutputError, match="disk is full"):
            write_dicom_seg(contours, series, disk / "SEG.dcm")
        assert [path.name for path in disk.iterdir()] == ["filler"]
    with mounted(tmp_path / "read-only", "ro") as disk, pytest.raises(OutputError, match="no permission"):
        write_dicom_seg(contours, series, disk / "SEG.dcm")


def test_results_of_a_job_hold_it_on_request(tmp_path: Path) -> None:
    case = Phantom(3).render(spacing_mm=(8.0, 8.0, 8.0))
    write_dicom_pair(case, tmp_path / "scans", 3)
    true = truth(case, 3)
    contours = Contours.from_masks({"BrainStem": true.mask("BrainStem")}, true.geometry, true.provenance)
    pair = load_pair(tmp_path / "scans")
    write_results(contours, pair, tmp_path / "out", ("dicom-seg",))
    found = masks_by_highdicom(tmp_path / "out" / "SEG.dcm", pair.non_contrast_series)
    assert np.array_equal(found["BrainStem"], true.mask("BrainStem"))
