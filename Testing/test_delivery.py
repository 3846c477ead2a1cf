"""Delivering reviewed contours: every format holds what went in, under a free name, or nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rtstruct_cases import SHAPE, contours_of, difficult_masks
from small_disk import full_disk

from segrap.contour_files.formats import read_challenge_mha
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries
from segrap.delivery import Kind, deliver
from segrap.errors import Cancelled, InputError, OutputError, UsageError
from segrap.progress import Progress

KINDS: tuple[Kind, ...] = ("rtstruct", "dicom-seg", "seg.nrrd", "challenge")


@pytest.fixture(scope="module")
def contours(series: CTSeries) -> Contours:
    return contours_of(difficult_masks() | {"Eye_L": np.zeros(SHAPE, dtype=bool)}, series)


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_structures_are_delivered_beside_what_is_there(
    kind: Kind, contours: Contours, series: CTSeries, tmp_path: Path
) -> None:
    first = deliver(contours, tmp_path, kind, series=series)
    second = deliver(contours, tmp_path, kind, series=series, structures=["GTVp", "Eye_L"])
    assert first.path != second.path and first.path.exists() and second.path.exists()
    assert set(first.written) | set(first.empty) == set(contours.names)
    assert "GTVp" in second.written and "Brain" not in second.written
    assert kind in ("seg.nrrd", "challenge") or second.empty == ("Eye_L",)
    assert sorted(tmp_path.iterdir()) == sorted([first.path, second.path])


def test_challenge_files_and_segmentation_hold_the_masks(contours: Contours, tmp_path: Path) -> None:
    stacks = read_challenge_mha(deliver(contours, tmp_path, "challenge").path)
    segmentation = read_seg_nrrd(deliver(contours, tmp_path, "seg.nrrd").path)
    for name in contours.names:
        assert np.array_equal(stacks.mask(name), contours.mask(name)), name
        assert np.array_equal(segmentation.mask(name), contours.mask(name)), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_behind_by_what_cannot_be_delivered(
    kind: Kind, contours: Contours, series: CTSeries, tmp_path: Path
) -> None:
    def cancel(progress: Progress) -> None:
        if progress.fraction >= 0.5:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        deliver(contours, tmp_path, kind, series=series, progress=cancel)
    with pytest.raises(UsageError, match="do not cover Parotid_R"):
        deliver(contours, tmp_path, kind, series=series, structures=["Parotid_R"])
    with pytest.raises(InputError, match="No structure is chosen"):
        deliver(contours, tmp_path, kind, series=series, structures=[])
    assert list(tmp_path.iterdir()) == []
    with full_disk(tmp_path / "full") as disk:
        with pytest.raises(OutputError, match="disk is full"):
            deliver(contours, disk, kind, series=series)
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("kind", ["rtstruct", "dicom-seg"])
def test_dicom_without_a_ct_is_refused(kind: Kind, contours: Contours, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Load the CT from DICOM"):
        deliver(contours, tmp_path, kind)
