"""The commissioning report: what stands out comes first and says why; models and files are identified."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap
from evaluation_cases import PREDICTION, REFERENCE, as_masks, as_segmentation, drawn, folder_of_cases, method
from rtstruct_cases import small_series

from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.errors import UsageError
from segrap.evaluation.commissioning import judge
from segrap.evaluation.evaluate import evaluate
from segrap.rtstruct.write import write_rtstruct


def commission(prediction: Path, reference: Path, output: Path) -> tuple[str, list[dict[str, str]]]:
    """The page and the lines of the table."""
    evaluate([prediction], reference, output, commission=True)
    with (output / "commissioning.csv").open(encoding="utf-8", newline="") as file:
        return (output / "commissioning.html").read_text("utf-8"), list(csv.DictReader(file))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return as_masks(drawn(REFERENCE), tmp_path / "reference")


def test_a_score_two_deviations_under_the_best_team_stands_out():
    judged = judge(method({"Brain": [0.985, 0.98]}))  # 98.62 and 0.26 per cent
    assert [(one.result.case, bool(one.reasons)) for one in judged] == [("case 1", True), ("case 0", False)]
    assert "DSC below 98.1 %" in judged[0].reasons[0]


def test_a_score_outside_the_fences_of_the_own_cases_stands_out():
    judged = judge(method({"Chiasm": [0.80, 0.81, 0.82, 0.83, 0.84, 0.60]}))  # far above two deviations: 41.7
    assert [one.result.case for one in judged if one.reasons] == ["case 5"]
    assert [reason.split(" unlike")[0] for reason in judged[0].reasons] == ["DSC", "HD95"]


def test_a_part_far_away_stands_out_though_the_overlap_is_good():
    near, far = method({"Larynx": [0.92, 0.92]}).results
    far = replace(far, scores=replace(far.scores, hd95_mm=287.9))
    judged = judge(replace(method({"Larynx": [0.92, 0.92]}), results=(near, far)))
    assert [one.reasons for one in judged] == [("HD95 above 10 mm: a part lies far off.",), ()]


def test_where_nothing_stands_out_there_is_nothing_to_look_at_first(tmp_path: Path, reference: Path):
    page, _ = commission(reference, reference, tmp_path / "out")
    assert "1 case, 4 contours compared; 0 stand out." in page
    assert "Look at these first" not in page


def test_four_cases_are_too_few_for_fences():
    assert not any(one.reasons for one in judge(method({"Chiasm": [0.80, 0.81, 0.82, 0.60]})))


def test_equal_cases_lie_within_their_own_fences_whatever_rounding_does():
    assert not any(one.reasons for one in judge(method({"Larynx": [0.94436] * 5})))


def test_what_was_not_found_comes_before_what_is_merely_bad(tmp_path: Path, reference: Path):
    nothing = (slice(0), slice(0), slice(0))
    boxes = {**REFERENCE, "Larynx": PREDICTION["Parotid_L"], "Parotid_L": nothing}
    _, lines = commission(as_masks(drawn(boxes), tmp_path / "p"), reference, tmp_path / "out")
    assert [line["structure"] for line in lines[:2]] == ["Parotid_L", "Larynx"]
    assert lines[0]["stands_out"].startswith("Not found at all")
    assert [line["stands_out"] for line in lines[2:]] == ["", ""]


def test_a_contour_where_the_reference_has_none_stands_out(tmp_path: Path):
    nothing = {"Chiasm": (slice(0), slice(0), slice(0))}
    reference = as_masks(drawn({**REFERENCE, **nothing}), tmp_path / "reference")
    _, lines = commission(as_masks(drawn(REFERENCE), tmp_path / "p"), reference, tmp_path / "out")
    assert lines[0]["structure"] == "Chiasm"
    assert "where the reference has none" in lines[0]["stands_out"]


def test_scores_stand_beside_human_agreement(tmp_path: Path, reference: Path):
    page, lines = commission(reference, reference, tmp_path / "out")
    assert "<td>86.0 (+14.0)</td><td>90.26 ± 4.41</td>" in page  # Parotid_L, all of it found
    published = {line["structure"]: (line["best_team_dsc"], line["best_team_dsc_sd"], line["two_experts_dsc"])
                 for line in lines}  # fmt: skip
    assert published["Parotid_L"] == ("0.9026", "0.0441", "0.8600")
    assert published["GTVp"] == ("0.7856", "0.0754", "")


def test_a_missing_case_stands_out(tmp_path: Path):
    sides = folder_of_cases(tmp_path / "p", "a"), folder_of_cases(tmp_path / "r", "ab")
    page, lines = commission(*sides, tmp_path / "out")
    assert {line["case"] for line in lines if line["stands_out"]} == {"b"}
    assert ">not handed in</td>" in page


def test_the_report_names_the_model_and_its_hash(tmp_path: Path, reference: Path):
    made = drawn(PREDICTION)
    provenance = Provenance("NPC-OAR", "2.1", "c0ffee", "research", software="segrap 0.1.0")
    write_seg_nrrd(Contours(made.layers, made.geometry, made.structures, provenance), tmp_path / "mine.seg.nrrd")
    page, _ = commission(tmp_path / "mine.seg.nrrd", reference, tmp_path / "out")
    assert "Made by the research model NPC-OAR 2.1 with segrap 0.1.0: 1 case. SHA-256 of the model: c0ffee." in page


def test_the_report_holds_the_hash_of_the_compared_file(tmp_path: Path, reference: Path):
    folder = as_segmentation(drawn(PREDICTION), tmp_path / "p")
    page, _ = commission(folder, reference, tmp_path / "out")
    assert hashlib.sha256((folder / "contours.seg.nrrd").read_bytes()).hexdigest() in page


def test_the_hash_of_a_folder_of_masks_changes_with_any_of_them(tmp_path: Path, reference: Path):
    one, _ = commission(reference, reference, tmp_path / "one")
    as_masks(drawn({**REFERENCE, "Chiasm": PREDICTION["Chiasm"]}), tmp_path / "changed" / "reference")
    other, _ = commission(tmp_path / "changed" / "reference", reference, tmp_path / "other")
    hashes = [set(re.findall("[0-9a-f]{64}", page)) for page in (one, other)]
    assert [len(found) for found in hashes] == [1, 2]


def test_the_report_is_repeatable_to_the_byte_whatever_runs_it(tmp_path: Path):
    """Nothing differs: the files hold no date, no path, no name of the computer. The cases lie in other folders, and
    the runs have another working folder, another number of threads, another order of sets and another day's clock."""
    runs = []
    for number, place in enumerate((tmp_path / "here", tmp_path / "there" / "elsewhere")):
        folder_of_cases(place / "reference", "abc")
        for name in "ab":
            as_masks(drawn(PREDICTION), place / "mine" / name)
        threads = {name: str(1 + 3 * number) for name in ("OMP_NUM_THREADS", "PYTHON_CPU_COUNT")}
        surroundings = {**os.environ, **threads, "PYTHONHASHSEED": str(number), "TZ": f"UTC{5 * number}"}
        working = (place, tmp_path)[number]
        sides = (os.path.relpath(place / side, working) for side in ("mine", "reference"))
        options = ("--commission", "--output", place / "out")
        done = run_segrap("evaluate", *sides, *options, cwd=working, env=surroundings)
        assert done.returncode == 0, done.stderr
        runs.append({path.name: path.read_bytes() for path in (place / "out").iterdir()})
    assert runs[0] == runs[1]
    assert set(runs[0]) == {"commissioning.html", "commissioning.csv"}


