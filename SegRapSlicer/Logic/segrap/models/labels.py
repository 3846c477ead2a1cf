"""What the labels of a model mean: from the names in its `dataset.json` to the structures and label layers of segrap.

A label is named after a structure ("Parotid_L"), after one of the challenge's sub-classes, whose unions are structures
("MiddleEar_ETbone_OverLap_L"), or, for models with names of their own, the model folder's `segrap.json` says which
structures each label belongs to. A name that none of these explains is refused: nobody may guess which organ it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segrap import anatomy
from segrap.errors import ModelError


@dataclass(frozen=True)
class OutputPlan:
    """How the class scores of one voxel become its values in the label layers.

    table: (layers, labels) uint8; the layers of a voxel with label k are `table[:, k]`.
    region_order: None for exclusive labels (k is the index of the highest score). For region models, the label that
        each score channel paints where it is above 0 (sigmoid above 0.5); later channels paint over earlier ones.
    placement: structure -> (layer, value) of all structures in the table, in table order of `anatomy`.
    pairs: (left, right) structures that come as one: the table paints the left one, `segrap.midline` splits it.
    """

    table: np.ndarray
    region_order: tuple[int, ...] | None
    placement: dict[str, tuple[int, int]]
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Labels:
    """The labels of one model.

    values: label name -> its integer, or its several integers if it is a region; background and ignore left out.
    region_order: as in OutputPlan.
    structures: label name -> the structures that its voxels belong to (none: the label is not for segrap).
    pairs: (left, right) structures of labels without a side: such a label belongs to the left one until it is split.
    """

    values: dict[str, tuple[int, ...]]
    region_order: tuple[int, ...] | None
    structures: dict[str, tuple[str, ...]]
    pairs: tuple[tuple[str, str], ...] = ()

    @property
    def score_channels(self) -> int:
        """How many class scores the network has: all labels with background, or the regions."""
        return len(self.values) + 1 if self.region_order is None else len(self.region_order)

    @property
    def covered(self) -> tuple[str, ...]:
        """The structures that the model contours, in the order of `anatomy`."""
        named = {name for names in self.structures.values() for name in names}
        named |= {right for _, right in self.pairs}
        return tuple(name for name in anatomy.NAMES if name in named)

    def output_plan(self, wanted: Iterable[str] | None = None) -> OutputPlan:
        """Plan the label layers of the wanted structures (all that the model contours, if None). Of a pair that comes
        as one, both are planned as soon as one is wanted.

        Raises ModelError when the model does not contour a wanted structure, or when its labels put two structures
        that share a label layer into the same voxels.
        """
        names = self.covered if wanted is None else tuple(wanted)
        missing = [name for name in names if name not in self.covered]
        if missing:
            raise ModelError(f"The model does not contour {', '.join(missing)}. It contours {', '.join(self.covered)}.")
        pairs = tuple(pair for pair in self.pairs if set(pair) & set(names))
        names = (*names, *(side for pair in pairs for side in pair))
        placement = {name: anatomy.layer_and_value(name) for name in anatomy.NAMES if name in names}
        highest = max(k for group in (*self.values.values(), self.region_order or ()) for k in group)
        table = np.zeros((len(anatomy.LAYERS), highest + 1), dtype=np.uint8)
        for label, values in self.values.items():
            for name in self.structures[label]:
                if name not in placement:
                    continue
                layer, value = placement[name]
                for k in values:
                    if table[layer, k] not in (0, value):
                        other = anatomy.LAYERS[layer][table[layer, k] - 1]
                        raise ModelError(
                            f"The model's label {k} would be both {name} and {other}, which never overlap."
                        )
                    table[layer, k] = value
        return OutputPlan(table, self.region_order, placement, pairs)


def read_labels(dataset: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Labels:
    """Read `labels` (and `regions_class_order`) of a `dataset.json`, as nnU-Net's own label manager does.

    facts: the content of `segrap.json`: `structures` (label name -> names of its structures, for labels with names of
    their own) and `split_at_midline` (label name -> [left, right], for labels without a side).
    Raises ModelError when labels are not consecutive, when regions lack their order, or when a name is unknown.
    """
    raw = dataset.get("labels")
    if not isinstance(raw, Mapping) or raw.get("background") != 0 or len(raw) < 2:
        raise ModelError("The model's dataset.json does not list `labels` with `background` as 0 and something else.")
    values: dict[str, tuple[int, ...]] = {}
    for name, value in raw.items():
        numbers = tuple(value) if isinstance(value, list) else (value,)
        if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ModelError(f"The model's label {name} has the value {value!r}, which is not a label number.")
        if name != "ignore" and set(numbers) != {0}:
            values[str(name)] = numbers
    region_order = None
    if any(len(numbers) > 1 for numbers in values.values()):
        region_order = _region_order(dataset, len(values))
    numbers_used = sorted({number for numbers in values.values() for number in numbers} | set(region_order or ()))
    if numbers_used != list(range(1, len(numbers_used) + 1)) or len(numbers_used) > 255:
        raise ModelError(f"The model's labels must be the numbers 1 to at most 255 without gaps, not {numbers_used}.")
    if region_order is None and len(values) != len(numbers_used):
        raise ModelError("Two labels of the model have the same number.")
    facts = facts or {}
    pairs = _pairs(facts.get("split_at_midline") or {})
    # A label without a side may belong to more than its own structure (a lens to the eye): `structures` says so.
    meanings = {**{label: [pair[0]] for label, pair in pairs.items()}, **(facts.get("structures") or {})}
    return Labels(values, region_order, _meanings(tuple(values), meanings), tuple(pairs.values()))


def _pairs(given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    pairs = {}
    for label, sides in given.items():
        known = [anatomy.find_structure(side) for side in sides] if isinstance(sides, list) else []
        found = [side for side in known if side]
        if [side.laterality for side in found] != ["left", "right"]:
            raise ModelError(
                f"The model's segrap.json splits {label} into {sides!r}, not a left and a right structure."
            )
        pairs[label] = (found[0].name, found[1].name)
    return pairs


def _region_order(dataset: Mapping[str, Any], count: int) -> tuple[int, ...]:
    order = dataset.get("regions_class_order")
    if not isinstance(order, list) or len(order) != count or not all(isinstance(k, int) and k > 0 for k in order):
        raise ModelError(
            f"The model has {count} regions; its dataset.json must give as many numbers in `regions_class_order`."
        )
    return tuple(order)


def _meanings(names: tuple[str, ...], given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    foreign = [name for name in given if name not in names]
    if foreign:
        raise ModelError(f"The model's segrap.json explains labels that it does not have: {', '.join(foreign)}.")
    meanings: dict[str, tuple[str, ...]] = {}
    for name, structures in given.items():
        if isinstance(structures, str) or not all(s in anatomy.NAMES for s in structures):
            raise ModelError(
                f"The model's segrap.json gives label {name} the structures {structures!r}, not a list of SegRap names."
            )
        meanings[name] = tuple(structures)
    rest = [name for name in names if name not in meanings]
    subclasses = {subclass.casefold(): number for number, subclass in anatomy.SUBCLASSES.items()}
    unknown = [name for name in rest if name.casefold() not in subclasses and anatomy.find_structure(name) is None]
    if unknown:
        raise ModelError(
            f"The model has labels that are neither structures nor sub-classes of SegRap2023: {', '.join(unknown)}. "
            "If you know what they are, add `structures` to its segrap.json: {label: [structure, ...]}."
        )
    # Only the challenge's overlap classes have names that are not structures too: they tell the two schemes apart.
    if any(anatomy.find_structure(name) is None for name in rest):
        return meanings | _meanings_of_subclasses({name: subclasses[name.casefold()] for name in rest})
    return meanings | _meanings_of_structures(rest)


def _meanings_of_subclasses(numbers: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    # A structure of which some sub-class is not among the labels would come out incomplete: it is left out.
    whole = {s.name for s in anatomy.STRUCTURES if set(s.subclasses) <= set(numbers.values())}
    return {
        name: tuple(structure for structure in anatomy.members(number) if structure in whole)
        for name, number in numbers.items()
    }


def _meanings_of_structures(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = {name: structure.name for name in names if (structure := anatomy.find_structure(name)) is not None}
    covered = set(found.values())
    return {
        # A brainstem label also belongs to the brain, if the model contours the brain: that is the brain's definition.
        name: (own, *(p for child, p in anatomy.CONTAINMENTS if child == own and p in covered))
        for name, own in found.items()
    }
