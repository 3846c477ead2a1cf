"""An nnU-Net v2 raw dataset whose left and right labels have become one, so that training may mirror every axis.

The new dataset's `segrap.json` says, beside what the old one says, which structures each label is and that they are to
be parted into left and right: a model trained on it gives left and right structures again. Images are linked, not
copied.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from segrap import anatomy
from segrap.errors import InputError
from segrap.models.labels import read_labels
from segrap.writing import replacing_folder


def merge_sides(dataset: Path, target: Path) -> Path:
    """Write `dataset` with merged sides as the folder `target`, unless it is there, and return it.

    Raises InputError: labels that are regions, or no label that has a side, or one whose other side is not found; a
    label volume with other values.
    """
    if (target / "segrap.json").is_file():
        return target
    content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    said = dataset / "segrap.json"
    given = json.loads(said.read_text(encoding="utf-8")) if said.is_file() else {}
    table, labels, facts = plan_merging(content, given)
    facts = given | facts  # what else it says of itself, its channels above all, stays true
    with replacing_folder(target) as folder:
        shutil.copytree(dataset / "imagesTr", folder / "imagesTr", copy_function=_link)
        (folder / "labelsTr").mkdir()
        for path in sorted((dataset / "labelsTr").iterdir()):
            _merge_file(path, folder / "labelsTr" / path.name, table)
        if (dataset / "splits_final.json").is_file():
            shutil.copyfile(dataset / "splits_final.json", folder / "splits_final.json")
        for name, entries in (("dataset", content | {"labels": labels}), ("segrap", facts)):
            (folder / f"{name}.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return target


def plan_merging(
    content: dict[str, Any], given: dict[str, Any] | None = None
) -> tuple[np.ndarray, dict[str, int], dict[str, Any]]:
    """For the content of a dataset.json: the new number of each old label, the new labels, and what they mean.

    given: the content of the dataset's segrap.json, which may explain labels. Left and right labels are known by their
    names, NAME_L and NAME_R.
    Raises InputError, ModelError (labels that nothing explains).
    """
    given = given or {}
    known = read_labels(content, given)
    if known.region_order is not None:
        raise InputError("Regions overlap: their sides cannot be merged. Use a dataset of exclusive labels.")
    labels = {"background": 0}
    table = np.zeros(max(k for values in known.values.values() for k in values) + 1, dtype=np.uint8)
    structures: dict[str, list[str]] = {}
    split: dict[str, list[str]] = dict(given.get("split_at_midline") or {})
    already = len(split)
    for name, (number,) in known.values.items():
        stem = (
            name[:-2]
            if name.endswith(("_L", "_R")) and {f"{name[:-2]}_L", f"{name[:-2]}_R"} <= set(known.values)
            else name
        )
        table[number] = labels.setdefault(stem, len(labels))
        if name == stem or name.endswith("_L"):
            structures[stem] = list(known.structures[name])
        if name != stem and name.endswith("_L"):
            own = [s for s in (f"{stem}_L", *(given.get("structures") or {}).get(name, ())) if s in anatomy.NAMES]
            if own and own[0].endswith("_L"):
                split[stem] = [own[0], f"{own[0][:-2]}_R"]
    if len(split) == already:
        raise InputError("No label of this dataset has a left and a right side: there is nothing to merge.")
    # Mirrored in training, what stays of one side would be taught as the other too.
    whole = {side for pair in split.values() for side in pair}
    one_sided = [
        name
        for name, ours in structures.items()
        if any(one.endswith(("_L", "_R")) and one not in whole for one in ours)
    ]
    if one_sided:
        raise InputError(
            f"The other side of {', '.join(one_sided)} is not among the labels, and training would mirror it. Name the "
            "labels of both sides NAME_L and NAME_R, or train without merging sides."
        )
    return table, labels, {"structures": structures, "split_at_midline": split}


def _merge_file(path: Path, target: Path, table: np.ndarray) -> None:
    import SimpleITK as sitk  # noqa: N813

    volume = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(volume)
    if array.min() < 0 or array.max() >= len(table):
        raise InputError(f"{path} holds the label {array.max()}, which the dataset does not list.")
    merged = sitk.GetImageFromArray(table[array.astype(np.intp)])
    merged.CopyInformation(volume)
    sitk.WriteImage(merged, str(target), useCompression=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # another disk, or one that knows no links
