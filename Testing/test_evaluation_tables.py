"""The tables of `segrap evaluate`: every score, the summary beside published results, and the ranking of methods."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from evaluation_cases import GEOMETRY, PREDICTION, REFERENCE, SHAPE, as_masks, drawn, folder_of_cases, method

from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.errors import InputError, UsageError
from segrap.evaluation.box_plots import box_plots
from segrap.evaluation.comparison import compare
from segrap.evaluation.evaluate import evaluate
from segrap.evaluation.pages import write_summary
from segrap.evaluation.ranking import rank, standings, summary_of_ranking, tasks
from segrap.evaluation.score_tables import groups, statistics
from segrap.image import Image, write_image

TABLES = ("scores.csv", "summary.csv", "summary.md", "summary.tex", "summary.html")


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return as_masks(drawn(REFERENCE), tmp_path / "reference")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_score_table_has_one_line_per_case_and_structure(tmp_path: Path, reference: Path):
    evaluate([as_masks(drawn(PREDICTION), tmp_path / "p")], reference, tmp_path / "out")
    lines = read_csv(tmp_path / "out" / "scores.csv")
    assert [line["structure"] for line in lines] == ["Chiasm", "Parotid_L", "Larynx", "GTVp"]
    larynx = next(line for line in lines if line["structure"] == "Larynx")
    overlap, sizes = 4 * 11 * 12, 4 * 12 * 12 + 4 * 11 * 14
    assert larynx["dsc"] == f"{round(2 * overlap / sizes, 4):.4f}"
    assert (larynx["nsd_tolerance_mm"], larynx["state"]) == ("2", "scored")
    assert float(larynx["reference_cc"]) == pytest.approx(4 * 12 * 12 * 0.75**2 * 3 / 1000, abs=1e-4)


def test_what_cannot_be_measured_is_an_empty_cell(tmp_path: Path, reference: Path):
    only = {"Larynx": REFERENCE["Larynx"]}
    evaluate([as_masks(drawn(only), tmp_path / "p")], reference, tmp_path / "out")
    chiasm = next(line for line in read_csv(tmp_path / "out" / "scores.csv") if line["structure"] == "Chiasm")
    assert (chiasm["dsc"], chiasm["hd95_mm"], chiasm["state"]) == ("0.0000", "", "structure missing")


def test_the_same_contours_give_the_same_files(tmp_path: Path, reference: Path):
    prediction = as_masks(drawn(PREDICTION), tmp_path / "p")
    for name in ("first", "second"):
        evaluate([prediction], reference, tmp_path / name)
    for name in TABLES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_summary_averages_the_rounded_scores_of_the_cases(tmp_path: Path):
    names = "ab"
    folder_of_cases(tmp_path / "r", names)
    as_masks(drawn(PREDICTION), tmp_path / "p" / "a")
    as_masks(drawn(REFERENCE), tmp_path / "p" / "b")
    evaluate([tmp_path / "p"], tmp_path / "r", tmp_path / "out")
    per_case = [float(one["dsc"]) for one in read_csv(tmp_path / "out" / "scores.csv") if one["structure"] == "Larynx"]
    summary = read_csv(tmp_path / "out" / "summary.csv")
    line = next(one for one in summary if (one["structure"], one["measure"]) == ("Larynx", "dsc"))
    assert line["mean"] == f"{sum(per_case) / 2:.4f}"
    assert line["sd"] == f"{abs(per_case[0] - per_case[1]) / math.sqrt(2):.4f}"
    assert line["n"] == "2"


def test_statistics_leave_out_what_is_not_there():
    found = statistics([1.0, math.nan, 3.0, 5.0, 7.0])
    assert (found.n, found.mean, found.median, found.lower_quartile, found.upper_quartile) == (4, 4.0, 4.0, 2.5, 5.5)


def test_organs_and_targets_are_pooled_apart(tmp_path: Path, reference: Path):
    pooled = groups(compare(as_masks(drawn(PREDICTION), tmp_path / "p"), reference))
    assert {group: {one.structure for one in results} for group, results in pooled.items()} == {
        "Organs": {"Chiasm", "Larynx", "Parotid_L"},
        "Targets": {"GTVp"},
    }


def test_the_summary_for_people_stands_beside_published_scores(tmp_path: Path, reference: Path):
    without = {name: box for name, box in PREDICTION.items() if name != "Chiasm"}
    evaluate([as_masks(drawn(without), tmp_path / "p")], reference, tmp_path / "out")
    text = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "Structures without a prediction, scored 0: Chiasm (reference)." in text
    parotid = next(line for line in text.splitlines() if line.startswith("| Parotid_L"))
    median = float(parotid.split("|")[4].split("(")[0])
    assert f"| 86.0 ({median - 86:+.1f}) | 90.26 ± 4.41 |" in parotid
    teams = next(line for line in text.splitlines() if line.startswith("| all organs"))
    assert teams.endswith("| 84.65 ± 9.95 |")


def test_latex_and_html_hold_the_cells_of_the_markdown(tmp_path: Path, reference: Path):
    evaluate([as_masks(drawn(PREDICTION), tmp_path / "p")], reference, tmp_path / "out")
    text, tex, page = ((tmp_path / "out" / f"summary.{ending}").read_text("utf-8") for ending in ("md", "tex", "html"))
    parotid = next(line for line in text.splitlines() if line.startswith("| Parotid_L"))
    cells = [cell.strip() for cell in parotid.strip("|").split("|")]
    escaped = [cell.replace("_", r"\_").replace("±", r"$\pm$").replace("–", "--") for cell in cells]
    assert " & ".join(escaped) + r" \\" in tex.splitlines()
    numbers = "".join(f"<td>{cell}</td>" for cell in cells[1:])
    assert f'<tr><td class="words">{cells[0]}</td>{numbers}</tr>' in page.splitlines()


@pytest.mark.parametrize("methods", [("mine",), ("mine", "other")])
def test_the_doubt_about_the_published_numbers_stands_under_them(tmp_path: Path, reference: Path, methods):
    evaluate([as_masks(drawn(PREDICTION), tmp_path / name) for name in methods], reference, tmp_path / "out")
    for ending in ("md", "tex", "html"):
        text = (tmp_path / "out" / f"summary.{ending}").read_text("utf-8")
        for words in ("row names are in another order than its numbers", "nobody has confirmed it", "a misprint"):
            assert words in text, ending


def test_latex_makes_wide_tables_as_narrow_as_the_page_and_closes_every_brace(tmp_path: Path, reference: Path):
    evaluate([as_masks(drawn(PREDICTION), tmp_path / "p")], reference, tmp_path / "out")
    tex = (tmp_path / "out" / "summary.tex").read_text("utf-8")
    tables = tex.split(r"\begin{table}")[1:]
    widths = [len(table.split(r"\begin{tabular}{", 1)[1].split("}", 1)[0]) for table in tables]
    assert [r"\resizebox{\textwidth}" in table for table in tables] == [width > 6 for width in widths]
    assert max(widths) > 6 > min(widths)
    bare = tex.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")


def test_the_page_is_well_formed_whatever_a_case_is_called(tmp_path: Path, reference: Path):
    as_masks(drawn({"Larynx": REFERENCE["Larynx"]}), tmp_path / "p")
    reference.rename(tmp_path / "a & <b>")
    evaluate([tmp_path / "p"], tmp_path / "a & <b>", tmp_path / "out")
    assert "Chiasm (a &amp; &lt;b&gt;)" in (tmp_path / "out" / "summary.html").read_text("utf-8")
    assert r"Chiasm (a \& <b>)" in (tmp_path / "out" / "summary.tex").read_text("utf-8")


def test_the_as_run_tolerances_reach_the_scores(tmp_path: Path, reference: Path):
    found = compare(as_masks(drawn(PREDICTION), tmp_path / "p"), reference, "2023-test-as-run")
    assert found.of("Larynx")[0].scores.tolerance_mm == 1.0


def test_a_failed_evaluation_leaves_no_folder_behind(tmp_path: Path, reference: Path):
    with pytest.raises(InputError):
        evaluate([tmp_path / "nowhere"], reference, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- ranking ---


MANY = np.linspace(0.6, 0.8, 12)


def test_methods_are_ranked_by_structure_and_score_and_averaged():
    ranks = rank(
        {
            "good": method({"Brain": [0.9], "Chiasm": [0.5]}),
            "fair": method({"Brain": [0.8], "Chiasm": [0.6]}),
            "poor": method({"Brain": [0.7], "Chiasm": [0.4]}),
        }
    )
    found = {one.method: (one.mean_rank, one.score) for one in standings(ranks)}
    assert found == {"good": (1.5, 0.5), "fair": (1.5, 0.5), "poor": (3.0, 1.0)}


def test_organs_and_tumour_volumes_are_ranked_apart_as_the_challenges_two_tasks():
    comparisons = {
        "of organs": method({"Brain": [0.9], "Chiasm": [0.6], "GTVp": [0.5]}),
        "of tumours": method({"Brain": [0.8], "Chiasm": [0.5], "GTVp": [0.7]}),
    }
    found = {task: [one.method for one in standings(of_task)] for task, of_task in tasks(rank(comparisons)).items()}
    assert found == {
        "organs (task 1)": ["of organs", "of tumours"],
        "tumour volumes (task 2)": ["of tumours", "of organs"],
    }
    captions = [table.caption for table in summary_of_ranking(comparisons, rank(comparisons)).tables]
    assert captions[:2] == ["Standings: organs (task 1)", "Standings: tumour volumes (task 2)"]


def test_equal_means_share_the_mean_of_their_ranks():
    ranks = rank({"one": method({"Brain": [0.9]}), "other": method({"Brain": [0.9]})})
    assert {one.rank for one in ranks} == {1.5}


def test_a_small_but_steady_difference_is_no_tie():
    ranks = rank({"better": method({"Brain": list(MANY + 0.01)}), "worse": method({"Brain": list(MANY)})})
    assert {one.method: one.tied_rank for one in ranks} == {"better": 1, "worse": 2}


def test_a_difference_that_may_be_chance_is_a_tie():
    wavering = MANY + np.where(np.arange(12) % 2, 0.02, -0.018)
    ranks = rank({"better": method({"Brain": list(wavering)}), "worse": method({"Brain": list(MANY)})})
    assert {one.method: one.rank for one in ranks} == {"better": 1.0, "worse": 2.0}
    assert {one.tied_rank for one in ranks} == {1}


@pytest.mark.parametrize(("cases", "tied"), [(5, 1), (6, 2)])
def test_that_five_cases_are_too_few_for_any_significant_difference_is_said(cases: int, tied: int):
    scores = list(np.linspace(0.5, 0.7, cases))
    comparisons = {"better": method({"Brain": [one + 0.2 for one in scores]}), "worse": method({"Brain": scores})}
    ranks = rank(comparisons)
    assert {one.tied_rank for one in ranks if one.method == "worse"} == {tied}
    assert ("it takes 6 cases" in summary_of_ranking(comparisons, ranks).notes[0]) == (tied == 1)


def test_methods_scored_on_different_cases_are_not_ranked():
    with pytest.raises(InputError, match="a and b were not scored on the same cases"):
        rank({"a": method({"Brain": [0.9]}), "b": method({"Brain": [0.9, 0.8]})})


def test_several_predictions_come_out_in_a_folder_each_and_ranked(tmp_path: Path, reference: Path):
    methods = [as_masks(drawn(boxes), tmp_path / name) for name, boxes in (("off", PREDICTION), ("exact", REFERENCE))]
    _, files = evaluate(methods, reference, tmp_path / "out")
    assert {str(file.relative_to(tmp_path / "out")) for file in files} == {
        "ranking.csv",
        "patients.png",
        "scores.svg",
        "summary.html",
        "summary.md",
        "summary.tex",
        *(f"{name}/{table}" for name in ("off", "exact") for table in TABLES),
    }
    text = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert text.index("| 1 | exact |") < text.index("| 2 | off |")


def test_the_table_of_methods_has_mean_and_deviation_and_the_best_in_bold(tmp_path: Path):
    comparisons = {"a": method({"Brain": [0.9, 0.8]}), "b": method({"Brain": [0.8, 0.6]})}
    write_summary(summary_of_ranking(comparisons, rank(comparisons)), tmp_path)
    text, tex, page = ((tmp_path / f"summary.{ending}").read_text("utf-8") for ending in ("md", "tex", "html"))
    assert "| Brain | **85.00** ± 7.07 | 70.00 ± 14.14 |" in text.splitlines()
    assert "| Organs | **85.00** ± 7.07 | 70.00 ± 14.14 |" in text.splitlines()
    assert r"Brain & \textbf{85.00} $\pm$ 7.07 & 70.00 $\pm$ 14.14 \\" in tex.splitlines()
    assert "<td><b>85.00</b> ± 7.07</td>" in page


def test_methods_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path, reference: Path):
    methods = [as_masks(drawn(PREDICTION), tmp_path / parent / "validation") for parent in ("fold_0", "fold_1")]
    comparisons, _ = evaluate(methods, reference, tmp_path / "out")
    assert list(comparisons) == ["fold_0_validation", "fold_1_validation"]
    with pytest.raises(UsageError, match="given twice"):
        evaluate([methods[0], methods[0]], reference, tmp_path / "out")


def written(prediction: Path) -> Path:
    prediction.parent.mkdir(parents=True, exist_ok=True)
    write_seg_nrrd(drawn(PREDICTION), prediction)
    return prediction


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("one.seg.nrrd", "other.seg.nrrd"), ["one", "other"]),
        (("one/contours.seg.nrrd", "other/contours.seg.nrrd"), ["one_contours", "other_contours"]),
    ],
)
def test_methods_are_called_as_their_files_without_the_endings(
    tmp_path: Path, reference: Path, paths: tuple[str, ...], names: list[str]
) -> None:
    comparisons, files = evaluate([written(tmp_path / path) for path in paths], reference, tmp_path / "out")
    assert list(comparisons) == names
    assert {file.parent.name for file in files if file.name == "scores.csv"} == set(names)


def test_methods_that_only_their_endings_tell_apart_keep_them(tmp_path: Path, reference: Path) -> None:
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume[REFERENCE["Larynx"]] = 48
    write_image(Image(volume, GEOMETRY), tmp_path / "one.nii.gz")
    methods = [written(tmp_path / "one.seg.nrrd"), tmp_path / "one.nii.gz"]
    comparisons, _ = evaluate(methods, reference, tmp_path / "out")
    assert list(comparisons) == ["one.seg.nrrd", "one.nii.gz"]


# --- box plots ---

SVG = "{http://www.w3.org/2000/svg}"


def drawn_boxes(scores: dict[str, list[float]]) -> ElementTree.Element:
    return ElementTree.fromstring(box_plots({"a <b>": method(scores)}))


def test_a_box_reaches_from_quartile_to_quartile_on_a_common_scale():
    picture = drawn_boxes({"Brain": [0.2, 0.4, 0.6, 0.8, 1.0]})
    labels = [(text.text, float(text.get("x", ""))) for text in picture.iter(f"{SVG}text")]
    start, end = (next(x for text, x in labels if text == percent) for percent in ("40", "80"))
    box = next(box for box in picture.iter(f"{SVG}rect") if box.get("fill-opacity"))
    assert float(box.get("x", "")) == pytest.approx(start)
    assert float(box.get("width", "")) == pytest.approx(end - start)


def test_scores_beyond_the_whiskers_are_dots():
    picture = drawn_boxes({"Brain": [0.8, 0.81, 0.82, 0.83, 0.3]})
    assert len(list(picture.iter(f"{SVG}circle"))) == 2  # one of DSC, one of NSD


def test_every_structure_has_its_row():
    picture = drawn_boxes({"Brain": [0.9], "Chiasm": [0.5], "GTVp": [0.7]})
    texts = {text.text for text in picture.iter(f"{SVG}text")}
    assert {"Brain", "Chiasm", "GTVp", "a <b>"} <= texts


def test_long_names_of_methods_do_not_run_into_each_other_or_out_of_the_picture():
    names = [f"nnUNetTrainer__nnUNetResEncUNetLPlans__fold_{number}" for number in range(5)]
    picture = ElementTree.fromstring(box_plots({name: method({"Brain": [0.9]}) for name in names}))
    places = {text.text: (float(text.get("x", "")), float(text.get("y", ""))) for text in picture.iter(f"{SVG}text")}
    ends = [(places[name][1], places[name][0], places[name][0] + 6 * len(name)) for name in names]
    for (line, _, end), (next_line, start, _) in itertools.pairwise(sorted(ends)):
        assert next_line > line or start > end
    assert max(end for *_, end in ends) < float(picture.get("width", ""))
    assert places["Brain"][1] > max(line for line, *_ in ends)
