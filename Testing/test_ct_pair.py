"""Two CTs become a pair by their world coordinates, after every check of one against the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from synthetic_ct import FEET_FIRST_SUPINE, head_like, write_ct_series

from segrap.ct.alignment import around_body, coarse_view, covered, enhancement_hu, measure_alignment, second_on_first
from segrap.ct.dicom_series import read_series_folder
from segrap.ct.hounsfield import hounsfield_fault
from segrap.ct.pair import CTPair, describes_contrast, load_pair
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid
from segrap.image import Image, read_image, write_image

SHAPE, SPACING_MM = (32, 72, 72), (2.5, 2.5, 3.0)


def scan(**changes: object) -> Image:
    return head_like(SHAPE, SPACING_MM, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def plain() -> Image:
    return scan(seed=1)


@pytest.fixture(scope="session")
def enhanced() -> Image:
    return scan(enhancement_hu=130, seed=2)


@pytest.fixture
def paths(plain: Image, enhanced: Image, tmp_path: Path) -> tuple[Path, Path]:
    return saved(plain, tmp_path / "plain.nrrd"), saved(enhanced, tmp_path / "enhanced.nrrd")


def saved(image: Image, path: Path) -> Path:
    write_image(image, path)
    return path


def refusal(folder: Path, non_contrast: Path, contrast: Path | None = None) -> str:
    """What the person is told; nothing in `folder` has changed."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        load_pair(non_contrast, contrast)
    assert sorted(folder.rglob("*")) == before
    assert caught.value.exit_status == 3
    assert "Made" not in str(caught.value)  # the patient's name
    return str(caught.value)


def moved(
    image: Image, shift_mm: tuple[float, ...], turn_degrees: tuple[float, ...] = (0, 0, 0), noise_hu: float = 15
) -> Image:
    """What a scanner sees after the patient moved by `shift_mm` and turned about the centre of the scan (LPS)."""
    rotation = Rotation.from_rotvec(np.radians(turn_degrees)).as_matrix()
    centre = image.corners_lps_mm().mean(axis=0)
    back = np.eye(4)
    back[:3, :3] = rotation.T
    back[:3, 3] = centre - rotation.T @ (centre + np.asarray(shift_mm))
    matrix = np.linalg.inv(image.geometry.index_to_lps) @ back @ image.geometry.index_to_lps
    seen = affine_transform(
        image.array.astype(np.float32), matrix[:3, :3][::-1, ::-1], matrix[:3, 3][::-1], order=1, cval=-1000.0
    )
    seen += np.random.default_rng(7).normal(0.0, noise_hu, seen.shape)
    return Image(np.rint(seen).astype(np.int16), image.geometry)


# --- one CT and two ------------------------------------------------------------------------------------------------


def test_two_files_on_one_grid_become_a_pair_as_they_are(paths: tuple[Path, Path], enhanced: Image) -> None:
    pair = load_pair(*paths)
    assert np.array_equal(pair.contrast.array, enhanced.array)
    assert pair.remarks == ()
    assert pair.alignment_mm < 0.1


def test_a_single_ct_is_a_pair_without_a_contrast_scan(paths: tuple[Path, Path], plain: Image) -> None:
    pair = load_pair(paths[0])
    assert np.array_equal(pair.non_contrast.array, plain.array)
    assert pair.contrast is None
    assert pair.alignment_mm is None


def test_a_model_of_two_channels_gets_them_in_its_order(paths: tuple[Path, Path]) -> None:
    pair = load_pair(*paths)
    contrast, non_contrast = pair.images(("contrast", "non_contrast"))
    assert contrast is pair.contrast.array
    assert non_contrast is pair.non_contrast.array


def test_a_model_of_one_channel_gets_the_scan_it_names(paths: tuple[Path, Path]) -> None:
    pair = load_pair(*paths)
    assert pair.images(("non_contrast",))[0] is pair.non_contrast.array
    assert pair.images(("contrast",))[0] is pair.contrast.array


def test_a_model_of_one_channel_gets_the_only_ct_there_is(paths: tuple[Path, Path]) -> None:
    pair = load_pair(paths[1])
    assert pair.images(("non_contrast",))[0] is pair.non_contrast.array
    assert pair.images(("contrast",))[0] is pair.non_contrast.array


