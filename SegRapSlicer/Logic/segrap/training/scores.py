"""How well a model that ships does, as its card states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segrap import anatomy


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks, 0 when `found` is empty; `truth` must not be."""
    both = np.count_nonzero(found & truth)
    return 2 * both / (np.count_nonzero(found) + np.count_nonzero(truth))


def scores_as_table(scores: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table of Dice per structure: patients scored, mean, standard deviation, lowest; organs' mean below."""
    lines = ["| structure | patients | mean Dice | SD | lowest |", "|---|---|---|---|---|"]
    for name, values in scores.items():
        if values:
            deviation = f"{np.std(values):.3f}"
            lines.append(f"| {name} | {len(values)} | {np.mean(values):.3f} | {deviation} | {min(values):.3f} |")
        else:
            lines.append(f"| {name} | 0 | not scored | | |")
    means = [np.mean(values) for name, values in scores.items() if values and not anatomy.structure(name).is_target]
    lines.append(f"| **mean of the {len(means)} organs** | | **{np.mean(means):.3f}** | | {min(means):.3f} |")
    return "\n".join(lines)
