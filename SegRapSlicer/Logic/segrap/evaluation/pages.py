"""Words, tables and pictures as Markdown, LaTeX and HTML, in the same words. The HTML needs nothing outside it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from segrap.writing import replacing


class Table(NamedTuple):
    """A table: what it shows, the names of its columns, its rows. The first columns hold words, the others numbers."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    word_columns: int = 1


class Picture(NamedTuple):
    """A picture: what it shows, its file beside the page, and the element (img, svg) that a page of HTML holds."""

    caption: str
    file: str
    element: str


class Summary(NamedTuple):
    """A summary in order of reading. lists: what is missing and remarks, one sentence each.

    A part of a cell between ** is set in bold.
    """

    title: str
    opening: tuple[str, ...]
    lists: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()


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
    for picture in summary.pictures:
        yield from ("", f"![{picture.caption}]({picture.file})", "", picture.caption)
    for note in summary.notes:
        yield from ("", note)


_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


_MOST_COLUMNS = 6  # of a table that fits a page at its own size

_BOLD = re.compile(r"\*\*(.+?)\*\*")


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _tex_cell(text: str) -> str:
    return _BOLD.sub(r"\\textbf{\1}", _tex(text))


def _latex(summary: Summary) -> Iterator[str]:
    """Paragraphs, tables and figures to be taken into a document that uses the packages booktabs and graphicx; tables
    that are wider than a page are made smaller."""
    yield r"% \usepackage{booktabs,graphicx}"
    for text in (*summary.opening, *summary.lists):
        yield from (_tex(text), "")
    for table in summary.tables:
        yield from (r"\begin{table}", rf"\caption{{{_tex(table.caption)}}}")
        columns = "l" * table.word_columns + "r" * (len(table.header) - table.word_columns)
        wide = len(columns) > _MOST_COLUMNS
        if wide:
            yield r"\resizebox{\textwidth}{!}{%"
        yield from (rf"\begin{{tabular}}{{{columns}}}", r"\toprule")
        yield " & ".join(map(_tex, table.header)) + r" \\"
        yield r"\midrule"
        yield from (" & ".join(map(_tex_cell, row)) + r" \\" for row in table.rows)
        yield from (r"\bottomrule", r"\end{tabular}" + "}" * wide, r"\end{table}", "")
    for picture in summary.pictures:
        if picture.file.endswith(".png"):  # LaTeX takes no SVG
            within = r"width=\textwidth,height=0.85\textheight,keepaspectratio"
            yield from (r"\begin{figure}", rf"\includegraphics[{within}]{{{picture.file}}}")
            yield from (rf"\caption{{{_tex(picture.caption)}}}", r"\end{figure}", "")
    for note in summary.notes:
        yield from (_tex(note), "")


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 20px; color: #1b1f24; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
caption { text-align: left; font-weight: 600; margin: 24px 0 8px; }
th, td { padding: 4px 6px; border-bottom: 1px solid #d5dae0; text-align: right; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; }
th { background: #f4f6f8; }
.words { text-align: left; }
td.words { white-space: normal; }
figure { margin: 24px 0; overflow-x: auto; }
figcaption { font-weight: 600; margin-bottom: 8px; }
img, svg { max-width: 100%; height: auto; }
@page { size: A4 landscape; margin: 10mm; }
@media print {
  body { font-size: 9pt; margin: 0; }
  .scroll, figure { overflow: visible; }
  table { font-size: 6.5pt; }
  th, td { padding: 1px 3px; }
  tr { break-inside: avoid; }
}
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
    for picture in summary.pictures:
        yield f"<figure><figcaption>{html.escape(picture.caption)}</figcaption>"
        yield from (picture.element, "</figure>")
    yield from (f"<p>{html.escape(note)}</p>" for note in summary.notes)
    yield "</body>\n</html>"


def _html_row(tag: str, cells: Iterable[str], word_columns: int) -> str:
    marked = ((' class="words"' if number < word_columns else "", cell) for number, cell in enumerate(cells))
    return "<tr>" + "".join(f"<{tag}{mark}>{_html_cell(cell)}</{tag}>" for mark, cell in marked) + "</tr>"


def _html_cell(text: str) -> str:
    return _BOLD.sub(r"<b>\1</b>", html.escape(text))
