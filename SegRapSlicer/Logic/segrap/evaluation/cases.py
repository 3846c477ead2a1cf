"""Contours to be scored, found on disk: one case or a folder of cases, in the formats of segrap and the challenge.

A case is a .seg.nrrd, a 4-D challenge stack, a 3-D volume of labels, an RTSTRUCT or DICOM SEG beside its CT, or a
folder of per-structure NIfTI masks; or a folder that holds one of these, as `segrap contour` leaves it, or as clinics
keep it, with a folder per series. Labels mean what nnU-Net's `dataset.json` says: beside them, one folder up, or in the
model's folder above a fold's validation; without one they are the challenge's sub-class ids.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segrap import anatomy
from segrap.contour_files.formats import CHALLENGE_FILES, read_challenge_mha, read_nifti_folder
from segrap.contour_files.seg_nrrd import read_seg_nrrd
from segrap.contours import Contours, Provenance
from segrap.ct.dicom_pixels import DAMAGE
from segrap.ct.dicom_series import CT_IMAGE_STORAGE, is_dicom, read_series_folder
from segrap.dicom_seg.read import read_dicom_seg, segmented_on
from segrap.dicom_seg.write import SEGMENTATION_STORAGE
from segrap.errors import InputError, ModelError
from segrap.evaluation.scans import is_scan, scanned_case
from segrap.image import AxisOrder, Image, read_image
from segrap.midline import split_sides
from segrap.models.labels import read_labels
from segrap.rtstruct.contents import RT_STRUCTURE_SET_STORAGE
from segrap.rtstruct.read import drawn_on, read_rtstruct

Kind = Literal["segmentation", "stack", "labels", "masks", "RTSTRUCT", "DICOM SEG"]

_LABEL_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
_MASK_ENDINGS = (".nii.gz", ".nii")
_TARGET_IDS = {1: "GTVp", 2: "GTVnd"}
"""The challenge's volumes for its second task hold these ids and no others."""
# Where nnU-Net keeps what a model predicted of its own training patients; the model's folder lies above.
_OF_FOLDS = re.compile(r"(fold|crossval_results_folds)_(\d|all)")
_SOP_CLASSES: dict[Kind, str] = {"RTSTRUCT": RT_STRUCTURE_SET_STORAGE, "DICOM SEG": SEGMENTATION_STORAGE}


class Case(NamedTuple):
    """Contours of one patient on disk: what the case is called, the file or folder, and how that is to be read.

    names: {SegRap name: name} of the site that wrote it, for RTSTRUCT and DICOM SEG. home: the patient's folder, where
    the contours lie deeper in it.
    """

    name: str
    path: Path
    kind: Kind
    names: Mapping[str, str] = {}
    home: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the files of the case lie."""
        return self.home or (self.path if self.path.is_dir() else self.path.parent)

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

    A volume that is the CT of a case beside it (CASE_0000.nii.gz; CASE.nii.gz beside CASE.seg.nrrd) is no case.
    names: what a site calls its structures in DICOM, see `segrap.naming`.
    Raises InputError when there is none, or when two have one name.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    alone = _recognise(path)
    if alone:
        return CaseSet({alone.name: alone._replace(names=names or {})}, False)
    children = [child for child in sorted(path.iterdir()) if child.name[0] != "."] if path.is_dir() else []
    found = [case for child in children if (case := _recognise(child) or _recognise_below(child))]
    cases: dict[str, Case] = {}
    for case in _without_scans(found):
        if case.name in cases:
            both = " and ".join(str(one.path.relative_to(path)) for one in (cases[case.name], case))
            raise InputError(f"{path} holds the case {case.name} twice: {both}.")
        cases[case.name] = case._replace(names=names or {})
    if not cases:
        raise InputError(
            f"{path} holds no contours: no .seg.nrrd, no challenge stack (.mha), no masks named after structures "
            "(Parotid_L.nii.gz), no volume of labels, no RTSTRUCT or DICOM SEG, and no folder with one of these."
        )
    only = next(iter(cases.values()))
    if len(cases) == 1 and only.kind in _SOP_CLASSES and not _holds_ct(only.folder) and _holds_ct(path):
        only = only._replace(name=_name_of(path), home=path)  # `path` is a patient, with a folder per series
        return CaseSet({only.name: only}, False)
    return CaseSet(cases, True)


def _without_scans(found: Sequence[Case]) -> Iterator[Case]:
    names = {case.name for case in found}
    contoured = {case.name for case in found if case.kind != "labels"}
    for case in found:
        if case.kind == "labels" and scanned_case(case.name) in names:
            continue
        if case.kind == "labels" and case.name in contoured and is_scan(case.path):
            continue
        yield case


def _recognise(path: Path) -> Case | None:
    if path.is_file():
        kind = _kind_of_file(path)
        return Case(stem_of(path), path, kind) if kind else None
    if not path.is_dir():
        return None
    if (path / "contours.seg.nrrd").is_file():
        return Case(_name_of(path), path / "contours.seg.nrrd", "segmentation")
    if any((path / name).is_file() for name in CHALLENGE_FILES):
        return Case(_name_of(path), path, "stack")
    for folder in (path, path / "nifti"):
        if folder.is_dir() and any(_is_mask(file) for file in folder.iterdir()):
            return Case(_name_of(path), folder, "masks")
    return _dicom_case(path, path.iterdir())


def _recognise_below(path: Path) -> Case | None:
    """A case in a patient's folder: a .seg.nrrd of any name, or DICOM contours in a folder of their own."""
    if not path.is_dir():
        return None
    segmentations = [file for file in path.iterdir() if file.name.lower().endswith(".seg.nrrd")]
    if segmentations:
        return Case(path.name, _only(segmentations, ".seg.nrrd", path), "segmentation")
    return _dicom_case(path, path.rglob("*"))


