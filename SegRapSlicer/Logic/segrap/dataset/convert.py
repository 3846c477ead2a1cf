"""A SegRap download as nnU-Net v2 raw data: two channels, uint8 labels, the challenge's split and fixed folds.

    DatasetNNN_Name/
        dataset.json  splits_final.json  segrap.json  conversion.json
        imagesTr/segrap_0000_0000.nii.gz (non-contrast), segrap_0000_0001.nii.gz (contrast)
        labelsTr/segrap_0000.nii.gz
        imagesTs/  labelsTs/          patients from 0120 on, labels where there are any

All arrays are stored along the patient's axes (LPS), whatever the download did.

conversion.json says of every finished patient which files it was made of, with their sizes and times. Whose files are
still those is not converted again: an interrupted conversion goes on where it ended, and contours that are corrected
later are taken in. dataset.json comes last: while patients are being written, there is none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segrap import anatomy
from segrap.dataset.patients import CONVERSION, MasksOnDisk, Patient, find_patients, read_on_grid, read_volume
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
    """What `convert` made.

    training, test: patients in its folder. redone: how many of them were there and were made again, because their files
    in the download are no longer those of the last time. without_contours: the patients of whom no labels were made,
    and why. unmodelled_voxels: those whose combination of structures no sub-class stands for, summed over patients.
    """

    folder: Path
    training: int
    test: int
    redone: int
    without_contours: Mapping[str, str]
    unmodelled_voxels: Mapping[str, int]


def convert(folder: str | Path, output: str | Path, task: Task, progress: ProgressCallback | None = None) -> Conversion:
    """Convert every patient of a download into `output`/DatasetNNN_Name.

    task: "oar": the 54 exclusive sub-classes of the organs; "oar-regions": the same volumes, trained as the organs
    themselves; "gtv": the two tumours; "joint": organs and tumours in one volume, as the shipped model has them.
    A structure's corrected mask is preferred, then the first one, then the volume of sub-classes or of targets. Where
    one structure of the task has none of these, the patient is left out (for testing: converted without labels), as its
    voxels would be taught as another structure or as background.

    Raises InputError (no patient, none with contours for the task, one without its pair, grids that differ, damaged
    files), UsageError (the folder holds another conversion), OutputError. What was finished before stays, and is made
    again only where its files have changed.
    """
    folder, target = Path(folder), Path(output) / NAMES[task]
    patients = find_patients(folder)
    try:
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (target / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    record = _Record(target / CONVERSION, task)
    without: dict[str, str] = {}
    redone = 0
    for done, patient in enumerate(patients.values()):
        if progress:
            progress(Progress("Converting the patients", done / len(patients), patient.name))
        patient.refuse_twice()
        if reason := _reason_without(patient, task):
            without[patient.name] = reason
        redone += _convert(patient, not reason, folder, target, task, record)
    training = sorted(path.name.removesuffix(".nii.gz") for path in (target / "labelsTr").glob("segrap_*.nii.gz"))
    test = len(list((target / "imagesTs").glob("segrap_*_0000.nii.gz")))
    if not training and not test:
        raise InputError(f"No patient under {folder} can be converted: {'; '.join(sorted(set(without.values())))}.")
    _write_json(target / "splits_final.json", folds(training))
    _write_json(target / "segrap.json", facts(task))
    _write_json(target / "dataset.json", dataset_json(task, len(training)))
    return Conversion(target, len(training), test, redone, without, record.unmodelled_voxels())


def _reason_without(patient: Patient, task: Task) -> str | None:
    """Why no labels can be made of a patient, in words; None when they can."""
    if patient.has_one_scan_by_name:
        return "one scan only"
    if not patient.has_parts:
        return "only files that are no part of it"
    names = _structures(task)
    missing = patient.lacks(names)
    if len(missing) == len(names):
        return "no contours for this task"
    return f"no contour of {', '.join(missing)}" if missing else None


def _structures(task: Task) -> list[str]:
    return [s.name for s in anatomy.STRUCTURES if task == "joint" or s.is_target == (task == "gtv")]


def _convert(patient: Patient, with_labels: bool, folder: Path, target: Path, task: Task, record: _Record) -> bool:
    """Write one patient's images and labels where they are not up to date; True when older ones were replaced."""
    training = patient.number < TRAINING_PATIENTS
    part = "Tr" if training else "Ts"
    image_paths = [target / f"images{part}" / f"{patient.name}_{channel:04d}.nii.gz" for channel in (0, 1)]
    label_path = target / f"labels{part}" / f"{patient.name}.nii.gz"
    complete = target / "dataset.json"
    if patient.has_one_scan_by_name or not patient.has_parts:
        return False
    if patient.non_contrast is None or patient.contrast is None:
        raise InputError(f"{patient.name} lacks {'its contrast-enhanced' if patient.non_contrast else 'any'} image.")
    if training and not with_labels:
        if earlier := [path for path in (label_path, *image_paths) if path.exists()]:
            _remove(complete, *earlier)
        record.forget(patient.name)
        return False
    files = {name: path for name, path in patient.sources.items() if with_labels and name in _structures(task)}
    states = _states({patient.non_contrast, patient.contrast, *files.values()}, folder)
    before = record.states(patient.name)
    if before == states and all(path.exists() for path in (*image_paths, *[label_path] * with_labels)):
        return False
    redone = label_path.exists() if before is None else before != states
    image = read_image(patient.non_contrast)
    contrast = read_on_grid(patient.contrast, image)
    labels, unmodelled = _labels(files, image, task) if with_labels else (None, {})
    # No older label may stand beside newer images, and nobody may take the data set for a whole one meanwhile.
    _remove(complete, label_path)
    # nnU-Net takes arrays as they are stored: only if all lie alike does it learn left from right.
    order = AxisOrder.towards_lps(image.geometry)
    sources = (patient.non_contrast, patient.contrast)
    for source, voxels, path in zip(sources, (image, contrast), image_paths, strict=True):
        if source.name.endswith(".nii.gz") and order.changes_nothing:
            with replacing(path) as temporary:
                shutil.copyfile(source, temporary)
        else:
            write_image(order.turn(voxels), path)
    if labels is not None:
        write_image(order.turn(Image(labels, image.geometry)), label_path)
    record.remember(patient.name, states, unmodelled)
    return redone


