"""Predicted contours against reference contours, case by case and structure by structure, by the challenge's rules.

Grids that differ are refused; axis orders that differ (a prediction in RAS) are turned, which is exact. What was not
handed in scores 0 and is listed; what the reference does not have is not scored and is listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.errors import InputError
from segrap.evaluation.cases import Case, CaseSet, find_cases, read_case
from segrap.evaluation.metrics import Scores, ToleranceProfile, missing, score, tolerances_mm
from segrap.evaluation.surfels import Cutout
from segrap.geometry import Geometry, same_grid
from segrap.image import AxisOrder, Image
from segrap.progress import Progress, ProgressCallback

State = Literal["scored", "structure missing", "case missing"]

_STACK_REMARK = "The challenge's stacks state no place in space: their voxels were taken in the order of the file."
_ABSENT_REMARK = (
    "Not in the {}, which holds no empty structures, and empty in the reference: {}. Scored 0 as not handed in; a "
    ".seg.nrrd that holds them as empty would score 1."
)


@dataclass(frozen=True)
class Result:
    """The scores of one structure of one case, and whether it was there to be scored."""

    case: str
    structure: str
    state: State
    scores: Scores


class Source(NamedTuple):
    """Where the contours of a case come from: on disk, and who made the prediction (None: there is no prediction).

    ct: a DICOM folder with the CT, where it was given.
    """

    case: str
    reference: Case
    prediction: Case | None
    made_by: Provenance | None
    ct: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the CT of DICOM contours may lie: the folders of both, and the one that was given."""
        beside = [case.folder for case in (self.prediction, self.reference) if case]
        return (*beside, *([self.ct] if self.ct else []))


@dataclass(frozen=True)
class Comparison:
    """All results, in order of case and of the anatomy table, and what could not be paired.

    sources: one per case of the reference. extra_cases: predictions without a reference, not scored. extra_structures:
    predicted, but in no reference. remarks: sentences to read.
    """

    results: tuple[Result, ...]
    tolerances: ToleranceProfile
    sources: tuple[Source, ...]
    extra_cases: tuple[str, ...]
    extra_structures: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases of the reference, in order."""
        return tuple(source.case for source in self.sources)

    @property
    def missing_cases(self) -> tuple[str, ...]:
        """Cases without a prediction, scored 0."""
        return tuple(source.case for source in self.sources if source.prediction is None)

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures that were scored, in table order."""
        found = {result.structure for result in self.results}
        return tuple(name for name in anatomy.NAMES if name in found)

    @property
    def missing_structures(self) -> tuple[str, ...]:
        """Structures that a case's prediction lacks, scored 0, as "Chiasm (segrap_0001)"."""
        return tuple(f"{one.structure} ({one.case})" for one in self.results if one.state == "structure missing")

    def of(self, structure: str) -> tuple[Result, ...]:
        """The results of one structure, in order of case."""
        return tuple(result for result in self.results if result.structure == structure)


def compare(
    prediction: str | Path,
    reference: str | Path,
    tolerances: ToleranceProfile = "published",
    progress: ProgressCallback = lambda _: None,
    names: Mapping[str, str] | None = None,
    scans: Mapping[str, Path] | None = None,
) -> Comparison:
    """Score the contours at `prediction` against those at `reference`: each one case, or a folder of cases.

    Two single cases are compared whatever they are called; cases of folders are paired by name. The structures of a
    case are those of its reference. names: what a site calls its structures in DICOM, see `segrap.naming`. scans:
    the CT of every case of the reference, for DICOM contours that lie apart from it.

    Raises InputError when nothing can be paired, a file cannot be read, or the grids of a case differ.
    """
    tolerance_mm = tolerances_mm(tolerances)
    predicted, known = find_cases(prediction, names), find_cases(reference, names)
    pairs = _pairs(predicted, known)
    results: list[Result] = []
    sources: list[Source] = []
    extra: set[str] = set()
    remarks: dict[str, list[str]] = {}  # in order, and the cases that each is about
    for number, (name, (case, truth)) in enumerate(pairs.items()):
        progress(Progress("Scoring", number / len(pairs), name))
        ct = (scans or {}).get(name)
        source = Source(name, truth, case, None, ct if ct and ct.is_dir() else None)
        expected = read_case(truth, source.folders)
        if case is None:
            results += _not_handed_in(name, expected, tolerance_mm)
            sources.append(source)
            continue
        found = read_case(case, source.folders)
        sources.append(source._replace(made_by=found.provenance))
        if case.kind != truth.kind and "stack" in (case.kind, truth.kind):
            remarks[_STACK_REMARK] = []
        for side, one, contours in (("prediction", case, found), ("reference", truth, expected)):
            about = [f"Not known here, in the {side}: {', '.join(contours.left_out)}."] if contours.left_out else []
            if one.kind in ("labels", "RTSTRUCT"):  # what was made of the file; elsewhere, how the model was run
                about += contours.provenance.remarks
            for remark in about:
                remarks.setdefault(remark, []).append(name)
        found, expected = on_one_grid(found, expected, case, truth)
        extra |= set(found.names) - set(expected.names)
        scored_here = score_contours(found, expected, tolerance_mm)
        results += [Result(name, structure, state, scores) for structure, (state, scores) in scored_here.items()]
        absent = [one for one, (state, scores) in scored_here.items() if state != "scored" and not scores.reference_cc]
        if absent and case.kind in ("RTSTRUCT", "DICOM SEG"):
            remarks.setdefault(_ABSENT_REMARK.format(case.kind, ", ".join(absent)), []).append(name)
    progress(Progress("Scoring", 1.0))
    scored = {result.structure for result in results}
    return Comparison(
        results=tuple(results),
        tolerances=tolerances,
        sources=tuple(sources),
        extra_cases=_extra_cases(predicted, pairs),
        extra_structures=tuple(name for name in anatomy.NAMES if name in extra - scored),
        remarks=tuple(f"{_some(about)}: {remark}" if about else remark for remark, about in remarks.items()),
    )


