"""The 45 organs at risk and 2 gross tumour volumes of SegRap2023, read from the one table beside this file.

The table's rows stand in the challenge's channel order. All else is derived from it: sub-class names, which structures
contain or overlap which, the label layers, other orders. Sub-classes are the challenge's 54 exclusive classes (its
"OneHot" volumes hold their ids); 55 and 56 extend them by GTVp and GTVnd, so that one exclusive label volume can state
a whole patient. Sources: HiLab-git/SegRap2023 (names, order, unions, tolerances), TG-263 (names), SNOMED CT as used in
DICOM and HL7 mCODE (codes), statistics of the 120 training cases (volumes).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np

from segrap.errors import InputError, UsageError


@dataclass(frozen=True)
class Structure:
    """One row of the table.

    name: SegRap's spelling. tg263_name: at most 16 characters, as planning systems want it (ETbone, IAC, TympanicCav
    and VestibulSemi are not in TG-263's list and follow its pattern). group: the part of the anatomy that it is listed
    under. channel: place in the challenge's output stack of
    its kind. subclasses: ids of the exclusive classes whose union it is. snomed: (code, meaning) of its type.
    volume_range_cc: smallest and largest in the 120 training cases (for unions of sub-classes the sums of their
    smallest and largest, hence loose). nsd_tolerance_mm: of the challenge's published evaluation script.
    """

    name: str
    tg263_name: str
    kind: str
    group: str
    laterality: str
    channel: int
    subclasses: tuple[int, ...]
    snomed: tuple[str, str]
    colour: tuple[int, int, int]
    nsd_tolerance_mm: float
    volume_range_cc: tuple[float, float]
    volume_mean_cc: float
    description: str

    @property
    def is_target(self) -> bool:
        """True for the gross tumour volumes."""
        return self.kind == "GTV"


def _read_table() -> tuple[Structure, ...]:
    structures: list[Structure] = []
    with (Path(__file__).parent / "anatomy.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            structures.append(
                Structure(
                    name=row["name"],
                    tg263_name=row["tg263_name"],
                    kind=row["kind"],
                    group=row["group"],
                    laterality=row["laterality"],
                    channel=sum(other.kind == row["kind"] for other in structures),
                    subclasses=tuple(int(number) for number in row["subclasses"].split()),
                    snomed=(row["snomed_code"], row["snomed_meaning"]),
                    colour=(int(row["red"]), int(row["green"]), int(row["blue"])),
                    nsd_tolerance_mm=float(row["nsd_tolerance_mm"]),
                    volume_range_cc=(float(row["volume_min_cc"]), float(row["volume_max_cc"])),
                    volume_mean_cc=float(row["volume_mean_cc"]),
                    description=row["description"],
                )
            )
    return tuple(structures)


STRUCTURES: tuple[Structure, ...] = _read_table()
NAMES: tuple[str, ...] = tuple(structure.name for structure in STRUCTURES)
ORGANS: tuple[Structure, ...] = tuple(structure for structure in STRUCTURES if not structure.is_target)
TARGETS: tuple[Structure, ...] = tuple(structure for structure in STRUCTURES if structure.is_target)

GROUPS: dict[str, tuple[Structure, ...]] = {
    group: tuple(structure for structure in STRUCTURES if structure.group == group)
    for group in dict.fromkeys(structure.group for structure in STRUCTURES)
}
"""Part of the anatomy -> its structures, each in table order."""

_BY_NAME = {structure.name: structure for structure in STRUCTURES}
_BY_FOLDED_NAME = {structure.name.casefold(): structure for structure in STRUCTURES}
_MEMBERS = {
    number: tuple(structure for structure in STRUCTURES if number in structure.subclasses)
    for number in sorted({number for structure in STRUCTURES for number in structure.subclasses})
}

CONTAINMENTS: tuple[tuple[str, str], ...] = tuple(
    (child.name, parent.name)
    for child in STRUCTURES
    for parent in STRUCTURES
    if set(child.subclasses) < set(parent.subclasses)
)
"""(child, parent) pairs: every voxel of the child belongs to the parent by definition."""

OVERLAPS: frozenset[frozenset[str]] = frozenset(
    frozenset((a.name, b.name)) for a, b in combinations(STRUCTURES, 2) if set(a.subclasses) & set(b.subclasses)
)
"""Pairs of structures that may share voxels, containments included. Besides these, a target may overlap any organ."""


def structure(name: str) -> Structure:
    """The structure of that exact SegRap name. Raises KeyError."""
    return _BY_NAME[name]


def find_structure(name: str) -> Structure | None:
    """The structure of that SegRap name in any case ("brainstem"), or None."""
    return _BY_FOLDED_NAME.get(name.casefold())


def choose(names: Iterable[str]) -> tuple[str, ...]:
    """The structures a person asked for, in table order: SegRap names in any case, or the groups OARs, GTVs, all.

    Raises UsageError that names what is unknown.
    """
    groups = {"all": NAMES, "oars": tuple(s.name for s in ORGANS), "gtvs": tuple(s.name for s in TARGETS)}
    chosen: set[str] = set()
    unknown: list[str] = []
    for name in names:
        found = find_structure(name)
        if name.casefold() in groups:
            chosen.update(groups[name.casefold()])
        elif found:
            chosen.add(found.name)
        else:
            unknown.append(name)
    if unknown or not chosen:
        raise UsageError(
            f"No such structure: {', '.join(unknown) or '(none given)'}. "
            f"Known are {', '.join(NAMES)}; and OARs, GTVs, all."
        )
    return tuple(name for name in NAMES if name in chosen)


def may_overlap(a: str, b: str) -> bool:
    """True when the definitions allow the two structures to share voxels."""
    one_target = structure(a).is_target != structure(b).is_target
    return one_target or frozenset((a, b)) in OVERLAPS


def alphabetical() -> tuple[Structure, ...]:
    """The 45 organs in the order of the challenge's tables (alphabetical, letter case ignored)."""
    return tuple(sorted(ORGANS, key=lambda organ: organ.name.casefold()))


