"""`make bench` can compare the engine with nnunetv2, add to what it measured, and say what is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
PEER_PYTHON = Path(os.environ.get("SEGRAP_PEERS_PYTHON", HERE.parent / ".venv-peers" / "bin" / "python"))


def compare(folder: Path, *names: str, peers: Path = PEER_PYTHON) -> dict[str, list[str]]:
    """Run the comparison on the smallest made-up patient; the rows by their titles, without what ran the network."""
    results = folder / "RESULTS.md"
    program = [sys.executable, HERE / "benchmarks" / "inference.py", "--case", "tiny", "--repeats", "1"]
    program += ["--work", folder / "work", "--results", results, "--only", *names]
    done = subprocess.run(
        program, env=os.environ | {"SEGRAP_PEERS_PYTHON": str(peers)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = [re.split(r"\s*\|\s*", line.strip("| ")) for line in results.read_text().splitlines() if line[:1] == "|"]
    return {row[0].split(" (")[0]: row for row in table}


def test_a_missing_peer_is_named_and_a_later_call_adds_what_it_measures(tmp_path: Path) -> None:
    rows = compare(tmp_path, "segrap", "nnunetv2", peers=tmp_path / "nowhere")
    assert "not installed" in rows["nnunetv2, defaults"][1]
    assert float(rows["segrap"][1].split()[0]) > 0
    assert re.search(r"Measuring confidence took \d", (tmp_path / "RESULTS.md").read_text())
    if not PEER_PYTHON.is_file():
        pytest.skip(f"nnunetv2 is not installed: run {sys.executable} Testing/make_peers.py")
    rows = compare(tmp_path, "segrap", "nnunetv2")
    ours, theirs = rows["segrap"], rows["nnunetv2, defaults"]
    assert (ours[-1], theirs[-1]) == ("2", "1")
    as_nnunetv2, as_exact = (float(ours[column].split()[0]) for column in (6, 7))
    assert as_nnunetv2 >= 99.98
    assert as_exact >= float(theirs[7].split()[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_comparison_on_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    program = [sys.executable, HERE / "benchmarks" / "inference.py", "--case", "tiny", "--device", "cuda"]
    program += ["--work", tmp_path / "work", "--results", tmp_path / "RESULTS.md"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())
