"""`segrap evaluate`: compare, and write the tables."""

from __future__ import annotations

from pathlib import Path

from segrap.evaluation.comparison import Comparison, compare
from segrap.evaluation.metrics import ToleranceProfile
from segrap.evaluation.score_tables import write_scores_csv, write_summary_csv, write_summary_markdown
from segrap.progress import ProgressCallback
from segrap.writing import replacing_folder


def evaluate(
    prediction: str | Path,
    reference: str | Path,
    output: str | Path,
    tolerances: ToleranceProfile = "published",
    progress: ProgressCallback = lambda _: None,
) -> Comparison:
    """Compare contours with reference contours and write scores.csv, summary.csv and summary.md into `output`.

    Raises InputError (see `comparison.compare`) and OutputError; then nothing of it is in `output`.
    """
    comparison = compare(prediction, reference, tolerances, progress)
    with replacing_folder(output) as folder:
        write_scores_csv(comparison, folder / "scores.csv")
        write_summary_csv(comparison, folder / "summary.csv")
        write_summary_markdown(comparison, folder / "summary.md")
    return comparison
