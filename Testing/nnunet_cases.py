"""Made-up images and briefly trained networks for the engine's tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from segrap.models.network import UNet

PATCH = (8, 24, 32)
BANDS_HU = (-150.0, 150.0)  # the trained networks tell apart below, between and above


def smooth_head(shape: Sequence[int], channels: int = 2, seed: int = 0, smoothness: float = 3.0) -> np.ndarray:
    """(channel, z, y, x) int16: an ellipsoid of random soft tissue, smooth over so many voxels, in air."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    inside = 0.3 * z**2 + (y / 0.8) ** 2 + (x / 0.7) ** 2 < 1
    images = []
    for _ in range(channels):
        tissue = ndimage.gaussian_filter(rng.normal(size=tuple(shape)), smoothness)
        images.append(np.where(inside, tissue * (300 / tissue.std()) + rng.normal(0, 3, tuple(shape)), -1000))
    return np.round(np.clip(images, -1024, 3000)).astype(np.int16)


def teach_bands(network: UNet, *, regions: bool, steps: int = 150) -> None:
    """Train a two-channel network for some seconds to find the bands of intensity of its first channel.

    Its scores are far apart except where bands meet, as those of a real model are; an untrained one's are not.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = smooth_head((24, 96, 96), seed=1).astype(np.float32)
    standard = (image - image.mean((1, 2, 3), keepdims=True)) / image.std((1, 2, 3), keepdims=True)
    bands = np.digitize(ndimage.gaussian_filter(image[0], 0.7), BANDS_HU)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        patch = tuple(
            slice(first, first + n) for first, n in zip(rng.integers((0, 10, 10), (17, 62, 54)), PATCH, strict=True)
        )
        scores = network(torch.from_numpy(standard[(slice(None), *patch)])[None])
        truth = torch.from_numpy(bands[patch])[None]
        if regions:
            targets = torch.stack([truth >= 1, truth >= 2], dim=1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets)
        else:
            loss = torch.nn.functional.cross_entropy(scores, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
