"""A clinic's own proof before it uses a model: its cases, its contours, what stands out first, versions and hashes.

One HTML page and one CSV table. They hold no date and no path: the same contours give the same files to the last digit.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import segrap
from segrap.contours import Provenance
from segrap.errors import InputError
from segrap.evaluation.cases import Case
from segrap.evaluation.comparison import Comparison, Result, Source
from segrap.evaluation.pages import Summary, Table, page
from segrap.evaluation.published import STRUCTURES
from segrap.evaluation.score_tables import MEASURES, measured, number, statistics, write_csv
from segrap.evaluation.summary import SCORE_NOTES, missing_and_remarks, scores_table
from segrap.writing import replacing

# Tukey's fences; with fewer cases than this the quartiles mean too little.
_FENCE = 1.5
_FEWEST_CASES = 5

# How far below the best team's mean a score is worth a look.
_DEVIATIONS = 2.0

# A part of a contour that far from the other is worth a look whatever the overlap says: an island, or an end elsewhere.
_FAR_MM = 10.0


class Judged(NamedTuple):
    """A result, why it stands out (nothing: it does not), and by how much: larger is worse."""

    result: Result
    reasons: tuple[str, ...]
    severity: float


def judge(comparison: Comparison) -> tuple[Judged, ...]:
    """All results, those that stand out first, the worst of them at the top; the others in their order.

    A result stands out when one of the contours is missing or empty alone, when its DSC lies more than two standard
    deviations below the mean of the challenge's best team, when its HD95 is above 10 mm, or when its DSC or HD95 lies
    outside Tukey's fences (1.5 interquartile ranges beyond the quartiles) of at least five own cases.
    """
    judged = []
    for name in comparison.structures:
        results = comparison.of(name)
        rounded = measured(results, "dsc")
        dsc, hd95 = statistics(rounded), statistics(measured(results, "hd95_mm"))
        lowest_dsc = dsc.lower_quartile - _FENCE * (dsc.upper_quartile - dsc.lower_quartile)
        highest_hd95 = hd95.upper_quartile + _FENCE * (hd95.upper_quartile - hd95.lower_quartile)
        for result, own_dsc in zip(results, rounded, strict=True):
            reasons = list(_reasons(result))
            if result.scores.hd95_mm > _FAR_MM:
                reasons.append(f"HD95 above {_FAR_MM:g} mm: a part lies far off.")
            if dsc.n >= _FEWEST_CASES and own_dsc < lowest_dsc:
                reasons.append(f"DSC unlike your other cases (below {100 * lowest_dsc:.1f} %).")
            if hd95.n >= _FEWEST_CASES and result.scores.hd95_mm > highest_hd95:
                reasons.append(f"HD95 unlike your other cases (above {highest_hd95:.1f} mm).")
            judged.append(Judged(result, tuple(reasons), _deviations_below_best(result)))
    places = {id(result): place for place, result in enumerate(comparison.results)}
    return tuple(
        sorted(judged, key=lambda one: (not one.reasons, -one.severity if one.reasons else 0.0, places[id(one.result)]))
    )


def _reasons(result: Result) -> Iterator[str]:
    scores, published = result.scores, STRUCTURES[result.structure]
    if result.state != "scored":
        yield "The prediction was not handed in."
    elif scores.prediction_cc == 0 < scores.reference_cc:
        yield f"Not found at all ({scores.reference_cc:.2f} cc in the reference)."
    elif scores.reference_cc == 0 < scores.prediction_cc:
        yield f"Contoured ({scores.prediction_cc:.2f} cc) where the reference has none."
    elif _deviations_below_best(result) > _DEVIATIONS:
        limit = published.best_dsc - _DEVIATIONS * published.best_sd
        yield f"DSC below {limit:.1f} % (the best team's mean less 2 SD)."


def _deviations_below_best(result: Result) -> float:
    """By how many standard deviations of the best team a result lies below its mean; endless without a contour."""
    scores, published = result.scores, STRUCTURES[result.structure]
    alone = (scores.prediction_cc == 0) != (scores.reference_cc == 0)
    if result.state != "scored" or alone:
        return math.inf
    return (published.best_dsc - 100 * scores.dsc) / published.best_sd


def write_commissioning(comparison: Comparison, folder: Path) -> None:
    """Write commissioning.html and commissioning.csv into `folder`. Raises OutputError."""
    judged = judge(comparison)
    text = "\n".join(page(_report(comparison, judged))) + "\n"
    with replacing(folder / "commissioning.html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    published = ["best_team_dsc", "best_team_dsc_sd", "two_experts_dsc"]
    header = [
        "case",
        "structure",
        "stands_out",
        "nsd_tolerance_mm",
        "reference_cc",
        "prediction_cc",
        *MEASURES,
        *published,
    ]
    rows = (
        [
            one.result.case,
            one.result.structure,
            " ".join(one.reasons),
            f"{one.result.scores.tolerance_mm:g}",
            number(one.result.scores.reference_cc),
            number(one.result.scores.prediction_cc),
            *(number(measured([one.result], measure)[0]) for measure in MEASURES),
            *(number((math.nan if percent is None else percent) / 100) for percent in STRUCTURES[one.result.structure]),
        ]
        for one in judged
    )
    write_csv(folder / "commissioning.csv", header, rows)


def _report(comparison: Comparison, judged: Iterable[Judged]) -> Summary:
    outliers = [one for one in judged if one.reasons]
    cases = len(comparison.cases)
    opening = (
        f"{cases} case{'s' * (cases != 1)}, {len(comparison.results)} contours compared; {len(outliers)} stand out. "
        f"NSD tolerances: {comparison.tolerances}.",
        *_makers(comparison.sources),
    )
    header = ("case", "structure", "why", "DSC", "NSD", "HD95 mm")
    tables = (
        *([Table("Look at these first", header, tuple(map(_row, outliers)), 3)] if outliers else []),
        scores_table(comparison),
        Table("Files (SHA-256)", ("case", "prediction", "reference"), tuple(map(_hashes, comparison.sources)), 3),
        Table("Versions", ("software", "version"), tuple(_versions()), 2),
    )
    notes = (
        *SCORE_NOTES,
        "A folder of files is hashed as the list of their names and hashes, one per line, in order of name.",
    )
    return Summary("Commissioning report", opening, missing_and_remarks(comparison), tables, notes)


def _row(one: Judged) -> tuple[str, ...]:
    scores = one.result.scores
    hd95 = "" if math.isnan(scores.hd95_mm) else f"{scores.hd95_mm:.2f}"
    percents = (f"{100 * value:.2f}" for name in ("dsc", "nsd") for value in measured([one.result], name))
    return (one.result.case, one.result.structure, " ".join(one.reasons), *percents, hd95)


def _makers(sources: Iterable[Source]) -> Iterator[str]:
    """One sentence per model, or other origin, of the predictions."""
    cases: dict[Provenance, int] = {}
    for source in sources:
        if source.made_by:
            known = Provenance(
                model_name=source.made_by.model_name,
                model_version=source.made_by.model_version,
                model_hash=source.made_by.model_hash,
                intended_use=source.made_by.intended_use,
                software=source.made_by.software,
            )
            cases[known] = cases.get(known, 0) + 1
    for maker, count in cases.items():
        of_cases = f"{count} case{'s' * (count != 1)}"
        if maker.model_name:
            software = maker.software or "software that is not stated"
            yield (
                f"Made by the {maker.intended_use} model {maker.model_name} {maker.model_version} with {software}: "
                f"{of_cases}. SHA-256 of the model: {maker.model_digest}."
            )
        else:
            yield f"The files do not say which model made them: {of_cases}."


def _hashes(source: Source) -> tuple[str, str, str]:
    prediction = _hash(source.prediction) if source.prediction else "not handed in"
    return source.case, prediction, _hash(source.reference)


def _hash(case: Case) -> str:
    hashes = []
    for path in case.files:
        try:
            with path.open("rb") as file:
                hashes.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if len(hashes) == 1:
        return hashes[0][1]
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in hashes).encode()).hexdigest()


def _versions() -> Iterator[tuple[str, str]]:
    import scipy

    yield "segrap", segrap.__version__
    yield "Python", platform.python_version()
    yield "numpy", np.__version__
    yield "scipy", scipy.__version__
