"""`segrap evaluate`: compare, and write the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segrap.errors import UsageError
from segrap.evaluation.box_plots import write_box_plots
from segrap.evaluation.commissioning import write_commissioning
from segrap.evaluation.comparison import Comparison, compare
from segrap.evaluation.metrics import ToleranceProfile
from segrap.evaluation.ranking import rank, write_ranking_csv, write_ranking_markdown
from segrap.evaluation.score_tables import write_scores_csv, write_summary_csv
from segrap.evaluation.summary import summary_of, write_summary
from segrap.progress import Progress, ProgressCallback
from segrap.writing import replacing_folder


def evaluate(
    predictions: Sequence[str | Path],
    reference: str | Path,
    output: str | Path,
    tolerances: ToleranceProfile = "published",
    commission: bool = False,
    progress: ProgressCallback = lambda _: None,
) -> tuple[dict[str, Comparison], list[Path]]:
    """Compare the contours of one or several methods with reference contours and write the tables into `output`.

    One method: scores.csv, summary.csv, for people summary.md, .tex and .html, and box plots in scores.svg. Several:
    the tables in a folder per method; ranking.csv and ranking.md; scores.svg with all of them. With `commission`, of
    one method: commissioning.html and commissioning.csv instead. Methods are called as the last part of their path.
    Returns the comparisons and the files written.

    Raises InputError (see `comparison.compare`), UsageError (two methods of one name, several to be commissioned),
    OutputError; then nothing of it is in `output`.
    """
    if commission and len(predictions) > 1:
        raise UsageError("A commissioning report is about one method; give one prediction.")
    paths = {Path(path).resolve().name: Path(path) for path in predictions}
    if len(paths) < len(predictions):
        raise UsageError("Two predictions have one name; a method is called as its folder. Rename one of them.")
    comparisons = {}
    for number, (method, path) in enumerate(paths.items()):
        part = _part_of(progress, number, len(paths), method)
        comparisons[method] = compare(path, reference, tolerances, part)
    ranks = rank(comparisons) if len(comparisons) > 1 else ()
    with replacing_folder(output) as folder:
        for method, comparison in comparisons.items():
            place = folder / method if ranks else folder
            place.mkdir(exist_ok=True)
            if commission:
                write_commissioning(comparison, place)
            else:
                write_scores_csv(comparison, place / "scores.csv")
                write_summary_csv(comparison, place / "summary.csv")
                write_summary(summary_of(comparison), place)
        if not commission:
            write_box_plots(comparisons, folder / "scores.svg")
        if ranks:
            write_ranking_csv(ranks, folder / "ranking.csv")
            write_ranking_markdown(comparisons, ranks, folder / "ranking.md")
        written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return comparisons, [Path(output) / path for path in written]


def _part_of(progress: ProgressCallback, number: int, methods: int, method: str) -> ProgressCallback:
    def show(one: Progress) -> None:
        stage = one.stage if methods == 1 else f"{one.stage} {method}"
        progress(Progress(stage, (number + one.fraction) / methods, one.message))

    return show
