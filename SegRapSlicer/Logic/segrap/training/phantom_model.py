"""The demonstration model: two channels, the challenge's 54 sub-classes and the two tumours in one softmax.

It learns made-up patients only and is refused on anything else. How it was trained stands in the model's own folder
(training.log), how well it does on patients it never saw in its MODEL_CARD.md. Three steps, each a sub-command:
`cases` renders patients, `train` trains on a folder of them (also while it is still filling), `score` measures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segrap import anatomy
from segrap.training.recipe import Recipe, TrainingCase, Variation
from segrap.training.scores import dice, scores_as_table
from segrap.training.small_model import by_the_clock, train
from segrap.writing import replacing

# Patients for training have seeds from 1000 on; those for scoring lie below, so the two can never mix.
FIRST_TRAINING_SEED = 1000

# Sub-classes of a structure under 3 cc, and the slivers where two structures overlap.
SMALL = tuple(
    number
    for number, name in anatomy.SUBCLASSES.items()
    if (known := anatomy.find_structure(name)) is None or known.volume_mean_cc < 3
)

# What the network finds last, and is shown more often: grey in grey, or of a few voxels.
HARD = {
    number: odds
    for odds, names in (
        (10.0, ("Hippocampus_L", "Hippocampus_R")),
        (6.0, ("Chiasm",)),
        (4.0, ("OpticNerve_L", "OpticNerve_R")),
    )
    for name in names
    for number in anatomy.structure(name).subclasses
}

RECIPE = Recipe(
    name="SegRapPhantom",
    channel_names=("non-contrast CT", "contrast-enhanced CT"),
    labels={"background": 0} | {name: number for number, name in anatomy.SUBCLASSES.items()},
    spacing_zyx_mm=(3.0, 1.5, 1.5),
    patch_zyx=(32, 96, 96),
    first_patch_zyx=(32, 64, 64),
    often=dict.fromkeys(SMALL, 2.0) | HARD,
    # The patients have a scanner's noise already; more of it hides the hippocampus (18 HU above its bed).
    variation=Variation(noise=0.01),
    features=(16, 32, 64, 96, 128),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    intensities=((-1000.0, 1800.0, 0.0, 250.0), (-1000.0, 1800.0, 0.0, 250.0)),
    metadata={
        "name": "SegRapPhantom",
        "version": "1.2",
        "licence": "Apache-2.0",
        "intended_use": "demonstration",
        "description": "45 organs at risk and 2 tumour volumes of made-up patients. Never for a real one.",
        "channels": ["non_contrast", "contrast"],
        "one_piece": True,
    },
)


def make_case(seed: int) -> TrainingCase:
    """The made-up patient of a seed, scanned at 1 x 1 x 3 mm and brought to the recipe's grid as the engine would.

    Cropped to the body: shoulders and couch stay in, for the engine's tiles cover them too; air around them does not.
    """
    from scipy.ndimage import zoom

    from segrap.training.phantom import Phantom

    case = Phantom(seed).render()
    x_mm, y_mm, _ = case.non_contrast.geometry.spacing_mm
    factors = (y_mm / RECIPE.spacing_zyx_mm[1], x_mm / RECIPE.spacing_zyx_mm[2])

    def on_grid(volume: np.ndarray, order: int) -> np.ndarray:
        return np.stack([zoom(plane, factors, order=order, mode="nearest", grid_mode=True) for plane in volume])

    scans = [on_grid(image.array, 3) for image in (case.non_contrast, case.contrast)]
    body = np.argwhere(scans[0] > -500)
    low, high = body.min(0), body.max(0) + 1
    block = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    labels = on_grid(case.subclasses.array, 0)[block]
    return TrainingCase(RECIPE.normalise([scan[block] for scan in scans]), np.ascontiguousarray(labels))


def make_cases(seeds: Iterable[int], folder: Path) -> None:
    """Render patients into `folder`, one .npz each; those that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = folder / f"{seed}.npz"
        if not path.exists():
            case = make_case(seed)
            with replacing(path) as temporary:
                np.savez(temporary, channels=case.channels, labels=case.labels)


class CaseFolder:
    """The patients in a folder, read once each; calling it again picks up new ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cases: dict[str, TrainingCase] = {}

    def __call__(self) -> list[TrainingCase]:
        for path in sorted(self.folder.glob("[0-9]*.npz")):
            if path.name not in self._cases:
                with np.load(path) as arrays:
                    self._cases[path.name] = TrainingCase(arrays["channels"], arrays["labels"])
        return list(self._cases.values())


def score(model_folder: Path, seeds: Iterable[int]) -> dict[str, list[float]]:
    """Dice of every structure on made-up patients, through the same road as any patient's contours."""
    from segrap.contouring import contour
    from segrap.ct.pair import CTPair
    from segrap.models.folder import read_model
    from segrap.training.phantom import Phantom

    model = read_model(model_folder)
    scores: dict[str, list[float]] = {name: [] for name in anatomy.NAMES}
    for seed in seeds:
        case = Phantom(seed).render()
        contours = contour(CTPair(case.non_contrast, case.contrast, None, None, 0.0, ()), model)
        for name, truth in anatomy.masks_from_subclasses(case.subclasses.array).items():
            scores[name].append(dice(contours.mask(name), truth))
    return scores


def main() -> None:
    """Render made-up patients, train the demonstration model on them, or score it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cases = commands.add_parser("cases")
    cases.add_argument("folder", type=Path)
    cases.add_argument("--count", type=int, default=80)
    cases.add_argument("--first", type=int, default=FIRST_TRAINING_SEED)
    training = commands.add_parser("train")
    training.add_argument("folder", type=Path)
    training.add_argument("output", type=Path)
    training.add_argument("--minutes", type=float, default=80)
    training.add_argument("--start", type=Path, help="model folder to go on from")
    scoring = commands.add_parser("score")
    scoring.add_argument("model", type=Path)
    scoring.add_argument("--count", type=int, default=10)
    scoring.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "cases":
        make_cases(range(arguments.first, arguments.first + arguments.count), arguments.folder)
    elif arguments.command == "train":
        log = lambda line: print(line, flush=True)  # noqa: E731
        patients = CaseFolder(arguments.folder)
        train(RECIPE, patients, by_the_clock(arguments.minutes), arguments.output, log, start=arguments.start)
    else:
        scores = score(arguments.model, range(1, 1 + arguments.count))
        print(scores_as_table(scores))
        if arguments.json:
            arguments.json.write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
