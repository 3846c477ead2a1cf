"""Several models for one patient: who contours what, what is told of it, and combinations with a name of their own."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_segrap
from nnunet_folders import write_model_folder

from segrap.background import BackgroundContouring, Outcome, Scan
from segrap.composition import choose_models, compose
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contouring import contour
from segrap.ct.pair import CTPair, load_pair
from segrap.errors import ModelError, UsageError
from segrap.models.cards import list_cards
from segrap.models.combinations import combine
from segrap.models.folder import read_model
from segrap.models.library import install, list_models, remove

COARSE = {"spacing": [5.0, 5.0, 5.0]}


@pytest.fixture(scope="module")
def pair(coarse_patient: Path) -> CTPair:
    return load_pair(coarse_patient / "image.nii.gz", coarse_patient / "image_contrast.nii.gz")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models: one of a CT pair, for brainstem and cord; one of one CT, for cord, parotid and chiasm."""
    folder = tmp_path_factory.mktemp("two")
    first = {"name": "First", "version": "1.0", "licence": "CC0-1.0", "intended_use": "clinical"}
    second = {"name": "Second", "version": "2.0", "licence": "CC BY 4.0", "intended_use": "research"}
    three = {"background": 0, "SpinalCord": 1, "Parotid_L": 2, "Chiasm": 3}
    return (
        write_model_folder(folder / "First", facts=first, **COARSE),
        write_model_folder(
            folder / "Second",
            facts=second,
            labels=three,
            channels=("CT",),
            normalization_schemes=["CTNormalization"],
            use_mask_for_norm=[False],
            **COARSE,
        ),
    )


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: tuple[Path, Path]) -> Path:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    for model in models:
        install(model)
    return tmp_path / "library"


def test_each_structure_is_that_of_the_first_model_that_contours_it(pair: CTPair, models: tuple[Path, Path]) -> None:
    first, second = (read_model(folder) for folder in models)
    both = compose(pair, (first, second), device="cpu")
    assert both.names == ("BrainStem", "Chiasm", "Parotid_L", "SpinalCord")
    alone = {"First": contour(pair, first), "Second": contour(pair, second)}
    for name, maker in (("BrainStem", "First"), ("SpinalCord", "First"), ("Parotid_L", "Second"), ("Chiasm", "Second")):
        assert (
            both.maker(name) == both.structures[name].model == f"{maker} {first.version if maker == 'First' else '2.0'}"
        )
        assert alone[maker].structures[name].voxels > 0
        # Also where the two models' structures overlap that never should, as those of untrained ones do.
        assert np.array_equal(both.mask(name), alone[maker].mask(name))


def test_the_order_of_the_models_decides(pair: CTPair, models: tuple[Path, Path]) -> None:
    turned = compose(pair, [read_model(folder) for folder in reversed(models)], ["SpinalCord", "BrainStem"])
    assert {name: turned.maker(name) for name in turned.names} == {"BrainStem": "First 1.0", "SpinalCord": "Second 2.0"}


def test_provenance_names_all_models_and_the_most_careful_use(pair: CTPair, models: tuple[Path, Path]) -> None:
    stated = compose(pair, [read_model(folder) for folder in models]).provenance
    assert (stated.model_name, stated.model_version) == ("First 1.0 + Second 2.0", "")
    assert (stated.licence, stated.intended_use) == ("First: CC0-1.0; Second: CC BY 4.0", "research")
    assert stated.model_hash.startswith("sha256:") and len(stated.model_hash) == 71


def test_one_model_is_left_alone_when_it_contours_all_that_is_wanted(pair: CTPair, models: tuple[Path, Path]) -> None:
    wanted = compose(pair, [read_model(folder) for folder in models], ["BrainStem"])
    assert (wanted.provenance.model_name, wanted.structures["BrainStem"].model) == ("First", "")
    assert wanted.maker("BrainStem") == "First 1.0"


def test_a_structure_that_no_model_contours_is_refused(pair: CTPair, models: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="None of the models contours Eye_L"):
        compose(pair, [read_model(folder) for folder in models], ["Eye_L", "Chiasm"])


