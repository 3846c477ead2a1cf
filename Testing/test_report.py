"""What the report says and shows: the warnings, every structure, nothing from outside, left and right in place."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from segrap import anatomy
from segrap.contours import Contours, IntendedUse, Provenance
from segrap.ct.pair import CTPair
from segrap.errors import InputError, OutputError
from segrap.evaluation.report import overview_picture, write_report
from segrap.geometry import Geometry
from segrap.image import Image
from segrap.quality import check
from segrap.quality.findings import Finding

SHAPE = (30, 48, 48)
GEOMETRY = Geometry((4.0, 4.0, 6.0), (-96.0, -96.0, 0.0))
RED, BLUE = (255, 0, 0), (70, 110, 190)  # of GTVp and Parotid_L in the anatomy table


def block(z: int, y: int, x: int, half: int = 2) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[z - half : z + half + 1, y - half : y + half + 1, x - half : x + half + 1] = True
    return mask


def ct(geometry: Geometry = GEOMETRY, shape: tuple[int, int, int] = SHAPE) -> Image:
    noise = np.random.default_rng(0).normal(40, 12, shape)
    return Image(noise.astype(np.int16), geometry)


def contours(use: IntendedUse = "research", model: str = "Model54", **masks: np.ndarray) -> Contours:
    chosen = masks or {"Parotid_L": block(15, 24, 36), "Parotid_R": block(15, 24, 12)}
    return Contours.from_masks(chosen, GEOMETRY, Provenance(model, "2.1", "sha256:0123456789abcdef", use, "Apache-2.0"))


def report(path: Path, made: Contours, image: Image | CTPair | None = None, findings: tuple[Finding, ...] = ()) -> str:
    write_report(made, image or ct(made.geometry), findings, path / "report.html")
    return (path / "report.html").read_text(encoding="utf-8")


def pictures(html: str) -> list[Pillow.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Pillow.open(io.BytesIO(base64.b64decode(one))) for one in found]


def columns_of(picture: Pillow.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """The columns of the pixels that come near a colour."""
    distance = np.abs(np.asarray(picture.convert("RGB"), dtype=float) - colour).max(axis=2)
    return np.nonzero(distance < 60)[1]


def test_contours_of_a_demonstration_model_are_marked_as_not_for_any_patient(tmp_path: Path) -> None:
    html = report(tmp_path, contours("demonstration"))
    assert "DEMONSTRATION: not for any patient" in html
    assert 'class="banner demonstration"' in html


@pytest.mark.parametrize("use", ["demonstration", "research", "clinical"])
def test_every_report_says_that_nobody_has_reviewed_the_contours(tmp_path: Path, use: IntendedUse) -> None:
    assert "Nobody has reviewed these contours" in report(tmp_path, contours(use))


def test_the_model_is_named_with_version_licence_and_the_start_of_its_hash(tmp_path: Path) -> None:
    html = report(tmp_path, contours())
    assert "Model54 2.1" in html and "Apache-2.0" in html and "(0123456789ab)" in html
    assert "Research use" in html


def test_all_47_structures_have_a_row_with_their_volume(tmp_path: Path) -> None:
    masks = {}
    for number, name in enumerate(anatomy.NAMES):
        masks[name] = np.zeros(SHAPE, bool)
        masks[name][number % 28 + 1, 10 : 11 + number // 2, 20] = True
    made = contours(**masks)
    html = report(tmp_path, made)
    rows = re.findall(r'<a href="#(\w+)">\w+</a>.*?<td class="number">([\d.]+)</td>', html, re.DOTALL)
    assert [name for name, _ in rows] == list(anatomy.NAMES)
    assert [float(volume) for _, volume in rows] == pytest.approx(
        [facts.volume_cc for facts in made.structures.values()], abs=0.005
    )


def test_an_empty_structure_is_listed_as_not_found(tmp_path: Path) -> None:
    made = contours(Parotid_L=block(15, 24, 36), Pituitary=np.zeros(SHAPE, bool))
    html = report(tmp_path, made, findings=check(made))
    assert re.search(r'class="missing">.*?Pituitary.*?not found', html, re.DOTALL)
    assert "Asked for but not found" in html


def test_contours_that_are_all_empty_still_make_a_report(tmp_path: Path) -> None:
    assert pictures(report(tmp_path, contours(Pituitary=np.zeros(SHAPE, bool)))) == []


def test_structures_that_were_not_contoured_are_named(tmp_path: Path) -> None:
    html = report(tmp_path, contours())
    assert re.search(r"Not contoured.*?Brain, BrainStem", html, re.DOTALL)


def test_findings_are_written_out_in_words(tmp_path: Path) -> None:
    made = contours(Parotid_L=block(15, 24, 12), Parotid_R=block(15, 24, 36))
    assert "left and right are exchanged" in report(tmp_path, made, findings=check(made))


def test_the_report_needs_nothing_from_outside(tmp_path: Path) -> None:
    html = report(tmp_path, contours())
    assert "<script" not in html and "@import" not in html and "http" not in html
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', html))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', html))


def test_text_from_a_model_folder_cannot_become_markup(tmp_path: Path) -> None:
    html = report(tmp_path, contours(model='<img src=x onerror="alert(1)">'))
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


def test_each_structure_has_an_axial_a_coronal_and_a_sagittal_view(tmp_path: Path) -> None:
    html = report(tmp_path, contours())
    for plane in ("axial", "coronal", "sagittal"):
        assert f'alt="Parotid_L, {plane}"' in html
    assert len(pictures(html)) == 4 + 2 * 3


def test_a_pair_of_scans_is_reported_with_its_alignment(tmp_path: Path) -> None:
    pair = CTPair(ct(), ct(), None, None, 0.42, ())
    html = report(tmp_path, contours(), pair)
    assert "Non-contrast and contrast CT" in html and "0.4 mm apart" in html


def test_a_single_ct_is_enough_for_a_report(tmp_path: Path) -> None:
    assert "One CT" in report(tmp_path, contours(), CTPair(ct(), None, None, None, None, ()))


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_the_patients_left_is_on_the_right_of_the_picture(tmp_path: Path, plane: str) -> None:
    made = contours(Parotid_L=block(15, 24, 26), GTVp=block(15, 24, 22, half=1))
    html = report(tmp_path, made)
    views = re.findall(rf'src="data:image/jpeg;base64,([^"]+)" alt="Parotid_L, {plane}"', html)
    picture = Pillow.open(io.BytesIO(base64.b64decode(views[0])))
    assert columns_of(picture, BLUE).mean() > columns_of(picture, RED).mean() + 20


def test_the_picture_is_turned_when_the_scan_is_stored_from_left_to_right() -> None:
    # The same patient, x growing to the right: voxel 12 of 48 now lies on the patient's left.
    mirrored = Geometry((4.0, 4.0, 6.0), (96.0, -96.0, 0.0), np.diag([-1.0, 1.0, 1.0]))
    made = Contours.from_masks({"GTVp": block(15, 24, 12)}, mirrored, Provenance())
    at_left = Contours.from_masks({"GTVp": block(15, 24, 35)}, GEOMETRY, Provenance())
    blank = np.full(SHAPE, 40, np.int16)
    turned, straight = overview_picture(Image(blank, mirrored), made), overview_picture(Image(blank, GEOMETRY), at_left)
    assert np.array_equal(np.asarray(turned), np.asarray(straight))


def test_a_structure_of_more_voxels_than_the_picture_has_pixels_is_drawn(tmp_path: Path) -> None:
    shape, geometry = (5, 500, 500), Geometry((0.25, 0.25, 3.0))
    tumour = np.zeros(shape, bool)
    tumour[1:4, 20:480, 30:470] = True
    html = report(tmp_path, Contours.from_masks({"GTVp": tumour}, geometry, Provenance()), ct(geometry, shape))
    axial = pictures(html)[4]
    assert len(columns_of(axial, RED)) > axial.width


def test_contours_of_another_grid_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not on the same grid"):
        write_report(contours(), ct(Geometry((4.0, 4.0, 5.0))), (), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_report(contours(), ct(), (), tmp_path / "absent" / "report.html")


def test_there_is_no_overview_of_nothing() -> None:
    with pytest.raises(InputError, match="nothing to show"):
        overview_picture(ct(), contours(Pituitary=np.zeros(SHAPE, bool)))


def test_structures_of_any_size_and_place_can_be_shown() -> None:
    """Crops end between voxels; rounding there once asked for a pixel before the first of a neighbour."""
    from segrap.evaluation.views import PLANES, Views

    rng = np.random.default_rng(4)
    geometry = Geometry((1.0, 1.0, 3.0))
    for _ in range(40):  # two of them used to
        masks = {name: np.zeros(SHAPE, bool) for name in ("GTVp", "Parotid_L")}
        for mask in masks.values():
            low = rng.integers(0, np.array(SHAPE) - 2)
            mask[tuple(slice(a, b) for a, b in zip(low, low + rng.integers(1, 20, 3), strict=True))] = True
        views = Views(ct(geometry), Contours.from_masks(masks, geometry, Provenance()))
        for plane in PLANES:
            assert len(columns_of(views.of_structure("GTVp", plane, 280), RED))


def reach_of(mask: np.ndarray, frame: tuple[float, float, float, float], side_px: int) -> tuple[float, ...]:
    """First and last row, first and last column in voxels that the outline of a mask is drawn on, in its slice 7."""
    from segrap.evaluation.views import AXIAL, SOFT_TISSUE, Frame, Views

    geometry = Geometry((1.0, 1.0, 3.0))
    black = Image(np.full(mask.shape, -1024, np.int16), geometry)
    views = Views(black, Contours.from_masks({"GTVp": mask}, geometry, Provenance()))
    drawn = np.asarray(views.draw(AXIAL, 7, Frame(*frame, side_px, side_px), SOFT_TISSUE, bold="GTVp"))
    rows, columns = np.nonzero(np.abs(drawn.astype(float) - RED).max(axis=2) < 120)
    top, left, bottom, right = frame
    return (
        rows.min() * (bottom - top) / side_px + top,
        (rows.max() + 1) * (bottom - top) / side_px + top,
        columns.min() * (right - left) / side_px + left,
        (columns.max() + 1) * (right - left) / side_px + left,
    )


def test_no_line_is_drawn_beside_a_structure_that_fills_one_side_of_its_box() -> None:
    """Smoothing once wrapped around the crop: a second line ran beside the first, where the crop ended."""
    mask = np.zeros((12, 80, 80), bool)
    mask[2:5, 20:60, 20:60] = True  # its box
    mask[5:9, 20:26, 20:60] = True
    assert reach_of(mask, (10, 10, 70, 70), 160) == pytest.approx((20, 26, 20, 60), abs=1.0)


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_a_structure_at_the_scans_edge_draws_nothing_at_the_other_side(side: str) -> None:
    mask = np.zeros((12, 80, 80), bool)
    mask[2:5] = True
    at = {"top": np.s_[5:9, :6], "bottom": np.s_[5:9, 74:], "left": np.s_[5:9, :, :6], "right": np.s_[5:9, :, 74:]}
    mask[at[side]] = True
    expected = {"top": (0, 6, 0, 80), "bottom": (74, 80, 0, 80), "left": (0, 80, 0, 6), "right": (0, 80, 74, 80)}
    assert reach_of(mask, (0, 0, 80, 80), 160) == pytest.approx(expected[side], abs=1.0)
