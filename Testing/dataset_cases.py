"""A small SegRap download made of made-up patients, and what spoils it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from segrap import anatomy
from segrap.image import Image, read_image, write_image
from segrap.training.phantom import Phantom

SPACING = (6.0, 6.0, 6.0)


def write_download(root: Path) -> Path:
    """Two training patients with all files, in the layout of the challenge's archives, and one for validation."""
    for number in (0, 1):
        case = Phantom(10 + number).render(spacing_mm=SPACING)
        name = f"segrap_{number:04d}"
        folder = root / "SegRap2023_Training_Set_120cases" / name
        folder.mkdir(parents=True)
        write_image(case.non_contrast, folder / "image.nii.gz")
        write_image(case.contrast, folder / "image_contrast.nii.gz")
        labels = case.subclasses.array
        for structure, mask in anatomy.masks_from_subclasses(labels).items():
            write_image(Image(mask.astype(np.uint8), case.subclasses.geometry), folder / f"{structure}.nii.gz")
        one_hot = root / "SegRap2023_Training_Set_120cases_OneHot_Labels"
        for task, volume in (("Task001", np.where(labels > 54, 0, labels)), ("Task002", np.maximum(labels, 54) - 54)):
            (one_hot / task).mkdir(parents=True, exist_ok=True)
            write_image(Image(volume.astype(np.uint8), case.subclasses.geometry), one_hot / task / f"{name}.nii.gz")
    case = Phantom(12).render(spacing_mm=SPACING)
    for folder, image in (("head-neck-ct", case.non_contrast), ("head-neck-contrast-enhanced-ct", case.contrast)):
        place = root / "SegRap2023_Validation_Set_20cases" / folder
        place.mkdir(parents=True)
        write_image(image, place / "segrap_0120.mha")
    return root


def patient_folder(download: Path) -> Path:
    return download / "SegRap2023_Training_Set_120cases" / "segrap_0000"


def volume(download: Path, task: str) -> Path:
    """The first patient's volume of sub-classes (Task001), or of targets (Task002)."""
    (path,) = download.glob(f"*OneHot*/{task}/segrap_0000.nii.gz")
    return path


def change(path: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    image = read_image(path)
    write_image(Image(how(image.array), image.geometry), path)


def plant_update(download: Path) -> None:
    """Corrected organs, of which one is larger than before."""
    new = download / "SegRap2023_Training_Set_120cases_Update_Labels" / "segrap_0000"
    new.mkdir(parents=True)
    for organ in anatomy.ORGANS:
        shutil.copyfile(patient_folder(download) / f"{organ.name}.nii.gz", new / f"{organ.name}.nii.gz")
    change(new / "Parotid_L.nii.gz", lambda a: np.maximum(a, np.roll(a, 1, axis=1)))


def plant_axes(download: Path) -> None:
    """The whole first patient stored as RAS, every voxel where it was."""
    for path in (*patient_folder(download).glob("*.nii.gz"), *download.glob("*OneHot*/*/segrap_0000.nii.gz")):
        volume = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.DICOMOrient(volume, "RAS"), str(path))


def ruin_twice(download: Path) -> None:
    """A later challenge's patient of the same number, unpacked into the same folder."""
    shutil.copytree(patient_folder(download), download / "SegRap2025_Validation" / "segrap_0000")
