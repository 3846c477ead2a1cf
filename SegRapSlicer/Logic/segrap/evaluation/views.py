"""Pictures of contours on the CT: axial, coronal and sagittal, in the radiological convention, true to scale.

The patient's right is on the picture's left, the front on the left of a sagittal view, the head at the top; pixels are
square in millimetres whatever the voxels are. Numpy and Pillow only. No surfaces: a face could be recognised.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from segrap import anatomy
from segrap.contours import Contours
from segrap.errors import InputError
from segrap.geometry import same_grid
from segrap.image import AxisOrder, Image


class Plane(NamedTuple):
    """A cut through a (z, y, x) volume: the array axis it goes through, those down and across, and the sides' letters.

    upside_down: the axis that goes down grows towards the head, so the picture shows it from its end. sides: what the
    left, right, top and bottom of the picture are in the patient.
    """

    name: str
    through: int
    down: int
    across: int
    upside_down: bool
    sides: tuple[str, str, str, str]


AXIAL = Plane("axial", 0, 1, 2, False, ("R", "L", "A", "P"))
CORONAL = Plane("coronal", 1, 0, 2, True, ("R", "L", "S", "I"))
SAGITTAL = Plane("sagittal", 2, 0, 1, True, ("A", "P", "S", "I"))
PLANES = (AXIAL, CORONAL, SAGITTAL)


class Window(NamedTuple):
    """Grey levels: black below level - width / 2, white above level + width / 2, in HU."""

    width: float
    level: float


SOFT_TISSUE = Window(400, 40)
BRAIN = Window(160, 40)
BONE = Window(2500, 500)

_BONY = ("MiddleEar", "IAC", "TympanicCavity", "VestibulSemi", "Cochlea", "ETbone", "Mandible", "Mastoid", "TMjoint")
_IN_THE_SKULL = ("Brain", "BrainStem", "Chiasm", "TemporalLobe", "Hippocampus", "Pituitary")

SMALLEST_FIELD_MM = 60.0
# Field of view over the extent of the structure in the slice: leaves a third of the picture to its surroundings.
FIELD_OVER_EXTENT = 1.5
_BAR_LENGTHS_MM = (100, 50, 20, 10, 5, 2, 1)


def window_for(name: str) -> Window:
    """The grey levels in which a doctor looks at this structure."""
    stem = name.removesuffix("_L").removesuffix("_R")
    return BONE if stem in _BONY else BRAIN if stem in _IN_THE_SKULL else SOFT_TISSUE


class Frame(NamedTuple):
    """What a picture shows of a plane: its borders in voxels (edges, not centres, of row and column), and its size."""

    top: float
    left: float
    bottom: float
    right: float
    height_px: int
    width_px: int


@dataclass(frozen=True)
class Place:
    """A structure's extent in the patient-ordered volume: bounding box and centre of mass, (z, y, x) index."""

    box: tuple[slice, slice, slice]
    centre: tuple[float, float, float]


