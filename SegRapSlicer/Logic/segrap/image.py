"""Image volumes with their place in the patient: voxels, spacing, origin, direction; reading, writing, resampling.

Arrays are in z, y, x order; geometry is in x, y, z order, in millimetres, in DICOM's patient axes (LPS: x grows to the
patient's left, y to the back, z to the head). This room knows no anatomy and no DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrap.errors import InputError
from segrap.geometry import Geometry, grid_corners_lps_mm
from segrap.nifti import check_nifti, check_numbers, write_nifti
from segrap.writing import replacing

NIFTI_ENDINGS = (".nii", ".nii.gz")
IMAGE_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class Image:
    """A volume: `array` (z, y, x) and the geometry of its grid."""

    array: np.ndarray
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        z, y, x = self.array.shape
        return z, y, x

    def corners_lps_mm(self) -> np.ndarray:
        """The centres of the eight corner voxels, (8, 3), LPS mm."""
        return grid_corners_lps_mm(self.geometry, self.shape)


@dataclass(frozen=True)
class AxisOrder:
    """How to turn a (z, y, x) array so that its axes run along the patient's: x to the left, y back, z up; and back.

    A model learned left from right on one orientation, and an array alone does not say its own. Turning is exact
    (transposition and flips only); an oblique grid keeps its obliqueness.
    """

    transposition: tuple[int, int, int]
    flips: tuple[int, ...]

    @classmethod
    def towards_lps(cls, geometry: Geometry) -> AxisOrder:
        """The order that brings `geometry` closest to the identity direction."""
        # For every patient axis, the index axis that runs most along it, the clearest assignment first.
        weight = np.abs(geometry.direction).copy()
        index_axis_of = [0, 0, 0]
        for _ in range(3):
            patient_axis, index_axis = np.unravel_index(int(weight.argmax()), weight.shape)
            index_axis_of[int(patient_axis)] = int(index_axis)
            weight[patient_axis, :] = -1.0
            weight[:, index_axis] = -1.0
        # Array axis n holds patient axis 2 - n, and index axis a is array axis 2 - a.
        order = (2 - index_axis_of[2], 2 - index_axis_of[1], 2 - index_axis_of[0])
        flips = tuple(2 - axis for axis in range(3) if geometry.direction[axis, index_axis_of[axis]] < 0)
        return cls(order, flips)

    @property
    def changes_nothing(self) -> bool:
        return self.transposition == (0, 1, 2) and not self.flips

    def apply(self, array: np.ndarray) -> np.ndarray:
        """A view of `array` (..., z, y, x) in the patient's axis order; leading axes stay."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.transposition))
        return np.flip(turned, tuple(lead + axis for axis in self.flips)) if self.flips else turned

    def undo(self, array: np.ndarray) -> np.ndarray:
        """A view of `array` (..., z, y, x) back in the order that `apply` was given."""
        lead = array.ndim - 3
        turned = np.flip(array, tuple(lead + axis for axis in self.flips)) if self.flips else array
        return turned.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.transposition)))

    def turn(self, image: Image) -> Image:
        """`image` in the patient's axis order, its geometry along with it: every voxel stays where it is."""
        index_axes = [2 - self.transposition[2 - axis] for axis in range(3)]
        direction = image.geometry.direction[:, index_axes].copy()
        spacing = tuple(image.geometry.spacing_mm[axis] for axis in index_axes)
        array = self.apply(image.array)
        first = np.zeros(3)  # old index of the voxel that becomes (0, 0, 0)
        for flip in self.flips:
            axis = 2 - flip
            direction[:, axis] *= -1.0
            first[index_axes[axis]] = array.shape[flip] - 1
        origin = image.geometry.to_lps(first)
        return Image(array, Geometry((spacing[0], spacing[1], spacing[2]), tuple(origin), direction))


def read_image(path: str | Path) -> Image:
    """Read a volume (.nii, .nii.gz, .nrrd, .mha, .mhd).

    Whole-number voxels come as int16 where they fit, others as float32.

    Raises InputError when the file is missing, is not a 3-D scalar volume, has no orthogonal axes, or holds voxels
    that are not numbers.
    """
    import SimpleITK

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    if not path.name.lower().endswith(IMAGE_ENDINGS):
        raise InputError(f"{path.name} is no image format that is read here ({', '.join(IMAGE_ENDINGS)} or DICOM).")
    try:
        volume = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        if "orthonormal" in str(error) or "cosines" in str(error):
            raise InputError(non_orthogonal(path.name)) from error
        raise InputError(f"{path.name} cannot be read as an image; the file may be damaged or cut short.") from error
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1 or min(volume.GetSize()) < 2:
        raise InputError(
            f"{path.name} is not a 3-D scan: its size is {' x '.join(map(str, volume.GetSize()))} with "
            f"{volume.GetNumberOfComponentsPerPixel()} value(s) per voxel. Give one volume per scan."
        )
    image = from_sitk(volume)
    check_orthogonal(image.geometry, path.name)
    if path.name.lower().endswith(NIFTI_ENDINGS):
        check_nifti(path)
    elif image.array.dtype.kind == "f":
        check_numbers(int(np.count_nonzero(~np.isfinite(image.array))), path.name)
    return image


