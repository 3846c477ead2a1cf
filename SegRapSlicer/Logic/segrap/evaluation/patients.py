"""Three patients in one picture, as papers show them: reference and methods side by side, from worse to better.

The patients stand at the quartiles of mean DSC. A patient's mean DSC is the mean over the structures of its reference
(per-case DSC, what was not handed in counts as 0), with several methods the mean of theirs. Patients in order of it,
from 0 to n - 1, equal ones by name: the lower-quartile patient is number floor((n - 1) / 4), the median one
floor((n - 1) / 2), the upper-quartile one ceil(3 (n - 1) / 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from segrap import anatomy
from segrap.contours import Contours
from segrap.errors import InputError
from segrap.evaluation.cases import read_case
from segrap.evaluation.comparison import Comparison, on_one_grid
from segrap.evaluation.cuts import LOWER, UPPER, cut_through
from segrap.evaluation.scans import read_scan
from segrap.evaluation.score_tables import measured
from segrap.evaluation.views import AXIAL, CORONAL, Views, font_of
from segrap.image import AxisOrder, Image
from segrap.progress import Progress, ProgressCallback

_TUMOUR = (("the primary tumour", ("GTVp",)),)
_NODES = (("the tumour's nodes", ("GTVnd",)),)
_PANELS = ((AXIAL, _TUMOUR + UPPER), (AXIAL, _NODES + LOWER), (CORONAL, _TUMOUR + LOWER))

_PANEL_PX = 270
_GAP_PX = 6
_LINE_PX = 22
_TEXT_PX = 15
_LEGEND_COLUMN_PX = 170
_NOTHING_HU = -1024


class Patient(NamedTuple):
    """A patient that stands for a quartile of all: "lower quartile", "median", "upper quartile"; "only patient"."""

    quartile: str
    case: str


def mean_dsc(comparison: Comparison, case: str) -> float:
    """The mean DSC (0 to 1) over the structures of one patient."""
    return float(np.mean(measured([one for one in comparison.results if one.case == case], "dsc")))


def quartile_patients(comparisons: Mapping[str, Comparison]) -> tuple[Patient, ...]:
    """The patients at the quartiles; see the module. One of one patient, two of two.

    comparisons: by name of the method, with the same reference.
    """
    cases = next(iter(comparisons.values())).cases
    means = {case: float(np.mean([mean_dsc(one, case) for one in comparisons.values()])) for case in cases}
    order = sorted(cases, key=lambda case: (round(means[case], 9), case))
    last = len(order) - 1
    if not last:
        return (Patient("only patient", order[0]),)
    places = {
        "lower quartile": math.floor(last / 4),
        "median": math.floor(last / 2),
        "upper quartile": math.ceil(3 * last / 4),
    }
    if last == 1:
        del places["median"]
    return tuple(Patient(quartile, order[place]) for quartile, place in places.items())


def picture_of_patients(
    comparisons: Mapping[str, Comparison],
    scans: Mapping[str, Path] | None = None,
    progress: ProgressCallback = lambda _: None,
) -> Pillow.Image:
    """Draw the quartiles' patients: a block of rows each, a column for the reference and for every method.

    comparisons: by name of the method, with the same reference. scans: the CT of every case; without it contours only.

    Raises InputError when a CT cannot be read, or lies on another grid than the contours.
    """
    blocks, shown = [], set[str]()
    patients = quartile_patients(comparisons)
    for number, patient in enumerate(patients):
        progress(Progress("Drawing", number / len(patients), patient.case))
        means = [mean_dsc(one, patient.case) for one in comparisons.values()]
        block, drawn = _block(patient, _columns(comparisons, patient.case, scans), means)
        blocks.append(block)
        shown |= drawn
    names = ("Reference", *comparisons)
    width = len(names) * (_PANEL_PX + _GAP_PX) + _GAP_PX
    legend = _legend([name for name in anatomy.NAMES if name in shown], width)
    parts = [_header(names, width), *blocks, legend]
    whole = Pillow.new("RGB", (width, sum(part.height for part in parts)), (255, 255, 255))
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _columns(
    comparisons: Mapping[str, Comparison], case: str, scans: Mapping[str, Path] | None
) -> Iterator[Views | None]:
    """The reference, then every method (None: it handed in nothing), on one grid and the same CT; read one by one."""
    sources = [next(one for one in found.sources if one.case == case) for found in comparisons.values()]
    known = sources[0].reference
    reference = read_case(known, tuple(folder for source in sources for folder in source.folders))
    drawn_on = reference.provenance.input_series_uids
    scan = read_scan(scans[case], reference.geometry, reference.shape, drawn_on) if scans else None
    if known.kind == "stack":  # it has no place of its own: that of a method, or of the CT
        placed = [one for one in sources if one.prediction and one.prediction.kind != "stack"][:1]
        geometries = [read_case(one.prediction, one.folders).geometry for one in placed if one.prediction]
        geometries += [scan.geometry] if scan else []
        reference = replace(reference, geometry=geometries[0]) if geometries else reference
    yield _on_scan(on_one_grid(reference, reference, known, known)[0], scan, case)
    for source in sources:
        if source.prediction is None:
            yield None
            continue
        found = read_case(source.prediction, source.folders)
        yield _on_scan(on_one_grid(found, reference, source.prediction, known)[0], scan, case)


def _on_scan(contours: Contours, scan: Image | None, case: str) -> Views:
    """Views of contours whose axes lie along the patient's, on the CT, or on nothing."""
    if scan is None:
        empty = np.broadcast_to(np.int16(_NOTHING_HU), contours.shape)
        return Views(Image(empty, contours.geometry), contours)
    try:
        return Views(AxisOrder.towards_lps(scan.geometry).turn(scan), contours)
    except InputError as error:
        raise InputError(f"Case {case}: {error} Give the CT that the reference was drawn on.") from error


