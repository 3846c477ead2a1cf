"""What a SegRap structure is called and tagged as a segment of 3D Slicer: the same in its files and in its scene.

A segment's name is the structure's. Its tags, which Slicer keeps through editing and saving, hold the terminology, the
review status, and (under SegRap.*) where the contour comes from, so that a later edit is noticed and provenance is not
lost when a file is saved again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from segrap import anatomy
from segrap.contours import Contours, Origin, Provenance, StructureFacts
from segrap.errors import InputError
from segrap.geometry import Geometry

REPRESENTATION = "Binary labelmap"
REFERENCE_GEOMETRY = "Reference image geometry"
"""Name of the conversion parameter that holds the grid on which a segmentation is edited and exported."""

_ORIGIN, _FINGERPRINT, _CONFIDENCE, _DISAGREEMENT, _PROVENANCE, _MODEL = (
    f"SegRap.{word}" for word in ("Origin", "Fingerprint", "Confidence", "FoldDisagreement", "Provenance", "Model")
)
OUR_TAGS = (_ORIGIN, _FINGERPRINT, _CONFIDENCE, _DISAGREEMENT, _PROVENANCE, _MODEL)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LATERALITY = {"": "^^", "left": "SCT^7771000^Left", "right": "SCT^24028007^Right"}
TARGET_REGIONS = {"GTVp": "SCT^71836000^Nasopharynx", "GTVnd": "SCT^81105003^Cervical lymph node"}


def terminology(structure: anatomy.Structure) -> str:
    """Slicer's terminology entry: seven parts joined by ~, codes as scheme^value^meaning.

    Targets are a neoplasm (primary, secondary) with its region; organs an anatomical structure with its side.
    """
    category = "SCT^123037004^Anatomical Structure"
    side, region = _LATERALITY[structure.laterality], "^^"
    if structure.is_target:
        category, region = "SCT^49755003^Morphologically Altered Structure", TARGET_REGIONS[structure.name]
    kind = f"SCT^{structure.snomed[0]}^{structure.snomed[1]}"
    contexts = ("Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list")
    return "~".join((contexts[0], category, kind, side, contexts[1], region, "^^"))


def colour(structure: anatomy.Structure) -> tuple[float, float, float]:
    """Red, green, blue, 0 to 1."""
    red, green, blue = structure.colour
    return red / 255, green / 255, blue / 255


def tags(contours: Contours, name: str) -> dict[str, str]:
    """The tags of a structure's segment. Nothing that segrap makes has been reviewed: the status is "not started"."""
    facts = contours.structures[name]
    entries = {
        "TerminologyEntry": terminology(anatomy.structure(name)),
        "Segmentation.Status": "notstarted",
        _ORIGIN: facts.origin,
        _FINGERPRINT: str(facts.fingerprint),
        _PROVENANCE: contours.provenance.to_json(),
    }
    for tag, measured in ((_CONFIDENCE, facts.confidence), (_DISAGREEMENT, facts.fold_disagreement)):
        if measured is not None:
            entries[tag] = f"{measured:.4f}"
    if facts.model:
        entries[_MODEL] = facts.model.replace("|", " ")  # which separates tags
    return entries


def recognise(names: Sequence[str], where: str) -> tuple[dict[int, str], tuple[str, ...]]:
    """Which segments are SegRap structures: {position: structure name}, and the names of those that are none.

    Letter case does not matter. A renamed segment is taken by its new name only: what it used to be is no longer known.

    Raises InputError when two segments have one name or none is a SegRap structure.
    """
    known: dict[int, str] = {}
    left_out = []
    for position, name in enumerate(names):
        found = anatomy.find_structure(name)
        if found is None:
            left_out.append(name)
        elif found.name in known.values():
            raise InputError(f"{where} holds two segments named {found.name}. Rename or delete one of them.")
        else:
            known[position] = found.name
    if not known:
        listed = f" It holds {', '.join(names)}." if names else ""
        raise InputError(f"{where} holds no segment with a SegRap name (such as BrainStem or Parotid_L).{listed}")
    return known, tuple(left_out)


def stated_provenance(all_tags: Iterable[Mapping[str, str]], where: str) -> Provenance:
    """The provenance that the first tagged segment states; without one, a provenance that says so."""
    for entries in all_tags:
        if _PROVENANCE in entries:
            return Provenance.from_json(entries[_PROVENANCE])
    return Provenance(remarks=(f"Read from {where}, which does not say how these contours were made.",))


