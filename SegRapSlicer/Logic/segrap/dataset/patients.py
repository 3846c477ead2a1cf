"""The patients of a SegRap2023 or SegRap2025 download, whatever its layout.

The parts of a patient are told by names, wherever under the folder they lie:

    .../segrap_0000/image.nii.gz, image_contrast.nii.gz, <structure>.nii.gz       training set
    .../*Update*/.../segrap_0000/<structure>.nii.gz                               corrected organs, released later
    .../Task001*/segrap_0000.nii.gz, .../Task002*/segrap_0000.nii.gz              volumes of sub-class ids, of targets
    .../head-neck-ct/segrap_0120.mha, .../head-neck-contrast-enhanced-ct/...      validation set
    .../segrap_0120.nii.gz elsewhere                                              SegRap2025: a volume of targets

"_cropped" after a patient's number is passed over. Two files that would be the same part of a patient (two downloads in
one folder, or numbers that a later challenge gave anew) are never chosen between: see `Patient.twice`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segrap import anatomy
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import Image, read_image

PATIENT = re.compile(r"(segrap_(?:nc_|ce_)?\d{4})(?:_cropped)?", re.IGNORECASE)
ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")


@dataclass
class Patient:
    """The files of one patient. masks: the contours as first released, updated: as corrected later (organs only).

    strays: files in the patient's folders whose names say nothing, such as a download's "Brain (1).nii.gz".
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
        folders.sort()
        inside = Path(place).relative_to(folder).parts
        for name in sorted(names):
            if name.endswith(ENDINGS) and not name.startswith("."):
                _sort_in(patients, Path(place) / name, inside)
    if not patients:
        raise InputError(
            f"{folder} holds no patient of SegRap: no folder segrap_0000 with image.nii.gz, no file segrap_0000.nii.gz "
            "or .mha. Give the folder into which the archives were unpacked."
        )
    return dict(sorted(patients.items()))


def _sort_in(patients: dict[str, Patient], path: Path, inside: tuple[str, ...]) -> None:
    stem = path.name[: path.name.index(".")]
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
    elif inside and (named := PATIENT.fullmatch(inside[-1])):
        own = patient(named)
        structure = anatomy.find_structure(stem)
        if stem == "image":
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

    like: the image that they must lie on. Reading raises InputError for a file that is damaged or on another grid.
    """

    def __init__(self, files: Mapping[str, Path], like: Image) -> None:
        self._files, self._like = files, like

    def __getitem__(self, name: str) -> np.ndarray:
        return read_on_grid(self._files[name], self._like).array > 0

    def __contains__(self, name: object) -> bool:  # without reading it, as Mapping would
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_on_grid(path: Path, like: Image) -> Image:
    """An image that must lie on the grid of another. Raises InputError where it does not."""
    image = read_image(path)
    if not same_grid(image.geometry, image.shape, like.geometry, like.shape):
        raise InputError(f"{path.parent.name}/{path.name} does not lie on the grid of the patient's image.")
    return image
