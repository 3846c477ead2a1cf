"""The CTs that contours to be scored were drawn on, found by case and read; only pictures need them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segrap.ct.dicom_series import read_series_folder
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid
from segrap.image import IMAGE_ENDINGS, Image, read_image

# What a scan is called in the folder of its case (SegRap's downloads), and after the case's name (nnU-Net's imagesTr).
_IN_A_FOLDER = ("image", "ct")
_AFTER_THE_CASE = ("", "_0000")


def find_scans(place: str | Path, cases: Iterable[str]) -> dict[str, Path]:
    """The CT of every case, by its name: a file, or a DICOM folder.

    place: for one case, its CT. Else a folder that holds CASE.nii.gz (or .nii, .nrrd, .mha, .mhd), CASE_0000.nii.gz,
    CASE/image.nii.gz, or a DICOM folder CASE.

    Raises InputError when a case has none.
    """
    place, names = Path(place), list(cases)
    if not place.exists():
        raise InputError(f"{place} does not exist.")
    found = {case: _scan_of(place, case) for case in names}
    if len(names) == 1 and found[names[0]] is None:
        found[names[0]] = place if place.is_file() else _inside(place)
    without = [case for case, scan in found.items() if scan is None]
    if without:
        some = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
        raise InputError(
            f"{place} has no CT for {some}. A case's CT is called CASE.nii.gz (or .nrrd, .mha), CASE_0000.nii.gz or "
            "CASE/image.nii.gz, or lies as DICOM in the folder CASE."
        )
    return {case: scan for case, scan in found.items() if scan is not None}


def _scan_of(place: Path, case: str) -> Path | None:
    files = (place / f"{case}{mark}{ending}" for mark in _AFTER_THE_CASE for ending in IMAGE_ENDINGS)
    file = next((file for file in files if file.is_file()), None)
    return file or (_inside(place / case) if (place / case).is_dir() else None)


def _inside(folder: Path) -> Path:
    files = (folder / f"{name}{ending}" for name in _IN_A_FOLDER for ending in IMAGE_ENDINGS)
    return next((file for file in files if file.is_file()), folder)


def read_scan(path: Path, geometry: Geometry, shape: tuple[int, int, int], uids: Iterable[str] = ()) -> Image:
    """Read a CT; of the series in a DICOM folder the first on this grid (shape z, y, x), else the first.

    uids: of the series on which contours were drawn; of several on the grid the first of these is taken.
    Raises InputError when it cannot be read.
    """
    if path.is_file():
        return read_image(path)
    series = read_series_folder(path)
    fitting = [one for one in series if same_grid(one.geometry, one.shape, geometry, shape)]
    named = [one for uid in uids for one in fitting if one.series_uid == uid]
    return (named or fitting or series)[0].image()
