"""The patients of a SegRap2023 or SegRap2025 download, whatever its layout.

The parts of a patient are told by names, wherever under the folder they lie:

    .../segrap_0000/image.nii.gz, image_contrast.nii.gz, <structure>.nii.gz       training set
    .../*Update*/.../segrap_0000/<structure>.nii.gz                               corrected organs, released later
    .../Task001*/segrap_0000.nii.gz, .../Task002*/segrap_0000.nii.gz              volumes of sub-class ids, of targets
    .../head-neck-ct/segrap_0120.mha, .../head-neck-contrast-enhanced-ct/...      validation set
    .../segrap_0120.nii.gz elsewhere                                              SegRap2025: a volume of targets

"_cropped" after a patient's number is passed over, and so are folders that `convert` has written. Two files that would
be the same part of a patient (two downloads in one folder, or numbers that a later challenge gave anew) are never
chosen between: see `Patient.twice`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segrap import anatomy
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import Image, read_image

PATIENT = re.compile(r"(segrap_(?:nc_|ce_)?\d{4})(?:_cropped)?", re.IGNORECASE)
ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
CONVERSION = "conversion.json"
"""The file by which a folder that `convert` has written is known."""


@dataclass
class Patient:
    """The files of one patient. masks: the contours as first released, updated: as corrected later (organs only).

    strays: what bears the patient's name or lies in its folders and is no part of it by its own name, such as a
    download's "Brain (1).nii.gz", "segrap_0000 (1).nii.gz" or folder "segrap_0000 (1)".
    twice: pairs of files that claim to be the same part.
    """

    name: str
    non_contrast: Path | None = None
    contrast: Path | None = None
    masks: dict[str, Path] = field(default_factory=dict)
    updated: dict[str, Path] = field(default_factory=dict)
    subclasses: Path | None = None
    targets: Path | None = None
    strays: list[Path] = field(default_factory=list)
    twice: list[tuple[Path, Path]] = field(default_factory=list)

    @property
    def has_one_scan_by_name(self) -> bool:
        """True for SegRap2025's patients of whom there is a non-contrast (nc) or a contrast (ce) scan only."""
        return re.match("segrap_(nc|ce)_", self.name) is not None

    @property
    def best_masks(self) -> dict[str, Path]:
        """A file per structure, the corrected one where there is one, in table order."""
        return {name: path for name in anatomy.NAMES if (path := self.updated.get(name) or self.masks.get(name))}

    @property
    def sources(self) -> dict[str, Path]:
        """The file that each structure is taken from, in table order: its best mask, else the volume with its kind."""
        masks = self.best_masks
        volume = {True: self.targets, False: self.subclasses}
        return {s.name: path for s in anatomy.STRUCTURES if (path := masks.get(s.name) or volume[s.is_target])}

    @property
    def has_parts(self) -> bool:
        """False when all there is are strays."""
        return bool(self.non_contrast or self.contrast or self.sources)

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Those of the structures of which there is neither a mask nor a volume."""
        sources = self.sources
        return [name for name in names if name not in sources]

    @property
    def number(self) -> int:
        """The last four digits of its name."""
        return int(self.name[-4:])

    def take(self, part: str, path: Path) -> None:
        """Note a file as one of the parts above, unless that part is there already."""
        known = getattr(self, part)
        if known is None:
            setattr(self, part, path)
        else:
            self.twice.append((known, path))

    def take_mask(self, masks: dict[str, Path], structure: str, path: Path) -> None:
        """Note the mask of a structure in `masks` (one of the two above), unless there is one already."""
        if masks.setdefault(structure, path) != path:
            self.twice.append((masks[structure], path))

    def refuse_twice(self) -> None:
        """Raise InputError when two files claim to be the same part."""
        for one, other in self.twice:
            raise InputError(f"{self.name} has two files for one thing: {one} and {other}. Move one of them away.")


def find_patients(folder: str | Path) -> dict[str, Patient]:
    """All patients under a folder by name, sorted.

    Raises InputError when the folder does not exist, or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.")
    patients: dict[str, Patient] = {}
    for place, folders, names in os.walk(folder):
        if CONVERSION in names:
            folders.clear()
            continue
        folders.sort()
        inside = Path(place).relative_to(folder).parts
        for name in sorted(names):
            if name.endswith(ENDINGS) and not name.startswith("."):
                _sort_in(patients, Path(place) / name, inside)
    if not any(patient.has_parts for patient in patients.values()):
        raise InputError(
            f"{folder} holds no patient of SegRap: no folder segrap_0000 with image.nii.gz, no file segrap_0000.nii.gz "
            "or .mha. Give the folder into which the archives were unpacked."
        )
    return dict(sorted(patients.items()))


