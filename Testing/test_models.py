"""Model folders: what is read from them, and what is refused with which reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_folders import plain_architecture, residual_architecture, write_model_folder

from segrap import anatomy
from segrap.errors import ModelError
from segrap.models.folder import read_model
from segrap.models.network import build_network, initialise

SUBCLASS_LABELS = {"background": 0} | {name: number for number, name in anatomy.SUBCLASSES.items()}


def refusal(folder: Path) -> str:
    """What reading the folder is refused with."""
    with pytest.raises(ModelError) as refused:
        read_model(folder)
    return str(refused.value)


def test_a_folder_says_what_it_needs_and_what_it_is(tmp_path: Path) -> None:
    facts = {"name": "Phantom", "version": "1.2", "licence": "CC0-1.0", "intended_use": "demonstration"}
    model = read_model(write_model_folder(tmp_path, facts=facts, mirror_axes=(0, 1), transpose=(1, 0, 2)))
    assert (model.name, model.version, model.licence, model.intended_use) == (
        "Phantom",
        "1.2",
        "CC0-1.0",
        "demonstration",
    )
    assert model.channels == ("non_contrast", "contrast")
    assert model.structures == ("BrainStem", "SpinalCord")
    assert model.spacing_mm == (3.0, 1.0, 1.0)
    assert model.spacing_zyx == (1.0, 3.0, 1.0)
    assert model.mirror_axes == (0, 1)


def test_a_folder_without_our_metadata_is_for_research_and_named_after_itself(tmp_path: Path) -> None:
    model = read_model(write_model_folder(tmp_path / "Dataset001_Test"))
    assert (model.name, model.version, model.intended_use) == ("Dataset001_Test", "unknown", "research")


def test_the_numbered_folds_make_the_ensemble_and_fold_all_only_stands_in_for_them(tmp_path: Path) -> None:
    assert read_model(write_model_folder(tmp_path / "a", folds=("0", "3", "all"))).folds == ("0", "3")
    assert read_model(write_model_folder(tmp_path / "b", folds=("all",))).folds == ("all",)
    assert read_model(tmp_path / "a", folds=[3]).folds == ("3",)


def test_the_hash_changes_with_the_weights_and_with_the_plans(tmp_path: Path) -> None:
    first = read_model(write_model_folder(tmp_path / "a"))
    again = read_model(write_model_folder(tmp_path / "b"))
    other_plans = read_model(write_model_folder(tmp_path / "c", spacing=[3.0, 1.0, 1.1]))
    assert first.hash.startswith("sha256:") and len(first.hash) == 71
    (tmp_path / "b" / "fold_0" / "checkpoint_final.pth").write_bytes(
        (write_model_folder(tmp_path / "d", folds=("1", "0")) / "fold_0" / "checkpoint_final.pth").read_bytes()
    )
    assert len({first.hash, read_model(tmp_path / "b").hash, other_plans.hash}) == 3
    assert again.folder == tmp_path / "b"


def test_half_precision_weights_on_disk_run_in_single_precision(tmp_path: Path) -> None:
    (network,) = read_model(write_model_folder(tmp_path, half=True)).load_networks()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert torch.equal(network.head.weight, network.head.weight.half().float())


# What the labels mean


def test_subclass_labels_make_all_structures_with_their_overlaps(tmp_path: Path) -> None:
    model = read_model(write_model_folder(tmp_path, labels=SUBCLASS_LABELS))
    assert model.structures == anatomy.NAMES
    plan = model.output_plan()
    hippocampus_in_temporal_lobe = plan.table[:, 6]
    painted = {n for n, (layer, value) in plan.placement.items() if hippocampus_in_temporal_lobe[layer] == value}
    assert painted == {"Brain", "TemporalLobe_L", "Hippocampus_L"}


def test_a_structure_of_which_a_subclass_is_missing_is_not_contoured(tmp_path: Path) -> None:
    labels = {"background": 0, "MiddleEar_ETbone_OverLap_L": 1, "ETbone_L": 2, "MiddleEar_L": 3}
    assert read_model(write_model_folder(tmp_path, labels=labels)).structures == ("ETbone_L",)


def test_a_label_named_after_a_structure_also_belongs_to_what_contains_it(tmp_path: Path) -> None:
    labels = {"background": 0, "brain": 1, "BRAINSTEM": 2}
    plan = read_model(write_model_folder(tmp_path, labels=labels)).output_plan()
    (brain_layer, brain), (stem_layer, stem) = plan.placement["Brain"], plan.placement["BrainStem"]
    assert plan.table[brain_layer].tolist() == [0, brain, brain]
    assert plan.table[stem_layer].tolist() == [0, 0, stem]


def test_only_wanted_structures_are_placed(tmp_path: Path) -> None:
    plan = read_model(write_model_folder(tmp_path)).output_plan(["SpinalCord"])
    assert list(plan.placement) == ["SpinalCord"]
    assert plan.table.astype(bool).sum() == 1


def test_a_structure_that_the_model_does_not_contour_cannot_be_wanted(tmp_path: Path) -> None:
    model = read_model(write_model_folder(tmp_path))
    with pytest.raises(ModelError, match="does not contour Parotid_L"):
        model.output_plan(["Parotid_L"])


def test_foreign_label_names_are_explained_by_the_folder_itself(tmp_path: Path) -> None:
    labels = {"background": 0, "LeftParotid": 1, "PTV70": 2}
    facts = {"structures": {"LeftParotid": ["Parotid_L"], "PTV70": []}}
    assert read_model(write_model_folder(tmp_path, labels=labels, facts=facts)).structures == ("Parotid_L",)


def test_unknown_label_names_are_refused_by_name(tmp_path: Path) -> None:
    labels = {"background": 0, "BrainStem": 1, "liver": 2, "spleen": 3}
    assert "liver, spleen" in refusal(write_model_folder(tmp_path, labels=labels))


def test_regions_keep_the_order_in_which_they_are_painted(tmp_path: Path) -> None:
    labels = {"background": 0, "Brain": [1, 2], "BrainStem": 2}
    folder = write_model_folder(tmp_path, labels=labels, dataset={"regions_class_order": [1, 2]})
    plan = read_model(folder).output_plan()
    layer, value = plan.placement["Brain"]
    assert plan.region_order == (1, 2)
    assert plan.table[layer].tolist() == [0, value, value]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"background": 0, "Brain": [1, 2], "BrainStem": 2}, "regions_class_order"),
        ({"background": 0, "Brain": 1, "BrainStem": 3}, "without gaps"),
        ({"background": 0, "Brain": 1, "BrainStem": 1}, "same number"),
        ({"Brain": 1}, "background"),
        ({"background": 0, "Brain": "one"}, "not a label number"),
    ],
)
def test_labels_that_nnunet_could_not_have_trained_on_are_refused(tmp_path: Path, labels: dict, reason: str) -> None:
    folder = write_model_folder(tmp_path)
    dataset = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(dataset | {"labels": labels}))
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("CT",), ("non_contrast",)),
        (("ncct", "cect"), ("non_contrast", "contrast")),
        (("contrast-enhanced CT", "non-contrast CT"), ("contrast", "non_contrast")),
        (("CT without contrast", "CT_contrast"), ("non_contrast", "contrast")),
    ],
)
def test_channel_names_tell_which_ct_is_which(tmp_path: Path, names: tuple[str, ...], roles: tuple[str, ...]) -> None:
    schemes = {"normalization_schemes": ["ZScoreNormalization"] * len(names), "use_mask_for_norm": [False] * len(names)}
    assert read_model(write_model_folder(tmp_path, channels=names, **schemes)).channels == roles


def test_two_channels_of_one_name_need_an_explanation(tmp_path: Path) -> None:
    assert "is not clear" in refusal(write_model_folder(tmp_path / "a", channels=("CT", "CT")))
    facts = {"channels": ["non_contrast", "contrast"]}
    assert read_model(write_model_folder(tmp_path / "b", channels=("CT", "CT"), facts=facts)).channels[1] == "contrast"


# Damage and danger


@pytest.mark.parametrize("name", ["dataset.json", "plans.json", "fold_0/checkpoint_final.pth"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model_folder(tmp_path) / name).unlink()
    assert name.removeprefix("fold_0/") in refusal(tmp_path) and "missing" in refusal(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, kept: float) -> None:
    checkpoint = write_model_folder(tmp_path) / "fold_0" / "checkpoint_final.pth"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * kept)])
    assert "damaged or incomplete" in refusal(tmp_path)


class Malice:
    """A pickle of it creates a file when it is loaded by Python's own unpickler."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "the code ran"
    checkpoint = {"logging": Malice(proof)}
    message = refusal(write_model_folder(tmp_path / "model", checkpoint=checkpoint))
    assert "might run code" in message
    assert not proof.exists()
    torch.load(tmp_path / "model" / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert proof.exists(), "the checkpoint of this test must be a real threat"


class Forged:
    """A numpy type whose state, given by the file, says that a number holds other things far outside its bytes."""

    def __reduce__(self) -> Any:
        fields = {"a": (np.dtype("f8"), 10**9)}
        return np.dtype, ("f8", False, True), (3, ">", None, ("a",), fields, -1, -1, 0)


def test_numbers_of_numpy_with_a_forged_type_are_refused(tmp_path: Path) -> None:
    message = refusal(write_model_folder(tmp_path, checkpoint={"logging": [Forged()]}))
    assert "might run code" in message


def test_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (write_model_folder(tmp_path) / "plans.json").write_text("{")
    assert "plans.json" in refusal(tmp_path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, write_model_folder(tmp_path) / "fold_0" / "checkpoint_final.pth")
    assert "nnU-Net" in refusal(tmp_path)


# What cannot be honoured exactly

TORCH_RESAMPLING = {"resampling_fn_data": "resample_torch_fornnunet"}
CUBIC_SCORES = {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 3, "order_z": 0}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"previous_stage": "3d_lowres"}, "cascade"),
        ({"normalization_schemes": ["ZScoreNormalization", "RGBTo01Normalization"]}, "RGBTo01Normalization"),
        (TORCH_RESAMPLING, "resample_torch_fornnunet"),
        (CUBIC_SCORES, "order"),
        ({"preprocessor_name": "MyPreprocessor"}, "MyPreprocessor"),
        ({"patch_size": [64, 64]}, "2-D"),
        ({"checkpoint": {"trainer_name": "nnUNetTrainerBN"}}, "nnUNetTrainerBN"),
        ({"checkpoint": {"trainer_name": "MyTrainer"}}, "MyTrainer"),
        ({"checkpoint": {"init_args": {"configuration": "3d_lowres"}}}, "3d_lowres"),
        ({"plans": {"image_reader_writer": "NaturalImage2DIO"}}, "NaturalImage2DIO"),
        ({"plans": {"transpose_forward": [0, 1, 1]}}, "transpose_forward"),
        ({"facts": {"intended_use": "everything"}}, "intended_use"),
        ({"facts": {"channels": ["contrast"]}}, "channels"),
        ({"dataset": {"channel_names": {"0": "ncct"}}}, "channels"),
        ({"dataset": {"channel_names": {"0": "a", "1": "b", "2": "c"}}}, "3 input channels"),
    ],
)
def test_what_cannot_be_honoured_exactly_is_refused(tmp_path: Path, changes: dict, reason: str) -> None:
    assert reason in refusal(write_model_folder(tmp_path, **changes))


