"""The promises about memory: a forecast that holds, a choice that fits, and going on in less when it runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_folders import plain_architecture, write_model_folder
from scipy import ndimage

from segrap.engine import MEMORY, segment
from segrap.engine.backends import Networks
from segrap.engine.memory import choose, forecast, ways
from segrap.engine.openvino_runner import importlib as finder
from segrap.engine.stream import FeatureRing
from segrap.engine.tile_run import HALF_SUMS
from segrap.engine.tiles import importance, plan_tiles, tile_grid
from segrap.errors import ResourceError
from segrap.models.folder import Model, read_model
from segrap.models.library import find_model
from segrap.models.plans import read_planned_model
from segrap.progress import Progress

LABELS = {"background": 0, "Brain": 1, "BrainStem": 2, "Parotid_L": 3, "Parotid_R": 4, "Larynx": 5, "GTVp": 6}
SPACING = (3.0, 1.0, 1.0)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are set the Linux way")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its ring is large beside what a tile takes: many maps of a wide scan in thin patches."""
    folder = tmp_path_factory.mktemp("model")
    return read_model(write_model_folder(folder, labels=LABELS, patch_size=[8, 64, 64]))


def in_a_process(program: str, *arguments: object, **variables: str) -> dict[str, Any]:
    """Run a program that prints one JSON object."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# The ring


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_ring_gives_what_sums_over_the_whole_volume_give(dtype: torch.dtype) -> None:
    """Bit for bit in float64 and float32; in float16 to its rounding, also where weights are tiny."""
    grid = tile_grid((21, 30, 17), (8, 12, 20))
    plan, weight = plan_tiles(grid, None), importance(grid.patch)
    exact = torch.float32 if dtype == torch.float16 else dtype
    ring = FeatureRing(grid, plan, 3, torch.device("cpu"), weight, dtype)
    sums, weights = torch.zeros((*grid.padded, 3), dtype=exact), torch.zeros(grid.padded, dtype=exact)
    rng, taken = np.random.default_rng(0), {}
    for row, following in zip(plan.rows, [*(row.start for row in plan.rows[1:]), grid.padded[0]], strict=True):
        for y, x in row.tiles:
            maps = torch.from_numpy(rng.normal(size=(*grid.patch, 3))).to(exact)
            here = (slice(row.start, row.start + 8), slice(y, y + 12), slice(x, x + 20))
            sums[here].addcmul_(maps, torch.from_numpy(weight).to(exact)[..., None])
            weights[here] += torch.from_numpy(weight).to(exact)
            ring.add(maps, (row.start, y, x))
        taken.update({z: maps.clone() for z, maps, _ in ring.take(row.start, following)})
    mean = (sums / weights[..., None])[:, :, 1:18]  # 17 voxels stand in the middle of a patch of 20
    found = torch.stack([taken[z] for z in range(21)])
    if dtype == torch.float16:
        assert float((found - mean).abs().max()) < 2e-3 * float(mean.abs().max())
    else:
        assert torch.equal(found, mean)


def test_a_ring_that_is_halved_on_the_way_keeps_what_was_added() -> None:
    grid = tile_grid((8, 30, 20), (8, 12, 20))
    plan, weight = plan_tiles(grid, None), importance(grid.patch)
    rings = [FeatureRing(grid, plan, 3, torch.device("cpu"), weight) for _ in range(2)]
    rng = np.random.default_rng(0)
    for number, (y, x) in enumerate(plan.rows[0].tiles):
        maps = torch.from_numpy(rng.normal(size=(*grid.patch, 3)).astype(np.float32))
        for ring in rings:
            ring.add(maps, (0, y, x))
        if number == 1:
            rings[1].to_float16()
    whole, halved = ([maps for _, maps, _ in ring.take(0, 8)] for ring in rings)
    assert rings[1].dtype == torch.float16
    assert all(torch.allclose(a, b, atol=4e-3) for a, b in zip(whole, halved, strict=True))


# The forecast

MEASURED = r"""
import json, re, sys
import numpy as np
import torch
from segrap.engine import MEMORY, segment
from segrap.engine.backends import Networks
from segrap.models.folder import read_model

torch.set_num_threads(1)
folder, openvino, size = sys.argv[1], sys.argv[2] == "OpenVINO", int(sys.argv[3])
model = read_model(folder)
if sys.argv[4] == "prepare":
    Networks(openvino=openvino).open(model, "cpu")
    print("{}")
    raise SystemExit
