"""How well one contour agrees with another: the SegRap challenge's two scores, and what a clinic asks besides.

DSC and NSD are those of the challenge's published scripts (HiLab-git/SegRap2023, Eval/): volumetric Dice, and surface
Dice at a tolerance as in DeepMind's `surface-distance`. Hausdorff and mean distances weigh every border point by its
area, as that package does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from segrap import anatomy
from segrap.errors import UsageError
from segrap.evaluation.nearest import nearest_mm
from segrap.evaluation.surfels import Cutout, Surface, surface_of

ToleranceProfile = Literal["published", "2023-test-as-run"]

# The challenge's test container paired channels with another order of names, so that the two wide tolerances fell on
# channels 14 and 27 (MiddleEar_R, Mandible_L) instead of Larynx and OralCavity.
_AS_RUN_MM = {"MiddleEar_R": 2.0, "Mandible_L": 3.0}

# A distance that equals the tolerance is within it. Spacings such as 0.1 mm have no exact binary form: a millionth of a
# micrometre keeps the last bit of a sum from deciding.
_ROUNDING_MM = 1e-9

_PERCENTILE = 95


def tolerances_mm(profile: ToleranceProfile) -> dict[str, float]:
    """The NSD tolerance of each structure: of the challenge's published script, or as its 2023 test was really run.

    Raises UsageError when there is no such profile.
    """
    if profile not in get_args(ToleranceProfile):
        raise UsageError(f"No such tolerances: {profile}. Known are {', '.join(get_args(ToleranceProfile))}.")
    if profile == "published":
        return {structure.name: structure.nsd_tolerance_mm for structure in anatomy.STRUCTURES}
    return {name: _AS_RUN_MM.get(name, 1.0) for name in anatomy.NAMES}


@dataclass(frozen=True)
class Scores:
    """One structure of one case. Distances are NaN where one of the two contours is empty, as there is none to measure.

    dsc: volumetric Dice, 0 to 1. nsd: surface Dice at `tolerance_mm`, 0 to 1.
    hd95_mm: the larger of the two directed distances that 95 % of a surface's area does not exceed.
    mean_surface_distance_mm: mean of the two directed mean distances.
    volume_difference_cc: prediction minus reference; volume_difference_percent: of the reference (NaN where it is 0).
    added_path_length_mm: length of outline to be redrawn, see `added_path_length_mm`.
    """

    tolerance_mm: float
    dsc: float
    nsd: float
    hd95_mm: float
    mean_surface_distance_mm: float
    reference_cc: float
    prediction_cc: float
    volume_difference_cc: float
    volume_difference_percent: float
    added_path_length_mm: float


def challenge_rounding(score: float) -> float:
    """A DSC or NSD as the challenge's scripts keep it: rounded to 4 decimals per case, before any averaging."""
    return round(float(score), 4)


