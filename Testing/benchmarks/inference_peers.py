"""Runs one other program once on a case of `inference.py`: .venv-peers/bin/python inference_peers.py JOB.json

Nothing of segrap is imported here. Everything that the programs share is nnunetv2's: reading the model, the network,
the preparation of the images. The clock runs from a model folder on disk and images in memory to labels in memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "unused")
warnings.filterwarnings("ignore")

Job = dict[str, Any]
PARTS_TILES = 8
PARTS_CLASSES = 2
PARTS_SLICES = 8


def seconds() -> tuple[float, float]:
    """By the clock, and of the processor (all threads, and processes that have ended)."""
    return time.perf_counter(), sum(os.times()[:4])


def load_predictor(job: Job) -> Any:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device(job["device"]),
        tile_step_size=job["options"].get("step", 0.5),
        use_mirroring=job["options"].get("mirror", True),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(job["model"], None)
    return predictor


def nnunetv2(job: Job, images: Any) -> Any:
    """nnUNetPredictor with its defaults, or with the plans' other resampling."""
    return load_predictor(job).predict_single_npy_array(images, {"spacing": job["spacing_mm"]})


def totalsegmentator(job: Job, images: Any) -> Any:
    """nnUNetPredictor with what TotalSegmentator's higher-order resampling puts in place of its export."""
    from totalsegmentator.nnunet_runtime_patches import patch_nnunet_cropped_logits_resampling

    patch_nnunet_cropped_logits_resampling()
    return load_predictor(job).predict_single_npy_array(
        images, {"spacing": job["spacing_mm"]}, use_cropped_logits_resampling=True
    )


def prepare(predictor: Any, job: Job, images: Any) -> tuple[Any, dict[str, Any]]:
    """nnunetv2's normalised, resampled images and what it knows about the crop."""
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    data, _, facts = preprocessor.run_case_npy(
        images,
        None,
        {"spacing": job["spacing_mm"]},
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.dataset_json,
    )
    return data, facts


def place(labels: Any, facts: dict[str, Any]) -> Any:
    """Labels of the crop on the whole image's grid."""
    import numpy as np

    whole = np.zeros(facts["shape_before_cropping"], dtype=np.uint8)
    whole[tuple(slice(*ends) for ends in facts["bbox_used_for_cropping"])] = labels
    return whole


def monai(job: Job, images: Any) -> Any:
    """MONAI's sliding window over the same network and input, torch's interpolation, argmax."""
    import torch
    from monai.inferers import sliding_window_inference

    predictor = load_predictor(job)
    data, facts = prepare(predictor, job, images)
    predictor.network.eval()
    with torch.inference_mode():
        scores = sliding_window_inference(
            torch.from_numpy(data)[None].float(),
            predictor.configuration_manager.patch_size,
            1,
            predictor._internal_maybe_mirror_and_predict,
            overlap=0.5,
            mode="gaussian",
            sigma_scale=0.125,
        )
        shape = facts["shape_after_cropping_and_before_resampling"]
        scores = torch.nn.functional.interpolate(scores, size=tuple(map(int, shape)), mode="trilinear")
        return place(scores.argmax(1)[0].to(torch.uint8).numpy(), facts)


def oracle(job: Job, images: Any) -> Any:
    """What exact arithmetic would give: nnunetv2's input and float32 tiles, summed, divided and resampled in float64
    by nnunetv2's own resampling, one class after the other."""
    import numpy as np
    import torch
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    predictor = load_predictor(job)
    data, facts = prepare(predictor, job, images)
    settings = predictor.configuration_manager
    predictor.network.eval()
    padded, inside = pad_nd_image(torch.from_numpy(data), settings.patch_size, "constant", {"value": 0}, True, None)
    weights = compute_gaussian(tuple(settings.patch_size), 1 / 8, 10, device=torch.device("cpu")).double()
    heads = predictor.label_manager.num_segmentation_heads
    sums = torch.zeros((heads, *padded.shape[1:]), dtype=torch.float64)
    total = torch.zeros(padded.shape[1:], dtype=torch.float64)
    with torch.inference_mode():
        for tile in predictor._internal_get_sliding_window_slicers(padded.shape[1:]):
            scores = predictor._internal_maybe_mirror_and_predict(padded[tile][None].float())[0]
            sums[tile] += scores.double() * weights
            total[tile[1:]] += weights
    sums /= total
    scores = sums[(slice(None), *inside[1:])].numpy()
    shape = facts["shape_after_cropping_and_before_resampling"]
    best, labels = None, np.zeros(shape, dtype=np.uint8)
    for k in range(heads):
        one = settings.resampling_fn_probabilities(scores[k : k + 1], shape, settings.spacing, facts["spacing"])[0]
        if best is None:
            best = one
            continue
        higher = one > best  # of equal scores the first class wins, as in numpy's argmax
        labels[higher] = k
        np.maximum(best, one, out=best)
    return place(labels, facts)


