"""How long 45 structures of a 1024 x 1024 x 130 case take to score, beside the `surface-distance` package.

The reference is a made-up patient at SegRap's resolution; the prediction is the same patient, its slices moved to and
fro by up to two voxels and one slice up. Both sides start from contours in memory. Prints seconds by the clock and of
the processor, and ends with an error when the scores differ by more than 1e-9 or the processor's seconds are not ten
times fewer (what else the computer does would change the clock's).

    python Testing/benchmarks/evaluation.py [name of a structure ...]     all 45 by default; takes minutes
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import surface_distance

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.evaluation.comparison import score_contours
from segrap.evaluation.metrics import tolerances_mm
from segrap.training.phantom import Phantom

Result = TypeVar("Result")

SPACING_MM = (500.0 / 1024, 500.0 / 1024, 3.0)
LEAST_RATIO = 10.0


def moved(reference: Contours) -> Contours:
    layers = np.roll(reference.layers, 1, axis=1)
    for z in range(layers.shape[1]):
        shift = (round(2 * np.sin(z / 7)), round(2 * np.cos(z / 5)))
        layers[:, z] = np.roll(layers[:, z], shift, axis=(1, 2))
    placement = {name: (facts.layer, facts.value) for name, facts in reference.structures.items()}
    return Contours.from_layers(layers, reference.geometry, placement, Provenance())


def made_up_patient(names: list[str]) -> Contours:
    subclasses = Phantom(1).render(spacing_mm=SPACING_MM).subclasses
    masks = ((name, np.isin(subclasses.array, anatomy.structure(name).subclasses)) for name in names)
    return Contours.from_masks(masks, subclasses.geometry, Provenance())


def with_surface_distance(masks: tuple[np.ndarray, np.ndarray], spacing_zyx: Any, tolerance_mm: float) -> list[float]:
    """DSC, NSD, HD95 and mean distance as the package gives them on whole volumes."""
    distances = surface_distance.compute_surface_distances(*masks, spacing_zyx)
    return [
        surface_distance.compute_dice_coefficient(*masks),
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm),
        surface_distance.compute_robust_hausdorff(distances, 95),
        float(np.mean(surface_distance.compute_average_surface_distance(distances))),
    ]


def timed(work: Callable[[], Result]) -> tuple[Result, np.ndarray]:
    """The result, and the seconds by the clock and of the processor (all threads together)."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = work()
    return result, np.array([time.perf_counter(), time.process_time()]) - start


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    names = sys.argv[1:] or [organ.name for organ in anatomy.ORGANS]
    reference = made_up_patient(names)
    prediction = moved(reference)
    before_gb = peak_gb()
    print(f"grid (z, y, x) {reference.shape}, {len(names)} structures", flush=True)

    ours, seconds = timed(lambda: score_contours(prediction, reference, tolerances_mm("published")))
    print(
        f"segrap {seconds[0]:.2f} s, of the processor {seconds[1]:.2f} s; "
        f"peak memory {before_gb:.2f} GB before, {peak_gb():.2f} GB after",
        flush=True,
    )
    theirs_seconds, largest_difference = np.zeros(2), 0.0
    for name in names:
        _, found = ours[name]
        masks = reference.mask(name), prediction.mask(name)
        work = partial(with_surface_distance, masks, reference.geometry.spacing_mm[::-1], found.tolerance_mm)
        theirs, one = timed(work)
        theirs_seconds += one
        mine = (found.dsc, found.nsd, found.hd95_mm, found.mean_surface_distance_mm)
        difference = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
        largest_difference = max(largest_difference, difference)
        print(f"  {name:20} surface-distance {one[1]:6.2f} s, difference {difference:.1e}", flush=True)
    ratio = theirs_seconds / seconds
    print(
        f"surface-distance {theirs_seconds[0]:.1f} s, of the processor {theirs_seconds[1]:.1f} s: "
        f"{ratio[0]:.1f} and {ratio[1]:.1f} times as long; largest difference {largest_difference:.1e}"
    )
    if largest_difference > 1e-9 or ratio[1] < LEAST_RATIO:
        sys.exit("the scores differ" if largest_difference > 1e-9 else f"less than {LEAST_RATIO:g} times faster")


if __name__ == "__main__":
    main()
