"""Box plots of DSC and NSD per structure, methods side by side, as one SVG picture without anything from outside it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence

from segrap.evaluation.comparison import Comparison
from segrap.evaluation.published import STRUCTURES
from segrap.evaluation.score_tables import CHALLENGE_SCORES, measured, statistics

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")

_LABEL_PX, _PANEL_PX, _GAP_PX = 130, 380, 40
_BOX_PX, _ROW_GAP_PX, _TOP_PX = 9, 7, 40
_WHISKER = 1.5


def box_plots(comparisons: Mapping[str, Comparison]) -> str:
    """Every method's scores over cases as an SVG picture: the box from quartile to quartile, the median in it, whiskers
    to the last score within 1.5 interquartile ranges, dots beyond; a diamond is the mean DSC of the challenge's best
    team.

    comparisons: by name of the method, with the same reference.
    """
    return "\n".join(_picture(comparisons))


def _picture(comparisons: Mapping[str, Comparison]) -> Iterator[str]:
    structures = next(iter(comparisons.values())).structures
    row_px = len(comparisons) * _BOX_PX + _ROW_GAP_PX
    width = _LABEL_PX + len(CHALLENGE_SCORES) * (_PANEL_PX + _GAP_PX)
    places = _legend(comparisons, width)
    first = _TOP_PX + places[-1][1]
    bottom = first + len(structures) * row_px
    height = bottom + 24
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">'
    )
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    for number, (method, (left, top)) in enumerate(zip(comparisons, places, strict=True)):
        yield f'<rect x="{left}" y="{top}" width="10" height="10" fill="{_colour(number)}"/>'
        yield f'<text x="{left + 14}" y="{top + 9}">{html.escape(method)}</text>'
    for panel, score in enumerate(CHALLENGE_SCORES):
        left = _LABEL_PX + panel * (_PANEL_PX + _GAP_PX)
        yield f'<text x="{left}" y="{first - 10}" font-weight="bold">{score.upper()} %</text>'
        for percent in range(0, 101, 20):
            x = _x(left, percent / 100)
            yield f'<line x1="{x}" y1="{first}" x2="{x}" y2="{bottom}" stroke="#d5dae0"/>'
            yield f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{percent}</text>'
    for row, structure in enumerate(structures):
        top = first + row * row_px + _ROW_GAP_PX / 2
        middle = top + len(comparisons) * _BOX_PX / 2
        yield f'<text x="{_LABEL_PX - 8}" y="{middle + 4:g}" text-anchor="end">{structure}</text>'
        for panel, score in enumerate(CHALLENGE_SCORES):
            left = _LABEL_PX + panel * (_PANEL_PX + _GAP_PX)
            for number, comparison in enumerate(comparisons.values()):
                values = measured(comparison.of(structure), score)
                yield from _box(values, left, top + (number + 0.5) * _BOX_PX, _colour(number))
        x = _x(_LABEL_PX, STRUCTURES[structure].best_dsc / 100)
        yield f'<path d="M{x} {middle - 4:g}l3 4l-3 4l-3 -4z" fill="none" stroke="black"/>'
    yield "</svg>"


def _legend(names: Iterable[str], width: float) -> list[tuple[float, float]]:
    """Where every method's name begins (left, top), in as many lines as they take; a letter is taken for 6.5 pixels."""
    places, left, top = list[tuple[float, float]](), float(_LABEL_PX), 6.0
    for name in names:
        needed = 14 + 6.5 * len(name) + 20
        if left + needed > width and left > _LABEL_PX:
            left, top = float(_LABEL_PX), top + 16
        places.append((left, top))
        left += needed
    return places


def _box(values: Sequence[float], left: float, y: float, colour: str) -> Iterator[str]:
    found = statistics(values)
    reach = _WHISKER * (found.upper_quartile - found.lower_quartile)
    inside = [value for value in values if found.lower_quartile - reach <= value <= found.upper_quartile + reach]
    # With few values a quartile may lie beyond the last score inside.
    low, high = _x(left, min(*inside, found.lower_quartile)), _x(left, max(*inside, found.upper_quartile))
    start, end, median = (_x(left, value) for value in (found.lower_quartile, found.upper_quartile, found.median))
    half = _BOX_PX / 2 - 1
    yield f'<line x1="{low}" y1="{y:g}" x2="{high}" y2="{y:g}" stroke="{colour}"/>'
    yield (
        f'<rect x="{start}" y="{y - half:g}" width="{round(end - start, 2)}" height="{2 * half:g}" fill="{colour}" '
        f'fill-opacity="0.35" stroke="{colour}"/>'
    )
    yield f'<line x1="{median}" y1="{y - half:g}" x2="{median}" y2="{y + half:g}" stroke="{colour}" stroke-width="2"/>'
    for value in values:
        if value not in inside:
            yield f'<circle cx="{_x(left, value)}" cy="{y:g}" r="1.5" fill="{colour}"/>'


def _x(left: float, score: float) -> float:
    return round(left + _PANEL_PX * score, 2)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