image = np.full((32, size, size), -1000, dtype=np.int16)
edge = size // 6
image[:, edge:-edge, edge:-edge] = np.random.default_rng(0).integers(-100, 100, (32, size - 2 * edge, size - 2 * edge))
images, plan, said = [image, image.copy()], model.output_plan(), []
found = segment(
    model, images, (3, 1.5, 1.5), plan, "cpu", networks=Networks(openvino=openvino),
    progress=lambda p: said.append(p.message) if p.stage == MEMORY else None,
)
# Not ru_maxrss: a child's begins with the size of the process that started it.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"peak": peak, "said": said, "engine": found.engine}))
"""


@linux_only
@pytest.mark.parametrize("runner", ["torch", "OpenVINO"])
def test_the_forecast_is_near_what_a_run_takes(runner: str) -> None:
    """The shipped model on a small and a medium scan; converting it, once, is not part of a run."""
    if runner == "OpenVINO" and finder.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    folder = find_model("SegRapPhantom")
    planned = read_planned_model(folder)
    in_a_process(MEASURED, folder, runner, 0, "prepare")
    for size in (100, 150):
        run = in_a_process(MEASURED, folder, runner, size, "run")
        assert run["engine"].startswith(runner)
        told = forecast(planned, (32, size, size), (3, 1.5, 1.5), 4, runner)
        assert 0.8 < told.total / run["peak"] < 1.5, (told, run)
        assert len(run["said"]) == 1 and "float32" in run["said"][0]


def test_the_forecast_needs_no_torch_and_no_weights(model: Model) -> None:
    program = """
import json, sys
from segrap.engine.memory import forecast
from segrap.models.plans import read_planned_model
told = forecast(read_planned_model(sys.argv[1]), (130, 1024, 1024), (3, 0.5, 0.5), 4, "torch")
print(json.dumps({"total": told.total, "torch": "torch" in sys.modules}))
"""
    told = in_a_process(program, model.folder)
    expected = forecast(model, (130, 1024, 1024), (3, 0.5, 0.5), 4, "torch").total
    assert told == {"total": expected, "torch": False}


def test_the_best_way_that_fits_is_chosen(model: Model) -> None:
    possible = ways(model, (60, 1024, 1024), (3.0, 0.5, 0.5), 4, ["GPU", "torch"])
    *many, gpu, gpu_half, cpu, cpu_half = possible
    assert [way.batch for way in possible] == [8, 4, 2, 1, 1, 1, 1]  # tiles of 8 x 64 x 64 voxels are small for a GPU
    assert many[0].gpu > many[-1].gpu > gpu.gpu > gpu_half.gpu and cpu.to_come > cpu_half.to_come
    plenty = 10**12
    assert choose(possible, plenty, plenty) is many[0] and "8 tiles at once" in many[0].words(None)
    assert choose(possible, plenty, gpu.gpu) is gpu
    assert choose(possible, plenty, gpu_half.gpu) is gpu_half
    assert choose(possible, plenty, 0) is cpu
    assert choose([cpu, cpu_half], cpu_half.to_come) is cpu_half
    assert choose([cpu, cpu_half], None) is cpu  # what is free is not known
    with pytest.raises(ResourceError, match=r"GB are needed at least, 0\.10 GB are free\. Close other programs"):
        choose([cpu, cpu_half], 100_000_000)


# Ceilings of memory

LIMITED = """
import json, resource, sys
import numpy as np
import psutil, torch
from segrap.engine import MEMORY, segment
from segrap.engine.backends import Networks
from segrap.errors import ResourceError
from segrap.models.folder import read_model

torch.set_num_threads(1)  # else threads take address space when they are first needed
folder, scan, out, when, megabytes = sys.argv[1:]
model, images, said = read_model(folder), list(np.load(scan)), []
networks = Networks(openvino=False)
segment(model, [image[:, :40, :40] for image in images], (3, 1, 1), model.output_plan(), "cpu", networks=networks)

def limit():
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + int(float(megabytes) * 1e6), resource.RLIM_INFINITY))

def watch(progress):
    said.append(progress)
    if progress.message.startswith(when):
        limit()

if when == "first":
    limit()
answer = {"error": "", "remarks": [], "loaded": False}
try:
    found = segment(model, images, (3, 1, 1), model.output_plan(), "cpu", networks=networks, progress=watch)
    np.save(out, found.layers)
    answer["remarks"] = found.remarks
except ResourceError as fault:
    answer["error"] = str(fault)
