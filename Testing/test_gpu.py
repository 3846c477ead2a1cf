"""Runs on a GPU, made of the CPU where none is at hand: each tensor is where it belongs, and memory may run out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_gpu import made_up_gpu
from nnunet_cases import smooth_head
from nnunet_folders import write_model_folder

from segrap.engine import MEMORY, Segmentation, segment
from segrap.engine.backends import GPU_TOO_SMALL, Networks
from segrap.engine.stream import FeatureRing
from segrap.engine.tile_run import FEWER_AT_ONCE, HALF_SUMS, ON_CPU
from segrap.models.folder import Model, read_model
from segrap.progress import Progress

ORGANS = {"background": 0, "Brain": 1, "BrainStem": 2, "Parotid_L": 3, "Parotid_R": 4, "Larynx": 5, "GTVp": 6}
THREE = {"background": 0, "Brain": 1, "BrainStem": 2}  # fewer class scores than features
REGIONS = {"background": 0, "Brain": [1, 2], "BrainStem": 2}
SPACING = (3.0, 0.8, 0.8)
MODELS: dict[str, dict[str, Any]] = {
    "features": {"labels": ORGANS},
    "scores": {"labels": THREE},
    "two folds, mirrored": {"labels": ORGANS, "folds": ("0", "1"), "mirror_axes": (1, 2)},
    "two folds, scores": {"labels": THREE, "folds": ("0", "1")},
    "regions": {"labels": REGIONS, "dataset": {"regions_class_order": [1, 2]}},
    "turned": {"labels": ORGANS, "transpose": (1, 2, 0)},
}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(smooth_head((18, 60, 56)))


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))


def on_cpu(model: Model, images: list[np.ndarray]) -> Segmentation:
    return segment(model, images, SPACING, model.output_plan(), "cpu", networks=Networks(openvino=False))


def on_gpu(
    model: Model, images: list[np.ndarray], kind: str, progress: Callable[[Progress], None] | None = None
) -> Segmentation:
    return segment(model, images, SPACING, model.output_plan(), f"{kind}:0", progress=progress)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The starts of all tiles that are added up."""
    starts: list[tuple[int, int, int]] = []
    add = FeatureRing.add
    monkeypatch.setattr(FeatureRing, "add", lambda ring, maps, start: (starts.append(start), add(ring, maps, start)))
    return starts


def all_tiles_once(added: list[tuple[int, int, int]], said: list[Progress]) -> bool:
    count = next(int(one.message.rsplit(" ", 1)[1]) for one in said if one.message.startswith("tile "))
    return len(added) == len(set(added)) == count


def share_that_differs(found: Segmentation, expected: Segmentation) -> float:
    return float((found.layers != expected.layers).any(axis=0).mean())


def test_the_made_up_gpu_refuses_what_a_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with made_up_gpu("cuda", monkeypatch):
        there = torch.ones(3, device="cuda:0")
        assert (there + 1).device.type == "cuda" and torch.equal((there * 2).cpu(), torch.full((3,), 2.0))
        for other in (lambda: there + torch.ones(3), lambda: torch.stack([there, torch.ones(3)])):
            with pytest.raises(RuntimeError, match="same device"):
                other()
        with pytest.raises(RuntimeError):
            there.numpy()


