"""A model that draws both sides as one: whole patients, a side that is not there, a jaw cut in two, a turned head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_folders import write_model_folder
from synthetic_ct import head_like

from segrap import anatomy
from segrap.contouring import contour
from segrap.contours import Contours, Provenance
from segrap.ct.pair import CTPair
from segrap.image import Image, read_image
from segrap.midline import split_sides
from segrap.models.folder import read_model
from segrap.models.network import UNet
from segrap.training.openkbp import OPENKBP_LABELS, split_mandible
from segrap.training.phantom import Phantom, PhantomCase
from segrap.training.phantom.files import truth
from segrap.training.scores import dice

PAIRS = tuple((one.name, f"{one.name[:-2]}_R") for one in anatomy.STRUCTURES if one.laterality == "left")
SUBMANDIBULAR = (("Submandibular_L", "Submandibular_R"),)
SPACING = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def patient() -> PhantomCase:
    return Phantom(3).render(spacing_mm=SPACING)


@pytest.fixture(scope="module")
def true(patient: PhantomCase) -> Contours:
    return truth(patient, 3)


class Merged:
    """The layers of a patient in which left and right have become one, as a model with such labels paints them."""

    def __init__(
        self,
        true: Contours,
        pairs: tuple[tuple[str, str], ...],
        keep: tuple[str, ...] = (),
        spacing: tuple[float, ...] = SPACING,
    ) -> None:
        self.spacing = spacing
        self.placement = {name: (facts.layer, facts.value) for name, facts in true.structures.items()}
        self.layers = true.layers.copy()
        for left, right in pairs:
            (layer, value), (of_right, number) = self.placement[left], self.placement[right]
            inside = self.layers[of_right] == number
            self.layers[of_right][inside] = 0
            self.layers[layer][inside] = value
        self.pairs = pairs
        if keep:
            self.placement = {name: place for name, place in self.placement.items() if name in keep}

    def remove(self, mask: np.ndarray, name: str) -> None:
        layer, value = self.placement[name]
        self.layers[layer][mask & (self.layers[layer] == value)] = 0

    def mask(self, name: str) -> np.ndarray:
        layer, value = self.placement[name]
        return self.layers[layer] == value

    def split(self, hu: np.ndarray | None = None) -> tuple[str, ...]:
        return split_sides(self.layers, self.placement, self.pairs, self.spacing, hu)


def test_all_pairs_of_a_whole_patient_come_out_as_they_were(true: Contours) -> None:
    merged = Merged(true, PAIRS)
    assert merged.split() == ()
    for name in true.names:
        if name.startswith("Mandible"):
            assert dice(merged.mask(name), true.mask(name)) > 0.97, name  # cut in the middle
        else:
            assert np.array_equal(merged.mask(name), true.mask(name)), name


@pytest.mark.parametrize("gone", ["Submandibular_L", "Submandibular_R"])
@pytest.mark.parametrize("shown_by", ["structures", "bones"])
def test_a_gland_without_its_twin_stays_whole_and_it_is_said(
    patient: PhantomCase, true: Contours, gone: str, shown_by: str
) -> None:
    """As after a neck dissection: half a gland called the other side would be spared in its place."""
    kept = "Submandibular_R" if gone == "Submandibular_L" else "Submandibular_L"
    merged = Merged(true, SUBMANDIBULAR, keep=SUBMANDIBULAR[0] if shown_by == "bones" else ())
    merged.remove(true.mask(gone), "Submandibular_L")
    (remark,) = merged.split(patient.non_contrast.array if shown_by == "bones" else None)
    assert np.array_equal(merged.mask(kept), true.mask(kept))
    assert not merged.mask(gone).any()
    side = "right" if gone.endswith("_L") else "left"
    assert f"lies on the patient's {side}, so {gone} is empty" in remark


def test_a_gland_alone_in_a_volume_that_shows_nothing_else_goes_by_the_scan_and_asks_for_a_check(
    true: Contours,
) -> None:
    merged = Merged(true, SUBMANDIBULAR, keep=SUBMANDIBULAR[0])
    merged.remove(true.mask("Submandibular_L"), "Submandibular_L")
    (remark,) = merged.split()
    assert np.array_equal(merged.mask("Submandibular_R"), true.mask("Submandibular_R"))
    assert "that of the scan was taken. Check the side." in remark


def test_every_pair_may_lack_a_side_at_once(patient: PhantomCase, true: Contours) -> None:
    """A scan of the right half of a head: what lies in the middle and the bones are all that is left to go by."""
    merged = Merged(true, PAIRS)
    for left, right in PAIRS:
        if not left.startswith("Mandible"):
            merged.remove(~true.mask(right), left)
    remarks = merged.split(patient.non_contrast.array)
    assert len(remarks) == len(PAIRS) - 1
    for left, right in PAIRS:
        if not left.startswith("Mandible"):
            assert np.array_equal(merged.mask(right), true.mask(right)) and not merged.mask(left).any()


def test_glands_that_grow_together_are_cut_in_the_middle(true: Contours) -> None:
    merged = Merged(true, SUBMANDIBULAR)
    layer, value = merged.placement["Submandibular_L"]
    places = [np.argwhere(true.mask(name)).mean(axis=0).round().astype(int) for name in SUBMANDIBULAR[0]]
    (z, y, left), right = places[0], places[1][2]
    merged.layers[layer][z, y : y + 2, right:left] = value
    assert merged.split() == ()
    for name in SUBMANDIBULAR[0]:
        assert dice(merged.mask(name), true.mask(name)) > 0.95


@pytest.mark.parametrize("turn", [(0, 0, 20), (0, 0, -20), (12, 15, 10)])
def test_a_turned_head_keeps_its_sides(turn: tuple[float, float, float]) -> None:
    spacing = (4.0, 4.0, 4.0)
    phantom = Phantom(5)
    phantom._rotation = _rotation(turn)
    case = phantom.render(spacing_mm=spacing)
    true = truth(case, 5)
    whole, alone = Merged(true, PAIRS, spacing=spacing), Merged(true, PAIRS, spacing=spacing)
    alone.remove(true.mask("OpticNerve_R"), "OpticNerve_L")
    whole.split(case.non_contrast.array)
    alone.split(case.non_contrast.array)
    for name in (name for pair in PAIRS for name in pair):
        assert dice(whole.mask(name), true.mask(name)) > (0.9 if name.startswith("Mandible") else 0.999), name
    assert np.array_equal(alone.mask("OpticNerve_L"), true.mask("OpticNerve_L"))
    assert not alone.mask("OpticNerve_R").any()


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


def test_a_jaw_of_which_one_side_is_gone_is_not_cut(true: Contours) -> None:
    merged = Merged(true, (("Mandible_L", "Mandible_R"),))
    merged.remove(true.mask("Mandible_L"), "Mandible_L")
    (remark,) = merged.split()
    assert np.array_equal(merged.mask("Mandible_R"), true.mask("Mandible_R"))
    assert "so Mandible_L is empty" in remark


def openkbp(patient: str, shared_data: Path) -> tuple[Image, Contours]:
    """A real planning CT and what the clinic drew on it; the one mandible of these data as left and right."""
    folder = shared_data / "openkbp" / "train" / patient
    ct = read_image(folder / "ct.nii.gz")
    labels = split_mandible(read_image(folder / "labels.nii.gz").array)
    names = {**OPENKBP_LABELS, 7: "Mandible_R", 8: "Mandible_L"}
    masks = {name: labels == value for value, name in names.items() if (labels == value).any()}
    return ct, Contours.from_masks(masks, ct.geometry, Provenance("drawn", "1"))


@pytest.mark.parametrize(
    ("patient", "least", "most"),
    [
        ("pt_47", 2.5, 5.0),  # of the left half only the chin is left
        ("pt_167", 0.8, 1.2),  # the halves that its own shape suggests are turned by 20 degrees, and unlike
    ],
)
def test_real_jaws_are_cut_in_the_patients_middle(patient: str, least: float, most: float, shared_data: Path) -> None:
    ct, drawn = openkbp(patient, shared_data)
    merged = Merged(drawn, (("Mandible_L", "Mandible_R"),), spacing=ct.geometry.spacing_mm[::-1])
    merged.split(ct.array)
    left, right = (np.count_nonzero(merged.mask(f"Mandible_{side}")) for side in "LR")
    assert least < right / left < most


def test_a_gland_on_one_side_comes_whole_out_of_a_contouring(tmp_path: Path) -> None:
    """The whole road: a network that finds what is bright, a CT with one bright gland, bones that show the middle."""
    ct = head_like((16, 48, 48), (4.0, 4.0, 4.0))
    x, y, z = (ct.geometry.to_lps(np.argwhere(np.ones(ct.shape, bool))[:, ::-1])).T
    gland = (np.hypot(np.hypot(x + 34, y - 5), z + 10) < 13).reshape(ct.shape)
    bright = Image(np.where(gland, 3000, ct.array).astype(np.int16), ct.geometry)

    def find_bright(network: UNet) -> None:
        torch.manual_seed(0)
        patch = torch.from_numpy(bright.array / 1000).float()[None, None]
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(70):
            loss = torch.nn.functional.cross_entropy(network(patch), torch.from_numpy(gland).long()[None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    hu = {"mean": 0.0, "std": 1000.0, "percentile_00_5": -1024.0, "percentile_99_5": 3071.0}
    folder = write_model_folder(
        tmp_path / "m",
        labels={"background": 0, "gland": 1},
        channels=("CT",),
        facts={"split_at_midline": {"gland": list(SUBMANDIBULAR[0])}, "intended_use": "research"},
        teach=find_bright,
        plans={"foreground_intensity_properties_per_channel": {"0": hu}},
        normalization_schemes=["CTNormalization"],
        use_mask_for_norm=[False],
        spacing=[4.0, 4.0, 4.0],
        patch_size=list(ct.shape),
    )
    found = contour(CTPair(bright, None, None, None, 0.0, ()), read_model(folder))
    assert found.is_empty("Submandibular_L")
    assert dice(found.mask("Submandibular_R"), gland) > 0.7
    assert any("lies on the patient's right, so Submandibular_L is empty" in one for one in found.provenance.remarks)
