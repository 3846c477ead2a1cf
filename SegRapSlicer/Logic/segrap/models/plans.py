"""What the JSON files of a model folder tell, read and checked without torch and without opening the weights.

`read_planned_model` is for what must be known before a model runs, such as the memory that it will need;
`segrap.models.folder.read_model` reads the whole folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from segrap.errors import ModelError
from segrap.models.labels import Labels, read_labels

CHECKPOINT = "checkpoint_final.pth"
V1_PREPROCESSOR = "GenericPreprocessor"
ROLES = ("non_contrast", "contrast")
NORMALISATIONS = ("ZScoreNormalization", "CTNormalization", "NoNormalization")
RESAMPLING = "resample_data_or_seg_to_shape"


@dataclass(frozen=True)
class Resampling:
    """Arguments of nnU-Net's `resample_data_or_seg_to_shape`: spline orders in general and across thick slices, and
    whether thick slices are treated apart (None: when one spacing is more than 3 times another)."""

    order: int
    order_z: int
    separate_z: bool | None


@dataclass(frozen=True)
class Normalisation:
    """One channel's intensity normalisation: its scheme, whether only the non-zero region counts, and the training
    set's intensity statistics."""

    scheme: str
    masked: bool
    statistics: Mapping[str, float]


@dataclass(frozen=True)
class PlannedModel:
    """What a model folder's JSON files tell; read without torch. Lengths are mm; `network order` is the plans' own,
    transposed axis order.

    channels: which CT goes into each input channel ("non_contrast", "contrast"), in the model's order.
    folds: names of the checkpoints that make one ensemble; their class scores are averaged.
    orientation: "LPS" or "RAS": which way the axes of the arrays ran that it was trained on.
    transpose_forward: axis i of the network is axis transpose_forward[i] of (z, y, x).
    spacing_mm, patch_size: in network order.
    """

    folder: Path
    channels: tuple[str, ...]
    orientation: str
    labels: Labels
    folds: tuple[str, ...]
    configuration_name: str
    configuration: Mapping[str, Any]
    transpose_forward: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    normalisations: tuple[Normalisation, ...]
    data_resampling: Resampling
    score_resampling: Resampling

    @property
    def of_nnunet_v1(self) -> bool:
        """True for a model imported from nnU-Net v1, whose arithmetic differs in the ways that `nnunet_v1` lists."""
        return bool(self.configuration.get("preprocessor_name") == V1_PREPROCESSOR)


def read_planned_model(folder: str | Path) -> PlannedModel:
    """Read what the JSON files of a model folder tell, without opening its weights: of several 3-D configurations that
    the plans hold, the one with the finest voxels. Raises ModelError."""
    folder = Path(folder)
    dataset, plans = read_json(folder / "dataset.json"), read_json(folder / "plans.json")
    known = plans.get("configurations")
    found: list[PlannedModel] = []
    reason = ModelError(f"The model's plans in {folder} hold no configuration.")
    for name in known if isinstance(known, Mapping) else ():
        try:
            found.append(plan(folder, dataset, plans, read_facts(folder), choose_folds(folder, None), name))
        except ModelError as fault:
            reason = fault
    if not found:
        raise reason
    return min(found, key=lambda planned: prod(planned.spacing_mm))


