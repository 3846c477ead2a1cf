"""Several methods on the same cases, ranked as the SegRap challenge ranked its teams.

For every structure and each of DSC and NSD the methods are ranked by their mean over cases; a method's score is the
mean of its ranks divided by the number of methods (the smaller, the better). Beside that stands a ranking with ties: a
method ranks behind another one only where the difference is significant. The challenge does not name its test; here it
is the two-sided Wilcoxon signed-rank test of the paired cases at 5 %. Organs and tumour volumes are ranked apart: they
were two tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segrap import anatomy
from segrap.errors import InputError
from segrap.evaluation.comparison import Comparison
from segrap.evaluation.pages import Picture, Summary, Table
from segrap.evaluation.published_tables import PUBLISHED_NOTES, published_tables
from segrap.evaluation.score_tables import CHALLENGE_SCORES, groups, measured, statistics, write_csv
from segrap.evaluation.summary import SCORE_NOTES, missing_and_remarks

_SIGNIFICANCE = 0.05
_FEWEST_CASES = 6  # of five pairs even the clearest difference has p = 2 / 2**5


class Rank(NamedTuple):
    """One method on one structure and score: mean over cases (0 to 1), rank from 1 (equal means share the mean of their
    ranks), and rank with ties (1 + the number of methods that are significantly better)."""

    method: str
    structure: str
    score: str
    mean: float
    rank: float
    tied_rank: int


class Standing(NamedTuple):
    """One method over all structures of a task and both scores; the score and its tied form lie between 1 / n and 1."""

    method: str
    mean_rank: float
    score: float
    tied_mean_rank: float
    tied_score: float


def rank(comparisons: Mapping[str, Comparison]) -> tuple[Rank, ...]:
    """Rank methods, given by name, that were compared with the same reference.

    Raises InputError when they were not scored on the same cases and structures.
    """
    scored = {name: [(one.case, one.structure) for one in found.results] for name, found in comparisons.items()}
    for (first, one), (second, other) in pairwise(scored.items()):
        if one != other:
            raise InputError(f"{first} and {second} were not scored on the same cases and structures.")
    ranks = []
    for structure in next(iter(comparisons.values())).structures:
        for score in CHALLENGE_SCORES:
            values = {name: measured(found.of(structure), score) for name, found in comparisons.items()}
            ranks += _ranked(structure, score, values)
    return tuple(ranks)


def _ranked(structure: str, score: str, values: Mapping[str, Sequence[float]]) -> list[Rank]:
    from scipy.stats import rankdata

    means = {name: float(np.mean(of_cases)) for name, of_cases in values.items()}
    ranks = rankdata([-mean for mean in means.values()])
    return [
        Rank(
            method=name,
            structure=structure,
            score=score,
            mean=means[name],
            rank=float(ranks[number]),
            tied_rank=1 + sum(means[other] > means[name] and _differ(values[other], values[name]) for other in values),
        )
        for number, name in enumerate(values)
    ]


def _differ(a: Sequence[float], b: Sequence[float]) -> bool:
    """True when the paired values differ significantly."""
    from scipy.stats import wilcoxon

    return bool(np.any(np.asarray(a) != np.asarray(b))) and float(wilcoxon(a, b).pvalue) < _SIGNIFICANCE


def tasks(ranks: Sequence[Rank]) -> dict[str, tuple[Rank, ...]]:
    """The ranks of organs (the challenge's task 1) and of tumour volumes (task 2), as far as there are any."""
    split = {
        "organs (task 1)": tuple(one for one in ranks if not anatomy.structure(one.structure).is_target),
        "tumour volumes (task 2)": tuple(one for one in ranks if anatomy.structure(one.structure).is_target),
    }
    return {task: found for task, found in split.items() if found}


def standings(ranks: Sequence[Rank]) -> tuple[Standing, ...]:
    """The methods over all structures of one task and both scores, best first."""
    methods = list(dict.fromkeys(one.method for one in ranks))
    found = []
    for method in methods:
        mean_rank = float(np.mean([one.rank for one in ranks if one.method == method]))
        tied = float(np.mean([one.tied_rank for one in ranks if one.method == method]))
        found.append(Standing(method, mean_rank, mean_rank / len(methods), tied, tied / len(methods)))
    return tuple(sorted(found, key=lambda standing: standing.mean_rank))


def write_ranking_csv(ranks: Sequence[Rank], path: str | Path) -> None:
    """Write one line per method, structure and score. Raises OutputError; nothing partial is left behind."""
    rows = [
        [one.method, one.structure, one.score, f"{one.mean:.4f}", f"{one.rank:g}", str(one.tied_rank)] for one in ranks
    ]
    write_csv(path, ["method", "structure", "score", "mean", "rank", "rank_with_ties"], rows)


def summary_of_ranking(
    comparisons: Mapping[str, Comparison], ranks: Sequence[Rank], pictures: tuple[Picture, ...] = ()
) -> Summary:
    """The standings, then tables like the challenge's: DSC and NSD with a row per structure and per group and a column
    per method, best first (in the first task that there is), mean and standard deviation over cases, the best mean in
    bold; then all beside its teams.
    """
    by_task = tasks(ranks)
    order = standings(next(iter(by_task.values())))
    best_first = {one.method: comparisons[one.method] for one in order}
    tables = (
        *(_standings_table(task, standings(of_task)) for task, of_task in by_task.items()),
        *(
            Table(f"{score.upper()}, per cent, mean ± SD over cases", ("structure", *best_first),
                  tuple(_rows(best_first, score)))
            for score in CHALLENGE_SCORES
        ),
        *published_tables(best_first),
    )  # fmt: skip
    missing = tuple(f"{method}: {item}" for method, one in comparisons.items() for item in missing_and_remarks(one))
    cases = len(next(iter(comparisons.values())).cases)
    too_few = f" With {cases} it finds none whatever the scores: it takes {_FEWEST_CASES} cases."
    notes = (
        "Score: mean rank over the structures of a task, DSC and NSD, divided by the number of methods. "
        f"With ties: significant differences only (Wilcoxon signed-rank test, {_SIGNIFICANCE:.0%})."
        + too_few
        * (cases < _FEWEST_CASES),
        *SCORE_NOTES,
        *PUBLISHED_NOTES,
    )
    tolerances = next(iter(comparisons.values())).tolerances
    opening = (f"{len(order)} methods, {cases} case{'s' * (cases != 1)}. NSD tolerances: {tolerances}.",)
    return Summary("Ranking", opening, missing, tables, notes, pictures)


def _standings_table(task: str, order: Sequence[Standing]) -> Table:
    rows = []
    for one in order:
        place = 1 + sum(other.mean_rank < one.mean_rank - 1e-9 for other in order)
        scores = (f"{one.mean_rank:.2f}", f"{one.score:.4f}", f"{one.tied_mean_rank:.2f}", f"{one.tied_score:.4f}")
        rows.append((str(place), one.method, *scores))
    header = ("place", "method", "mean rank", "score", "mean rank with ties", "score with ties")
    return Table(f"Standings: {task}", header, tuple(rows), 2)


def _rows(comparisons: Mapping[str, Comparison], score: str) -> Iterator[tuple[str, ...]]:
    """Structures, then groups (cases and structures pooled); the best mean in bold."""
    one = next(iter(comparisons.values()))
    for name in (*one.structures, *groups(one)):
        found = [statistics(measured(groups(each).get(name) or each.of(name), score)) for each in comparisons.values()]
        cells = []
        for values in found:
            sd = "" if math.isnan(values.sd) else f" ± {100 * values.sd:.2f}"
            bold = "**" * math.isclose(values.mean, max(other.mean for other in found))
            cells.append(f"{bold}{100 * values.mean:.2f}{bold}{sd}")
        yield (name, *cells)
