"""Small contours on disk to be compared: a reference, and a prediction that is a little off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segrap.contour_files.formats import write_challenge_mha, write_nifti_folder
from segrap.contour_files.seg_nrrd import write_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.evaluation.cases import Case
from segrap.evaluation.comparison import Comparison, Result, Source
from segrap.evaluation.metrics import Scores
from segrap.geometry import Geometry

SHAPE = (8, 20, 24)
GEOMETRY = Geometry((0.75, 0.75, 3.0), (-10.0, 5.0, 40.0))
REFERENCE = {
    "Larynx": (slice(2, 6), slice(4, 16), slice(3, 15)),
    "Parotid_L": (slice(1, 5), slice(3, 12), slice(16, 22)),
    "Chiasm": (slice(6, 7), slice(9, 12), slice(9, 14)),  # one slice
    "GTVp": (slice(2, 5), slice(8, 14), slice(8, 20)),
}
PREDICTION = {
    "Larynx": (slice(2, 6), slice(5, 16), slice(3, 17)),
    "Parotid_L": (slice(1, 6), slice(3, 12), slice(15, 22)),
    "Chiasm": (slice(6, 8), slice(9, 12), slice(9, 14)),
    "GTVp": (slice(2, 5), slice(6, 14), slice(8, 19)),
}


def drawn(boxes: Mapping[str, tuple[slice, slice, slice]], geometry: Geometry = GEOMETRY) -> Contours:
    masks = {}
    for name, box in boxes.items():
        masks[name] = np.zeros(SHAPE, dtype=bool)
        masks[name][box] = True
    return Contours.from_masks(masks, geometry, Provenance())


def as_segmentation(contours: Contours, place: Path) -> Path:
    place.mkdir(parents=True)
    write_seg_nrrd(contours, place / "contours.seg.nrrd")
    return place


def as_masks(contours: Contours, place: Path) -> Path:
    write_nifti_folder(contours, place)
    return place


def as_stacks(contours: Contours, place: Path) -> Path:
    write_challenge_mha(contours, place)
    return place


def folder_of_cases(place: Path, names: str) -> Path:
    for name in names:
        as_masks(drawn(REFERENCE), place / name)
    return place


def table(comparison: Comparison) -> dict[str, tuple[float, float]]:
    return {one.structure: (one.scores.dsc, one.scores.nsd) for one in comparison.results}


def method(dsc_of_cases: Mapping[str, Sequence[float]]) -> Comparison:
    """The results of a method with these DSC per structure and case; NSD is half of it, HD95 10 mm at DSC 0."""
    results = tuple(
        Result(
            f"case {number}",
            name,
            "scored",
            Scores(1.0, dsc, dsc / 2, 10 * (1 - dsc), 1 - dsc, 1.0, 1.0, 0.0, 0.0, 0.0),
        )
        for name, values in dsc_of_cases.items()
        for number, dsc in enumerate(values)
    )
    file = Case("case", Path(__file__), "segmentation")
    cases = dict.fromkeys(result.case for result in results)
    sources = tuple(Source(case, file, file, Provenance()) for case in cases)
    return Comparison(results, "published", sources, (), (), ())
