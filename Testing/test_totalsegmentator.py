"""TotalSegmentator's weights as models: terms first, labels that mean what the table says, from a local file server.

The folders are of the form that TotalSegmentator publishes, with small random weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap
from nnunet_folders import configuration, write_model_folder
from test_engine_against_nnunetv2 import PEER_PYTHON

from segrap import anatomy
from segrap.contouring import contour
from segrap.ct.pair import load_pair
from segrap.errors import ModelError, UsageError
from segrap.midline import on_the_left, split_sides
from segrap.models import totalsegmentator
from segrap.models.folder import read_model
from segrap.models.labels import read_labels
from segrap.models.library import SHIPPED, install, user_folder
from segrap.models.totalsegmentator import Weights, known_weights

WEIGHTS = {weights.task: weights for weights in known_weights()}

pytestmark = pytest.mark.usefixtures("own_library")


def published(weights: Weights, to: Path, labels: dict[str, int] | None = None, plans: str = "nnUNetPlans") -> Path:
    """A folder as TotalSegmentator publishes it: Dataset.../trainer__plans__configuration/fold_0, its configuration one
    that inherits from nnU-Net's and has a finer grid."""
    trainer, fine = "nnUNetTrainer_DASegOrd0_NoMirroring", "3d_fullres_high"
    changes = {"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], "spacing": [9.0, 9.0, 9.0]}
    finer = {"inherits_from": "3d_fullres", "spacing": [5.0, 5.0, 5.0]}
    write_model_folder(
        to / weights.dataset / f"{trainer}__{plans}__{fine}",
        labels=labels or {"background": 0, **{name: k for k, name in enumerate(weights.labels, 1)}},
        channels=("CT",),
        plans={"configurations": {"3d_fullres": configuration(**changes), fine: finer}},
        checkpoint={"trainer_name": trainer, "init_args": {"configuration": fine}},
        **changes,
    )
    return to / weights.dataset


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a file server that offers head_glands_cavities and craniofacial_structures."""
    (tmp_path / "served").mkdir()
    for task in ("head_glands_cavities", "craniofacial_structures"):
        folder = published(WEIGHTS[task], tmp_path / "made")
        shutil.make_archive(str(tmp_path / "served" / folder.name), "zip", tmp_path / "made", folder.name)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_open_weights_cover_18_organs_and_with_the_shipped_research_model_20() -> None:
    covered: set[str] = set()
    for weights in known_weights():
        dataset = {"labels": {"background": 0, **{name: k for k, name in enumerate(weights.labels, 1)}}}
        unmapped = {label: [] for label in weights.labels if label not in weights.split_at_midline}
        facts = {"structures": {**unmapped, **weights.structures}, "split_at_midline": weights.split_at_midline}
        found = read_labels(dataset, facts).covered
        assert found and set(weights.notes) <= set(anatomy.NAMES)
        covered |= set(found) if weights.licence == "Apache-2.0" else set()
    assert len(covered) == 18
    for task in ("organs", "brain_cord", "fast"):
        assert WEIGHTS[f"total_v3_{task}"].structures == WEIGHTS[f"total_{task}"].structures
    shipped = json.loads((SHIPPED / "OpenKBP_8" / "dataset.json").read_text(encoding="utf-8"))
    assert len(covered | set(read_labels(shipped).covered)) == 20


def test_classes_addresses_and_terms_are_those_of_totalsegmentator_itself() -> None:
    if not PEER_PYTHON.is_file():
        pytest.skip(f"TotalSegmentator is not installed: run {sys.executable} Testing/make_peers.py")
    program = (
        "import json\n"
        "from totalsegmentator import map_tasks_config as tasks, map_to_binary as maps, registry\n"
        "parts = maps.class_map_5_parts | maps.class_map_parts_headneck_muscles\n"
        "ids = maps.map_taskid_to_partname_ct | maps.map_taskid_to_partname_headneck_muscles\n"
        "classes = {number: parts[part] for number, part in ids.items() if part in parts}\n"
        "classes |= {tasks.TASK_CONFIGS[name]['task_id']: maps.class_map[name] for name in\n"
        "            ('head_glands_cavities', 'craniofacial_structures', 'brain_structures')}\n"
        "v3 = maps.class_map_5_parts_total_v3\n"
        "classes |= {number: v3[part] for number, part in maps.map_taskid_to_partname_ct_v3.items()}\n"
        "for total in ('total', 'total_v3'):\n"
        "    classes[tasks.TASK_CONFIGS[total]['sub_modes']['fast']['task_id']] = maps.class_map[total]\n"
        "    assert not registry.requires_license(total)\n"
        "licensed = [one['task_id'] for one in tasks.TASK_CONFIGS.values() if one.get('commercial')]\n"
        "print(json.dumps([classes, tasks.TASK_ID_WEIGHTS_CONFIGS, licensed], default=str))\n"
    )
    done = subprocess.run([PEER_PYTHON, "-c", program], capture_output=True, text=True, check=True)
    classes, published_weights, licensed = json.loads(done.stdout.splitlines()[-1])
    for weights in known_weights():
        number = str(int(weights.dataset[len("Dataset") :][:3]))
        assert dict(enumerate(weights.labels, 1)) == {int(k): name for k, name in classes[number].items()}
        assert weights.licence.startswith("Apache-2.0") == (int(number) not in licensed), weights.task
        if weights.address:
            where = published_weights[number]
            assert (weights.dataset, weights.version) == (where["foldername"], where["version"])
            assert weights.address.endswith(f"/releases/download/{weights.version}/{weights.dataset}.zip")


def test_an_address_is_downloaded_checked_and_says_what_its_labels_are(tmp_path: Path, server: str) -> None:
    name = WEIGHTS["head_glands_cavities"].dataset
    checksum = hashlib.sha256((tmp_path / "served" / f"{name}.zip").read_bytes()).hexdigest()
    asked: list[str] = []
    model = install(f"{server}/{name}.zip", sha256=checksum, accept=lambda terms: bool(asked.append(terms)) or True)
    assert "Licence of the weights: Apache-2.0" in asked[0] and len(asked) == 1
    assert (model.name, model.version, model.licence) == (
        "TotalSegmentator head_glands_cavities",
        "v2.3.0-weights",
        "Apache-2.0",
    )
    assert (model.channels, model.orientation, model.intended_use) == (("non_contrast",), "RAS", "research")
    assert {name.rsplit("_", 1)[0] for name in model.structures} == {
        *("Eye", "Lens", "OpticNerve", "Parotid", "Submandibular")
    }
    assert model.labels.structures["eye_lens_left"] == ("Lens_L", "Eye_L")
    assert model.labels.structures["hard_palate"] == ()
    assert model.data_resampling.separate_z is False
    assert (model.configuration_name, model.spacing_mm) == ("3d_fullres_high", (5.0, 5.0, 5.0))
    card = (model.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "The lens is added to the eye" in card
    assert f"Installed from {name}.zip, SHA-256 {checksum}." in card


def test_a_task_is_installed_by_its_name(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tuple(replace(one, address=f"{server}/{one.dataset}.zip") for one in known_weights())
    monkeypatch.setattr(totalsegmentator, "known_weights", lambda: here)
    model = install("totalsegmentator:craniofacial_structures", accept=lambda terms: True)
    assert model.structures == ("Mandible_L", "Mandible_R")


def test_without_acceptance_nothing_is_installed(tmp_path: Path) -> None:
    folder = published(WEIGHTS["head_glands_cavities"], tmp_path / "made")
    done = run_segrap("models", "install", folder / "nnUNetTrainer_DASegOrd0_NoMirroring__nnUNetPlans__3d_fullres_high")
    assert done.returncode == 2
    assert "Licence of the weights: Apache-2.0" in done.stderr and "--accept-licence" in done.stderr
    assert not user_folder().exists()


def test_an_archive_that_holds_such_weights_under_another_name_asks_too(tmp_path: Path) -> None:
    published(WEIGHTS["head_glands_cavities"], tmp_path / "made")
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "made")
    with pytest.raises(UsageError, match="not accepted"):
        install(archive)
    assert install(archive, accept=lambda terms: True).licence == "Apache-2.0"


def test_the_folder_of_a_dataset_is_installed_and_the_command_shows_the_terms_it_was_told_to_accept(
    tmp_path: Path,
) -> None:
    folder = published(WEIGHTS["brain_structures"], tmp_path / ".totalsegmentator" / "nnunet" / "results")
    done = run_segrap("models", "install", folder, "--accept-licence", "--json")
    assert done.returncode == 0, done.stderr
    assert "non-commercial use only" in done.stderr
    facts = json.loads(done.stdout)
    assert facts["structures"] == ["TemporalLobe_L", "TemporalLobe_R"]
    assert "non-commercial use only" in facts["licence"]


@pytest.mark.parametrize("up", [1, 3])
def test_a_single_dataset_in_totalsegmentators_folder_is_recognised_from_above(tmp_path: Path, up: int) -> None:
    folder = published(WEIGHTS["total_v3_organs"], tmp_path / ".totalsegmentator" / "nnunet" / "results")
    with pytest.raises(UsageError, match="not accepted"):
        install(folder.parents[up - 1])
    model = install(folder.parents[up - 1], accept=lambda terms: "total_v3_organs" in terms)
    assert model.structures == ("Esophagus", "Thyroid", "Trachea")
    assert (model.name, model.version) == ("TotalSegmentator total_v3_organs", "v3.0.0-weights")


def test_of_two_models_of_one_dataset_the_one_that_totalsegmentator_runs_is_taken(tmp_path: Path) -> None:
    weights = WEIGHTS["total_v3_fast"]
    published(weights, tmp_path / "made", plans="nnUNetResEncUNetLPlans_8")
    archive = shutil.make_archive(str(tmp_path / weights.dataset), "zip", tmp_path / "made")
    small = install(archive, name="small", accept=lambda terms: True)
    folder = published(weights, tmp_path / "made")
    (big,) = folder.glob("*__nnUNetPlans__*")
    (big / "README.md").write_text("big")
    archive = shutil.make_archive(str(tmp_path / weights.dataset), "zip", tmp_path / "made")
    model = install(archive, name="from an archive", accept=lambda terms: True)
    again = install(folder, name="from a folder", accept=lambda terms: True)
    assert [(one.folder / "README.md").exists() for one in (small, model, again)] == [False, True, True]


def test_a_download_with_another_checksum_is_not_installed(server: str) -> None:
    name = WEIGHTS["head_glands_cavities"].dataset
    with pytest.raises(ModelError, match="downloaded but not used"):
        install(f"{server}/{name}.zip", sha256="0" * 64, accept=lambda terms: True)
    assert list(user_folder().iterdir()) == []


def test_a_task_that_is_unknown_or_licensed_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"Known are .*head_glands_cavities"):
        install("totalsegmentator:legs")
    with pytest.raises(UsageError, match="Get them with TotalSegmentator itself"):
        install("totalsegmentator:brain_structures")


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "mandible": 1, "skull": 2},
        {"background": 0, **{name: k for k, name in enumerate(reversed(WEIGHTS["craniofacial_structures"].labels), 1)}},
    ],
)
def test_weights_with_other_labels_than_the_table_are_refused(tmp_path: Path, labels: dict[str, int]) -> None:
    folder = published(WEIGHTS["craniofacial_structures"], tmp_path / "made", labels)
    with pytest.raises(ModelError, match="do not have the labels"):
        install(next(folder.iterdir()), accept=lambda terms: True)
    assert list(user_folder().iterdir()) == []


def test_a_mandible_without_sides_is_split_and_the_contours_say_so(coarse_patient: Path, tmp_path: Path) -> None:
    folder = published(WEIGHTS["craniofacial_structures"], tmp_path / "made")
    model = install(next(folder.iterdir()), accept=lambda terms: True)
    pair = load_pair(coarse_patient / "image.nii.gz")
    contours = contour(pair, model)
    left, right = contours.mask("Mandible_L"), contours.mask("Mandible_R")
    assert left.any() and right.any() and not (left & right).any()
    assert "Mandible_L and Mandible_R are one to TotalSegmentator" in " ".join(contours.provenance.remarks)
    x_of = [np.nonzero(mask)[2].mean() * contours.geometry.direction[0, 0] for mask in (left, right)]
    assert x_of[0] > x_of[1]
    alone = contour(pair, model, ["Mandible_R"])
    assert alone.names == ("Mandible_R",) and np.array_equal(alone.mask("Mandible_R"), right)


def horseshoe(turn_degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a jaw (z, y, x) mm, open to the back, in a head turned about its long axis; which are left ones."""
    angle = np.linspace(-0.95 * np.pi, -0.05 * np.pi, 400)
    points = np.stack([np.zeros_like(angle), 45 * np.sin(angle), 40 * np.cos(angle)], axis=1)
    points = np.concatenate([points + np.array([z, 0, 0]) for z in range(0, 30, 3)])
    turn = np.radians(turn_degrees)
    turned = points.copy()
    turned[:, 2] = np.cos(turn) * points[:, 2] - np.sin(turn) * points[:, 1]
    turned[:, 1] = np.sin(turn) * points[:, 2] + np.cos(turn) * points[:, 1]
    return turned + np.array([200, 150, 120]), points[:, 2] >= 0


@pytest.mark.parametrize("turn", [-20.0, -5.0, 0.0, 12.0])
def test_the_middle_plane_follows_a_turned_head(turn: float) -> None:
    points, left = horseshoe(turn)
    assert (on_the_left(points) == left).mean() > 0.99


def test_what_does_not_lie_from_side_to_side_is_split_upright() -> None:
    rod = np.stack([np.zeros(100), np.linspace(0, 90, 100), np.linspace(0, 9, 100)], axis=1)
    assert np.array_equal(on_the_left(rod), rod[:, 2] >= 4.5)


def test_an_empty_structure_is_left_alone() -> None:
    layers = np.zeros((1, 2, 3, 4), dtype=np.uint8)
    split_sides(layers, {"Mandible_L": (0, 1), "Mandible_R": (0, 2)}, [("Mandible_L", "Mandible_R")], (1, 1, 1))
    assert not layers.any()


@pytest.mark.parametrize("sides", [["Mandible_R", "Mandible_L"], ["Mandible_L"], "Mandible_L", ["Brain", "Larynx"]])
def test_a_split_into_anything_but_left_and_right_is_refused(tmp_path: Path, sides: object) -> None:
    facts = {"structures": {"BrainStem": ["BrainStem"]}, "split_at_midline": {"SpinalCord": sides}}
    with pytest.raises(ModelError, match="not a left and a right structure"):
        read_model(write_model_folder(tmp_path / "m", facts=facts))