answer["memory"] = [one.message for one in said if one.stage == MEMORY]
answer["loaded"] = any(one.stage == "Loading the model" for one in said)
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def wide_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npy"
    tissue = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, 20, 320, 320)), (0, 3, 3, 3))
    np.save(path, (tissue * (300 / tissue.std())).astype(np.int16))  # no air: all tiles are run
    return path


@pytest.fixture(scope="module")
def expected(model: Model, wide_scan: Path) -> np.ndarray:
    return segment(
        model, list(np.load(wide_scan)), SPACING, model.output_plan(), "cpu", networks=Networks(openvino=False)
    ).layers


def share_that_differs(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found != expected).any(axis=0).mean())


@linux_only
def test_a_run_that_fits_under_a_ceiling_gives_the_same_labels(
    model: Model, wide_scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    answer = in_a_process(LIMITED, model.folder, wide_scan, tmp_path / "layers.npy", "first", 400)
    assert not answer["error"] and not answer["remarks"]
    assert np.array_equal(np.load(tmp_path / "layers.npy"), expected)


@linux_only
def test_a_run_that_only_fits_in_float16_says_so_and_differs_in_few_voxels(
    model: Model, wide_scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    scan = np.load(wide_scan)
    whole, half = ways(model, scan.shape[1:], SPACING, 4, ["torch"])
    between = (whole.to_come + half.to_come) / 2e6
    answer = in_a_process(LIMITED, model.folder, wide_scan, tmp_path / "layers.npy", "first", between)
    assert not answer["error"], answer
    assert "float16" in answer["memory"][0] and answer["remarks"] == [HALF_SUMS]
    assert share_that_differs(np.load(tmp_path / "layers.npy"), expected) < 1e-3


@linux_only
def test_a_run_that_does_not_fit_is_refused_before_the_model_is_loaded(
    model: Model, wide_scan: Path, tmp_path: Path
) -> None:
    answer = in_a_process(LIMITED, model.folder, wide_scan, tmp_path / "layers.npy", "first", 60)
    assert "too little free memory" in answer["error"] and "are needed at least" in answer["error"]
    assert not answer["loaded"] and not (tmp_path / "layers.npy").exists()


@linux_only
def test_a_run_goes_on_in_less_memory_when_it_runs_out_on_the_way(
    model: Model, wide_scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    """The ceiling comes down, for real, before the fortieth tile, and lower each time until a tile no longer fits."""
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else malloc keeps what is freed, and the ceiling is not felt
    for megabytes in range(21, 9, -3):
        layers = tmp_path / f"{megabytes}.npy"
        answer = in_a_process(LIMITED, model.folder, wide_scan, layers, "tile 40 ", megabytes, **settings)
        assert not answer["error"], answer
        if answer["remarks"]:
            break
    assert answer["remarks"] == [HALF_SUMS] and answer["memory"][-1] == HALF_SUMS
    assert share_that_differs(np.load(layers), expected) < 1e-3


COMMAND = """
import resource, sys
import psutil, SimpleITK, torch
import segrap.ct.pair, segrap.engine.backends, segrap.engine.stream, segrap.results, segrap.composition
from segrap.cli import main

now = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (now + 120_000_000, resource.RLIM_INFINITY))
main(sys.argv[1:])
"""


@linux_only
def test_the_command_ends_with_status_5_and_writes_nothing_when_memory_does_not_do(
    coarse_patient: Path, tmp_path: Path
) -> None:
    wide = plain_architecture((32, 32))
    folder = write_model_folder(tmp_path / "model", architecture=wide, patch_size=[32, 96, 96], spacing=[5.0, 5.0, 5.0])
    scans = [coarse_patient / "image.nii.gz", coarse_patient / "image_contrast.nii.gz"]
    command = [sys.executable, "-c", COMMAND, "contour", *scans, "--output", tmp_path / "out", "--model", folder]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == ResourceError.exit_status, done.stderr[-2000:]
    assert "memory" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_cpu_goes_on_where_the_gpu_runs_out(model: Model, wide_scan: Path, expected: np.ndarray) -> None:
    """Written with care, never run: no GPU was at hand."""
    said: list[Progress] = []
    gpu_total = torch.cuda.get_device_properties(0).total_memory

    def watch(progress: Progress) -> None:
        said.append(progress)
        if progress.message.startswith("tile 20 "):
            torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_allocated() / gpu_total)

    try:
        found = segment(model, list(np.load(wide_scan)), SPACING, model.output_plan(), "cuda", progress=watch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len([one for one in said if one.stage == MEMORY]) == 3 and "on CPU" in found.engine
    assert share_that_differs(found.layers, expected) < 1e-2
