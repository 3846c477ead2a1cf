"""One's own methods beside all teams of the challenge, in its two result tables, of organs and of tumour volumes; and
beside the few that published NSD.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from segrap import anatomy
from segrap.evaluation.comparison import Comparison
from segrap.evaluation.metrics import tolerances_mm
from segrap.evaluation.pages import Table
from segrap.evaluation.published import ORGANS_NSD, TARGET_TEAMS, TARGETS_NSD, organ_teams, organs_nsd
from segrap.evaluation.score_tables import groups, measured, statistics

PUBLISHED_NOTES = (
    "The challenge's teams stand in order of its final ranking, which is not by mean DSC alone. Their numbers per "
    "organ were read from the figure of the data set's page, whose row names are in another order than its numbers: "
    "they stand here beside the organs that they belong to by every sign there is, but nobody has confirmed it, and "
    "the last eight organs are the least certain. The baseline's are as printed; they average 84.90 where 84.65 is "
    "printed, and its 94.63 for IAC_L is surely a misprint.",
    "NSD was published by three teams, from the same test cases and under the tolerances 2023-test-as-run; where yours "
    "differ, theirs is left out. NSD of the challenge's validation board does not compare: GTVp had another tolerance.",
)


def published_tables(comparisons: Mapping[str, Comparison]) -> tuple[Table, ...]:
    """The tables of organs and of tumour volumes, DSC and NSD, as far as there are scores of them.

    comparisons: by name of the method, with the same reference.
    """
    found = groups(next(iter(comparisons.values())))
    tables = (("Organs", _organs), ("Organs", _organs_nsd), ("Targets", _targets), ("Targets", _targets_nsd))
    return tuple(table(comparisons) for group, table in tables if group in found)


def _organs(comparisons: Mapping[str, Comparison]) -> Table:
    teams = organ_teams()
    rows = [
        (name, *_own(comparisons, name, "dsc"), *(f"{team.organs[name]:.2f}" for team in teams))
        for name in _scored_organs(comparisons)
    ]
    theirs = (f"{team.dsc:.2f} ± {team.sd:.2f}" for team in teams)
    rows.append(("all organs", *_own(comparisons, "Organs", "dsc"), *theirs))
    header = ("organ", *comparisons, *(team.team for team in teams))
    return Table("DSC of organs beside the challenge's teams (60 test cases, all 45 organs)", header, tuple(rows))


def _organs_nsd(comparisons: Mapping[str, Comparison]) -> Table:
    mine = tolerances_mm(next(iter(comparisons.values())).tolerances)
    theirs = tolerances_mm("2023-test-as-run")
    rows = []
    for name in _scored_organs(comparisons):
        published = f"{organs_nsd()[name]:.2f}" if mine[name] == theirs[name] else ""
        rows.append((name, *_own(comparisons, name, "nsd"), published, *[""] * (len(ORGANS_NSD) - 1)))
    printed = [f"{mean:g} ± {sd:g}" if mine == theirs else "" for mean, sd in ORGANS_NSD.values()]
    rows.append(("all organs", *_own(comparisons, "Organs", "nsd"), *printed))
    header = ("organ", *comparisons, *ORGANS_NSD)
    caption = "NSD of organs beside the teams that published theirs (60 test cases, all 45 organs)"
    return Table(caption, header, tuple(rows))


def _targets(comparisons: Mapping[str, Comparison]) -> Table:
    teams = (
        (team.team, *(f"{mean:.2f} ± {sd:.2f}" for mean, sd in (team.gtvp, team.gtvnd, team.both)))
        for team in TARGET_TEAMS
    )
    rows = (*_own_targets(comparisons, "dsc"), *teams)
    return Table("DSC of tumour volumes beside the challenge's teams (60 test cases)", _TARGETS, rows)


def _targets_nsd(comparisons: Mapping[str, Comparison]) -> Table:
    teams = (
        (team, *("" if value is None else f"{value:.2f}" for value in values)) for team, values in TARGETS_NSD.items()
    )
    rows = (*_own_targets(comparisons, "nsd"), *teams)
    return Table("NSD of tumour volumes beside the teams that published theirs (60 test cases)", _TARGETS, rows)


_TARGETS = ("method", "GTVp", "GTVnd", "mean")


def _scored_organs(comparisons: Mapping[str, Comparison]) -> list[str]:
    scored = next(iter(comparisons.values())).structures
    return [organ.name for organ in anatomy.ORGANS if organ.name in scored]


def _own_targets(comparisons: Mapping[str, Comparison], score: str) -> list[tuple[str, ...]]:
    columns = [_own(comparisons, name, score) for name in ("GTVp", "GTVnd", "Targets")]
    return [(method, *cells) for method, *cells in zip(comparisons, *columns, strict=True)]


def _own(comparisons: Mapping[str, Comparison], name: str, score: str) -> list[str]:
    """Per method the mean and standard deviation of a structure or group in per cent, as far as there are scores."""
    cells = []
    for one in comparisons.values():
        found = statistics(measured(groups(one).get(name) or one.of(name), score))
        sd = "" if math.isnan(found.sd) else f" ± {100 * found.sd:.2f}"
        cells.append(f"{100 * found.mean:.2f}{sd}" if found.n else "")
    return cells
