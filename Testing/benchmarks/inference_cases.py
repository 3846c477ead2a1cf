"""The CT pairs and model folders of `inference.py`: made once, kept in its work folder, the same for every contestant.

A case is a folder with one int16 array (z, y, x) for each scan, the spacing, which voxels are body, and, for made-up
patients, the true sub-classes. Contestants read these arrays before their clock starts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from segrap.ct.pair import load_pair
from segrap.engine.resampling import resampled_shape
from segrap.image import AxisOrder
from segrap.models.checkpoint import read_checkpoint
from segrap.models.folder import Model
from segrap.training.phantom import Phantom

SEED = 5  # of a patient that the shipped model never saw: it was trained on seeds from 1000 on
FIELD_MM = 500.0
BODY_HU = -500

# name: voxels (x, y, z), spacing in mm
MADE_UP: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "tiny": ((100, 100, 34), (1.2, 1.2, 3.0)),
    "512x60": ((512, 512, 60), (FIELD_MM / 512, FIELD_MM / 512, 3.0)),
    "512x130": ((512, 512, 130), (FIELD_MM / 512, FIELD_MM / 512, 3.0)),
    "1024x130": ((1024, 1024, 130), (FIELD_MM / 1024, FIELD_MM / 1024, 3.0)),
}
MIRROR_AXES = (0, 1, 2)
TORCH_RESAMPLING = "resample_torch_fornnunet"


@dataclass(frozen=True)
class Case:
    """shape and spacing are in array order (z, y, x)."""

    name: str
    folder: Path
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def scan(self, role: str) -> Path:
        return self.folder / f"{role}.npy"

    def body(self) -> np.ndarray:
        """The patient: bool (z, y, x), see `_body`."""
        return np.load(self.folder / "body.npy")

    def truth(self) -> np.ndarray | None:
        path = self.folder / "truth.npy"
        return np.load(path) if path.exists() else None

    def network_shape(self, model: Model) -> tuple[int, int, int]:
        """Voxels of the grid that the model's network sees (nothing cropped), in its own axis order."""
        order = model.transpose_forward
        shape, spacing = ([values[axis] for axis in order] for values in (self.shape, self.spacing_mm))
        return resampled_shape(shape, spacing, model.spacing_mm)


def make_case(name: str, work: Path) -> Case:
    """The made-up patient of that name, or the CT pair in that folder (files that `segrap contour` reads)."""
    folder = work / "cases" / (name if name in MADE_UP else Path(name).resolve().name)
    facts = folder / "case.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scans, spacing = _made_up(name, folder) if name in MADE_UP else _read(Path(name))
        for role, scan in scans.items():
            np.save(folder / f"{role}.npy", scan.astype(np.int16))
        np.save(folder / "body.npy", _body(list(scans.values())))
        shape = next(iter(scans.values())).shape
        facts.write_text(json.dumps({"shape": shape, "spacing_mm": spacing}))
    known = json.loads(facts.read_text())
    return Case(folder.name, folder, tuple(known["shape"]), tuple(known["spacing_mm"]))


def _body(scans: list[np.ndarray]) -> np.ndarray:
    """The largest connected piece of what is above BODY_HU in any scan: without a couch that the patient, on a head
    rest of foam, does not touch, and with one that shoulders lie on."""
    pieces, _ = ndimage.label(np.logical_or.reduce([scan > BODY_HU for scan in scans]), np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def _made_up(name: str, folder: Path) -> tuple[dict[str, np.ndarray], list[float]]:
    size, spacing = MADE_UP[name]
    patient = Phantom(SEED).render(spacing_mm=spacing, size=size)
    np.save(folder / "truth.npy", patient.subclasses.array)
    return {"non_contrast": patient.non_contrast.array, "contrast": patient.contrast.array}, list(spacing[::-1])


def _read(source: Path) -> tuple[dict[str, np.ndarray], list[float]]:
    pair = load_pair(source)
    order = AxisOrder.towards_lps(pair.non_contrast.geometry)
    roles = ("non_contrast", "contrast")[: 1 + (pair.contrast is not None)]
    scans = {role: order.apply(scan) for role, scan in zip(roles, pair.images(roles), strict=True)}
    return scans, list(order.turn(pair.non_contrast).geometry.spacing_mm[::-1])


def model_variant(model: Model, folder: Path, *, mirrored: bool, torch_resampling: int = 0) -> Path:
    """A copy of a model folder: with a checkpoint that allows all mirror axes, or with nnU-Net's torch resampling
    (the number of its threads). Only what runs the model is copied, so that nnunetv2 unpickles nothing else."""
    if folder.exists():
        return folder
    making = folder.with_name(folder.name + ".part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for name in ("dataset.json", "segrap.json"):
        if (model.folder / name).exists():
            shutil.copy(model.folder / name, making)
    plans = json.loads((model.folder / "plans.json").read_text())
    if torch_resampling:
        for kind in ("data", "seg", "probabilities"):
            settings = plans["configurations"][model.configuration_name]
            settings[f"resampling_fn_{kind}"] = TORCH_RESAMPLING
            settings[f"resampling_fn_{kind}_kwargs"] = {
                "is_seg": kind == "seg",
                "force_separate_z": None,
                "num_threads": torch_resampling,
            }
    (making / "plans.json").write_text(json.dumps(plans))
    for fold in model.folds:
        checkpoint = read_checkpoint(model.checkpoint_path(fold))
        content: dict[str, Any] = {
            "network_weights": dict(checkpoint.weights),
            "trainer_name": checkpoint.trainer,
            "init_args": {"configuration": checkpoint.configuration},
            "inference_allowed_mirroring_axes": MIRROR_AXES if mirrored else checkpoint.mirror_axes or None,
        }
        (making / f"fold_{fold}").mkdir()
        torch.save(content, making / f"fold_{fold}" / "checkpoint_final.pth")
    making.rename(folder)
    return folder
