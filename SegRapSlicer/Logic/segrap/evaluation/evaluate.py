"""`segrap evaluate`: compare, and write the tables and figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from segrap.errors import UsageError
from segrap.evaluation.box_plots import box_plots
from segrap.evaluation.cases import find_cases, stem_of
from segrap.evaluation.commissioning import write_commissioning
from segrap.evaluation.comparison import Comparison, compare
from segrap.evaluation.metrics import ToleranceProfile
from segrap.evaluation.pages import Picture, write_summary
from segrap.evaluation.patients import picture_of_patients
from segrap.evaluation.ranking import rank, summary_of_ranking, write_ranking_csv
from segrap.evaluation.scans import find_scans
from segrap.evaluation.score_tables import write_scores_csv, write_summary_csv
from segrap.evaluation.summary import summary_of
from segrap.progress import Progress, ProgressCallback
from segrap.writing import replacing, replacing_folder

_SCORING = 0.8  # of the time
_JPEG_QUALITY = 85


def evaluate(
    predictions: Sequence[str | Path],
    reference: str | Path,
    output: str | Path,
    tolerances: ToleranceProfile = "published",
    commission: bool = False,
    ct: str | Path | None = None,
    progress: ProgressCallback = lambda _: None,
    names: Mapping[str, str] | None = None,
) -> tuple[dict[str, Comparison], list[Path]]:
    """Compare the contours of one or several methods with reference contours and write the tables into `output`.

    One method: scores.csv, summary.csv; for people summary.md, .tex and .html with the figures: box plots (scores.svg)
    and the patients at the quartiles (patients.png; on the CTs at `ct`, see `scans.find_scans`, else contours alone).
    Several: the tables in a folder per method; ranking.csv, the summary and the figures of all of them. With
    `commission`, of one method: commissioning.html and commissioning.csv instead, which have no pictures; `ct` then
    only serves DICOM contours that lie apart from their CT. Methods are called as the last part of their path, without
    the ending of a file, or, where two would be alike, its last parts. names: what a site calls its structures in
    DICOM, see `segrap.naming`. Returns the comparisons and the files written.

    Raises InputError (see `comparison.compare`), UsageError (one method twice, several to be commissioned, or tables
    that would lie among the predictions), OutputError; then nothing of it is in `output`.
    """
    if commission and len(predictions) > 1:
        raise UsageError("A commissioning report is about one method. Give one prediction.")
    paths = dict(zip(_methods(predictions), map(Path, predictions), strict=True))
    if len(paths) > 1:
        _refuse_inputs(Path(output), paths)
    scans = find_scans(ct, find_cases(reference).cases) if ct else None
    comparisons = {}
    for number, (method, path) in enumerate(paths.items()):
        part = _part_of(progress, number, len(paths), method)
        comparisons[method] = compare(path, reference, tolerances, part, names, scans)
    ranks = rank(comparisons) if len(comparisons) > 1 else ()
    with replacing_folder(output, instead_of=() if commission else ["ranking.csv"]) as folder:
        pictures = () if commission else _write_pictures(comparisons, scans, folder, progress)
        for method, comparison in comparisons.items():
            place = folder / method if ranks else folder
            place.mkdir(exist_ok=True)
            if commission:
                write_commissioning(comparison, place)
            else:
                write_scores_csv(comparison, place / "scores.csv")
                write_summary_csv(comparison, place / "summary.csv")
                write_summary(summary_of(comparison, () if ranks else pictures), place)
        if ranks:
            write_ranking_csv(ranks, folder / "ranking.csv")
            write_summary(summary_of_ranking(comparisons, ranks, pictures), folder)
        written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return comparisons, [Path(output) / path for path in written]


def _refuse_inputs(output: Path, paths: Mapping[str, Path]) -> None:
    """Raise UsageError when a method's tables would be written among the predictions themselves."""
    given = {path.resolve() for path in paths.values()}
    for method in paths:
        place = output / method
        if place.resolve() in given or place.is_file():
            raise UsageError(f"The tables of {method} would go to {place}, where contours are. Choose another folder.")


def _methods(predictions: Sequence[str | Path]) -> list[str]:
    """What the methods are called: the fewest last parts of their paths that tell them apart; an ending if it must."""
    paths = [Path(path).absolute() for path in predictions]
    short = [path.with_name(stem_of(path)) if path.is_file() else path for path in paths]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        for called in (short, paths):
            names = ["_".join(path.parts[-count:]) for path in called]
            if len(set(names)) == len(names):
                return names
    raise UsageError("One prediction was given twice.")


def _write_pictures(
    comparisons: Mapping[str, Comparison], scans: Mapping[str, Path] | None, folder: Path, progress: ProgressCallback
) -> tuple[Picture, ...]:
    def show(one: Progress) -> None:
        progress(Progress(one.stage, _SCORING + (1 - _SCORING) * one.fraction, one.message))

    boxes = box_plots(comparisons)
    with replacing(folder / "scores.svg") as temporary:
        temporary.write_text(boxes + "\n", encoding="utf-8")
    patients = picture_of_patients(comparisons, scans, show)
    with replacing(folder / "patients.png") as temporary:
        patients.save(temporary, "PNG", optimize=True)
    buffer = io.BytesIO()
    patients.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    on = "on the non-contrast CT" if scans else "contours alone, as no CTs were given"
    return (
        Picture(
            f"The patients at the lower quartile, median and upper quartile of mean DSC ({on})",
            "patients.png",
            f'<img src="{address}" alt="Reference and methods side by side">',
        ),
        Picture(
            "Scores over cases: quartiles, median, whiskers of 1.5 interquartile ranges; diamond: the challenge's best "
            "team's mean DSC",
            "scores.svg",
            boxes,
        ),
    )


def _part_of(progress: ProgressCallback, number: int, methods: int, method: str) -> ProgressCallback:
    def show(one: Progress) -> None:
        stage = one.stage if methods == 1 else f"{one.stage} {method}"
        progress(Progress(stage, _SCORING * (number + one.fraction) / methods, one.message))

    return show