def _block(patient: Patient, columns: Iterator[Views | None], means: Sequence[float]) -> tuple[Pillow.Image, set[str]]:
    """One patient: lines of words, then a row of panels per cut (those of the reference); and what it shows."""
    reference = next(columns)
    assert reference is not None
    cuts = [cut_through(reference, plane, levels) for plane, levels in _PANELS]
    frames = [cut.of_width(_PANEL_PX) for cut in cuts]
    column_px = _PANEL_PX + _GAP_PX
    size = (_GAP_PX + (1 + len(means)) * column_px, 2 * _LINE_PX + sum(one.height_px + _GAP_PX for one in frames))
    block = Pillow.new("RGB", size, (255, 255, 255))
    _write(block, f"{patient.quartile.capitalize()}: {patient.case}", 0, 0, size[0])
    shown = set()
    for column, views in enumerate(chain((reference,), columns)):
        if column:
            words = f"mean DSC {100 * means[column - 1]:.2f} %" if views else "not handed in"
            _write(block, words, column, _LINE_PX, _PANEL_PX)
        shown |= set(views.places) if views else set()
        top = 2 * _LINE_PX
        for cut, frame in zip(cuts, frames, strict=True):
            panel = cut.draw(views, frame) if views else Pillow.new("RGB", (_PANEL_PX, frame.height_px))
            if not column:  # below the letter of the side
                draw = ImageDraw.Draw(panel)
                draw.text((4, 20), cut.words, (255, 255, 255), font_of(12), "la", stroke_width=2, stroke_fill=(0, 0, 0))
            block.paste(panel, (_GAP_PX + column * column_px, top))
            top += frame.height_px + _GAP_PX
    return block, shown


def _header(names: Sequence[str], width: int) -> Pillow.Image:
    header = Pillow.new("RGB", (width, _LINE_PX + 4), (255, 255, 255))
    for column, name in enumerate(names):
        _write(header, name, column, 2, _PANEL_PX)
    return header


def _legend(names: Sequence[str], width: int) -> Pillow.Image:
    """The colour of every structure that is drawn."""
    per_line = max(width // _LEGEND_COLUMN_PX, 1)
    legend = Pillow.new("RGB", (width, _LINE_PX * math.ceil(len(names) / per_line) + _GAP_PX), (255, 255, 255))
    draw = ImageDraw.Draw(legend)
    for number, name in enumerate(names):
        left, top = _GAP_PX + number % per_line * _LEGEND_COLUMN_PX, number // per_line * _LINE_PX + 5
        draw.rectangle((left, top, left + 12, top + 12), anatomy.structure(name).colour)
        draw.text((left + 18, top + 6), name, (0, 0, 0), font_of(_TEXT_PX), "lm")
    return legend


def _write(picture: Pillow.Image, text: str, column: int, top: int, width: int) -> None:
    """A line of text at the left of a column, shortened to the width."""
    font = font_of(_TEXT_PX)
    shortened = text
    while font.getlength(shortened) > width and len(shortened) > 2:
        shortened = shortened[:-2] + "…"
    left = _GAP_PX + column * (_PANEL_PX + _GAP_PX)
    ImageDraw.Draw(picture).text((left, top + 3), shortened, (0, 0, 0), font, "la")
