"""Training of the small models that ship: a short loop that ends in an nnU-Net v2 model folder.

It exists because a 2 MB network that two CPU cores train in an hour or two is not what nnU-Net's trainer is made for.
For models of clinical size use nnU-Net itself. The loop learns from `patches` around structures, and nothing from
structures that a case has no contour of (they are not background).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segrap.errors import InputError, ModelError
from segrap.training.patches import PatchSampler
from segrap.training.recipe import CONFIGURATION, Recipe, TrainingCase

PEAK_RATE = 2e-3


def train(
    recipe: Recipe,
    cases: Callable[[], Sequence[TrainingCase]],
    passed: Callable[[int], float],
    folder: Path,
    log: Callable[[str], None],
    seed: int = 0,
    batch: int = 1,
    start: Path | None = None,
) -> None:
    """Train and write the model folder (fold_0, float16 weights, averaged over the end).

    passed: which part of the training is over after that many steps; it ends at 1. See `by_the_clock`.

    cases: asked again every 100 steps, so that cases still being made can join. start: a model folder of this recipe
    to go on from, with half the learning rate. The learning rate falls to zero on the way, and the weights of the
    classes in the loss become equal per voxel: while small classes weigh more, they are drawn too large.

    Raises InputError when there is no case, ModelError when `start` is no model of this recipe.
    """
    import torch

    from segrap.models.network import build_network

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    classes = max(recipe.labels.values()) + 1
    network = build_network(recipe.plans()["configurations"][CONFIGURATION], len(recipe.channel_names), classes)
    if start:
        from segrap.models.folder import read_model

        trained = read_model(start).load_networks()[0].state_dict()
        if {name: one.shape for name, one in trained.items()} != {
            n: one.shape for n, one in network.state_dict().items()
        }:
            raise ModelError(f"Training cannot go on from {start}: it has another network than the recipe.")
        network.load_state_dict(trained)
    network.train()
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=_follow)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-4)
    peak, first_balance = (PEAK_RATE / 2, 0.6) if start else (PEAK_RATE, 0.1)
    begin, step, running = time.monotonic(), 0, math.nan
    sampler: PatchSampler | None = None
    while (part := passed(step)) < 1:
        if step % 100 == 0:
            found = cases()
            if not found:
                raise InputError("There is no training case.")
            if sampler is None or len(sampler.cases) != len(found):
                sampler = PatchSampler(found, recipe, rng)
        assert sampler is not None
        balance = first_balance + (1 - first_balance) * min(1.0, part / 0.7)
        rate = peak * min(1.0, (step + 1) / 100) * (0.5 * (1 + math.cos(math.pi * part)) + 1e-3)
        for group in optimiser.param_groups:
            group["lr"] = rate
        total = 0.0
        for _ in range(batch):
            channels, labels, missing = sampler.draw(early=part < 0.65)
            with torch.autocast("cpu", torch.bfloat16):
                features = network.features(channels)
            loss = partial_loss(features, network.head, labels, missing, classes, balance)
            (loss / batch).backward()
            total += loss.item() / batch
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update_parameters(network)
        running = total if step == 0 else 0.98 * running + 0.02 * total
        step += 1
        if step % 100 == 0:
            log(f"{(time.monotonic() - begin) / 60:6.1f} min  step {step:6d}  loss {running:.4f}  cases {len(found)}")
        if step % 1000 == 0:
            write_model_folder(recipe, average.module, len(found), folder)
    write_model_folder(recipe, average.module, len(sampler.cases) if sampler else 0, folder)
    log(f"done: {step} steps, {sum(weight.numel() for weight in network.parameters())} weights")


def by_the_clock(minutes: float) -> Callable[[int], float]:
    """A training that is over after so many minutes, however many steps a computer can do in them."""
    begin = time.monotonic()
    return lambda step: (time.monotonic() - begin) / (60 * minutes)


def _follow(averages: Sequence[Any], weights: Sequence[Any], count: Any) -> None:
    """Let the averaged weights follow: slowly in a long training, faster while there is little to average."""
    import torch

    torch._foreach_lerp_(averages, weights, max(0.002, 10 / (20 + float(count))))


def partial_loss(features: Any, head: Any, labels: Any, missing: tuple[int, ...], classes: int, balance: float) -> Any:
    """Cross-entropy + soft Dice on a random part of the voxels, weighted so that it estimates the whole patch.

    balance: a class of n voxels weighs n ** balance in the cross-entropy. At 1 every voxel counts the same, and a
    cochlea is not learned in thousands of steps; at 0 every class does, and small ones come out too large.

    features: decoder features (1, F, z, y, x); head: the 1x1x1 convolution. Voxels of classes that are rare in the
    patch all take part, of the others every fourth; the scores of 57 classes on all voxels cost more than the network.
    The probability of classes in `missing` counts as background, and they have no Dice term.
    """
    import torch

    flat = labels.flatten()
    counts = torch.bincount(flat, minlength=classes)
    share = torch.where(counts < 4000, 1.0, 0.25)[flat]
    chosen = torch.rand(flat.shape) < share
    target, weight = flat[chosen], 1.0 / share[chosen]
    rows = features[0].flatten(1)[:, chosen].T.float()
    log_probability = torch.log_softmax(rows @ head.weight[:, :, 0, 0, 0].T + head.bias, dim=1)
    known = [value for value in range(classes) if value not in missing]
    if missing:
        background = torch.logsumexp(log_probability[:, [0, *missing]], dim=1, keepdim=True)
        log_probability = torch.cat([background, log_probability[:, 1:]], dim=1)
    picked = log_probability.gather(1, target[:, None])[:, 0]
    class_weight = torch.where(counts > 0, counts.clamp(min=1).double() ** (balance - 1), 0.0).float()
    voxel_weight = weight * class_weight[target]
    cross_entropy = -(picked * voxel_weight).sum() / voxel_weight.sum()
    probability = log_probability.exp()
    hit = torch.zeros(classes).index_add(0, target, picked.exp() * weight)
    predicted = (probability * weight[:, None]).sum(0)
    present = torch.tensor([value for value in known[1:] if counts[value] > 0], dtype=torch.long)
    if not len(present):
        return cross_entropy
    dice = (2 * hit + 1.0) / (predicted + counts + 1.0)
    # Classes that are absent from the patch get no Dice term of their own: cross-entropy holds them down.
    return cross_entropy + 1.0 - dice[present].mean()


def average(recipe: Recipe, models: Sequence[Path], folder: Path) -> None:
    """Write a model folder whose weights are the mean of those of `models`, trained on from each other.

    Weights before and after more training lie in one valley, and half-way between them unseen patients fare best.
    Raises ModelError when one of them is no model.
    """
    import torch

    from segrap.models.folder import read_model

    read = [read_model(model) for model in models]
    networks = [model.load_networks()[0] for model in read]
    with torch.no_grad():
        for together in zip(*(network.parameters() for network in networks), strict=True):
            together[0].copy_(torch.stack(together).mean(0))
    cases = json.loads((models[0] / "dataset.json").read_text(encoding="utf-8"))["numTraining"]
    write_model_folder(recipe, networks[0], int(cases), folder)


def write_model_folder(recipe: Recipe, network: Any, cases: int, folder: Path) -> None:
    """Write dataset.json, plans.json, segrap.json and fold_0/checkpoint_final.pth (float16 weights) into `folder`."""
    import torch

    fold = folder / "fold_0"
    fold.mkdir(parents=True, exist_ok=True)
    halves: dict[int, Any] = {}  # nnU-Net lists some weights under several names; they stay one tensor on disk
    weights = {}
    for name, weight in network.state_dict().items():
        weights[name] = halves.setdefault(weight.data_ptr(), weight.half().clone())
    checkpoint = {
        "network_weights": weights,
        "init_args": {"configuration": CONFIGURATION, "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, fold / "checkpoint_final.pth")
    for name, content in (
        ("dataset.json", recipe.dataset(cases)),
        ("plans.json", recipe.plans()),
        ("segrap.json", recipe.metadata),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
