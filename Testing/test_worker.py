"""The background process, with real children: same contours as in this process, cancelled at once, nothing left."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from nnunet_folders import write_model_folder

from segrap.background import BackgroundContouring, Event, Outcome, Scan
from segrap.contouring import contour
from segrap.ct.pair import CTPair, load_pair, pair_images
from segrap.errors import Cancelled, InputError, OutputError, ResourceError, SegRapError, UsageError
from segrap.models.folder import read_model
from segrap.progress import Progress
from segrap.quality import check

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests kill with POSIX signals")


@pytest.fixture(scope="module")
def pair(coarse_patient: Path) -> CTPair:
    return load_pair(coarse_patient / "image.nii.gz", coarse_patient / "image_contrast.nii.gz")


@pytest.fixture(scope="module")
def scans(pair: CTPair) -> tuple[Scan, Scan]:
    assert pair.contrast
    return Scan(pair.non_contrast, "plain", "1.2.3"), Scan(pair.contrast, "contrast", "1.2.4")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes minutes: it works on voxels of 0.7 mm."""
    return write_model_folder(tmp_path_factory.mktemp("slow") / "Slow", spacing=[0.7, 0.7, 0.7])


@pytest.fixture(scope="module")
def warm() -> Iterator[BackgroundContouring]:
    process = BackgroundContouring()
    yield process
    process.close()


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """What PythonSlicer is in an installed Slicer: a program (CTKAppLauncher) of which the interpreter is a child."""
    path = tmp_path / "PythonSlicer"
    path.write_text(f"""#!/bin/sh
echo "something that is no reply"
{sys.executable} "$@"
status=$?
[ $status -lt 128 ] && exit $status
echo "error: [python-real] exit abnormally - Report the problem." >&2
exit 1
""")
    path.chmod(0o755)
    return path


def events_until(process: BackgroundContouring, stop: Callable[[Event], bool], seconds: float = 120) -> list[Event]:
    events: list[Event] = []
    give_up = time.monotonic() + seconds
    while not any(map(stop, events)):
        assert time.monotonic() < give_up, f"{events[-3:]}\n{process.log}"
        events += process.poll()
        time.sleep(0.02)
    return events


def ends(event: Event) -> bool:
    return not isinstance(event, Progress)


def contouring_began(event: Event) -> bool:
    return isinstance(event, Progress) and event.stage == "Contouring"


def workers() -> set[int]:
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "segrap.worker" in child.cmdline()}


def job_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("segrap-job-*"))


def finished(process: BackgroundContouring) -> Outcome:
    outcome = events_until(process, ends)[-1]
    assert isinstance(outcome, Outcome), outcome
    return outcome


def failed(process: BackgroundContouring) -> SegRapError:
    error = events_until(process, ends)[-1]
    assert isinstance(error, SegRapError), error
    return error


def test_contours_findings_and_facts_equal_those_made_in_this_process(
    warm: BackgroundContouring, pair: CTPair, scans: tuple[Scan, Scan], small_model: Path
) -> None:
    warm.start(*scans, model=small_model)
    events = events_until(warm, ends)
    outcome = events[-1]
    assert isinstance(outcome, Outcome), outcome

    here = contour(pair, read_model(small_model))
    assert np.array_equal(outcome.contours.layers, here.layers)
    assert outcome.contours.structures == here.structures
    assert outcome.findings == check(here, pair.non_contrast)
    stated = outcome.contours.provenance
    assert stated.input_series_uids == ("1.2.3", "1.2.4")
    assert replace(stated, input_series_uids=(), created="", remarks=()) == replace(
        here.provenance, created="", remarks=()
    )
    fractions = [event.fraction for event in events[:-1] if isinstance(event, Progress)]
    assert fractions[0] == 0.0 and fractions[-1] == 1.0


def test_process_stays_for_the_next_job(
    warm: BackgroundContouring, scans: tuple[Scan, Scan], small_model: Path
) -> None:
    warm.start(*scans, model=small_model, structures=["BrainStem"])
    before = workers()
    assert list(finished(warm).contours.structures) == ["BrainStem"]
    warm.start(*scans, model=small_model, structures=["SpinalCord"])
    assert list(finished(warm).contours.structures) == ["SpinalCord"]
    assert workers() == before and len(before) == 1
    assert not warm.running


