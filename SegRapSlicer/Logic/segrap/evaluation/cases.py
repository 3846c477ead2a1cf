"""Contours to be scored, found on disk: one case or a folder of cases, in the formats of segrap and the challenge.

A case is a .seg.nrrd, a 4-D challenge stack, a 3-D volume of labels, an RTSTRUCT or DICOM SEG beside its CT, or a
folder of per-structure NIfTI masks; or a folder that holds one of these, as `segrap contour` leaves it. Labels mean
what nnU-Net's `dataset.json` beside them (or one folder up) says; without one they are the challenge's sub-class ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segrap import anatomy
from segrap.contour_files.formats import CHALLENGE_FILES, read_challenge_mha, read_nifti_folder
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.ct.dicom_series import is_dicom, read_series_folder
from segrap.dicom_seg.read import read_dicom_seg, segmented_on
from segrap.dicom_seg.write import SEGMENTATION_STORAGE
from segrap.errors import InputError, ModelError
from segrap.image import AxisOrder, Image, read_image
from segrap.midline import split_sides
from segrap.models.labels import read_labels
from segrap.rtstruct.contents import RT_STRUCTURE_SET_STORAGE
from segrap.rtstruct.read import drawn_on, read_rtstruct

Kind = Literal["segmentation", "stack", "labels", "masks", "RTSTRUCT", "DICOM SEG"]

_LABEL_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
_MASK_ENDINGS = (".nii.gz", ".nii")
# The challenge's volumes for its second task hold these ids and no others.
_TARGET_IDS = {1: "GTVp", 2: "GTVnd"}
_SOP_CLASSES: dict[Kind, str] = {"RTSTRUCT": RT_STRUCTURE_SET_STORAGE, "DICOM SEG": SEGMENTATION_STORAGE}


class Case(NamedTuple):
    """Contours of one patient on disk: what the case is called, the file or folder, and how that is to be read.

    names: {SegRap name: name} of the site that wrote it, for RTSTRUCT and DICOM SEG.
    """

    name: str
    path: Path
    kind: Kind
    names: Mapping[str, str] = {}

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


def find_cases(path: str | Path, names: Mapping[str, str] | None = None) -> CaseSet:
    """What there is to read at `path`: one case, or a folder with one case per file or subfolder.

    names: what a site calls its structures in DICOM, see `segrap.naming`.
    Raises InputError when there is none, or when two have one name.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    alone = _recognise(path)
    if alone:
        return CaseSet({alone.name: alone._replace(names=names or {})}, False)
    cases: dict[str, Case] = {}
    for child in sorted(path.iterdir()) if path.is_dir() else ():
        case = None if child.name.startswith(".") else _recognise(child)
        if case and case.name in cases:
            raise InputError(f"{path} holds the case {case.name} twice: {cases[case.name].path.name} and {child.name}.")
        if case:
            cases[case.name] = case._replace(names=names or {})
    if not cases:
        raise InputError(
            f"{path} holds no contours: no .seg.nrrd, no challenge stack (.mha), no masks named after structures "
            "(Parotid_L.nii.gz), no volume of labels, no RTSTRUCT or DICOM SEG, and no folder with one of these."
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
    kinds = {file: _dicom_kind(file) for file in sorted(path.iterdir())}
    for kind in _SOP_CLASSES:
        found = [file for file in kinds if kinds[file] == kind]
        if len(found) > 1:
            raise InputError(f"{path} holds {len(found)} files of the kind {kind}. Leave the one that is meant.")
        if found:
            return Case(path.name, found[0], kind)
    return None


def _kind_of_file(path: Path) -> Kind | None:
    name = path.name.lower()
    if name.endswith(".seg.nrrd"):
        return "segmentation"
    if name.endswith(".mha") and not _has_three_axes(path):
        return "stack"
    if name.endswith(_LABEL_ENDINGS):
        return "labels"
    return _dicom_kind(path)


def _has_three_axes(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2000).replace(b" ", b"")
    return b"NDims=3\n" in start


def _is_mask(path: Path) -> bool:
    return path.name.endswith(_MASK_ENDINGS) and anatomy.find_structure(_stem(path)) is not None


def _dicom_kind(path: Path) -> Kind | None:
    # The SOP class stands in the first kilobytes of a file.
    if not path.is_file() or not is_dicom(path):
        return None
    with path.open("rb") as file:
        start = file.read(4096)
    return next((kind for kind, uid in _SOP_CLASSES.items() if uid.encode() in start), None)


def _stem(path: Path) -> str:
    for ending in (".seg.nrrd", *_LABEL_ENDINGS, ".dcm"):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def read_case(case: Case, ct_folders: tuple[Path, ...] = ()) -> Contours:
    """The contours of a case. ct_folders: where else the CT of an RTSTRUCT or a DICOM SEG may lie than beside it.

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
        return _read_dicom(case, ct_folders)
    except InputError as error:
        raise InputError(f"Case {case.name}: {error}") from error


def _read_labels(path: Path) -> Contours:
    """A 3-D volume of labels: of nnU-Net's where its dataset.json is found, else of the challenge's."""
    image = read_image(path)
    descriptions = (folder / "dataset.json" for folder in (path.parent, path.parent.parent))
    description = next((file for file in descriptions if file.is_file()), None)
    if description:
        return _described_labels(image, path.name, description)
    labels = _checked(
        image,
        path.name,
        max(anatomy.SUBCLASSES),
        "the ids of SegRap's sub-classes, or 1 for GTVp and 2 for GTVnd; or, where nnU-Net's dataset.json lies beside "
        "it, that one's",
    )
    if labels.max() <= max(_TARGET_IDS):
        meaning: dict[str, tuple[int, ...]] = {name: (number,) for number, name in _TARGET_IDS.items()}
        remark = "Read as the challenge's targets: 1 for GTVp, 2 for GTVnd."
    else:
        with_targets = any(number in labels for target in anatomy.TARGETS for number in target.subclasses)
        meaning = {s.name: s.subclasses for s in (anatomy.STRUCTURES if with_targets else anatomy.ORGANS)}
        remark = "Read as the ids of SegRap's exclusive sub-classes (its OneHot volumes)."

    def masks() -> Iterator[tuple[str, np.ndarray]]:
        for name, numbers in meaning.items():
            table = np.zeros(256, dtype=bool)
            table[list(numbers)] = True
            yield name, table[labels]

    return Contours.from_masks(masks(), image.geometry, Provenance(remarks=(remark,)), origin="imported")


def _checked(image: Image, name: str, highest: int, meaning: str) -> np.ndarray:
    """The labels (z, y, x) uint8 of a volume that holds whole numbers from 0 to `highest` and nothing else."""
    low, high = float(image.array.min()), float(image.array.max())
    labels = image.array.astype(np.uint8) if low >= 0 and high <= highest else np.zeros(0, dtype=np.uint8)
    if not np.array_equal(labels, image.array):
        raise InputError(
            f"{name} holds values from {low:g} to {high:g}. A volume of labels holds the whole numbers 0 to {highest}: "
            f"{meaning}. Is it the CT?"
        )
    return labels


def _described_labels(image: Image, name: str, description: Path) -> Contours:
    """Labels as nnU-Net's dataset.json, and a segrap.json beside it, explain them; see `segrap.models.labels`."""
    facts = description.with_name("segrap.json")
    try:
        content, explained = (
            json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {} for file in (description, facts)
        )
        plan = read_labels(content, explained).output_plan()
    except (OSError, ValueError, ModelError) as fault:
        raise InputError(f"What the labels of {name} are cannot be read from {description}: {fault}") from fault
    layers = plan.table[:, _checked(image, name, plan.table.shape[1] - 1, f"those of {description}")]
    order = AxisOrder.towards_lps(image.geometry)
    spacing = order.turn(image).geometry.spacing_mm[::-1]
    remarks = split_sides(order.apply(layers), plan.placement, plan.pairs, spacing)
    provenance = Provenance(remarks=(f"Read as the labels of {description.name}.", *remarks))
    return Contours.from_layers(layers, image.geometry, plan.placement, provenance, origin="imported")


def _read_dicom(case: Case, ct_folders: tuple[Path, ...]) -> Contours:
    """An RTSTRUCT or a DICOM SEG, on the first CT that is found beside it or in one of the folders."""
    without_ct = ""
    for folder in dict.fromkeys((case.folder, *ct_folders)):
        try:
            series = read_series_folder(folder)
        except InputError as error:
            without_ct = without_ct or str(error)
            continue
        if case.kind == "DICOM SEG":
            return read_dicom_seg(case.path, segmented_on(case.path, series), case.names)
        return read_rtstruct(case.path, drawn_on(case.path, series), case.names)
    raise InputError(f"{case.path.name} needs the CT that it was drawn on, in the folder where it lies. {without_ct}")
