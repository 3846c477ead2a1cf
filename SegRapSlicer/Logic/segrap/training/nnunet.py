"""A model of SegRap's structures by nnunetv2, the best-kept trainer there is, in an environment of its own.

    python -m segrap.training.nnunet DATASET OUTPUT --gpu-memory 24

DATASET is an nnU-Net v2 raw dataset (Dataset070_..., as `segrap dataset convert` writes it). One command makes the
environment, plans for the GPU's memory with a residual encoder, preprocesses, trains for 1500 epochs and leaves a model
folder that `segrap models install` takes. Interrupted, the same command goes on where it stopped.

Mirror images from left to right are never trained with: labels have sides, and mirroring cost a leading team of
SegRap2023 13 Dice points. nnunetv2's `onlyMirror01` trainers mirror the first two axes, which are head-feet and
front-back as long as the plans keep the axes' order; where they do not, nothing is mirrored.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from segrap.errors import InputError, ResourceError
from segrap.image import stored_axes
from segrap.models.folder import read_model
from segrap.models.labels import read_labels
from segrap.models.plans import read_channels
from segrap.terminal import errors_as_exit_status, say
from segrap.training.merged_sides import merge_sides
from segrap.writing import replacing

# Versions that the tests run. Named together, so that no requirement of nnunetv2 brings another torch.
PACKAGES = ("nnunetv2==2.8.1", "torch==2.13.0")
CONFIGURATION = "3d_fullres"
TRAINER = "nnUNetTrainer_onlyMirror01_1500ep"
TRAINER_FOR_MERGED_SIDES = "nnUNetTrainer_2000epochs"
TRAINER_FOR_OTHER_AXES = "nnUNetTrainer_2000epochs_NoMirroring"
# Planner by the least GPU memory in GB that it is meant for (nnunetv2's presets for 8, 24 and 40 GB).
PLANNERS = ((32, "nnUNetPlannerResEncXL"), (16, "nnUNetPlannerResEncL"), (0, "nnUNetPlannerResEncM"))
PLAN = (
    "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run; run()"
)
TRAIN = "from nnunetv2.run.run_training import run_training_entry as run; run()"


def train(
    dataset: Path,
    output: Path,
    gpu_memory_gb: float,
    fold: str = "0",
    device: str = "cuda",
    python: Path | None = None,
    trainer: str | None = None,
    merged_sides: bool = False,
) -> Path:
    """Plan, preprocess and train; return the model folder. What is done already is not done again.

    output: receives environment/, preprocessed/ and results/. gpu_memory_gb: what the plans may use. fold: 0 to 4 of
    nnU-Net's cross-validation, or all. python: of an environment with nnunetv2, instead of making one. trainer: of
    nnunetv2, instead of the recipe's. merged_sides: train one label for left and right, with every mirror image; the
    model splits them afterwards.

    Raises InputError (the dataset cannot be used), ResourceError (no environment, or nnU-Net stopped), ModelError.
    """
    facts = check_dataset(dataset)
    output.mkdir(parents=True, exist_ok=True)
    if merged_sides:
        dataset = merge_sides(dataset, output / "raw" / f"{dataset.name}_merged_sides")
        facts = check_dataset(dataset)
        trainer = trainer or TRAINER_FOR_MERGED_SIDES
    python = python or make_environment(output / "environment")
    plans = f"SegRapResEnc{gpu_memory_gb:g}G"
    environment = {
        **os.environ,
        "nnUNet_raw": str(dataset.resolve().parent),
        "nnUNet_preprocessed": str((output / "preprocessed").resolve()),
        "nnUNet_results": str((output / "results").resolve()),
    }
    prepared = output / "preprocessed" / dataset.name
    if not (prepared / f"{plans}.done").is_file():
        planner = next(name for least, name in PLANNERS if gpu_memory_gb >= least)
        number = re.sub(r"\D.*", "", dataset.name.removeprefix("Dataset"))
        options = ["-pl", planner, "-gpu_memory_target", f"{gpu_memory_gb:g}", "-overwrite_plans_name", plans]
        options += ["-c", CONFIGURATION, "--verify_dataset_integrity", "-d", number]
        options += ["-npfp", str(_processes()), "-np", str(_processes())]
        # A 0 there is right for training, but planning takes it for a number of threads and fails.
        planning = {name: value for name, value in environment.items() if name != "nnUNet_n_proc_DA"}
        _run([python, "-c", PLAN, *options], planning)
        if (dataset / "splits_final.json").is_file():
            (prepared / "splits_final.json").write_bytes((dataset / "splits_final.json").read_bytes())
        (prepared / f"{plans}.done").touch()
    trainer = trainer or trainer_for(json.loads((prepared / f"{plans}.json").read_text(encoding="utf-8")))
    # --c goes on from the last checkpoint, where there is one.
    options = [dataset.name, CONFIGURATION, fold, "-tr", trainer, "-p", plans, "-device", device, "--c"]
    _run([python, "-c", TRAIN, *options], environment)
    model = output / "results" / dataset.name / f"{trainer}__{plans}__{CONFIGURATION}"
    with replacing(model / "segrap.json") as temporary:
        origin = f"Trained on {dataset.name} by {PACKAGES[0]}, {trainer}, plans for {gpu_memory_gb:g} GB."
        temporary.write_text(json.dumps({"name": dataset.name, "description": origin} | facts, indent=1), "utf-8")
    return read_model(model, [fold]).folder


def check_dataset(dataset: Path) -> dict[str, Any]:
    """Make sure, before days of training, that the labels, channels and axes are ones that segrap will understand.

    Returns the content of the dataset's own segrap.json ({} if it has none), and how its arrays lie ("orientation").
    Raises InputError, ModelError.
    """
    if not re.fullmatch(r"Dataset\d{3}_\w+", dataset.name) or not (dataset / "imagesTr").is_dir():
        raise InputError(f"{dataset} is no nnU-Net v2 raw dataset (a folder DatasetNNN_Name with imagesTr).")
    try:
        content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
        facts = dataset / "segrap.json"
        found = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
    except (OSError, ValueError) as fault:
        raise InputError(f"The description of {dataset} cannot be read: {fault}") from None
    read_labels(content, found)
    read_channels(content, found)
    return {"orientation": _orientation(dataset, content), **found}


def _orientation(dataset: Path, content: dict[str, Any]) -> str:
    """How the images that nnU-Net's plain readers take as they are stored lie: "LPS" or "RAS", the same for all."""
    if content.get("overwrite_image_reader_writer") == "NibabelIOWithReorient":
        return "RAS"
    found: dict[str, str] = {}
    for path in sorted((dataset / "imagesTr").glob(f"*_0000{content.get('file_ending', '')}")):
        found.setdefault(stored_axes(path), path.name)
    if len(found) > 1 or not found.keys() <= {"LPS", "RAS"}:
        some = ", ".join(f"{name} as {axes}" for axes, name in found.items())
        raise InputError(
            f"The images of {dataset} are stored along other axes ({some}), which training would mix up with left and "
            "right. Store all of them as LPS."
        )
    return next(iter(found), "LPS")