class Views:
    """Draws pictures of a CT and its contours. All are turned once into the patient's axis order (views, no copies).

    contrast: the contrast scan, if there is one; targets are shown on it.
    Raises InputError when they are not on the same grid.
    """

    def __init__(self, image: Image, contours: Contours, contrast: Image | None = None) -> None:
        for scan in (image, contrast or image):
            if not same_grid(scan.geometry, scan.shape, contours.geometry, contours.shape):
                raise InputError("The CT and the contours are not on the same grid; they cannot be shown together.")
        order = AxisOrder.towards_lps(contours.geometry)
        turned = order.turn(image)
        x_mm, y_mm, z_mm = turned.geometry.spacing_mm
        self.spacing_zyx_mm = (z_mm, y_mm, x_mm)
        self.ct = turned.array
        self.contrast_ct = None if contrast is None else order.apply(contrast.array)
        self.contours = contours
        self.layers = order.apply(contours.layers)
        self.places = {
            name: self._place(name, order) for name, facts in contours.structures.items() if facts.box is not None
        }

    def _place(self, name: str, order: AxisOrder) -> Place:
        mask, old_box = self.contours.mask_in_box(name)
        mask = order.apply(mask)
        box = []
        for axis, old_axis in enumerate(order.transposition):
            start, stop, extent = old_box[old_axis].start, old_box[old_axis].stop, self.ct.shape[axis]
            box.append(slice(extent - stop, extent - start) if axis in order.flips else slice(start, stop))
        centre = []
        for axis in range(3):
            counts = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
            centre.append(box[axis].start + float(np.average(np.arange(len(counts)), weights=counts)))
        return Place((box[0], box[1], box[2]), (centre[0], centre[1], centre[2]))

    def shown_on_contrast(self, name: str) -> bool:
        """Whether `of_structure` shows this structure on the contrast scan."""
        return self.contrast_ct is not None and anatomy.structure(name).is_target

    def of_structure(self, name: str, plane: Plane, side_px: int) -> Pillow.Image:
        """A square picture around a structure in the slice through its centre of mass; its outline bold, others thin.

        Where the structure has no voxel in that slice, the nearest one that has is shown.
        """
        place = self.places[name]
        counts = np.count_nonzero(
            self._mask(name, place.box), axis=tuple(axis for axis in range(3) if axis != plane.through)
        )
        filled = np.flatnonzero(counts) + place.box[plane.through].start
        index = int(filled[np.abs(filled - place.centre[plane.through]).argmin()])
        at = list(place.box)
        at[plane.through] = slice(index, index + 1)
        in_slice = self._mask(name, (at[0], at[1], at[2])).squeeze(plane.through)
        rows, columns = (np.flatnonzero(in_slice.any(axis=axis)) for axis in (1, 0))
        row_mm, column_mm = self.spacing_zyx_mm[plane.down], self.spacing_zyx_mm[plane.across]
        extent_mm = max((np.ptp(rows) + 1) * row_mm, (np.ptp(columns) + 1) * column_mm)
        field_mm = max(SMALLEST_FIELD_MM, FIELD_OVER_EXTENT * extent_mm)
        row = place.box[plane.down].start + (rows[0] + rows[-1] + 1) / 2
        column = place.box[plane.across].start + (columns[0] + columns[-1] + 1) / 2
        half_rows, half_columns = field_mm / row_mm / 2, field_mm / column_mm / 2
        frame = Frame(row - half_rows, column - half_columns, row + half_rows, column + half_columns, side_px, side_px)
        return self.draw(plane, index, frame, window_for(name), bold=name)

    def draw(
        self,
        plane: Plane,
        index: int,
        frame: Frame,
        window: Window,
        bold: str | None = None,
        fill: float = 0.0,
    ) -> Pillow.Image:
        """One slice with all contours. bold: draw this one boldly and the others thinly. fill: opacity of the areas."""
        scan = self.contrast_ct if bold is not None and self.shown_on_contrast(bold) else self.ct
        grey = _resized((self.ct if scan is None else scan).take(index, axis=plane.through), frame, window)
        canvas = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)
        names = [name for name, place in self.places.items() if _in_slice(place, plane, index)]
        for name in sorted(names, key=lambda name: name == bold):
            width = 1.6 if bold is None else 2.6 if name == bold else 1.1
            self._paint(canvas, name, plane, index, frame, width, fill)
        if plane.upside_down:
            canvas = canvas[::-1]
        picture = Pillow.fromarray(np.rint(canvas).clip(0, 255).astype(np.uint8))
        _annotate(picture, plane, (frame.right - frame.left) * self.spacing_zyx_mm[plane.across])
        return picture

    def _paint(
        self, canvas: np.ndarray, name: str, plane: Plane, index: int, frame: Frame, width_px: float, fill: float
    ) -> None:
        box = self.places[name].box
        rows, columns = box[plane.down], box[plane.across]
        scale_y = frame.height_px / (frame.bottom - frame.top)
        scale_x = frame.width_px / (frame.right - frame.left)
        # The pixels that the structure can reach: its box and a rim that takes the line, inside the picture.
        rim = 2 + int(np.ceil(2 / min(scale_y, scale_x)))
        offset_y, offset_x = rows.start - rim, columns.start - rim
        top, left = _first_pixel(offset_y, frame.top, scale_y), _first_pixel(offset_x, frame.left, scale_x)
        bottom = min(int((rows.stop + rim - frame.top) * scale_y), frame.height_px)
        right = min(int((columns.stop + rim - frame.left) * scale_x), frame.width_px)
        if bottom - top < 2 or right - left < 2:
            return
        at = list(box)
        at[plane.through] = slice(index, index + 1)
        mask = self._mask(name, (at[0], at[1], at[2])).squeeze(plane.through)
        if not mask.any():
            return
        pixel_mm = (self.spacing_zyx_mm[plane.down], self.spacing_zyx_mm[plane.across])
        source = Pillow.fromarray(_depth_mm(np.pad(mask, rim), pixel_mm))
        # Inside the source but for rounding, which Pillow does not forgive.
        corners = (
            max(left / scale_x + frame.left - offset_x, 0.0),
            max(top / scale_y + frame.top - offset_y, 0.0),
            min(right / scale_x + frame.left - offset_x, source.width),
            min(bottom / scale_y + frame.top - offset_y, source.height),
        )
        level = np.asarray(source.resize((right - left, bottom - top), Pillow.Resampling.BICUBIC, box=corners))
        slope_y, slope_x = np.gradient(level)
        distance = np.abs(level) / np.maximum(np.hypot(slope_y, slope_x), 1e-4)
        region = canvas[top:bottom, left:right]
        colour = np.array(anatomy.structure(name).colour, dtype=np.float32)
        if width_px > 2:  # a dark rim keeps the line apart from bone of its own brightness
            region *= 1.0 - 0.6 * np.clip((width_px + 2.0) / 2 + 0.5 - distance, 0, 1)[:, :, None]
        opacity = np.maximum(np.clip(width_px / 2 + 0.5 - distance, 0, 1), fill * (level > 0))[:, :, None]
        region += opacity * (colour - region)

    def _mask(self, name: str, box: tuple[slice, slice, slice]) -> np.ndarray:
        facts = self.contours.structures[name]
        return self.layers[facts.layer][box] == facts.value


