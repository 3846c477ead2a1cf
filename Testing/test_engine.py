"""The engine's promises that need no other software: streaming changes nothing, and every run can be stopped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_cases import smooth_head
from nnunet_folders import plain_architecture, randomise, write_model_folder
from scipy import ndimage

from segrap.engine import segment
from segrap.engine.backends import Backend, Networks
from segrap.engine.head import Head
from segrap.engine.prepare import NetworkInput, plan_frame
from segrap.engine.resampling import axis_map, separate_axis, taps
from segrap.engine.stream import FeatureRing, LayerPainter
from segrap.engine.tiles import importance, plan_tiles, tile_grid
from segrap.errors import Cancelled, InputError, ModelError, ResourceError, UsageError
from segrap.models.folder import Model, read_model
from segrap.models.labels import OutputPlan
from segrap.models.network import UNet
from segrap.models.plans import Resampling
from segrap.progress import Progress

CPU = torch.device("cpu")
# Seven class scores of six features: it is features that are accumulated.
SIX_LABELS = {"background": 0, "Brain": 1, "BrainStem": 2, "Parotid_L": 3, "Parotid_R": 4, "Larynx": 5, "GTVp": 6}
SPACING = (3.0, 0.8, 0.8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(write_model_folder(tmp_path_factory.mktemp("model"), labels=SIX_LABELS))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(smooth_head((18, 60, 56)))


def run(model: Model, images: list[np.ndarray], **settings: object) -> np.ndarray:
    return segment(model, images, SPACING, model.output_plan(), "cpu", **settings).layers


def torch_backend(model: Model, **settings: object) -> Backend:
    return Networks(openvino=False).open(model, "cpu", **settings).backend


# Streaming gives what whole volumes give


def scores_of_whole_volume(model: Model, images: list[np.ndarray]) -> np.ndarray:
    """(class, z, y, x) scores on the image's grid: every tile summed in float64, every score interpolated by scipy."""
    frame = plan_frame(model, images, SPACING)
    grid = tile_grid(frame.network_shape, model.patch_size)
    source = NetworkInput(model, frame, grid, images, plan_tiles(grid, None))
    (network,) = model.load_networks()
    sums = np.zeros((model.labels.score_channels, *grid.padded))
    weights = np.zeros(grid.padded)
    weight = importance(grid.patch).astype(np.float64)
    for z in grid.starts[0]:
        for y in grid.starts[1]:
            for x in grid.starts[2]:
                here = tuple(slice(s, s + n) for s, n in zip((z, y, x), grid.patch, strict=True))
                with torch.no_grad():
                    scores = network(torch.from_numpy(source.patch((z, y, x)))[None])[0].double().numpy()
                sums[(slice(None), *here)] += scores * weight
                weights[here] += weight
    mean = (sums / weights)[(slice(None), *(slice(b, b + n) for b, n in zip(grid.before, grid.shape, strict=True)))]
    zoom = [n / m for n, m in zip(frame.shape, frame.network_shape, strict=True)]
    return np.stack([ndimage.zoom(c, zoom, order=1, mode="nearest", grid_mode=True) for c in mean])


def test_labels_are_those_of_whole_volume_sums_and_whole_volume_interpolation(
    model: Model, images: list[np.ndarray]
) -> None:
    expected = model.output_plan().table[:, scores_of_whole_volume(model, images).argmax(0)]
    different = (run(model, images, skip_air=False) != expected).any(axis=0)
    assert different.sum() <= 1  # one near-tie may fall the other way in float32


def test_the_ring_of_slices_gives_the_weighted_mean_of_all_tiles() -> None:
    grid = tile_grid((21, 30, 17), (8, 12, 20))
    plan = plan_tiles(grid, None)
    weight = importance(grid.patch)
    ring = FeatureRing(grid, plan, 3, CPU, weight)
    sums, weights = np.zeros((3, *grid.padded)), np.zeros(grid.padded)
    taken = {}
    rng = np.random.default_rng(0)
    for row, following in zip(plan.rows, [*(row.start for row in plan.rows[1:]), grid.padded[0]], strict=True):
        for y, x in row.tiles:
            maps = rng.normal(size=(*grid.patch, 3)).astype(np.float32)
            here = (slice(row.start, row.start + 8), slice(y, y + 12), slice(x, x + 20))
            sums[(slice(None), *here)] += np.moveaxis(maps, 3, 0) * weight
            weights[here] += weight
            ring.add(torch.from_numpy(maps), (row.start, y, x))
        taken.update({z: maps for z, maps, covered in ring.take(row.start, following) if covered.all()})
    mean = (sums / weights)[:, :, :, 1:18]  # 17 voxels stand in the middle of a patch of 20
    assert sorted(taken) == list(range(21))
    assert all(np.allclose(taken[z].movedim(2, 0), mean[:, z], atol=1e-5) for z in taken)


