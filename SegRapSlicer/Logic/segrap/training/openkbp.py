"""A one-channel model of eight structures from the OpenKBP patients (real planning CTs with clinical contours)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segrap.image import Image, read_image
from segrap.training.recipe import Recipe, TrainingCase, Variation
from segrap.training.scores import dice, scores_as_table
from segrap.training.small_model import average, by_the_clock, train

# OpenKBP's label values; its one mandible is split in the midline into SegRap's two.
OPENKBP_LABELS = {1: "BrainStem", 2: "SpinalCord", 3: "Parotid_R", 4: "Parotid_L", 5: "Esophagus", 6: "Larynx"}
OPENKBP_MANDIBLE = 7
# Organs that are soft tissue throughout, and the axial area (cm2) that none of them passes: see faulty_references.
SOFT_AND_NARROW = {"BrainStem": 15.0, "SpinalCord": 6.0, "Esophagus": 6.0}

RECIPE = Recipe(
    name="OpenKBP_8",
    channel_names=("CT",),
    labels={"background": 0}
    | {name: value for value, name in OPENKBP_LABELS.items()}
    | {"Mandible_R": 7, "Mandible_L": 8},
    spacing_zyx_mm=(3.0, 3.0, 3.0),
    patch_zyx=(40, 64, 64),
    features=(16, 32, 64, 96, 128),
    kernels=((3, 3, 3),) * 5,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    intensities=((-1000.0, 1500.0, -20.0, 300.0),),
    anywhere=0.2,
    often={5: 2.0},  # the esophagus: in a third of the patients only
    variation=Variation(
        turns_deg=(8.0, 4.0, 10.0),
        size=0.15,
        stretch=0.06,
        bend_mm=3.0,
        swapped={3: 4, 4: 3, 7: 8, 8: 7},
        # OpenKBP's CTs were averaged to 3-4 mm pixels; those of a clinic come to this grid by interpolation.
        sharpness=(-0.7, 0.5),
        gain=0.1,
        shift=0.07,
        noise=0.1,
    ),
    image_order=1,
    metadata={
        "name": "OpenKBP_8",
        "version": "1.1",
        "licence": "Apache-2.0 (data: OpenKBP, MIT)",
        "intended_use": "research",
        "description": "Eight organs from one CT, trained on OpenKBP planning CTs.",
        "channels": ["non_contrast"],
        "one_piece": True,
    },
)


def read_case(folder: Path) -> TrainingCase:
    """One OpenKBP patient (ct.nii.gz, labels.nii.gz) on the recipe's grid, the mandible split in its midline."""
    ct = read_image(folder / "ct.nii.gz")
    labels = split_mandible(read_image(folder / "labels.nii.gz").array)
    faulty = faulty_references(ct, labels)
    present = set(np.unique(labels).tolist()) - set(faulty)
    labels[np.isin(labels, faulty)] = 0
    missing = tuple(value for value in RECIPE.labels.values() if value and value not in present)
    hu, on_grid = _on_grid(ct, labels)
    body = np.argwhere(hu > -500)
    low, high = np.maximum(body.min(0) - 4, 0), body.max(0) + 5
    block = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return TrainingCase(RECIPE.normalise([hu[block]]), on_grid[block], missing)


def faulty_references(ct: Image, labels: np.ndarray) -> list[int]:
    """The label values (z, y, x) in which this patient's reference cannot be the organ.

    OpenKBP holds dose-shaping volumes that are called "SpinalCord" (18 and 35 cm2 in the axial plane, where a cord's
    contour has 1 to 3), an esophagus drawn in air, and a patient whose contours do not lie on the CT (the brainstem
    in bone), of whom nothing is used. Such references teach nothing and measure nothing.
    """
    pixel_cm2 = ct.geometry.spacing_mm[0] * ct.geometry.spacing_mm[1] / 100
    faulty = []
    for value, name in OPENKBP_LABELS.items():
        inside = labels == value
        if name not in SOFT_AND_NARROW or not inside.any():
            continue
        hu = np.median(ct.array[inside])
        if hu > 100:
            return list(np.unique(labels)[1:])
        areas = inside.sum((1, 2))
        if hu < -150 or np.median(areas[areas > 0]) * pixel_cm2 > SOFT_AND_NARROW[name]:
            faulty.append(value)
    return faulty


