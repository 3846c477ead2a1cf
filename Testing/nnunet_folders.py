"""Makes small nnU-Net v2 model folders, as nnU-Net writes them, for the tests of the models and the engine."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segrap.models.library import user_folder
from segrap.models.network import UNet, build_network, initialise

TWO_LABELS = {"background": 0, "BrainStem": 1, "SpinalCord": 2}


def plain_architecture(features: tuple[int, ...] = (6, 8), **changes: Any) -> dict[str, Any]:
    """The `architecture` block of a small PlainConvUNet, as nnU-Net plans it."""
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3]] + [[3, 3, 3]] * (stages - 1),
            "strides": [[1, 1, 1]] + [[1, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        | changes,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def residual_architecture(**changes: Any) -> dict[str, Any]:
    """The `architecture` block of a small ResidualEncoderUNet."""
    block = plain_architecture(n_blocks_per_stage=[1, 2], **changes)
    block["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    del block["arch_kwargs"]["n_conv_per_stage"]
    return block


def configuration(**changes: Any) -> dict[str, Any]:
    """One configuration of a plans.json."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 24, 32],
        "median_image_size_in_voxels": [20.0, 60.0, 60.0],
        "spacing": [3.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
        "batch_dice": False,
        "architecture": plain_architecture(),
    } | changes


def write_model_folder(
    folder: Path,
    *,
    labels: dict[str, Any] | None = None,
    channels: tuple[str, ...] = ("non-contrast CT", "contrast CT"),
    folds: tuple[str, ...] = ("0",),
    mirror_axes: tuple[int, ...] | None = None,
    transpose: tuple[int, int, int] = (0, 1, 2),
    dataset: dict[str, Any] | None = None,
    plans: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
    half: bool = False,
    teach: Callable[[UNet], None] | None = None,
    **configuration_changes: Any,
) -> Path:
    """Write a model folder and return it. The dictionaries change or add single entries; weights are random unless
    `teach` trains them."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = labels or TWO_LABELS
    settings = configuration(**configuration_changes)
    intensities = {"max": 3000.0, "mean": 40.0, "median": 50.0, "min": -1000.0, "std": 200.0}
    intensities |= {"percentile_00_5": -500.0, "percentile_99_5": 900.0}
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    } | (dataset or {})
    plans = {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": settings["spacing"],
        "original_median_shape_after_transp": [20, 60, 60],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "configurations": {"3d_fullres": settings},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): intensities for i in range(len(channels))},
    } | (plans or {})
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text(json.dumps(plans))
    if facts is not None:
        (folder / "segrap.json").write_text(json.dumps(facts))
    regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    scores = len([name for name in labels if name != "ignore"]) - regions
    for number, fold in enumerate(folds):
        torch.manual_seed(number)
        network = build_network(settings, len(channels), scores)
        (randomise if teach is None else teach)(network)
        weights = {key: value.half() if half else value for key, value in network.state_dict().items()}
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        content = {
            "network_weights": weights,
            "optimizer_state": torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True).state_dict(),
            "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0},
            "logging": {"train_losses": [np.float32(0.5), np.float64(0.25)], "epoch_end_timestamps": [1700000000.0]},
            "_best_ema": np.float64(0.9),
            "current_epoch": 1000,
            "init_args": {
                "plans": plans,
                "configuration": "3d_fullres",
                "fold": fold,
                "dataset_json": dataset,
                "device": torch.device("cuda"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": mirror_axes,
        } | (checkpoint or {})
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def randomise(network: UNet) -> None:
    """Random weights that make every class win somewhere: an untrained head would leave near-ties everywhere."""
    initialise(network)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if "norm.weight" in name else 0.0, 0.3)
    torch.nn.init.normal_(network.head.weight, 0.0, 1.0)


def zipped(folder: Path, to: Path, inside: str = "Neck2") -> Path:
    """The folder in an archive, below `inside`."""
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path(inside) / path.relative_to(folder))
    return to


def installed() -> list[str]:
    """What lies in the user's library, hidden leftovers included."""
    return sorted(path.name for path in user_folder().iterdir()) if user_folder().exists() else []