def test_a_made_up_mps_has_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    with made_up_gpu("mps", monkeypatch), pytest.raises(TypeError, match="float64"):
        torch.zeros(3, dtype=torch.float64).to("mps:0")


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("name", MODELS)
def test_a_run_on_a_gpu_gives_the_labels_of_the_cpu(
    kind: str, name: str, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA the network runs in float16, several tiles at once; on MPS in float32, one by one."""
    model = read_model(write_model_folder(tmp_path / "model", **MODELS[name]))
    expected, said = on_cpu(model, images), []
    with made_up_gpu(kind, monkeypatch):
        found = on_gpu(model, images, kind, said.append)
    assert found.engine.endswith({"cuda": "on made-up GPU, float16", "mps": "on MPS, float32"}[kind])
    assert not found.remarks
    assert share_that_differs(found, expected) <= {"cuda": 1e-2, "mps": 0}[kind]
    assert found.confidence == pytest.approx(expected.confidence, abs=0.01)
    assert found.disagreement == pytest.approx(expected.disagreement, abs=0.02)
    tiles = [one.message for one in said if one.message.startswith("tile ")]
    count = int(tiles[0].rsplit(" ", 1)[1])
    assert len(tiles) == count if kind == "mps" else len(tiles) < count / 2
    memory = next(one.message for one in said if one.stage == MEMORY)
    assert ("GPU's memory" in memory and "tiles at once" in memory) == (kind == "cuda")


def test_a_run_that_runs_out_of_gpu_memory_goes_down_step_by_step(
    images: list[np.ndarray], added: list[tuple[int, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer tiles at once, then float16, then the CPU; the tiles that are done are kept."""
    model = read_model(write_model_folder(tmp_path / "model", labels=ORGANS))
    expected, said = on_cpu(model, images), []
    added.clear()
    with made_up_gpu("cuda", monkeypatch) as gpu:

        def watch(progress: Progress) -> None:
            said.append(progress)
            if [one.stage for one in said].count("Contouring") == 4:  # after the name and two groups come four tiles
                gpu.largest_bytes = 60_000  # from here on no tile fits, but a slice of the ring does

        found = on_gpu(model, images, "cuda", watch)
    words = [one.message for one in said if one.stage == MEMORY]
    assert words[1:] == [FEWER_AT_ONCE] * 2 + [HALF_SUMS, ON_CPU]
    assert found.remarks == (HALF_SUMS, ON_CPU) and "on CPU" in found.engine
    assert all_tiles_once(added, said)
    assert share_that_differs(found, expected) < 1e-2


def test_fewer_tiles_at_once_are_no_remark_for_the_reader(
    images: list[np.ndarray], added: list[tuple[int, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(write_model_folder(tmp_path / "model", labels=ORGANS))
    patch_bytes = 4 * len(model.channels) * int(np.prod(model.patch_size))
    with made_up_gpu("cuda", monkeypatch):
        expected = on_gpu(model, images, "cuda")
    said: list[Progress] = []
    added.clear()
    with made_up_gpu("cuda", monkeypatch) as gpu:

        def watch(progress: Progress) -> None:
            said.append(progress)
            if progress.message.startswith("tile 1 "):
                gpu.largest_bytes = 5 * patch_bytes  # what one tile's features take, but not two tiles' features

        found = on_gpu(model, images, "cuda", watch)
    assert [one.message for one in said if one.stage == MEMORY][1:] == [FEWER_AT_ONCE] * 2
    assert all_tiles_once(added, said)
    assert not found.remarks and share_that_differs(found, expected) < 1e-2


def test_what_a_run_took_of_the_gpu_beside_the_model_is_given_back(
    images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, networks = read_model(write_model_folder(tmp_path / "model", labels=ORGANS)), Networks()
    with made_up_gpu("cuda", monkeypatch) as gpu:
        segment(model, images, SPACING, model.output_plan(), "cuda:0", networks=networks)
        kept = networks.open(model, "cuda:0").backend
        networks.give_back_gpu_memory()
        assert gpu.given_back and networks.open(model, "cuda:0").backend is kept


def test_a_gpu_without_room_for_the_model_is_left_for_the_cpu(
    images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(write_model_folder(tmp_path / "model", labels=ORGANS))
    expected = on_cpu(model, images)
    with made_up_gpu("cuda", monkeypatch):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**8, 10**10))
        found = on_gpu(model, images, "cuda")
    assert GPU_TOO_SMALL in found.remarks and "GPU" not in found.engine
    assert share_that_differs(found, expected) < 1e-3


@pytest.mark.parametrize("taken_when", ["Testing ", "torch "])
def test_a_gpu_whose_memory_others_took_meanwhile_is_left_for_the_cpu(
    taken_when: str, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was room when the run was planned: then not even the test's patch fits, or, after it, no sums of tiles."""
    model = read_model(write_model_folder(tmp_path / "model", labels=ORGANS))
    expected, said = on_cpu(model, images), []
    with made_up_gpu("cuda", monkeypatch) as gpu:

        def watch(progress: Progress) -> None:
            said.append(progress.message)
            if progress.message.startswith(taken_when):
                gpu.largest_bytes = 1000

        found = on_gpu(model, images, "cuda", watch)
    assert any(message.startswith(taken_when) and "made-up GPU" in message for message in said)
    assert found.remarks[0] == GPU_TOO_SMALL and "GPU" not in found.engine
    assert share_that_differs(found, expected) < 1e-3


def test_a_gpu_that_computes_wrongly_is_not_used(
    images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(write_model_folder(tmp_path / "model", labels=ORGANS))
    expected = on_cpu(model, images)
    with made_up_gpu("cuda", monkeypatch) as gpu:
        gpu.wrong = True
        found = on_gpu(model, images, "cuda")
    assert any("computes this model wrongly" in remark for remark in found.remarks)
    assert "GPU" not in found.engine and share_that_differs(found, expected) < 1e-3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cuda", "CUDA error: no kernel image is available for execution on the device"),
        ("mps", "Conv3D is only supported on MPS for MacOS_13_2 or newer"),
    ],
)
def test_a_gpu_that_cannot_run_the_network_is_left_for_the_cpu(
    kind: str, reason: str, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too old or too new for this torch, or of a system too old."""
    model = read_model(write_model_folder(tmp_path / "model", labels=ORGANS))
    expected = on_cpu(model, images)
    with made_up_gpu(kind, monkeypatch) as gpu:
        gpu.lacking = f"{reason}\nCompile with TORCH_USE_CUDA_DSA"
        found = on_gpu(model, images, kind)
    assert f"The GPU could not be used ({reason})." in found.remarks
    assert "GPU" not in found.engine and share_that_differs(found, expected) < 1e-3
