"""Runs the public packages of nnU-Net for the tests that compare with them, in the environment of `make_peers.py`.

    python nnunet_peer.py JOBS.json         a list of {"kind": ..., "out": ..., ...}; kinds are the functions below

Nothing of segrap is imported here, so that no mistake can be on both sides of a comparison.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "unused")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402


def predict(job: dict[str, Any]) -> None:
    """Labels of nnUNetPredictor for the images (channel, z, y, x) at the spacing (z, y, x) in an .npz file.

    "scores" names the type of nnunetv2's score sums: its own float16, or float32 to see past its rounding.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    settings = {"use_mirroring": job["mirror"], "tile_step_size": job["step"], "allow_tqdm": False}
    predictor = nnUNetPredictor(device=torch.device("cpu"), **settings)
    predictor.initialize_from_trained_model_folder(job["model"], None)
    case = np.load(job["images"])
    torch.half = torch.float32 if job["scores"] == "float32" else torch.float16
    labels = predictor.predict_single_npy_array(case["images"], {"spacing": case["spacing"].tolist()})
    torch.half = torch.float16
    np.save(job["out"], np.asarray(labels).astype(np.uint8))


def tiles(job: dict[str, Any]) -> None:
    """Tile positions for each [size, patch], and the Gaussian weights of one patch, as nnunetv2 computes them."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    starts = [compute_steps_for_sliding_window([size], [patch], 0.5)[0] for size, patch in job["axes"]]
    weights = compute_gaussian(tuple(job["patch"]), 1 / 8, 10, device=torch.device("cpu"))
    Path(job["out"]).write_text(json.dumps({"starts": starts, "weights": weights.float().tolist()}))


def network(job: dict[str, Any]) -> None:
    """The parameters, in order, and the output of the network that nnunetv2 builds from an `architecture` block."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    block = job["architecture"]
    torch.manual_seed(0)
    built = get_network_from_plans(
        block["network_class_name"], block["arch_kwargs"], block["_kw_requires_import"], 2, 3, deep_supervision=False
    )
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.2)
    image = torch.randn(1, 2, 8, 16, 16)
    with torch.no_grad():
        output = built.eval()(image)
    torch.save({"weights": built.state_dict(), "image": image, "output": output}, job["out"])


if __name__ == "__main__":
    for one in json.loads(Path(sys.argv[1]).read_text()):
        {"predict": predict, "tiles": tiles, "network": network}[one["kind"]](one)
