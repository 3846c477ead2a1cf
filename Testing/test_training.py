"""Training of the small models: it learns, honours what nobody contoured, and ends in a folder that runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segrap import anatomy
from segrap.errors import InputError, ModelError
from segrap.models.folder import read_model
from segrap.training import openkbp, phantom_model
from segrap.training.patches import PatchSampler
from segrap.training.recipe import Recipe, TrainingCase, Variation
from segrap.training.small_model import average, partial_loss, train

TINY = Recipe(
    name="Tiny",
    channel_names=("CT",),
    labels={"background": 0, "BrainStem": 1, "SpinalCord": 2},
    spacing_zyx_mm=(3.0, 3.0, 3.0),
    patch_zyx=(16, 16, 16),
    features=(4, 8),
    kernels=((3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (2, 2, 2)),
    intensities=((-1000.0, 1000.0, 0.0, 250.0),),
    metadata={"name": "Tiny", "version": "1", "intended_use": "demonstration", "channels": ["non_contrast"]},
)


@pytest.fixture
def case() -> TrainingCase:
    """Two cubes of different brightness: one class each."""
    labels = np.zeros((24, 24, 24), dtype=np.uint8)
    labels[4:12, 4:12, 4:12] = 1
    labels[13:20, 13:20, 13:20] = 2
    hu = np.array([-1000, 0, 500])[labels]
    return TrainingCase(TINY.normalise([hu]), labels)


def test_trained_folder_is_a_model_that_finds_what_it_learned(case: TrainingCase, tmp_path: Path) -> None:
    from segrap.engine import segment

    lines: list[str] = []
    train(TINY, lambda: [case], lambda step: step / 900, tmp_path, lines.append)
    model = read_model(tmp_path)
    assert (model.name, model.intended_use, model.structures) == ("Tiny", "demonstration", ("BrainStem", "SpinalCord"))
    hu = np.array([-1000, 0, 500])[case.labels].astype(np.int16)
    plan = model.output_plan()
    layers = segment(model, [hu], (3.0, 3.0, 3.0), plan).layers
    layer, value = plan.placement["SpinalCord"]
    found, true = layers[layer] == value, case.labels == 2
    assert 2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true)) > 0.7
    assert "done" in lines[-1]


def test_weights_are_halves_on_disk_and_go_on_from_there(case: TrainingCase, tmp_path: Path) -> None:
    train(TINY, lambda: [case], lambda step: step / 5, tmp_path / "a", lambda line: None)
    stored = torch.load(tmp_path / "a" / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    train(TINY, lambda: [case], lambda step: 1.0, tmp_path / "b", lambda line: None, start=tmp_path / "a")
    again = torch.load(tmp_path / "b" / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    assert all(torch.allclose(stored[name], again[name], atol=5e-3) for name in stored)


def test_training_does_not_go_on_from_another_network(case: TrainingCase, tmp_path: Path) -> None:
    train(TINY, lambda: [case], lambda step: 1.0, tmp_path / "a", lambda line: None)
    other = replace(TINY, features=tuple(2 * n for n in TINY.features))
    with pytest.raises(ModelError, match="cannot go on"):
        train(other, lambda: [case], lambda step: 1.0, tmp_path / "b", print, start=tmp_path / "a")
    assert not (tmp_path / "b").exists()


def test_the_average_of_two_models_is_the_mean_of_their_weights(case: TrainingCase, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        train(TINY, lambda: [case], lambda step: step / 3, tmp_path / name, lambda line: None, seed=seed)
    average(TINY, [tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    a, b, mean = (read_model(tmp_path / name).load_networks()[0].state_dict() for name in ("a", "b", "mean"))
    assert all(torch.allclose(mean[name], (a[name] + b[name]) / 2, atol=2e-3) for name in mean)


def test_no_case_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training case"):
        train(TINY, list, lambda step: step / 5, tmp_path, print)


def test_what_nobody_contoured_is_not_background() -> None:
    """A network that calls a voxel a missing class loses nothing; calling it a contoured class costs."""
    labels = torch.zeros((1, 8, 8), dtype=torch.long)
    head = torch.nn.Conv3d(3, 3, 1)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3)[:, :, None, None, None] * 20)
        head.bias.zero_()
    says = {value: torch.zeros((1, 3, 1, 8, 8)).index_fill(1, torch.tensor([value]), 1.0) for value in range(3)}
    loss = {value: float(partial_loss(map_, head, labels, (1,), 3, 0.5).detach()) for value, map_ in says.items()}
    assert loss[0] == pytest.approx(0, abs=1e-3)
    assert loss[1] == pytest.approx(0, abs=1e-3)
    assert loss[2] > 1


def test_patches_are_not_mirrored_where_no_labels_are_swapped(case: TrainingCase) -> None:
    """In every patch that shows both, the first cube stays on the lower side of each axis."""
    sampler = PatchSampler([case], TINY, np.random.default_rng(0))
    both = 0
    for _ in range(60):
        _, labels, _ = sampler.draw()
        if (labels == 1).any() and (labels == 2).any():
            both += 1
            first, second = ((labels == value).nonzero().float().mean(0) for value in (1, 2))
            assert (first < second).all()
    assert both > 10


def test_a_mirrored_patch_swaps_the_labels_of_the_sides_and_what_is_missing() -> None:
    """The brighter cube at larger x is the left one; in a mirrored patch the darker one lies there, and is left."""
    labels = np.zeros((24, 24, 24), dtype=np.uint8)
    labels[8:16, 8:16, 3:9], labels[8:16, 8:16, 15:21] = 1, 2
    recipe = replace(TINY, variation=Variation(turns_deg=(0, 0, 0), stretch=0, swapped={1: 2, 2: 1, 3: 4, 4: 3}))
    recipe = replace(recipe, labels=recipe.labels | {"Parotid_R": 3, "Parotid_L": 4}, patch_zyx=(24, 24, 24))
    sampler = PatchSampler(
        [TrainingCase(TINY.normalise([np.array([-1000, 0, 500])[labels]]), labels, (3,))],
        recipe,
        np.random.default_rng(0),
    )
    seen = set()
    for _ in range(20):
        channels, drawn, missing = sampler.draw()
        right, left = ((drawn == value).nonzero()[:, 2].float().mean() for value in (1, 2))
        assert right < left
        mirrored = bool(channels[0, 0][drawn == 1].mean() > channels[0, 0][drawn == 2].mean())
        assert missing == ((4,) if mirrored else (3,))
        seen.add(mirrored)
    assert seen == {True, False}


def test_openkbp_patches_are_varied_and_keep_their_labels_on_the_image() -> None:
    """Turned about all axes, scaled and bent, a bright cube stays under its label; the amounts stay in their limits."""
    labels = np.zeros((40, 64, 64), dtype=np.uint8)
    labels[10:30, 20:40, 20:40] = 3
    hu = np.where(labels == 3, 900, -100)
    sampler = PatchSampler(
        [TrainingCase(openkbp.RECIPE.normalise([hu]), labels)], openkbp.RECIPE, np.random.default_rng(0)
    )
    volumes = []
    for _ in range(12):
        channels, drawn, _ = sampler.draw()
        inside = drawn > 0
        bright = channels[0, 0] > (400 + 20) / 300
        assert torch.count_nonzero(inside & bright) > 0.9 * max(torch.count_nonzero(inside), 1)
        volumes.append(int(torch.count_nonzero(inside)))
    assert len(set(volumes)) > 6
    assert max(volumes) < 8000 * 1.3**3 * 1.2


def test_demonstration_labels_are_the_joint_scheme_of_sub_classes_and_targets() -> None:
    assert phantom_model.RECIPE.labels == {"background": 0} | {n: k for k, n in anatomy.SUBCLASSES.items()}


def test_openkbp_mandible_is_split_into_right_and_left() -> None:
    labels = np.zeros((4, 20, 20), dtype=np.uint8)
    labels[1:3, 5:15, 4:16] = openkbp.OPENKBP_MANDIBLE
    split = openkbp.split_mandible(labels)
    left = openkbp.RECIPE.labels["Mandible_L"]
    assert np.argwhere(split == left)[:, 2].min() == 10
    assert np.count_nonzero(split == left) == np.count_nonzero(split == openkbp.RECIPE.labels["Mandible_R"])


def test_a_ramus_of_one_side_alone_does_not_tilt_the_mandibles_midline() -> None:
    """As where the contour of one side goes further back: the middle of what is there is no middle of the head."""
    labels = np.zeros((4, 40, 41), dtype=np.uint8)
    labels[1:3, 5:25, 5:9] = labels[1:3, 5:25, 32:36] = labels[1:3, 2:5, 5:36] = openkbp.OPENKBP_MANDIBLE
    labels[1:3, 25:31, 32:36] = openkbp.OPENKBP_MANDIBLE
    split = openkbp.split_mandible(labels)
    chin = split[1, 3, 5:36]
    right, left = (np.count_nonzero(chin == openkbp.RECIPE.labels[f"Mandible_{side}"]) for side in "RL")
    assert abs(right - left) <= 1


def test_openkbp_patient_keeps_its_volumes_and_lists_what_is_missing(shared_data: Path) -> None:
    from segrap.image import read_image

    folder = shared_data / "openkbp" / "train" / "pt_106"
    case = openkbp.read_case(folder)
    labels = read_image(folder / "labels.nii.gz")
    present = set(np.unique(labels.array).tolist())
    for value in openkbp.OPENKBP_LABELS:
        assert (value in case.missing) == (value not in present)
        if value in present:
            before = np.count_nonzero(labels.array == value) * labels.geometry.voxel_volume_cc
            after = np.count_nonzero(case.labels == value) * 0.027
            assert after == pytest.approx(before, rel=0.2)