def score(
    reference: np.ndarray | Cutout,
    prediction: np.ndarray | Cutout,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> Scores:
    """Compare the prediction of a structure with its reference.

    reference, prediction: masks (z, y, x) of one grid, or cutouts of them. spacing_mm: (x, y, z) of the grid.
    Empty contours as in the challenge: both empty is 1 and 1, only one of them empty is 0 and 0.
    """
    truth = reference if isinstance(reference, Cutout) else Cutout.of(reference)
    guess = prediction if isinstance(prediction, Cutout) else Cutout.of(prediction)
    x, y, z = spacing_mm
    spacing_zyx = (float(z), float(y), float(x))
    truth_voxels, guess_voxels = int(np.count_nonzero(truth.mask)), int(np.count_nonzero(guess.mask))
    voxel_cc = math.prod(spacing_zyx) / 1000.0
    difference = guess_voxels - truth_voxels
    nsd, hd95, mean_distance = 1.0 if truth_voxels == guess_voxels == 0 else 0.0, math.nan, math.nan
    dsc = nsd
    if truth_voxels and guess_voxels:
        dsc = 2.0 * _common_voxels(truth, guess) / (truth_voxels + guess_voxels)
        surfaces = surface_of(truth, spacing_zyx), surface_of(guess, spacing_zyx)
        distances = SurfaceDistances.between(*surfaces, spacing_zyx)
        nsd, hd95, mean_distance = distances.dice_at(tolerance_mm), distances.hausdorff_95_mm(), distances.mean_mm()
    return Scores(
        tolerance_mm=tolerance_mm,
        dsc=dsc,
        nsd=nsd,
        hd95_mm=hd95,
        mean_surface_distance_mm=mean_distance,
        reference_cc=truth_voxels * voxel_cc,
        prediction_cc=guess_voxels * voxel_cc,
        volume_difference_cc=difference * voxel_cc,
        volume_difference_percent=100.0 * difference / truth_voxels if truth_voxels else math.nan,
        added_path_length_mm=added_path_length_mm(truth, guess, spacing_mm, tolerance_mm),
    )


def missing(reference: np.ndarray | Cutout, spacing_mm: tuple[float, float, float], tolerance_mm: float) -> Scores:
    """The scores of a structure that was not handed in at all: DSC and NSD 0, even where the reference is empty."""
    empty = score(reference, np.zeros((1, 1, 1), dtype=bool), spacing_mm, tolerance_mm)
    return Scores(**{**vars(empty), "dsc": 0.0, "nsd": 0.0})


def _common_voxels(a: Cutout, b: Cutout) -> int:
    """How many voxels two cutouts of one volume share."""
    low = [max(one, other) for one, other in zip(a.corner, b.corner, strict=True)]
    high = [
        min(one + length, other + other_length)
        for one, length, other, other_length in zip(a.corner, a.mask.shape, b.corner, b.mask.shape, strict=True)
    ]
    if any(start >= stop for start, stop in zip(low, high, strict=True)):
        return 0
    parts = [
        cutout.mask[tuple(slice(s - c, e - c) for s, e, c in zip(low, high, cutout.corner, strict=True))]
        for cutout in (a, b)
    ]
    return int(np.count_nonzero(parts[0] & parts[1]))


@dataclass(frozen=True)
class SurfaceDistances:
    """From every border point of one surface the distance (mm) to the nearest of the other, and its area (mm2).

    Sorted by distance, then area. Neither surface is empty.
    """

    from_reference_mm: np.ndarray
    reference_areas_mm2: np.ndarray
    from_prediction_mm: np.ndarray
    prediction_areas_mm2: np.ndarray

    @classmethod
    def between(
        cls, reference: Surface, prediction: Surface, spacing_zyx: tuple[float, float, float]
    ) -> SurfaceDistances:
        """Measure both ways; the surfaces are those of non-empty masks of one grid."""
        return cls(
            *_sorted_distances(reference, prediction, spacing_zyx),
            *_sorted_distances(prediction, reference, spacing_zyx),
        )

    def dice_at(self, tolerance_mm: float) -> float:
        """The share of both surfaces' area that lies within the tolerance of the other (0 to 1)."""
        within = sum(
            float(areas[: np.searchsorted(distances, tolerance_mm + _ROUNDING_MM, side="right")].sum())
            for distances, areas in self._directions()
        )
        return within / float(self.reference_areas_mm2.sum() + self.prediction_areas_mm2.sum())

    def hausdorff_95_mm(self) -> float:
        """The larger of the two distances within which 95 % of a surface's area lies."""
        directed = []
        for distances, areas in self._directions():
            share = np.cumsum(areas) / areas.sum()
            place = int(np.searchsorted(share, _PERCENTILE / 100.0))
            directed.append(float(distances[min(place, len(distances) - 1)]))
        return max(directed)

    def mean_mm(self) -> float:
        """The mean of the two directed mean distances, each weighted by area."""
        return sum(float((d * areas).sum() / areas.sum()) for d, areas in self._directions()) / 2.0

    def _directions(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        return (
            (self.from_reference_mm, self.reference_areas_mm2),
            (self.from_prediction_mm, self.prediction_areas_mm2),
        )


def _sorted_distances(
    surface: Surface, other: Surface, spacing_zyx: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    distances = nearest_mm(surface.points, other.points, spacing_zyx)
    order = np.lexsort((surface.areas_mm2, distances))
    return distances[order], surface.areas_mm2[order]


def added_path_length_mm(
    reference: Cutout, prediction: Cutout, spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> float:
    """The length of outline that somebody who corrects the prediction slice by slice has to draw.

    After Vaassen et al., Phys Imaging Radiat Oncol 13:1-6 (2020): outline voxels of the reference that are no outline
    voxels of the prediction, times the size of a voxel; here those are spared that have an outline voxel of the
    prediction within the tolerance in the same slice (0 gives the definition of the paper). An outline voxel has one of
    its four neighbours in the slice outside; slices are those of constant z. The size is the geometric mean of x and y.
    """
    from scipy.spatial import cKDTree

    x, y, _ = spacing_mm
    # Slices so far apart that no point within the tolerance lies in another one.
    spacing_zyx = np.array([2.0 * tolerance_mm + 1.0, y, x])
    to_draw, drawn = (_outline(cutout) * spacing_zyx for cutout in (reference, prediction))
    redrawn = len(to_draw)
    if len(to_draw) and len(drawn):
        limit = tolerance_mm + _ROUNDING_MM
        distances, _ = cKDTree(drawn, balanced_tree=False).query(to_draw, distance_upper_bound=limit)
        redrawn = int(np.count_nonzero(np.isinf(distances)))
    return redrawn * math.sqrt(x * y)


def _outline(cutout: Cutout) -> np.ndarray:
    """The (n, 3) z, y, x indices of the voxels with a neighbour in the slice that is outside."""
    mask = cutout.mask
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return np.argwhere(mask & ~inner) + np.asarray(cutout.corner)
