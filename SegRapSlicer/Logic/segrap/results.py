"""From contours to the files a person asked for, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segrap.contours import Contours
from segrap.ct.pair import CTPair
from segrap.errors import UsageError
from segrap.writing import replacing_folder


def write_results(
    contours: Contours,
    pair: CTPair,
    output: Path,
    formats: Sequence[str] | None = None,
    volume_ranges: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[list[Path], tuple[str, ...]]:
    """Write contours into the folder `output`, with structures.csv and report.html; by default seg.nrrd, and RTSTRUCT
    where the input was DICOM.

    formats: of "seg.nrrd" (Slicer segmentation), "rtstruct", "dicom-seg", "segrap" (the challenge's 4-D .mha), "nifti"
    (one file per structure).
    volume_ranges: a site's own, for the checks; see `segrap.quality.check`.
    Returns the files written and remarks for the user (what was not found).
    Raises UsageError (DICOM of what was no DICOM), OutputError; then nothing of it is in `output`.
    """
    from segrap.contour_files.formats import write_challenge_mha, write_nifti_folder, write_structures_csv
    from segrap.contour_files.seg_nrrd import write_seg_nrrd
    from segrap.dicom_seg.write import write_dicom_seg
    from segrap.evaluation.report import write_report
    from segrap.quality import check
    from segrap.rtstruct.write import write_rtstruct

    series = pair.non_contrast_series
    chosen = formats or ("seg.nrrd", *(("rtstruct",) if series else ()))
    if not series and {"rtstruct", "dicom-seg"} & set(chosen):
        raise UsageError("RTSTRUCT and DICOM SEG need the CT's files: give the DICOM folder instead of an image file.")
    findings = check(contours, pair.non_contrast, volume_ranges=volume_ranges)
    empty = [name for name in contours.names if contours.is_empty(name)]
    remarks = [f"Not found by the model: {', '.join(empty)}."] if empty else []
    with replacing_folder(output) as folder:
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
