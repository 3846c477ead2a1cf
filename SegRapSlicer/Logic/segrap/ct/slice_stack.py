"""Do slices make one straight, even stack? Their order and spacing, or an InputError with the fault in millimetres.

Plain geometry: where each slice begins and how it lies. What a DICOM file says about it is read in dicom_series.py.
"""

from __future__ import annotations

import numpy as np

from segrap.errors import InputError

# Scanners that write positions to a tenth of a millimetre put slices up to 0.05 mm beside their true place.
POSITION_TOLERANCE_MM = 0.06
# A sideways drift of the slices over the whole stack that moves no contour.
SIDEWAYS_TOLERANCE_VOXELS = 0.1


def right_angled(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions (..., 3) of rows and columns as unit vectors at right angles; the rows' directions are kept.

    Files state a few decimals of each; what is left over would stretch and shear the grid.
    """
    row = row / np.linalg.norm(row, axis=-1, keepdims=True)
    column = column - (row * column).sum(axis=-1, keepdims=True) * row
    return row, column / np.linalg.norm(column, axis=-1, keepdims=True)


def order_along_normal(origins_mm: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Slice numbers from the lowest to the highest along `normal`; origins_mm (slice, 3), LPS."""
    return np.argsort(origins_mm @ normal, kind="stable")


def even_spacing_mm(origins_mm: np.ndarray, normal: np.ndarray, title: str) -> float:
    """Distance between neighbouring slices; origins_mm (slice, 3) in order along `normal`, LPS.

    Raises InputError, which begins with `title`, for a duplicate, a missing or an uneven slice.
    """
    along = origins_mm @ normal
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    axis = int(np.abs(normal).argmax())

    def place(number: int) -> str:
        return f"{'xyz'[axis]} = {origins_mm[number, axis]:.1f} mm"

    twins = np.flatnonzero(gaps <= max(POSITION_TOLERANCE_MM, 0.01 * usual))
    if twins.size:
        places = "one such place" if twins.size == 1 else f"{twins.size} such places"
        raise InputError(
            f"{title} has a duplicate slice: two different images lie at {place(int(twins[0]))} ({places}). "
            "Give a folder with one scan per series."
        )
    numbers = np.arange(along.size)
    if np.abs(along - np.polyval(np.polyfit(numbers, along, 1), numbers)).max() <= POSITION_TOLERANCE_MM:
        return float((along[-1] - along[0]) / (along.size - 1))

    widest = int(gaps.argmax())
    missing = gaps / usual - 1
    count = int(np.rint(missing).sum())
    if count > 0 and (np.abs(missing - np.rint(missing)) * usual <= 2 * POSITION_TOLERANCE_MM).all():
        raise InputError(
            f"{title} has {count} missing slice{'s' * (count != 1)}: a gap of {gaps[widest]:.1f} mm where {usual:.1f} "
            f"mm is usual, between {place(widest)} and {place(widest + 1)}. Copy or export the whole series again."
        )
    raise InputError(
        f"{title} has uneven slices: they lie {gaps.min():.2f} to {gaps.max():.2f} mm apart, the widest between "
        f"{place(widest)} and {place(widest + 1)}. Reconstruct the scan with one slice spacing."
    )


def check_straight(origins_mm: np.ndarray, normal: np.ndarray, pixel_mm: float, title: str) -> None:
    """Raise InputError when slices do not lie straight above one another along their normal (gantry tilt).

    origins_mm: (slice, 3) in order along `normal`, LPS. pixel_mm: the smaller in-plane voxel size.
    """
    offsets = origins_mm - origins_mm[0]
    sideways = offsets - np.outer(offsets @ normal, normal)
    drift = float(np.linalg.norm(sideways, axis=1).max())
    if drift <= max(POSITION_TOLERANCE_MM, SIDEWAYS_TOLERANCE_VOXELS * pixel_mm):
        return
    leaning = sideways[-1] * np.linspace(0, 1, len(origins_mm))[:, None]
    if np.abs(sideways - leaning).max() > max(2 * POSITION_TOLERANCE_MM, 0.1 * drift):
        raise InputError(
            f"{title} has slices that are shifted sideways by up to {drift:.1f} mm. Reconstruct the scan with one "
            "centre."
        )
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), offsets[-1] @ normal)))
    raise InputError(
        f"{title} was taken with a tilted gantry ({degrees:.1f} degrees; its slices shift by {drift:.1f} mm over the "
        "scan). Straighten it first, as 3D Slicer does when it loads the series with acquisition geometry regularised."
    )
