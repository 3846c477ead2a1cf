"""What runs the networks: OpenVINO beside torch, its conversions on disk, the test before use, and warm networks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_cases import smooth_head
from nnunet_folders import randomise, write_model_folder

from segrap.engine import openvino_runner, runners, segment
from segrap.engine.backends import Networks
from segrap.engine.runners import Stop
from segrap.errors import Cancelled
from segrap.models.folder import Model, read_model
from segrap.models.library import conversions_folder
from segrap.models.network import UNet

needs_openvino = pytest.mark.skipif(
    openvino_runner.importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    return tmp_path / "library"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(write_model_folder(tmp_path_factory.mktemp("model"), folds=("0", "1"), mirror_axes=(2,)))


def otherwise(network: UNet) -> None:
    """Other random weights."""
    torch.manual_seed(77)
    randomise(network)


@pytest.fixture
def patch(model: Model) -> np.ndarray:
    shape = (1, len(model.channels), *model.patch_size)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def conversion_of(model: Model) -> Path:
    (folder,) = conversions_folder(model.hash).glob("openvino-*")
    return folder


@needs_openvino
def test_openvino_gives_torchs_maps_and_converts_once(model: Model, patch: np.ndarray, library: Path) -> None:
    said: list[str] = []
    opened = Networks().open(model, "cpu", say=said.append)
    assert opened.backend.name.startswith("OpenVINO") and opened.backend.name.endswith("float32")
    assert any("Converting" in words for words in said)
    torch_one = Networks(openvino=False).open(model, "cpu").backend
    assert torch_one.name.startswith("torch")
    ours, expected = opened.backend.features(patch), torch_one.features(patch)
    assert float((ours - expected).norm() / expected.norm()) < 1e-4

    said.clear()
    Networks().open(model, "cpu", say=said.append)
    assert not any("Converting" in words for words in said)


@needs_openvino
def test_damaged_conversion_is_made_anew(model: Model, patch: np.ndarray, library: Path) -> None:
    before = Networks().open(model, "cpu").backend.features(patch)
    weights = conversion_of(model) / "0.bin"
    content = bytearray(weights.read_bytes())
    content[100:140] = bytes(40)
    weights.write_bytes(content)
    said: list[str] = []
    after = Networks().open(model, "cpu", say=said.append).backend.features(patch)
    assert any("Converting" in words for words in said)
    assert torch.equal(before, after)


@needs_openvino
def test_what_computes_wrongly_is_not_used_and_that_is_said(model: Model, tmp_path: Path, library: Path) -> None:
    """Another model's networks in the place of this one's: whole, checksummed, fast, and wrong."""
    other = read_model(write_model_folder(tmp_path / "other", folds=("0", "1"), mirror_axes=(2,), teach=otherwise))
    for one in (model, other):
        Networks().open(one, "cpu")
    (conversions_folder(model.hash) / "tested.json").unlink()
    for file in conversion_of(other).iterdir():
        (conversion_of(model) / file.name).write_bytes(file.read_bytes())
    images = list(smooth_head((18, 60, 56)))
    found = segment(model, images, (3.0, 0.8, 0.8), model.output_plan(), "cpu")
    assert found.engine.startswith("torch")
    assert any("computes this model wrongly" in remark for remark in found.remarks)
    expected = segment(model, images, (3.0, 0.8, 0.8), model.output_plan(), "cpu", networks=Networks(openvino=False))
    assert np.array_equal(found.layers, expected.layers)
    # It is remembered: no second test, and still not used.
    assert max(json.loads((conversions_folder(model.hash) / "tested.json").read_text()).values()) > 0.1
    assert Networks().open(model, "cpu").backend.name.startswith("torch")


@needs_openvino
def test_library_that_cannot_be_written_leaves_torch(model: Model, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "file"))
    opened = Networks().open(model, "cpu")
    assert opened.backend.name.startswith("torch")
    assert any("OpenVINO could not be used" in remark for remark in opened.remarks)


@needs_openvino
def test_cancel_ends_the_conversion_at_once_and_leaves_nothing(model: Model, library: Path) -> None:
    asked = threading.Event()
    threading.Timer(0.7, asked.set).start()

    def check() -> None:
        if asked.is_set():
            raise Cancelled("The contouring was cancelled.")

    with pytest.raises(Cancelled):
        openvino_runner.converted(model, "features", "float32", "0", True, Stop(check), lambda words: None)
    assert time.monotonic() and not list(conversions_folder(model.hash).iterdir())


@needs_openvino
def test_few_small_patches_are_not_worth_a_conversion(model: Model, library: Path) -> None:
    opened = Networks().open(model, "cpu", patches=3)
    assert opened.backend.name.startswith("torch")
    assert not opened.remarks
    assert not list(conversions_folder(model.hash).glob("openvino-*"))


@needs_openvino
def test_openvino_is_imported_without_its_telemetry() -> None:
    program = """
import sys
from segrap.engine.openvino_runner import import_openvino
import_openvino().Core()
assert sys.modules["openvino_telemetry"] is None
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_networks_stay_ready_for_the_next_patient_with_the_same_model(model: Model, tmp_path: Path) -> None:
    networks = Networks(openvino=False)
    first = networks.open(model, "cpu").backend
    assert networks.open(model, "cpu").backend is first
    assert networks.open(model, "cpu", mirror=False).backend is not first
    again = networks.open(model, "cpu").backend
    assert again is not first
    other = read_model(write_model_folder(tmp_path, teach=otherwise))
    assert networks.open(other, "cpu").backend is not again


def test_a_kept_network_stops_for_the_job_that_uses_it(model: Model, patch: np.ndarray) -> None:
    """Not for the one that it was loaded for, which may be long over."""
    networks = Networks(openvino=False)

    def no() -> None:
        raise Cancelled("over")

    first = networks.open(model, "cpu").backend
    first.features(patch)
    second = networks.open(model, "cpu", check=no).backend
    with pytest.raises(Cancelled):
        second.features(patch)
    networks.open(model, "cpu").backend.features(patch)


def test_quick_computes_in_bfloat16_where_the_cpu_can_and_says_so(model: Model, patch: np.ndarray) -> None:
    if not runners.cpu_has_bfloat16():
        pytest.skip("this CPU does not compute in bfloat16")
    exact, quick = (Networks(openvino=False).open(model, "cpu", quick=quick) for quick in (False, True))
    assert quick.backend.name.endswith("bfloat16") and exact.backend.name.endswith("float32")
    assert any("bfloat16" in remark for remark in quick.remarks) and not exact.remarks
    a, b = quick.backend.features(patch), exact.backend.features(patch)
    assert 0 < float((a - b).norm() / b.norm()) < 0.05


def test_quick_on_a_cpu_without_bfloat16_is_float32_and_says_so(model: Model, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    opened = Networks(openvino=False).open(model, "cpu", quick=True)
    assert opened.backend.name.endswith("float32")
    assert any("quick mode changed nothing" in remark for remark in opened.remarks)
