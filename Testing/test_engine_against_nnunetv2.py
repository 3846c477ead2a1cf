"""The engine and the networks give what nnunetv2 and dynamic_network_architectures give, on the same weights.

nnunetv2 runs as a program of its own, in the environment that `make_peers.py` makes; without it these tests are
skipped. All its work is done once, for all tests of this file. nnunetv2 sums class scores in float16, which decides
near-ties by rounding: with trained weights it is compared as it is; with random weights, whose scores tie everywhere,
its sums are widened to float32 first, and then every voxel must agree.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_cases import smooth_head, teach_bands
from nnunet_folders import plain_architecture, residual_architecture, write_model_folder

from segrap import engine
from segrap.engine.tiles import importance, tile_starts
from segrap.models.folder import read_model
from segrap.models.network import build_network

HERE = Path(__file__).resolve().parent
PEER_PYTHON = Path(os.environ.get("SEGRAP_PEERS_PYTHON", HERE.parent / ".venv-peers" / "bin" / "python"))

SIX = {"background": 0, "BrainStem": 1, "SpinalCord": 2, "Eye_L": 3, "Eye_R": 4, "Parotid_L": 5, "Parotid_R": 6}
CUBES: dict[str, Any] = {
    "patch_size": [16, 24, 24],
    "architecture": plain_architecture(kernel_sizes=[[3, 3, 3]] * 2, strides=[[1, 1, 1], [2, 2, 2]]),
}
THICK_LAST: dict[str, Any] = {
    "patch_size": [24, 24, 8],
    "spacing": [1.0, 1.0, 4.0],
    "architecture": plain_architecture(kernel_sizes=[[3, 3, 1], [3, 3, 3]], strides=[[1, 1, 1], [2, 2, 1]]),
}
# name: (model folder, image shape (z, y, x), spacing in mm)
RANDOM_MODELS: dict[str, tuple[dict[str, Any], tuple[int, int, int], tuple[float, float, float]]] = {
    "thick slices": ({}, (22, 60, 56), (3.0, 0.7, 0.7)),
    "thick slices at another thickness": ({}, (26, 50, 46), (2.1, 0.8, 0.8)),
    "no resampling": ({}, (20, 50, 60), (3.0, 1.0, 1.0)),
    "smaller than a patch": ({}, (6, 20, 30), (3.0, 1.0, 1.0)),
    "cubic voxels": ({"spacing": [1.5, 1.5, 1.5], **CUBES}, (30, 40, 44), (1.1, 1.2, 1.0)),
    "axes in another order": (
        {"transpose": (2, 0, 1), "spacing": [1.5, 1.5, 1.2], **CUBES},
        (30, 40, 44),
        (1.1, 1.2, 1),
    ),
    "thick slices along the last axis": ({"transpose": (1, 2, 0), **THICK_LAST}, (14, 50, 44), (5.0, 0.8, 0.9)),
    "two folds and all mirror axes": ({"folds": ("0", "1"), "mirror_axes": (0, 1, 2)}, (14, 30, 36), (3.0, 0.8, 0.8)),
    "one CT with CT normalisation": (
        {"channels": ("CT",), "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]},
        (18, 50, 46),
        (3.0, 0.8, 0.8),
    ),
    "normalisation over the non-zero part": ({"use_mask_for_norm": [True, True]}, (18, 50, 46), (3.0, 0.8, 0.8)),
    "tiles three quarters apart": ({}, (22, 60, 56), (3.0, 0.7, 0.7)),
    "a residual encoder": ({"architecture": residual_architecture()}, (14, 40, 40), (3.0, 1.1, 1.1)),
}
STEPS = {"tiles three quarters apart": 0.75}
REGIONS: dict[str, Any] = {
    "labels": {"background": 0, "Brain": [1, 2], "BrainStem": [2]},
    "dataset": {"regions_class_order": [1, 2]},
}
TRAINED_MODELS: dict[str, dict[str, Any]] = {
    "labels": {"teach": partial(teach_bands, regions=False)},
    "regions": {"teach": partial(teach_bands, regions=True), **REGIONS},
}
ARCHITECTURES = {
    "PlainConvUNet": plain_architecture(n_conv_per_stage=[2, 1]),
    "PlainConvUNet with every option": plain_architecture(
        (4, 6, 8),
        conv_bias=False,
        nonlin_first=True,
        n_conv_per_stage=2,
        dropout_op="torch.nn.modules.dropout.Dropout3d",
        dropout_op_kwargs={"p": 0.2},
        norm_op="torch.nn.modules.batchnorm.BatchNorm3d",
    ),
    "ResidualEncoderUNet": residual_architecture(),
    "ResidualEncoderUNet with a wide stem": residual_architecture(stem_channels=12, conv_bias=False),
}
AXES = [[size, patch] for patch in (8, 28, 33, 128) for size in (*range(patch, 3 * patch, 7), 512)]
PATCH = [6, 20, 31]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with models, images and nnunetv2's answers to all of them."""
    if not PEER_PYTHON.is_file():
        pytest.skip(f"nnunetv2 is not installed: run {sys.executable} Testing/make_peers.py")
    folder = tmp_path_factory.mktemp("peer")
    jobs: list[dict[str, Any]] = [{"kind": "tiles", "axes": AXES, "patch": PATCH, "out": str(folder / "tiles.json")}]
    for name, block in ARCHITECTURES.items():
        jobs.append({"kind": "network", "architecture": block, "out": str(folder / f"{name}.pt")})

    def add(
        name: str, model: dict[str, Any], images: np.ndarray, spacing: tuple[float, float, float], scores: str
    ) -> None:
        write_model_folder(folder / name, **model)
        np.savez(folder / f"{name}.npz", images=images.astype(np.float32), spacing=np.array(spacing, dtype=float))
        job = {"kind": "predict", "model": str(folder / name), "images": str(folder / f"{name}.npz"), "mirror": True}
        jobs.append(job | {"step": STEPS.get(name, 0.5), "scores": scores, "out": str(folder / f"{name}.npy")})

    for name, (model, shape, spacing) in RANDOM_MODELS.items():
        images = smooth_head(shape, channels=len(model.get("channels", "ab")))
        if "non-zero" in name:
            images[images == -1000] = 0
            images[:, :4] = 0
        add(name, {"labels": SIX, **model}, images, spacing, "float32")
    for name, model in TRAINED_MODELS.items():
        add(name, model, smooth_head((24, 96, 90), smoothness=6.0), (3.0, 0.7, 0.7), "float16")
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([PEER_PYTHON, HERE / "nnunet_peer.py", folder / "jobs.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def agreement(peer: Path, name: str, *, skip_air: bool) -> float:
    """Run the engine on a case; return the fraction of voxels whose layers are those of nnunetv2's label: of all
    voxels, or of those of the body if tiles of air are skipped."""
    case, labels = np.load(peer / f"{name}.npz"), np.load(peer / f"{name}.npy")
    assert len(np.unique(labels)) > 2, "a comparison of empty label maps would prove nothing"
    model = read_model(peer / name)
    plan = model.output_plan()
    images = case["images"].astype(np.int16)
    how = {"skip_air": skip_air, "step": STEPS.get(name, 0.5)}
    layers = engine.segment(model, list(images), case["spacing"], plan, "cpu", **how).layers
    equal = (layers == plan.table[:, labels]).all(axis=0)
    return float(equal[(images > -500).any(axis=0)].mean() if skip_air else equal.mean())


@pytest.mark.parametrize("name", RANDOM_MODELS)
def test_every_voxel_is_labelled_as_by_nnunetv2_with_float32_sums(peer: Path, name: str) -> None:
    assert agreement(peer, name, skip_air=False) == 1.0


@pytest.mark.parametrize("name", TRAINED_MODELS)
def test_trained_models_label_9998_of_10000_voxels_of_the_body_as_nnunetv2_itself_does(peer: Path, name: str) -> None:
    assert agreement(peer, name, skip_air=True) >= 0.9998


def test_tiles_start_where_nnunetv2_starts_them(peer: Path) -> None:
    answer = json.loads((peer / "tiles.json").read_text())
    assert [tile_starts(size, patch) for size, patch in AXES] == answer["starts"]


def test_tile_weights_are_those_of_nnunetv2(peer: Path) -> None:
    answer = json.loads((peer / "tiles.json").read_text())
    assert np.array_equal(importance(PATCH), np.array(answer["weights"], dtype=np.float32))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_have_the_parameter_names_and_the_output_of_the_public_package(peer: Path, name: str) -> None:
    theirs = torch.load(peer / f"{name}.pt", weights_only=True)
    ours = build_network({"architecture": ARCHITECTURES[name]}, 2, 3)
    assert list(ours.state_dict()) == list(theirs["weights"])
    ours.load_state_dict(theirs["weights"])
    with torch.no_grad():
        assert torch.equal(ours.eval()(theirs["image"]), theirs["output"])