def test_weights_that_do_not_fit_the_plans_are_refused(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    labels = {"background": 0, "BrainStem": 1, "SpinalCord": 2, "Chiasm": 3}
    dataset = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(dataset | {"labels": labels}))
    assert "seg_layers" in refusal(folder)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainer_250epochs", "nnUNetTrainerDA5_10epochs",
                                     "nnUNetTrainer_onlyMirror01_1500ep", "nnUNetTrainerNoMirroring"])  # fmt: skip
def test_trainers_that_keep_the_planned_network_are_accepted(tmp_path: Path, trainer: str) -> None:
    assert read_model(write_model_folder(tmp_path, checkpoint={"trainer_name": trainer})).folds == ("0",)


# Networks


@pytest.mark.parametrize("block", [plain_architecture(), residual_architecture()])
def test_class_scores_are_the_head_of_the_features(block: dict) -> None:
    network = build_network({"architecture": block}, 2, 5).eval()
    image = torch.randn(1, 2, 8, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(image), network.head(network.features(image)))


def test_deep_supervision_gives_every_resolution_finest_first_with_the_same_weights() -> None:
    configuration = {"architecture": plain_architecture((4, 6, 8))}
    deep = build_network(configuration, 2, 5, deep_supervision=True).eval()
    plain = build_network(configuration, 2, 5).eval()
    plain.load_state_dict(deep.state_dict())
    image = torch.randn(1, 2, 8, 16, 16)
    with torch.no_grad():
        fine, coarse = deep(image)
        assert torch.equal(fine, plain(image))
    assert coarse.shape == (1, 5, 8, 8, 8)


