"""Weights from an nnU-Net checkpoint, read as data: nothing in the file is executed.

nnU-Net reads its checkpoints with Python's full unpickler, which runs any code that a file contains. Here torch's
restricted unpickler reads them; beyond tensors and plain Python containers it is allowed only the numbers of numpy
(training losses), rebuilt as `restricted_pickle` does it.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segrap.errors import ModelError
from segrap.models.network import UNet, build_network
from segrap.models.restricted_pickle import NumberKind, rebuild_number

if TYPE_CHECKING:
    from segrap.models.plans import PlannedModel

# numpy 1 and 2 call the function that rebuilds a number by different module names; a file may hold either.
_NUMBERS: list[Any] = [
    (rebuild_number, "numpy.core.multiarray.scalar"),
    (rebuild_number, "numpy._core.multiarray.scalar"),
    (NumberKind, "numpy.dtype"),
]


@dataclass(frozen=True)
class Checkpoint:
    """What of a checkpoint matters for running it. mirror_axes are axes of the network's (transposed) order."""

    weights: Mapping[str, torch.Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


def load_as_data(path: Path) -> Any:
    """What torch saved into a file: tensors (which stay on disk until they are used), numbers, text, containers.

    Raises ModelError when the file is damaged or contains code.
    """
    # Up to 2.5.1 the restricted unpickler could be tricked into running code (CVE-2025-32434).
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
        raise ModelError(f"torch {torch.__version__} cannot read model files safely. Install torch 2.6 or newer.")
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as fault:
        found = re.search(r"GLOBAL (\S+)", str(fault))
        raise ModelError(
            f"{path} was not loaded: it contains {found[1] if found else 'something'} beside weights and numbers, and "
            "might run code. Use a checkpoint that nnU-Net saved, from a source that you trust."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as fault:
        first = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise ModelError(f"{path} is damaged or incomplete ({first}). Copy or download the model again.") from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read `checkpoint_final.pth` of one fold.

    Raises ModelError when the file is damaged, contains code, or lacks what nnU-Net writes into it.
    """
    content = load_as_data(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v2.")
    weights, settings = content.get("network_weights"), content.get("init_args")
    if not isinstance(weights, Mapping) or not isinstance(settings, Mapping) or "trainer_name" not in content:
        raise ModelError(f"{path} lacks network_weights, init_args or trainer_name: it is not of nnU-Net v2.")
    axes = content.get("inference_allowed_mirroring_axes") or ()
    if any(axis not in (0, 1, 2) for axis in axes):
        raise ModelError(f"{path} allows mirroring over the axes {axes}, but its network has three.")
    return Checkpoint(weights, str(settings.get("configuration")), str(content["trainer_name"]), tuple(axes))


def check_weights(model: PlannedModel, fold: str, weights: Mapping[str, Any]) -> None:
    """Compare the names and shapes of a checkpoint's weights with the network of its plans. Raises ModelError."""
    with torch.device("meta"):
        network = _build(model)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, torch.Tensor)}
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if different or len(found) != len(weights):
        example = different[0] if different else "an entry that is no tensor"
        raise ModelError(
            f"The weights of fold {fold} do not fit the network that the model's plans and dataset describe: "
            f"{len(different)} of {len(expected)} entries differ, for example {example} "
            f"(expected {expected.get(example)}, found {found.get(example)})."
        )


def load_network(model: PlannedModel, path: Path) -> UNet:
    """The network of one fold's checkpoint in float32 (weights may be float16 on disk), on the CPU, in evaluation
    mode."""
    weights = read_checkpoint(path).weights
    network = _build(model)
    network.load_state_dict(weights)
    return network.float().eval().requires_grad_(False)


def _build(model: PlannedModel) -> UNet:
    return build_network(model.configuration, len(model.channels), model.labels.score_channels)