def settle_origins(contours: Contours, tags_of: Mapping[str, Mapping[str, str]]) -> Contours:
    """`contours` with origin and confidence from the tags of each structure's segment.

    A contour whose voxels are no longer those that were tagged has been edited; the model's confidence is not its own.
    """
    structures = {name: _settle(facts, tags_of[name]) for name, facts in contours.structures.items()}
    return replace(contours, structures=structures)


def _settle(facts: StructureFacts, entries: Mapping[str, str]) -> StructureFacts:
    known: dict[str, Origin] = {"model": "model", "edited": "edited", "drawn": "drawn"}
    origin = known.get(entries.get(_ORIGIN, ""), "imported")
    if origin == "model" and entries.get(_FINGERPRINT) != str(facts.fingerprint):
        origin = "edited"
    confidence, disagreement = (
        float(entries[tag]) if origin == "model" and tag in entries else None for tag in (_CONFIDENCE, _DISAGREEMENT)
    )
    model = entries.get(_MODEL, "") if origin in ("model", "edited") else ""
    return replace(facts, origin=origin, confidence=confidence, fold_disagreement=disagreement, model=model)


def index_to_ras(geometry: Geometry) -> np.ndarray:
    """4 x 4 matrix from (x, y, z) index to RAS millimetres, Slicer's patient axes."""
    return np.asarray(_LPS_TO_RAS @ geometry.index_to_lps)


def geometry_from_ras(index_to_ras_mm: np.ndarray) -> Geometry:
    """The geometry of a grid whose 4 x 4 matrix from (x, y, z) index to RAS millimetres is given."""
    matrix = _LPS_TO_RAS @ index_to_ras_mm
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.all(np.isfinite(matrix)) or not np.all(spacing > 0):
        raise InputError("The segmentation states a geometry that is none (a voxel of size 0 or not a number).")
    x, y, z = spacing.tolist()
    return Geometry((x, y, z), tuple(matrix[:3, 3].tolist()), matrix[:3, :3] / spacing)


def serialise_grid(geometry: Geometry, shape: tuple[int, int, int]) -> str:
    """A (z, y, x) grid as Slicer's conversion parameters write it: 16 matrix elements (RAS), then the extent."""
    z, y, x = shape
    numbers = [repr(float(value)) for value in index_to_ras(geometry).ravel()]
    return ";".join([*numbers, *(str(value) for value in (0, x - 1, 0, y - 1, 0, z - 1)), ""])


def parse_grid(text: str) -> tuple[Geometry, tuple[int, int, int]]:
    """The inverse of `serialise_grid`, for grids that Slicer wrote too: geometry and (z, y, x) shape.

    Raises InputError when the text is damaged.
    """
    try:
        numbers = [float(part) for part in text.split(";") if part]
        matrix = np.array(numbers[:16]).reshape(4, 4)
        x0, x1, y0, y1, z0, z1 = (int(value) for value in numbers[16:22])
    except ValueError as error:
        raise InputError("The reference geometry that the segmentation states is damaged. Save it again.") from error
    matrix[:3, 3] += matrix[:3, :3] @ np.array([x0, y0, z0])
    return geometry_from_ras(matrix), (z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)


def voxel_offset(inner: Geometry, outer: Geometry, where: str) -> tuple[int, int, int]:
    """Where voxel (0, 0, 0) of `inner` lies in `outer`, (z, y, x), when both are cut from one lattice of voxels.

    Raises InputError when they are not (within 0.01 voxel): nothing here resamples contours unasked.
    """
    step = np.linalg.inv(outer.index_to_lps[:3, :3]) @ inner.index_to_lps[:3, :3]
    exact = outer.to_index(np.asarray(inner.origin_mm))
    offset = np.rint(exact)
    if np.abs(step - np.eye(3)).max() > 1e-5 or np.abs(exact - offset).max() > 0.01:
        raise InputError(
            f"{where} does not lie on the voxels of its CT. In Slicer, set its geometry to the CT "
            "(Segment Editor: 'Specify geometry') and save it again."
        )
    x, y, z = offset.astype(int).tolist()
    return z, y, x
