"""The review of a segmentation in a scene: what to look at, where, and how far the reader has come.

Findings, volumes and places are kept in a tag of each segment, the status where Slicer itself keeps it, so all of it
comes back with a saved scene. They are those of the last check: an edit does not change them until the next one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segrap import anatomy
from segrap.contours import Contours
from segrap.geometry import Geometry
from segrap.quality.findings import Finding, Kind, Place

NOT_STARTED, IN_PROGRESS, DONE, FLAGGED = range(4)
"""The values of vtkSlicerSegmentationsModuleLogic's SegmentStatus."""

TAG = "SegRap.Review"
STATUS_TAG = "Segmentation.Status"
DIMMED = 0.15

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Remark:
    """A finding as the reader meets it; place_ras: mm, in the segmentation's own coordinates, None if it has none."""

    kind: Kind
    severity: str
    message: str
    place_ras: Point | None


@dataclass(frozen=True)
class ReviewRow:
    """One segment. volume_cc is None and remarks are empty for segments that were never checked (drawn, imported).

    colour: red, green, blue, 0 to 1. place_ras: where to look first, mm.
    """

    segment_id: str
    name: str
    colour: Point
    is_target: bool
    status: int
    volume_cc: float | None
    remarks: tuple[Remark, ...]
    place_ras: Point | None

    @property
    def wants_a_look(self) -> bool:
        """True when it is not done, and a check found more than a note or the reader flagged it."""
        serious = any(remark.severity != "note" for remark in self.remarks)
        return self.status != DONE and (serious or self.status == FLAGGED)


def note_findings(node: Any, contours: Contours, findings: Sequence[Finding]) -> None:
    """Keep the findings on `contours` with the segments of a vtkMRMLSegmentationNode that holds them."""
    import slicer

    with slicer.util.NodeModify(node):
        for name, facts in contours.structures.items():
            segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(name)
            if not segment_id:  # removed or renamed since
                continue
            middle = facts.box and tuple((axis.start + axis.stop - 1) // 2 for axis in facts.box)
            entries = {
                "volume_cc": facts.volume_cc,
                "middle": _ras(contours.geometry, middle),
                "remarks": [
                    (finding.kind, finding.severity, finding.message, _ras(contours.geometry, finding.where))
                    for finding in findings
                    if finding.structure == name
                ],
            }
            text = json.dumps(entries).replace("|", r"\u007c")  # which separates tags in Slicer's files
            node.GetSegmentation().GetSegment(segment_id).SetTag(TAG, text)


def review_tags(node: Any) -> dict[str, dict[str, str]]:
    """The review of every SegRap structure in a vtkMRMLSegmentationNode as its segment's tags, by structure."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    found = [(anatomy.find_structure(segment.GetName()), segment) for segment in segments]
    return {
        structure.name: {key: value for key in (TAG, STATUS_TAG) if (value := _tag(segment, key))}
        for structure, segment in found
        if structure
    }


def review_rows(node: Any) -> list[ReviewRow]:
    """One row per segment of a vtkMRMLSegmentationNode, in its order."""
    import slicer

    segmentation = node.GetSegmentation()
    rows = []
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        kept = _kept(segment)
        structure = anatomy.find_structure(segment.GetName())
        remarks = tuple(
            Remark(kind, severity, message, place and tuple(place)) for kind, severity, message, place in kept[1]
        )
        places = [remark.place_ras for remark in remarks if remark.place_ras] + [kept[2]] * bool(kept[2])
        rows.append(
            ReviewRow(
                segment_id=segmentation.GetNthSegmentID(number),
                name=segment.GetName(),
                colour=segment.GetColor(),
                is_target=structure is not None and structure.is_target,
                status=slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment),
                volume_cc=kept[0],
                remarks=remarks,
                place_ras=places[0] if places else None,
            )
        )
    return rows


def set_status(node: Any, segment_id: str, status: int) -> None:
    """Set a segment's review status: NOT_STARTED, IN_PROGRESS, DONE or FLAGGED."""
    import slicer

    slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(node.GetSegmentation().GetSegment(segment_id), status)


def not_reviewed(node: Any) -> list[str]:
    """Names of the segments that nobody has accepted, targets first."""
    rows = [row for row in review_rows(node) if row.status != DONE]
    return [row.name for row in sorted(rows, key=lambda row: not row.is_target)]


def look_at(node: Any, place_ras: Point) -> None:
    """Bring all slice views to a place of a segmentation, in its own coordinates (RAS mm)."""
    import slicer

    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(list(place_ras), world)
    slicer.vtkMRMLSliceNode.JumpAllSlices(node.GetScene(), *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def dim_all_but(node: Any, segment_ids: Sequence[str]) -> None:
    """Show these segments in full and the others faintly; all in full when none is given."""
    import slicer

    display = node.GetDisplayNode()
    if display is None:
        return
    with slicer.util.NodeModify(display):
        for segment_id in node.GetSegmentation().GetSegmentIDs():
            faint = bool(segment_ids) and segment_id not in segment_ids
            display.SetSegmentOpacity2DFill(segment_id, DIMMED if faint else 1.0)
            display.SetSegmentOpacity2DOutline(segment_id, DIMMED if faint else 1.0)


def _kept(segment: Any) -> tuple[float | None, list[Any], Point | None]:
    text = _tag(segment, TAG)
    if not text:
        return None, [], None
    entries = json.loads(text)
    return entries["volume_cc"], entries["remarks"], entries["middle"] and tuple(entries["middle"])


def _tag(segment: Any, key: str) -> str:
    import vtk

    value = vtk.reference("")
    return str(value) if segment.GetTag(key, value) else ""


def _ras(geometry: Geometry, place: Place | tuple[int, ...] | None) -> list[float] | None:
    """The place (z, y, x) in RAS mm."""
    if place is None:
        return None
    x, y, z = geometry.to_lps(np.array(place[::-1])).tolist()
    return [round(-x, 2), round(-y, 2), round(z, 2)]