def _labels(files: Mapping[str, Path], image: Image, task: Task) -> tuple[np.ndarray, Mapping[str, int]]:
    """The labels (z, y, x) of a patient, a file for each structure of the task; and the voxels that no label could
    state, by combination."""
    masks = MasksOnDisk(files, image)
    if task == "gtv":
        labels = np.zeros(image.shape, dtype=np.uint8)
        for target in reversed(anatomy.TARGETS):  # the primary tumour last: a voxel of both is its
            labels[masks[target.name]] = target.channel + 1
        return labels, {}
    organs = {files[organ.name] for organ in anatomy.ORGANS}
    if len(organs) > 1:
        return anatomy.subclasses_from_masks(masks)
    labels = read_volume(organs.pop(), image, of_targets=False)
    if task == "joint":
        for target in reversed(anatomy.TARGETS):
            labels[masks[target.name]] = target.subclasses[0]
    return labels, {}


def _states(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    """By file, relative to the folder, what changes when somebody replaces it: its size, and when it was written."""
    try:
        found = {path: path.stat() for path in sorted(paths)}
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return {
        path.relative_to(folder).as_posix(): f"{state.st_size} bytes, {state.st_mtime_ns} ns"
        for path, state in found.items()
    }


def _remove(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error


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


class _Record:
    """conversion.json: of every finished patient the files that it was made of, and the combinations of structures that
    no sub-class stands for; kept on disk across interruptions."""

    def __init__(self, path: Path, task: Task) -> None:
        self._path = path
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"task": task}
        if known["task"] != task:
            raise UsageError(f"{path.parent} holds a conversion for another task ({known['task']}).")
        self._patients: dict[str, Any] = known.get("patients", {})
        self._content = {"task": task, "patients": self._patients}
        _write_json(path, self._content)  # from now on `find_patients` passes over this folder

    def states(self, patient: str) -> dict[str, str] | None:
        """The states of the files that a patient was made of; None for one that is not finished."""
        return self._patients[patient]["made_of"] if patient in self._patients else None

    def remember(self, patient: str, states: Mapping[str, str], unmodelled_voxels: Mapping[str, int]) -> None:
        """Note that a patient is finished."""
        self._patients[patient] = {"made_of": dict(states), "unmodelled_voxels": dict(unmodelled_voxels)}
        _write_json(self._path, self._content)

    def forget(self, patient: str) -> None:
        """Note that a patient is no longer there."""
        if self._patients.pop(patient, None):
            _write_json(self._path, self._content)

    def unmodelled_voxels(self) -> dict[str, int]:
        """Voxels by combination over all patients, most first."""
        sums: dict[str, int] = {}
        for patient in self._patients.values():
            for combination, count in patient["unmodelled_voxels"].items():
                sums[combination] = sums.get(combination, 0) + count
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
