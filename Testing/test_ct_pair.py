"""Two CTs become a pair by their world coordinates; what is no CT does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ct_pair_cases import refusal, saved
from synthetic_ct import FEET_FIRST_SUPINE, head_like, write_ct_series

from segrap.ct.hounsfield import hounsfield_fault
from segrap.ct.pair import CTPair, load_pair
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import Image, read_image

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


def test_a_pair_holds_no_more_than_its_two_scans(paths: tuple[Path, Path]) -> None:
    pair = load_pair(*paths)
    assert isinstance(pair, CTPair)
    assert {array.dtype for array in pair.images(("non_contrast", "contrast"))} == {np.dtype(np.int16)}
