"""The two U-Nets of nnU-Net v2, built from a plans configuration, with the parameter names of its checkpoints.

PlainConvUNet and ResidualEncoderUNet (also in its M, L and XL presets) are the networks that
`dynamic_network_architectures` 0.4.4 builds; a test compares names, shapes and outputs with that package. It repeats
some parameters under two or three names (`conv` and `all_modules.0`; `encoder` and `decoder.encoder`), and so does
this module, because a checkpoint lists them all. An operation that is not in the tables below is refused, not guessed.

A network here can stop one step early: `UNet.features` gives the last decoder features and `UNet.head` is the
1x1x1 convolution that turns them into class scores. `network(x)` equals `network.head(network.features(x))` for a
network without deep supervision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from segrap.errors import ModelError
from segrap.models.architecture import ARCHITECTURES, architecture_of

# What plans may name, and which arguments of it are honoured. All of them act on 3-D volumes.
CONVOLUTIONS = {"Conv3d": nn.Conv3d}
NORMALISATIONS = {"InstanceNorm3d": nn.InstanceNorm3d, "BatchNorm3d": nn.BatchNorm3d}
DROPOUTS = {"Dropout3d": nn.Dropout3d, "Dropout": nn.Dropout}
NONLINEARITIES = {"LeakyReLU": nn.LeakyReLU, "ReLU": nn.ReLU}


def build_network(
    configuration: Mapping[str, Any], in_channels: int, out_channels: int, deep_supervision: bool = False
) -> UNet:
    """Build the network of one configuration of an nnU-Net v2 `plans.json`, with torch's default random weights.

    configuration: the configuration's dictionary, inheritance resolved; its `architecture` block is used, or the
        `UNet_class_name` fields of plans from before nnU-Net 2.4.
    out_channels: number of class scores (labels with background, or regions without it).
    deep_supervision: the network returns a list of score maps, full resolution first, as nnU-Net trains it. Parameter
        names do not depend on it.
    Input and output have the axes (batch, channel, z, y, x) of the plans' own (transposed) axis order.
    Raises ModelError when the architecture cannot be built exactly as nnU-Net builds it.
    """
    name, arguments = architecture_of(configuration)
    unknown = sorted(set(arguments) - ARCHITECTURES[name])
    if unknown:
        raise ModelError(f"The model's {name} uses settings that are not supported here: {', '.join(unknown)}.")
    stages = _Stages(name, arguments)
    return UNet(stages, in_channels, out_channels, deep_supervision)


def initialise(network: UNet) -> None:
    """Draw the weights that nnU-Net starts training from: He-normal convolutions (slope 0.01), biases zero; the last
    normalisation of every residual block starts at zero, so that the block starts as the identity."""
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=1e-2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock) and module.conv2.norm is not None:
            nn.init.zeros_(module.conv2.norm.weight)
            nn.init.zeros_(module.conv2.norm.bias)


class _Stages:
    """The arguments of a plans' architecture, checked and spelled out for every resolution stage."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.residual = name == "ResidualEncoderUNet"
        try:
            self.count = int(arguments["n_stages"])
            self.features = self._per_stage(arguments["features_per_stage"], self.count)
            self.kernels = self._triples(arguments["kernel_sizes"])
            self.strides = self._triples(arguments["strides"])
            self.decoder_kernels = self.kernels[1:] if name == "Generic_UNet" else self.kernels[:-1]
            repeats = arguments["n_blocks_per_stage" if self.residual else "n_conv_per_stage"]
            self.encoder_repeats = self._per_stage(repeats, self.count)
            self.decoder_repeats = self._per_stage(arguments["n_conv_per_stage_decoder"], self.count - 1)
        except (KeyError, TypeError, ValueError) as fault:
            raise ModelError(f"The architecture in the model's plans cannot be read: {fault}.") from None
        if (
            self.count < 2
            or any(k % 2 == 0 for kernel in self.kernels for k in kernel)
            or any(step != 1 for step in self.strides[0])
        ):
            raise ModelError("The model's network has one stage, an even kernel size or a stride in its first stage.")
        _look_up(CONVOLUTIONS, arguments.get("conv_op"))
        self.stem_features = int(arguments.get("stem_channels") or self.features[0])
        self.bias = bool(arguments.get("conv_bias", False))
        self.nonlin_first = bool(arguments.get("nonlin_first", False))
        self.norm = _look_up(NORMALISATIONS, arguments.get("norm_op"))
        self.norm_arguments = dict(arguments.get("norm_op_kwargs") or {})
        self.dropout = _look_up(DROPOUTS, arguments.get("dropout_op"))
        self.dropout_arguments = dict(arguments.get("dropout_op_kwargs") or {})
        self.nonlin = _look_up(NONLINEARITIES, arguments.get("nonlin"))
        self.nonlin_arguments = dict(arguments.get("nonlin_kwargs") or {})

    @staticmethod
    def _per_stage(value: int | Sequence[int], count: int) -> list[int]:
        values = [int(value)] * count if isinstance(value, int) else [int(v) for v in value]
        if len(values) != count:
            raise ValueError(f"{len(values)} values for {count} stages")
        return values

    def _triples(self, value: int | Sequence[int | Sequence[int]]) -> list[tuple[int, int, int]]:
        values = [value] * self.count if isinstance(value, int) else list(value)
        triples = [(int(v),) * 3 if isinstance(v, int) else tuple(int(i) for i in v) for v in values]
        if len(triples) != self.count or any(len(triple) != 3 for triple in triples):
            raise ValueError(f"kernels and strides must be three numbers for each of {self.count} stages")
        return [(triple[0], triple[1], triple[2]) for triple in triples]


