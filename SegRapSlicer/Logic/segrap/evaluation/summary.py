"""The summary of a comparison for people, beside what others reached: Markdown, LaTeX and HTML in the same words."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segrap.evaluation.comparison import Comparison, Result
from segrap.evaluation.published import STRUCTURES, TEAMS
from segrap.evaluation.score_tables import (
    CHALLENGE_SCORES,
    MEASURES,
    count_missing,
    groups,
    measured,
    statistics,
)
from segrap.writing import replacing

_HEADER = (
    "structure",
    "n",
    "DSC mean ± SD",
    "DSC median (quartiles)",
    "NSD mean ± SD",
    "NSD median (quartiles)",
    "HD95 mm",
    "mean distance mm",
    "volume difference cc",
    "volume difference %",
    "added path mm",
    "best team DSC",
    "two experts DSC",
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
    "definitions of the organs differ from SegRap's; the mandible is one organ there, and the eye the orbit.",
)


class Table(NamedTuple):
    """A table: what it shows, the names of its columns, its rows. The first columns hold words, the others numbers."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    word_columns: int = 1


class Summary(NamedTuple):
    """A summary in order of reading. lists: what is missing and remarks, one sentence each."""

    title: str
    opening: tuple[str, ...]
    lists: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def summary_of(comparison: Comparison) -> Summary:
    """Put the results of a comparison into words and tables."""
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
    tables = (
        scores_table(comparison),
        Table(
            "The challenge's test set",
            ("team", "group", "DSC mean ± SD"),
            tuple((team.team, team.group, f"{team.dsc:.2f} ± {team.sd:.2f}") for team in TEAMS),
            word_columns=2,
        ),
    )
    lists = missing_and_remarks(comparison)
    return Summary("Agreement of contours", tuple(opening), lists, tables, SCORE_NOTES)


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
        published = STRUCTURES[name]
        experts = "" if published.experts_dsc is None else f"{published.experts_dsc:.1f}"
        yield (*_scores(name, comparison.of(name)), f"{published.best_dsc:.2f} ± {published.best_sd:.2f}", experts)
    for group, results in groups(comparison).items():
        first = next(team for team in TEAMS if team.group == group)
        yield (*_scores(group, results), f"{first.dsc:.2f} ± {first.sd:.2f}", "")


def _scores(title: str, results: Sequence[Result]) -> list[str]:
    missing = count_missing(results)
    cells = [title, f"{len(results)} ({missing} missing)" if missing else str(len(results))]
    for measure in CHALLENGE_SCORES:
        found = statistics(measured(results, measure))
        sd = "" if math.isnan(found.sd) else f" ± {100 * found.sd:.2f}"
        quartiles = f"({100 * found.lower_quartile:.2f}–{100 * found.upper_quartile:.2f})"
        cells += [f"{100 * found.mean:.2f}{sd}", f"{100 * found.median:.2f} {quartiles}"]
    for measure in MEASURES[len(CHALLENGE_SCORES) :]:
        median = statistics(measured(results, measure)).median
        cells.append("" if math.isnan(median) else f"{round(median, 2) + 0.0:.2f}")
    return cells


def write_summary(summary: Summary, folder: Path) -> None:
    """Write summary.md, summary.tex and summary.html into `folder`. Raises OutputError."""
    forms: dict[str, Callable[[Summary], Iterable[str]]] = {"md": _markdown, "tex": _latex, "html": page}
    for ending, lines in forms.items():
        with replacing(folder / f"summary.{ending}") as temporary:
            temporary.write_text("\n".join(lines(summary)) + "\n", encoding="utf-8")


def _markdown(summary: Summary) -> Iterator[str]:
    yield f"# {summary.title}"
    for paragraph in summary.opening:
        yield from ("", paragraph)
    if summary.lists:
        yield from ("", *(f"- {item}" for item in summary.lists))
    for table in summary.tables:
        yield from ("", f"## {table.caption}", "", f"| {' | '.join(table.header)} |")
        yield "|" + "---|" * table.word_columns + "---:|" * (len(table.header) - table.word_columns)
        yield from (f"| {' | '.join(row)} |" for row in table.rows)
    for note in summary.notes:
        yield from ("", note)


_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex(summary: Summary) -> Iterator[str]:
    """Paragraphs and tables to be taken into a document that uses the package booktabs."""
    yield r"% \usepackage{booktabs}"
    for text in (*summary.opening, *summary.lists):
        yield from (_tex(text), "")
    for table in summary.tables:
        yield from (r"\begin{table}", rf"\caption{{{_tex(table.caption)}}}")
        columns = "l" * table.word_columns + "r" * (len(table.header) - table.word_columns)
        yield from (rf"\begin{{tabular}}{{{columns}}}", r"\toprule")
        yield " & ".join(map(_tex, table.header)) + r" \\"
        yield r"\midrule"
        yield from (" & ".join(map(_tex, row)) + r" \\" for row in table.rows)
        yield from (r"\bottomrule", r"\end{tabular}", r"\end{table}", "")
    for note in summary.notes:
        yield from (_tex(note), "")


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 20px; color: #1b1f24; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
caption { text-align: left; font-weight: 600; margin: 24px 0 8px; }
th, td { padding: 4px 8px; border-bottom: 1px solid #d5dae0; text-align: right; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; }
th { background: #f4f6f8; }
.words { text-align: left; }
"""


def page(summary: Summary) -> Iterator[str]:
    """The lines of one HTML page without links to anything outside it."""
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f"<title>{html.escape(summary.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>{html.escape(summary.title)}</h1>"
    yield from (f"<p>{html.escape(paragraph)}</p>" for paragraph in summary.opening)
    if summary.lists:
        yield from ("<ul>", *(f"<li>{html.escape(item)}</li>" for item in summary.lists), "</ul>")
    for table in summary.tables:
        yield f'<div class="scroll"><table><caption>{html.escape(table.caption)}</caption>'
        yield _html_row("th", table.header, table.word_columns)
        yield from (_html_row("td", row, table.word_columns) for row in table.rows)
        yield "</table></div>"
    yield from (f"<p>{html.escape(note)}</p>" for note in summary.notes)
    yield "</body>\n</html>"


def _html_row(tag: str, cells: Iterable[str], word_columns: int) -> str:
    marked = ((' class="words"' if number < word_columns else "", cell) for number, cell in enumerate(cells))
    return "<tr>" + "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in marked) + "</tr>"
