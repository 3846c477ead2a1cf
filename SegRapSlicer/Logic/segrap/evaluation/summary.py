"""The summary of a comparison for people, beside what others reached: Markdown, LaTeX and HTML in the same words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from segrap.evaluation.comparison import Comparison, Result
from segrap.evaluation.pages import Picture, Summary, Table
from segrap.evaluation.published import STRUCTURES, TARGET_TEAMS, organ_teams
from segrap.evaluation.published_tables import PUBLISHED_NOTES, published_tables
from segrap.evaluation.score_tables import (
    CHALLENGE_SCORES,
    MEASURES,
    count_missing,
    groups,
    measured,
    statistics,
)

_HEADER = (
    "structure",
    "n",
    "DSC mean ± SD",
    "DSC median (quartiles)",
    "two experts DSC",
    "best team DSC",
    "NSD mean ± SD",
    "NSD median (quartiles)",
    "HD95 mm",
    "mean distance mm",
    "volume difference cc",
    "volume difference %",
    "added path mm",
)

SCORE_NOTES = (
    "DSC and NSD in per cent; distances, volumes and lengths are medians over cases. SD: of the sample.",
    "What was not handed in counts as DSC 0 and NSD 0. Two empty contours agree fully (100 and 100). Distances leave "
    "out cases in which a contour is empty. Added path: length of the reference's outline farther than the tolerance "
    "from the prediction's, slice by slice (after Vaassen et al. 2020).",
    "Published scores are from the challenge's 60 test cases and compare with yours only on those. The challenge's "
    "figures list the organs in another order than their numbers; here the numbers stand beside the structures of "
    "their channels. Its test applied the 2 mm and 3 mm tolerances to MiddleEar_R and Mandible_L by mistake: compare "
    "NSD with it under the tolerances 2023-test-as-run only.",
    "Two experts: median Dice between two raters on 35 other scans (google-deepmind/tcia-ct-scan-dataset), whose "
    "definitions of the organs differ from SegRap's; the mandible is one organ there, and the eye the orbit. In "
    "brackets: your median DSC less theirs.",
)


def summary_of(comparison: Comparison, pictures: tuple[Picture, ...] = ()) -> Summary:
    """Put the results of a comparison into words and tables; the pictures follow them."""
    n_cases = len(comparison.cases)
    opening = [
        f"{n_cases} case{'s' * (n_cases != 1)}, {len(comparison.structures)} structures. "
        f"NSD tolerances: {comparison.tolerances}."
    ]
    for group, results in groups(comparison).items():
        score = np.mean([np.mean(measured(results, name)) for name in CHALLENGE_SCORES])
        opening.append(
            f"{group}: mean of DSC and NSD {100 * score:.2f} %, the score that teams of the challenge quote."
        )
    lists, notes = missing_and_remarks(comparison), (*SCORE_NOTES, *PUBLISHED_NOTES)
    tables = (scores_table(comparison), *published_tables({"this method": comparison}))
    return Summary("Agreement of contours", tuple(opening), lists, tables, notes, pictures)


def missing_and_remarks(comparison: Comparison) -> tuple[str, ...]:
    """What could not be paired, and what else the reader should know, one sentence each."""
    missing = {
        "Cases without a prediction, scored 0": comparison.missing_cases,
        "Structures without a prediction, scored 0": comparison.missing_structures,
        "Predictions without a reference case, not scored": comparison.extra_cases,
        "Predicted structures without any reference, not scored": comparison.extra_structures,
    }
    return (*(f"{title}: {', '.join(names)}." for title, names in missing.items() if names), *comparison.remarks)


def scores_table(comparison: Comparison) -> Table:
    """Scores per structure and per group, beside those of the challenge's best team and of two experts."""
    return Table("Per structure", _HEADER, tuple(_rows(comparison)))


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for name in comparison.structures:
        published, results = STRUCTURES[name], comparison.of(name)
        best = f"{published.best_dsc:.2f} ± {published.best_sd:.2f}"
        yield (name, *_scores(results, _beside_experts(results, published.experts_dsc), best))
    for group, results in groups(comparison).items():
        dsc, sd = (organ_teams()[0].dsc, organ_teams()[0].sd) if group == "Organs" else TARGET_TEAMS[0].both
        yield (group, *_scores(results, "", f"{dsc:.2f} ± {sd:.2f}"))


def _beside_experts(results: Sequence[Result], experts_dsc: float | None) -> str:
    """The median Dice between two experts, and by how much the median of the results is above or below it."""
    if experts_dsc is None:
        return ""
    return f"{experts_dsc:.1f} ({100 * statistics(measured(results, 'dsc')).median - experts_dsc:+.1f})"


def _scores(results: Sequence[Result], *published: str) -> list[str]:
    """The cells of a row; the published ones stand behind those of DSC."""
    missing = count_missing(results)
    cells = [f"{len(results)} ({missing} missing)" if missing else str(len(results))]
    for measure in CHALLENGE_SCORES:
        found = statistics(measured(results, measure))
        sd = "" if math.isnan(found.sd) else f" ± {100 * found.sd:.2f}"
        quartiles = f"({100 * found.lower_quartile:.2f}–{100 * found.upper_quartile:.2f})"
        cells += [f"{100 * found.mean:.2f}{sd}", f"{100 * found.median:.2f} {quartiles}"]
        cells += published if measure == "dsc" else ()
    for measure in MEASURES[len(CHALLENGE_SCORES) :]:
        median = statistics(measured(results, measure)).median
        cells.append("" if math.isnan(median) else f"{round(median, 2) + 0.0:.2f}")
    return cells