def trainer_for(plans: dict[str, Any]) -> str:
    """The recipe's trainer: one that never mirrors from left to right, whatever axis that is in these plans."""
    return TRAINER if list(plans["transpose_forward"]) == [0, 1, 2] else TRAINER_FOR_OTHER_AXES


def make_environment(folder: Path) -> Path:
    """A virtual environment with nnunetv2, made on first use; its Python. Raises ResourceError."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "installed").is_file():
        say(f"Installing {', '.join(PACKAGES)} into {folder} (several gigabytes, once).")
        _run([sys.executable, "-m", "venv", "--clear", folder], dict(os.environ))
        _run([python, "-m", "pip", "install", "--quiet", *PACKAGES], dict(os.environ))
        (folder / "installed").touch()
    return python


def _processes() -> int:
    """How many patients to prepare at a time: nnU-Net's 8, or what this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, allowed or 1)


def _run(command: Sequence[str | Path], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run([str(part) for part in command], env=environment, check=False)
    except OSError as error:
        raise ResourceError(f"{command[0]} cannot be started: {error.strerror or error}.") from error
    if done.returncode:
        raise ResourceError(
            f"A step ended with status {done.returncode}; what it said stands above. "
            "The same command goes on from there."
        )


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--gpu-memory", type=click.FloatRange(min=1), required=True, help="GB of GPU memory to plan for.")
@click.option("--fold", type=click.Choice([*"01234", "all"]), default="0", show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu", "mps"]), default="cuda", show_default=True)
@click.option("--python", type=click.Path(path_type=Path), help="Python of an environment that has nnunetv2 already.")
@click.option("--trainer", help="Another trainer of nnunetv2.")
@click.option("--merge-sides", is_flag=True, help="One label for left and right, split again by the model.")
def main(
    dataset: Path,
    output: Path,
    gpu_memory: float,
    fold: str,
    device: str,
    python: Path | None,
    trainer: str | None,
    merge_sides: bool,
) -> None:
    """Train a model on an nnU-Net v2 raw DATASET with nnunetv2; the same command resumes."""
    with errors_as_exit_status():
        print(train(dataset, output, gpu_memory, fold, device, python, trainer, merge_sides))


if __name__ == "__main__":
    main()
