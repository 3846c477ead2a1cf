"""What the checks find in constructed faults, and that they stay silent where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from segrap import anatomy
from segrap.contours import Contours, Provenance
from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.image import Image
from segrap.quality import SCAN_LENGTH_DEPENDENT, Expected, check
from segrap.quality.findings import Finding, Kind
from segrap.training.phantom import Phantom, PhantomCase

SHAPE = (40, 60, 60)
GEOMETRY = Geometry((2.0, 2.0, 3.0), (-60.0, -60.0, 0.0))


def ball(z: float, y: float, x: float, radius: float) -> np.ndarray:
    """A ball on the test grid; centre in index, radius in mm."""
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return ((k - z) * 3) ** 2 + ((j - y) * 2) ** 2 + ((i - x) * 2) ** 2 <= radius**2


def contours(geometry: Geometry = GEOMETRY, **masks: np.ndarray) -> Contours:
    return Contours.from_masks(masks, geometry, Provenance("test", "1"))


def findings(kind: Kind, made: Contours, image: Image | None = None) -> list[Finding]:
    return [finding for finding in check(made, image) if finding.kind == kind]


EYES = {"Eye_L": ball(20, 20, 42, 13), "Eye_R": ball(20, 20, 18, 13)}


@pytest.fixture(scope="module")
def patient() -> PhantomCase:
    """A made-up patient with the truth of all 47 structures."""
    return Phantom(3).render(spacing_mm=(2.0, 2.0, 3.0))


@pytest.fixture(scope="module")
def truth(patient: PhantomCase) -> Contours:
    masks = anatomy.masks_from_subclasses(patient.subclasses.array)
    return Contours.from_masks(masks, patient.subclasses.geometry, Provenance("truth", "1"))


def test_the_truth_of_a_whole_patient_gives_only_notes_on_what_leaves_the_scan(
    patient: PhantomCase, truth: Contours
) -> None:
    found = {(finding.structure, finding.kind, finding.severity) for finding in check(truth, patient.non_contrast)}
    assert found == {(name, "edge", "note") for name in SCAN_LENGTH_DEPENDENT}


def test_a_mirrored_patient_is_found_at_every_pair_of_structures(truth: Contours) -> None:
    placement = {name: (facts.layer, facts.value) for name, facts in truth.structures.items()}
    mirrored = Contours.from_layers(truth.layers[..., ::-1], truth.geometry, placement, truth.provenance)
    assert {finding.structure for finding in findings("side", mirrored)} == {
        structure.name for structure in anatomy.STRUCTURES if structure.laterality == "left"
    }


def test_contours_of_another_scan_are_found_because_organs_lie_in_air(patient: PhantomCase, truth: Contours) -> None:
    moved = Image(np.roll(patient.non_contrast.array, 60, axis=1), patient.non_contrast.geometry)
    assert "BrainStem" not in {finding.structure for finding in findings("air", truth, patient.non_contrast)}
    assert len(findings("air", truth, moved)) > 5


def test_faultless_contours_give_no_finding() -> None:
    lens = ball(20, 17, 42, 4)
    assert check(contours(**EYES, Lens_L=lens)) == ()


def test_a_structure_without_voxels_is_reported_as_missing() -> None:
    (finding,) = check(contours(**EYES, Pituitary=np.zeros(SHAPE, bool)))
    assert (finding.structure, finding.kind, finding.severity) == ("Pituitary", "empty", "fault")
    assert finding.where is None


def test_a_patient_without_nodes_is_a_question_and_not_a_fault() -> None:
    (finding,) = check(contours(GTVnd=np.zeros(SHAPE, bool)))
    assert (finding.kind, finding.severity) == ("empty", "unusual")


def test_a_volume_outside_the_published_range_is_reported_with_both_numbers() -> None:
    (finding,) = check(contours(Eye_L=ball(20, 20, 42, 18)))
    assert finding.kind == "volume"
    assert "23.8 cc, more than" in finding.message and "6.6 to 13.2 cc" in finding.message


def test_an_unusual_volume_that_depends_on_the_scan_length_is_only_a_note() -> None:
    (finding,) = check(contours(Trachea=ball(20, 30, 30, 12)))
    assert (finding.kind, finding.severity) == ("volume", "note")
    assert "how far down the scan reaches" in finding.message


def test_a_structure_cut_by_the_uppermost_slice_is_reported_at_that_slice() -> None:
    (finding,) = findings("edge", contours(Eye_L=ball(38, 20, 42, 13)))
    assert finding.severity == "unusual"
    assert "uppermost slice" in finding.message
    assert finding.where is not None and finding.where[0] == 39


def test_the_cord_may_leave_the_scan_at_its_lower_end() -> None:
    cord = np.zeros(SHAPE, bool)
    cord[0:30, 28:32, 28:32] = True
    (finding,) = findings("edge", contours(SpinalCord=cord))
    assert finding.severity == "note"
    assert "as expected" in finding.message


def test_left_and_right_exchanged_is_a_fault() -> None:
    (finding,) = findings("side", contours(Eye_L=EYES["Eye_R"], Eye_R=EYES["Eye_L"]))
    assert (finding.structure, finding.other, finding.severity) == ("Eye_L", "Eye_R", "fault")
    assert "48 mm" in finding.message


@pytest.mark.parametrize("exchanged", [False, True])
def test_sides_are_judged_in_the_patient_and_not_in_the_array(exchanged: bool) -> None:
    # x grows to the patient's right, and the grid is turned by 20 degrees about the head-feet axis.
    turn = np.deg2rad(20)
    direction = np.array([[-np.cos(turn), np.sin(turn), 0], [-np.sin(turn), -np.cos(turn), 0], [0, 0, 1]])
    oblique = Geometry((2.0, 2.0, 3.0), (60.0, 60.0, 0.0), direction)
    left, right = (EYES["Eye_L"], EYES["Eye_R"]) if exchanged else (EYES["Eye_R"], EYES["Eye_L"])
    assert bool(findings("side", contours(oblique, Eye_L=left, Eye_R=right))) is exchanged


def test_a_stray_piece_is_reported_with_its_size_and_place() -> None:
    eye = EYES["Eye_L"] | ball(20, 50, 10, 5)
    (finding,) = check(contours(Eye_L=eye))
    assert finding.kind == "pieces"
    assert "In 2 pieces" in finding.message and "0.56 cc (47 voxels)" in finding.message
    assert finding.where == (20, 50, 10)


def test_a_speck_is_only_a_note() -> None:
    eye = EYES["Eye_L"].copy()
    eye[20, 50, 10:12] = True
    (finding,) = check(contours(Eye_L=eye))
    assert (finding.kind, finding.severity) == ("pieces", "note")


def test_several_nodes_are_not_a_fault() -> None:
    assert check(contours(GTVnd=ball(20, 20, 42, 10) | ball(20, 40, 12, 8))) == ()


def test_specks_among_the_nodes_want_a_look() -> None:
    nodes = ball(20, 20, 42, 10) | ball(20, 40, 12, 8)
    nodes[5, 50, 10:12] = nodes[35, 10, 10:13] = True
    (finding,) = check(contours(GTVnd=nodes))
    assert (finding.kind, finding.severity) == ("pieces", "unusual")
    assert "2 of its 4 pieces are smaller than 0.05 cc" in finding.message
    assert finding.where == (35, 10, 11)


def test_empty_slices_inside_a_structure_are_reported_as_a_gap_and_not_as_pieces() -> None:
    eye = ball(20, 20, 42, 14)
    eye[20:22] = False
    (finding,) = check(contours(Eye_L=eye))
    assert finding.kind == "gap"
    assert "2 empty slices (6.0 mm)" in finding.message
    assert finding.where is not None and finding.where[0] == 19


def test_a_gap_is_found_along_the_patient_whatever_the_array_axis() -> None:
    eye = np.swapaxes(ball(20, 20, 42, 14), 0, 1).copy()  # array axes now: y, z, x of the patient
    eye[:, 20:22] = False
    turned = Geometry((2.0, 3.0, 2.0), (-60.0, 0.0, -60.0), np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]))
    made = Contours.from_masks({"Eye_L": eye}, turned, Provenance("test", "1"))
    assert [(finding.kind, finding.message[:23]) for finding in check(made)] == [("gap", "2 empty slices (6.0 mm)")]


def test_an_overlap_that_the_definitions_forbid_is_a_fault_with_its_voxels() -> None:
    left = EYES["Eye_L"]
    gland = ball(20, 28, 42, 13) & ~left
    gland[20, 20, 40:43] = True
    (finding,) = findings("overlap", contours(Eye_L=left, Parotid_L=gland))
    assert (finding.structure, finding.other, finding.severity) == ("Eye_L", "Parotid_L", "fault")
    assert "Shares 3 voxels" in finding.message
    assert finding.where == (20, 20, 41)


def test_a_target_may_overlap_an_organ() -> None:
    assert not findings("overlap", contours(Eye_L=EYES["Eye_L"], GTVp=ball(20, 24, 40, 20)))


def test_a_broken_containment_is_a_fault_with_the_voxels_outside() -> None:
    lens = ball(20, 20, 42, 4)
    lens[20, 5, 42] = True
    (finding,) = findings("containment", contours(Eye_L=EYES["Eye_L"], Lens_L=lens))
    assert (finding.structure, finding.other) == ("Lens_L", "Eye_L")
    assert finding.message.startswith("1 voxel ")
    assert finding.where == (20, 5, 42)


def test_a_solid_organ_in_air_is_a_fault_and_an_airway_is_not() -> None:
    air = Image(np.full(SHAPE, -1000, np.int16), GEOMETRY)
    found = findings("air", contours(Eye_L=EYES["Eye_L"], Trachea=ball(20, 30, 20, 12)), air)
    assert [finding.structure for finding in found] == ["Eye_L"]
    assert "100 % of it lies in air" in found[0].message


def test_an_image_on_another_grid_is_refused() -> None:
    other = Image(np.zeros(SHAPE, np.int16), Geometry((2.0, 2.0, 2.5)))
    with pytest.raises(InputError, match="not on the same grid"):
        check(contours(**EYES), other)


def test_faults_come_before_what_is_unusual_and_notes_last() -> None:
    cord = np.zeros(SHAPE, bool)
    cord[0:30, 28:32, 28:32] = True
    made = contours(
        SpinalCord=cord, Eye_L=ball(38, 20, 18, 13), Eye_R=ball(20, 20, 42, 13), Chiasm=np.zeros(SHAPE, bool)
    )
    order = [finding.severity for finding in check(made)]
    assert order == sorted(order, key=["fault", "unusual", "note"].index)
    assert set(order) == {"fault", "unusual", "note"}


def test_a_contour_that_the_model_was_unsure_of_is_to_be_looked_at() -> None:
    sure = {"Eye_L": 0.9, "Eye_R": 0.42}
    made = Contours.from_masks(EYES, GEOMETRY, Provenance("test", "1"), confidence=sure)
    (finding,) = findings("confidence", made)
    assert (finding.structure, finding.severity) == ("Eye_R", "unusual")
    assert "0.42" in finding.message
    assert not findings("confidence", contours(**EYES))  # not measured is not low


def test_a_sites_own_volumes_take_the_place_of_the_published_ones() -> None:
    made = contours(Eye_L=EYES["Eye_L"])  # 9.2 cc
    assert check(made, expected={"Eye_L": Expected((8.0, 10.0)), "Eye_R": Expected((1.0, 2.0))}) == ()
    (finding,) = check(made, expected={"Eye_L": Expected((10.0, 12.0))})
    assert (finding.kind, finding.severity) == ("volume", "unusual")
    assert "less than is usual among the patients whose volumes were given (10 to 12 cc)" in finding.message


@pytest.mark.parametrize(("hu", "words"), [(69, ""), (71, "71 HU is more"), (-1, ""), (-31, "-31 HU is less")])
def test_a_density_that_the_site_does_not_know_of_a_structure_is_to_be_looked_at(hu: int, words: str) -> None:
    image = Image(np.where(EYES["Eye_L"], hu, 40).astype(np.int16), GEOMETRY)
    expected = {"Eye_L": Expected((8.0, 10.0), (8.5, 60.0))}
    found = check(contours(**EYES), image, expected=expected)
    assert [(one.structure, one.kind, one.severity) for one in found] == [("Eye_L", "density", "unusual")] * bool(words)
    assert all(f"median density of {words} than is usual" in one.message for one in found)
    assert all("(8 to 60 HU)" in one.message for one in found)
    assert check(contours(**EYES), expected=expected) == ()  # without a CT nothing is known of densities
