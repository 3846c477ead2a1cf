"""One's own methods beside all teams of the challenge, in its two result tables: of organs and of tumour volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from segrap import anatomy
from segrap.evaluation.comparison import Comparison, Result
from segrap.evaluation.pages import Table
from segrap.evaluation.published import TARGET_TEAMS, organ_teams
from segrap.evaluation.score_tables import groups, measured, statistics

PUBLISHED_NOTES = (
    "The challenge's teams stand in order of its final ranking, which is not by mean DSC alone. Their numbers per "
    "organ were read from the figure of the data set's page, whose row names are in another order than its numbers: "
    "they stand here beside the organs that they belong to by every sign there is, but nobody has confirmed it, and "
    "the last eight organs are the least certain. The baseline's are as printed; they average 84.90 where 84.65 is "
    "printed, and its 94.63 for IAC_L is surely a misprint.",
)


def published_tables(comparisons: Mapping[str, Comparison]) -> tuple[Table, ...]:
    """The table of organs and the table of tumour volumes, as far as there are scores of them.

    comparisons: by name of the method, with the same reference.
    """
    found = groups(next(iter(comparisons.values())))
    return tuple(table(comparisons) for group, table in (("Organs", _organs), ("Targets", _targets)) if group in found)


def _organs(comparisons: Mapping[str, Comparison]) -> Table:
    teams = organ_teams()
    scored = next(iter(comparisons.values())).structures
    rows = [
        (
            organ.name,
            *(_words(comparison.of(organ.name)) for comparison in comparisons.values()),
            *(f"{team.organs[organ.name]:.2f}" for team in teams),
        )
        for organ in anatomy.ORGANS
        if organ.name in scored
    ]
    own = (_words(groups(comparison)["Organs"]) for comparison in comparisons.values())
    rows.append(("all organs (teams: all 45)", *own, *(f"{team.dsc:.2f} ± {team.sd:.2f}" for team in teams)))
    header = ("organ", *comparisons, *(team.team for team in teams))
    return Table("DSC of organs beside the challenge's teams (60 test cases)", header, tuple(rows))


def _targets(comparisons: Mapping[str, Comparison]) -> Table:
    own = (
        (method, _words(one.of("GTVp")), _words(one.of("GTVnd")), _words(groups(one)["Targets"]))
        for method, one in comparisons.items()
    )
    teams = (
        (team.team, *(f"{mean:.2f} ± {sd:.2f}" for mean, sd in (team.gtvp, team.gtvnd, team.both)))
        for team in TARGET_TEAMS
    )
    header = ("method", "GTVp", "GTVnd", "mean")
    return Table("DSC of tumour volumes beside the challenge's teams (60 test cases)", header, (*own, *teams))


def _words(results: Sequence[Result]) -> str:
    """Mean and standard deviation of DSC in per cent, as far as there are scores."""
    found = statistics(measured(results, "dsc"))
    if not found.n:
        return ""
    return f"{100 * found.mean:.2f}" + ("" if math.isnan(found.sd) else f" ± {100 * found.sd:.2f}")
