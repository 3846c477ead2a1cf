"""What others reached, to be read beside one's own scores: the challenge's best team, its baseline, and two experts.

Dice in per cent. Per structure: the team ranked first (Y. Zhong) on the 60 test cases, mean and standard deviation over
patients, from the figures of the dataset's page (openmedlab/dataset, SegRap2023). Those figures list the organs in
another order than their numbers: the numbers follow the channels of the challenge's stacks, and are given here with the
structures of those channels. The evidence is that left and right agree within 1.3 points in this reading, 5.6 as
printed. The last eight organs, Esophagus and Trachea first of all, are less certain than the others. The baseline's
numbers per organ do not add up to its printed mean: read them with care.

NSD was published by three teams only, per organ by one (K. Yang); all of it under the tolerances that the test applied
(see `metrics`). The challenge's validation phase had a larger tolerance for GTVp that nobody has stated.

Two experts: median Dice between two raters on 35 other scans, with definitions of the organs that are not SegRap's
(google-deepmind/tcia-ct-scan-dataset; mandible as one organ, eye as orbit). SegRap has none of its own.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Published(NamedTuple):
    """Dice in per cent: mean and standard deviation of the best team, median between two experts (None: unknown)."""

    best_dsc: float
    best_sd: float
    experts_dsc: float | None = None


STRUCTURES: dict[str, Published] = {
    "Brain": Published(98.62, 0.26, 99.1),
    "BrainStem": Published(92.45, 2.76, 89.4),
    "Chiasm": Published(70.55, 14.41),
    "TemporalLobe_L": Published(94.91, 1.36),
    "TemporalLobe_R": Published(95.32, 1.28),
    "Hippocampus_L": Published(77.32, 8.09),
    "Hippocampus_R": Published(79.18, 8.19),
    "Eye_L": Published(94.04, 2.09, 93),
    "Eye_R": Published(93.30, 2.08, 93),
    "Lens_L": Published(78.34, 7.78, 88),
    "Lens_R": Published(75.83, 8.52, 88),
    "OpticNerve_L": Published(79.99, 7.71, 79),
    "OpticNerve_R": Published(81.94, 7.23, 79),
    "MiddleEar_L": Published(88.42, 5.18),
    "MiddleEar_R": Published(89.25, 5.02),
    "IAC_L": Published(84.94, 8.45),
    "IAC_R": Published(85.34, 7.34),
    "TympanicCavity_L": Published(81.95, 7.28),
    "TympanicCavity_R": Published(84.18, 7.22),
    "VestibulSemi_L": Published(83.79, 8.80),
    "VestibulSemi_R": Published(83.49, 9.06),
    "Cochlea_L": Published(84.10, 8.21, 74),
    "Cochlea_R": Published(83.35, 9.43, 74),
    "ETbone_L": Published(82.14, 5.72),
    "ETbone_R": Published(78.99, 10.86),
    "Pituitary": Published(77.70, 13.86),
    "OralCavity": Published(95.04, 1.56),
    "Mandible_L": Published(95.02, 1.88, 94.6),
    "Mandible_R": Published(94.27, 3.30, 94.6),
    "Submandibular_L": Published(88.99, 9.85, 87),
    "Submandibular_R": Published(87.27, 11.50, 87),
    "Parotid_L": Published(90.26, 4.41, 86),
    "Parotid_R": Published(88.26, 7.46, 86),
    "Mastoid_L": Published(92.90, 2.40),
    "Mastoid_R": Published(92.47, 3.52),
    "TMjoint_L": Published(89.23, 7.20),
    "TMjoint_R": Published(90.37, 4.72),
    "SpinalCord": Published(89.69, 4.29, 85.2),
    "Esophagus": Published(85.01, 2.66),
    "Larynx": Published(89.66, 2.21),
    "Larynx_Glottic": Published(82.34, 8.16),
    "Larynx_Supraglot": Published(89.74, 3.97),
    "PharynxConst": Published(85.17, 4.83),
    "Thyroid": Published(91.27, 3.34),
    "Trachea": Published(85.18, 9.46),
    "GTVp": Published(78.56, 7.54),
    "GTVnd": Published(67.75, 14.64),
}
"""Organs: Y. Zhong, first of task 1. Targets: M. Astaraki, first of task 2."""


class OrganTeam(NamedTuple):
    """A team's Dice in per cent: mean and standard deviation over cases and organs as printed, and mean per organ."""

    team: str
    dsc: float
    sd: float
    organs: dict[str, float]


