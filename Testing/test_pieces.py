"""Small pieces apart from a structure are removed where the model asks for it, and what is removed is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunet_folders import write_model_folder

from segrap.errors import ModelError
from segrap.models.folder import read_model
from segrap.pieces import remove_stray_pieces


def test_small_pieces_go_large_ones_and_other_structures_stay() -> None:
    layers = np.zeros((2, 20, 20, 20), dtype=np.uint8)
    layers[0, 2:8, 2:8, 2:8] = 1  # 216 voxels
    layers[0, 12:14, 12:14, 12:14] = 1  # 8: a stray piece
    layers[0, 12:16, 2:6, 2:6] = 1  # 64: more than a fifth
    layers[0, 12:14, 12:14, 16:18] = 2  # of another structure: its largest piece
    layers[1, 12:14, 12:14, 12:14] = 1
    before = layers.copy()
    removed = remove_stray_pieces(
        layers, {"BrainStem": (0, 1), "Larynx": (0, 2), "Eye_L": (1, 1), "Lens_L": (1, 2)}, (3.0, 1.0, 1.0)
    )
    assert removed == {"BrainStem": pytest.approx(8 * 0.003)}
    expected = before.copy()
    expected[0, 12:14, 12:14, 12:14] = 0
    assert np.array_equal(layers, expected)


def test_nodes_and_air_cells_stay_however_small() -> None:
    layers = np.zeros((1, 20, 20, 20), dtype=np.uint8)
    placement = {name: (0, number + 1) for number, name in enumerate(("GTVnd", "GTVp", "Mastoid_L", "Brain"))}
    for number, (_, value) in enumerate(placement.values()):
        layers[0, :5, 5 * number : 5 * number + 4, :5] = value
        layers[0, 10, 5 * number, 10] = value
    expected = layers.copy()
    expected[0, 10, 15, 10] = 0
    assert list(remove_stray_pieces(layers, placement, (3.0, 1.0, 1.0))) == ["Brain"]
    assert np.array_equal(layers, expected)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    layers = np.zeros((1, 6, 6, 6), dtype=np.uint8)
    layers[0, :3, :3, :3], layers[0, 3, 3, 3] = 1, 1
    assert remove_stray_pieces(layers, {"Larynx": (0, 1)}, (1.0, 1.0, 1.0)) == {}


def test_a_model_asks_for_it_or_not(tmp_path: Path) -> None:
    channels = ["non_contrast", "contrast"]
    assert read_model(write_model_folder(tmp_path / "a", facts={"one_piece": True, "channels": channels})).one_piece
    assert not read_model(write_model_folder(tmp_path / "b")).one_piece
    with pytest.raises(ModelError, match="one_piece"):
        read_model(write_model_folder(tmp_path / "c", facts={"one_piece": "perhaps", "channels": channels}))