def paint(scores: np.ndarray, model: Model, output: OutputPlan, shape: tuple[int, int, int]) -> np.ndarray:
    """Let a painter make layers of (class, z, y, x) network scores, slice by slice."""
    images = [np.ones(shape, dtype=np.int16)] * len(model.channels)
    spacing = tuple(s * m / n for s, m, n in zip(model.spacing_zyx, scores.shape[1:], shape, strict=True))
    frame = plan_frame(model, images, spacing)
    assert frame.network_shape == scores.shape[1:]
    grid = tile_grid(frame.network_shape, (1, 1, 1))
    layers = np.zeros((output.table.shape[0], *shape), dtype=np.uint8)
    painter = LayerPainter(frame, grid, plan_tiles(grid, None), output, Head(), layers, CPU)
    for z in range(scores.shape[1]):
        painter.paint(z, torch.from_numpy(scores[:, z]).movedim(0, 2), torch.ones(scores.shape[2:], dtype=torch.bool))
    return layers


IDENTITY = np.arange(5, dtype=np.uint8)[None]


@pytest.mark.parametrize("regions", [False, True])
def test_interpolating_only_where_neighbours_disagree_changes_nothing_even_in_ties(
    tmp_path: Path, regions: bool
) -> None:
    cubic = {"patch_size": [8, 8, 8], "spacing": [1.0, 1.0, 1.0]}
    model = read_model(write_model_folder(tmp_path, **cubic))
    # Whole-number scores and a factor of 4 make every sum exact, so that equal scores are really equal.
    scores = np.random.default_rng(0).integers(-2, 3, (4, 6, 10, 9)).astype(np.float32)
    full = np.stack([ndimage.zoom(c.astype(float), 4, order=1, mode="nearest", grid_mode=True) for c in scores])
    full = np.round(full * 512) / 512
    if regions:
        expected = np.zeros(full.shape[1:], dtype=np.uint8)
        for channel, label in enumerate((3, 1, 4, 2)):
            expected[full[channel] > 0] = label
    else:
        expected = full.argmax(0)
    plan = OutputPlan(IDENTITY, (3, 1, 4, 2) if regions else None, {})
    assert np.array_equal(paint(scores, model, plan, (24, 40, 36))[0], expected)


def test_thick_slices_take_the_scores_of_the_nearest_slice(tmp_path: Path) -> None:
    model = read_model(write_model_folder(tmp_path, spacing=[5.0, 1.0, 1.0]))
    scores = np.random.default_rng(1).normal(size=(4, 6, 10, 9)).astype(np.float32)
    layers = paint(scores, model, OutputPlan(IDENTITY, None, {}), (12, 10, 9))
    assert np.array_equal(layers[0], np.repeat(scores.argmax(0), 2, axis=0))


def test_one_label_is_painted_into_every_layer_of_the_table(model: Model, images: list[np.ndarray]) -> None:
    plan = model.output_plan()
    layers = run(model, images)
    (brain_layer, brain), (stem_layer, stem) = plan.placement["Brain"], plan.placement["BrainStem"]
    assert (layers[stem_layer] == stem).any()
    assert (layers[brain_layer][layers[stem_layer] == stem] == brain).all()


def test_features_are_accumulated_where_they_are_fewer_and_give_the_same_scores(tmp_path: Path) -> None:
    model = read_model(write_model_folder(tmp_path, folds=("0", "1"), mirror_axes=(1, 2)))
    patch = np.random.default_rng(0).normal(size=(1, 2, 8, 24, 32)).astype(np.float32)
    in_features, in_scores, chosen = (torch_backend(model, maps=maps) for maps in ("features", "scores", None))
    assert (in_features.channels, in_scores.channels, chosen.channels) == (12, 4, 4)
    for_scores = [backend.features(patch).flatten(0, 3) for backend in (in_features, in_scores)]
    scores = [backend.head.scores(maps) for backend, maps in zip((in_features, in_scores), for_scores, strict=True)]
    assert torch.allclose(*scores, atol=1e-4)
    shares = [
        backend.head.disagreement(maps, one)
        for backend, maps, one in zip((in_features, in_scores), for_scores, scores, strict=True)
    ]
    assert 0 < shares[0].mean() < 1 and torch.equal(*shares)