def _sort_in(patients: dict[str, Patient], path: Path, inside: tuple[str, ...]) -> None:
    stem = _stem(path)
    above = [part.casefold() for part in inside]

    def patient(named: re.Match[str]) -> Patient:
        name = named[1].casefold()
        return patients.setdefault(name, Patient(name))

    if named := PATIENT.fullmatch(stem):
        if "head-neck-ct" in above:
            patient(named).take("non_contrast", path)
        elif "head-neck-contrast-enhanced-ct" in above:
            patient(named).take("contrast", path)
        elif any(part.startswith("task001") for part in above):
            patient(named).take("subclasses", path)
        else:
            patient(named).take("targets", path)
    elif named := PATIENT.match(stem):
        patient(named).strays.append(path)
    elif inside and (named := PATIENT.match(inside[-1])):
        own = patient(named)
        structure = anatomy.find_structure(stem)
        if not PATIENT.fullmatch(inside[-1]):
            if path.parent not in own.strays:
                own.strays.append(path.parent)
        elif stem == "image":
            own.take("non_contrast", path)
        elif stem == "image_contrast":
            own.take("contrast", path)
        elif structure is None:
            own.strays.append(path)
        else:
            corrected = any("update" in part for part in above)
            own.take_mask(own.updated if corrected else own.masks, structure.name, path)


class MasksOnDisk(Mapping[str, np.ndarray]):
    """Masks (z, y, x) bool by structure, each read when it is asked for: all at once would take gigabytes.

    files: as `Patient.best_masks` or `Patient.sources` gives them. like: the image that they must lie on.
    Reading raises InputError for a file that is damaged, on another grid, or a volume with values of no meaning.
    """

    def __init__(self, files: Mapping[str, Path], like: Image) -> None:
        self._files, self._like = files, like
        self._volumes: dict[Path, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        path = self._files[name]
        if not PATIENT.fullmatch(_stem(path)):
            return read_on_grid(path, self._like).array > 0
        structure = anatomy.structure(name)
        if path not in self._volumes:
            self._volumes[path] = read_volume(path, self._like, of_targets=structure.is_target)
        return np.isin(self._volumes[path], values_in_volume(structure))

    def __contains__(self, name: object) -> bool:  # without reading it, as Mapping would
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def values_in_volume(structure: anatomy.Structure) -> tuple[int, ...]:
    """What a structure's voxels hold in the volume of sub-classes, or of targets."""
    return (structure.channel + 1,) if structure.is_target else structure.subclasses


def read_volume(path: Path, like: Image, of_targets: bool) -> np.ndarray:
    """A volume of targets (0 to 2) or of the organs' sub-classes (0 to 54) that lies on an image; (z, y, x) uint8.

    Raises InputError where it does not, or holds other values.
    """
    labels = read_on_grid(path, like).array
    if fault := volume_fault(labels, of_targets):
        raise InputError(f"{path.parent.name}/{path.name} {fault}.")
    return labels.astype(np.uint8)


def volume_fault(labels: np.ndarray, of_targets: bool) -> str | None:
    """Why the voxels are no volume of targets, or of the organs' sub-classes, in words; None when they are."""
    lowest, most = labels.min(), labels.max()
    highest = max(n for s in anatomy.STRUCTURES if s.is_target == of_targets for n in values_in_volume(s))
    if lowest >= 0 and most <= highest and (labels.dtype.kind != "f" or np.array_equal(labels, np.rint(labels))):
        return None
    lymph_nodes = " (SegRap2025's lymph node levels are not known here)" if of_targets and 2 < most <= 6 else ""
    return f"holds values {lowest:g} to {most:g}; only whole numbers 0 to {highest} mean something{lymph_nodes}"


def read_on_grid(path: Path, like: Image) -> Image:
    """An image that must lie on the grid of another. Raises InputError where it does not."""
    image = read_image(path)
    if not same_grid(image.geometry, image.shape, like.geometry, like.shape):
        raise InputError(f"{path.parent.name}/{path.name} does not lie on the grid of the patient's image.")
    return image


def _stem(path: Path) -> str:
    return path.name[: path.name.index(".")]