def _look_up(table: Mapping[str, type[nn.Module]], name: str | None) -> type[nn.Module] | None:
    if name is None:
        return None
    module, _, last = str(name).rpartition(".")
    if not module.startswith("torch.nn") or last not in table:
        raise ModelError(f"The model's network uses {name}; only {', '.join(table)} of torch.nn can be used there.")
    return table[last]


class ConvBlock(nn.Module):
    """Convolution, dropout, normalisation, nonlinearity: each if the plans have it, in nnU-Net's order."""

    def __init__(
        self,
        stages: _Stages,
        fan_in: int,
        fan_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        *,
        bias: bool | None = None,
        dropout: bool = True,
        nonlin: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(fan_in, fan_out, kernel, stride, padding, bias=stages.bias if bias is None else bias)
        steps: list[nn.Module] = [self.conv]
        if dropout and stages.dropout is not None:
            steps.append(stages.dropout(**stages.dropout_arguments))
        self.norm = None if stages.norm is None else stages.norm(fan_out, **stages.norm_arguments)
        if self.norm is not None:
            steps.append(self.norm)
        if nonlin and stages.nonlin is not None:
            steps.append(stages.nonlin(**stages.nonlin_arguments))
            if stages.nonlin_first and self.norm is not None:
                steps[-1], steps[-2] = steps[-2], steps[-1]
        self.all_modules = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all_modules(x)


class ConvStack(nn.Module):
    """Several ConvBlocks in a row; the stride is the first one's."""

    def __init__(
        self,
        stages: _Stages,
        repeats: int,
        fan_in: int,
        fan_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        later = [ConvBlock(stages, fan_out, fan_out, kernel) for _ in range(repeats - 1)]
        self.convs = nn.Sequential(ConvBlock(stages, fan_in, fan_out, kernel, stride), *later)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class ResidualBlock(nn.Module):
    """The basic block of ResNet-D (He et al., CVPR 2019): average pooling, then a 1x1x1 convolution on the shortcut."""

    def __init__(
        self,
        stages: _Stages,
        fan_in: int,
        fan_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(stages, fan_in, fan_out, kernel, stride)
        self.conv2 = ConvBlock(stages, fan_out, fan_out, kernel, dropout=False, nonlin=False)
        self.nonlin2 = nn.Identity() if stages.nonlin is None else stages.nonlin(**stages.nonlin_arguments)
        shortcut: list[nn.Module] = []
        if stride != (1, 1, 1):
            shortcut.append(nn.AvgPool3d(stride, stride))
        if fan_in != fan_out:
            shortcut.append(ConvBlock(stages, fan_in, fan_out, (1, 1, 1), bias=False, dropout=False, nonlin=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class ResidualStack(nn.Module):
    """Several ResidualBlocks in a row; the stride is the first one's."""

    def __init__(
        self,
        stages: _Stages,
        repeats: int,
        fan_in: int,
        fan_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
    ) -> None:
        super().__init__()
        later = [ResidualBlock(stages, fan_out, fan_out, kernel) for _ in range(repeats - 1)]
        self.blocks = nn.Sequential(ResidualBlock(stages, fan_in, fan_out, kernel, stride), *later)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Encoder(nn.Module):
    """The downward half: one tensor per resolution stage, full resolution first."""

    def __init__(self, stages: _Stages, in_channels: int) -> None:
        super().__init__()
        fan_in = in_channels
        if stages.residual:
            self.stem = ConvStack(stages, 1, in_channels, stages.stem_features, stages.kernels[0])
            fan_in = stages.stem_features
        built: list[nn.Module] = []
        for s in range(stages.count):
            shape = (stages.encoder_repeats[s], fan_in, stages.features[s], stages.kernels[s], stages.strides[s])
            # The plain encoder's stages are wrapped once more in nnU-Net, where a pooling layer could stand.
            built.append(ResidualStack(stages, *shape) if stages.residual else nn.Sequential(ConvStack(stages, *shape)))
            fan_in = stages.features[s]
        self.stages = nn.Sequential(*built)
        self.residual = stages.residual

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x) if self.residual else x
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    """The upward half: transposed convolution, concatenation with the encoder's features, convolutions."""

    def __init__(self, stages: _Stages, encoder: Encoder, out_channels: int) -> None:
        super().__init__()
        self.encoder = encoder  # only so that the parameter names are nnU-Net's
        convolutions, upsamplings, heads = [], [], []
        for s in range(1, stages.count):
            below, here = stages.features[-s], stages.features[-(s + 1)]
            stride = stages.strides[-s]
            upsamplings.append(nn.ConvTranspose3d(below, here, stride, stride, bias=stages.bias))
            repeats, kernel = stages.decoder_repeats[s - 1], stages.decoder_kernels[-s]
            convolutions.append(ConvStack(stages, repeats, 2 * here, here, kernel))
            heads.append(nn.Conv3d(here, out_channels, 1))
        self.stages = nn.ModuleList(convolutions)
        self.transpconvs = nn.ModuleList(upsamplings)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the decoder's features, coarsest first."""
        x = skips[-1]
        features = []
        for upsampling, convolution, skip in zip(self.transpconvs, self.stages, reversed(skips[:-1]), strict=True):
            x = convolution(torch.cat((upsampling(x), skip), 1))
            features.append(x)
        return features


class UNet(nn.Module):
    """A U-Net whose last step, features to class scores, can be taken separately."""

    def __init__(self, stages: _Stages, in_channels: int, out_channels: int, deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = Encoder(stages, in_channels)
        self.decoder = Decoder(stages, self.encoder, out_channels)
        self.deep_supervision = deep_supervision

    @property
    def head(self) -> nn.Conv3d:
        """The 1x1x1 convolution from features to class scores at full resolution."""
        return self.decoder.seg_layers[-1]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channel, z, y, x) image patches to (batch, feature, z, y, x) at the same resolution."""
        return self.decoder(self.encoder(x))[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        features = self.decoder(self.encoder(x))
        if self.deep_supervision:
            return [head(f) for head, f in zip(self.decoder.seg_layers, features, strict=True)][::-1]
        return self.head(features[-1])
