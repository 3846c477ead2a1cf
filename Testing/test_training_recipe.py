"""The training recipe: nnunetv2 plans, trains, is interrupted, goes on, and leaves a model that the engine runs.

nnunetv2 runs in the environment of `make_peers.py`, on the CPU, on three tiny made-up patients for two short epochs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nnunet_cases import BANDS_HU, smooth_head

from segrap import anatomy, engine
from segrap.errors import InputError, ModelError
from segrap.midline import split_sides
from segrap.models.folder import read_model
from segrap.models.labels import read_labels
from segrap.training.merged_sides import merge_sides, plan_merging
from segrap.training.nnunet import (
    PLANNERS,
    TRAINER,
    TRAINER_FOR_MERGED_SIDES,
    TRAINER_FOR_OTHER_AXES,
    check_dataset,
    trainer_for,
)

HERE = Path(__file__).resolve().parent
PEER_PYTHON = Path(os.environ.get("SEGRAP_PEERS_PYTHON", HERE.parent / ".venv-peers" / "bin" / "python"))
SHAPE, SPACING = (16, 32, 32), (3.0, 1.0, 1.0)


def raw_dataset(folder: Path, labels: dict[str, int]) -> Path:
    """An nnU-Net v2 raw dataset of three patients: two CTs each, tissue in two bands of density."""
    dataset = folder / "Dataset007_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)

    def write(array: np.ndarray, path: Path) -> None:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING[::-1])
        sitk.WriteImage(image, str(path))

    for number in range(3):
        images = smooth_head(SHAPE, seed=number)
        for channel, image in enumerate(images):
            write(image, dataset / "imagesTr" / f"case{number}_{channel:04}.nii.gz")
        write(np.digitize(images[0], BANDS_HU).astype(np.uint8), dataset / "labelsTr" / f"case{number}.nii.gz")
    description = {"channel_names": {"0": "non-contrast CT", "1": "contrast CT"}, "labels": labels}
    (dataset / "dataset.json").write_text(json.dumps(description | {"numTraining": 3, "file_ending": ".nii.gz"}))
    splits = [{"train": ["case0", "case1"], "val": ["case2"]}]
    (dataset / "splits_final.json").write_text(json.dumps(splits))
    return dataset


def test_training_is_interrupted_goes_on_and_gives_a_model_that_runs(tmp_path: Path) -> None:
    if not PEER_PYTHON.is_file():
        pytest.skip(f"nnunetv2 is not installed: run {sys.executable} Testing/make_peers.py")
    dataset = raw_dataset(tmp_path / "raw", {"background": 0, "BrainStem": 1, "SpinalCord": 2})
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "short.py").write_text((HERE / "nnunet_short_trainer.py").read_text())
    # nnunetv2 looks through all its trainers for the one that is asked for; some of them import timm, which is not
    # among the peers.
    for part in ("layers", "models/eva"):
        (tmp_path / "stand-ins" / "timm" / part).mkdir(parents=True)
        stand_in = "def __getattr__(name):\n    return type(name, (), {})\n"
        (tmp_path / "stand-ins" / "timm" / part / "__init__.py").write_text(stand_in)
    stop = tmp_path / "stop"
    stop.touch()
    settings = {"nnUNet_extTrainer": str(tmp_path / "trainers"), "STOP_AFTER_ONE_EPOCH": str(stop)}
    settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "stand-ins"), os.environ.get("PYTHONPATH", "")])
    settings |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    command = [sys.executable, "-m", "segrap.training.nnunet", dataset, tmp_path / "out", "--gpu-memory", "1"]
    command += ["--device", "cpu", "--python", PEER_PYTHON, "--trainer", "nnUNetTrainer_onlyMirror01_2epochs"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)

    first = run()
    assert first.returncode == 5 and "goes on from there" in first.stderr, first.stdout[-2000:] + first.stderr[-2000:]
    assert "Epoch 0" in first.stdout and "Epoch 1" not in first.stdout
    stop.unlink()
    second = run()
    assert second.returncode == 0, second.stdout[-2000:] + second.stderr[-2000:]
    assert "Epoch 1" in second.stdout and "Epoch 0" not in second.stdout
    assert "Preprocessing" not in second.stdout

    model = read_model(second.stdout.splitlines()[-1])
    assert model.structures == ("BrainStem", "SpinalCord") and model.channels == ("non_contrast", "contrast")
    assert model.mirror_axes == (0, 1), "never from left to right"
    assert model.configuration["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")
    kept = tmp_path / "out" / "preprocessed" / dataset.name / "splits_final.json"
    assert kept.read_text() == (dataset / "splits_final.json").read_text()
    layers = engine.segment(model, list(smooth_head(SHAPE, seed=5)), SPACING, model.output_plan(), "cpu").layers
    assert layers.shape[1:] == SHAPE


def test_the_trainer_mirrors_no_sides_whatever_the_axes() -> None:
    assert trainer_for({"transpose_forward": [0, 1, 2]}) == TRAINER
    assert trainer_for({"transpose_forward": [2, 0, 1]}).endswith("NoMirroring")


def test_every_trainer_and_planner_of_the_recipe_is_one_of_nnunetv2() -> None:
    if not PEER_PYTHON.is_file():
        pytest.skip(f"nnunetv2 is not installed: run {sys.executable} Testing/make_peers.py")
    (package,) = PEER_PYTHON.parents[1].glob("lib/*/site-packages/nnunetv2")
    source = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    for name in (TRAINER, TRAINER_FOR_MERGED_SIDES, TRAINER_FOR_OTHER_AXES, *(planner for _, planner in PLANNERS)):
        assert f"class {name}(" in source, name


def test_merged_sides_come_out_as_they_went_in(tmp_path: Path) -> None:
    labels = {"background": 0, **{name: k for k, name in anatomy.SUBCLASSES.items() if k < 55}}
    table, merged, facts = plan_merging({"labels": labels})
    assert len(merged) == 1 + 54 - sum(name.endswith("_R") for name in labels)
    found = read_labels({"labels": merged}, facts)
    assert found.covered == tuple(organ.name for organ in anatomy.ORGANS)

    # Every sub-class as a block, left ones (larger x) facing right ones across the middle.
    volume = np.zeros((4, 2 * len(labels), 21), dtype=np.uint8)
    for name, number in labels.items():
        row = 2 * labels[f"{name[:-2]}_L"] if name.endswith("_R") else 2 * number
        across = slice(2, 6) if name.endswith("_R") else slice(15, 19) if name.endswith("_L") else slice(2, 19)
        volume[:, row : row + 2, across] = number
    plan = found.output_plan()
    layers = plan.table[:, table[volume]]
    split_sides(layers, plan.placement, plan.pairs, (1, 1, 1))
    for name, mask in anatomy.masks_from_subclasses(volume).items():
        if name in plan.placement:
            layer, value = plan.placement[name]
            assert np.array_equal(layers[layer] == value, mask), name


def test_a_dataset_with_merged_sides_is_written_whole(tmp_path: Path) -> None:
    dataset = raw_dataset(tmp_path / "raw", {"background": 0, "Eye_L": 1, "Eye_R": 2})
    target = merge_sides(dataset, tmp_path / "merged" / "Dataset007_Merged")
    merged = {"structures": {"Eye": ["Eye_L"]}, "split_at_midline": {"Eye": ["Eye_L", "Eye_R"]}}
    assert check_dataset(target) == {"orientation": "LPS"} | merged
    assert json.loads((target / "dataset.json").read_text())["labels"] == {"background": 0, "Eye": 1}
    before, after = (sitk.ReadImage(str(one / "labelsTr" / "case1.nii.gz")) for one in (dataset, target))
    assert before.GetSpacing() == after.GetSpacing()
    assert np.array_equal(sitk.GetArrayFromImage(before) > 0, sitk.GetArrayFromImage(after) == 1)
    assert sorted(p.name for p in target.glob("*Tr/*")) == sorted(p.name for p in dataset.glob("*Tr/*"))


def test_merged_sides_keep_what_the_dataset_says_of_its_channels(tmp_path: Path) -> None:
    """As `segrap dataset convert` writes it: both channels are called CT, and segrap.json says which is which."""
    dataset = raw_dataset(tmp_path / "raw", {"background": 0, "Eye_L": 1, "Eye_R": 2})
    content = json.loads((dataset / "dataset.json").read_text()) | {"channel_names": {"0": "CT", "1": "CT"}}
    (dataset / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="Which of the model's channels"):
        check_dataset(dataset)
    (dataset / "segrap.json").write_text(json.dumps({"channels": ["non_contrast", "contrast"]}))
    target = merge_sides(dataset, tmp_path / "Dataset007_Merged")
    assert check_dataset(target)["channels"] == ["non_contrast", "contrast"]


def test_a_dataset_of_other_axes_is_known_before_training_and_one_of_mixed_axes_refused(tmp_path: Path) -> None:
    dataset = raw_dataset(tmp_path, {"background": 0, "Eye_L": 1, "Eye_R": 2})
    for number, axes in enumerate(("RAS", "RAS", "RAS")):
        path = str(dataset / "imagesTr" / f"case{number}_0000.nii.gz")
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(path), axes), path)
    assert check_dataset(dataset)["orientation"] == "RAS"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(path), "LPS"), path)
    with pytest.raises(InputError, match=r"case0_0000\.nii\.gz as RAS, case2_0000\.nii\.gz as LPS"):
        check_dataset(dataset)


def test_labels_that_segrap_json_explains_are_merged_and_keep_their_meaning(tmp_path: Path) -> None:
    labels = {"background": 0, "parotis_L": 1, "parotis_R": 2, "jaw": 3, "tongue": 4}
    dataset = raw_dataset(tmp_path / "raw", labels)
    structures = {"parotis_L": ["Parotid_L"], "parotis_R": ["Parotid_R"], "tongue": []}
    given = {"structures": structures, "split_at_midline": {"jaw": ["Mandible_L", "Mandible_R"]}}
    (dataset / "segrap.json").write_text(json.dumps(given))
    target = merge_sides(dataset, tmp_path / "Dataset007_Merged")
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "parotis": 1, "jaw": 2, "tongue": 3}
    found = read_labels(content, check_dataset(target))
    assert found.covered == ("Mandible_L", "Mandible_R", "Parotid_L", "Parotid_R")
    assert set(found.pairs) == {("Mandible_L", "Mandible_R"), ("Parotid_L", "Parotid_R")}


def test_a_side_without_its_other_side_is_not_taught_as_both(tmp_path: Path) -> None:
    explained = {"structures": {"left parotid": ["Parotid_L"], "right parotid": ["Parotid_R"]}}
    labels = {"background": 0, "Eye_L": 1, "Eye_R": 2, "left parotid": 3, "right parotid": 4}
    with pytest.raises(InputError, match="The other side of left parotid, right parotid is not among the labels"):
        plan_merging({"labels": labels}, explained)


def test_sides_that_cannot_be_merged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to merge"):
        plan_merging({"labels": {"background": 0, "BrainStem": 1, "Eye_L": 2}})
    with pytest.raises(InputError, match="Regions overlap"):
        plan_merging({"labels": {"background": 0, "Eye_L": [1, 2], "Eye_R": [2]}, "regions_class_order": [1, 2]})
    dataset = raw_dataset(tmp_path, {"background": 0, "Eye_L": 1, "Eye_R": 2})
    (dataset / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Lens_L": 1, "Lens_R": 2}}))
    volume = sitk.GetImageFromArray(np.full((2, 3, 4), 9, dtype=np.uint8))
    sitk.WriteImage(volume, str(dataset / "labelsTr" / "case0.nii.gz"))
    with pytest.raises(InputError, match="holds the label 9"):
        merge_sides(dataset, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_dataset_that_segrap_would_not_understand_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither structures nor sub-classes"):
        check_dataset(raw_dataset(tmp_path, {"background": 0, "head": 1, "tail": 2}))
    with pytest.raises(InputError, match="no nnU-Net v2 raw dataset"):
        check_dataset(tmp_path)
