"""The figures of `segrap evaluate`: patients at the quartiles, on their CTs, and all of it inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import run_segrap
from evaluation_cases import (
    GEOMETRY,
    PREDICTION,
    REFERENCE,
    SHAPE,
    as_masks,
    as_segmentation,
    as_stacks,
    drawn,
    folder_of_cases,
    method,
)
from PIL import Image as Pillow

from segrap import anatomy
from segrap.errors import InputError
from segrap.evaluation.evaluate import evaluate
from segrap.evaluation.patients import quartile_patients
from segrap.evaluation.published import ORGANS_NSD, STRUCTURES, TARGET_TEAMS, organ_teams, organs_nsd
from segrap.evaluation.published_tables import published_tables
from segrap.geometry import Geometry
from segrap.image import Image, write_image

CT = Image(np.full(SHAPE, 40, dtype=np.int16), GEOMETRY)  # middle grey everywhere


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return as_masks(drawn(REFERENCE), tmp_path / "reference")


@pytest.fixture
def prediction(tmp_path: Path) -> Path:
    return as_masks(drawn(PREDICTION), tmp_path / "mine")


def chosen(*scores: Sequence[float]) -> list[tuple[str, str]]:
    comparisons = {f"method {number}": method({"Brain": of_cases}) for number, of_cases in enumerate(scores)}
    return [(patient.quartile, patient.case) for patient in quartile_patients(comparisons)]


def colours(picture: Path) -> np.ndarray:
    return np.asarray(Pillow.open(picture).convert("RGB")).reshape(-1, 3)


# --- which patients ---


def test_the_patients_stand_at_the_quartiles_of_mean_dsc():
    found = chosen([0.9, 0.5, 0.6, 0.8, 0.7])
    assert found == [("lower quartile", "case 2"), ("median", "case 4"), ("upper quartile", "case 3")]


def test_with_several_methods_the_mean_of_them_decides():
    assert chosen([0.9, 0.5, 0.1], [0.1, 0.5, 0.1])[1:] == [("median", "case 0"), ("upper quartile", "case 1")]


def test_equal_patients_are_taken_by_name():
    assert [case for _, case in chosen([0.5, 0.5, 0.5])] == ["case 0", "case 1", "case 2"]


@pytest.mark.parametrize(("cases", "words"), [(1, ["only patient"]), (2, ["lower quartile", "upper quartile"])])
def test_few_patients_are_each_shown_once(cases: int, words: list[str]):
    found = chosen([0.1 * number for number in range(cases)])
    assert [quartile for quartile, _ in found] == words
    assert len({case for _, case in found}) == cases


# --- on the CT or alone ---


def test_contours_are_drawn_in_their_colours_without_a_ct(tmp_path: Path, reference: Path, prediction: Path):
    evaluate([prediction], reference, tmp_path / "out")
    found = {tuple(colour) for colour in colours(tmp_path / "out" / "patients.png")}
    assert anatomy.structure("Larynx").colour in found
    assert "no CTs were given" in (tmp_path / "out" / "summary.html").read_text("utf-8")


@pytest.mark.parametrize("place", ["mine.nii.gz", "scans/reference.nii.gz", "scans/reference_0000.nrrd",
                                   "scans/reference/image.nii.gz", "image.mha"])  # fmt: skip
def test_the_ct_of_a_case_is_found_and_shown(tmp_path: Path, reference: Path, prediction: Path, place: str):
    path = tmp_path / "ct" / place
    path.parent.mkdir(parents=True)
    write_image(CT, path)
    ct = path if place.startswith("mine") else tmp_path / "ct" / (place.split("/")[0] if "/" in place else "")
    evaluate([prediction], reference, tmp_path / "out", ct=ct)
    grey = (colours(tmp_path / "out" / "patients.png") == 127).all(axis=1)
    assert np.count_nonzero(grey) > 10_000


@pytest.mark.parametrize("written", [as_segmentation, as_stacks])
def test_methods_in_other_formats_are_drawn_on_the_ct_too(tmp_path: Path, reference: Path, written):
    write_image(CT, tmp_path / "ct.nii.gz")
    mine = written(drawn(PREDICTION), tmp_path / "mine")
    evaluate([mine], reference, tmp_path / "out", ct=tmp_path / "ct.nii.gz")
    evaluate([reference], mine, tmp_path / "turned", ct=tmp_path / "ct.nii.gz")
    for out in ("out", "turned"):
        grey = (colours(tmp_path / out / "patients.png") == 127).all(axis=1)
        assert np.count_nonzero(grey) > 10_000


def test_a_case_without_a_ct_is_refused_before_anything_is_written(tmp_path: Path):
    cases = folder_of_cases(tmp_path / "r", "ab")
    (tmp_path / "ct").mkdir()
    write_image(CT, tmp_path / "ct" / "a.nii.gz")
    with pytest.raises(InputError, match=r"has no CT for b\. A case's CT is called"):
        evaluate([cases], cases, tmp_path / "out", ct=tmp_path / "ct")
    assert not (tmp_path / "out").exists()


def test_a_ct_on_another_grid_is_refused_and_nothing_is_written(tmp_path: Path, reference: Path, prediction: Path):
    write_image(Image(CT.array, Geometry(GEOMETRY.spacing_mm, (0.0, 0.0, 0.0))), tmp_path / "ct.nii.gz")
    done = run_segrap(
        "evaluate", prediction, reference, "--ct", tmp_path / "ct.nii.gz", "--output", tmp_path / "out"
    )  # fmt: skip
    assert (done.returncode, "Case reference: The CT and the contours are not on the same grid" in done.stderr) == (
        3,
        True,
    )
    assert not (tmp_path / "out").exists()


# --- what cannot be drawn ---


def test_a_patient_that_was_not_handed_in_keeps_its_place(tmp_path: Path):
    evaluate([folder_of_cases(tmp_path / "p", "a")], folder_of_cases(tmp_path / "r", "ab"), tmp_path / "out")
    evaluate([folder_of_cases(tmp_path / "q", "ab")], tmp_path / "r", tmp_path / "whole")
    sizes = {Pillow.open(tmp_path / out / "patients.png").size for out in ("out", "whole")}
    assert len(sizes) == 1


def test_a_patient_without_any_voxel_of_any_structure_is_drawn_empty(tmp_path: Path):
    nothing = {"Larynx": (slice(0), slice(0), slice(0))}
    sides = [as_masks(drawn(nothing), tmp_path / side) for side in ("p", "r")]
    evaluate(sides[:1], sides[1], tmp_path / "out")
    assert Pillow.open(tmp_path / "out" / "patients.png").width > 500


# --- the page ---


def test_the_page_holds_both_figures_itself(tmp_path: Path, reference: Path, prediction: Path):
    _, files = evaluate([prediction, reference], reference, tmp_path / "out")
    page = (tmp_path / "out" / "summary.html").read_text("utf-8")
    assert page.count('<img src="data:image/jpeg;base64,') == page.count("<svg ") == 1
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert {file.name for file in files} >= {"patients.png", "scores.svg"}
    assert "![" in (tmp_path / "out" / "summary.md").read_text("utf-8")
    assert r"keepaspectratio]{patients.png}" in (tmp_path / "out" / "summary.tex").read_text("utf-8")


# --- the challenge's two result tables ---


def test_the_teams_numbers_per_organ_average_to_their_printed_means():
    for team in organ_teams():
        assert set(team.organs) == {organ.name for organ in anatomy.ORGANS}
        off = abs(float(np.mean(list(team.organs.values()))) - team.dsc)
        assert off < 0.01 if "baseline" not in team.team else off == pytest.approx(0.25, abs=0.01)


def test_the_best_team_is_the_same_in_every_table():
    best = organ_teams()[0]
    assert {name: STRUCTURES[name].best_dsc for name in best.organs} == best.organs
    assert STRUCTURES["GTVp"].best_dsc == TARGET_TEAMS[0].gtvp[0]


def test_own_methods_stand_beside_all_teams_in_both_tables():
    organs, _, targets, _ = published_tables({"mine": method({"Brain": [0.9, 0.8], "GTVp": [0.7]})})
    assert organs.header[:3] == ("organ", "mine", "Y. Zhong")
    assert organs.rows[0][:3] == ("Brain", "85.00 ± 7.07", "98.62")
    assert organs.rows[-1][1:3] == ("85.00 ± 7.07", "86.70 ± 9.30")
    assert targets.rows[0] == ("mine", "70.00", "", "70.00")
    assert targets.rows[1] == ("M. Astaraki", "78.56 ± 7.54", "67.75 ± 14.64", "73.15 ± 12.83")


def test_a_table_without_scores_is_left_out():
    captions = [table.caption for table in published_tables({"mine": method({"GTVp": [0.7]})})]
    assert [caption[:8] for caption in captions] == ["DSC of t", "NSD of t"]


def test_published_nsd_averages_to_what_is_printed():
    assert set(organs_nsd()) == {organ.name for organ in anatomy.ORGANS}
    assert float(np.mean(list(organs_nsd().values()))) == pytest.approx(ORGANS_NSD["K. Yang"][0], abs=0.005)


def test_published_nsd_stands_only_beside_scores_of_the_same_tolerance():
    scores = {"Brain": [0.9], "MiddleEar_R": [0.8], "Larynx": [0.7], "GTVnd": [0.6]}
    mine = method(scores)
    _, organs, _, targets = published_tables({"mine": mine})
    assert [row[1:] for row in organs.rows] == [
        ("45.00", "89.64", ""),  # NSD is half of DSC in these made-up results
        ("40.00", "", ""),
        ("35.00", "", ""),
        ("40.00 ± 5.00", "", ""),
    ]
    assert targets.rows == (
        ("mine", "", "30.00", "30.00"),
        ("M. Astaraki", "", "", "49.80"),
        ("K. Yang", "35.92", "63.08", "49.50"),
        ("C. Ulrich", "35.60", "64.76", ""),
    )
    _, organs, *_ = published_tables({"mine": replace(mine, tolerances="2023-test-as-run")})
    assert [row[2:] for row in organs.rows] == [
        ("89.64", ""),
        ("96.54", ""),
        ("73.72", ""),
        ("85.33 ± 13.42", "84.9 ± 13.2"),
    ]