def test_how_much_folds_disagree_is_measured_for_each_structure_that_was_found(
    tmp_path: Path, images: list[np.ndarray]
) -> None:
    two = read_model(write_model_folder(tmp_path / "two", folds=("0", "1"), labels=SIX_LABELS))
    plan = two.output_plan()
    found = segment(two, images, SPACING, plan, "cpu")
    assert found.disagreement.keys() == found.confidence.keys() and found.confidence
    assert all(0 < share < 1 for share in found.disagreement.values())
    alike = write_model_folder(tmp_path / "alike", folds=("0", "1"), labels=SIX_LABELS)
    shutil.copy(alike / "fold_0" / "checkpoint_final.pth", alike / "fold_1" / "checkpoint_final.pth")
    assert set(segment(read_model(alike), images, SPACING, plan, "cpu").disagreement.values()) == {0.0}


def test_mirroring_is_done_only_along_the_axes_that_the_model_allows(tmp_path: Path) -> None:
    model = read_model(write_model_folder(tmp_path, mirror_axes=(2,)))
    patch = np.random.default_rng(0).normal(size=(1, 2, 8, 24, 32)).astype(np.float32)
    plain, mirrored = (torch_backend(model, mirror=mirror) for mirror in (False, True))
    both = [plain.features(patch), plain.features(patch[..., ::-1].copy()).flip(3)]
    assert torch.allclose(mirrored.features(patch), torch.stack(both).mean(0), atol=1e-5)


# Air


def test_leaving_out_tiles_of_air_changes_no_voxel_of_the_body(model: Model) -> None:
    images = [np.pad(image, ((0, 0), (40, 40), (40, 40)), constant_values=-1000) for image in smooth_head((18, 60, 56))]
    tiles: dict[bool, int] = {}
    layers = {}
    for skip in (False, True):
        seen: list[Progress] = []
        layers[skip] = run(model, images, skip_air=skip, progress=seen.append)
        tiles[skip] = sum(p.message.startswith("tile") for p in seen)
    body = (np.stack(images) > -500).any(axis=0)
    assert tiles[True] < 0.6 * tiles[False]
    assert np.array_equal(layers[True][:, body], layers[False][:, body])


def test_a_couch_that_lies_apart_needs_no_tiles(model: Model) -> None:
    """A 12 mm thick couch below a head leaves the tiles as they are without it; a second head does not."""
    head = smooth_head((18, 60, 56))[0]

    def tiles_for(couch_rows: slice, filling: np.ndarray | int) -> int:
        scan = np.full((18, 160, 120), -1000, dtype=np.int16)
        scan[:, 10:70, 30:86] = head
        scan[:, couch_rows, 30:86] = filling
        seen: list[Progress] = []
        run(model, [scan, scan], progress=seen.append)
        return sum(p.message.startswith("tile") for p in seen)

    alone = tiles_for(slice(0), 0)
    assert tiles_for(slice(130, 142), 0) == alone
    assert tiles_for(slice(98, 158), head) > alone


def test_nothing_is_painted_where_no_tile_was_run(tmp_path: Path) -> None:
    def see_no_background(network: UNet) -> None:
        randomise(network)
        torch.nn.init.constant_(network.head.bias[:1], -9.0)

    model = read_model(write_model_folder(tmp_path, labels=SIX_LABELS, teach=see_no_background))
    corners = np.full((18, 200, 200), -1000, dtype=np.int16)
    corners[:, :40, :40] = corners[:, -40:, -40:] = smooth_head((18, 40, 40))[0]
    layers = run(model, [corners, corners])
    assert layers[:, :, :40, :40].any() and layers[:, :, -40:, -40:].any()
    assert not layers[:, :, :80, -80:].any() and not layers[:, :, -80:, :80].any()


def test_an_image_of_air_gives_no_contours(model: Model) -> None:
    assert not run(model, [np.full((18, 60, 56), -1000, dtype=np.int16)] * 2).any()


# Orientation and number types


def test_a_model_trained_on_ras_arrays_sees_the_patient_turned(tmp_path: Path, images: list[np.ndarray]) -> None:
    lps = read_model(write_model_folder(tmp_path / "lps"))
    ras = read_model(write_model_folder(tmp_path / "ras", plans={"image_reader_writer": "NibabelIOWithReorient"}))
    turned = [image[:, ::-1, ::-1] for image in images]
    assert np.array_equal(run(ras, images, skip_air=False), run(lps, turned, skip_air=False)[:, :, ::-1, ::-1])


def test_labels_do_not_depend_on_the_number_type_of_the_image(model: Model, images: list[np.ndarray]) -> None:
    assert np.array_equal(run(model, [image.astype(np.float64) for image in images]), run(model, images))


