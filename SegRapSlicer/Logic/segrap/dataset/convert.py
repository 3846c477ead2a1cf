"""A SegRap download as nnU-Net v2 raw data: two channels, uint8 labels, the challenge's split and fixed folds.

    DatasetNNN_Name/
        dataset.json  splits_final.json  segrap.json  conversion.json
        imagesTr/segrap_0000_0000.nii.gz (non-contrast), segrap_0000_0001.nii.gz (contrast)
        labelsTr/segrap_0000.nii.gz
        imagesTs/  labelsTs/          patients from 0120 on, labels where there are any

All arrays are stored along the patient's axes (LPS), whatever the download did.

A patient whose label file is there is done, so that an interrupted conversion goes on where it ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segrap import anatomy
from segrap.dataset.patients import MasksOnDisk, Patient, find_patients, read_on_grid
from segrap.errors import InputError, UsageError
from segrap.image import AxisOrder, Image, read_image, write_image
from segrap.progress import Progress, ProgressCallback
from segrap.writing import cannot_write, replacing

Task = Literal["oar", "oar-regions", "gtv", "joint"]
NAMES: dict[Task, str] = {
    "oar": "Dataset231_SegRapOAR",
    "oar-regions": "Dataset232_SegRapOARRegions",
    "gtv": "Dataset233_SegRapGTV",
    "joint": "Dataset234_SegRapJoint",
}
TRAINING_PATIENTS = 120  # 0000 to 0119; the validation set has 0120 to 0139, the test set the rest
FOLDS = 5
FOLD_SEED = 2023


@dataclass(frozen=True)
class Conversion:
    """What `convert` made: its folder, patients in training and test, those without contours, and the voxels whose
    combination of structures no sub-class stands for, summed over patients."""

    folder: Path
    training: int
    test: int
    without_contours: tuple[str, ...]
    unmodelled_voxels: Mapping[str, int]


def convert(folder: str | Path, output: str | Path, task: Task, progress: ProgressCallback | None = None) -> Conversion:
    """Convert every patient of a download into `output`/DatasetNNN_Name.

    task: "oar": the 54 exclusive sub-classes of the organs; "oar-regions": the same volumes, trained as the organs
    themselves; "gtv": the two tumours; "joint": organs and tumours in one volume, as the shipped model has them.
    The organs' corrected masks are preferred, then the first ones, then the volumes of sub-classes.

    Raises InputError (no patient, a patient without its pair, grids that differ, damaged files), UsageError (the
    folder holds another conversion), OutputError. What was finished before stays, and is not done again.
    """
    patients = find_patients(folder)
    target = Path(output) / NAMES[task]
    try:
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (target / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    lost = _Lost(target / "conversion.json", task)
    without: list[str] = []
    for done, patient in enumerate(patients.values()):
        if progress:
            progress(Progress("Converting the patients", done / len(patients), patient.name))
        if not _convert(patient, target, task, lost):
            without.append(patient.name)
    training = sorted(path.name.removesuffix(".nii.gz") for path in (target / "labelsTr").glob("*.nii.gz"))
    test = len(list((target / "imagesTs").glob("*_0000.nii.gz")))
    _write_json(target / "splits_final.json", folds(training))
    _write_json(target / "dataset.json", dataset_json(task, len(training)))
    _write_json(target / "segrap.json", facts(task))
    return Conversion(target, len(training), test, tuple(without), lost.total())


def _convert(patient: Patient, target: Path, task: Task, lost: _Lost) -> bool:
    """Write one patient's images and labels; False when it has no contours for the task and is for training."""
    training = patient.number < TRAINING_PATIENTS
    label_path = target / ("labelsTr" if training else "labelsTs") / f"{patient.name}.nii.gz"
    if label_path.exists():
        return True
    patient.refuse_twice()
    if patient.has_one_scan_by_name:
        return False
    if patient.non_contrast is None or patient.contrast is None:
        raise InputError(f"{patient.name} lacks {'its contrast-enhanced' if patient.non_contrast else 'a'} image.")
    image = read_image(patient.non_contrast)
    contrast = read_on_grid(patient.contrast, image)
    labels = _labels(patient, image, task, lost)
    if labels is None and training:
        return False
    folder = target / ("imagesTr" if training else "imagesTs")
    # nnU-Net takes arrays as they are stored: only if all lie alike does it learn left from right.
    order = AxisOrder.towards_lps(image.geometry)
    for channel, (source, voxels) in enumerate(((patient.non_contrast, image), (patient.contrast, contrast))):
        target_path = folder / f"{patient.name}_{channel:04d}.nii.gz"
        if source.name.endswith(".nii.gz") and order.changes_nothing:
            with replacing(target_path) as temporary:
                shutil.copyfile(source, temporary)
        else:
            write_image(order.turn(voxels), target_path)
    if labels is not None:
        write_image(order.turn(Image(labels, image.geometry)), label_path)  # last: it says that the patient is done
    return labels is not None


