"""The process that converts a model's networks for OpenVINO.

    python -m segrap.engine.conversion MODEL MAPS PRECISION OUT FOLD ...

A process of its own because converting takes up to three gigabytes that a process does not give back.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import torch

from segrap.engine.openvino_runner import import_openvino
from segrap.engine.runners import Maps, MapsOf
from segrap.engine.upsampling import JoinedDecoder
from segrap.models.folder import read_model


def main() -> None:
    """Write <fold>.xml and <fold>.bin for patches of the model's size; weights are float32 for either precision."""
    folder, maps, precision, output, *folds = sys.argv[1:]
    openvino = import_openvino()
    model = read_model(folder, folds)
    example = torch.zeros((1, len(model.channels), *model.patch_size))
    for fold, network in zip(model.folds, model.load_networks(), strict=True):
        # In bfloat16 OpenVINO keeps a network's last layers in float32, and a joined one would draw others into that.
        follows = len(network.decoder.stages[-1].convs) > 1
        network.decoder = JoinedDecoder(network.decoder, last=follows or precision == "float32")
        module = MapsOf(network, cast(Maps, maps)).eval()
        converted = openvino.convert_model(module, example_input=example, input=[tuple(example.shape)])
        openvino.save_model(converted, Path(output) / f"{fold}.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
