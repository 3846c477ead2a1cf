"""Two layers of a decoder as one: fewer multiplications, the same numbers up to float32 rounding.

A decoder upsamples with a transposed convolution (kernel = stride s) and convolves the result, beside the encoder's
features, with a kernel k. Nothing nonlinear lies between the two, so the upsampled half of the convolution is itself
one transposed convolution from the coarse grid, with stride s, kernel s + k - 1 and the convolution's padding; its
weights are multiplied out here in float64. With k = 3 and s = 2 an output voxel needs 8 coarse voxels instead of 27
fine ones. The upsampling's bias, which ends at the patch's border as the convolution sees it, comes from a coarse
channel of ones. The concatenation goes away: both halves are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch import nn

from segrap.models.network import ConvStack, Decoder

# Less than this part of a stage's multiplications saved was not faster than the two layers apart, for a transposed
# convolution runs somewhat slower (OpenVINO 2026.4.1 on Zen 5).
LEAST_SAVING = 0.12


class JoinedUpsampling(nn.Module):
    """`convolution(cat(upsampling(coarse), skip))`, computed in one step from the coarse grid and one from `skip`."""

    def __init__(self, upsampling: nn.ConvTranspose3d, convolution: nn.Conv3d) -> None:
        super().__init__()
        between = upsampling.out_channels
        joined = _joined_weights(upsampling, convolution)
        coarse, features, *kernel = joined.shape
        stride, padding = upsampling.stride, convolution.padding
        self.from_coarse = nn.ConvTranspose3d(coarse, features, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
        self.from_skip = nn.Conv3d(
            convolution.in_channels - between,
            features,
            convolution.kernel_size,  # type: ignore[arg-type]
            padding=padding,  # type: ignore[arg-type]
            bias=convolution.bias is not None,
        )
        with torch.no_grad():
            self.from_coarse.weight.copy_(joined)
            self.from_skip.weight.copy_(convolution.weight[:, between:])
            if convolution.bias is not None and self.from_skip.bias is not None:
                self.from_skip.bias.copy_(convolution.bias)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(1, channel, z, y, x) on the coarse and on the fine grid to (1, feature, z, y, x) on the fine one."""
        ones = torch.ones_like(coarse[:, :1])
        return self.from_skip(skip) + self.from_coarse(torch.cat((coarse, ones), 1))


class JoinedDecoder(nn.Module):
    """A decoder whose upsamplings are joined with what follows wherever that saves enough.

    last: whether that may be done at full resolution.
    """

    def __init__(self, decoder: Decoder, *, last: bool = True) -> None:
        super().__init__()
        self.seg_layers = decoder.seg_layers
        stages = []
        for upsampling, convolutions in zip(decoder.transpconvs, decoder.stages, strict=True):
            saves = saving(upsampling, convolutions.convs[0].conv) >= LEAST_SAVING
            here = last or convolutions is not decoder.stages[-1]
            stages.append((_Joined if saves and here else _Apart)(upsampling, convolutions))
        self.stages = nn.ModuleList(stages)

    def forward(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As `Decoder.forward`."""
        x, features = skips[-1], []
        for stage, skip in zip(self.stages, reversed(skips[:-1]), strict=True):
            x = stage(x, skip)
            features.append(x)
        return features


class _Joined(nn.Module):
    def __init__(self, upsampling: nn.ConvTranspose3d, convolutions: ConvStack) -> None:
        super().__init__()
        first, *later = convolutions.convs
        self.joined = JoinedUpsampling(upsampling, first.conv)
        self.rest = nn.Sequential(*list(first.all_modules)[1:], *later)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.rest(self.joined(x, skip))


class _Apart(nn.Module):
    def __init__(self, upsampling: nn.ConvTranspose3d, convolutions: ConvStack) -> None:
        super().__init__()
        self.upsampling, self.convolutions = upsampling, convolutions

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.convolutions(torch.cat((self.upsampling(x), skip), 1))


def saving(upsampling: nn.ConvTranspose3d, convolution: nn.Conv3d) -> float:
    """Which part of both layers' multiplications joining them saves; below 0 where it costs some."""
    coarse, between = upsampling.in_channels, upsampling.out_channels
    features, kernel = convolution.out_channels, prod(convolution.kernel_size)
    apart = coarse * between + kernel * convolution.in_channels * features
    taps = prod((s + k - 1) / s for s, k in zip(upsampling.stride, convolution.kernel_size, strict=True))
    joined = taps * (coarse + 1) * features + kernel * (convolution.in_channels - between) * features
    return 1 - joined / apart


def _joined_weights(upsampling: nn.ConvTranspose3d, convolution: nn.Conv3d) -> torch.Tensor:
    """(coarse channel + 1, feature, z, y, x) weights; the last coarse channel holds ones and brings the bias."""
    up, strides, kernel = upsampling.weight.detach().double(), upsampling.stride, convolution.kernel_size
    bias = torch.zeros(up.shape[1]) if upsampling.bias is None else upsampling.bias.detach()
    up = torch.cat((up, bias.double()[None, :, None, None, None].expand(1, -1, *up.shape[2:])))
    down = convolution.weight.detach().double()[:, : up.shape[1]]
    size = [s + k - 1 for s, k in zip(strides, kernel, strict=True)]
    joined = torch.zeros((len(up), len(down), *size), dtype=torch.float64)
    for a in product(*map(range, strides)):
        for t in product(*map(range, kernel)):
            z, y, x = (i + k - 1 - j for i, k, j in zip(a, kernel, t, strict=True))
            joined[:, :, z, y, x] += up[:, :, a[0], a[1], a[2]] @ down[:, :, t[0], t[1], t[2]].T
    return joined.float()
