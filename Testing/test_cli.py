"""The `segrap` command as its users meet it: exit status, one-line errors, nothing half-written, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import run_segrap
from nnunet_folders import plain_architecture, write_model_folder

PAIR = ("image.nii.gz", "image_contrast.nii.gz")


def contour(patient: Path, output: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return run_segrap("contour", *(patient / name for name in PAIR), "--output", output, *options)


def assert_refused(done: subprocess.CompletedProcess[str], status: int, words: str, output: Path) -> None:
    """The exit status, a last line on stderr that says what is wrong, no traceback, and nothing written."""
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not output.exists()


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom segrap.cli import main\nmain(['--help'], standalone_mode=False)\n"
        "print([n for n in ('torch', 'numpy', 'SimpleITK', 'pydicom', 'scipy', 'PIL', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "contour" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_contour_writes_segmentation_table_and_report(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    done = contour(coarse_patient, tmp_path / "out", "--model", small_model)
    assert done.returncode == 0, done.stderr
    names = {"contours.seg.nrrd", "structures.csv", "report.html"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert {Path(line).name for line in done.stdout.splitlines()} == names
    assert "research model Tiny 0.1" in done.stderr and "not reviewed" in done.stderr


def test_json_gives_one_object_with_volumes_and_provenance(
    coarse_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    chosen = ("--structures", "BrainStem", "--step", "0.75", "--json")
    done = contour(coarse_patient, tmp_path / "out", "--model", small_model, *chosen)
    result = json.loads(done.stdout)
    assert list(result["structures"]) == ["BrainStem"]
    assert result["provenance"]["model_name"] == "Tiny"
    assert any("0.75 of their size apart" in remark for remark in result["provenance"]["remarks"])
    assert all(Path(path).is_file() for path in result["files"])


def test_contours_lie_in_the_right_place_whatever_the_axis_order(
    coarse_patient: Path, small_model: Path, tmp_path: Path
) -> None:
    """The same patient saved with its axes turned and flipped gives the same contours in the same places."""
    import numpy as np

    from segrap.contour_files.seg_nrrd import read_seg_nrrd
    from segrap.geometry import Geometry
    from segrap.image import AxisOrder, read_image, write_image

    turned = tmp_path / "turned"
    turned.mkdir()
    order = AxisOrder((1, 2, 0), (0, 2))
    for name in PAIR:
        write_image(order.turn(read_image(coarse_patient / name)), turned / name)
    assert contour(coarse_patient, tmp_path / "a", "--model", small_model).returncode == 0
    assert contour(turned, tmp_path / "b", "--model", small_model).returncode == 0
    straight, other = (read_seg_nrrd(tmp_path / folder / "contours.seg.nrrd") for folder in "ab")
    assert not np.allclose(other.geometry.direction, Geometry((1, 1, 1)).direction)
    assert straight.structures["BrainStem"].voxels > 0
    assert np.array_equal(order.apply(straight.mask("BrainStem")), other.mask("BrainStem"))


def test_challenge_and_nifti_formats(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    formats = ("--format", "nifti", "--format", "segrap")
    done = contour(coarse_patient, tmp_path / "out", "--model", small_model, *formats)
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"nifti/BrainStem.nii.gz", "nifti/SpinalCord.nii.gz"} <= files
    assert any(name.endswith(".mha") for name in files)
    assert "contours.seg.nrrd" not in files


def test_missing_file(small_model: Path, tmp_path: Path) -> None:
    done = run_segrap("contour", tmp_path / "no.nii.gz", "--model", small_model, "--output", tmp_path / "out")
    assert_refused(done, 3, "does not exist", tmp_path / "out")


def test_empty_folder(small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_segrap("contour", tmp_path / "empty", "--model", small_model, "--output", tmp_path / "out")
    assert_refused(done, 3, "empty", tmp_path / "out")


def test_one_ct_for_a_model_of_two(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    scan = coarse_patient / PAIR[0]
    done = run_segrap("contour", scan, "--model", small_model, "--output", tmp_path / "out")
    assert_refused(done, 3, "contrast", tmp_path / "out")


def test_unknown_structure_is_named(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    done = contour(coarse_patient, tmp_path / "out", "--model", small_model, "--structures", "BrainStem,Spleen")
    assert_refused(done, 2, "Spleen", tmp_path / "out")


def test_structure_that_the_model_does_not_contour(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    done = contour(coarse_patient, tmp_path / "out", "--model", small_model, "--structures", "Eye_L")
    assert_refused(done, 2, "Eye_L", tmp_path / "out")


def test_unknown_model_lists_those_at_hand(coarse_patient: Path, tmp_path: Path) -> None:
    done = contour(coarse_patient, tmp_path / "out", "--model", "NoSuchModel")
    assert_refused(done, 2, "SegRapPhantom", tmp_path / "out")


def test_wrong_option_is_a_wrong_command_line(tmp_path: Path) -> None:
    assert run_segrap("contour", tmp_path, "--outptu", tmp_path / "out").returncode == 2


def test_incomplete_model_folder(coarse_patient: Path, tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "model")
    (model / "plans.json").unlink()
    done = contour(coarse_patient, tmp_path / "out", "--model", model)
    assert_refused(done, 4, "plans.json", tmp_path / "out")


def test_absent_gpu(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    pair = (coarse_patient / name for name in PAIR)
    options = ("--model", small_model, "--output", tmp_path / "out", "--device", "cuda")
    assert_refused(run_segrap("contour", *pair, *options, env=environment), 5, "cuda", tmp_path / "out")


def test_full_disk_leaves_nothing(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    """No file may grow beyond 4 kB, as on a full disk: the job ends with words, and without a partial file."""
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from segrap.cli import main\nmain(sys.argv[1:])"
    )
    pair = [str(coarse_patient / name) for name in PAIR]
    arguments = ["contour", *pair, "--model", str(small_model), "--output", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_older_result_survives_a_failed_run(coarse_patient: Path, small_model: Path, tmp_path: Path) -> None:
    assert contour(coarse_patient, tmp_path / "out", "--model", small_model).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert contour(coarse_patient, tmp_path / "out", "--model", tmp_path, "--overwrite").returncode == 4
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_ctrl_c_leaves_no_file_and_no_process(coarse_patient: Path, tmp_path: Path) -> None:
    """With a network so large that the job takes long, Ctrl-C ends it within a few seconds with status 130."""
    large = plain_architecture((32, 64))
    model = write_model_folder(tmp_path / "model", spacing=[2.0, 1.0, 1.0], architecture=large)
    pair = [str(coarse_patient / name) for name in PAIR]
    command = [sys.executable, "-m", "segrap", "contour", *pair, "--model", str(model), "--output", str(tmp_path / "o")]
    # A shell that started the tests in the background may have told its children to ignore Ctrl-C.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as job:
        assert job.stderr is not None
        while "Contouring" not in job.stderr.readline():
            assert job.poll() is None
        children = psutil.Process(job.pid).children(recursive=True)
        job.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        assert job.wait(timeout=30) == 130
        assert time.monotonic() - pressed < 10
        assert "Cancelled" in job.stderr.read()
    assert not (tmp_path / "o").exists()
    assert not [child for child in children if child.is_running()]


def test_models_can_be_installed_listed_shown_and_removed(small_model: Path, tmp_path: Path) -> None:
    environment = os.environ | {"SEGRAP_MODELS": str(tmp_path / "models")}
    assert run_segrap("models", "install", small_model, env=environment).returncode == 0
    listed = json.loads(run_segrap("models", "list", "--json", env=environment).stdout)["models"]
    assert {"SegRapPhantom", "Tiny"} <= {model["name"] for model in listed}
    shown = run_segrap("models", "show", "tiny", env=environment).stdout
    assert "2 organs at risk" in shown and "research" in shown
    assert run_segrap("models", "remove", "Tiny", env=environment).returncode == 0
    assert run_segrap("models", "show", "Tiny", env=environment).returncode == 2
    assert run_segrap("models", "remove", "SegRapPhantom", env=environment).returncode == 2
