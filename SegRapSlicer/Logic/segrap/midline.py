"""Left and right: where the patient's middle plane is, and parting what a model draws as one into its two sides.

Points are (z, y, x) in mm: z grows to the head, y to the back, x to the patient's left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segrap import anatomy

MIDLINE = ("Brain", "BrainStem", "Chiasm", "Pituitary", "SpinalCord", "OralCavity", "PharynxConst", "Larynx", "Trachea")
"""Structures whose centre lies in the middle plane. Thyroid and esophagus lie aside too often."""

ONE_BODY = frozenset({"Mandible_L", "Mandible_R"})
"""Halves of one structure, which meet in the middle plane. All other sides lie apart from their twin."""

_ROUNDS = 8
_MOST_TILT_DEGREES = 30  # a head turned further than that against the couch is no planning position
# The centres of a structure's two sides lie further apart than this (optic nerves 40 mm, submandibular glands 65 mm),
# those of the halves of a single gland, lobe or half jaw do not.
_APART_MM = 30.0
# Landmarks count less the further they lie along the patient: a neck may bend.
_NEAR_MM = 50.0
# A piece with less than this share beyond the plane belongs to one side as a whole; of a half jaw only if it is so
# little that it tells of the plane, which is known to some mm only.
_TONGUE_SHARE, _TONGUE_SHARE_OF_JAW = 0.25, 0.05
_BONE_HU = 200
_BONE_MM2 = 500.0  # less in one slice shows no middle
_BONE_EVERY_MM = 15.0


class Landmark(NamedTuple):
    """A point in the middle plane and what shows it; of a pair of sides also the way from its right to its left one."""

    name: str
    point: np.ndarray
    across: np.ndarray | None = None


class Plane(NamedTuple):
    """A plane between left and right: its unit normal, which points to the left, and how far along that it lies."""

    normal: np.ndarray
    offset_mm: float

    def left_mm(self, points: np.ndarray) -> np.ndarray:
        """How far the points (..., 3) lie to the left of it; negative to the right."""
        return np.asarray(points @ self.normal - self.offset_mm)


def stem_of(name: str) -> str:
    """The name of a structure without its side."""
    return name[:-2] if anatomy.structure(name).laterality else name


def landmarks(centres: Mapping[str, np.ndarray]) -> list[Landmark]:
    """What the centres of structures, by name, tell of the middle: those that lie in it, and the middles of pairs.

    Which of a pair is called left does not matter; one whose line does not run from side to side tells nothing. Of a
    jaw only the place counts: the line between its halves was off by 20 degrees in OpenKBP patients who lay straight.
    """
    found = [Landmark(name, centres[name]) for name in MIDLINE if name in centres]
    for left, centre in centres.items():
        right = f"{stem_of(left)}_R"
        if anatomy.structure(left).laterality == "left" and right in centres:
            across = centre - centres[right]
            if abs(across[2]) > max(_APART_MM, np.cos(np.radians(_MOST_TILT_DEGREES)) * np.linalg.norm(across)):
                way = None if left in ONE_BODY else across
                found.append(Landmark(stem_of(left), (centre + centres[right]) / 2, way))
    return found


def bone_middles(hu: np.ndarray, spacing_zyx: Sequence[float]) -> np.ndarray:
    """The middle of the bone in a slice every 15 mm, (n, 3) index (z, y, x): skull, jaw, spine and shoulders are alike
    on both sides. hu: (z, y, x) in LPS order."""
    step_z, step_y, step_x = (
        max(1, round(every / spacing)) for every, spacing in zip((_BONE_EVERY_MM, 2.0, 2.0), spacing_zyx, strict=True)
    )
    pixel_mm2 = spacing_zyx[1] * step_y * spacing_zyx[2] * step_x
    found = []
    for z in range(step_z // 2, hu.shape[0], step_z):
        y, x = np.nonzero(hu[z, ::step_y, ::step_x] > _BONE_HU)
        if len(y) * pixel_mm2 >= _BONE_MM2:
            found.append((z, np.median(y) * step_y, np.median(x) * step_x))
    return np.array(found, dtype=np.float64).reshape(-1, 3)


def middle_plane(marks: Sequence[Landmark], height_mm: float) -> Plane | None:
    """The patient's middle plane about a height (z), or None where fewer than three landmarks show it.

    Medians of what each landmark says, so that a few of them may be wrong: the plane's turn and tilt from the pairs
    (upright without), its place from all, the more the nearer they lie.
    """
    if len(marks) < 3:
        return None
    slopes = [mark.across / mark.across[2] for mark in marks if mark.across is not None]
    normal = np.median(slopes, axis=0) if slopes else np.array([0.0, 0.0, 1.0])
    normal /= np.linalg.norm(normal)
    points = np.array([mark.point for mark in marks])
    weights = 1 / (1 + ((points[:, 0] - height_mm) / _NEAR_MM) ** 2)
    along = points @ normal
    order = np.argsort(along)
    share = np.cumsum(weights[order]) - weights[order] / 2
    return Plane(normal, float(np.interp(weights.sum() / 2, share, along[order])))


def split_sides(
    layers: np.ndarray,
    placement: Mapping[str, tuple[int, int]],
    pairs: Sequence[tuple[str, str]],
    spacing_zyx: Sequence[float],
    hu: np.ndarray | None = None,
) -> tuple[str, ...]:
    """Give the right part of each pair's structure to its right-hand name, in place.

    The patient's middle plane decides, as other structures and the bones show it; where too little does, the plane
    between the structure's own halves, and for what does not look like two sides the middle of the scan. Only a jaw is
    cut there: a piece of anything else stays whole unless it reaches far to both sides, so that a side which is not
    there stays empty.

    layers: (layer, z, y, x) uint8 in LPS order; all of a pair is painted as its left structure. placement: (layer,
    value) of each structure. pairs: (left, right) names. spacing_zyx: mm. hu: the CT, (z, y, x), of the same order.
    Returns remarks: what a person should know who reads these contours.
    """
    if not pairs:
        return ()
    spacing = np.asarray(spacing_zyx, dtype=np.float64)
    right_of = dict(pairs)
    voxels, halves, centres = {}, {}, {}
    for name, index in _voxels(layers, placement):
        centres[name] = index.mean(axis=1) * spacing
        if name in right_of:
            points = index.T * spacing
            voxels[name], halves[name] = index, (half := on_the_left(points))
            if half.any() and not half.all():
                centres[name], centres[right_of[name]] = points[half].mean(axis=0), points[~half].mean(axis=0)
    marks = landmarks(centres)
    if hu is not None:
        marks += [Landmark("bone", middle * spacing) for middle in bone_middles(hu, spacing_zyx)]

    remarks = []
    for left, index in voxels.items():
        right, on_left = right_of[left], halves[left]
        stem = stem_of(left)
        plane = middle_plane([mark for mark in marks if mark.name != stem], float(index[0].mean() * spacing[0]))
        by_scan = plane is None and left not in ONE_BODY and all(mark.name != stem for mark in marks)
        if by_scan:
            plane = Plane(np.array([0.0, 0.0, 1.0]), (layers.shape[3] - 1) / 2 * float(spacing[2]))
        if plane:
            on_left = plane.left_mm(index.T * spacing) > 0
        on_left = _whole_pieces(index, on_left, _TONGUE_SHARE_OF_JAW if left in ONE_BODY else _TONGUE_SHARE)
        layer, _ = placement[left]
        target, value = placement[right]
        beyond = tuple(index[:, ~on_left])
        layers[layer][beyond] = 0
        layers[target][beyond] = value
        if on_left.all() or not on_left.any():
            side, other = ("left", right) if on_left.all() else ("right", left)
            remark = f"All that was found of {left} and {right} lies on the patient's {side}, so {other} is empty."
            check = " Too little else shows the patient's middle: that of the scan was taken. Check the side."
            remarks.append(remark + check * by_scan)
    return tuple(remarks)


def _voxels(layers: np.ndarray, placement: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each structure that has voxels, and their (3, n) index (z, y, x)."""
    from scipy import ndimage  # not before it is needed: Slicer imports this module when it starts

    boxes = [ndimage.find_objects(layer) for layer in layers]
    for name, (layer, value) in placement.items():
        box = boxes[layer][value - 1] if value <= len(boxes[layer]) else None
        if box is not None:
            inside = np.array(np.nonzero(layers[layer][box] == value))
            yield name, inside + np.array([[axis.start] for axis in box])


