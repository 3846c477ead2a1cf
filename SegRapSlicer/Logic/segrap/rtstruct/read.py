"""RTSTRUCT in, Contours out: a voxel belongs to a structure when its centre lies inside the structure's contours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segrap import anatomy
from segrap.contours import Contours, IntendedUse, Origin, Provenance
from segrap.ct.dicom_series import CTSeries
from segrap.errors import InputError
from segrap.rtstruct.contents import DEMONSTRATION_LABEL, MANUFACTURER, Contents, Roi, read_contents
from segrap.rtstruct.fill import Region, fill, voxels_in_dispute
from segrap.rtstruct.planes import PLANE_TOLERANCE_MM, SlicePlanes

ORIGINS: dict[str, Origin] = {"AUTOMATIC": "model", "SEMIAUTOMATIC": "edited", "MANUAL": "drawn"}
_BY_NAME = {
    name.casefold(): structure for structure in anatomy.STRUCTURES for name in (structure.name, structure.tg263_name)
}

_DIGEST = re.compile("[0-9a-f]{64}")


def read_rtstruct(path: str | Path, series: CTSeries, names: Mapping[str, str] | None = None) -> Contours:
    """The structures of an RTSTRUCT on the grid of the CT that it was drawn on.

    ROIs are known by their SegRap or TG-263 name in any letter case, and by a site's own: names, {SegRap name: name} as
    `naming.read_names` gives them. The names of all others come back in `left_out`.
    Several contours of one slice are combined by even-odd: one inside another is a hole. What was not read (points,
    open contours, ROIs of another Frame of Reference, as drawn on an MR) or lies off the scan is said in
    `provenance.remarks`. The slice of a contour is the one whose plane it lies in, whatever image it names.

    Raises InputError when the file cannot be read, belongs to another Frame of Reference, names a structure twice,
    holds no structure that is known here, or has a contour that lacks points or coordinates, or is farther than 0.1 mm
    from the plane of every slice.
    """
    contents = read_contents(path)
    _check_frame_of_reference(contents, series, Path(path).name)
    known: dict[str, Roi] = {}
    left_out = []
    elsewhere = []
    own = {name.casefold(): anatomy.structure(structure) for structure, name in (names or {}).items()}
    for roi in contents.rois:
        structure = own.get(roi.name.casefold()) or known_structure(roi.name)
        if structure is None:
            left_out.append(roi.name)
        elif roi.frame_of_reference_uid not in ("", series.frame_of_reference_uid):
            elsewhere.append(roi.name)
        elif structure.name in known:
            raise InputError(
                f"{Path(path).name} holds {structure.name} twice, as '{known[structure.name].name}' and '{roi.name}'. "
                "Remove one of them."
            )
        else:
            known[structure.name] = roi
    if not known:
        held = [*left_out, *(f"{name} (drawn in another Frame of Reference than the CT's)" for name in elsewhere)]
        raise InputError(
            f"{Path(path).name} holds no structure known here; it has {', '.join(held) or 'no ROI at all'}."
        )

    remarks: list[str] = []
    if elsewhere:
        remarks.append(f"Left out, as drawn in another Frame of Reference than the CT's: {', '.join(elsewhere)}.")

    planes = SlicePlanes(series)

    def masks() -> Iterator[tuple[str, np.ndarray]]:
        for name, roi in known.items():
            region, roi_remarks = filled(roi, planes, series.shape)
            remarks.extend(roi_remarks)
            mask = np.zeros(series.shape, dtype=bool)
            mask[region.box] = region.mask
            yield name, mask

    origin: dict[str, Origin] = {name: ORIGINS.get(roi.algorithm, "imported") for name, roi in known.items()}
    contours = Contours.from_masks(masks(), series.geometry, Provenance(), origin=origin, left_out=tuple(left_out))
    # Only now are the remarks complete.
    return replace(contours, provenance=stated_provenance(contents.dataset, series, remarks))


def drawn_on(path: str | Path, candidates: Sequence[CTSeries]) -> CTSeries:
    """The CT series that an RTSTRUCT refers to, among several. A lone candidate is taken: `read_rtstruct` checks it.

    Raises InputError when the file cannot be read, or names none of several candidates.
    """
    if len(candidates) == 1:
        return candidates[0]
    uids = {
        str(series.get("SeriesInstanceUID"))
        for frame in read_contents(path).dataset.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }
    return referred_to(path, uids, candidates)


def referred_to(path: str | Path, uids: Collection[str], candidates: Sequence[CTSeries]) -> CTSeries:
    """The one of several series whose UID a file names. Raises InputError when it is none of them, or more than one."""
    named = [series for series in candidates if series.series_uid in uids]
    if len(named) != 1:
        raise InputError(
            f"{Path(path).name} refers to {len(named)} of {len(candidates)} CT series. Give the folder of the CT that "
            "it was drawn on alone."
        )
    return named[0]


def known_structure(roi_name: str) -> anatomy.Structure | None:
    """The structure of that SegRap or TG-263 name in any letter case, or None."""
    return _BY_NAME.get(roi_name.casefold())


def filled(roi: Roi, planes: SlicePlanes, shape: tuple[int, int, int]) -> tuple[Region, list[str]]:
    """The voxels of a grid (z, y, x) inside the contours of an ROI, and sentences on what could not be honoured.

    Raises InputError when a contour lacks points or coordinates, or lies farther than 0.1 mm from the plane of every
    slice.
    """
    remarks = []
    other_number = (roi.stated_lengths >= 0) & (roi.stated_lengths != roi.lengths)
    damaged = roi.is_filled & (roi.broken | other_number)
    if damaged.any():
        raise InputError(
            f"{np.count_nonzero(damaged)} of {len(damaged)} contours of '{roi.name}' are damaged: they have another "
            "number of points than they state, or coordinates that make no whole points. Export the file again."
        )
    for kind in sorted(set(np.array(roi.geometric_types)[~roi.is_filled].tolist())):
        remarks.append(f"{roi.name}: {roi.geometric_types.count(kind)} contours of type {kind} enclose nothing.")
    used = roi.is_filled & (roi.lengths > 0)
    points, lengths = roi.points_mm[np.repeat(used, roi.lengths)], roi.lengths[used]
    if not len(lengths):
        return fill(points[:, :2], lengths, lengths, shape), remarks
    slice_numbers, distances_mm = planes.nearest(points, lengths)
    off = distances_mm > PLANE_TOLERANCE_MM
    if off.any():
        raise InputError(
            f"{np.count_nonzero(off)} of {len(lengths)} contours of '{roi.name}' lie up to {distances_mm.max():.2f} mm "
            "beside the slices of this CT. Give the CT on which they were drawn, or export them on its slices."
        )
    pixels = planes.to_pixels(np.repeat(slice_numbers, lengths), points)
    outermost = np.array([shape[2], shape[1]]) - 0.5
    if (pixels < -0.51).any() or (pixels > outermost + 0.01).any():
        remarks.append(f"{roi.name} reaches beyond the scan; what lies outside was cut off.")
    voxels = voxels_in_dispute(pixels, lengths, slice_numbers, shape)
    if voxels:
        remarks.append(f"{roi.name}: contours of one slice overlap in {voxels} voxels, which were read as holes.")
    region = fill(pixels, lengths, slice_numbers, shape)
    if not region.mask.any():
        remarks.append(f"{roi.name}: no voxel centre lies inside its {len(lengths)} contours, so it came out empty.")
    return region, remarks


def _check_frame_of_reference(contents: Contents, series: CTSeries, file_name: str) -> None:
    stated = {str(contents.dataset.get("FrameOfReferenceUID") or "")}
    for item in contents.dataset.get("ReferencedFrameOfReferenceSequence", ()):
        stated.add(str(item.get("FrameOfReferenceUID") or ""))
    stated.discard("")
    if stated and series.frame_of_reference_uid not in stated:
        raise InputError(
            f"{file_name} belongs to another scan: its Frame of Reference is {', '.join(sorted(stated))}, that of the "
            f"CT is {series.frame_of_reference_uid or 'not stated'}. Give the CT on which it was drawn."
        )


def stated_provenance(dataset: Any, series: CTSeries, remarks: list[str]) -> Provenance:
    """What an RTSTRUCT or a DICOM Segmentation says of its making; "" where another program wrote it."""
    stated: dict[str, str] = {}
    versions = dataset.get("SoftwareVersions") or ()
    if str(dataset.get("Manufacturer", "")) == MANUFACTURER:
        for entry in [versions] if isinstance(versions, str) else versions:
            kind, _, value = str(entry).partition(" ")
            stated[kind if value else "hash"] = value or kind
    digest = stated.get("hash", "")
    label = dataset.get("StructureSetLabel") or dataset.get("ContentLabel", "")
    demonstration = str(label) == DEMONSTRATION_LABEL
    intended_use: IntendedUse = "demonstration" if demonstration else "research"
    return Provenance(
        model_name=stated.get("model-name", ""),
        model_version=stated.get("model-version", ""),
        model_hash=f"sha256:{digest}" if _DIGEST.fullmatch(digest) else digest,
        intended_use=intended_use,
        created=stated.get("created", ""),
        software=f"segrap {stated['segrap']}" if "segrap" in stated else "",
        input_series_uids=(series.series_uid,),
        remarks=tuple(remarks),
    )
