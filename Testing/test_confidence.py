"""What the engine's confidence is: the mean margin of the two highest classes in the shell around each contour."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segrap.engine.confidence import ShellMargins
from segrap.engine.head import Head
from segrap.models.labels import OutputPlan

# Label 3 belongs to both structures, as the brainstem to the brain.
TABLE = np.array([[0, 1, 2, 1], [0, 0, 0, 1]], dtype=np.uint8)
PLACEMENT = {"Brain": (0, 1), "Larynx": (0, 2), "BrainStem": (1, 1)}


def measure(
    scores: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float], covered: np.ndarray, regions: bool
) -> dict[str, float]:
    plan = OutputPlan(TABLE, (1, 2, 3) if regions else None, PLACEMENT)
    shells = ShellMargins(plan, TABLE, Head(), spacing, probabilities=False)
    for z in range(labels.shape[0]):
        maps = torch.from_numpy(scores[:, z]).movedim(0, 2)
        shells.add(z, maps, torch.from_numpy(labels[z]), torch.from_numpy(covered[z]))
    confidence, disagreement = shells.finish()
    assert not disagreement  # one fold cannot disagree
    return confidence


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (1.0, 0.7, 0.9), (0.8, 3.0, 3.0)])
def test_it_is_the_mean_margin_of_all_voxels_in_the_shell(spacing: tuple[float, float, float], regions: bool) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (3 if regions else 4, 9, 14, 15)).astype(np.float32)
    labels = np.zeros(scores.shape[1:], dtype=np.uint8)
    labels[2:7, 3:9, 3:8], labels[3:5, 4:7, 4:6], labels[:, 10:13, 9:14] = 1, 3, 2
    covered = np.ones(labels.shape, dtype=bool)
    covered[:, :, 13:] = False
    if regions:
        margin = np.abs(2 / (1 + np.exp(-scores.astype(np.float64))) - 1).min(axis=0)
    else:
        shares = np.sort(np.exp(scores.astype(np.float64)), axis=0)
        margin = (shares[-1] - shares[-2]) / shares.sum(axis=0)
    places = np.argwhere(np.ones(labels.shape, dtype=bool))
    steps = places[:, None] - places[None]
    near = np.linalg.norm(steps * np.array(spacing), axis=2) <= 2.0
    near |= (np.abs(steps).sum(axis=2) == 1) & (steps[..., 0] == 0)
    expected = {}
    for name, (layer, value) in PLACEMENT.items():
        inside = (TABLE[layer][labels] == value).ravel()
        shell = (near & (inside[:, None] != inside[None])).any(axis=1) & covered.ravel()
        expected[name] = margin.ravel()[shell].mean()
    assert measure(scores, labels, spacing, covered, regions) == pytest.approx(expected, abs=1e-5)


def test_a_structure_that_is_not_found_has_none() -> None:
    labels = np.zeros((3, 6, 6), dtype=np.uint8)
    labels[1, 2:4, 2:4] = 2
    scores = np.zeros((4, 3, 6, 6), dtype=np.float32)
    found = measure(scores, labels, (3.0, 1.0, 1.0), np.ones(labels.shape, dtype=bool), False)
    assert found == {"Larynx": 0.0}  # all classes are equally likely


@pytest.mark.parametrize("regions", [False, True])
def test_folds_disagree_as_often_as_their_own_scores_decide_otherwise_in_the_shell(regions: bool) -> None:
    rng = np.random.default_rng(0)
    classes = 3 if regions else 4
    heads = [torch.nn.Conv3d(5, classes, 1) for _ in range(3)]
    features = rng.normal(0, 2, (3, 5, 12, 12, 15)).astype(np.float32)  # fold, feature, z, y, x
    labels = np.zeros(features.shape[2:], dtype=np.uint8)
    labels[3:8, 3:9, 3:8] = 2
    plan = OutputPlan(TABLE, (1, 2, 3) if regions else None, {"Larynx": (0, 2)})
    head = Head.of_folds(heads, torch.device("cpu"), regions=regions)
    shells = ShellMargins(plan, TABLE, head, (1.0, 1.0, 1.0), probabilities=False)
    covered = torch.ones(labels.shape[1:], dtype=torch.bool)
    with torch.inference_mode():
        for z in range(len(labels)):
            maps = torch.from_numpy(features[:, :, z].reshape(15, 12, 15)).movedim(0, 2)
            shells.add(z, maps, torch.from_numpy(labels[z]), covered)
        scores = [one(torch.from_numpy(fold)[None])[0].numpy() for one, fold in zip(heads, features, strict=True)]
    mean = np.mean(scores, axis=0)
    if regions:
        differs = np.mean([((one > 0) != (mean > 0)).any(axis=0) for one in scores], axis=0)
    else:
        differs = np.mean([one.argmax(axis=0) != mean.argmax(axis=0) for one in scores], axis=0)
    inside = labels == 2
    near = np.pad(inside, 2)
    steps = [s for s in np.ndindex(5, 5, 5) if np.linalg.norm(np.subtract(s, 2)) <= 2]
    moved = [near[k : k + 12, j : j + 12, i : i + 15] for k, j, i in steps]
    shell = np.any(moved, axis=0) & ~np.all(moved, axis=0)
    assert 0.1 < differs[shell].mean() < 0.9
    assert shells.finish()[1] == {"Larynx": pytest.approx(differs[shell].mean(), abs=1e-5)}