def test_the_number_of_threads_does_not_change_the_report(tmp_path: Path, reference: Path, monkeypatch):
    prediction = as_masks(drawn(PREDICTION), tmp_path / "p")
    found = []
    for threads in (1, 7):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        found.append(commission(prediction, reference, tmp_path / str(threads)))
    assert found[0] == found[1]


def test_a_clinics_structure_sets_are_read_with_cts_that_lie_apart(tmp_path: Path):
    clinic, cts = tmp_path / "clinic", tmp_path / "cts"
    for patient in ("p1", "p2"):
        series = small_series(cts / patient)
        mask = np.zeros(series.shape, dtype=bool)
        mask[2:6, 8:20, 10:25] = True
        contours = Contours.from_masks({"Larynx": mask}, series.geometry, Provenance())
        (clinic / patient).mkdir(parents=True)
        write_rtstruct(contours, series, clinic / patient / "RS.dcm")
        as_segmentation(contours, tmp_path / "mine" / patient)
    command = ("evaluate", tmp_path / "mine", clinic, "--commission", "--output", tmp_path / "out")
    assert "needs the CT" in run_segrap(*command).stderr
    done = run_segrap(*command, "--ct", cts)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"commissioning.html", "commissioning.csv"}
    assert "2 cases, 2 contours compared; 0 stand out." in (tmp_path / "out" / "commissioning.html").read_text("utf-8")


def test_only_one_method_is_commissioned_at_a_time(tmp_path: Path, reference: Path):
    with pytest.raises(UsageError, match="one method"):
        evaluate([tmp_path / "a", tmp_path / "b"], reference, tmp_path / "out", commission=True)


def test_the_command_writes_the_report_and_nothing_else(tmp_path: Path, reference: Path):
    done = run_segrap("evaluate", "--commission", reference, reference, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"commissioning.html", "commissioning.csv"}