def test_second_job_at_once_is_refused_and_the_first_goes_on(
    warm: BackgroundContouring, scans: tuple[Scan, Scan], small_model: Path
) -> None:
    warm.start(*scans, model=small_model)
    with pytest.raises(UsageError, match="running already"):
        warm.start(*scans, model=small_model)
    assert finished(warm).contours.names == ("BrainStem", "SpinalCord")


def test_model_that_is_not_there_is_named(warm: BackgroundContouring, scans: tuple[Scan, Scan]) -> None:
    warm.start(*scans, model="NoSuchModel")
    error = failed(warm)
    assert isinstance(error, UsageError) and "NoSuchModel" in str(error)


def test_same_scan_twice_is_refused_by_the_names_the_caller_gave(
    warm: BackgroundContouring, scans: tuple[Scan, Scan], small_model: Path
) -> None:
    warm.start(scans[0], replace(scans[0], name="copy"), model=small_model)
    error = failed(warm)
    assert isinstance(error, InputError) and "plain and copy are the same scan" in str(error)


def test_swapped_pair_is_refused(warm: BackgroundContouring, scans: tuple[Scan, Scan], small_model: Path) -> None:
    warm.start(scans[1], scans[0], model=small_model)
    assert "swapped" in str(failed(warm))


def test_cancel_in_the_middle_takes_less_than_a_second_and_keeps_the_process(
    warm: BackgroundContouring, scans: tuple[Scan, Scan], slow_model: Path, small_model: Path
) -> None:
    warm.start(*scans, model=slow_model)
    events_until(warm, contouring_began)
    before = workers()
    started = time.monotonic()
    warm.cancel()
    assert isinstance(failed(warm), Cancelled)
    assert time.monotonic() - started < 1.0
    assert not warm.running
    warm.start(*scans, model=small_model)
    finished(warm)
    assert workers() == before


def test_cancel_ends_the_whole_tree_of_a_process_that_does_not_listen_within_a_second(
    scans: tuple[Scan, Scan], slow_model: Path, launcher: Path
) -> None:
    others = workers()
    process = BackgroundContouring(launcher)
    process.start(*scans, model=slow_model)
    events_until(process, contouring_began)
    interpreter = max(workers() - others, key=lambda pid: len(psutil.Process(pid).parents()))
    assert len(workers() - others) == 2
    os.kill(interpreter, signal.SIGSTOP)
    started = time.monotonic()
    process.cancel()
    assert isinstance(failed(process), Cancelled)
    assert time.monotonic() - started < 1.0
    assert workers() == others


def test_killed_process_is_told_from_a_cancelled_one_and_the_next_job_runs(
    scans: tuple[Scan, Scan], slow_model: Path, small_model: Path, launcher: Path
) -> None:
    others = workers()
    process = BackgroundContouring(launcher)
    process.start(*scans, model=slow_model)
    events_until(process, contouring_began)
    os.kill(max(workers() - others, key=lambda pid: len(psutil.Process(pid).parents())), signal.SIGKILL)
    error = failed(process)
    assert isinstance(error, ResourceError) and "memory ran out" in str(error)
    process.start(*scans, model=small_model)
    finished(process)
    process.close()
    assert workers() == others