def test_a_model_of_two_channels_is_refused_on_one_ct(paths: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="only one CT was given"):
        load_pair(paths[0]).images(("non_contrast", "contrast"))


# --- one grid, in world coordinates --------------------------------------------------------------------------------


def test_a_contrast_scan_of_another_grid_is_put_where_it_belongs(plain: Image, tmp_path: Path) -> None:
    # The same patient, feet first, other voxels, another corner: nothing fits by shape.
    other = head_like((28, 80, 90), (2.2, 2.2, 3.3), enhancement_hu=130, seed=2, direction=FEET_FIRST_SUPINE)
    pair = load_pair(saved(plain, tmp_path / "plain.nrrd"), saved(other, tmp_path / "enhanced.nrrd"))
    assert same_grid(pair.contrast.geometry, pair.contrast.shape, plain.geometry, plain.shape)
    assert pair.alignment_mm < 0.3
    assert any("resampled onto the grid" in remark for remark in pair.remarks)
    gland = np.rint(plain.geometry.to_index(np.array([30.0, -8.0, -18.0]))).astype(int)  # on the left side only
    x, y, z = gland
    around = (slice(z - 1, z + 2), slice(y - 1, y + 2), slice(x - 1, x + 2))
    assert pair.contrast.array[around].mean() - plain.array[around].mean() == pytest.approx(65, abs=12)


def test_a_contrast_scan_of_equal_shape_but_another_place_is_not_taken_by_shape(
    plain: Image, enhanced: Image, tmp_path: Path
) -> None:
    # The table stood 9 mm higher: other coordinates for the same voxels means the patient lies elsewhere.
    elsewhere = Image(enhanced.array, replace(enhanced.geometry, origin_mm=tuple(enhanced.geometry.to_lps([0, 0, 3]))))
    pair = load_pair(saved(plain, tmp_path / "plain.nrrd"), saved(elsewhere, tmp_path / "enhanced.nrrd"))
    assert np.array_equal(pair.contrast.array[3:], enhanced.array[:-3])
    assert any("displaced by 9.0 mm (x 0.0, y 0.0, z 9.0)" in remark.replace("-0.0", "0.0") for remark in pair.remarks)


def test_what_the_contrast_scan_does_not_show_is_air_and_said_in_millimetres(
    plain: Image, enhanced: Image, tmp_path: Path
) -> None:
    upper = Image(enhanced.array[8:], replace(enhanced.geometry, origin_mm=tuple(enhanced.geometry.to_lps([0, 0, 8]))))
    pair = load_pair(saved(plain, tmp_path / "plain.nrrd"), saved(upper, tmp_path / "enhanced.nrrd"))
    assert np.all(pair.contrast.array[:8] == -1024)
    assert np.array_equal(pair.contrast.array[8:], upper.array)
    assert any("leaves out 24 mm" in remark for remark in pair.remarks)


def test_scans_that_do_not_overlap_are_refused(plain: Image, enhanced: Image, tmp_path: Path) -> None:
    far = Image(enhanced.array, replace(enhanced.geometry, origin_mm=(900.0, 0.0, 0.0)))
    paths = saved(plain, tmp_path / "plain.nrrd"), saved(far, tmp_path / "far.nrrd")
    assert "do not overlap: the contrast scan shows 0%" in refusal(tmp_path, *paths)


# --- which is which ------------------------------------------------------------------------------------------------


def test_swapped_scans_are_refused_with_the_enhancement(paths: tuple[Path, Path], tmp_path: Path) -> None:
    message = refusal(tmp_path, paths[1], paths[0])
    assert "seem to be swapped: vessels in enhanced.nrrd" in message
    assert "HU brighter than in plain.nrrd" in message


