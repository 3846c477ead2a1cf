"""Runs nnU-Net v1 (the package nnunet 1.7.1) for the tests that compare with it, in the environment of `make_peers.py`.

    python nnunet_v1_peer.py JOBS.json      a list of {"folder", "plans", "trainer", "folds", "images", "mirror", "out"}

Each job builds v1's own trainer from plans, gives its network random weights, lets the trainer save it as a training
would, and lets it predict. Nothing of segrap is imported here, so that no mistake can be on both sides of a comparison.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
import types
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

for variable in ("nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER"):
    os.environ[variable] = tempfile.gettempdir()
# nnunet imports medpy for scores of its validation, which is not run here.
sys.modules["medpy"] = types.ModuleType("medpy")
sys.modules["medpy"].metric = None
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402, N813
import torch  # noqa: E402
from nnunet.training.data_augmentation.default_data_augmentation import default_3D_augmentation_params  # noqa: E402
from nnunet.training.model_restore import restore_model  # noqa: E402
from nnunet.training.network_training.nnUNet_variants.data_augmentation.nnUNetTrainerV2_noMirroring import (  # noqa: E402
    nnUNetTrainerV2_noMirroring,
)
from nnunet.training.network_training.nnUNetTrainerV2 import nnUNetTrainerV2  # noqa: E402


def plans_as_v1_keeps_them(given: dict[str, Any]) -> dict[str, Any]:
    """JSON plans with v1's integer keys, numpy arrays and ordered dictionaries."""

    def numbered(entries: dict[str, Any]) -> OrderedDict:
        return OrderedDict((int(key), value) for key, value in entries.items())

    plans = dict(given)
    plans["plans_per_stage"] = {
        number: stage
        | {
            "patch_size": np.array(stage["patch_size"]),
            "current_spacing": np.array(stage["current_spacing"]),
            "median_patient_size_in_voxels": np.array([126, 1023, 1023]),
        }
        for number, stage in numbered(given["plans_per_stage"]).items()
    }
    for key in ("modalities", "normalization_schemes", "use_mask_for_norm"):
        plans[key] = numbered(given[key])
    intensities = given["intensities"]
    intensities = intensities and OrderedDict(
        (channel, {name: np.float32(value) for name, value in entries.items()})
        for channel, entries in numbered(intensities).items()
    )
    plans["dataset_properties"] = {"all_sizes": [(120, 512, 512)], "intensityproperties": intensities}
    return plans


def save(job: dict[str, Any]) -> None:
    """Write plans.pkl and, per fold, a checkpoint as v1's training leaves them."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True)
    plans = plans_as_v1_keeps_them(job["plans"])
    with (folder / "plans.pkl").open("wb") as file:
        pickle.dump(plans, file)
    kind = {"nnUNetTrainerV2": nnUNetTrainerV2, "nnUNetTrainerV2_noMirroring": nnUNetTrainerV2_noMirroring}
    for fold in range(job["folds"]):
        trainer = kind[job["trainer"]](
            str(folder / "plans.pkl"),
            fold,
            str(folder),
            job["folder"] + "/preprocessed",
            False,
            job["stage"],
            True,
            False,
            True,
        )
        torch.manual_seed(fold)
        trainer.initialize(False)
        for name, parameter in trainer.network.named_parameters():
            if "seg_outputs" in name:
                torch.nn.init.normal_(parameter, 0.0, 1.0)  # else the classes tie nearly everywhere
            elif parameter.ndim == 1:
                torch.nn.init.normal_(parameter, 1.0 if "instnorm.weight" in name else 0.0, 0.3)
        trainer.all_tr_losses = [np.float32(0.5)]
        trainer.all_val_eval_metrics = [np.float64(0.7)]
        trainer.save_checkpoint(str(folder / f"fold_{fold}" / "model_final_checkpoint.model"))


def predict(job: dict[str, Any]) -> None:
    """v1's labels for the images (channel, z, y, x) at the spacing (z, y, x) of an .npz file: its own preprocessing,
    sliding window, mean over folds and export."""
    folder = Path(job["folder"])
    trainer = restore_model(str(folder / "fold_0" / "model_final_checkpoint.model.pkl"))
    trainer.initialize(False)
    case = np.load(job["images"])
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for number, image in enumerate(case["images"]):
            file = sitk.GetImageFromArray(image)
            file.SetSpacing(case["spacing"][::-1].tolist())
            files.append(f"{scratch}/case_{number:04}.nii.gz")
            sitk.WriteImage(file, files[-1])
        data, _, properties = trainer.preprocess_patient(files)
        total = 0
        for fold in range(job["folds"]):
            weights = torch.load(folder / f"fold_{fold}" / "model_final_checkpoint.model", weights_only=False)
            trainer.load_checkpoint_ram(weights, False)
            total = (
                total
                + trainer.predict_preprocessed_data_return_seg_and_softmax(
                    data, do_mirroring=job["mirror"], mirror_axes=(0, 1, 2), mixed_precision=False, verbose=False
                )[1]
            )
        from nnunet.inference.segmentation_export import save_segmentation_nifti_from_softmax

        out = f"{scratch}/labels.nii.gz"
        save_segmentation_nifti_from_softmax(total / job["folds"], out, properties, 1, None, verbose=False)
        np.save(job["out"], sitk.GetArrayFromImage(sitk.ReadImage(out)).astype(np.uint8))


if __name__ == "__main__":
    for one in json.loads(Path(sys.argv[1]).read_text()):
        default_3D_augmentation_params["do_mirror"] = True  # the trainers change this one dictionary
        save(one)
        predict(one)