def stored_axes(path: str | Path) -> str:
    """Where the x, y and z index of an image file grow to, in letters of the patient's sides: "LPS", "RAS", ...

    Raises InputError when the file is missing or is no image.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        return str(SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(reader.GetDirection()))
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as an image; the file may be damaged or cut short.") from error


def check_orthogonal(geometry: Geometry, name: str) -> None:
    """Raise InputError when the axes are not at right angles (within 0.06 degrees) or a spacing is not above 0."""
    if not np.allclose(geometry.direction.T @ geometry.direction, np.eye(3), atol=1e-3):
        raise InputError(non_orthogonal(name))
    if not all(np.isfinite(value) and value > 0 for value in geometry.spacing_mm):
        raise InputError(f"{name} states a voxel spacing of {geometry.spacing_mm} mm. Export it again.")


def non_orthogonal(name: str) -> str:
    return (
        f"The axes of {name} are not at right angles (a sheared grid, as gantry tilt gives). "
        "Resample it onto a straight grid first."
    )


def write_image(image: Image, path: str | Path, compress: bool = True) -> None:
    """Write a volume in the format of its ending. Raises OutputError; nothing partial is left behind."""
    path = Path(path)
    if path.name.lower().endswith(NIFTI_ENDINGS):
        write_nifti(image.array, image.shape, image.geometry, path)
        return
    import SimpleITK

    volume = to_sitk(image)
    with replacing(path) as temporary:
        try:
            SimpleITK.WriteImage(volume, str(temporary), useCompression=compress, compressionLevel=1)
        except RuntimeError as error:
            raise OSError(str(error).strip().splitlines()[-1]) from error


def resample(image: Image, geometry: Geometry, shape: tuple[int, int, int], outside: float = -1024.0) -> Image:
    """`image` on another grid (z, y, x), linear in world coordinates; `outside` where the image has no voxel.

    The result has the dtype of the image; whole numbers are rounded.
    """
    import SimpleITK

    z, y, x = shape
    grid = SimpleITK.Image([x, y, z], SimpleITK.sitkUInt8)
    _set_geometry(grid, geometry)
    moved = SimpleITK.Resample(
        to_sitk(image), grid, SimpleITK.Transform(), SimpleITK.sitkLinear, outside, SimpleITK.sitkFloat32
    )
    values = SimpleITK.GetArrayViewFromImage(moved)
    array = np.empty(shape, dtype=image.array.dtype)
    whole_numbers = np.issubdtype(image.array.dtype, np.integer)
    for number in range(z):  # slice by slice: a second volume of floats would be the largest thing in memory
        array[number] = np.rint(values[number]) if whole_numbers else values[number]
    return Image(array, geometry)


def to_sitk(image: Image) -> Any:
    """The volume as a SimpleITK image (LPS, as here)."""
    import SimpleITK

    volume = SimpleITK.GetImageFromArray(image.array)
    _set_geometry(volume, image.geometry)
    return volume


def from_sitk(volume: Any) -> Image:
    """A 3-D scalar SimpleITK image as Image; whole numbers as int16 where they fit, others as float32."""
    import SimpleITK

    array = SimpleITK.GetArrayViewFromImage(volume)
    geometry = Geometry(volume.GetSpacing(), volume.GetOrigin(), np.array(volume.GetDirection()).reshape(3, 3))
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(np.int16)
        fits = array.dtype.itemsize < 2 or (array.min() >= limits.min and array.max() <= limits.max)
        return Image(array.astype(np.int16 if fits else np.int32), geometry)
    return Image(array.astype(np.float32), geometry)


def _set_geometry(volume: Any, geometry: Geometry) -> None:
    volume.SetSpacing(geometry.spacing_mm)
    volume.SetOrigin(geometry.origin_mm)
    volume.SetDirection(geometry.direction.ravel().tolist())