def test_scans_swapped_by_their_tags_are_refused_when_no_enhancement_is_seen(plain: Image, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", plain.array, plain.geometry, ContrastBolusAgent="Iohexol")
    write_ct_series(tmp_path / "b", scan(seed=5).array, plain.geometry)
    assert "swapped: a, given as the non-contrast scan, states a contrast agent" in refusal(
        tmp_path, tmp_path / "a", tmp_path / "b"
    )


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
            for words in ("Neck C+", "H&N +C 3.0", "ceCT", "Head CE 3mm", "neck_c+_3mm", "Hals KM", "增强")
        ),
        *(
            (words, False)
            for words in ("Neck C-", "NCCT", "Neck w/o contrast", "Non-contrast", "nativ", "plain", "平扫")
        ),
        *((words, None) for words in ("Neck 3.0", "C-Spine", "Post-op", "Alternative two", "")),
    ],
)
def test_the_words_of_a_description_are_understood(description: str, meaning: bool | None) -> None:
    assert describes_contrast(description) is meaning


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


# --- what is no CT -------------------------------------------------------------------------------------------------


def as_file(array: np.ndarray, plain: Image, path: Path) -> Path:
    return saved(Image(array, plain.geometry), path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda hu: np.clip(hu + 1024, 0, 900),
        lambda hu: (hu > 0).astype(np.int16),
        lambda hu: np.clip(hu, -160, 240),
        lambda hu: (hu - 1024).astype(np.int16),
        lambda hu: (hu / 1000).astype(np.float32),
        lambda hu: np.zeros_like(hu),
    ],
    ids=["MR-like", "mask", "windowed", "intercept twice", "divided by 1000", "empty"],
)
def test_an_image_that_is_not_in_hounsfield_units_is_refused(spoil, plain: Image, tmp_path: Path) -> None:
    path = as_file(spoil(plain.array), plain, tmp_path / "odd.nrrd")
    assert "odd.nrrd is not a CT in Hounsfield units" in refusal(tmp_path, path)


def test_the_second_image_is_checked_like_the_first(paths: tuple[Path, Path], plain: Image, tmp_path: Path) -> None:
    mask = as_file((plain.array > 0).astype(np.int16), plain, tmp_path / "mask.nrrd")
    assert "mask.nrrd is not a CT" in refusal(tmp_path, paths[0], mask)


def test_a_circle_filled_with_one_number_below_air_is_still_a_ct(plain: Image) -> None:
    filled = plain.array.copy()
    filled[:, :8, :] = -3024
    assert hounsfield_fault(filled) is None


def test_every_real_ct_here_is_taken_for_one(shared_data: Path) -> None:
    for path in [
        shared_data / "dicom2stl_head" / "ct_head.nii.gz",
        *sorted((shared_data / "openkbp" / "validation").glob("*/ct.nii.gz"))[:8],
    ]:
        assert hounsfield_fault(read_image(path).array) is None


def test_a_path_that_is_not_there_is_named(paths: tuple[Path, Path], tmp_path: Path) -> None:
    assert "absent does not exist" in refusal(tmp_path, paths[0], tmp_path / "absent")


def test_one_dicom_file_is_refused_with_what_to_give(plain: Image, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path / "ct", plain.array, plain.geometry)[0]
    assert "Give the folder that holds the whole series" in refusal(tmp_path, path)


# --- alignment -----------------------------------------------------------------------------------------------------


def test_a_displaced_contrast_scan_is_reported_in_millimetres(plain: Image, tmp_path: Path) -> None:
    shifted = scan(shift_mm=(3.9, -1.5, 0.3), enhancement_hu=130, seed=4)
    pair = load_pair(saved(plain, tmp_path / "a.nrrd"), saved(shifted, tmp_path / "b.nrrd"))
    assert pair.alignment_mm == pytest.approx(4.19, abs=0.4)
    assert sum("displaced by" in remark for remark in pair.remarks) == 1


def test_half_a_voxel_is_not_worth_a_remark(plain: Image, tmp_path: Path) -> None:
    shifted = scan(shift_mm=(0.9, -0.8, 1.2), enhancement_hu=130, seed=4)
    pair = load_pair(saved(plain, tmp_path / "a.nrrd"), saved(shifted, tmp_path / "b.nrrd"))
    assert pair.remarks == ()
    assert pair.alignment_mm == pytest.approx(1.7, abs=0.3)


