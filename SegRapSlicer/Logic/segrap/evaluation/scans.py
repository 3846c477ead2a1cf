"""The CTs that contours were drawn on, found by case and read: for pictures, for statistics, and for DICOM contours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segrap.ct.dicom_series import read_series_folder
from segrap.errors import InputError
from segrap.geometry import Geometry, same_grid
from segrap.image import IMAGE_ENDINGS, Image, read_image

if TYPE_CHECKING:
    from segrap.evaluation.cases import Case

# What a scan is called in the folder of its case (SegRap's downloads), and after the case's name (nnU-Net's imagesTr).
_IN_A_FOLDER = ("image", "ct")
_AFTER_THE_CASE = ("", "_0000")
_CHANNEL = re.compile(r"(.+)_000[01]")


def find_scans(place: str | Path, cases: Mapping[str, Case]) -> dict[str, Path]:
    """The CT of every case, by its name: a file, or a DICOM folder.

    place: for one case, its CT. Else a folder that holds CASE.nii.gz (or .nii, .nrrd, .mha, .mhd), CASE_0000.nii.gz,
    CASE/image.nii.gz, or a DICOM folder CASE. A case's own file is never its CT.

    Raises InputError when a case has none.
    """
    place = Path(place)
    if not place.exists():
        raise InputError(f"{place} does not exist.")
    found = {name: _scan_of(place, case) for name, case in cases.items()}
    if len(cases) == 1 and None in found.values():
        (case,) = cases.values()
        alone = place if place.is_file() else _inside(place)
        found[case.name] = None if alone.is_file() and alone.samefile(case.path) else alone
    without = [name for name, scan in found.items() if scan is None]
    if without:
        some = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
        raise InputError(
            f"{place} has no CT for {some}. A case's CT is called CASE.nii.gz (or .nrrd, .mha), CASE_0000.nii.gz or "
            "CASE/image.nii.gz, or lies as DICOM in the folder CASE; --ct names the folder of the CTs."
        )
    return {name: scan for name, scan in found.items() if scan is not None}


def _scan_of(place: Path, case: Case) -> Path | None:
    files = (place / f"{case.name}{mark}{ending}" for mark in _AFTER_THE_CASE for ending in IMAGE_ENDINGS)
    file = next((file for file in files if file.is_file() and not file.samefile(case.path)), None)
    return file or (_inside(place / case.name) if (place / case.name).is_dir() else None)


def scanned_case(name: str) -> str | None:
    """The case whose scan an image of this name is, by nnU-Net's way of naming its channels; None: it names none."""
    channel = _CHANNEL.fullmatch(name)
    return channel and channel[1]


def is_scan(path: Path) -> bool:
    """True for a volume that holds air, in its first slice: a CT. Labels and masks hold nothing below 0.

    Raises InputError when it cannot be read.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = list(reader.GetSize())
        reader.SetExtractSize([*size[:2], *([1] * (len(size) - 2))])
        return bool(np.min(SimpleITK.GetArrayFromImage(reader.Execute())) < 0)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as an image; the file may be damaged or cut short.") from error


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