def _first_pixel(edge: float, frame_edge: float, scale: float) -> int:
    return max(int(np.ceil((edge - frame_edge) * scale)), 0)


def _in_slice(place: Place, plane: Plane, index: int) -> bool:
    box = place.box[plane.through]
    return bool(box.start <= index < box.stop)


def _resized(cut: np.ndarray, frame: Frame, window: Window) -> np.ndarray:
    """The part of a slice that the frame shows, as grey levels (height_px, width_px); black beyond the scan."""
    margin = 4
    top, left = int(np.floor(frame.top)) - margin, int(np.floor(frame.left)) - margin
    bottom, right = int(np.ceil(frame.bottom)) + margin, int(np.ceil(frame.right)) + margin
    rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
    part = cut[rows, columns].astype(np.float32)
    grey = ((part - (window.level - window.width / 2)) * (255 / window.width)).clip(0, 255).astype(np.uint8)
    whole = np.zeros((bottom - top, right - left), dtype=np.uint8)
    first_row, first_column = rows.start - top, columns.start - left
    whole[first_row : first_row + grey.shape[0], first_column : first_column + grey.shape[1]] = grey
    box = (frame.left - left, frame.top - top, frame.right - left, frame.bottom - top)
    size = (frame.width_px, frame.height_px)
    return np.asarray(Pillow.fromarray(whole).resize(size, Pillow.Resampling.BICUBIC, box=box))


def _depth_mm(inside: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """How deep inside the structure (above 0) or how far outside (below 0) every voxel of a slice lies.

    The line at 0 between the voxels is smooth where slices are thick; the steps of the voxels are rounded off, but
    every voxel stays on its own side of the line, so that no speck gets lost.
    """
    sharp = ndimage.distance_transform_edt(inside, pixel_mm) - ndimage.distance_transform_edt(~inside, pixel_mm)
    soft = sharp
    for axis in (0, 1):
        soft = ndimage.convolve1d(soft, (0.25, 0.5, 0.25), axis, mode="nearest")
    # At least half of the depth stays: what is one voxel thin is drawn one voxel thin, not as a hair.
    return np.where(inside, np.maximum(soft, sharp / 2), np.minimum(soft, sharp / 2)).astype(np.float32)


def _annotate(picture: Pillow.Image, plane: Plane, width_mm: float) -> None:
    draw = ImageDraw.Draw(picture)
    width, height, pad = picture.width, picture.height, 4
    font = font_of(min(max(12, min(width, height) // 22), 18))
    left, right, top, bottom = plane.sides
    for letter, place, anchor in (
        (left, (pad, height / 2), "lm"),
        (right, (width - pad, height / 2), "rm"),
        (top, (width / 2, pad), "ma"),
        (bottom, (width / 2, height - pad), "md"),
    ):
        draw.text(place, letter, (255, 255, 160), font, anchor, stroke_width=1, stroke_fill=(0, 0, 0))
    bar_mm = next(length for length in _BAR_LENGTHS_MM if length <= width_mm / 4)
    bar_px = bar_mm * width / width_mm
    y = height - 2 * pad
    draw.line((2 * pad, y, 2 * pad + bar_px, y), (0, 0, 0), 4)
    draw.line((2 * pad, y, 2 * pad + bar_px, y), (255, 255, 255), 2)
    draw.text((2 * pad, y - 3), f"{bar_mm} mm", (255, 255, 255), font, "ld", stroke_width=2, stroke_fill=(0, 0, 0))


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters of all pictures, of that height in pixels."""
    return ImageFont.load_default(size)
