"""Contours to be scored, found on disk: one case or a folder of cases, in the formats of segrap and the challenge.

A case is a .seg.nrrd, a 4-D challenge stack, a 3-D volume of sub-class ids, an RTSTRUCT beside its CT, or a folder of
per-structure NIfTI masks; or a folder that holds one of these, as `segrap contour` leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segrap import anatomy
from segrap.contour_files.formats import CHALLENGE_FILES, read_challenge_mha, read_nifti_folder
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.ct.dicom_series import is_dicom, read_series_folder
from segrap.errors import InputError
from segrap.image import read_image
from segrap.rtstruct.read import drawn_on, read_rtstruct

Kind = Literal["segmentation", "stack", "labels", "masks", "RTSTRUCT"]

_LABEL_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
_MASK_ENDINGS = (".nii.gz", ".nii")
# The challenge's volumes for its second task hold these ids and no others.
_TARGET_IDS = {1: "GTVp", 2: "GTVnd"}


class Case(NamedTuple):
    """Contours of one patient on disk: what the case is called, the file or folder, and how that is to be read."""

    name: str
    path: Path
    kind: Kind

    @property
    def folder(self) -> Path:
        """Where the files of the case lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the contours, in order of their names."""
        if self.path.is_file():
            return (self.path,)
        if self.kind == "stack":
            return tuple(self.path / name for name in sorted(CHALLENGE_FILES) if (self.path / name).is_file())
        return tuple(file for file in sorted(self.path.iterdir()) if _is_mask(file))


class CaseSet(NamedTuple):
    """The cases of a path. is_folder_of_cases: False when the path itself was one case."""

    cases: dict[str, Case]
    is_folder_of_cases: bool


def find_cases(path: str | Path) -> CaseSet:
    """What there is to read at `path`: one case, or a folder with one case per file or subfolder.

    Raises InputError when there is none, or when two have one name.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    alone = _recognise(path)
    if alone:
        return CaseSet({alone.name: alone}, False)
    cases: dict[str, Case] = {}
    for child in sorted(path.iterdir()) if path.is_dir() else ():
        case = None if child.name.startswith(".") else _recognise(child)
        if case and case.name in cases:
            raise InputError(f"{path} holds the case {case.name} twice: {cases[case.name].path.name} and {child.name}.")
        if case:
            cases[case.name] = case
    if not cases:
        raise InputError(
            f"{path} holds no contours: no .seg.nrrd, no challenge stack (.mha), no masks named after structures "
            "(Parotid_L.nii.gz), no volume of sub-class ids, no RTSTRUCT, and no folder with one of these."
        )
    return CaseSet(cases, True)


def _recognise(path: Path) -> Case | None:
    if path.is_file():
        kind = _kind_of_file(path)
        return Case(_stem(path), path, kind) if kind else None
    if (path / "contours.seg.nrrd").is_file():
        return Case(path.name, path / "contours.seg.nrrd", "segmentation")
    if any((path / name).is_file() for name in CHALLENGE_FILES):
        return Case(path.name, path, "stack")
    for folder in (path, path / "nifti"):
        if folder.is_dir() and any(_is_mask(file) for file in folder.iterdir()):
            return Case(path.name, folder, "masks")
    structure_sets = [file for file in sorted(path.iterdir()) if _is_structure_set(file)]
    if len(structure_sets) > 1:
        raise InputError(f"{path} holds {len(structure_sets)} RTSTRUCTs. Leave the one that is meant.")
    return Case(path.name, structure_sets[0], "RTSTRUCT") if structure_sets else None


def _kind_of_file(path: Path) -> Kind | None:
    name = path.name.lower()
    if name.endswith(".seg.nrrd"):
        return "segmentation"
    if name.endswith(".mha") and not _has_three_axes(path):
        return "stack"
    if name.endswith(_LABEL_ENDINGS):
        return "labels"
    return "RTSTRUCT" if _is_structure_set(path) else None


def _has_three_axes(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2000).replace(b" ", b"")
    return b"NDims=3\n" in start


def _is_mask(path: Path) -> bool:
    return path.name.endswith(_MASK_ENDINGS) and anatomy.find_structure(_stem(path)) is not None


def _is_structure_set(path: Path) -> bool:
    # The SOP class of an RTSTRUCT stands in the first kilobytes of the file.
    if not path.is_file() or not is_dicom(path):
        return False
    with path.open("rb") as file:
        return b"1.2.840.10008.5.1.4.1.1.481.3" in file.read(4096)


def _stem(path: Path) -> str:
    for ending in (".seg.nrrd", *_LABEL_ENDINGS, ".dcm"):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def read_case(case: Case, ct_folders: tuple[Path, ...] = ()) -> Contours:
    """The contours of a case. ct_folders: where else the CT of an RTSTRUCT may lie than beside it.

    Raises InputError, which names the case.
    """
    try:
        if case.kind == "segmentation":
            return read_seg_nrrd(case.path)
        if case.kind == "stack":
            return read_challenge_mha(case.path)
        if case.kind == "masks":
            return read_nifti_folder(case.path)
        if case.kind == "labels":
            return _read_labels(case.path)
        return _read_structure_set(case.path, ct_folders)
    except InputError as error:
        raise InputError(f"Case {case.name}: {error}") from error


def _read_labels(path: Path) -> Contours:
    """A 3-D volume of exclusive ids: the 54 sub-classes (55 and 56 for the targets), or GTVp 1 and GTVnd 2 alone."""
    image = read_image(path)
    highest = max(anatomy.SUBCLASSES)
    low, high = float(image.array.min()), float(image.array.max())
    labels = image.array.astype(np.uint8) if low >= 0 and high <= highest else np.zeros(0, dtype=np.uint8)
    if not np.array_equal(labels, image.array):
        raise InputError(
            f"{path.name} holds values from {low:g} to {high:g}. A volume of labels holds the whole numbers 0 to "
            f"{highest}: the ids of SegRap's sub-classes, or 1 for GTVp and 2 for GTVnd. Is it the CT?"
        )
    if high <= max(_TARGET_IDS):
        meaning: dict[str, tuple[int, ...]] = {name: (number,) for number, name in _TARGET_IDS.items()}
        remark = f"{path.name} was read as the challenge's targets: 1 for GTVp, 2 for GTVnd."
    else:
        with_targets = any(number in labels for target in anatomy.TARGETS for number in target.subclasses)
        meaning = {s.name: s.subclasses for s in (anatomy.STRUCTURES if with_targets else anatomy.ORGANS)}
        remark = f"{path.name} was read as the ids of SegRap's exclusive sub-classes (its OneHot volumes)."

    def masks() -> Iterator[tuple[str, np.ndarray]]:
        for name, numbers in meaning.items():
            table = np.zeros(256, dtype=bool)
            table[list(numbers)] = True
            yield name, table[labels]

    return Contours.from_masks(masks(), image.geometry, Provenance(remarks=(remark,)), origin="imported")


def _read_structure_set(path: Path, ct_folders: tuple[Path, ...]) -> Contours:
    without_ct = ""
    for folder in dict.fromkeys((path.parent, *ct_folders)):
        try:
            series = read_series_folder(folder)
        except InputError as error:
            without_ct = without_ct or str(error)
            continue
        return read_rtstruct(path, drawn_on(path, series))
    raise InputError(f"{path.name} needs the CT that it was drawn on, in the folder where it lies. {without_ct}")
