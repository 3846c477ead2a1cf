"""What cannot be scored: one sentence that says what to do, exit status 3, nothing written; tables and report alike."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from evaluation_cases import (
    GEOMETRY,
    PREDICTION,
    REFERENCE,
    SHAPE,
    as_masks,
    as_segmentation,
    as_stacks,
    drawn,
    folder_of_cases,
)

from segrap.cli import main
from segrap.image import Image, write_image


class Code:
    """A pickle of it makes a file as soon as a careless reader loads it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.canary), "w")


def on_another_grid(place: Path) -> Path:
    return as_segmentation(drawn(PREDICTION, replace(GEOMETRY, origin_mm=(0.0, 0.0, 0.0))), place)


def of_other_cases(place: Path) -> Path:
    return folder_of_cases(place, "xy")


def with_a_label_outside_the_table(place: Path) -> Path:
    volume = np.zeros(SHAPE, dtype=np.int16)
    volume[REFERENCE["Larynx"]] = 57
    place.mkdir()
    write_image(Image(volume, GEOMETRY), place / "a.nii.gz")
    return place


def with_44_channels(place: Path) -> Path:
    as_stacks(drawn(PREDICTION), place / "a")
    stack = place / "a" / "oars.mha"
    stack.write_bytes(stack.read_bytes().replace(b"DimSize = 24 20 8 45", b"DimSize = 24 20 8 44"))
    return place


def with_a_stack_cut_short(place: Path) -> Path:
    as_stacks(drawn(PREDICTION), place / "a")
    stack = place / "a" / "oars.mha"
    stack.write_bytes(stack.read_bytes()[:-40])
    return place


def with_a_corrupt_nifti(place: Path) -> Path:
    mask = as_masks(drawn(PREDICTION), place / "a") / "Larynx.nii.gz"
    mask.write_bytes(mask.read_bytes()[:60])
    return place


def with_a_pickle_for_a_mask(place: Path) -> Path:
    mask = as_masks(drawn(PREDICTION), place / "a") / "Larynx.nii.gz"
    mask.write_bytes(pickle.dumps(Code(place.parent / "canary")))
    return place


def with_pickles_alone(place: Path) -> Path:
    place.mkdir()
    (place / "a.pkl").write_bytes(pickle.dumps(Code(place.parent / "canary")))
    return place


BAD = {
    on_another_grid: "different grids",
    of_other_cases: "No case has both: the predictions are called x, y, the references a, b",
    with_a_label_outside_the_table: "a.nii.gz holds values from 0 to 57",
    with_44_channels: "44 channels",
    with_a_stack_cut_short: "Case a: oars.mha",
    with_a_corrupt_nifti: "Case a: Larynx.nii.gz cannot be read as an image; the file may be damaged",
    with_a_pickle_for_a_mask: "Case a: Larynx.nii.gz cannot be read as an image; the file may be damaged",
    with_pickles_alone: "holds no contours",
}


@pytest.mark.parametrize("options", [(), ("--commission",)], ids=["tables", "report"])
@pytest.mark.parametrize(("bad", "words"), BAD.items(), ids=[make.__name__ for make in BAD])
def test_bad_input_ends_with_status_3_and_leaves_older_results_alone(tmp_path: Path, bad, words, options):
    prediction = bad(tmp_path / "prediction")
    if bad is on_another_grid:
        reference = as_masks(drawn(REFERENCE), tmp_path / "reference")
    else:
        reference = folder_of_cases(tmp_path / "reference", "ab")
    output = tmp_path / "out"
    output.mkdir()
    (output / "scores.csv").write_text("of yesterday", encoding="utf-8")
    done = CliRunner().invoke(main, ["evaluate", str(prediction), str(reference), "--output", str(output), *options])
    assert (done.exit_code, done.stdout) == (3, "")
    assert words in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in output.iterdir()] == ["scores.csv"]
    assert (output / "scores.csv").read_text(encoding="utf-8") == "of yesterday"
    assert not (tmp_path / "canary").exists()


def test_tables_never_go_where_the_predictions_are(tmp_path: Path):
    """Methods are called as the last part of their path, so an --output above them would have them as its folders."""
    folders = [folder_of_cases(tmp_path / name, "ab") for name in ("ours", "theirs", "reference")]
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    done = CliRunner().invoke(main, ["evaluate", *map(str, folders), "--output", str(tmp_path)])
    assert done.exit_code == 2 and "where contours are" in done.stderr
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_structure_of_one_slice_on_an_oblique_anisotropic_grid_is_scored_and_drawn(tmp_path: Path):
    tilted = replace(
        GEOMETRY, spacing_mm=(0.5, 1.0, 4.0), direction=np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
    )
    sides = [
        as_masks(drawn({"Chiasm": boxes["Chiasm"]}, tilted), tmp_path / name)
        for name, boxes in (("p", {"Chiasm": REFERENCE["Chiasm"]}), ("r", REFERENCE))
    ]
    done = CliRunner().invoke(main, ["evaluate", *map(str, sides), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    line = (tmp_path / "out" / "scores.csv").read_text("utf-8").splitlines()[1]
    assert line.startswith("r,Chiasm,scored,1,0.0300,0.0300,1.0000,1.0000,0.0000")