class TargetTeam(NamedTuple):
    """A team's Dice in per cent, as (mean, standard deviation): of GTVp, of GTVnd, and of both pooled."""

    team: str
    gtvp: tuple[float, float]
    gtvnd: tuple[float, float]
    both: tuple[float, float]


_ORGAN_MEANS = {
    "Y. Zhong": (86.70, 9.30),
    "Y. Ye": (86.36, 9.15),
    "Y. Su": (86.14, 9.58),
    "K. Yang": (85.62, 10.48),
    "C.W. Lee": (85.68, 9.87),
    "M. Astaraki": (85.44, 10.17),
    "Z. Xing": (82.51, 16.48),
    "Y. Zhang": (80.57, 16.52),
    "J. Huang": (76.68, 19.62),
    "K. Huang": (78.14, 23.65),
    "nnU-Net baseline": (84.65, 9.95),
}

TARGET_TEAMS: tuple[TargetTeam, ...] = (
    TargetTeam("M. Astaraki", (78.56, 7.54), (67.75, 14.64), (73.15, 12.83)),
    TargetTeam("Y. Ye", (78.76, 7.16), (68.10, 12.17), (73.43, 11.31)),
    TargetTeam("Z. Xing", (78.07, 7.82), (69.28, 12.12), (73.68, 11.11)),
    TargetTeam("K. Yang", (78.76, 6.60), (67.41, 13.78), (73.09, 12.21)),
    TargetTeam("C. Ulrich", (77.71, 7.79), (69.17, 12.80), (73.44, 11.42)),
    TargetTeam("N. Ndipenoch", (78.25, 7.54), (67.21, 14.52), (72.73, 12.82)),
    TargetTeam("Y. Su", (78.13, 7.27), (66.91, 14.54), (72.52, 12.79)),
    TargetTeam("J. Huang", (78.36, 7.09), (66.36, 14.09), (72.36, 12.66)),
    TargetTeam("Y. Zhang", (76.89, 7.37), (66.25, 12.74), (71.57, 11.69)),
    TargetTeam("C.W. Lee", (77.46, 7.53), (63.39, 13.85), (70.42, 13.18)),
    TargetTeam("K. Huang", (76.71, 6.85), (65.97, 12.04), (71.34, 11.17)),
    TargetTeam("nnU-Net baseline", (75.80, 7.28), (66.83, 11.48), (71.32, 10.61)),
)
"""Task 2 on the 60 test cases, in order of the final ranking (which is not by this mean alone), the baseline last."""


ORGANS_NSD: dict[str, tuple[float, float]] = {"K. Yang": (85.33, 13.42), "M. Astaraki": (84.9, 13.2)}
"""Surface Dice in per cent over cases and organs (mean, standard deviation), from the teams' posters."""

TARGETS_NSD: dict[str, tuple[float | None, float | None, float | None]] = {
    "M. Astaraki": (None, None, 49.8),
    "K. Yang": (35.92, 63.08, 49.50),
    "C. Ulrich": (35.60, 64.76, None),
}
"""Surface Dice in per cent of GTVp, of GTVnd and of both, from the teams' posters (None: not in it)."""


def _rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "published_teams.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def organs_nsd() -> dict[str, float]:
    """K. Yang's mean surface Dice of every organ in per cent, beside the organs of their channels."""
    return {row["structure"]: float(row["K. Yang NSD"]) for row in _rows()}


@cache
def organ_teams() -> tuple[OrganTeam, ...]:
    """Task 1 on the 60 test cases, in order of the final ranking (not by this mean alone), the baseline last.

    The numbers stand with the organs of their channels; see the module. The baseline's are as printed: their mean is
    84.90 where 84.65 is printed, and its IAC_L (94.63) is surely a misprint.
    """
    rows = _rows()
    return tuple(
        OrganTeam(team, dsc, sd, {row["structure"]: float(row[team]) for row in rows})
        for team, (dsc, sd) in _ORGAN_MEANS.items()
    )
