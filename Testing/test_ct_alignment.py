"""How two scans lie: displacements and turns that are known are found, and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_pair_cases import moved, saved, scan
from synthetic_ct import FEET_FIRST_SUPINE

from segrap.ct.alignment import around_body, coarse_view, covered, enhancement_hu, measure_alignment, second_on_first
from segrap.ct.dicom_series import read_series_folder
from segrap.ct.pair import load_pair
from segrap.geometry import Geometry
from segrap.image import Image, read_image


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
