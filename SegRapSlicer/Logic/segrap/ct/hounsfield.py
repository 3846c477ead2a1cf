"""Is this a CT? What the voxel values alone say about it."""

from __future__ import annotations

import numpy as np

AIR_HU = -1024


def hounsfield_array(array: np.ndarray) -> np.ndarray:
    """The voxels as they are handled here: int16 where whole numbers fit, else float32. A copy only where needed."""
    if array.dtype in (np.int16, np.float32):
        return array
    limits = np.iinfo(np.int16)
    fits = array.dtype.kind in "iu" and limits.min <= array.min() and array.max() <= limits.max
    return array.astype(np.int16 if fits else np.float32)


def hounsfield_fault(array: np.ndarray) -> str | None:
    """Why the voxels (z, y, x) cannot be a CT of a person in Hounsfield units, in words; None when they can.

    Every such scan holds air (around -1000) and, between -500 and 500, mostly soft tissue: a peak between fat (-120)
    and muscle with contrast agent (100). MR, masks, windowed images and wrong rescales have one or the other missing.
    """
    step = tuple(max(1, round(size / 96)) for size in array.shape)
    values = array[:: step[0], :: step[1], :: step[2]].ravel()
    low, high = float(values.min()), float(values.max())
    span = f"its values run from {low:g} to {high:g}"
    if np.count_nonzero(values <= -800) < 1e-4 * values.size:
        return f"{span}, and there is no air (about -1000)"
    # Scanners fill what they did not see with one number far below air (-2000, -3024); anything else there is no CT.
    below = values[values < -1200]
    if np.count_nonzero(below != (np.median(below) if below.size else 0)) > 0.05 * values.size:
        return f"{span}, and much of it lies far below air (-1000)"
    if high > np.iinfo(np.int16).max:
        return f"{span}, far above metal"
    counts, edges = np.histogram(values, bins=np.arange(-500, 501, 20))
    peak = float(edges[int(counts.argmax())]) + 10.0
    if counts.sum() < 0.005 * values.size or not -150 <= peak <= 150:
        return f"{span}, and there is no soft tissue (between -150 and 150)"
    return None
