"""Scores as tables of numbers: every result, and statistics per structure, as CSV and for JSON.

Numbers are rounded once, on writing, in a fixed form: the same contours give the same files to the last digit. DSC and
NSD are the exception, rounded to 4 decimals per case before any averaging, as the challenge does.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segrap import anatomy
from segrap.evaluation.comparison import Comparison, Result
from segrap.evaluation.metrics import challenge_rounding
from segrap.writing import replacing

MEASURES = (
    "dsc",
    "nsd",
    "hd95_mm",
    "mean_surface_distance_mm",
    "volume_difference_cc",
    "volume_difference_percent",
    "added_path_length_mm",
)
"""Columns of the tables, in order; the names are those of `metrics.Scores`."""

CHALLENGE_SCORES = ("dsc", "nsd")
"""The measures by which the challenge ranks."""

_GROUPS = {
    "Organs": tuple(organ.name for organ in anatomy.ORGANS),
    "Targets": tuple(target.name for target in anatomy.TARGETS),
}


class Statistics(NamedTuple):
    """Of the values that there are (NaN is none). sd: sample standard deviation, NaN for fewer than two values."""

    n: int
    mean: float
    sd: float
    median: float
    lower_quartile: float
    upper_quartile: float


def statistics(values: Iterable[float]) -> Statistics:
    """Mean, sd, median and quartiles (linear between values) of all values that are not NaN."""
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if not known.size:
        return Statistics(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    lower, median, upper = (float(value) for value in np.percentile(known, (25, 50, 75)))
    sd = float(known.std(ddof=1)) if known.size > 1 else math.nan
    return Statistics(int(known.size), float(known.mean()), sd, median, lower, upper)


def measured(results: Iterable[Result], measure: str) -> list[float]:
    """One measure of every result; DSC and NSD rounded as the challenge rounds them."""
    values = [float(getattr(result.scores, measure)) for result in results]
    return [challenge_rounding(value) for value in values] if measure in CHALLENGE_SCORES else values


def groups(comparison: Comparison) -> dict[str, tuple[Result, ...]]:
    """The results of all organs and of all targets, cases and structures pooled; groups without a result are left out.

    Pooled values are what the challenge's tables give as mean and standard deviation.
    """
    pooled = {
        group: tuple(result for result in comparison.results if result.structure in names)
        for group, names in _GROUPS.items()
    }
    return {group: results for group, results in pooled.items() if results}


def summary_facts(comparison: Comparison) -> dict[str, Any]:
    """The comparison in short, for JSON: what was paired; mean DSC and NSD per structure and per group."""
    means = {name: comparison.of(name) for name in comparison.structures} | groups(comparison)
    return {
        "tolerances": comparison.tolerances,
        "cases": list(comparison.cases),
        "missing_cases": list(comparison.missing_cases),
        "missing_structures": list(comparison.missing_structures),
        "extra_cases": list(comparison.extra_cases),
        "extra_structures": list(comparison.extra_structures),
        "means": {
            name: {score: round(statistics(measured(results, score)).mean, 4) for score in CHALLENGE_SCORES}
            for name, results in means.items()
        },
    }


def write_scores_csv(comparison: Comparison, path: str | Path) -> None:
    """Write one line per case and structure. Empty cells: nothing to measure, as one of the contours is empty.

    Raises OutputError; nothing partial is left behind.
    """
    header = ["case", "structure", "state", "nsd_tolerance_mm", "reference_cc", "prediction_cc", *MEASURES]
    rows = [
        [
            result.case,
            result.structure,
            result.state,
            f"{result.scores.tolerance_mm:g}",
            number(result.scores.reference_cc),
            number(result.scores.prediction_cc),
            *(number(measured([result], measure)[0]) for measure in MEASURES),
        ]
        for result in comparison.results
    ]
    write_csv(path, header, rows)


def write_summary_csv(comparison: Comparison, path: str | Path) -> None:
    """Write one line per structure and measure, then per group (all organs, all targets) and measure.

    n: values that there are; missing: structures or cases that were not handed in (they count as DSC 0 and NSD 0).
    Raises OutputError; nothing partial is left behind.
    """
    header = ["structure", "measure", "n", "missing", "mean", "sd", "median", "lower_quartile", "upper_quartile"]
    rows = []
    for name, results in {
        **{name: comparison.of(name) for name in comparison.structures},
        **groups(comparison),
    }.items():
        for measure in MEASURES:
            found = statistics(measured(results, measure))
            rows.append([name, measure, str(found.n), str(count_missing(results)), *map(number, found[1:])])
    write_csv(path, header, rows)


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of text. Raises OutputError; nothing partial is left behind."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)


def number(value: float) -> str:
    """A number in a table: 4 decimals, or nothing where there is none."""
    # + 0.0 makes a negative zero a plain one.
    return "" if math.isnan(value) else f"{round(value, 4) + 0.0:.4f}"


def count_missing(results: Iterable[Result]) -> int:
    """How many results stand for something that was not handed in."""
    return sum(result.state != "scored" for result in results)
