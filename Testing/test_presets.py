"""A site's own presets of structures: kept, handed on, and refused when they are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segrap import anatomy
from segrap.errors import InputError, UsageError
from segrap.presets import delete_preset, import_presets, presets_file, read_presets, save_preset, write_presets


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "data" / "models"))


def test_a_preset_is_kept_beside_the_models_until_it_is_deleted(tmp_path: Path) -> None:
    assert read_presets() == {}
    save_preset(" Glands ", ["Parotid_L", "Parotid_R"])
    assert presets_file().parent == tmp_path / "data"
    assert read_presets() == {"Glands": ("Parotid_L", "Parotid_R")}
    assert delete_preset("Glands") == read_presets() == {}


def test_presets_of_a_colleague_join_ones_own(tmp_path: Path) -> None:
    save_preset("Ours", ["Eye_L"])
    save_preset("Both", ["Eye_L"])
    write_presets({"Theirs": ("GTVp",), "Both": ("Lens_R",)}, tmp_path / "shared.json")
    assert import_presets(tmp_path / "shared.json") == {"Ours": ("Eye_L",), "Both": ("Lens_R",), "Theirs": ("GTVp",)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "cannot be read"),
        ("[1]", "holds no presets"),
        (json.dumps({"presets": {"A": "Eye_L"}}), "not a list"),
        (json.dumps({"presets": {"A": ["Spleen"]}}), "Spleen"),
    ],
)
def test_a_file_that_holds_no_presets_is_refused_and_changes_nothing(tmp_path: Path, text: str, words: str) -> None:
    save_preset("Ours", ["Eye_L"])
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=words):
        import_presets(tmp_path / "bad.json")
    assert read_presets() == {"Ours": ("Eye_L",)}


def test_a_preset_needs_a_name() -> None:
    with pytest.raises(UsageError, match="needs a name"):
        save_preset("  ", ["Eye_L"])


def test_every_structure_stands_in_one_anatomical_group() -> None:
    listed = [structure.name for structures in anatomy.GROUPS.values() for structure in structures]
    assert sorted(listed) == sorted(anatomy.NAMES)
    assert [one.name for one in anatomy.GROUPS["Tumour"]] == ["GTVp", "GTVnd"]
