"""From contours to the files a person asked for, all of them or none, and never beside those of another run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from segrap import anatomy
from segrap.contour_files.formats import CHALLENGE_FILES
from segrap.contours import Contours
from segrap.ct.pair import CTPair
from segrap.errors import InputError, UsageError
from segrap.quality import Expected, check
from segrap.writing import check_writable, replacing_folder

ALWAYS = ("structures.csv", "report.html")
RESULTS = (
    *ALWAYS,
    "contours.seg.nrrd",
    "RTSTRUCT.dcm",
    "SEG.dcm",
    *CHALLENGE_FILES,
    *(f"nifti/{name}.nii.gz" for name in anatomy.NAMES),
)
"""All that a run may leave in its folder."""


def check_place(output: Path, overwrite: bool, also: Sequence[str] = ()) -> None:
    """Refuse, before a run, a folder that could not take its results.

    overwrite: results of an earlier run that are in it may go. also: names of other files and folders that are to be
    written there. Raises UsageError when there is something in it that may not go, OutputError when it cannot be
    written.
    """
    taken = [name for name in (*also, *RESULTS) if os.path.lexists(output / name)]
    foreign = [name for name in taken if name in RESULTS]
    if foreign and not all(name in taken for name in ALWAYS):
        raise UsageError(
            f"{output} holds {foreign[0]}, which is not of an earlier run: {' and '.join(ALWAYS)} would lie beside it. "
            "Choose another folder."
        )
    if taken and not overwrite:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise UsageError(
            f"{output} already holds {', '.join(taken[:3])}{more}. Choose another folder, or replace the results in "
            "it with --overwrite."
        )
    check_writable(output)


def choose_formats(pair: CTPair, formats: Sequence[str] | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The formats to write, and remarks: those given, or seg.nrrd, and RTSTRUCT where the CT can be referred to.

    Raises UsageError (DICOM of what was no DICOM), InputError (DICOM asked for of a CT that cannot be referred to).
    """
    from segrap.rtstruct.write import missing_uid

    series = pair.non_contrast_series
    missing = missing_uid(series) if series else None
    if not formats:
        if missing:
            return ("seg.nrrd",), (f"There is no RTSTRUCT, because the CT has no {missing} that it could refer to.",)
        return ("seg.nrrd", *(("rtstruct",) if series else ())), ()
    dicom = [name for name in formats if name in ("rtstruct", "dicom-seg")]
    if dicom and not series:
        raise UsageError("RTSTRUCT and DICOM SEG need the CT's files: give the DICOM folder instead of an image file.")
    if dicom and missing:
        raise InputError(
            f"The CT has no {missing}, so neither RTSTRUCT nor DICOM SEG can refer to it. Export it again."
        )
    return tuple(formats), ()


def write_results(
    contours: Contours,
    pair: CTPair,
    output: Path,
    formats: Sequence[str] | None = None,
    expected: Mapping[str, Expected] | None = None,
    overwrite: bool = False,
) -> tuple[list[Path], tuple[str, ...]]:
    """Write contours into the folder `output`, with structures.csv and report.html, in the formats of `choose_formats`.

    formats: of "seg.nrrd" (Slicer segmentation), "rtstruct", "dicom-seg", "segrap" (the challenge's 4-D .mha), "nifti"
    (one file per structure).
    expected: of a site's own patients, for the checks; see `segrap.quality.check`.
    overwrite: all results of an earlier run that are in `output` go; without it they are refused.
    Returns the files written and remarks for the user (what was not found).
    Raises what `check_place` and `choose_formats` raise, and OutputError; then `output` is as it was.
    """
    from segrap.contour_files.formats import write_challenge_mha, write_nifti_folder, write_structures_csv
    from segrap.contour_files.seg_nrrd import write_seg_nrrd
    from segrap.dicom_seg.write import write_dicom_seg
    from segrap.evaluation.report import write_report
    from segrap.rtstruct.write import write_rtstruct

    check_place(output, overwrite)  # again: another run may have ended meanwhile
    chosen, remarks_of_choice = choose_formats(pair, formats)
    series = pair.non_contrast_series
    findings = check(contours, pair.non_contrast, expected=expected)
    empty = [name for name in contours.names if contours.is_empty(name)]
    remarks = [*remarks_of_choice, *([f"Not found by the model: {', '.join(empty)}."] if empty else [])]
    with replacing_folder(output, instead_of=RESULTS) as folder:
        if "seg.nrrd" in chosen:
            write_seg_nrrd(contours, folder / "contours.seg.nrrd")
        if "rtstruct" in chosen and series:
            if len(empty) == len(contours.names):
                remarks.append("There is no RTSTRUCT, because no structure was found.")
            else:
                remarks += write_rtstruct(contours, series, folder / "RTSTRUCT.dcm").warnings
        if "dicom-seg" in chosen and series:
            if len(empty) == len(contours.names):
                remarks.append("There is no DICOM SEG, because no structure was found.")
            else:
                write_dicom_seg(contours, series, folder / "SEG.dcm")
        if "segrap" in chosen:
            write_challenge_mha(contours, folder)
        if "nifti" in chosen:
            write_nifti_folder(contours, folder / "nifti")
        write_structures_csv(contours, folder / "structures.csv")
        write_report(contours, pair, findings, folder / "report.html")
        written = sorted(item.name for item in folder.iterdir())
    return [output / name for name in written], tuple(remarks)
