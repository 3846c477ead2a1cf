"""Models of nnU-Net v1: imported, they contour as nnunet 1.7.1 itself does; what cannot be honoured is refused.

v1 runs as a program of its own (`nnunet_v1_peer.py`), which builds v1's own trainer, saves its checkpoint and predicts.
The plans are those of the SegRap2023 baseline in small: anisotropic kernels and pools, two stages, "nonCT".
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nnunet_cases import smooth_head

from segrap import anatomy, engine
from segrap.cli import main
from segrap.errors import ModelError
from segrap.models.folder import read_model
from segrap.models.nnunet_v1 import convert
from segrap.models.restricted_pickle import read_pickle

HERE = Path(__file__).resolve().parent
PEER_PYTHON = Path(os.environ.get("SEGRAP_PEERS_PYTHON", HERE.parent / ".venv-peers" / "bin" / "python"))

PLANS: dict[str, Any] = {
    "num_stages": 2,
    "num_modalities": 2,
    "modalities": {"0": "non_contrast_CT", "1": "contrast_CT"},
    "normalization_schemes": {"0": "nonCT", "1": "nonCT"},
    "use_mask_for_norm": {"0": False, "1": False},
    "intensities": None,
    "num_classes": 54,
    "all_classes": list(range(1, 55)),
    "base_num_features": 4,
    "keep_only_largest_region": None,
    "min_region_size_per_class": None,
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "data_identifier": "nnUNetData_plans_v2.1",
    "preprocessor_name": "GenericPreprocessor",
    "preprocessed_data_folder": "/data/nnUNet_preprocessed/Task070_SegRap001",
    "conv_per_stage": 2,
    "plans_per_stage": {
        "0": {
            "batch_size": 2,
            "num_pool_per_axis": [2, 2, 2],
            "patch_size": [16, 16, 16],
            "current_spacing": [3.9, 2.0, 2.0],
            "do_dummy_2D_data_aug": False,
            "pool_op_kernel_sizes": [[2, 2, 2], [2, 2, 2]],
            "conv_kernel_sizes": [[3, 3, 3]] * 3,
        },
        "1": {
            "batch_size": 2,
            "num_pool_per_axis": [1, 3, 3],
            "patch_size": [8, 24, 24],
            "current_spacing": [3.0, 0.9, 0.9],
            "do_dummy_2D_data_aug": True,
            "pool_op_kernel_sizes": [[1, 2, 2], [1, 2, 2], [2, 2, 2]],
            "conv_kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]],
        },
    },
}
INTENSITIES = {"mean": 40.0, "sd": 180.0, "percentile_00_5": -300.0, "percentile_99_5": 500.0}
TUMOURS = {
    "num_classes": 2,
    "all_classes": [1, 2],
    "preprocessed_data_folder": "/data/nnUNet_preprocessed/Task071_SegRap002",
}
ONE_CT = {
    "num_modalities": 1,
    "modalities": {"0": "CT"},
    "normalization_schemes": {"0": "CT"},
    "use_mask_for_norm": {"0": False},
    "intensities": {"0": INTENSITIES},
    "num_classes": 4,
    "all_classes": [1, 2, 3, 4],
    "preprocessed_data_folder": "/data/nnUNet_preprocessed/Task009_Neck",
}
NECK = {"labels": {"0": "background", "1": "SpinalCord", "2": "Trachea", "3": "Esophagus", "4": "Thyroid"}}


def job(name: str, shape: tuple[int, int, int], spacing: tuple[float, float, float], **changes: Any) -> dict[str, Any]:
    settings = {"stage": 1, "trainer": "nnUNetTrainerV2_noMirroring", "folds": 1, "mirror": False, "plans": {}}
    return {"name": name, "shape": shape, "spacing": spacing, **settings, **changes}


JOBS = [
    job("the baseline in small", (20, 60, 56), (3.0, 0.7, 0.7)),
    job("trained with mirroring, sides in its labels", (12, 40, 40), (3.0, 0.9, 0.9), trainer="nnUNetTrainerV2"),
    job("at another slice thickness", (26, 50, 44), (2.2, 0.8, 0.8)),
    job("without resampling", (14, 40, 44), (3.0, 0.9, 0.9)),
    job("two folds", (14, 44, 44), (3.0, 0.8, 0.8), folds=2),
    job("low resolution", (30, 50, 50), (3.0, 1.5, 1.5), stage=0),
    job("thick slices, cubic model", (20, 60, 60), (6.5, 1.5, 1.5), stage=0),
    job(
        "the baseline of tumours, trained with mirroring",
        (12, 40, 40),
        (3.0, 0.9, 0.9),
        plans=TUMOURS,
        trainer="nnUNetTrainerV2",
    ),
    job("one CT, mirrored", (14, 44, 44), (3.0, 0.8, 0.8), plans=ONE_CT, trainer="nnUNetTrainerV2", mirror=True),
]
DATASETS = {"one CT, mirrored": NECK}


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with v1's models, the images and v1's answers."""
    if not PEER_PYTHON.is_file():
        pytest.skip(f"nnunet is not installed: run {sys.executable} Testing/make_peers.py")
    folder = tmp_path_factory.mktemp("v1")
    jobs = []
    for one in JOBS:
        plans = copy.deepcopy(PLANS) | one["plans"]
        images = folder / f"{one['name']}.npz"
        channels = smooth_head(one["shape"], channels=plans["num_modalities"])
        channels[:, :2] = 0  # slices of nothing: cropped away before all else
        np.savez(images, images=channels, spacing=np.array(one["spacing"]))
        paths = {"folder": str(folder / one["name"]), "images": str(images), "out": str(folder / f"{one['name']}.npy")}
        jobs.append(one | paths | {"plans": plans})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [PEER_PYTHON, HERE / "nnunet_v1_peer.py", folder / "jobs.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, dataset in DATASETS.items():
        (folder / name / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.mark.parametrize("one", JOBS, ids=lambda one: one["name"])
def test_every_voxel_is_labelled_as_by_nnunet_v1(peer: Path, tmp_path: Path, one: dict[str, Any]) -> None:
    model = read_model(convert(peer / one["name"], tmp_path / "model"))
    assert bool(model.mirror_axes) == one["mirror"]
    case, labels = np.load(peer / f"{one['name']}.npz"), np.load(peer / f"{one['name']}.npy")
    assert len(np.unique(labels)) > 2, "a comparison of empty label maps would prove nothing"
    plan = model.output_plan()
    layers = engine.segment(model, list(case["images"]), case["spacing"], plan, "cpu", skip_air=False).layers
    different = (layers != plan.table[:, labels]).any(axis=0)
    assert different.sum() == 0


def test_the_baseline_is_installed_by_one_command_and_covers_all_organs(
    peer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    archive = shutil.make_archive(str(tmp_path / "weights"), "zip", peer / "two folds")
    done = CliRunner().invoke(main, ["models", "install", archive, "--json"])
    assert done.exit_code == 0, done.output
    model = read_model(tmp_path / "library" / "Task070_SegRap001")
    assert model.structures == tuple(organ.name for organ in anatomy.ORGANS)
    assert model.channels == ("non_contrast", "contrast")
    assert (model.folds, model.intended_use, model.licence) == (("0", "1"), "research", "unknown")
    assert "not averaged over mirror images" in model.description


def test_a_model_of_two_tumours_is_recognised_by_its_task(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lacks conv_blocks_context"):  # there are no weights: all else was in order
        convert(v1_folder(tmp_path, **TUMOURS), tmp_path / "model")
    said = json.loads((tmp_path / "model" / "segrap.json").read_text())["description"]
    assert "not averaged over mirror images, as SegRap2023's organisers ran it" in said
    assert json.loads((tmp_path / "model" / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "GTVp": 1,
        "GTVnd": 2,
    }


def v1_folder(tmp_path: Path, trainer: str = "nnUNetTrainerV2", **changes: Any) -> Path:
    """A v1 model folder with those plans and no weights."""
    plans = copy.deepcopy(PLANS) | changes
    for key in ("modalities", "normalization_schemes", "use_mask_for_norm", "plans_per_stage"):
        plans[key] = {int(number): value for number, value in plans[key].items()}
    folder = tmp_path / "v1"
    (folder / "fold_0").mkdir(parents=True)
    content = {"init": ("plans.pkl", 0, "out", "data", False, 1, True, False, True), "name": trainer, "plans": plans}
    (folder / "fold_0" / "model_final_checkpoint.model.pkl").write_bytes(pickle.dumps(content))
    torch.save({"state_dict": {}}, folder / "fold_0" / "model_final_checkpoint.model")
    return folder


class Planted:
    """What a pickle with code looks like: it opens a file when a careless reader loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["model_final_checkpoint.model.pkl", "model_final_checkpoint.model"])
def test_code_in_a_model_is_refused_with_exit_status_4_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    folder = v1_folder(tmp_path)
    planted = {"state_dict": Planted(tmp_path / "ran"), "plans": Planted(tmp_path / "ran")}
    if where.endswith(".pkl"):
        (folder / "fold_0" / where).write_bytes(pickle.dumps(planted))
    else:
        torch.save(planted, folder / "fold_0" / where)
    done = CliRunner().invoke(main, ["models", "install", str(folder)])
    assert done.exit_code == 4
    assert "might run code" in done.output
    assert not (tmp_path / "ran").exists()
    assert list((tmp_path / "library").iterdir()) == []


def test_numbers_of_numpy_that_hold_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "objects.pkl").write_bytes(pickle.dumps(np.array([{}, None], dtype=object)))
    with pytest.raises(ModelError, match="object"):
        read_pickle(tmp_path / "objects.pkl")


class Forged:
    """A numpy type whose state, given by the file, makes numpy read far outside the file's bytes."""

    def __init__(self, kind: str, *state: object) -> None:
        self.kind, self.state = kind, state

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, (self.kind, False, True), self.state


class ForgedArray:
    def __init__(self, kind: Forged) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = np.zeros(0).__reduce__()[0]
        return rebuild, (np.ndarray, (0,), b"b"), (1, (1,), self.kind, False, b"12345678")


FAR = {"a": (np.dtype("f8"), 10**9)}


@pytest.mark.parametrize(
    "kind",
    [
        Forged("V8", 3, "|", None, ("a",), FAR, 8, 1, 0),
        Forged("f8", 3, ">", None, ("a",), FAR, -1, -1, 0),
        Forged("S8", 3, "|", (np.dtype("f8"), (10**6,)), None, None, 8, 1, 0),
    ],
    ids=lambda kind: kind.kind,
)
def test_numbers_of_numpy_that_reach_outside_their_bytes_are_refused(tmp_path: Path, kind: Forged) -> None:
    (tmp_path / "forged.pkl").write_bytes(pickle.dumps({"init": [ForgedArray(kind)]}))
    with pytest.raises(ModelError, match=r"numpy array of .* might run code"):
        read_pickle(tmp_path / "forged.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_numbers_of_numpy_are_read_as_they_were_written(tmp_path: Path, protocol: int) -> None:
    written = [np.arange(6.0).reshape(2, 3).T, np.array([1, 2], ">i4"), np.float32(0.1), np.bool_(True), np.str_("CT")]
    (tmp_path / "numbers.pkl").write_bytes(pickle.dumps(written, protocol=protocol))
    for before, after in zip(written, read_pickle(tmp_path / "numbers.pkl"), strict=True):
        assert np.array_equal(before, after) and after.dtype == before.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "labels", [{"background": 0, "whole": [1, 2], "core": [2]}, {"1": ["GTVp"]}, {"one": "GTVp"}, ["GTVp", "GTVnd"]]
)
def test_a_dataset_json_whose_labels_are_not_those_of_v1_is_refused_in_words(tmp_path: Path, labels: object) -> None:
    folder = v1_folder(tmp_path, **TUMOURS)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(ModelError, match=r"dataset\.json (has the label|does not list `labels`)"):
        convert(folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainer": "nnUNetTrainerV2CascadeFullRes"}, "trained by nnUNetTrainerV2CascadeFullRes"),
        ({"trainer": "nnUNetTrainerV2_ResencUNet"}, "trained by nnUNetTrainerV2_ResencUNet"),
        ({"use_mask_for_norm": {"0": True, "1": True}}, "normalises inside a mask"),
        ({"normalization_schemes": {"0": "CT2", "1": "CT2"}}, "normalises by CT2"),
        ({"transpose_forward": [2, 0, 1]}, "axes in another order"),
        ({"preprocessor_name": "PreprocessorFor2D"}, "wants the preprocessor PreprocessorFor2D"),
        ({"preprocessed_data_folder": "/data/Task009_Neck"}, "does not tell what its labels"),
        ({"plans_per_stage": {}}, "not one of nnU-Net v1"),
        ({"base_num_features": "many"}, "not those of nnU-Net v1"),
    ],
)
def test_what_cannot_be_honoured_exactly_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        convert(v1_folder(tmp_path, **changes), tmp_path / "model")


def test_a_v1_folder_used_as_it_is_says_how_to_convert_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Convert it with: segrap models install"):
        read_model(v1_folder(tmp_path))


def test_post_processing_rules_are_refused(tmp_path: Path) -> None:
    folder = v1_folder(tmp_path)
    (folder / "postprocessing.json").write_text(json.dumps({"for_which_classes": [1]}))
    with pytest.raises(ModelError, match="post-processing rules"):
        convert(folder, tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"name": "x"}), pickle.dumps([1, 2])])
def test_a_damaged_description_is_said(tmp_path: Path, content: bytes) -> None:
    folder = v1_folder(tmp_path)
    (folder / "fold_0" / "model_final_checkpoint.model.pkl").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged|not one of nnU-Net v1"):
        convert(folder, tmp_path / "model")
