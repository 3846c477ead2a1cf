"""A CT pair: the non-contrast scan and, on its grid, the contrast scan of the same patient, both checked.

Two scans are put together by their world coordinates, never by their shapes. What would make contours wrong is refused
(other patients, the same scan twice, swapped order, no overlap, no CT); what a doctor should know is said in `remarks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segrap.ct.alignment import (
    LEAST_LIKENESS,
    Alignment,
    around_body,
    coarse_view,
    covered,
    enhancement_hu,
    measure_alignment,
    second_on_first,
)
from segrap.ct.contrast_words import describes_contrast
from segrap.ct.dicom_series import CTSeries, is_dicom, read_series_folder
from segrap.ct.hounsfield import hounsfield_fault
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import Image, read_image, resample

CHANNELS = ("non_contrast", "contrast")

# On the measure of alignment.enhancement_hu a contrast scan gains 70 to 100 (made-up patients); two plain scans of real
# patients, moved against each other and smoothed by it, differ by up to 20.
ENHANCED_HU = 40.0
# Displacements worth a word: more than a voxel or two of SegRap's grids (0.5 x 0.5 x 3 mm is the finest in use, but
# 2 mm is where planning CTs are commonly accepted as matched), or more than one slice.
DISPLACED_MM = 2.0
TURNED_DEGREES = 1.5
LEAST_COVERED = 0.1

_BODY_HU = -200.0


@dataclass(frozen=True)
class CTPair:
    """What a model is given: one or two CTs on the grid of the non-contrast one.

    non_contrast: int16 (or float32) HU; with a single CT, that CT. contrast: on the grid of non_contrast, -1024 where
    it shows nothing; None for a single CT. The series are there for scans that came as DICOM. alignment_mm: how far
    the edges of skin and bone in both scans lie apart on average; None for a single CT or where it cannot be measured.
    remarks: sentences for the user.
    """

    non_contrast: Image
    contrast: Image | None
    non_contrast_series: CTSeries | None
    contrast_series: CTSeries | None
    alignment_mm: float | None
    remarks: tuple[str, ...]

    def images(self, channels: Sequence[str]) -> list[np.ndarray]:
        """The arrays (z, y, x) for a model's channels ("non_contrast", "contrast"), in their order.

        A model of one channel gets the only CT there is; of a pair, the one it names. Raises InputError when a model
        wants both and there is one CT.
        """
        if self.contrast is None:
            if len(channels) > 1:
                raise InputError(
                    "This model wants a non-contrast and a contrast CT, and only one CT was given. Give both, or "
                    "choose a model for one CT."
                )
            return [self.non_contrast.array]
        arrays = {"non_contrast": self.non_contrast.array, "contrast": self.contrast.array}
        return [arrays[channel] for channel in channels]


@dataclass(frozen=True)
class _Scan:
    """One CT as it was given; `name` is what messages call it."""

    name: str
    image: Image
    series: CTSeries | None

    @property
    def stated_contrast(self) -> bool | None:
        """What the description says in words, else whether a contrast agent is stated; None when nothing does."""
        if self.series is None:
            return None
        described = describes_contrast(self.series.description)
        return described if described is not None else (self.series.has_contrast_tag or None)


def load_pair(non_contrast: str | Path, contrast: str | Path | None = None) -> CTPair:
    """Read one CT or a pair; each path is a DICOM folder or an image file.

    One folder alone may hold both series: the contrast scan is known by its tags, else by its brighter vessels.

    Raises InputError for everything that cannot be used; see the module.
    """
    if contrast is None:
        scans = _read(Path(non_contrast))
        if len(scans) == 1:
            return _single(scans[0])
        return _pair(*_told_apart(scans))
    if Path(non_contrast).resolve() == Path(contrast).resolve():
        raise InputError(f"Both scans are the same: {non_contrast}. Give the non-contrast and the contrast CT.")
    return _pair(_read_one(Path(non_contrast)), _read_one(Path(contrast)))


def pair_images(
    non_contrast: Image, contrast: Image | None = None, names: tuple[str, str] = ("non-contrast CT", "contrast CT")
) -> CTPair:
    """One CT or a pair that is in memory already, after the same checks as files; `names` is what messages call them.

    Raises InputError for everything that cannot be used; see the module.
    """
    scans = []
    for name, image in zip(names, (non_contrast, contrast), strict=True):
        if image is not None:
            _check_hounsfield(image, name)
            scans.append(_Scan(name, image, None))
    return _pair(*scans) if len(scans) == 2 else _single(scans[0])


def _check_hounsfield(image: Image, name: str) -> None:
    fault = hounsfield_fault(image.array)
    if fault:
        raise InputError(f"{name} is not a CT in Hounsfield units: {fault}. Give the CT itself.")


def _read(path: Path) -> list[_Scan]:
    """The one CT at `path`, or the two in a folder that holds a pair."""
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.is_file():
        if is_dicom(path):
            raise InputError(f"{path.name} is one DICOM file of many. Give the folder that holds the whole series.")
        image = read_image(path)
        _check_hounsfield(image, path.name)
        return [_Scan(path.name, image, None)]
    found = read_series_folder(path)
    if len(found) > 2:
        raise InputError(f"{path} holds {len(found)} CT series ({_listed(found)}). Give the folder of one series.")
    if len(found) == 2 and found[0].frame_of_reference_uid != found[1].frame_of_reference_uid:
        raise InputError(
            f"{path} holds two CT series of different Frames of Reference ({_listed(found)}), which need not be a "
            "pair. Give the folder of each."
        )
    return [_Scan(_name(series, several=len(found) > 1), series.image(), series) for series in found]


def _read_one(path: Path) -> _Scan:
    scans = _read(path)
    if len(scans) > 1:
        listed = _listed([scan.series for scan in scans if scan.series])
        raise InputError(f"{path} holds {len(scans)} CT series ({listed}). Give a folder with one of them.")
    return scans[0]


def _single(scan: _Scan) -> CTPair:
    remarks = list(scan.series.remarks) if scan.series else []
    if scan.stated_contrast:
        remarks.append("The only CT given was taken with a contrast agent, by its tags.")
    return CTPair(scan.image, None, scan.series, None, None, tuple(remarks))


def _told_apart(scans: Sequence[_Scan]) -> tuple[_Scan, _Scan]:
    """(non-contrast, contrast): by what the tags say, else by which one has the brighter vessels."""
    first, second = scans
    if bool(first.stated_contrast) != bool(second.stated_contrast):
        return (second, first) if first.stated_contrast else (first, second)
    gain = _gain_hu(first.image, second.image)
    if abs(gain) < ENHANCED_HU:
        raise InputError(
            f"Neither {first.name} nor {second.name} says that it is the contrast scan, and their vessels are equally "
            f"bright (they differ by {abs(gain):.0f} HU). Give the folder of each: non-contrast first."
        )
    return (first, second) if gain > 0 else (second, first)


def _gain_hu(first: Image, second: Image) -> float:
    views = around_body(coarse_view(first)), around_body(coarse_view(second))
    return enhancement_hu(views[0].array, second_on_first(*views, measure_alignment(*views)))


def tell_apart(first: Image, second: Image) -> tuple[int, int] | None:
    """Which of two CTs in memory is the (non-contrast, contrast) one, as 0 or 1, by their vessels; None: not plain."""
    if hounsfield_fault(first.array) or hounsfield_fault(second.array):
        return None
    gain = _gain_hu(first, second)
    if abs(gain) < ENHANCED_HU:
        return None
    return (0, 1) if gain > 0 else (1, 0)


@dataclass(frozen=True)
class Comparison:
    """How two CTs lie to each other: mean distance of their edges (None: not measurable), how much brighter vessels
    are in the second, and sentences for the user."""

    alignment_mm: float | None
    gain_hu: float
    remarks: tuple[str, ...]


def compare_images(
    non_contrast: Image, contrast: Image, names: tuple[str, str] = ("non-contrast CT", "contrast CT")
) -> Comparison:
    """What `pair_images` would find out and refuse, without making the pair: fast, and nothing large is copied.

    Raises InputError as `pair_images` does.
    """
    for name, image in zip(names, (non_contrast, contrast), strict=True):
        _check_hounsfield(image, name)
    return _compare(_Scan(names[0], non_contrast, None), _Scan(names[1], contrast, None))


def _pair(plain: _Scan, enhanced: _Scan) -> CTPair:
    """Both scans on the grid of `plain`, after all checks of one against the other."""
    remarks = [remark for scan in (plain, enhanced) if scan.series for remark in scan.series.remarks]
    found = _compare(plain, enhanced)
    remarks += found.remarks
    contrast = enhanced.image
    if not same_grid(plain.image.geometry, plain.image.shape, contrast.geometry, contrast.shape):
        contrast = resample(contrast, plain.image.geometry, plain.image.shape)
        remarks.append("The contrast scan was resampled onto the grid of the non-contrast scan.")
    return CTPair(plain.image, contrast, plain.series, enhanced.series, found.alignment_mm, tuple(remarks))


def _compare(plain: _Scan, enhanced: _Scan) -> Comparison:
    """All checks of one scan against the other."""
    _check_two_scans_of_one_patient(plain, enhanced)
    views = around_body(coarse_view(plain.image)), coarse_view(enhanced.image)
    remarks = _coverage_remarks(*views)
    alignment = measure_alignment(*views)
    remarks += _alignment_remarks(alignment, plain, enhanced)
    gain = enhancement_hu(views[0].array, second_on_first(*views, alignment))
    remarks += _order_remarks(gain, plain, enhanced)
    return Comparison(None if alignment is None else round(alignment.displacement_mm, 2), gain, tuple(remarks))


def _check_two_scans_of_one_patient(plain: _Scan, enhanced: _Scan) -> None:
    same_voxels = np.array_equal(plain.image.array, enhanced.image.array)
    if plain.series and enhanced.series:
        if plain.series.series_uid == enhanced.series.series_uid:
            same_voxels = True
        patients = [str(scan.series.headers[0].get("PatientID", "")) for scan in (plain, enhanced) if scan.series]
        if all(patients) and patients[0] != patients[1]:
            raise InputError(
                f"{plain.name} and {enhanced.name} carry different patient IDs. Give two scans of one patient."
            )
    if same_voxels:
        raise InputError(f"{plain.name} and {enhanced.name} are the same scan. Give the non-contrast and contrast CT.")


def _coverage_remarks(plain: Image, enhanced: Image) -> list[str]:
    """What part of the body the contrast scan does not show; InputError when it shows nearly nothing of it."""
    body = plain.array > _BODY_HU
    shown = body & covered(plain, enhanced)
    share = int(np.count_nonzero(shown)) / max(1, int(np.count_nonzero(body)))
    if share < LEAST_COVERED:
        raise InputError(
            f"The two scans do not overlap: the contrast scan shows {share:.0%} of what the non-contrast scan shows. "
            "Give two scans of one examination, with their coordinates as the scanner wrote them."
        )
    if share > 0.995:
        return []
    # Slices with a body of which not even half is shown; each coarse slice stands for some of the scan.
    bare = np.count_nonzero(shown.sum(axis=(1, 2)) < 0.5 * body.sum(axis=(1, 2)))
    slices = f", and leaves out {bare * plain.geometry.spacing_mm[2]:.0f} mm at the ends" if bare else ""
    return [
        f"The contrast scan shows only {share:.0%} of the body in the non-contrast scan{slices}; contours rest on the "
        "non-contrast scan alone there."
    ]


def _alignment_remarks(alignment: Alignment | None, plain: _Scan, enhanced: _Scan) -> list[str]:
    frames = [scan.series.frame_of_reference_uid if scan.series else "" for scan in (plain, enhanced)]
    other_frame = all(frames) and frames[0] != frames[1]
    remarks = []
    if alignment is None:
        remarks.append(
            "How well the two scans lie on each other could not be measured: they show too few edges of bone and skin."
        )
    elif alignment.likeness < LEAST_LIKENESS:
        raise InputError(
            f"{plain.name} and {enhanced.name} do not show the same patient: wherever they are put, they correlate by "
            f"{max(0.0, alignment.likeness):.2f} (two scans of one patient by 0.9 or more). Check which scans belong "
            "together."
        )
    elif _is_displaced(alignment, plain.image):
        x, y, z = alignment.shift_mm
        turned = f" and turned by {alignment.turn_degrees:.1f} degrees" * (alignment.turn_degrees > TURNED_DEGREES)
        remarks.append(
            f"The contrast scan is displaced by {alignment.displacement_mm:.1f} mm (x {x:.1f}, y {y:.1f}, z {z:.1f})"
            f"{turned} against the non-contrast scan; contours that need both may be off by as much. Register the "
            "scans first."
        )
    if other_frame:
        measured = "" if alignment is None else f" (bone and skin lie {alignment.displacement_mm:.1f} mm apart)"
        remarks.append(f"The two scans state different Frames of Reference; their coordinates were trusted{measured}.")
    return remarks


def _is_displaced(alignment: Alignment, image: Image) -> bool:
    along_axes = np.abs(image.geometry.direction.T @ alignment.shift_mm)
    slice_mm = image.geometry.spacing_mm[2]
    return bool(
        np.hypot(along_axes[0], along_axes[1]) > DISPLACED_MM
        or along_axes[2] > max(DISPLACED_MM, slice_mm)
        or alignment.displacement_mm > max(DISPLACED_MM, slice_mm)
    )


def _order_remarks(gain: float, plain: _Scan, enhanced: _Scan) -> list[str]:
    """InputError when the scans were given in the wrong order by their voxels; a remark when these do not show it.

    Words alone refuse nothing: scanners state a contrast agent for plain scans, too.
    """
    if gain < -ENHANCED_HU:
        raise InputError(
            f"The two scans seem to be swapped: vessels in {plain.name}, given as the non-contrast scan, are "
            f"{-gain:.0f} HU brighter than in {enhanced.name}. Give the non-contrast scan first.",
            "order",
        )
    if gain > ENHANCED_HU:
        return []
    remark = f"No enhancement was found in the contrast scan (vessels differ by {gain:.0f} HU)."
    if plain.stated_contrast and not enhanced.stated_contrast:
        remark += (
            " By their tags it is the scan given as the non-contrast one that was taken with a contrast agent, and the "
            "other that was not: check that they are not swapped."
        )
    return [remark]


def _name(series: CTSeries, several: bool) -> str:
    if several or not series.folder.name:
        return f"the series '{series.description or series.series_uid}'"
    return series.folder.name


def _listed(found: Sequence[CTSeries]) -> str:
    return "; ".join(f"'{series.description or 'no description'}', {len(series.files)} slices" for series in found)
