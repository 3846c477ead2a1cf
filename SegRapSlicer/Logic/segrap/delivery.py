"""Reviewed contours to a file that somebody else opens: written, read back, compared, and only then said to be there.

Nothing here knows Slicer; the panel's export and scripts come here. A job's own results are `segrap.results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segrap.contour_files.formats import read_challenge_mha, write_challenge_mha
from segrap.contour_files.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from segrap.contours import Contours
from segrap.ct.dicom_series import CTSeries
from segrap.errors import InputError, OutputError, UsageError
from segrap.naming import Names
from segrap.progress import Progress, ProgressCallback
from segrap.writing import replacing, replacing_folder

Kind = Literal["rtstruct", "dicom-seg", "seg.nrrd", "challenge"]

_FILE_NAMES = {
    "rtstruct": ("RTSTRUCT", ".dcm"),
    "dicom-seg": ("SEG", ".dcm"),
    "seg.nrrd": ("contours", ".seg.nrrd"),
    "challenge": ("challenge", ""),
}


@dataclass(frozen=True)
class Delivery:
    """What was delivered.

    path: the file, or the folder of the challenge's files. written: structures in it. empty: asked for, but without a
    voxel and hence not in it. warnings: sentences on what needs a look.
    """

    path: Path
    written: tuple[str, ...]
    empty: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def deliver(
    contours: Contours,
    folder: str | Path,
    kind: Kind,
    *,
    series: CTSeries | None = None,
    structures: Iterable[str] | None = None,
    names: Names = "tg263",
    review: Mapping[str, Mapping[str, str]] | None = None,
    progress: ProgressCallback | None = None,
) -> Delivery:
    """Write structures (SegRap names; all if None) into a folder, under a name that nothing there has yet.

    series: the CT's DICOM series, which RTSTRUCT and DICOM SEG refer to. names: of ROIs and DICOM segments. review: see
    `write_seg_nrrd`. progress: is told how far it is; what it raises ends the work and leaves nothing behind.

    Raises UsageError, InputError, OutputError as the writers do; OutputError too when what was written reads back as
    something else.
    """
    chosen = contours.names if structures is None else tuple(structures)
    unknown = [name for name in chosen if name not in contours.structures]
    if unknown:
        raise UsageError(f"These contours do not cover {', '.join(unknown)}; they have {', '.join(contours.names)}.")
    if not chosen:
        raise InputError("No structure is chosen, so there is nothing to write.")
    path = _free_name(Path(folder), *_FILE_NAMES[kind])
    if kind in ("rtstruct", "dicom-seg"):
        if series is None:
            raise InputError("RTSTRUCT and DICOM SEG refer to the CT's DICOM files. Load the CT from DICOM.")
        if kind == "rtstruct":
            from segrap.rtstruct.write import write_rtstruct

            report = write_rtstruct(contours, series, path, chosen, names, progress)
            return Delivery(path, report.written, report.empty, report.warnings)
        from segrap.dicom_seg.write import write_dicom_seg

        written, empty = write_dicom_seg(contours, series, path, chosen, names, progress)
        return Delivery(path, written, empty)
    part = contours if chosen == contours.names else contours.subset(chosen)
    with replacing_folder(path) if kind == "challenge" else replacing(path) as temporary:
        _tell(progress, "Writing", 0.0)
        if kind == "challenge":
            write_challenge_mha(part, temporary)
        else:
            write_seg_nrrd(part, temporary, review)
        _tell(progress, "Reading the file back", 0.5)
        back = read_challenge_mha(temporary) if kind == "challenge" else read_seg_nrrd(temporary)
        _check_same(part, back)
        _tell(progress, "Done", 1.0)
    return Delivery(path, part.names)


def _check_same(contours: Contours, back: Contours) -> None:
    for name, facts in contours.structures.items():
        found = back.structures.get(name)
        if found is None or found.fingerprint != facts.fingerprint:
            raise OutputError(
                f"Nothing was written: read back, {name} has {found.voxels if found else 0} voxels where "
                f"{facts.voxels} went in. This is a defect of SegRapSlicer; please report it."
            )


def _tell(progress: ProgressCallback | None, stage: str, fraction: float) -> None:
    if progress:
        progress(Progress(stage, fraction))


def _free_name(folder: Path, stem: str, ending: str) -> Path:
    """A name in the folder that nothing has yet: earlier exports stay."""
    names = (folder / f"{stem}{number}{ending}" for number in ("", *(f"-{n}" for n in range(2, 10000))))
    return next(path for path in names if not path.exists())
