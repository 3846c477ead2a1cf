"""Two scans of a made-up head for a test: made, moved, saved, and refused with nothing changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from synthetic_ct import head_like

from segrap.ct.pair import load_pair
from segrap.errors import InputError
from segrap.image import Image, write_image

SHAPE, SPACING_MM = (32, 72, 72), (2.5, 2.5, 3.0)


def scan(**changes: object) -> Image:
    return head_like(SHAPE, SPACING_MM, **changes)  # type: ignore[arg-type]


def saved(image: Image, path: Path) -> Path:
    write_image(image, path)
    return path


def refusal(folder: Path, non_contrast: Path, contrast: Path | None = None) -> str:
    """What the person is told; nothing in `folder` has changed."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        load_pair(non_contrast, contrast)
    assert sorted(folder.rglob("*")) == before
    assert caught.value.exit_status == 3
    assert "Made" not in str(caught.value)  # the patient's name
    return str(caught.value)


def moved(
    image: Image, shift_mm: tuple[float, ...], turn_degrees: tuple[float, ...] = (0, 0, 0), noise_hu: float = 15
) -> Image:
    """What a scanner sees after the patient moved by `shift_mm` and turned about the centre of the scan (LPS)."""
    rotation = Rotation.from_rotvec(np.radians(turn_degrees)).as_matrix()
    centre = image.corners_lps_mm().mean(axis=0)
    back = np.eye(4)
    back[:3, :3] = rotation.T
    back[:3, 3] = centre - rotation.T @ (centre + np.asarray(shift_mm))
    matrix = np.linalg.inv(image.geometry.index_to_lps) @ back @ image.geometry.index_to_lps
    seen = affine_transform(
        image.array.astype(np.float32), matrix[:3, :3][::-1, ::-1], matrix[:3, 3][::-1], order=1, cval=-1000.0
    )
    seen += np.random.default_rng(7).normal(0.0, noise_hu, seen.shape)
    return Image(np.rint(seen).astype(np.int16), image.geometry)