def parts(job: Job, images: Any) -> dict[str, Any]:
    """Processor seconds of nnunetv2's parts at true size, where the whole would not fit into memory: images are
    prepared whole; tiles, classes and slices are measured on some and multiplied."""
    import numpy as np
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    predictor = load_predictor(job)
    settings, heads = predictor.configuration_manager, predictor.label_manager.num_segmentation_heads
    predictor.network.eval()
    found: dict[str, Any] = {}
    begin = seconds()[1]
    data, facts = prepare(predictor, job, images)
    found["prepare the images"] = seconds()[1] - begin

    tiles = predictor._internal_get_sliding_window_slicers(data.shape[1:])
    weights = compute_gaussian(tuple(settings.patch_size), 1 / 8, 10, device=torch.device("cpu"))
    sums = torch.zeros((heads, *settings.patch_size), dtype=torch.half)
    counts = torch.zeros(tuple(settings.patch_size), dtype=torch.half)
    chosen = tiles[:: max(1, len(tiles) // PARTS_TILES)]
    with torch.inference_mode():
        predictor._internal_maybe_mirror_and_predict(torch.from_numpy(data[chosen[0]])[None])
        begin, network = seconds()[1], 0.0
        for tile in chosen:
            patch = torch.from_numpy(data[tile]).clone()[None]
            start = seconds()[1]
            scores = predictor._internal_maybe_mirror_and_predict(patch)[0]
            network += seconds()[1] - start
            scores *= weights
            sums += scores
            counts += weights
        adding = seconds()[1] - begin - network
    found[f"network, {len(tiles)} tiles"] = network * len(tiles) / len(chosen)
    found["sum of the tiles"] = adding * len(tiles) / len(chosen)

    shape = [int(n) for n in facts["shape_after_cropping_and_before_resampling"]]
    scores = np.random.default_rng(0).normal(size=(PARTS_CLASSES, *data.shape[1:])).astype(np.float16)
    begin = seconds()[1]
    settings.resampling_fn_probabilities(scores, shape, settings.spacing, facts["spacing"])
    found[f"resample {heads} class scores"] = (seconds()[1] - begin) * heads / PARTS_CLASSES
    scores = np.random.default_rng(0).normal(size=(heads, PARTS_SLICES, *shape[1:])).astype(np.float16)
    begin = seconds()[1]
    predictor.label_manager.convert_logits_to_segmentation(scores)
    found["highest score"] = (seconds()[1] - begin) * shape[0] / PARTS_SLICES
    return found


def main(job: Job) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["processors"])
    import numpy as np
    import torch

    own = {"totalsegmentator": "totalsegmentator.nnunet_runtime_patches", "monai": "monai.inferers"}
    for module in ("nnunetv2.inference.predict_from_raw_data", own.get(job["kind"], "numpy")):
        import_module(module)
    torch.set_num_threads(len(job["processors"]))
    images = np.stack([np.load(scan) for scan in job["scans"]]).astype(np.float32)
    kinds: dict[str, Callable[[Job, Any], Any]] = {
        "nnunetv2": nnunetv2,
        "totalsegmentator": totalsegmentator,
        "monai": monai,
        "oracle": oracle,
        "parts": parts,
    }
    begin = seconds()
    answer = kinds[job["kind"]](job, images)
    end = seconds()
    took: dict[str, Any] = {"wall_s": end[0] - begin[0], "cpu_s": end[1] - begin[1]}
    if job["device"] != "cpu":
        took["gpu_gb"] = torch.cuda.max_memory_reserved() / 1e9
    if job["kind"] == "parts":
        took["parts"] = answer
    else:
        np.save(job["out"], np.asarray(answer).astype(np.uint8))
    Path(job["answer"]).write_text(json.dumps(took))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
