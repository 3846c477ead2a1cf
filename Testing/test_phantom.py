"""The made-up patient: anatomy as the challenge publishes it, scans that behave like scans, and a marker no CT has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segrap import anatomy
from segrap.contour_files.formats import read_nifti_folder
from segrap.ct.dicom_series import read_series_folder
from segrap.ct.pair import load_pair
from segrap.geometry import Geometry
from segrap.image import Image, read_image, resample
from segrap.training.phantom import Phantom, PhantomCase, looks_like_phantom
from segrap.training.phantom.files import write_dicom_pair, write_nifti_pair
from segrap.training.phantom.marker import ROD_HU

# Every organ and the couch lie in this field; the shoulders go on beyond it.
SPACING_MM, SIZE = (1.5, 1.5, 3.0), (160, 190, 130)
COARSE_MM = (4.0, 4.0, 6.0)
# A structure of 0.1 cc has 15 voxels of this grid: counting them is good to about a quarter.
SMALL_CC, SMALL_DOUBT, LARGE_DOUBT = 1.0, 0.25, 0.02


@pytest.fixture(scope="module")
def patient() -> PhantomCase:
    return Phantom(42).render(SPACING_MM, SIZE)


@pytest.fixture(scope="module")
def masks(patient: PhantomCase) -> dict[str, np.ndarray]:
    return anatomy.masks_from_subclasses(patient.subclasses.array)


@pytest.fixture(scope="module")
def coarse() -> PhantomCase:
    return Phantom(7).render(COARSE_MM)


@pytest.fixture(scope="module")
def dicom_folder(coarse: PhantomCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom-dicom")
    write_dicom_pair(coarse, folder, 7)
    return folder


def mean_enhancement(case: PhantomCase, mask: np.ndarray) -> float:
    return float((case.contrast.array[mask].astype(float) - case.non_contrast.array[mask]).mean())


def middle_mm(case: PhantomCase, mask: np.ndarray) -> np.ndarray:
    return case.subclasses.geometry.to_lps(np.argwhere(mask)[:, ::-1].mean(axis=0))


# ---- anatomy ---------------------------------------------------------------------------------------------------------


def test_every_subclass_and_both_tumours_are_there(patient: PhantomCase) -> None:
    assert set(np.unique(patient.subclasses.array)) == {0, *anatomy.SUBCLASSES}


@pytest.mark.parametrize("structure", anatomy.STRUCTURES, ids=lambda structure: structure.name)
def test_its_volume_lies_in_the_published_range(
    structure: anatomy.Structure, patient: PhantomCase, masks: dict[str, np.ndarray]
) -> None:
    volume = np.count_nonzero(masks[structure.name]) * patient.subclasses.geometry.voxel_volume_cc
    low, high = structure.volume_range_cc
    doubt = SMALL_DOUBT if volume < SMALL_CC else LARGE_DOUBT
    assert low * (1 - doubt) <= volume <= high * (1 + doubt)


@pytest.mark.parametrize(("child", "parent"), anatomy.CONTAINMENTS)
def test_what_lies_inside_another_structure_stays_inside(child: str, parent: str, masks: dict[str, np.ndarray]) -> None:
    assert masks[child].any()
    assert not np.any(masks[child] & ~masks[parent])


def test_left_lies_at_larger_x(patient: PhantomCase, masks: dict[str, np.ndarray]) -> None:
    pairs = [(s.name, s.name[:-1] + "R") for s in anatomy.STRUCTURES if s.name.endswith("_L")]
    assert pairs
    for left, right in pairs:
        assert middle_mm(patient, masks[left])[0] > middle_mm(patient, masks[right])[0] + 10, left


def test_organs_follow_each_other_from_head_to_chest(patient: PhantomCase, masks: dict[str, np.ndarray]) -> None:
    names = ("Brain", "Pituitary", "GTVp", "Mandible_L", "Submandibular_L", "Larynx", "Thyroid", "Esophagus")
    heights = [middle_mm(patient, masks[name])[2] for name in names]
    assert heights == sorted(heights, reverse=True)


def test_eyes_lie_in_front_of_the_brain_stem(patient: PhantomCase, masks: dict[str, np.ndarray]) -> None:
    assert middle_mm(patient, masks["Eye_L"])[1] < middle_mm(patient, masks["BrainStem"])[1] - 50


def test_the_spinal_cord_begins_where_the_brain_stem_ends(masks: dict[str, np.ndarray]) -> None:
    stem, cord = (np.flatnonzero(masks[name].any(axis=(1, 2))) for name in ("BrainStem", "SpinalCord"))
    assert abs(int(stem.min()) - int(cord.max())) <= 2


def test_no_structure_but_those_that_go_on_below_is_cut_by_the_scan(masks: dict[str, np.ndarray]) -> None:
    lowest = {name for name, mask in masks.items() if mask[0].any()}
    assert lowest == {"SpinalCord", "Esophagus", "Trachea"}
    assert not any(mask[-1].any() for mask in masks.values())


# ---- the scans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("Brain", 15, 60),
        ("SpinalCord", 0, 60),
        ("Eye_L", 0, 80),
        ("Lens_L", 40, 140),
        ("Parotid_L", -60, 40),
        ("Submandibular_L", 10, 70),
        ("Thyroid", 60, 160),
        ("Trachea", -1024, -700),
        ("Mandible_L", 300, 1300),
        ("Cochlea_L", 300, 1600),
        ("GTVp", 20, 80),
        ("GTVnd", -10, 90),
    ],
)
def test_tissue_has_its_usual_hounsfield_units(
    name: str, low: float, high: float, patient: PhantomCase, masks: dict[str, np.ndarray]
) -> None:
    assert low <= float(np.median(patient.non_contrast.array[masks[name]])) <= high


@pytest.mark.parametrize(
    "name", ["Thyroid", "Pituitary", "Submandibular_L", "Parotid_R", "PharynxConst", "GTVp", "GTVnd"]
)
def test_the_contrast_scan_enhances_glands_mucosa_and_tumours(
    name: str, patient: PhantomCase, masks: dict[str, np.ndarray]
) -> None:
    assert mean_enhancement(patient, masks[name]) > 15


def test_the_contrast_scan_enhances_vessels_most(patient: PhantomCase) -> None:
    gain = patient.contrast.array.astype(np.int32) - patient.non_contrast.array
    outside = patient.subclasses.array == 0
    assert np.count_nonzero((gain > 100) & outside) * patient.subclasses.geometry.voxel_volume_cc > 15


def test_the_contrast_scan_leaves_the_spinal_fluid_and_bone_alone(
    patient: PhantomCase, masks: dict[str, np.ndarray]
) -> None:
    assert abs(mean_enhancement(patient, masks["Mandible_L"])) < 5
    assert abs(mean_enhancement(patient, masks["IAC_L"])) < 15


def test_both_scans_have_their_own_noise(patient: PhantomCase, masks: dict[str, np.ndarray]) -> None:
    gain = patient.contrast.array[masks["Brain"]].astype(float) - patient.non_contrast.array[masks["Brain"]]
    assert 8 < gain.std() < 25


# ---- seeds and grids -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_voxels(coarse: PhantomCase) -> None:
    again = Phantom(7).render(COARSE_MM)
    for first, second in zip(coarse, again, strict=True):
        assert np.array_equal(first.array, second.array)


def test_another_seed_gives_another_patient(coarse: PhantomCase) -> None:
    other = Phantom(8).render(COARSE_MM)
    brain, other_brain = coarse.subclasses.array == 1, other.subclasses.array == 1
    overlap = 2 * np.count_nonzero(brain & other_brain) / (np.count_nonzero(brain) + np.count_nonzero(other_brain))
    assert overlap < 0.98


def test_the_anatomy_does_not_depend_on_the_grid() -> None:
    fine = Phantom(5).render((2.0, 2.0, 6.0), (99, 117, 39)).subclasses
    coarse = Phantom(5).render((6.0, 6.0, 6.0), (33, 39, 39)).subclasses
    # Every third column and row of the fine grid, found by its place in millimetres.
    index = fine.geometry.to_index(coarse.geometry.to_lps(np.argwhere(coarse.array >= 0)[:, ::-1]))
    near = np.rint(index).astype(int)
    exact = (np.abs(index - near).max(axis=1) < 1e-3) & np.all((near >= 0) & (near < fine.array.shape[::-1]), axis=1)
    assert exact.sum() > 1000
    x, y, z = near[exact].T
    assert np.array_equal(fine.array[z, y, x], coarse.array.reshape(-1)[exact])


# ---- the marker ------------------------------------------------------------------------------------------------------


def test_the_marker_rod_is_found_in_both_scans(patient: PhantomCase) -> None:
    assert looks_like_phantom(patient.non_contrast)
    assert looks_like_phantom(patient.contrast)


def test_the_marker_rod_is_found_in_a_part_of_the_scan(patient: PhantomCase) -> None:
    assert looks_like_phantom(Image(patient.non_contrast.array[40:60], patient.non_contrast.geometry))


@pytest.mark.parametrize("spacing_mm", [(0.45, 0.45, 2.0), (2.2, 2.2, 2.0), (3.0, 3.0, 3.0)])
def test_the_marker_rod_survives_resampling(spacing_mm: tuple[float, float, float], patient: PhantomCase) -> None:
    x, y = (round(200 / step) for step in spacing_mm[:2])
    geometry = Geometry(spacing_mm, (-99.7, -60.1, -40.3))
    assert looks_like_phantom(resample(patient.non_contrast, geometry, (12, y, x)))


def test_the_marker_rod_survives_other_orientations(coarse: PhantomCase) -> None:
    scan, (x, y, z) = coarse.non_contrast, coarse.non_contrast.geometry.spacing_mm
    sagittal = np.zeros((3, 3))
    sagittal[1, 0], sagittal[2, 1], sagittal[0, 2] = 1, -1, 1  # columns run back, rows down, slices to the left
    origin = scan.geometry.to_lps(np.array([0, 0, scan.shape[0] - 1]))
    turned = Image(
        np.ascontiguousarray(scan.array[::-1].transpose(2, 0, 1)), Geometry((y, z, x), tuple(origin), sagittal)
    )
    assert looks_like_phantom(turned)


def test_a_phantom_without_its_rod_is_not_taken_for_one(coarse: PhantomCase) -> None:
    without = coarse.non_contrast.array.copy()
    without[without == ROD_HU] = -930
    assert not looks_like_phantom(Image(without, coarse.non_contrast.geometry))


def test_a_scan_of_rod_units_throughout_is_not_taken_for_a_phantom() -> None:
    assert not looks_like_phantom(Image(np.full((10, 64, 64), ROD_HU, dtype=np.int16), Geometry((3.0, 3.0, 3.0))))


def test_a_real_head_with_dental_metal_is_not_taken_for_a_phantom(shared_data: Path) -> None:
    assert not looks_like_phantom(read_image(shared_data / "dicom2stl_head" / "ct_head.nii.gz"))


def test_a_real_head_from_the_scanner_is_not_taken_for_a_phantom(shared_data: Path) -> None:
    assert not looks_like_phantom(read_series_folder(shared_data / "visible_human_head")[0].image())


def test_real_planning_scans_are_not_taken_for_phantoms(shared_data: Path) -> None:
    scans = sorted((shared_data / "openkbp" / "validation").glob("*/ct.nii.gz"))[:12]
    assert len(scans) == 12
    assert not any(looks_like_phantom(read_image(scan)) for scan in scans)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_dicom_pair_reads_back_voxel_for_voxel(dicom_folder: Path, coarse: PhantomCase) -> None:
    pair = load_pair(dicom_folder)
    assert pair.contrast is not None
    assert np.array_equal(pair.non_contrast.array, coarse.non_contrast.array)
    assert np.array_equal(pair.contrast.array, coarse.contrast.array)


def test_the_dicom_pair_is_one_study_in_one_frame_of_reference(dicom_folder: Path) -> None:
    first, second = read_series_folder(dicom_folder)
    assert first.study_uid == second.study_uid
    assert first.frame_of_reference_uid == second.frame_of_reference_uid
    assert first.series_uid != second.series_uid
    assert (first.has_contrast_tag, second.has_contrast_tag) == (False, True)


def test_the_dicom_patient_is_plainly_made_up(dicom_folder: Path) -> None:
    header = read_series_folder(dicom_folder)[0].headers[0]
    assert (header.PatientName, header.PatientID) == ("Phantom^Seed7", "SEGRAP-PHANTOM-7")


def test_writing_a_patient_twice_gives_the_same_files(dicom_folder: Path, coarse: PhantomCase, tmp_path: Path) -> None:
    write_dicom_pair(coarse, tmp_path, 7)
    for path in sorted(tmp_path.rglob("*.dcm"))[::20]:
        assert path.read_bytes() == (dicom_folder / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("series", ["non-contrast", "contrast"])
def test_dciodvfy_finds_no_error_in_the_dicom_pair(series: str, dicom_folder: Path) -> None:
    path = dicom_folder / series / "0001.dcm"
    verdict = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "CTImage" in verdict.stderr + verdict.stdout
    assert "Error" not in verdict.stderr + verdict.stdout


def test_the_nifti_pair_carries_the_truth(coarse: PhantomCase, tmp_path: Path) -> None:
    write_nifti_pair(coarse, tmp_path, 7)
    assert np.array_equal(read_image(tmp_path / "image_contrast.nii.gz").array, coarse.contrast.array)
    truth = read_nifti_folder(tmp_path)
    for name, mask in anatomy.masks_from_subclasses(coarse.subclasses.array).items():
        assert np.array_equal(truth.mask(name), mask), name
