"""The report that a doctor looks at first: who made these contours, what to look at, and pictures of every structure.

One HTML file without links to anything outside it and without scripts: it opens offline, on a phone, and on paper.
It holds no name of a patient, only what the contours and the scans' grids say.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as Pillow

from segrap import anatomy
from segrap.contours import Contours, StructureFacts
from segrap.errors import InputError
from segrap.evaluation.cuts import LOWER, MIDLINE, UPPER, cut_through
from segrap.evaluation.views import AXIAL, CORONAL, PLANES, SAGITTAL, Views, window_for
from segrap.image import Image
from segrap.quality import SCAN_LENGTH_DEPENDENT
from segrap.quality.findings import Finding, words_for_cc
from segrap.writing import replacing

if TYPE_CHECKING:
    from segrap.ct.pair import CTPair

_VIEW_SIDE_PX = 280
_OVERVIEW_HEIGHT_PX = 640
_GAP_PX = 6
_JPEG_QUALITY = 82

_SEVERITY_WORDS = {"fault": "Fault", "unusual": "Check", "note": "Note"}
_USE_WORDS = {
    "demonstration": (
        "DEMONSTRATION: not for any patient",
        "Made by a demonstration model that knows made-up patients only. Never treat, plan or measure with it.",
    ),
    "research": ("Research use", "Not for the treatment of patients."),
    "clinical": ("Not reviewed", "Every contour has to be reviewed and approved by a responsible person."),
}


def write_report(contours: Contours, pair: CTPair | Image, findings: Iterable[Finding], path: str | Path) -> None:
    """Write the report of `contours` to `path` (.html).

    pair: the CT pair that was contoured, or one CT, on the grid of the contours. findings: of `quality.check`.
    Raises InputError when CT and contours are not on one grid; OutputError when the file cannot be written.
    """
    import jinja2

    image, contrast = (pair, None) if isinstance(pair, Image) else (pair.non_contrast, pair.contrast)
    findings = tuple(findings)
    views = Views(image, contours, contrast)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    use_title, use_sentence = _USE_WORDS[contours.provenance.intended_use]
    html = environment.get_template("report.html").render(
        title=contours.title,
        provenance=contours.provenance,
        made=contours.provenance.created.replace("T", " ").replace("+00:00", " UTC"),
        use_title=use_title,
        use_sentence=use_sentence,
        inputs=_inputs(contours, pair),
        remarks=contours.provenance.remarks,
        findings=[
            (finding, _SEVERITY_WORDS[finding.severity], finding.structure in views.places) for finding in findings
        ],
        overview=_overview_columns(_overview(views)),
        rows=[_row(name, facts, findings) for name, facts in contours.structures.items()],
        with_confidence=any(facts.confidence is not None for facts in contours.structures.values()),
        with_disagreement=any(facts.fold_disagreement is not None for facts in contours.structures.values()),
        with_model=any(facts.model for facts in contours.structures.values()),
        not_contoured=[name for name in anatomy.NAMES if name not in contours.structures],
        sections=[_section(views, name, findings) for name in views.places],
    )
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def overview_picture(image: Image, contours: Contours) -> Pillow.Image:
    """One picture of all contours: axial at the eyes and at the parotids, coronal, and mid-sagittal.

    Raises InputError when CT and contours are not on one grid, or every structure is empty.
    """
    panels = [picture for _, picture in _overview(Views(image, contours))]
    if not panels:
        raise InputError("Every structure of these contours is empty; there is nothing to show.")
    upper, lower, coronal, sagittal = panels
    axial_width = max(upper.width, lower.width) + _GAP_PX
    size = (
        axial_width + coronal.width + _GAP_PX + sagittal.width,
        max(upper.height + _GAP_PX + lower.height, coronal.height, sagittal.height),
    )
    whole = Pillow.new("RGB", size, (0, 0, 0))
    whole.paste(upper, (0, 0))
    whole.paste(lower, (0, upper.height + _GAP_PX))
    whole.paste(coronal, (axial_width, 0))
    whole.paste(sagittal, (axial_width + coronal.width + _GAP_PX, 0))
    return whole


def _overview(views: Views) -> list[tuple[str, Pillow.Image]]:
    """What each panel shows, and the panel; none when every structure is empty."""
    if not views.places:
        return []
    half_px = (_OVERVIEW_HEIGHT_PX - _GAP_PX) // 2
    wanted = (
        (AXIAL, UPPER, half_px),
        (AXIAL, LOWER, half_px),
        (CORONAL, LOWER, _OVERVIEW_HEIGHT_PX),
        (SAGITTAL, MIDLINE, _OVERVIEW_HEIGHT_PX),
    )
    cuts = [(cut_through(views, plane, levels), height_px) for plane, levels, height_px in wanted]
    return [(cut.words, cut.draw(views, cut.of_height(height_px))) for cut, height_px in cuts]


def _overview_columns(panels: list[tuple[str, Pillow.Image]]) -> dict[str, Any]:
    """The panels as the page lays them out: both axial ones in a column, then the other two, all of one height."""
    columns = [panels[:2], *([panel] for panel in panels[2:])]
    return {
        "widths": " ".join(f"{column[0][1].width}fr" for column in columns if column),
        "columns": [[(words, _data_uri(picture)) for words, picture in column] for column in columns if column],
    }


def _section(views: Views, name: str, findings: tuple[Finding, ...]) -> dict[str, Any]:
    window = window_for(name)
    return {
        "name": name,
        "colour": anatomy.structure(name).colour,
        "volume": words_for_cc(views.contours.structures[name].volume_cc),
        "range": _published_range(name),
        "scan": "contrast CT" if views.shown_on_contrast(name) else "CT",
        "window": f"W {window.width:g} L {window.level:g}",
        "findings": [finding for finding in findings if name in (finding.structure, finding.other)],
        "views": [(plane.name, _data_uri(views.of_structure(name, plane, _VIEW_SIDE_PX))) for plane in PLANES],
    }


def _row(name: str, facts: StructureFacts, findings: tuple[Finding, ...]) -> dict[str, Any]:
    structure = anatomy.structure(name)
    flags = [finding for finding in findings if name in (finding.structure, finding.other)]
    return {
        "name": name,
        "tg263_name": structure.tg263_name,
        "description": structure.description,
        "colour": structure.colour,
        "empty": facts.voxels == 0,
        "volume": words_for_cc(facts.volume_cc),
        "range": _published_range(name),
        "depends_on_scan": name in SCAN_LENGTH_DEPENDENT,
        "cut_at": ", ".join(facts.cut_at),
        "confidence": None if facts.confidence is None else f"{100 * facts.confidence:.0f} %",
        "disagreement": None if facts.fold_disagreement is None else f"{100 * facts.fold_disagreement:.1f} %",
        "origin": facts.origin,
        "model": facts.model,
        "flags": [(kind, severity) for kind, severity in dict.fromkeys((f.kind, f.severity) for f in flags)],
    }


def _published_range(name: str) -> str:
    low, high = anatomy.structure(name).volume_range_cc
    return f"{low:g} to {high:g}"


def _inputs(contours: Contours, pair: CTPair | Image) -> list[tuple[str, str]]:
    z, y, x = contours.shape
    x_mm, y_mm, z_mm = contours.geometry.spacing_mm
    lines = [("Grid", f"{x} × {y} × {z} voxels of {x_mm:.3g} × {y_mm:.3g} × {z_mm:.3g} mm")]
    if not isinstance(pair, Image):
        lines.append(("Scans", "One CT" if pair.contrast is None else "Non-contrast and contrast CT"))
        if pair.alignment_mm is not None:
            lines.append(("Alignment of the two", f"{pair.alignment_mm:.1f} mm apart on average, at skin and bone"))
    for uid in contours.provenance.input_series_uids:
        lines.append(("DICOM series", uid if len(uid) <= 24 else f"{uid[:12]}…{uid[-8:]}"))
    return lines


def _data_uri(picture: Pillow.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