def score_contours(
    prediction: Contours, reference: Contours, tolerance_mm: Mapping[str, float]
) -> dict[str, tuple[State, Scores]]:
    """Score every structure of the reference; both contours lie on one grid. Structures are handled side by side."""
    spacing = reference.geometry.spacing_mm

    def of(name: str) -> tuple[State, Scores]:
        truth = _cutout(reference, name)
        if name not in prediction.structures:
            return "structure missing", missing(truth, spacing, tolerance_mm[name])
        return "scored", score(truth, _cutout(prediction, name), spacing, tolerance_mm[name])

    # The largest first: none of them is then left over for the end.
    by_size = sorted(reference.names, key=lambda name: -reference.structures[name].voxels)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scored = dict(zip(by_size, pool.map(of, by_size), strict=True))
    return {name: scored[name] for name in reference.names}


def _cutout(contours: Contours, name: str) -> Cutout:
    mask, box = contours.mask_in_box(name)
    return Cutout(mask, (box[0].start, box[1].start, box[2].start))


def _not_handed_in(case: str, reference: Contours, tolerance_mm: Mapping[str, float]) -> Iterator[Result]:
    spacing = reference.geometry.spacing_mm
    for name in reference.names:
        yield Result(case, name, "case missing", missing(_cutout(reference, name), spacing, tolerance_mm[name]))


def _pairs(predicted: CaseSet, known: CaseSet) -> dict[str, tuple[Case | None, Case]]:
    """By name of the case: the prediction, None where there is none, and the reference."""
    one_each = len(predicted.cases) == len(known.cases) == 1
    if one_each and not (predicted.is_folder_of_cases and known.is_folder_of_cases):
        case, truth = next(iter(predicted.cases.values())), next(iter(known.cases.values()))
        return {truth.name: (case, truth)}
    if predicted.is_folder_of_cases != known.is_folder_of_cases:
        counts = [f"{len(one.cases)} case{'s' * (len(one.cases) != 1)}" for one in (predicted, known)]
        raise InputError(
            f"The prediction has {counts[0]} and the reference {counts[1]}. Give one case on each side, or a folder "
            "of cases on each side."
        )
    if not set(predicted.cases) & set(known.cases):
        raise InputError(
            f"No case has both: the predictions are called {_some(predicted.cases)}, the references "
            f"{_some(known.cases)}. Files or folders of one case need the same name."
        )
    return {name: (predicted.cases.get(name), truth) for name, truth in known.cases.items()}


def _extra_cases(predicted: CaseSet, pairs: Mapping[str, tuple[Case | None, Case]]) -> tuple[str, ...]:
    used = {case.name for case, _ in pairs.values() if case}
    return tuple(name for name in predicted.cases if name not in used)


def _some(several: Iterable[str]) -> str:
    names = list(dict.fromkeys(several))
    first = names[:3]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def on_one_grid(prediction: Contours, reference: Contours, predicted: Case, known: Case) -> tuple[Contours, Contours]:
    """Both contours with their axes along the patient's. A challenge stack, which has no place, takes the other's.

    Raises InputError when they are on different grids.
    """
    theirs, ours = prediction.geometry, reference.geometry
    if "stack" in (predicted.kind, known.kind):  # has a spacing, but no place of its own
        theirs, ours = Geometry(theirs.spacing_mm), Geometry(ours.spacing_mm)
        if same_grid(theirs, prediction.shape, ours, reference.shape):
            placed = reference if predicted.kind == "stack" else prediction
            prediction = replace(prediction, geometry=placed.geometry)
            reference = replace(reference, geometry=placed.geometry)
    prediction, reference = _turned(prediction), _turned(reference)
    theirs, ours = prediction.geometry, reference.geometry
    if not same_grid(theirs, prediction.shape, ours, reference.shape):
        raise InputError(
            f"Case {known.name}: prediction and reference lie on different grids. The prediction has "
            f"{_words(prediction)}; the reference has {_words(reference)}. Contour on the reference's CT, or resample."
        )
    return prediction, reference


def _turned(contours: Contours) -> Contours:
    order = AxisOrder.towards_lps(contours.geometry)
    if order.changes_nothing:
        return contours
    geometry = order.turn(Image(contours.layers[0], contours.geometry)).geometry
    placement = {name: (facts.layer, facts.value) for name, facts in contours.structures.items()}
    return Contours.from_layers(order.apply(contours.layers), geometry, placement, contours.provenance)


def _words(contours: Contours) -> str:
    z, y, x = contours.shape
    geometry = contours.geometry
    spacing = " x ".join(f"{value:.6g}" for value in geometry.spacing_mm)
    origin = ", ".join(f"{value:.2f}" for value in geometry.origin_mm)
    return f"{x} x {y} x {z} voxels of {spacing} mm, the first at ({origin}) mm"