def test_the_command_takes_several_models_and_every_file_tells_which_made_what(
    coarse_patient: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    scans = (coarse_patient / "image.nii.gz", coarse_patient / "image_contrast.nii.gz")
    done = run_segrap(
        "contour", *scans, "--output", tmp_path / "o", "--model", models[0], "--model", models[1], "--json"
    )
    assert done.returncode == 0, done.stderr
    makers = {"BrainStem": "First 1.0", "Chiasm": "Second 2.0", "Parotid_L": "Second 2.0", "SpinalCord": "First 1.0"}
    assert json.loads(done.stdout)["models"] == makers
    with (tmp_path / "o" / "structures.csv").open(newline="") as table:
        assert {row["name"]: row["model"] for row in csv.DictReader(table)} == makers
    again = read_seg_nrrd(tmp_path / "o" / "contours.seg.nrrd")
    assert {name: again.maker(name) for name in again.names} == makers
    report = (tmp_path / "o" / "report.html").read_text()
    assert "<th>Model</th>" in report and "<td>Second 2.0</td>" in report


def test_a_combination_is_chosen_listed_and_shown_like_a_model(pair: CTPair, library: Path) -> None:
    done = run_segrap("models", "combine", "Neck", "Second", "First", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["Second"], shown["First"]) == (["Chiasm", "Parotid_L", "SpinalCord"], ["BrainStem"])
    (entry,) = [entry for entry in list_models() if entry.name == "Neck"]
    assert (entry.intended_use, entry.licence) == ("research", "Second: CC BY 4.0; First: CC0-1.0")
    (card,) = [card for card in list_cards() if card.entry.name == "Neck"]
    assert card.structures == ("BrainStem", "Chiasm", "Parotid_L", "SpinalCord")
    assert card.wants_pair and not card.fault
    assert [model.name for model in choose_models(pair, ["neck"])] == ["Second", "First"]


def test_the_background_process_runs_a_combination_by_its_folder(pair: CTPair, library: Path) -> None:
    folder = combine("Neck", ["First", "Second"])
    assert pair.contrast
    process = BackgroundContouring()
    try:
        process.start(Scan(pair.non_contrast, "a", "1.2"), Scan(pair.contrast, "b", "1.3"), model=folder)
        events = []
        while not events or not isinstance(events[-1], (Outcome, Exception)):
            events += process.poll()
    finally:
        process.close()
    assert isinstance(events[-1], Outcome), events[-1]
    assert events[-1].contours.maker("Chiasm") == "Second 2.0"
    assert events[-1].contours.provenance.input_series_uids == ("1.2", "1.3")


def test_what_makes_no_combination_is_refused(library: Path) -> None:
    for models, reason in ((["First"], "two or more"), (["First", "SegRapPhantom"], "none of them for demonstration")):
        with pytest.raises(ModelError, match=reason):
            combine("Neck", models)
    with pytest.raises(UsageError, match="no model or model folder Third"):
        combine("Neck", ["First", "Third"])
    with pytest.raises(ModelError, match="already"):
        combine("first", ["First", "Second"])
    assert sorted(path.name for path in library.iterdir()) == ["First", "Second"]


def test_a_combination_whose_model_is_gone_says_so_and_can_be_removed(pair: CTPair, library: Path) -> None:
    combine("Neck", ["First", "Second"])
    remove("Second")
    with pytest.raises(ModelError, match=r"Neck is gone: .*Second"):
        choose_models(pair, ["Neck"])
    (card,) = [card for card in list_cards() if card.entry.name == "Neck"]
    assert "is gone" in card.fault
    remove("Neck")
    assert [path.name for path in library.iterdir()] == ["First"]


def test_without_a_name_the_model_is_taken_that_contours_what_is_wanted(pair: CTPair, library: Path) -> None:
    """Second contours most; a clinic asks for what only First has, or only Second."""
    assert pair.contrast
    scans = [replace(scan, array=np.minimum(scan.array, 1800)) for scan in (pair.non_contrast, pair.contrast)]
    real = replace(pair, non_contrast=scans[0], contrast=scans[1])  # without the rod that marks a made-up patient
    assert [model.name for model in choose_models(real)] == ["Second"]
    assert [model.name for model in choose_models(real, structures=["BrainStem"])] == ["First"]
    assert [model.name for model in choose_models(real, structures=["Chiasm", "Parotid_L"])] == ["Second"]


def test_a_demonstration_model_stands_alone(pair: CTPair, models: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="cannot be used together"):
        choose_models(pair, [str(models[0]), "SegRapPhantom"])