def plan(
    folder: Path,
    dataset: Mapping[str, Any],
    plans: Mapping[str, Any],
    facts: Mapping[str, Any],
    folds: tuple[str, ...],
    configuration_name: str,
) -> PlannedModel:
    """The model of one configuration. Raises ModelError for what cannot be honoured exactly."""
    configuration = _resolve_configuration(plans, configuration_name)
    channels = read_channels(dataset, facts)
    return PlannedModel(
        folder=folder,
        channels=channels,
        orientation=_orientation(plans, facts),
        labels=read_labels(dataset, facts),
        folds=folds,
        configuration_name=configuration_name,
        configuration=configuration,
        transpose_forward=_transposition(plans),
        spacing_mm=_three(configuration, "spacing", float),
        patch_size=_three(configuration, "patch_size", int),
        normalisations=_normalisations(plans, configuration, len(channels)),
        data_resampling=_resampling(configuration, "resampling_fn_data", (0, 1, 3)),
        score_resampling=_resampling(configuration, "resampling_fn_probabilities", (0, 1)),
    )


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Read only a model's `segrap.json` ({} if it has none), for lists: nothing of the rest is checked.

    Raises ModelError when it is not a JSON object.
    """
    path = Path(folder) / "segrap.json"
    return read_json(path) if path.exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """One of the folder's files, a JSON object. Raises ModelError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"The model folder {path.parent} is incomplete: {path.name} is missing.") from None
    except (OSError, ValueError) as fault:
        raise ModelError(f"{path} of the model cannot be read: {fault}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} of the model is not a JSON object.")
    return content


def one_of(facts: Mapping[str, Any], key: str, allowed: Sequence[str], default: str) -> str:
    """An entry of segrap.json that is one of a few words. Raises ModelError."""
    value = facts.get(key, default)
    if value not in allowed:
        raise ModelError(f"The model's segrap.json has {key} {value!r}; it must be one of {', '.join(allowed)}.")
    return str(value)


def choose_folds(folder: Path, wanted: Sequence[str | int] | None) -> tuple[str, ...]:
    """The folds to run: those that are wanted, else all numbered ones, else `all`. Raises ModelError."""
    present = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{CHECKPOINT}"))
    numbered = [name for name in present if name != "all"]
    chosen = tuple(str(fold) for fold in wanted) if wanted else tuple(numbered or present)
    missing = [name for name in chosen if name not in present]
    if missing or not chosen:
        raise ModelError(
            f"The model folder {folder} is incomplete: fold_{missing[0] if missing else '*'}/{CHECKPOINT} is missing."
        )
    return chosen


def _resolve_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    known = plans.get("configurations")
    chain: list[Mapping[str, Any]] = []
    parent: Any = name
    while parent is not None:
        if not isinstance(known, Mapping) or not isinstance(known.get(parent), Mapping) or len(chain) > len(known):
            raise ModelError(f"The model's plans.json does not describe the configuration {parent} of its checkpoint.")
        chain.append(known[parent])
        parent = known[parent].get("inherits_from")
    resolved = {key: value for layer in reversed(chain) for key, value in layer.items()}
    if resolved.get("previous_stage"):
        raise ModelError(f"{name} is the second stage of a cascade, which cannot be run here.")
    for key, owner, allowed in (
        ("preprocessor_name", resolved, ("DefaultPreprocessor", V1_PREPROCESSOR)),
        ("label_manager", plans, ("LabelManager",)),
    ):
        if owner.get(key, allowed[0]) not in allowed:
            raise ModelError(f"The model's plans ask for {key} {owner[key]}; only {allowed[0]} can be honoured here.")
    return resolved


def _three(configuration: Mapping[str, Any], key: str, kind: type) -> tuple[Any, Any, Any]:
    value = configuration.get(key)
    if isinstance(value, list) and len(value) == 2:
        raise ModelError("The model is a 2-D configuration; only 3-D configurations can be run here.")
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, (int, float)) and v > 0 for v in value):
        raise ModelError(f"The model's plans have {key} {value!r}; three positive numbers are needed.")
    return kind(value[0]), kind(value[1]), kind(value[2])


def _transposition(plans: Mapping[str, Any]) -> tuple[int, int, int]:
    order = plans.get("transpose_forward")
    if not isinstance(order, list) or sorted(order) != [0, 1, 2]:
        raise ModelError(f"The model's plans have transpose_forward {order!r}, which is not an order of three axes.")
    return order[0], order[1], order[2]


