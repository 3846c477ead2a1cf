"""Which U-Net the plans of a model describe: its class and arguments, read without torch. `network` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segrap.errors import ModelError

# The arguments of each that are honoured.
COMMON_ARGUMENTS = {
    *("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "conv_bias"),
    *("conv_op", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin", "nonlin_kwargs"),
    "deep_supervision",
}
ARCHITECTURES = {
    "PlainConvUNet": COMMON_ARGUMENTS | {"n_conv_per_stage", "nonlin_first"},
    "ResidualEncoderUNet": COMMON_ARGUMENTS | {"n_blocks_per_stage", "stem_channels"},
    "Generic_UNet": COMMON_ARGUMENTS | {"n_conv_per_stage"},  # of nnU-Net v1, see nnunet_v1.py
}


def architecture_of(configuration: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return (class name without its module, keyword arguments) of a configuration's network.

    Plans from before nnU-Net 2.4 have no `architecture` block; theirs is derived as nnU-Net itself does it.
    Raises ModelError for any class but PlainConvUNet, ResidualEncoderUNet and v1's Generic_UNet.
    """
    block = configuration.get("architecture")
    if isinstance(block, Mapping):
        full_name, arguments = str(block.get("network_class_name")), block.get("arch_kwargs")
    else:
        full_name, arguments = str(configuration.get("UNet_class_name")), None
    name = full_name.rsplit(".", 1)[-1]
    if name not in ARCHITECTURES:
        raise ModelError(
            f"The model's network is {full_name}; only {' and '.join(ARCHITECTURES)} of nnU-Net v2 can be run here."
        )
    if block is None:
        arguments = _arguments_of_old_plans(name, configuration)
    if not isinstance(arguments, Mapping):
        raise ModelError("The model's plans have an `architecture` block without `arch_kwargs`.")
    return name, dict(arguments)


def _arguments_of_old_plans(name: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    try:
        per_stage = configuration["n_conv_per_stage_encoder"]
        base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
        return {
            "n_stages": len(per_stage),
            "features_per_stage": [min(base * 2**i, most) for i in range(len(per_stage))],
            "conv_op": f"torch.nn.modules.conv.Conv{len(configuration['patch_size'])}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": per_stage,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except KeyError as missing:
        raise ModelError(f"The model's plans do not describe its network: {missing} is missing.") from None
