"""nnU-Net v1 models (such as the baseline of SegRap2023) as v2 folders that the engine runs with v1's own arithmetic.

A v1 model is a folder of `fold_*` (or `all`) with `model_final_checkpoint.model` (weights) and
`model_final_checkpoint.model.pkl` (plans and trainer). `convert` writes the same weights and plans in the layout of v2.
Where v1 does otherwise than v2, the plans say so by v1's own names, so that our engine honours it and nnunetv2 itself
refuses the folder instead of running it wrongly:

- `preprocessor_name` GenericPreprocessor: intensities are normalised after resampling, not before; class probabilities
  are averaged over tiles and folds, not scores; tile weights are not rounded to float16.
- `network_class_name` Generic_UNet: a PlainConvUNet whose decoder takes the kernel of the next deeper stage.

Sources: nnunet 1.7.1 (preprocessing.py, generic_UNet.py, neural_network.py, segmentation_export.py); the tests compare
with that package. Not honoured and therefore refused: normalisation inside a mask, axes in another order, cascades,
2-D, other preprocessors and networks, post-processing rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segrap import anatomy
from segrap.errors import ModelError
from segrap.models.plans import V1_PREPROCESSOR
from segrap.models.restricted_pickle import read_pickle

CHECKPOINT = "model_final_checkpoint.model"
MOST_FEATURES = 320  # Generic_UNet.MAX_NUM_FILTERS_3D

# Trainers of nnunet 1.7.1 that change neither the network nor what is done with its output.
TRAINERS = re.compile(
    r"nnUNetTrainerV2(_(noMirroring|noDA|DA2|DA5|insaneDA|independentScalePerAxis|fp16|warmup|cycleAtEnd2?|\d+epochs"
    r"|Loss_\w+|SegLoss_Focal|momentum\d+|reduceMomentumDuringTraining|SGD_\w+|Adam\w*|Ranger_\w+))*"
)
_WITHOUT_MIRRORING = ("noMirroring", "noDA")
CHALLENGE_TASKS = ("Task070_SegRap001", "Task071_SegRap002")  # the baseline of SegRap2023: organs, tumours
_SCHEMES = {"CT": "CTNormalization", "noNorm": "NoNormalization"}
_OTHER_SCHEMES = ("CT2",)  # all names that v1 does not know are z-scores to it, "nonCT" and "MRI" among them


def holds_v1_model(folder: Path) -> bool:
    """True for the folder of a v1 model, whose folds lie directly in it."""
    return bool(_folds(folder))


def convert(source: Path, target: Path) -> Path:
    """Write the v1 model in `source` as a v2 folder `target`, which must not exist yet, and return it.

    A `dataset.json` in `source` (the one of the model's training data, v1 or v2) names the labels; without one, only
    the models of the SegRap2023 challenge are known. A `segrap.json` there is taken over.
    Raises ModelError: code in a pickle, an incomplete model, or something that cannot be honoured exactly.
    """
    import torch

    folds = _folds(source)
    if not folds:
        raise ModelError(f"{source} holds no fold_*/{CHECKPOINT}: it is no nnU-Net v1 model.")
    descriptions = {name: _Description(read_pickle(path / f"{CHECKPOINT}.pkl")) for name, path in folds.items()}
    first = next(iter(descriptions.values()))
    rules = source / "postprocessing.json"
    if rules.exists() and _read_json(rules).get("for_which_classes"):
        raise ModelError(
            f"{source} has post-processing rules, which are not applied here. Move postprocessing.json away to use the "
            "model without them."
        )
    labels = _label_names(source, first)
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(first.channel_names)},
        "labels": labels,
        "file_ending": ".nii.gz",
    }
    plans, facts = first.plans(), first.facts(labels)
    given = source / "segrap.json"
    facts |= _read_json(given) if given.exists() else {}
    target.mkdir()
    for name, content in (("dataset", dataset), ("plans", plans), ("segrap", facts)):
        (target / f"{name}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    for name, path in folds.items():
        description = descriptions[name]
        if description.plans() != plans or description.trainer != first.trainer:
            raise ModelError(f"The folds of {source} were trained with different plans or trainers.")
        checkpoint = {
            "network_weights": _weights(path / CHECKPOINT, plans, labels),
            "init_args": {"configuration": first.configuration},
            "trainer_name": description.trainer,
            "inference_allowed_mirroring_axes": first.mirror_axes(labels),
        }
        (target / f"fold_{name}").mkdir()
        torch.save(checkpoint, target / f"fold_{name}" / "checkpoint_final.pth")
    return target


def _folds(folder: Path) -> dict[str, Path]:
    found = {path.parent.name: path.parent for path in folder.glob(f"*/{CHECKPOINT}")}
    return {name.removeprefix("fold_"): found[name] for name in sorted(found) if re.fullmatch(r"fold_\d+|all", name)}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ModelError(f"{path} cannot be read: {fault}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object.")
    return content


class _Description:
    """What `model_final_checkpoint.model.pkl` says, checked."""

    def __init__(self, content: Any) -> None:
        try:
            self.trainer = str(content["name"])
            self._plans: Mapping[str, Any] = content["plans"]
            stages = self._plans["plans_per_stage"]
            number = content["init"][5]
            self._stage = stages[next(iter(stages)) if number is None else number]
            last = number is None or number == max(stages)
            self.configuration = "3d_fullres" if last else "3d_lowres"
            self.channel_names = [str(name) for _, name in sorted(self._plans["modalities"].items())]
            self.classes = [int(k) for k in self._plans["all_classes"]]
            self._paths = " ".join(
                str(part) for part in (*content["init"][:4], self._plans.get("preprocessed_data_folder"))
            )
        except (KeyError, IndexError, TypeError, ValueError) as fault:
            raise ModelError(f"The model's {CHECKPOINT}.pkl is not one of nnU-Net v1 ({fault}).") from None
        if not TRAINERS.fullmatch(self.trainer):
            raise ModelError(
                f"The model was trained by {self.trainer}. Only nnU-Net v1's own trainers that keep the planned "
                "network and its prediction can be run here."
            )

    @property
    def task(self) -> str:
        """The name of the v1 task, such as Task070_SegRap001, or "" where it is not told."""
        found = re.search(r"Task\d{3}_\w+", self._paths)
        return found[0] if found else ""

    def mirror_axes(self, labels: Mapping[str, int]) -> tuple[int, ...]:
        """v1 averages over mirror images wherever it trained with them. With labels that have a side that average
        mixes left and right; and the challenge's organisers ran both their models without it."""
        sided = any(name.casefold().endswith(("_l", "_r", "_left", "_right")) for name in labels)
        without = any(part in self.trainer for part in _WITHOUT_MIRRORING)
        return () if sided or without or self.task in CHALLENGE_TASKS else (0, 1, 2)

    def facts(self, labels: Mapping[str, int]) -> dict[str, Any]:
        """The content of segrap.json as far as the model tells it."""
        averaged = "averaged" if self.mirror_axes(labels) else "not averaged"
        organisers = ", as SegRap2023's organisers ran it" if self.task in CHALLENGE_TASKS else ""
        origin = f"Imported from nnU-Net v1 ({self.trainer}, {self.configuration})"
        facts = {"description": f"{origin}; {averaged} over mirror images{organisers}.", "intended_use": "research"}
        return facts | ({"name": self.task} if self.task else {})

    def plans(self) -> dict[str, Any]:
        """The plans in the words of nnU-Net v2. Raises ModelError for what cannot be honoured exactly."""
        try:
            return self._translate(self._plans, self._stage)
        except (KeyError, IndexError, TypeError, ValueError) as fault:
            raise ModelError(f"The model's plans are not those of nnU-Net v1 ({fault!r}).") from None

    def _translate(self, plans: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
        channels = range(int(plans["num_modalities"]))
        preprocessor = plans.get("preprocessor_name") or V1_PREPROCESSOR
        order = [int(axis) for axis in plans.get("transpose_forward") or (0, 1, 2)]
        schemes = [str(plans["normalization_schemes"][c]) for c in channels]
        masked = [bool(plans["use_mask_for_norm"][c]) for c in channels]
        convolutions = int(plans.get("conv_per_stage", 2))
        for wrong, what in (
            (len(stage["patch_size"]) != 3, "is 2-D"),
            (preprocessor != V1_PREPROCESSOR, f"wants the preprocessor {preprocessor}"),
            (order != [0, 1, 2], "has its axes in another order"),
            (any(scheme in _OTHER_SCHEMES for scheme in schemes), f"normalises by {', '.join(schemes)}"),
            (any(masked), "normalises inside a mask"),
            (convolutions < 2, "has one convolution per stage"),
        ):
            if wrong:
                raise ModelError(f"The model {what}, which cannot be imported exactly.")
        pools = [[int(n) for n in pool] for pool in stage["pool_op_kernel_sizes"]]
        export = plans.get("segmentation_export_params") or {}
        resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        scores = {
            "is_seg": False,
            "order": export.get("interpolation_order", 1),
            "order_z": export.get("interpolation_order_z", 0),
            "force_separate_z": export.get("force_separate_z"),
        }
        count = len(pools) + 1
        configuration = {
            "preprocessor_name": V1_PREPROCESSOR,
            "patch_size": [int(n) for n in stage["patch_size"]],
            "spacing": [float(mm) for mm in stage["current_spacing"]],
            "normalization_schemes": [_SCHEMES.get(scheme, "ZScoreNormalization") for scheme in schemes],
            "use_mask_for_norm": masked,
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling,
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": scores,
            "architecture": {
                "network_class_name": "nnunet.network_architecture.generic_UNet.Generic_UNet",
                "arch_kwargs": {
                    "n_stages": count,
                    "features_per_stage": [
                        min(int(plans["base_num_features"]) * 2**i, MOST_FEATURES) for i in range(count)
                    ],
                    "conv_op": "torch.nn.Conv3d",
                    "kernel_sizes": [[int(n) for n in kernel] for kernel in stage["conv_kernel_sizes"]],
                    "strides": [[1, 1, 1], *pools],
                    "n_conv_per_stage": [convolutions] * count,
                    "n_conv_per_stage_decoder": [convolutions] * (count - 1),
                    "conv_bias": True,
                    "norm_op": "torch.nn.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"negative_slope": 1e-2, "inplace": True},
                },
            },
        }
        return {
            "dataset_name": self.task,
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": order,
            "transpose_backward": order,
            "configurations": {self.configuration: configuration},
            "foreground_intensity_properties_per_channel": self._intensities(plans, schemes),
        }

    @staticmethod
    def _intensities(plans: Mapping[str, Any], schemes: list[str]) -> dict[str, dict[str, float]]:
        known = (plans.get("dataset_properties") or {}).get("intensityproperties") or {}
        return {
            str(c): {
                theirs: float(known[c][ours])
                for theirs, ours in (
                    *(("mean", "mean"), ("std", "sd")),
                    *(("percentile_00_5", "percentile_00_5"), ("percentile_99_5", "percentile_99_5")),
                )
            }
            for c, scheme in enumerate(schemes)
            if scheme == "CT"
        }


def _label_names(source: Path, description: _Description) -> dict[str, int]:
    """Label name -> number, background included: v1's model files hold numbers only."""
    given = source / "dataset.json"
    names: dict[int, str] = {}
    if given.exists():
        listed = _read_json(given).get("labels")
        if not isinstance(listed, Mapping):
            raise ModelError(f"{given} does not list `labels`: number and name of each.")
        for key, value in listed.items():
            name, number = (key, value) if isinstance(value, int) else (value, key)  # v1 writes {"1": name}
            if not isinstance(name, str) or not str(number).isdecimal():
                raise ModelError(f"{given} has the label {key!r}: {value!r}, but v1 has one number for each name.")
            names[int(number)] = name
    elif "segrap" in description.task.casefold() and description.classes == list(range(1, 55)):
        names = {k: anatomy.SUBCLASSES[k] for k in description.classes}
    elif "segrap" in description.task.casefold() and description.classes == [1, 2]:
        names = {1: "GTVp", 2: "GTVnd"}
    missing = [k for k in description.classes if k not in names]
    if missing:
        raise ModelError(
            f"The model does not tell what its labels {', '.join(map(str, missing))} are. Put the dataset.json of its "
            f"training data into {source}."
        )
    return {"background": 0} | {names[k]: k for k in description.classes}


def _weights(path: Path, plans: Mapping[str, Any], labels: Mapping[str, int]) -> dict[str, Any]:
    """The weights of one v1 checkpoint under the names of v2."""
    import torch

    from segrap.models.checkpoint import load_as_data
    from segrap.models.network import build_network

    content = load_as_data(path)
    stored = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(stored, Mapping):
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v1.")
    theirs = {str(name).removeprefix("module."): value for name, value in stored.items()}
    (configuration,) = plans["configurations"].values()
    arguments = configuration["architecture"]["arch_kwargs"]
    with torch.device("meta"):
        ours = build_network(configuration, len(configuration["normalization_schemes"]), len(labels)).state_dict()
    weights, used = {}, set()
    for name, wanted in ours.items():
        old = _name_in_v1(name, arguments["n_stages"] - 1, arguments["n_conv_per_stage"][0])
        if old in theirs:
            weights[name] = theirs[old]
            used.add(old)
        elif name.endswith(".bias") and (".transpconvs." in name or ".seg_layers." in name):
            weights[name] = torch.zeros(wanted.shape)  # v1 has none there
        else:
            raise ModelError(f"{path} lacks {old}: its network is not the one that its plans describe.")
    if used != set(theirs):
        raise ModelError(f"{path} has weights that its plans do not explain: {sorted(set(theirs) - used)[0]}.")
    return weights


def _name_in_v1(name: str, deepest: int, convolutions: int) -> str:
    """Generic_UNet's name of a parameter of PlainConvUNet. The last convolution of its bottleneck and of every stage of
    its decoder lies in a block of its own."""
    part = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
    found = re.fullmatch(
        r"(encoder|decoder)\.stages\.(\d+)\.(?:0\.)?convs\.(\d+)\.(?:(conv|all_modules\.0)|norm|all_modules\.1)\.(\w+)",
        part,
    )
    if found is None:
        return part.replace("decoder.transpconvs.", "tu.").replace("decoder.seg_layers.", "seg_outputs.")
    half, stage, number = found[1], int(found[2]), int(found[3])
    block = f"blocks.{number}"
    if half == "decoder" or stage == deepest:
        block = "1.blocks.0" if number == convolutions - 1 else f"0.blocks.{number}"
    where = "conv_blocks_context" if half == "encoder" else "conv_blocks_localization"
    return f"{where}.{stage}.{block}.{'conv' if found[4] else 'instnorm'}.{found[5]}"
