"""A DICOM Segmentation in, Contours out, on the grid of the CT that it was drawn on, whichever program wrote it.

Only binary segmentations on the very pixels of the CT are read: frames that lie between its slices, or have other
pixels, are refused, never resampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segrap import anatomy
from segrap.contours import Contours
from segrap.ct.dicom_pixels import DAMAGE
from segrap.ct.dicom_series import ORIENTATION_TOLERANCE, CTSeries
from segrap.dicom_seg.write import SEGMENTATION_STORAGE
from segrap.errors import InputError
from segrap.rtstruct.planes import PLANE_TOLERANCE_MM
from segrap.rtstruct.read import ORIGINS, known_structure, referred_to, stated_provenance

_SPACING_TOLERANCE_MM = 1e-3


def read_dicom_seg(path: str | Path, series: CTSeries, names: Mapping[str, str] | None = None) -> Contours:
    """The structures of a DICOM Segmentation on the grid of its CT.

    Segments are known by their label, a SegRap or TG-263 name in any letter case, by a site's own names, as for
    `rtstruct.read.read_rtstruct`, or by segrap's own description. The labels of all others come back in `left_out`.

    Raises InputError when the file cannot be read, is not binary or is compressed, lies on other pixels or in another
    Frame of Reference than the CT, holds a structure twice, or none that is known here.
    """
    path = Path(path)
    with _damage_named(path):
        dataset = _read(path)
        _check(dataset, series, path.name)
        known, left_out = _known_segments(dataset, path.name, names or {})
        frames = list(_frames(dataset, series, path.name))
        masks = _masks(dataset, series, {number: name for name, (number, _) in known.items()}, frames)
        origin = {name: ORIGINS.get(kind, "imported") for name, (_, kind) in known.items()}
        provenance = stated_provenance(dataset, series, [])
        return Contours.from_masks(masks, series.geometry, provenance, origin=origin, left_out=left_out)


def segmented_on(path: str | Path, candidates: Sequence[CTSeries]) -> CTSeries:
    """The CT series that a DICOM Segmentation refers to, among several; a lone candidate is taken.

    Raises InputError when the file cannot be read, or names none of several candidates.
    """
    if len(candidates) == 1:
        return candidates[0]
    with _damage_named(Path(path)):
        referred = _read(Path(path)).get("ReferencedSeriesSequence") or ()
        return referred_to(path, {str(series.SeriesInstanceUID) for series in referred}, candidates)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        yield
    except (*DAMAGE, OSError, InvalidDicomError, BytesLengthException) as fault:
        raise InputError(f"{path.name} cannot be read as a DICOM Segmentation ({fault}).") from fault


def _read(path: Path) -> Any:
    import pydicom

    dataset = pydicom.dcmread(path)
    if str(dataset.SOPClassUID) != SEGMENTATION_STORAGE:
        raise InputError(f"{path.name} is no DICOM Segmentation; its modality is {dataset.Modality}.")
    return dataset


def _check(dataset: Any, series: CTSeries, name: str) -> None:
    if dataset.SegmentationType != "BINARY" or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise InputError(f"{name} is fractional or compressed. Export it as a binary, uncompressed segmentation.")
    if str(dataset.get("FrameOfReferenceUID", "")) != series.frame_of_reference_uid:
        raise InputError(f"{name} belongs to another scan: its Frame of Reference is not that of the CT.")
    image, (_, rows, columns) = series.headers[0], series.shape
    orientation = _group(dataset, None, "PlaneOrientationSequence").ImageOrientationPatient
    spacing = _group(dataset, None, "PixelMeasuresSequence").PixelSpacing
    if (
        (dataset.Rows, dataset.Columns) != (rows, columns)
        or not np.allclose(orientation, image.ImageOrientationPatient, atol=ORIENTATION_TOLERANCE)
        or not np.allclose(spacing, image.PixelSpacing, atol=_SPACING_TOLERANCE_MM)
    ):
        raise InputError(
            f"{name} has frames of {dataset.Columns} x {dataset.Rows} pixels that are not those of the CT "
            f"({columns} x {rows}). Give the CT that it was drawn on."
        )
    bits = int(dataset.NumberOfFrames) * rows * columns
    if 8 * len(dataset.PixelData) < bits or len(dataset.PerFrameFunctionalGroupsSequence) != dataset.NumberOfFrames:
        raise InputError(f"{name} is cut short: it lacks frames. Copy it again.")


def _known_segments(
    dataset: Any, file_name: str, names: Mapping[str, str]
) -> tuple[dict[str, tuple[int, str]], tuple[str, ...]]:
    """Structure -> its segment's number and the type of algorithm; and the labels of all other segments."""
    own = {name.casefold(): anatomy.structure(structure) for structure, name in names.items()}
    known: dict[str, tuple[int, str]] = {}
    left_out = []
    for segment in dataset.SegmentSequence:
        label = str(segment.SegmentLabel)
        described = str(segment.get("SegmentDescription", "")).removeprefix("SegRap ")
        structure = own.get(label.casefold()) or known_structure(label) or known_structure(described)
        if structure is None:
            left_out.append(label)
        elif structure.name in known:
            raise InputError(f"{file_name} holds {structure.name} twice. Remove one of them.")
        else:
            known[structure.name] = (int(segment.SegmentNumber), str(segment.get("SegmentAlgorithmType", "")))
    if not known:
        raise InputError(f"{file_name} holds no structure known here; it has {', '.join(left_out) or 'no segment'}.")
    return known, tuple(left_out)


def _group(dataset: Any, frame: Any, sequence: str) -> Any:
    """An item of the functional groups: the frame's own (None: of the first), or the one that all frames share."""
    own = dataset.PerFrameFunctionalGroupsSequence[0] if frame is None else frame
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    return (own.get(sequence) or shared.get(sequence))[0]


def _frames(dataset: Any, series: CTSeries, name: str) -> Iterator[tuple[int, int]]:
    """For every frame the number of its segment and the slice of the CT that it lies on."""
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = _group(dataset, frame, "PlanePositionSequence").ImagePositionPatient
        off_mm = np.linalg.norm(series.slice_origins_mm - np.array(place, dtype=np.float64), axis=1)
        z = int(off_mm.argmin())
        if off_mm[z] > PLANE_TOLERANCE_MM:
            raise InputError(
                f"{name} has a frame {off_mm[z]:.2f} mm beside the slices of this CT. Give the CT that it was drawn on."
            )
        yield int(_group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber), z


def _masks(
    dataset: Any, series: CTSeries, wanted: Mapping[int, str], frames: list[tuple[int, int]]
) -> Iterator[tuple[str, np.ndarray]]:
    """The masks (z, y, x) of the segments with these numbers, one after another."""
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    _, rows, columns = series.shape
    size = rows * columns
    for number, name in wanted.items():
        mask = np.zeros(series.shape, dtype=bool)
        for place, (segment, z) in enumerate(frames):
            if segment == number:
                start = place * size
                block = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
                mask[z] |= block[start % 8 : start % 8 + size].reshape(rows, columns).view(bool)
        yield name, mask
