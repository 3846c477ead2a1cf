"""One patch, compared with torch's float32 on the CPU, before anything else may contour.

Drivers and new library versions have computed 3-D convolutions wrongly without an error (pytorch issues 163539 and
166122 are two). The comparison is remembered beside the model's conversions, so it costs its seconds once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from segrap.engine.runners import FoldRunner, Maps, MapsOf, NotUsable
from segrap.models.folder import Model
from segrap.models.library import conversions_folder
from segrap.models.network import UNet
from segrap.writing import replacing

# Relative difference, |a - b| / |b| over all maps. Float32 kernels of different make were seen 3.5e-5 apart (Winograd
# convolutions), bfloat16 and float16 5e-3; a wrong kernel is off by tenths or gives no number at all.
LARGEST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}


def check_against_torch(
    model: Model, networks: Sequence[UNet], runners: Sequence[FoldRunner], maps: Maps, name: str, device: torch.device
) -> None:
    """Return if the runners agree with torch, float32, CPU; raise NotUsable, with the reason, if they do not.

    name: what runs them, with versions, hardware and, at its end, the precision. device: where they take patches from.
    """
    record = conversions_folder(model.hash) / "tested.json"
    known = _read(record)
    allowed = LARGEST_DIFFERENCE[name.rsplit(" ", 1)[-1]]
    key = f"{name}, {maps}"
    if key not in known:
        known[key] = max(
            relative_difference(network, runner, model, maps, device)
            for network, runner in zip(networks, runners, strict=True)
        )
        _remember(record, known)
    if not known[key] <= allowed:
        raise NotUsable(
            f"{name} computes this model wrongly on this computer (relative difference {known[key]:.2g}, {allowed:g} "
            "would be allowed), so it was not used."
        )


def relative_difference(network: UNet, runner: FoldRunner, model: Model, maps: Maps, device: torch.device) -> float:
    """|runner's maps - torch's| / |torch's| on a made-up patch of noise and edges; infinity for what is no number."""
    shape = (1, len(model.channels), *model.patch_size)
    content = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    content[..., : shape[-1] // 3] -= 3.0
    content[:, :, :, shape[3] // 2 :] += 1.0
    x, belongs = torch.from_numpy(content), next(network.parameters()).device
    with torch.inference_mode():
        found = runner(x.to(device)).cpu().double()
        expected = MapsOf(network.cpu(), maps)(x).double()
    network.to(belongs)
    difference = float((found - expected).norm() / expected.norm())
    return difference if np.isfinite(difference) else float("inf")


def _read(record: Path) -> dict[str, float]:
    try:
        return {str(name): float(value) for name, value in json.loads(record.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # none yet, or damaged: test again


def _remember(record: Path, known: dict[str, float]) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with replacing(record) as temporary:
            temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    except OSError:
        pass  # a folder that cannot be written costs the test again next time, no more