def _labels(patient: Patient, image: Image, task: Task, lost: _Lost) -> np.ndarray | None:
    wanted = [s.name for s in anatomy.STRUCTURES if task == "joint" or s.is_target == (task == "gtv")]
    files = {name: path for name, path in patient.best_masks.items() if name in wanted}
    if task == "gtv":
        labels = np.zeros(image.shape, dtype=np.uint8)
        if files:
            masks = MasksOnDisk(files, image)
            # The primary tumour is written last: a voxel of both is its.
            for value, name in ((2, "GTVnd"), (1, "GTVp")):
                if name in masks:
                    labels[masks[name]] = value
            return labels
        return _label_volume(patient.targets, image, 2)
    if any(not anatomy.structure(name).is_target for name in files):
        labels, unmodelled = anatomy.subclasses_from_masks(MasksOnDisk(files, image))
        lost.remember(patient.name, unmodelled)
        return labels
    organs = _label_volume(patient.subclasses, image, max(_subclasses_of("oar")))
    if organs is not None and task == "joint":
        targets = MasksOnDisk(files, image)
        for name, mask in targets.items():
            organs[mask] = anatomy.structure(name).subclasses[0]
    return organs


def _label_volume(path: Path | None, image: Image, highest: int) -> np.ndarray | None:
    if path is None:
        return None
    labels = read_on_grid(path, image).array
    if labels.min() < 0 or labels.max() > highest:
        most = f"{labels.max():g}"
        raise InputError(f"{path.parent.name}/{path.name} holds values up to {most}; {highest} is the highest.")
    return labels.astype(np.uint8)


def _subclasses_of(task: Task) -> dict[int, str]:
    """Value -> name of the sub-classes that a task's volumes hold."""
    targets = {number for target in anatomy.TARGETS for number in target.subclasses}
    return {number: name for number, name in anatomy.SUBCLASSES.items() if task == "joint" or number not in targets}


def dataset_json(task: Task, training: int) -> dict[str, Any]:
    """nnU-Net v2's dataset.json. Both channels are called CT, so that nnU-Net clips and scales Hounsfield units by what
    the training set holds: z-scores of single images, which the challenge's baseline used, depend on how much air a
    cropped image shows."""
    content: dict[str, Any] = {"channel_names": {"0": "CT", "1": "CT"}}
    if task == "gtv":
        content["labels"] = {"background": 0} | {target.name: n for n, target in enumerate(anatomy.TARGETS, 1)}
    elif task == "oar-regions":
        regions = _regions()
        content["labels"] = {"background": 0} | {name: values for name, (values, _) in regions.items()}
        content["regions_class_order"] = [paints for _, paints in regions.values()]
    else:
        content["labels"] = {"background": 0} | {name: n for n, name in _subclasses_of(task).items()}
    return content | {
        "numTraining": training,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "name": NAMES[task],
        "licence": "as the download says; not to be redistributed",
    }


def _regions() -> dict[str, tuple[list[int], int]]:
    """Region -> its sub-classes and the one that it paints: organs with many sub-classes first, so that what lies
    inside them is painted over them, then the sub-classes where two organs overlap."""
    organs = sorted(anatomy.ORGANS, key=lambda organ: -len(organ.subclasses))
    own = {name: number for number, name in _subclasses_of("oar").items()}
    regions = {organ.name: (list(organ.subclasses), own[organ.name]) for organ in organs}
    return regions | {name: ([number], number) for name, number in own.items() if name not in regions}


def facts(task: Task) -> dict[str, Any]:
    """What segrap needs to be told of a model trained on this: copy the file into the model's folder."""
    return {
        "name": NAMES[task].split("_", 1)[1],
        "version": "unreleased",
        "intended_use": "research",
        "channels": ["non_contrast", "contrast"],
        "description": f"Trained on SegRap2023 ({task}).",
    }


def folds(names: list[str]) -> list[dict[str, list[str]]]:
    """Five folds of the training patients, the same wherever they are drawn; nnU-Net's splits_final.json."""
    order = np.random.default_rng(FOLD_SEED).permutation(len(names))
    parts = [sorted(names[i] for i in order[fold::FOLDS]) for fold in range(FOLDS)]
    return [{"train": sorted(set(names) - set(part)), "val": part} for part in parts]


class _Lost:
    """Which combinations of structures no sub-class stands for, per patient; kept on disk across interruptions."""

    def __init__(self, path: Path, task: Task) -> None:
        self._path = path
        self._content: dict[str, Any] = {"task": task, "unmodelled_voxels": {}}
        if path.exists():
            self._content = json.loads(path.read_text(encoding="utf-8"))
            if self._content["task"] != task:
                raise UsageError(f"{path.parent} holds a conversion for another task ({self._content['task']}).")

    def remember(self, patient: str, voxels: Mapping[str, int]) -> None:
        """Add a patient's voxels by combination, and write the file."""
        self._content["unmodelled_voxels"][patient] = dict(voxels)
        _write_json(self._path, self._content)

    def total(self) -> dict[str, int]:
        """Voxels by combination over all patients, most first."""
        sums: dict[str, int] = {}
        for voxels in self._content["unmodelled_voxels"].values():
            for combination, count in voxels.items():
                sums[combination] = sums.get(combination, 0) + count
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
