"""What a small model is shown: random patches of patients, turned, scaled, bent, mirrored, sharpened and noisy.

Mirroring swaps the labels of the sides: a mirrored patient's left parotid is a right one, and is taught as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segrap.training.recipe import Recipe, TrainingCase

BEND_MM = 40.0  # over which a displacement of `Variation.bend_mm` changes


class PatchSampler:
    """Random patches, most around a voxel of a randomly chosen structure, some anywhere, varied as the recipe says."""

    def __init__(self, cases: Sequence[TrainingCase], recipe: Recipe, rng: np.random.Generator) -> None:
        self.cases, self.recipe, self.rng = cases, recipe, rng
        self._places = [self._some_voxels(case.labels) for case in cases]
        swapped = recipe.variation.swapped
        self._other_side = np.array([swapped.get(value, value) for value in range(max(recipe.labels.values()) + 1)])

    def _some_voxels(self, labels: np.ndarray) -> dict[int, np.ndarray]:
        order = np.argsort(labels, axis=None, kind="stable")
        starts = np.searchsorted(labels.ravel()[order], np.arange(int(labels.max()) + 2))
        places = {}
        for value in range(1, int(labels.max()) + 1):
            inside = order[starts[value] : starts[value + 1]]
            if len(inside):
                chosen = self.rng.choice(inside, min(len(inside), 200), replace=False)
                places[value] = np.stack(np.unravel_index(chosen, labels.shape), axis=1)
        return places

    def draw(self, early: bool = False) -> tuple[Any, Any, tuple[int, ...]]:
        """One patch: channels (1, c, z, y, x) float32, labels (z, y, x) int64, missing label values.

        early: of the size for the first part of the training.
        """
        import torch

        number = int(self.rng.integers(len(self.cases)))
        case, places = self.cases[number], self._places[number]
        patch = np.array(
            self.recipe.first_patch_zyx if early and self.recipe.first_patch_zyx else self.recipe.patch_zyx
        )
        if places and self.rng.random() >= self.recipe.anywhere:
            values = list(places)
            odds = np.array([self.recipe.often.get(value, 1.0) for value in values])
            value = values[int(self.rng.choice(len(values), p=odds / odds.sum()))]
            centre = places[value][int(self.rng.integers(len(places[value])))]
            centre = centre + self.rng.uniform(-0.3, 0.3, 3) * patch
        else:
            centre = self.rng.uniform(0, 1, 3) * np.array(case.labels.shape)
        # Like the engine's tiles, patches lie inside the volume wherever it is large enough.
        size = np.array(case.labels.shape)
        centre = np.where(size > patch, np.clip(centre, patch / 2, size - patch / 2), size / 2)
        channels, labels = self._cut(case, self._places_of(patch, centre))
        missing = case.missing
        variation = self.recipe.variation
        if variation.swapped and self.rng.random() < 0.5:
            channels, labels = channels.flip(-1), torch.from_numpy(self._other_side)[labels.flip(-1)]
            missing = tuple(int(self._other_side[value]) for value in missing)
        if any(variation.sharpness):
            blurred = torch.nn.functional.avg_pool3d(channels, 3, 1, 1, count_include_pad=False)
            channels = channels + (channels - blurred) * self.rng.uniform(*variation.sharpness)
        channels = channels * (1 + self._even(variation.gain)) + self._even(variation.shift)
        channels = channels + torch.randn_like(channels) * self.rng.uniform(0, variation.noise)
        return channels, labels, missing

    def _even(self, limit: float) -> float:
        return float(self.rng.uniform(-limit, limit))

    def _places_of(self, patch: np.ndarray, centre: np.ndarray) -> Any:
        """Where in the patient each voxel of a patch is taken from: (z, y, x, 3) float32, its voxel's z, y, x."""
        import torch

        variation = self.recipe.variation
        spacing = np.array(self.recipe.spacing_zyx_mm)
        turn = np.eye(3)
        for axis, limit in enumerate(variation.turns_deg):
            angle = math.radians(self._even(limit))
            one, other = (axis + 1) % 3, (axis + 2) % 3
            about = np.eye(3)
            about[one, one] = about[other, other] = math.cos(angle)
            about[one, other], about[other, one] = -math.sin(angle), math.sin(angle)
            turn = turn @ about
        stretch = (1 + self._even(variation.size)) * self.rng.uniform(1 - variation.stretch, 1 + variation.stretch, 3)
        steps = [torch.arange(int(n), dtype=torch.float32) - (int(n) - 1) / 2 for n in patch]
        where = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
        where = where @ torch.from_numpy((np.diag(1 / spacing) @ turn @ np.diag(spacing * stretch)).T).float()
        if variation.bend_mm:
            nodes = [int(n) for n in np.ceil(patch * spacing / BEND_MM) + 1]
            amount = torch.from_numpy(self.rng.uniform(0, variation.bend_mm) / spacing).float()[:, None, None, None]
            coarse = torch.from_numpy(self.rng.standard_normal((3, *nodes))).float() * amount
            size = [int(n) for n in patch]
            bend = torch.nn.functional.interpolate(coarse[None], size, mode="trilinear", align_corners=True)[0]
            where = where + bend.permute(1, 2, 3, 0)
        return where + torch.from_numpy(centre).float()

    def _cut(self, case: TrainingCase, where: Any) -> tuple[Any, Any]:
        """The patient at these places: channels (1, c, z, y, x) linear, labels (z, y, x) nearest; air outside."""
        import torch

        near, far = where.amin((0, 1, 2)).numpy(), where.amax((0, 1, 2)).numpy()
        size = np.array(case.labels.shape)
        low = np.clip(np.floor(near).astype(int) - 1, 0, size - 1)
        high = np.clip(np.ceil(far).astype(int) + 2, low + 1, size)
        block = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        source = torch.from_numpy(case.channels[(slice(None), *block)].astype(np.float32))[None]
        label = torch.from_numpy(case.labels[block].astype(np.float32))[None, None]
        extent = torch.tensor(label.shape[2:], dtype=torch.float32)
        grid = ((2 * (where - torch.from_numpy(low).float()) + 1) / extent - 1).flip(-1)[None]
        sample = torch.nn.functional.grid_sample
        outside = [(lowest_hu - mean) / sd for lowest_hu, _, mean, sd in self.recipe.intensities]
        lift = torch.tensor(outside, dtype=torch.float32)[None, :, None, None, None]
        channels = sample(source - lift, grid, mode="bilinear", align_corners=False) + lift
        labels = sample(label, grid, mode="nearest", align_corners=False)[0, 0].long()
        return channels, labels