def _orientation(plans: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    reader = plans.get("image_reader_writer", "SimpleITKIO")
    # The reorienting reader turned every training image to RAS; the plain ones kept the files' own order, which is
    # that of the DICOM patient axes, LPS, for images converted from DICOM.
    known = {"SimpleITKIO": "LPS", "NibabelIO": "LPS", "NibabelIOWithReorient": "RAS"}
    if reader not in known:
        raise ModelError(f"The model was trained on images read by {reader}, which does not read CT volumes.")
    return one_of(facts, "orientation", ("LPS", "RAS"), known[reader])


def read_channels(dataset: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Which CT goes into each input channel ("non_contrast", "contrast"), from the content of dataset.json and
    segrap.json. Raises ModelError when they do not tell.
    """
    named = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(named, Mapping) or not 1 <= len(named) <= 2:
        raise ModelError(
            f"The model's dataset.json lists {len(named) if isinstance(named, Mapping) else 'no'} input channels; "
            "models of one CT or of a CT pair can be run here."
        )
    names = [str(named[key]) for key in sorted(named, key=int)]
    roles = facts.get("channels") or [_role(name, len(names)) for name in names]
    if not isinstance(roles, list) or len(roles) != len(names):
        raise ModelError(f"The model's segrap.json gives the channels {roles!r}, but the model has {len(names)}.")
    if any(role not in ROLES for role in roles) or len(set(roles)) != len(roles):
        raise ModelError(
            f"Which of the model's channels ({', '.join(names)}) is the non-contrast and which the contrast CT is not "
            'clear. Add "channels": ["non_contrast", "contrast"], in the model\'s order, to its segrap.json.'
        )
    return tuple(roles)


def _role(name: str, count: int) -> str | None:
    words = set(re.findall(r"[a-z]+", name.lower()))
    if "ncct" in words or "noncontrast" in words or words & {"non", "no", "without", "plain", "native"}:
        return "non_contrast"
    if words & {"contrast", "cect", "enhanced", "ce"}:
        return "contrast"
    return "non_contrast" if count == 1 and words & {"ct", "image", "nonct"} else None


def _normalisations(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], count: int
) -> tuple[Normalisation, ...]:
    schemes, masked = configuration.get("normalization_schemes"), configuration.get("use_mask_for_norm")
    properties = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    if not isinstance(schemes, list) or not isinstance(masked, list) or not len(schemes) == len(masked) == count:
        raise ModelError(f"The model's plans do not give a normalisation for each of its {count} channels.")
    result = []
    for channel, (scheme, mask) in enumerate(zip(schemes, masked, strict=True)):
        statistics = properties.get(str(channel), {}) if isinstance(properties, Mapping) else {}
        if scheme not in NORMALISATIONS:
            raise ModelError(f"The model normalises with {scheme}; only {', '.join(NORMALISATIONS)} can be done here.")
        needed = ("mean", "std", "percentile_00_5", "percentile_99_5") if scheme == "CTNormalization" else ()
        if any(not isinstance(statistics.get(key), (int, float)) for key in needed):
            raise ModelError(
                f"The model's plans lack the training intensities of channel {channel} that {scheme} needs."
            )
        result.append(Normalisation(scheme, bool(mask), dict(statistics)))
    return tuple(result)


def _resampling(configuration: Mapping[str, Any], key: str, orders: tuple[int, ...]) -> Resampling:
    function, arguments = configuration.get(key), configuration.get(f"{key}_kwargs") or {}
    if function != RESAMPLING or arguments.get("is_seg"):
        raise ModelError(f"The model's plans ask for {key} {function}; only {RESAMPLING} can be honoured exactly here.")
    unknown = set(arguments) - {"is_seg", "order", "order_z", "force_separate_z"}
    result = Resampling(
        arguments.get("order", 3), arguments.get("order_z", 0), arguments.get("force_separate_z", False)
    )
    if unknown or result.order not in orders or result.order_z not in (0, 1):
        raise ModelError(
            f"The model's plans ask for {key} with {arguments}; here order must be one of {orders}, order_z 0 or 1."
        )
    return result
