"""What a small model is: its inputs, labels, grid and network, what it learns from, and how that is varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class TrainingCase:
    """One patient on the network's grid: `channels` float16 (channel, z, y, x) normalised, `labels` uint8 (z, y, x).

    missing: label values nobody contoured in this case; its background may hold them.
    """

    channels: np.ndarray
    labels: np.ndarray
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Variation:
    """How much patches differ from the patients they are cut from; every amount is drawn evenly up to its limit.

    turns_deg: turns about the z, y and x axis. size, stretch: relative, of all axes together and of each alone.
    bend_mm: standard deviation of a displacement that changes over some 40 mm. swapped: label value -> value of the
    other side; if there is any, half of the patches are mirrored from left to right. sharpness: how much of the
    detail under 3 voxels is taken away, or how much is added (lowest, highest). gain, shift: of the normalised
    intensities, relative and absolute. noise: the most noise, its standard deviation in normalised units.
    """

    turns_deg: tuple[float, float, float] = (6.0, 0.0, 0.0)
    size: float = 0.0
    stretch: float = 0.08
    bend_mm: float = 0.0
    swapped: dict[int, int] = field(default_factory=dict)
    sharpness: tuple[float, float] = (0.0, 0.0)
    gain: float = 0.05
    shift: float = 0.02
    noise: float = 0.05


@dataclass(frozen=True)
class Recipe:
    """What a small model is: its inputs, labels, grid and network.

    labels: label name -> value, background 0 included. spacing_zyx_mm, patch_zyx: the network's grid and tile.
    first_patch_zyx: the patches of the first two thirds of the training; small ones show small structures more often.
    often: label value -> how often patches are centred on it, 1 where nothing is said.
    anywhere: the part of the patches that lie anywhere in the body instead of around a structure.
    variation: how patches differ from the patients. image_order: spline order that brings a CT to the grid.
    intensities: per channel (lower, upper, mean, sd) in HU of nnU-Net's CTNormalization: clip, subtract, divide.
    metadata: what goes into segrap.json.
    """

    name: str
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    spacing_zyx_mm: tuple[float, float, float]
    patch_zyx: tuple[int, int, int]
    features: tuple[int, ...]
    kernels: tuple[tuple[int, int, int], ...]
    strides: tuple[tuple[int, int, int], ...]
    intensities: tuple[tuple[float, float, float, float], ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    first_patch_zyx: tuple[int, int, int] | None = None
    often: dict[int, float] = field(default_factory=dict)
    anywhere: float = 0.15
    variation: Variation = field(default_factory=Variation)
    image_order: int = 3

    def normalise(self, volumes: Sequence[np.ndarray]) -> np.ndarray:
        """HU volumes (z, y, x), one per channel, as float16 (channel, z, y, x) the way the engine will see them."""
        return np.stack(
            [
                ((np.clip(volume, low, high) - mean) / sd).astype(np.float16)
                for volume, (low, high, mean, sd) in zip(volumes, self.intensities, strict=True)
            ]
        )

    def plans(self) -> dict[str, Any]:
        """The nnU-Net v2 plans of this model."""
        resampling = {"is_seg": False, "order": self.image_order, "order_z": 0, "force_separate_z": None}
        stages = len(self.features)
        configuration = {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(self.patch_zyx),
            "spacing": list(self.spacing_zyx_mm),
            "normalization_schemes": ["CTNormalization"] * len(self.channel_names),
            "use_mask_for_norm": [False] * len(self.channel_names),
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling,
            "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
            "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
            "batch_dice": True,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": stages,
                    "features_per_stage": list(self.features),
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [list(kernel) for kernel in self.kernels],
                    "strides": [list(stride) for stride in self.strides],
                    "n_conv_per_stage": [2] * stages,
                    "n_conv_per_stage_decoder": [1] * (stages - 1),
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
        properties = {
            str(channel): {"mean": mean, "std": sd, "percentile_00_5": low, "percentile_99_5": high}
            for channel, (low, high, mean, sd) in enumerate(self.intensities)
        }
        return {
            "dataset_name": self.name,
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": properties,
            "configurations": {CONFIGURATION: configuration},
        }

    def dataset(self, cases: int) -> dict[str, Any]:
        """The nnU-Net v2 dataset.json of this model."""
        return {
            "channel_names": {str(channel): name for channel, name in enumerate(self.channel_names)},
            "labels": self.labels,
            "numTraining": cases,
            "file_ending": ".nii.gz",
        }
