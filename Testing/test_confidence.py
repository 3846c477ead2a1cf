"""What the engine's confidence is: the mean margin of the two highest classes in the shell around each contour."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segrap.engine.backends import Head
from segrap.engine.confidence import ShellMargins
from segrap.models.labels import OutputPlan

# Label 3 belongs to both structures, as the brainstem to the brain.
TABLE = np.array([[0, 1, 2, 1], [0, 0, 0, 1]], dtype=np.uint8)
PLACEMENT = {"Brain": (0, 1), "Larynx": (0, 2), "BrainStem": (1, 1)}


def measure(
    scores: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float], covered: np.ndarray, regions: bool
) -> dict[str, float]:
    plan = OutputPlan(TABLE, (1, 2, 3) if regions else None, PLACEMENT)
    shells = ShellMargins(plan, TABLE, Head(None, None), spacing, probabilities=False)
    for z in range(labels.shape[0]):
        maps = torch.from_numpy(scores[:, z]).movedim(0, 2)
        shells.add(z, maps, torch.from_numpy(labels[z]), torch.from_numpy(covered[z]))
    return shells.finish()


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
