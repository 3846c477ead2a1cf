"""The choice of the two CTs: filled in where the scene leaves no doubt, described, and measured beside the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from segrap.ct.pair import Comparison, compare_images, tell_apart
from segrap.errors import InputError, SegRapError
from segrap.scene.volumes import describe_pair, find_pair, image_of_volume, scan_volumes, volumes_of
from SegRapSlicerLib.dicom_database import ScanTags, scan_tags
from SegRapSlicerLib.panel import allow, sentence
from SegRapSlicerLib.side_job import SideJob


class Inputs:
    """Works the widgets of the Inputs box. changed: called when there is more to say about what is chosen."""

    def __init__(self, ui: Any, changed: Callable[[], None]) -> None:
        self._ui = ui
        self._changed = changed
        self._choices: Any = None
        self._job = SideJob(lambda progress: None)
        self._measured: tuple = ()
        self._found: Comparison | SegRapError | None = None
        self._looked_at: set[tuple] = set()
        ui.swapButton.clicked.connect(self._on_swap)

    @property
    def measuring(self) -> bool:
        """True while the volumes are compared."""
        return self._job.running

    def fill(self, choices: Any) -> None:
        """Choose the CT pair of the scene where nothing is chosen yet: by tags and names, else by enhancement."""
        self._choices = choices
        plain, enhanced = find_pair(slicer.mrmlScene, lambda node: scan_tags(node).states_contrast)
        if plain and not choices.nonContrast:
            choices.nonContrast = plain
        if enhanced and not choices.contrast and choices.nonContrast == plain:
            choices.contrast = enhanced
        volumes = scan_volumes(slicer.mrmlScene)
        if len(volumes) == 2 and not choices.contrast and choices.nonContrast in (None, *volumes):
            self._tell_apart(volumes)

    def show(self, choices: Any, running: bool) -> str:
        """Say what is chosen; returns why it cannot be contoured, "" when it can."""
        self._choices = choices
        plain, enhanced = choices.nonContrast, choices.contrast
        fault = ""
        try:
            words = describe_pair(plain, enhanced)
            if enhanced:
                words = f"{words} {self._compared(plain, enhanced)}"
        except SegRapError as error:
            advice = " " + _("Press Swap.") if error.about == "order" else ""
            words = fault = sentence(f"{error}{advice}")
        self._ui.inputsLabel.text = words
        allow(self._ui.swapButton, "" if enhanced and not running else _("There is nothing to exchange now."))
        return fault

    def close(self) -> None:
        """Let go of everything: the scene or the window closes."""
        self._job.drop()
        self._choices, self._found, self._measured = None, None, ()
        self._looked_at.clear()

    def _compared(self, plain: Any, enhanced: Any) -> str:
        """What tags and voxels say about the pair; starts to measure when that was not done. Raises what forbids it."""
        tags = scan_tags(plain), scan_tags(enhanced)
        if all(one.patient_id for one in tags) and tags[0].patient_id != tags[1].patient_id:
            raise InputError(_("The two CTs carry different patient IDs. Choose two scans of one patient."))
        state = (_state(plain), _state(enhanced))
        if state != self._measured:
            self._measure(state, plain, enhanced)
        if isinstance(self._found, SegRapError):
            raise self._found
        return _describe(self._found, tags)

    def _measure(self, state: tuple, plain: Any, enhanced: Any) -> None:
        self._job.drop()
        self._measured, self._found = state, None
        images = image_of_volume(plain), image_of_volume(enhanced)

        def done(found: Comparison) -> None:
            self._found = found
            self._changed()

        def failed(error: SegRapError) -> None:
            self._found = error
            self._changed()

        names = _("the non-contrast CT"), _("the contrast CT")
        self._job.start(lambda progress: compare_images(*images, names), done, failed)

    def _tell_apart(self, volumes: list[Any]) -> None:
        """Let the vessels say which of two volumes is which, once."""
        try:
            state = tuple(_state(volume) for volume in volumes)
        except InputError:
            return  # what is wrong with a volume is said when it is chosen
        if state in self._looked_at or self._job.running:
            return
        self._looked_at.add(state)
        images = [image_of_volume(volume) for volume in volumes]

        def done(order: tuple[int, int] | None) -> None:
            choices = self._choices
            gone = not all(slicer.mrmlScene.IsNodePresent(volume) for volume in volumes)
            if order is None or gone or not choices or choices.contrast:
                return
            choices.nonContrast, choices.contrast = volumes[order[0]], volumes[order[1]]

        self._job.start(lambda progress: tell_apart(*images), done, lambda error: None)

    def _on_swap(self, *_ignored: Any) -> None:
        choices = self._choices
        choices.nonContrast, choices.contrast = choices.contrast, choices.nonContrast


def ct_of(segmentation: Any) -> Any:
    """The volume that contours were made on. Raises InputError when it is not in the scene any more."""
    volume, _contrast = volumes_of(segmentation)
    if volume is None:
        raise InputError(_("The CT of these contours is not in the scene any more. Load it again and choose it above."))
    return volume


def _state(node: Any) -> tuple:
    """Changes when a volume's voxels or its place change."""
    data = node.GetImageData()
    geometry = image_of_volume(node).geometry
    return node.GetID(), data.GetMTime() if data else 0, geometry.index_to_lps.tobytes()


def _describe(found: Comparison | None, tags: tuple[ScanTags, ScanTags]) -> str:
    frames = [one.frame_of_reference_uid for one in tags]
    parts = []
    if all(frames):
        same = frames[0] == frames[1]
        parts.append(
            _("Same Frame of Reference") if same else _("Different Frames of Reference: coordinates are trusted")
        )
    if found is None:
        parts.append(_("measuring how they lie on each other..."))
    else:
        if found.alignment_mm is not None:
            parts.append(_("aligned within {0:.1f} mm").format(found.alignment_mm))
        parts.append(_("vessels {0:.0f} HU brighter in the contrast CT").format(found.gain_hu))
    words = ", ".join(parts)
    stated = sentence(words) + "." * (not words.endswith("."))
    return " ".join([stated, *map(sentence, found.remarks if found else ())])