# Steps of resampling


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("size", "new_size"), [(37, 52), (52, 37), (9, 9), (5, 40), (64, 7)])
def test_resampling_matrices_are_the_zoom_of_scipy(order: int, size: int, new_size: int) -> None:
    line = np.random.default_rng(size).normal(size=(1, size, 3))
    expected = ndimage.zoom(line[0], (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    assert np.allclose(axis_map(size, new_size, order).apply(line, 1)[0], expected, atol=1e-5)
    if order < 2:
        two = taps(size, new_size, order)
        mean = line[0][two.lower] * (1 - two.weight[:, None]) + line[0][two.upper] * two.weight[:, None]
        assert np.allclose(mean, expected)


@pytest.mark.parametrize(
    ("current", "new", "forced", "axis"),
    [
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None, None),  # 3 is not more than 3
        ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), None, 0),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 5.0), None, 2),
        ((5.0, 5.0, 1.0), (1.0, 1.0, 1.0), None, None),  # two thick axes
        ((2.0, 1.0, 1.0), (1.0, 1.0, 1.0), True, 0),
        ((9.0, 1.0, 1.0), (1.0, 1.0, 1.0), False, None),
    ],
)
def test_thick_slices_are_resampled_apart(
    current: tuple[float, ...], new: tuple[float, ...], forced: bool | None, axis: int | None
) -> None:
    assert separate_axis(Resampling(3, 0, forced), current, new) == axis


# A run can be watched and stopped


def test_progress_rises_from_0_to_1_and_names_the_stages(model: Model, images: list[np.ndarray]) -> None:
    seen: list[Progress] = []
    run(model, images, progress=seen.append)
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert list(dict.fromkeys(p.stage for p in seen)) == [
        "Preparing the images",
        "Memory",
        "Loading the model",
        "Contouring",
    ]


def test_a_run_stops_within_a_second_even_inside_a_slow_tile(tmp_path: Path) -> None:
    block = plain_architecture((24, 24), n_conv_per_stage=[40, 1], kernel_sizes=[[3, 3, 3], [3, 3, 3]])
    slow = read_model(write_model_folder(tmp_path, architecture=block, patch_size=[32, 96, 96]))
    stop = threading.Event()
    started: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.stage == "Contouring" and not started:
            started.append(time.monotonic())
            threading.Timer(0.3, stop.set).start()

    with pytest.raises(Cancelled):
        run(slow, list(smooth_head((32, 80, 80))), progress=watch, cancelled=stop.is_set)
    assert time.monotonic() - started[0] < 1.3


# Refusals


def test_the_number_of_images_must_be_that_of_the_model(model: Model, images: list[np.ndarray]) -> None:
    with pytest.raises(ModelError, match="reads 2 CT"):
        run(model, images[:1])


def test_images_of_different_sizes_are_refused(model: Model, images: list[np.ndarray]) -> None:
    with pytest.raises(InputError, match="one size"):
        run(model, [images[0], images[1][:-1]])


def test_values_that_are_no_numbers_are_refused(model: Model, images: list[np.ndarray]) -> None:
    broken = images[0].astype(np.float32)
    broken[3, 30, 30] = np.nan
    with pytest.raises(InputError, match="NaN"):
        run(model, [broken, images[1]])


@pytest.mark.parametrize("step", [0.0, -0.5, 1.5, float("nan")])
def test_an_impossible_step_is_refused(model: Model, images: list[np.ndarray], step: float) -> None:
    with pytest.raises(UsageError, match="over 0, up to 1"):
        run(model, images, step=step)


def test_another_step_runs_other_tiles_and_is_said(model: Model, images: list[np.ndarray]) -> None:
    wide = segment(model, images, SPACING, model.output_plan(), "cpu", step=1.0)
    assert any("1 of their size apart" in remark for remark in wide.remarks)
    usual = segment(model, images, SPACING, model.output_plan(), "cpu")
    assert not usual.remarks and not np.array_equal(wide.layers, usual.layers)


def test_an_image_of_zeros_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="0 everywhere"):
        run(model, [np.zeros((18, 60, 56), dtype=np.int16)] * 2)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(model: Model, images: list[np.ndarray], device: str) -> None:
    with pytest.raises(ResourceError, match="Choose"):
        segment(model, images, SPACING, model.output_plan(), device)


OUT_OF_MEMORY = """
import resource, sys
import numpy as np, torch
from segrap.engine import segment
from segrap.errors import ResourceError
from segrap.models.folder import read_model

model = read_model(sys.argv[1])
images = [np.full((60, 500, 500), 40, dtype=np.int16)] * 2
segment(model, [image[:8, :40, :40] for image in images], (3, 1, 1), model.output_plan(), "cpu")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50 * 2**20, resource.RLIM_INFINITY))
try:
    segment(model, images, (3, 1, 1), model.output_plan(), "cpu")
except ResourceError as fault:
    print(fault)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are set the Linux way")
def test_running_out_of_memory_is_said_in_words(model: Model) -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(model.folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert "too little free memory" in done.stdout, done.stderr[-2000:]
