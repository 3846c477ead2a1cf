"""Two decoder layers joined into one give the same numbers, up to the border, and only where that is less work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nnunet_folders import configuration, plain_architecture, randomise, residual_architecture
from torch import nn

from segrap.engine.upsampling import LEAST_SAVING, JoinedDecoder, JoinedUpsampling, saving
from segrap.models.network import build_network

KERNELS = [(3, 3, 3), (1, 3, 3), (3, 1, 5), (1, 1, 1)]
STRIDES = [(2, 2, 2), (1, 2, 2), (4, 2, 1)]


def layers(kernel: tuple[int, ...], stride: tuple[int, ...], bias: bool) -> tuple[nn.ConvTranspose3d, nn.Conv3d]:
    torch.manual_seed(0)
    padding = [k // 2 for k in kernel]
    return nn.ConvTranspose3d(7, 4, stride, stride, bias=bias), nn.Conv3d(9, 6, kernel, padding=padding, bias=bias)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_joined_layers_give_what_the_two_give_one_after_the_other(
    kernel: tuple[int, ...], stride: tuple[int, ...], bias: bool
) -> None:
    upsampling, convolution = layers(kernel, stride, bias)
    coarse = torch.randn(1, 7, 3, 4, 5)
    skip = torch.randn(1, 5, *(n * s for n, s in zip(coarse.shape[2:], stride, strict=True)))
    with torch.inference_mode():
        expected = convolution.double()(torch.cat((upsampling.double()(coarse.double()), skip.double()), 1))
        found = JoinedUpsampling(upsampling.float(), convolution.float())(coarse, skip)
    assert relative(found.double(), expected) < 2e-6


@pytest.mark.parametrize("architecture", [plain_architecture, residual_architecture])
def test_a_network_with_joined_upsamplings_is_the_same_network(architecture: Callable[..., dict[str, Any]]) -> None:
    network = build_network(configuration(architecture=architecture()), 2, 5).eval()
    randomise(network)
    joined, apart = copy.deepcopy(network), copy.deepcopy(network)
    joined.decoder = JoinedDecoder(joined.decoder)
    apart.decoder = JoinedDecoder(apart.decoder, last=False)
    assert [any(isinstance(part, JoinedUpsampling) for part in one.modules()) for one in (joined, apart)] == [
        True,
        False,
    ]
    x = torch.randn(1, 2, 8, 16, 16)
    with torch.inference_mode():
        expected, features = network(x), network.features(x)
        assert relative(joined(x), expected) < 1e-5
        assert relative(joined.features(x), features) < 1e-5
        assert torch.equal(apart(x), expected)


def test_layers_are_left_apart_where_joining_saves_little() -> None:
    assert saving(*layers((3, 3, 3), (2, 2, 2), True)) > LEAST_SAVING
    wide, narrow = nn.ConvTranspose3d(64, 4, (1, 2, 2), (1, 2, 2)), nn.Conv3d(8, 4, (3, 3, 3), padding=1)
    assert saving(wide, narrow) < 0
