"""Checks of contours, with reasons: what contradicts the definitions, what is unusual, what the reader should know.

Every finding is a sentence for the radiation oncologist who reviews the contours: a prompt to look, never a verdict,
and no findings never mean that contours are right. The rules follow the definitions of the structures (overlaps,
containments, sides, connected shape), the published volumes of the 120 SegRap2023 training patients, and what all
patients share (`anatomy_checks`). Checks of the input scans are the business of `segrap.ct.pair`, of RTSTRUCT files
that of `segrap.rtstruct.lint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple, get_args

import numpy as np

from segrap import anatomy
from segrap.contours import Contours, StructureFacts
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import AxisOrder, Image
from segrap.label_layers import Box
from segrap.pieces import MANY_PIECES_EXPECTED
from segrap.progress import Progress, ProgressCallback
from segrap.quality.anatomy_checks import check_anatomy
from segrap.quality.findings import Finding, Kind, Place, Severity, middle_voxel, only_plane, words_for_cc

SCAN_LENGTH_DEPENDENT = frozenset({"SpinalCord", "Esophagus", "Trachea"})
"""They go on below every head-and-neck scan: cut by its lower end, and as long as the scan allows."""

HOLD_AIR = frozenset(
    {"OralCavity", "PharynxConst", "Larynx", "Larynx_Glottic", "Larynx_Supraglot", "Trachea", "Esophagus"}
    | {f"{name}_{side}" for name in ("Mastoid", "MiddleEar", "TympanicCavity", "ETbone") for side in "LR"}
)
"""Structures that hold air by nature."""

# Below this is air or lung; fat ends at about -150 HU, and a voxel half air and half soft tissue lies at -480 HU.
AIR_HU = -300
# A piece below this share of the structure is a stray one: slices between it and the rest are no gap in the contour.
STRAY_SHARE = 0.05
# Stray pieces below that share and this volume (a cube of 3.7 mm) are specks, worth no more than a note.
SPECK_CC = 0.05
# Below this a model's confidence (`segrap.engine.confidence`) is worth a look. Measured with OpenKBP_8 1.0 on OpenKBP's
# validation patients: of 10 contours below it 2 had a Dice under 0.6, of 181 others 11. A weak sign, and no other model
# has been measured.
LOW_CONFIDENCE = 0.65
# How far beyond the densities of a site's own patients a contour may lie: scanners are held to some 5 HU in water, and
# the medians of small structures are noisy.
MARGIN_HU = 10

_BORDERS = {
    "feet": "the lowest slice of the scan",
    "head": "the uppermost slice of the scan",
    "left": "the left border of the field of view",
    "right": "the right border of the field of view",
    "front": "the front border of the field of view",
    "back": "the back border of the field of view",
}


class Expected(NamedTuple):
    """The least and the most that a structure measures in a site's own patients, see `segrap.dataset.statistics`.

    volume_cc: its volume. median_hu: the median inside it on the non-contrast CT, None where it is not known.
    """

    volume_cc: tuple[float, float]
    median_hu: tuple[float, float] | None = None


def check(
    contours: Contours,
    image: Image | None = None,
    progress: ProgressCallback | None = None,
    expected: Mapping[str, Expected] | None = None,
) -> tuple[Finding, ...]:
    """All findings, worst first (severity, then kind, then the order of the anatomy table).

    image: the non-contrast CT in HU on the grid of the contours; with it, structures that lie in air are found too.
    expected: of a site's own patients: volumes in the place of the published ones, and, with the image, densities.
    progress: is told how far it is; what it raises ends the work.
    Raises InputError when the image is on another grid.
    """
    if image is not None and not same_grid(image.geometry, image.shape, contours.geometry, contours.shape):
        raise InputError("The CT and the contours are not on the same grid; they cannot be checked together.")
    findings: list[Finding] = []
    slice_axis = AxisOrder.towards_lps(contours.geometry).transposition[0]
    for number, (name, facts) in enumerate(contours.structures.items()):
        if progress:
            progress(Progress("Checking the contours", number / (1 + len(contours.structures)), name))
        if facts.box is None:
            findings.append(_empty(name))
            continue
        of_site = (expected or {}).get(name)
        findings += _volume(name, facts, of_site)
        findings += _confidence(name, facts)
        findings += _edge(contours, name, facts)
        findings += _pieces_and_gaps(contours, name, slice_axis)
        if image is not None and name not in HOLD_AIR:
            findings += _air(contours, name, image)
        if image is not None and of_site and of_site.median_hu:
            findings += _density(contours, name, image, of_site.median_hu)
    findings += check_anatomy(contours, image)
    findings += _overlaps_and_containments(contours, slice_axis)
    severities, kinds = get_args(Severity), get_args(Kind)
    return tuple(
        sorted(
            findings,
            key=lambda f: (severities.index(f.severity), kinds.index(f.kind), anatomy.NAMES.index(f.structure)),
        )
    )


def _empty(name: str) -> Finding:
    if anatomy.structure(name).is_target:
        message = "No tumour of this kind was found. Check the images for it, and draw it where there is one."
        return Finding(name, "empty", "unusual", message)
    message = (
        "Asked for but not found. It may lie outside the scan, have been removed by surgery, or have been missed; "
        "draw it if the patient has it."
    )
    return Finding(name, "empty", "fault", message)


def _volume(name: str, facts: StructureFacts, of_site: Expected | None) -> list[Finding]:
    low, high = of_site.volume_cc if of_site else anatomy.structure(name).volume_range_cc
    if low <= facts.volume_cc <= high:
        return []
    side = "less" if facts.volume_cc < low else "more"
    whom = "is usual among the patients" if of_site else "in any of SegRap2023's 120 training patients"
    message = f"{words_for_cc(facts.volume_cc)} cc, {side} than {whom}"
    if of_site:
        message += f" whose volumes were given ({low:g} to {high:g} cc)."
    else:
        message += f" ({low:g} to {high:g} cc; Chinese patients with nasopharyngeal cancer)."
    if name in SCAN_LENGTH_DEPENDENT:
        message += " It depends on how far down the scan reaches, so this alone means little."
    elif facts.touches_edge and side == "less":
        message += " It is cut by the scan, which may be why."
    else:
        message += f" Check that {'nothing is missing' if side == 'less' else 'it does not include a neighbour'}."
    return [Finding(name, "volume", "note" if name in SCAN_LENGTH_DEPENDENT else "unusual", message)]


def _density(contours: Contours, name: str, image: Image, of_site: tuple[float, float]) -> list[Finding]:
    mask, box = contours.mask_in_box(name)
    median = float(np.median(image.array[box][mask]))
    low, high = of_site
    if low - MARGIN_HU <= median <= high + MARGIN_HU:
        return []
    side = "less" if median < low else "more"
    message = (
        f"Its median density of {median:.0f} HU is {side} than is usual among the patients whose densities were given "
        f"({low:.0f} to {high:.0f} HU). Check that it is the right tissue; contrast agent, metal or another tube "
        "voltage may be why."
    )
    return [Finding(name, "density", "unusual", message)]


def _confidence(name: str, facts: StructureFacts) -> list[Finding]:
    if facts.confidence is None or facts.confidence >= LOW_CONFIDENCE:
        return []
    message = (
        f"The model was not sure where its border runs (confidence {facts.confidence:.2f} of 1). Such contours were "
        "wrong more often than others; a sure one can be wrong too."
    )
    return [Finding(name, "confidence", "unusual", message)]


def _edge(contours: Contours, name: str, facts: StructureFacts) -> list[Finding]:
    if not facts.touches_edge:
        return []
    mask, box = contours.mask_in_box(name)
    faces = []
    for axis, extent in enumerate(contours.shape):
        last = mask.shape[axis] - 1
        faces += [only_plane(mask, axis, 0)] * (box[axis].start == 0)
        faces += [only_plane(mask, axis, last)] * (box[axis].stop == extent)
    where = middle_voxel(max(faces, key=np.count_nonzero), box)
    if name in SCAN_LENGTH_DEPENDENT and facts.cut_at == ("feet",):
        message = "Goes on below the lowest slice of the scan, as expected; its volume is that of the scanned part."
        return [Finding(name, "edge", "note", message, where)]
    borders = " and ".join(_BORDERS[face] for face in facts.cut_at)
    message = f"Reaches {borders} and may go on beyond it: its volume and its dose statistics can be incomplete."
    return [Finding(name, "edge", "unusual", message, where)]


def _pieces_and_gaps(contours: Contours, name: str, slice_axis: int) -> list[Finding]:
    from scipy import ndimage  # not before it is needed: Slicer imports this module when it starts

    mask, box = contours.mask_in_box(name)
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 1:
        return []
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    if name == "GTVnd":  # as many pieces as there are nodes
        return _specks(name, pieces, sizes, contours.geometry.voxel_volume_cc, box)
    findings = []
    main = sizes >= STRAY_SHARE * sizes.sum()
    others = tuple(axis for axis in range(3) if axis != slice_axis)
    filled = main[pieces].any(axis=others)
    empty_runs = ndimage.label(~filled)[0]
    inside = [run for (run,) in ndimage.find_objects(empty_runs) if run.start > 0 and run.stop < len(filled)]
    if inside:
        widest = max(inside, key=lambda run: run.stop - run.start)
        n_slices = sum(run.stop - run.start for run in inside)
        thickness_mm = n_slices * contours.geometry.spacing_mm[2 - slice_axis]
        slices = "slice" if n_slices == 1 else "slices"
        findings.append(
            Finding(
                name,
                "gap",
                "unusual",
                f"{n_slices} empty {slices} ({thickness_mm:.1f} mm) between its upper and its lower part. "
                "Fill the gap, unless the structure really ends and begins again there.",
                middle_voxel(only_plane(mask, slice_axis, widest.start - 1), box),
            )
        )
    if count > len(inside) + 1 and name not in MANY_PIECES_EXPECTED:
        stray = int(np.argsort(sizes)[-2])
        stray_cc = float(sizes[stray]) * contours.geometry.voxel_volume_cc
        is_speck = stray_cc < SPECK_CC and sizes[stray] < STRAY_SHARE * sizes.sum()
        findings.append(
            Finding(
                name,
                "pieces",
                "note" if is_speck else "unusual",
                f"In {count} pieces where one is expected; the largest stray piece measures "
                f"{words_for_cc(stray_cc)} cc ({sizes[stray]} voxels). Delete it, or join it to the rest.",
                middle_voxel(pieces == stray, box),
            )
        )
    return findings


def _specks(name: str, pieces: np.ndarray, sizes: np.ndarray, voxel_cc: float, box: Box) -> list[Finding]:
    specks = np.flatnonzero((sizes > 0) & (sizes * voxel_cc < SPECK_CC))
    if not len(specks):
        return []
    one = int(specks[np.argmax(sizes[specks])])
    are = "is" if len(specks) == 1 else "are"
    message = (
        f"{len(specks)} of its {len(sizes) - 1} pieces {are} smaller than {SPECK_CC} cc. "
        "Look whether a node lies there, and delete what is none."
    )
    return [Finding(name, "pieces", "unusual", message, middle_voxel(pieces == one, box))]


def _air(contours: Contours, name: str, image: Image) -> list[Finding]:
    mask, box = contours.mask_in_box(name)
    in_air = mask & (image.array[box] < AIR_HU)
    share = np.count_nonzero(in_air) / contours.structures[name].voxels
    if share <= 0.5:
        return []
    message = (
        f"{100 * share:.0f} % of it lies in air (below {AIR_HU} HU). It may lie outside the patient, "
        "or the contours may belong to another scan."
    )
    return [Finding(name, "air", "fault", message, middle_voxel(in_air, box))]


def _overlaps_and_containments(contours: Contours, slice_axis: int) -> list[Finding]:
    if all(contours.is_empty(name) for name in contours.structures):
        return []
    findings = []
    shared = _shared_voxels(contours)
    for a, b in combinations(contours.structures, 2):
        count = shared.get((a, b), 0)
        if count and not anatomy.may_overlap(a, b):
            message = (
                f"Shares {_voxels(contours, count)} with {b}; by definition these two never overlap. "
                "Decide to which of the two the region belongs."
            )
            where = _worst_shared_place(contours, a, b, True, slice_axis)
            findings.append(Finding(a, "overlap", "fault", message, where, b))
    for child, parent in anatomy.CONTAINMENTS:
        if child not in contours.structures or parent not in contours.structures or contours.is_empty(parent):
            continue
        inside = shared.get((child, parent), 0) + shared.get((parent, child), 0)
        count = contours.structures[child].voxels - inside
        if count:
            message = (
                f"{_voxels(contours, count)} of it lie outside {parent}, of which it is a part by definition. "
                f"Extend {parent}, or correct this contour."
            )
            where = _worst_shared_place(contours, child, parent, False, slice_axis)
            findings.append(Finding(child, "containment", "fault", message, where, parent))
    return findings


def _shared_voxels(contours: Contours) -> dict[tuple[str, str], int]:
    """Voxels that two structures share, by (name, name) in table order; one pass per pair of layers."""
    n_layers = len(contours.layers)
    joint = np.zeros((n_layers, n_layers, 256 * 256), dtype=np.int64)
    boxes = [facts.box for facts in contours.structures.values() if facts.box]
    y, x = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (1, 2))
    for number in range(contours.shape[0]):
        planes = [layer[number, y, x].reshape(-1) for layer in contours.layers]
        for first in range(n_layers - 1):
            index = np.flatnonzero(planes[first] != 0)
            codes = planes[first][index].astype(np.int64) * 256
            for second in range(first + 1, n_layers):
                joint[first, second] += np.bincount(codes + planes[second][index], minlength=256 * 256)
    shared = {}
    for a, b in combinations(contours.structures, 2):
        (layer_a, value_a), (layer_b, value_b) = (
            (contours.structures[name].layer, contours.structures[name].value) for name in (a, b)
        )
        if layer_a > layer_b:
            layer_a, value_a, layer_b, value_b = layer_b, value_b, layer_a, value_a
        if layer_a != layer_b:
            shared[a, b] = int(joint[layer_a, layer_b, value_a * 256 + value_b])
    return shared


def _voxels(contours: Contours, count: int) -> str:
    return (
        f"{count} {'voxel' if count == 1 else 'voxels'} ({words_for_cc(count * contours.geometry.voxel_volume_cc)} cc)"
    )


def _worst_shared_place(contours: Contours, a: str, b: str, inside_b: bool, slice_axis: int) -> Place:
    """The middle of the part of `a` inside (or outside) `b`, in the slice that holds most of it."""
    mask, box = contours.mask_in_box(a)
    facts = contours.structures[b]
    fault = mask & ((contours.layers[facts.layer][box] == facts.value) == inside_b)
    others = tuple(axis for axis in range(3) if axis != slice_axis)
    worst = int(np.count_nonzero(fault, axis=others).argmax())
    return middle_voxel(only_plane(fault, slice_axis, worst), box)