def _whole_pieces(index: np.ndarray, on_left: np.ndarray, tongue_share: float) -> np.ndarray:
    """Which of the voxels, (3, n) index, are left ones when a piece that has less than this share on the other side
    belongs to one as a whole."""
    from scipy import ndimage

    low = index.min(axis=1, keepdims=True)
    inside = np.zeros(tuple((index - low).max(axis=1) + 1), dtype=bool)
    inside[tuple(index - low)] = True
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    piece = pieces[tuple(index - low)]
    share = np.bincount(piece, on_left, count + 1) / np.maximum(np.bincount(piece, minlength=count + 1), 1)
    grown_together = np.abs(share - 0.5) <= 0.5 - tongue_share
    return np.where(grown_together[piece], on_left, share[piece] > 0.5)


def on_the_left(points_mm: np.ndarray) -> np.ndarray:
    """Which of the points (n, 3) lie to the left of the plane that parts them into two like halves.

    The plane stands half-way between the centres of the halves and across the line that joins them, so it follows a
    turned or tilted head. Where that line does not run from side to side, or a half is empty, the plane is upright,
    in the middle of the points' extent from right to left.
    """
    upright = points_mm[:, 2] >= (points_mm[:, 2].min() + points_mm[:, 2].max()) / 2
    left = upright
    for _ in range(_ROUNDS):
        if left.all() or not left.any():
            return upright
        centres = points_mm[left].mean(axis=0), points_mm[~left].mean(axis=0)
        across = centres[0] - centres[1]
        if across[2] < np.cos(np.radians(_MOST_TILT_DEGREES)) * np.linalg.norm(across):
            return upright
        moved = (points_mm - (centres[0] + centres[1]) / 2) @ across >= 0
        if np.array_equal(moved, left):
            break
        left = moved
    return left