def _subclass_name(number: int) -> str:
    # The innermost structure names a sub-class; where two neither of which holds the other meet, both do.
    holders = {parent for child, parent in CONTAINMENTS if child in {s.name for s in _MEMBERS[number]}}
    innermost = [s for s in _MEMBERS[number] if s.name not in holders]
    if len(innermost) == 1:
        return innermost[0].name
    side = innermost[0].name[-2:] if innermost[0].laterality else ""
    return "_".join(s.name.removesuffix(side) for s in innermost) + "_OverLap" + side


SUBCLASSES: dict[int, str] = {number: _subclass_name(number) for number in _MEMBERS}
"""Sub-class id (1..56) -> the challenge's name of it."""


def members(subclass: int) -> tuple[str, ...]:
    """The structures of whose union this sub-class is a part. Raises KeyError."""
    return tuple(structure.name for structure in _MEMBERS[subclass])


def _assign_layers() -> tuple[tuple[str, ...], ...]:
    layers: list[list[str]] = []
    for organ in ORGANS:
        for layer in layers:
            if not any(may_overlap(organ.name, other) for other in layer):
                layer.append(organ.name)
                break
        else:
            layers.append([organ.name])
    return (*map(tuple, layers), tuple(target.name for target in TARGETS))


LAYERS: tuple[tuple[str, ...], ...] = _assign_layers()
"""The fewest label layers in which no two structures of a layer may overlap: three for the organs, one for targets."""

_PLACES = {name: (number, value) for number, names in enumerate(LAYERS) for value, name in enumerate(names, 1)}


def layer_and_value(name: str) -> tuple[int, int]:
    """Where a structure lives in the label layers: (layer, value from 1). Raises KeyError."""
    return _PLACES[name]


def masks_from_subclasses(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Sub-class ids (any shape, 0..56) as one boolean mask per structure, in table order.

    Raises InputError on a value outside the table.
    """
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= max(SUBCLASSES):
        raise InputError(
            f"The sub-class volume holds values {labels.min()} to {labels.max()}; "
            f"only 0 to {max(SUBCLASSES)} have a meaning."
        )
    return {s.name: np.isin(labels, s.subclasses) for s in STRUCTURES}


def subclasses_from_masks(
    masks: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, dict[str, int]]:
    """Masks of one shape, by structure name, as exclusive sub-class ids (uint8), and what that could not keep.

    All 45 organs must be there, an empty mask for one that the patient has not: the voxels of an organ without a mask
    would pass for another organ, or for background. The targets may be left out.

    Every set of structures that a sub-class stands for is kept exactly. A voxel whose set no sub-class stands for takes
    the sub-class that shares most with it (of equals the smaller set), and is counted in the second result under the
    names it lost or gained: {"Cochlea_L + GTVp": 12}. So the doubt is visible. Of a tumour in organs the tumour stays,
    however many organs it lies in: what is lost to it is there in the organs around.

    Raises KeyError on an unknown name, ValueError when an organ has no mask.
    """
    names = [name for name in NAMES if name in masks]
    if set(masks) - set(names):
        raise KeyError(sorted(set(masks) - set(names))[0])
    if missing := [organ.name for organ in ORGANS if organ.name not in masks]:
        raise ValueError(f"no masks of {', '.join(missing)}")
    code = np.zeros(masks[names[0]].shape, dtype=np.uint64)
    for bit, name in enumerate(names):
        code[np.asarray(masks[name], dtype=bool)] |= np.uint64(1 << bit)
    inside = np.flatnonzero(code)  # a few per cent of a scan
    found, inverse, counts = np.unique(code.ravel()[inside], return_inverse=True, return_counts=True)
    subclass_of = np.zeros(len(found), dtype=np.uint8)
    unmodelled: dict[str, int] = {}
    for position, (bits, count) in enumerate(zip(found.tolist(), counts.tolist(), strict=True)):
        present = frozenset(name for bit, name in enumerate(names) if bits >> bit & 1)
        subclass_of[position], exact = _nearest_subclass(present, frozenset(names))
        if not exact:
            unmodelled[" + ".join(name for name in NAMES if name in present)] = count
    subclasses = np.zeros(code.shape, dtype=np.uint8)
    subclasses.ravel()[inside] = subclass_of[inverse]
    return subclasses, unmodelled


@cache
def _nearest_subclass(present: frozenset[str], known: frozenset[str]) -> tuple[int, bool]:
    if not present:
        return 0, True

    targets = frozenset(target.name for target in TARGETS) & present

    def key(number: int) -> tuple[int, int, int]:
        members_here = known & set(members(number))
        return len(targets - members_here), len(members_here ^ present), len(members_here)

    best = min(SUBCLASSES, key=key)
    return best, key(best)[1] == 0