def _dicom_case(path: Path, files: Iterable[Path]) -> Case | None:
    classes = {file: sop_class for file in sorted(files) if (sop_class := _sop_class(file, _SOP_CLASSES.values()))}
    for kind, wanted in _SOP_CLASSES.items():
        found = [file for file, sop_class in classes.items() if sop_class == wanted]
        if found:
            return Case(_name_of(path), _only(found, kind, path), kind, home=path)
    return None


def _only(found: Sequence[Path], kind: str, path: Path) -> Path:
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} files of the kind {kind}. Leave the one that is meant.")
    return found[0]


def _name_of(folder: Path) -> str:
    return folder.resolve().name if folder.name in ("", "..") else folder.name


def _kind_of_file(path: Path) -> Kind | None:
    name = path.name.lower()
    if name.endswith(".seg.nrrd"):
        return "segmentation"
    if name.endswith(".mha") and not _has_three_axes(path):
        return "stack"
    if name.endswith(_LABEL_ENDINGS):
        return "labels"
    sop_class = _sop_class(path, _SOP_CLASSES.values())
    return next((kind for kind, wanted in _SOP_CLASSES.items() if wanted == sop_class), None)


def _has_three_axes(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2000).replace(b" ", b"")
    return b"NDims=3\n" in start


def _is_mask(path: Path) -> bool:
    return path.name.endswith(_MASK_ENDINGS) and anatomy.find_structure(stem_of(path)) is not None


def _holds_ct(folder: Path) -> bool:
    return any(_sop_class(file, [CT_IMAGE_STORAGE]) for file in folder.rglob("*"))


def _sop_class(path: Path, wanted: Iterable[str]) -> str | None:
    """Which of the wanted SOP classes (UIDs) a file is of; None: of none, or no DICOM file."""
    if not path.is_file() or not is_dicom(path):
        return None
    with path.open("rb") as file:
        start = file.read(4096)
        if not any(uid.encode() in start for uid in wanted):  # many files are looked at, and few are parsed
            return None
        import pydicom

        stated = None
        file.seek(0)
        try:  # any object may name the classes of those that it refers to: only its own attribute tells
            if start[128:132] == b"DICM":
                stated = pydicom.filereader.read_file_meta_info(path).get("MediaStorageSOPClassUID")
            if not stated:
                stated = pydicom.filereader.read_partial(file, _is_past_sop_class, force=True).get("SOPClassUID")
        except (*DAMAGE, zlib.error, pydicom.errors.BytesLengthException):
            return None
    return next((uid for uid in wanted if uid == stated), None)


def _is_past_sop_class(tag: int, *_: object) -> bool:
    return tag > 0x00080016


def stem_of(path: Path) -> str:
    """The name of a file of contours without its ending."""
    for ending in (".seg.nrrd", *_LABEL_ENDINGS, ".dcm"):
        if path.name.lower().endswith(ending) and path.name != ending:
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
    folder = path.parent.resolve()
    folders = (folder, *folder.parents)
    fold = next((number for number, one in enumerate(folders[:3]) if _OF_FOLDS.match(one.name)), None)
    searched = folders[: 2 if fold is None else fold + 2]
    description, facts = (_nearest(name, searched) for name in ("dataset.json", "segrap.json"))
    if description:
        return _described_labels(image, path.name, description, facts)
    if fold is not None:
        raise InputError(
            f"{path.name} lies in {folders[fold].name}, where nnU-Net keeps predictions in the labels of a model, and "
            f"no dataset.json says what these are. Copy the model's dataset.json (and segrap.json) into {path.parent}."
        )
    labels = _label_array(
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


def _nearest(name: str, folders: Iterable[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _label_array(image: Image, name: str, highest: int, meaning: str) -> np.ndarray:
    """The labels (z, y, x) uint8 of a volume that holds whole numbers from 0 to `highest` and nothing else.

    Raises InputError, with the name of the file and what its numbers should mean, for any other volume.
    """
    low, high = float(image.array.min()), float(image.array.max())
    labels = image.array.astype(np.uint8) if low >= 0 and high <= highest else np.zeros(0, dtype=np.uint8)
    if not np.array_equal(labels, image.array):
        raise InputError(
            f"{name} holds values from {low:g} to {high:g}. A volume of labels holds the whole numbers 0 to {highest}: "
            f"{meaning}. Is it the CT?"
        )
    return labels


def _described_labels(image: Image, name: str, description: Path, facts: Path | None) -> Contours:
    """Labels as nnU-Net's dataset.json, and a segrap.json (facts), explain them; see `segrap.models.labels`."""
    try:
        content, explained = (
            json.loads(file.read_text(encoding="utf-8")) if file else {} for file in (description, facts)
        )
        plan = read_labels(content, explained).output_plan()
    except (OSError, ValueError, ModelError) as fault:
        raise InputError(f"What the labels of {name} are cannot be read from {description}: {fault}") from fault
    layers = plan.table[:, _label_array(image, name, plan.table.shape[1] - 1, f"those of {description}")]
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