def test_a_residual_block_starts_as_the_identity() -> None:
    network = build_network({"architecture": residual_architecture(norm_op_kwargs={"affine": True})}, 2, 5)
    initialise(network)
    block = network.encoder.stages[0].blocks[0]
    x = torch.rand(1, 6, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(block(x), x)


def test_plans_from_before_version_2_4_describe_the_same_network() -> None:
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 6,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3]],
        "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2]],
        "patch_size": [8, 24, 32],
    }
    shapes = [
        {name: value.shape for name, value in build_network(plans, 2, 3).state_dict().items()}
        for plans in (old, {"architecture": plain_architecture((6, 8))})
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conv_op": "torch.nn.modules.conv.Conv2d"}, "Conv2d"),
        ({"norm_op": "mypackage.InstanceNorm3d"}, "mypackage"),
        ({"nonlin": "torch.nn.Mish"}, "Mish"),
        ({"squeeze_excitation": True}, "squeeze_excitation"),
        ({"kernel_sizes": [[2, 3, 3], [3, 3, 3]]}, "even kernel"),
        ({"strides": [[1, 1, 1]]}, "2 stages"),
    ],
)
def test_networks_that_cannot_be_built_exactly_are_refused(changes: dict, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        build_network({"architecture": plain_architecture(**changes)}, 2, 3)


def test_other_network_classes_are_refused_by_name() -> None:
    block = plain_architecture() | {"network_class_name": "dynamic_network_architectures.architectures.primus.PrimusM"}
    with pytest.raises(ModelError, match="PrimusM"):
        build_network({"architecture": block}, 2, 3)