def test_a_turned_head_is_reported_in_degrees(plain: Image, enhanced: Image, tmp_path: Path) -> None:
    turned = saved(moved(enhanced, (0.0, 0.0, 0.0), (0.0, 0.0, 5.0)), tmp_path / "b.nrrd")
    pair = load_pair(saved(plain, tmp_path / "a.nrrd"), turned)
    assert any("turned by" in remark for remark in pair.remarks)
    assert pair.alignment_mm > 2


REAL_SCANS = ["dicom2stl_head/ct_head.nii.gz", "openkbp/validation/pt_201/ct.nii.gz", "visible_human_head"]


@pytest.fixture(scope="session", params=REAL_SCANS)
def real_scan(request: pytest.FixtureRequest, shared_data: Path) -> Image:
    """A real CT at about 3 mm, so that moving it is quick."""
    path = shared_data / request.param
    image = read_series_folder(path)[0].image() if path.is_dir() else read_image(path)
    return around_body(coarse_view(image))


@pytest.mark.parametrize("shift_mm", [(1.3, -2.2, 0.7), (-18.0, 9.0, 12.0)])
def test_a_known_shift_of_a_real_ct_is_found_within_0_7_mm(shift_mm: tuple, real_scan: Image) -> None:
    found = measure_alignment(real_scan, moved(real_scan, shift_mm, noise_hu=8))
    assert np.linalg.norm(found.shift_mm - shift_mm) < 0.7
    assert found.displacement_mm == pytest.approx(np.linalg.norm(shift_mm), abs=0.7)


def test_a_known_turn_of_a_real_ct_is_found_within_half_a_degree(real_scan: Image) -> None:
    found = measure_alignment(real_scan, moved(real_scan, (1.0, 0.0, -2.0), (2.0, 0.0, 3.0), noise_hu=8))
    assert found.turn_degrees == pytest.approx(np.hypot(2, 3), abs=0.5)


def test_moving_a_plain_real_ct_is_not_taken_for_enhancement(real_scan: Image) -> None:
    other = moved(real_scan, (1.3, -2.2, 0.7), noise_hu=8)
    on_first = second_on_first(real_scan, other, measure_alignment(real_scan, other))
    assert abs(enhancement_hu(real_scan.array, on_first)) < 30


def test_enhancement_is_the_same_number_the_other_way_round(plain: Image, enhanced: Image) -> None:
    first, second = coarse_view(plain), coarse_view(enhanced)
    gain = enhancement_hu(first.array, second.array)
    assert gain > 80
    assert enhancement_hu(second.array, first.array) == pytest.approx(-gain)


def test_images_without_edges_cannot_be_aligned() -> None:
    air = Image(np.full((20, 20, 20), -1000, np.float32), Geometry((3.0, 3.0, 3.0)))
    assert measure_alignment(air, air) is None


def test_a_coarse_view_keeps_means_and_places() -> None:
    array = np.arange(4 * 9 * 12, dtype=np.int16).reshape(4, 9, 12)
    image = Image(array, Geometry((0.5, 1.0, 3.0), (10.0, 20.0, 30.0), FEET_FIRST_SUPINE))
    view = coarse_view(image)
    assert view.shape == (4, 3, 2)
    assert view.geometry.spacing_mm == (3.0, 3.0, 3.0)
    assert view.array[1, 2, 1] == array[1, 6:9, 6:12].mean()
    assert np.allclose(view.geometry.to_lps([1, 2, 1]), image.geometry.to_lps([8.5, 7, 1]))


def test_the_field_of_view_is_shared_by_place() -> None:
    view = Image(np.zeros((10, 10, 10), np.float32), Geometry((3.0, 3.0, 3.0)))
    other = Image(np.zeros((10, 30, 30), np.float32), Geometry((1.0, 1.0, 3.0), (0.0, 0.0, 15.0)))
    inside = covered(view, other)
    assert not inside[:5].any()
    assert inside[5:].all()


def test_a_pair_holds_no_more_than_its_two_scans(paths: tuple[Path, Path]) -> None:
    pair = load_pair(*paths)
    assert isinstance(pair, CTPair)
    assert {array.dtype for array in pair.images(("non_contrast", "contrast"))} == {np.dtype(np.int16)}