def split_mandible(labels: np.ndarray) -> np.ndarray:
    """OpenKBP labels (z, y, x) with the mandible as Mandible_R (7) and Mandible_L (8): left is at larger x (LPS)."""
    from scipy.stats import theilslopes

    result = labels.astype(np.uint8)
    z, y, x = np.nonzero(labels == OPENKBP_MANDIBLE)
    if len(x):
        # The midline follows the head's turn: a straight line through the bone's middle, from chin to jaw angles.
        depths = np.unique(y)
        middles = np.array([(x[y == depth].min() + x[y == depth].max()) / 2 for depth in depths])
        # Medians: at depths that one side alone reaches, the middle of what is there is far from the midline.
        slope, start = theilslopes(middles, depths)[:2] if len(depths) > 2 else (0.0, x.mean())
        left = x > slope * y + start
        result[z[left], y[left], x[left]] = RECIPE.labels["Mandible_L"]
    return result


def _on_grid(ct: Image, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HU (linear) and labels (each structure linear, the strongest wins) on a grid of the recipe's spacing."""
    import torch

    extent = np.array(ct.shape) * np.array(ct.geometry.spacing_mm[::-1])
    shape = tuple(int(n) for n in np.maximum(np.round(extent / np.array(RECIPE.spacing_zyx_mm)), 1))

    def linear(volume: np.ndarray) -> np.ndarray:
        source = torch.from_numpy(volume.astype(np.float32))[None, None]
        return torch.nn.functional.interpolate(source, shape, mode="trilinear", align_corners=False)[0, 0].numpy()

    best = np.full(shape, 0.5, dtype=np.float32)
    result = np.zeros(shape, dtype=np.uint8)
    for value in np.unique(labels)[1:]:
        share = linear(labels == value)
        stronger = share > best
        result[stronger] = value
        best[stronger] = share[stronger]
    return linear(ct.array), result


def score(model_folder: Path, patients: Iterable[Path]) -> dict[str, list[float]]:
    """Dice of every structure over the patients who have it, on their own grid, through the road of any patient.

    References that cannot be the organ (`faulty_references`) measure nothing and are left out.
    """
    from segrap.contouring import contour
    from segrap.ct.pair import CTPair
    from segrap.models.folder import read_model

    model = read_model(model_folder)
    scores: dict[str, list[float]] = {name: [] for name in RECIPE.labels if name != "background"}
    for folder in patients:
        labels = split_mandible(read_image(folder / "labels.nii.gz").array)
        ct = read_image(folder / "ct.nii.gz")
        faulty = faulty_references(ct, labels)
        contours = contour(CTPair(ct, None, None, None, 0.0, ()), model)
        for name, found in scores.items():
            truth = labels == RECIPE.labels[name]
            if truth.any() and RECIPE.labels[name] not in faulty:
                found.append(dice(contours.mask(name), truth))
    return scores


def main() -> None:
    """Train on a folder of OpenKBP patients and write the model folder, average several, or score one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("patients", type=Path, help="folder with one folder per patient")
    training.add_argument("output", type=Path, help="model folder to write")
    training.add_argument("--minutes", type=float, default=150)
    training.add_argument("--start", type=Path, help="model folder to go on from")
    averaging = commands.add_parser("average")
    averaging.add_argument("models", type=Path, nargs="+", help="model folders, trained on from each other")
    averaging.add_argument("--output", type=Path, required=True, help="model folder to write")
    scoring = commands.add_parser("score")
    scoring.add_argument("model", type=Path)
    scoring.add_argument("patients", type=Path)
    scoring.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "average":
        average(RECIPE, arguments.models, arguments.output)
        return
    folders = sorted(folder for folder in arguments.patients.iterdir() if folder.is_dir())
    if arguments.command == "train":
        cases = [read_case(folder) for folder in folders]
        log = lambda line: print(line, flush=True)  # noqa: E731
        train(RECIPE, lambda: cases, by_the_clock(arguments.minutes), arguments.output, log, start=arguments.start)
    else:
        scores = score(arguments.model, folders)
        print(scores_as_table(scores))
        if arguments.json:
            arguments.json.write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
