"""Contours: what the engine makes and all else takes. A few label layers, their geometry, facts and provenance.

The 47 structures overlap by definition, so they are never flattened into one label volume: every structure is one value
in one of a few label layers (4 for all 47), and inside a layer no voxel belongs to two. Files are the business of
`segrap.contour_files`, MRML nodes of `segrap.scene`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from segrap import anatomy
from segrap.errors import InputError
from segrap.geometry import Geometry
from segrap.label_layers import NOWHERE, Box, LayerStack, keep_values, scan_layer

IntendedUse = Literal["demonstration", "research", "clinical"]
Origin = Literal["model", "edited", "drawn", "imported"]

# The two faces of a grid that lie across each patient axis, towards its lower and its upper end (LPS).
_FACES = (("right", "left"), ("front", "back"), ("feet", "head"))


@dataclass(frozen=True)
class Provenance:
    """Where contours come from. Written into every file that is made from them.

    model_name is "" for contours that no model of ours made (drawn, or read from a file that does not say).
    model_hash: of the model's files, "sha256:" and 64 digits. created: ISO 8601, UTC. software: "segrap x.y.z".
    engine: what ran the network, with its precision, for example "torch 2.13.0 on CPU, float32". input_series_uids: of
    the CT series, empty where the input was no DICOM. remarks: sentences for the reader (what was done to the inputs).
    """

    model_name: str = ""
    model_version: str = ""
    model_hash: str = ""
    intended_use: IntendedUse = "research"
    licence: str = ""
    created: str = ""
    software: str = ""
    engine: str = ""
    input_series_uids: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.intended_use not in get_args(IntendedUse):
            raise InputError(f"Intended use '{self.intended_use}' is none of {', '.join(get_args(IntendedUse))}.")

    @property
    def model_digest(self) -> str:
        """The digits of the model's SHA-256 alone: 64, as many as DICOM has room for."""
        return self.model_hash.removeprefix("sha256:")

    def to_json(self) -> str:
        """One line of JSON, plain ASCII, without the characters that separate fields in Slicer's tags."""
        return json.dumps(asdict(self), sort_keys=True).replace("|", r"\u007c")

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The inverse of `to_json`; what a later version states besides is left out.

        Raises InputError when `text` is not its work.
        """
        try:
            stated: dict[str, Any] = json.loads(text)
            entries = {one.name: stated[one.name] for one in fields(cls) if one.name in stated}
            for name in ("input_series_uids", "remarks"):
                entries[name] = tuple(str(item) for item in entries[name])
            return cls(**entries)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError("The note on where these contours come from is damaged; make the file again.") from error


@dataclass(frozen=True)
class StructureFacts:
    """Where a structure lives in the label layers and what is known of it without looking at the image.

    box: its bounding box as (z, y, x) slices, None when it is empty. cut_at: the faces of the scan that it touches
    ('left', 'right', 'front', 'back', 'feet', 'head' of the patient), where it may go on beyond the scan.
    fingerprint: a number that stands for exactly this set of voxels, by which a later edit is noticed.
    confidence, fold_disagreement: 0 to 1 as the engine measured them (`segrap.engine.confidence`), or None.
    origin: 'model'; 'edited' by a person afterwards; 'drawn' by a person; 'imported' from a file that does not say.
    model: which one made it ("name version") where several models made these contours, else "".
    """

    layer: int
    value: int
    voxels: int
    volume_cc: float
    box: Box | None
    cut_at: tuple[str, ...]
    fingerprint: int
    confidence: float | None = None
    fold_disagreement: float | None = None
    origin: Origin = "model"
    model: str = ""

    @property
    def touches_edge(self) -> bool:
        """True when a voxel of it lies on the first or last slice or on an in-plane border of the scan."""
        return bool(self.cut_at)


@dataclass(frozen=True)
class Contours:
    """Label layers (layer, z, y, x) uint8 on the grid of the non-contrast CT, with the facts of each structure in them.

    structures: in the order of the anatomy table. A name that is missing was not asked for or not covered by the model;
    an empty structure is there with volume 0. Every value above 0 in a layer belongs to one structure.
    left_out: names of segments of a file or node that are no SegRap structures and are therefore not in here; whoever
    reads contours tells the user about them.

    Make one with `from_layers` or `from_masks`, which compute the facts.
    """

    layers: np.ndarray
    geometry: Geometry
    structures: Mapping[str, StructureFacts]
    provenance: Provenance
    left_out: tuple[str, ...] = field(default=())

    @classmethod
    def from_layers(
        cls,
        layers: np.ndarray,
        geometry: Geometry,
        placement: Mapping[str, tuple[int, int]],
        provenance: Provenance,
        confidence: Mapping[str, float] | None = None,
        origin: Origin | Mapping[str, Origin] = "model",
        left_out: tuple[str, ...] = (),
        fold_disagreement: Mapping[str, float] | None = None,
    ) -> Contours:
        """Contours from label layers (layer, z, y, x) uint8 and the (layer, value from 1) of each structure in them.

        The array is kept, not copied, when it is contiguous. Volumes, boxes and cut faces are found in one pass.

        Raises InputError when a name is unknown, two structures share a place, a place is not in the layers, or a layer
        holds a value that belongs to no structure.
        """
        if layers.ndim != 4 or layers.dtype != np.uint8 or 0 in layers.shape[1:]:
            raise InputError(f"Label layers must be uint8 (layer, z, y, x); these are {layers.dtype} {layers.shape}.")
        _check_placement(placement, len(layers))
        layers = np.ascontiguousarray(layers)
        regions = [scan_layer(layer) for layer in layers]
        for number, found in enumerate(regions):
            stray = sorted(set(found) - {value for layer, value in placement.values() if layer == number})
            if stray:
                raise InputError(f"Label layer {number} holds the value {stray[0]}, which belongs to no structure.")
        structures = {}
        for name in anatomy.NAMES:
            if name not in placement:
                continue
            layer, value = placement[name]
            voxels, box, fingerprint = regions[layer].get(value, (0, None, 0))
            structures[name] = StructureFacts(
                layer=layer,
                value=value,
                voxels=voxels,
                volume_cc=voxels * geometry.voxel_volume_cc,
                box=box,
                cut_at=_faces_touched(box, layers.shape[1:], geometry),
                fingerprint=fingerprint,
                confidence=(confidence or {}).get(name),
                fold_disagreement=(fold_disagreement or {}).get(name),
                origin=origin if isinstance(origin, str) else origin[name],
            )
        return cls(layers, geometry, structures, provenance, left_out)

    @classmethod
    def from_masks(
        cls,
        masks: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]],
        geometry: Geometry,
        provenance: Provenance,
        confidence: Mapping[str, float] | None = None,
        origin: Origin | Mapping[str, Origin] = "model",
        left_out: tuple[str, ...] = (),
    ) -> Contours:
        """Contours from one mask (z, y, x) per structure, every overlap kept.

        masks: by name, or pairs of (name, mask), so that a generator need hold only one mask at a time. Voxels above 0
        belong to the structure. Where drawn structures overlap that should not, more layers are used.

        Raises InputError when a name is unknown or given twice, shapes differ, or there is no mask.
        """
        stack = LayerStack()
        for name, mask in masks.items() if isinstance(masks, Mapping) else masks:
            stack.add(name, mask)
        if not stack.layers:
            raise InputError("There is no structure in these contours.")
        return cls.from_layers(stack.take(), geometry, stack.placement, provenance, confidence, origin, left_out)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the grid."""
        _, z, y, x = self.layers.shape
        return z, y, x

    @property
    def names(self) -> tuple[str, ...]:
        """The structures in here, in table order, empty ones included."""
        return tuple(self.structures)

    @property
    def title(self) -> str:
        """What these contours are called wherever a person sees them: who made them and that nobody has checked."""
        model = f"{self.provenance.model_name} {self.provenance.model_version}".strip()
        if not model:
            source = "source not stated"
        elif self.provenance.intended_use == "demonstration":
            source = f"DEMONSTRATION MODEL {model}, not for clinical use"
        elif self.provenance.intended_use == "research":
            source = f"research model {model}"
        else:
            source = f"model {model}"
        return f"SegRap contours ({source}), not reviewed"

    def mask(self, name: str) -> np.ndarray:
        """The voxels of a structure, bool (z, y, x). Raises KeyError when it is not in here."""
        facts = self.structures[name]
        return self.layers[facts.layer] == facts.value

    def mask_in_box(self, name: str) -> tuple[np.ndarray, Box]:
        """The voxels of a structure inside its bounding box, and that box as (z, y, x) slices; both of size 0 if empty.

        At 1024 x 1024 a thousand times less to handle than `mask`. Raises KeyError when the structure is not in here.
        """
        facts = self.structures[name]
        box = facts.box or NOWHERE
        return self.layers[facts.layer][box] == facts.value, box

    def is_empty(self, name: str) -> bool:
        """True when the structure is in here but has no voxel. Raises KeyError when it is not in here."""
        return self.structures[name].voxels == 0

    def maker(self, name: str) -> str:
        """The model that made a structure, "name version"; "" where none did or none is stated.

        Raises KeyError when the structure is not in here.
        """
        facts = self.structures[name]
        if facts.origin not in ("model", "edited"):
            return ""
        return facts.model or f"{self.provenance.model_name} {self.provenance.model_version}".strip()

    def subset(self, names: Iterable[str]) -> Contours:
        """These contours with the named structures only; other structures' voxels and unused layers are gone.

        Raises KeyError when a name is not in here.
        """
        chosen = {name: self.structures[name] for name in names}
        chosen = {name: chosen[name] for name in self.structures if name in chosen}
        kept = sorted({facts.layer for facts in chosen.values()})
        layers = np.empty((len(kept), *self.shape), dtype=np.uint8)
        for number, layer in enumerate(kept):
            values = [facts.value for facts in chosen.values() if facts.layer == layer]
            layers[number] = keep_values(self.layers[layer], values)
        facts = {name: replace(old, layer=kept.index(old.layer)) for name, old in chosen.items()}
        return replace(self, layers=layers, structures=facts)


def _check_placement(placement: Mapping[str, tuple[int, int]], n_layers: int) -> None:
    unknown = sorted(set(placement) - set(anatomy.NAMES))
    if unknown:
        raise InputError(f"No such structure: {', '.join(unknown)}.")
    if not placement:
        raise InputError("There is no structure in these contours.")
    for name, (layer, value) in placement.items():
        if not (0 <= layer < n_layers and 1 <= value <= 255):
            raise InputError(f"{name} is said to be value {value} of label layer {layer}; there are {n_layers} layers.")
    if len(set(placement.values())) < len(placement):
        raise InputError("Two structures share one value of one label layer.")


def _faces_touched(box: Box | None, shape: tuple[int, ...], geometry: Geometry) -> tuple[str, ...]:
    faces = []
    for axis in range(3):  # x, y, z index axis; array axis 2 - axis
        if box is None:
            continue
        patient_axis = int(np.abs(geometry.direction[:, axis]).argmax())
        low, high = _FACES[patient_axis] if geometry.direction[patient_axis, axis] > 0 else _FACES[patient_axis][::-1]
        faces += [low] * (box[2 - axis].start == 0) + [high] * (box[2 - axis].stop == shape[2 - axis])
    return tuple(faces)