def test_process_that_cannot_start_says_why(scans: tuple[Scan, Scan], tmp_path: Path) -> None:
    process = BackgroundContouring(python=tmp_path / "no-python")
    with pytest.raises(ResourceError, match="no-python"):
        process.start(*scans)
    assert not process.running
    (tmp_path / "numpy.py").write_text("raise ImportError('this numpy is broken')")
    broken = BackgroundContouring(environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
    broken.start(*scans)
    said = str(failed(broken))
    assert "this numpy is broken" in said
    assert "Press Auto-contour again" in said and "memory may have run out" in said and "open Log" in said


def test_full_disk_is_an_output_error(
    scans: tuple[Scan, Scan], small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = BackgroundContouring()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        process.start(*scans, model=small_model)
        error = failed(process)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(error, OutputError) and "cannot be written" in str(error)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(OutputError, match="/nowhere"):
        process.start(*scans, model=small_model)
    assert not process.running
    process.close()


def test_worker_and_voxels_go_when_the_caller_is_killed(pair: CTPair, slow_model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ct.npy", pair.non_contrast.array)
    one_channel = write_model_folder(
        tmp_path / "One",
        channels=("CT",),
        spacing=[0.7, 0.7, 0.7],
        normalization_schemes=["ZScoreNormalization"],
        use_mask_for_norm=[False],
    )
    script = f"""
import json, sys, time
import numpy as np
from segrap.background import BackgroundContouring, Scan
from segrap.geometry import Geometry
from segrap.image import Image
process = BackgroundContouring()
process.start(Scan(Image(np.load({str(tmp_path / "ct.npy")!r}), Geometry((5, 5, 5))), "ct"), model={str(one_channel)!r})
while True:
    for event in process.poll():
        print(event, flush=True)
        assert type(event).__name__ == "Progress", event
    time.sleep(0.02)
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert caller.stdout
    for line in caller.stdout:
        if "'Contouring'" in line:
            break
    else:
        raise AssertionError("the job ended before its time")
    (worker,) = (child for child in psutil.Process(caller.pid).children() if "segrap.worker" in child.cmdline())
    caller.kill()
    caller.wait()
    worker.wait(timeout=5)
    assert not list(tmp_path.glob("segrap-job-*"))


def test_voxels_go_when_the_worker_finds_nobody_to_tell_how_far_it_is(
    pair: CTPair, slow_model: Path, tmp_path: Path
) -> None:
    """A killed caller may be noticed by what is said to it before what it says ends."""
    job = tmp_path / "segrap-job-of-the-caller"
    job.mkdir()
    request: dict[str, Any] = {"request": "contour", "job": 1, "folder": str(job), "models": [str(slow_model)]}
    request |= {"structures": None, "device": "cpu", "allow_demo_model": False, "quick": False}
    for role, scan in (("non_contrast", pair.non_contrast), ("contrast", pair.contrast)):
        assert scan
        np.save(job / f"{role}.npy", scan.array)
        place = {"spacing_mm": scan.geometry.spacing_mm, "origin_mm": scan.geometry.origin_mm}
        direction = scan.geometry.direction.tolist()
        request[role] = {"name": role, "file": f"{role}.npy", **place, "direction": direction}
    command = [sys.executable, "-m", "segrap.worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as worker:
        assert worker.stdin and worker.stdout and worker.stderr
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
        while '"Contouring"' not in worker.stdout.readline():
            assert worker.poll() is None
        worker.stdout.close()
        worker.stderr.close()  # and stdin stays open
        worker.wait(timeout=30)
    assert not job.exists()


def test_job_leaves_no_voxels_behind(
    warm: BackgroundContouring,
    scans: tuple[Scan, Scan],
    small_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    warm.start(*scans, model=small_model)
    assert job_folders()
    finished(warm)
    give_up = time.monotonic() + 5
    while job_folders():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_images_in_memory_are_checked_like_files(pair: CTPair) -> None:
    with pytest.raises(InputError, match="windowed is not a CT"):
        pair_images(replace(pair.non_contrast, array=np.full((8, 8, 8), 40, np.int16)), names=("windowed", ""))


def test_protocol_answers_a_second_request_with_a_refusal(pair: CTPair, slow_model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ct.npy", pair.non_contrast.array)
    geometry = pair.non_contrast.geometry
    volume = {"name": "ct", "file": "ct.npy", "spacing_mm": geometry.spacing_mm, "origin_mm": geometry.origin_mm}
    request = {
        "request": "contour",
        "folder": str(tmp_path),
        "non_contrast": volume | {"direction": geometry.direction.tolist()},
        "contrast": None,
        "models": [str(slow_model)],
        "structures": None,
        "device": "cpu",
        "allow_demo_model": False,
    }
    lines = [json.dumps(request | {"job": 1}), json.dumps(request | {"job": 2}), json.dumps({"request": "quit"})]
    done = subprocess.run(
        [sys.executable, "-m", "segrap.worker"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    refused = [reply for reply in replies if reply["reply"] == "error"]
    assert [(reply["job"], reply["kind"]) for reply in refused] == [(2, "UsageError")]
    assert replies[0] == {"reply": "ready"}
