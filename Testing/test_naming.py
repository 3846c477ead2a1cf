"""What structures are called in files that leave: each name fits and is its structure's alone, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import run_segrap
from rtstruct_cases import SHAPE, contours_of, small_series

from segrap import anatomy
from segrap.errors import InputError
from segrap.naming import names_of, read_names
from segrap.rtstruct.write import write_rtstruct


def template(tmp_path: Path, entries: object) -> Path:
    path = tmp_path / "names.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["tg263", "segrap"])
def test_every_structure_has_a_name_of_its_own_that_fits(scheme: str) -> None:
    names = names_of(anatomy.NAMES, scheme)  # type: ignore[arg-type]
    assert tuple(names) == anatomy.NAMES
    assert len({name.casefold()[:16] for name in names.values()}) == len(names)
    assert max(map(len, names.values())) <= (16 if scheme == "tg263" else 64)


def test_a_site_renames_some_and_the_rest_keep_their_tg_263_names(tmp_path: Path) -> None:
    names = names_of(anatomy.NAMES, read_names(template(tmp_path, {"Parotid_L": "Parotis li", "GTVp": "GTV70"})))
    assert (names["Parotid_L"], names["GTVp"], names["BrainStem"]) == ("Parotis li", "GTV70", "Brainstem")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"Parotid_L": "x" * 65}, "65 characters"),
        ({"Parotid_L": " "}, "at least one letter"),
        ({"Parotid_L": "左腮腺"}, "plain ASCII"),
        ({"Parotid_L": "a\\b"}, "backslash"),
        ({"Parotid_L": "a\nb"}, "plain ASCII"),
        ({"Parotid_L": "Parotis "}, "spaces at its ends"),
        ({"Parotid_L": "Gland", "Parotid_R": "GLAND"}, "both called"),
        ({"Parotid_L": "parotid_r", "Parotid_R": "other"}, "the name of Parotid_R"),
        (
            {"Submandibular_L": "Submandibularis links", "Submandibular_R": "Submandibularis rechts"},
            "Submandibular_L and Submandibular_R cannot be called .* after 16 characters",
        ),
        ({"Parotid_L": "Glandula parotis left", "Parotid_R": "GLANDULA PAROTIS"}, "after 16 characters"),
        ({"Parotis": "Parotid_L"}, "no SegRap structure: Parotis"),
        ({"Parotid_L": 3}, "one object of names"),
        (["Parotid_L"], "one object of names"),
        ("{", "is not JSON"),
    ],
)
def test_what_cannot_be_a_name_is_refused_with_the_reason(tmp_path: Path, entries: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        names_of(anatomy.NAMES, read_names(template(tmp_path, entries)))


def test_names_that_are_one_after_16_characters_are_refused_for_one_of_them_alone() -> None:
    names = {"Submandibular_L": "Submandibularis links", "Submandibular_R": "Submandibularis rechts"}
    for structure in names:  # each in a file of its own would be "Submandibularis" in the planning system
        with pytest.raises(InputError, match="after 16 characters"):
            names_of([structure], names)
    assert names_of(["Parotid_L"], names) == {"Parotid_L": "Parotid_L"}


def test_missing_template_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_names(tmp_path / "names.json")


def test_terminal_writes_a_sites_names_and_refuses_a_faulty_template(tmp_path: Path) -> None:
    from segrap.contour_files.seg_nrrd import write_seg_nrrd
    from segrap.contours import Contours
    from segrap.training.phantom import Phantom
    from segrap.training.phantom.files import truth, write_dicom_pair

    case = Phantom(3).render(spacing_mm=(8.0, 8.0, 8.0))
    ct, _ = write_dicom_pair(case, tmp_path, 3)
    true = truth(case, 3)
    masks = {name: true.mask(name) for name in ("BrainStem", "Parotid_L")}
    write_seg_nrrd(Contours.from_masks(masks, true.geometry, true.provenance), tmp_path / "contours.seg.nrrd")
    names = template(tmp_path, {"Parotid_L": "Parotis li"})
    output = tmp_path / "RTSTRUCT.dcm"
    arguments = ("rtstruct", "write", tmp_path / "contours.seg.nrrd", ct, "--output", output, "--names", names)
    done = run_segrap(*arguments)
    assert done.returncode == 0, done.stderr
    rois = pydicom.dcmread(output).StructureSetROISequence
    assert {str(roi.ROIName) for roi in rois} == {"Brainstem", "Parotis li"}
    output.unlink()
    template(tmp_path, {"Parotid_L": "x" * 65})
    refused = run_segrap(*arguments)
    assert refused.returncode == 3 and "65 characters" in refused.stderr
    assert not output.exists()


def test_exchanged_sides_are_told_under_a_sites_names_too(tmp_path: Path) -> None:
    series = small_series(tmp_path / "ct")
    masks = {name: np.zeros(SHAPE, dtype=bool) for name in ("Eye_L", "Eye_R")}
    masks["Eye_L"][4:8, 10:20, 5:15] = True  # in a patient who lies head first, columns run from right to left
    masks["Eye_R"][4:8, 10:20, 35:45] = True
    names = {"Eye_L": "Auge li", "Eye_R": "Auge re"}
    report = write_rtstruct(contours_of(masks, series), series, tmp_path / "RTSTRUCT.dcm", names=names)
    assert [warning for warning in report.warnings if "left and right are exchanged" in warning]
