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
from segrap.dicom_seg.read import read_dicom_seg, segmented_on
from segrap.dicom_seg.write import write_dicom_seg
from segrap.errors import Cancelled, InputError, OutputError
from segrap.geometry import Geometry
from segrap.progress import Progress
from segrap.results import write_results
from segrap.training.phantom import Phantom
from segrap.training.phantom.files import truth, write_dicom_pair


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


# --- reading ---


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_was_written_is_read_back_with_its_maker(orientation: str, tmp_path: Path) -> None:
    series = small_series(tmp_path / "ct", ORIENTATIONS[orientation])
    contours = contours_of(difficult_masks(), series)
    write_dicom_seg(contours, series, tmp_path / "SEG.dcm", names={"Parotid_L": "Parotis li"})
    found = read_dicom_seg(tmp_path / "SEG.dcm", series)
    assert found.names == contours.names and found.left_out == ()
    assert [name for name in found.names if not np.array_equal(found.mask(name), contours.mask(name))] == []
    assert found.provenance.model_name == contours.provenance.model_name
    assert found.provenance.intended_use == contours.provenance.intended_use


def test_a_file_of_another_program_is_read_by_the_names_in_it(series: CTSeries, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    masks = difficult_masks()
    wanted = {"parotid_l": masks["Parotid_L"], "Myelon": masks["Brain"], "Couch": masks["GTVp"]}
    organ = highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(path) for path in series.files],
        pixel_array=np.stack(list(wanted.values()), axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, label, organ, organ, "MANUAL")
            for number, label in enumerate(wanted, 1)
        ],
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=9,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
        manufacturer="elsewhere",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    ).save_as(tmp_path / "SEG.dcm")
    found = read_dicom_seg(tmp_path / "SEG.dcm", series, {"SpinalCord": "Myelon"})
    assert (set(found.names), found.left_out) == ({"Parotid_L", "SpinalCord"}, ("Couch",))
    assert np.array_equal(found.mask("SpinalCord"), wanted["Myelon"])
    assert np.array_equal(found.mask("Parotid_L"), wanted["parotid_l"])
    assert found.provenance.model_name == "" and found.structures["Parotid_L"].origin == "drawn"


def test_a_file_that_cannot_be_read_exactly_is_refused(contours: Contours, series: CTSeries, tmp_path: Path) -> None:
    write_dicom_seg(contours, series, tmp_path / "SEG.dcm")

    def refused(words: str, **changes: object) -> None:
        dataset = pydicom.dcmread(tmp_path / "SEG.dcm")
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / "changed.dcm")
        with pytest.raises(InputError, match=words):
            read_dicom_seg(tmp_path / "changed.dcm", series)

    refused("fractional or compressed", SegmentationType="FRACTIONAL")
    refused("another scan", FrameOfReferenceUID="1.2.3")
    refused("not those of the CT", Rows=7)
    refused("cut short", PixelData=b"12")
    refused("no DICOM Segmentation", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    dataset = pydicom.dcmread(tmp_path / "SEG.dcm")
    dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient[2] += 0.5
    dataset.save_as(tmp_path / "changed.dcm")
    with pytest.raises(InputError, match=r"a frame 0\.50 mm beside the slices"):
        read_dicom_seg(tmp_path / "changed.dcm", series)
    (tmp_path / "changed.dcm").write_bytes((tmp_path / "SEG.dcm").read_bytes()[:900])
    with pytest.raises(InputError, match="cannot be read as a DICOM Segmentation"):
        read_dicom_seg(tmp_path / "changed.dcm", series)


def test_of_two_scans_the_one_that_a_file_refers_to_is_found(tmp_path: Path) -> None:
    write_dicom_pair(Phantom(3).render(spacing_mm=(10.0, 10.0, 10.0)), tmp_path / "scans", 3)
    candidates = read_series_folder(tmp_path / "scans")
    assert len(candidates) == 2
    for number, series in enumerate(candidates):
        mask = np.zeros(series.shape, dtype=bool)
        mask[2:4, 5:9, 5:9] = True
        write_dicom_seg(contours_of({"Brain": mask}, series), series, tmp_path / f"{number}.dcm")
        assert segmented_on(tmp_path / f"{number}.dcm", candidates) is series
