"""Correcting one structure: Slicer's own segment editor in the panel, so that painting never erases a neighbour."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from segrap.scene.volumes import show_in_slice_views, volumes_of
from SegRapSlicerLib.panel import allow

UNDO_STATES = 10


class Editing:
    """Works the widgets of Edit.ui: editCollapsibleButton with editLabel and contrastButton."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._node: Any = None
        self._editor: Any = None
        # Of the whole window, as the editor's own keys are: whoever paints has the mouse in a view.
        window = slicer.util.mainWindow()
        self._key = qt.QShortcut(qt.QKeySequence("C"), window) if window else None
        if self._key:
            self._key.activated.connect(self.toggle_contrast)
        ui.contrastButton.toggled.connect(self._on_contrast)
        ui.editCollapsibleButton.collapsed = True
        ui.editCollapsibleButton.contentsCollapsed.connect(self._on_folded)
        self.show(None)

    def show(self, node: Any) -> None:
        """Edit segments of this vtkMRMLSegmentationNode from now on."""
        if node is not self._node:
            self._rest()
            if self._editor:
                self._editor.setSegmentationNode(None)
            self._ui.editCollapsibleButton.collapsed = True
        self._node = node
        contrast = volumes_of(node)[1] if node else None
        reason = "" if contrast else _("These contours were made without a contrast CT, or it is not in the scene.")
        allow(self._ui.contrastButton, reason)
        if self._ui.contrastButton.checked and reason:
            self._ui.contrastButton.checked = False
        if not self._ui.editCollapsibleButton.collapsed:
            return
        self._ui.editLabel.text = _("Select a structure in the review and click its Edit button.")

    def start(self, segment_id: str) -> None:
        """Open the editor on a segment."""
        if not self._editor:
            self._editor = self._new_editor()
        volume, _contrast = volumes_of(self._node)
        self._editor.setMRMLSegmentEditorNode(_parameter_node())
        self._editor.setSegmentationNode(self._node)
        self._editor.setSourceVolumeNode(volume)
        self._editor.mrmlSegmentEditorNode().SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        self._editor.setCurrentSegmentID(segment_id)
        self._ui.contrastButton.checked = False
        self._ui.editCollapsibleButton.collapsed = False
        self._show_segment(segment_id)
        self.enter()

    def enter(self) -> None:
        """The panel is seen: the editor takes mouse and keys again."""
        if self._key:
            self._key.enabled = True
        if self._editor and self._node and not self._ui.editCollapsibleButton.collapsed:
            self._editor.setupViewObservations()
            self._editor.installKeyboardShortcuts()

    def leave(self) -> None:
        """The panel is not seen any more: mouse and keys belong to others."""
        if self._key:
            self._key.enabled = False
        self._rest()

    def _on_folded(self, folded: bool) -> None:
        # The editor works whether it is seen or not, and its brush would go on painting.
        if folded:
            self._rest()
        else:
            self.enter()

    def _rest(self) -> None:
        if self._editor:
            self._editor.setActiveEffect(None)
            self._editor.uninstallKeyboardShortcuts()
            self._editor.removeViewObservations()

    def close(self) -> None:
        """The module is reloaded: its next editor works with the same node of the scene."""
        self.leave()
        if self._editor:
            self._editor.setMRMLSegmentEditorNode(None)
        if self._key:
            self._key.deleteLater()
            self._key = None

    def toggle_contrast(self) -> None:
        """Look at the other CT."""
        if self._ui.contrastButton.enabled:
            self._ui.contrastButton.checked = not self._ui.contrastButton.checked

    def _new_editor(self) -> Any:
        editor = slicer.qMRMLSegmentEditorWidget()
        # The node first, so that what the scene makes the editor select is kept in it.
        editor.setMRMLSegmentEditorNode(_parameter_node())
        editor.setMRMLScene(slicer.mrmlScene)
        editor.segmentationNodeSelectorVisible = False
        editor.sourceVolumeNodeSelectorVisible = False
        editor.switchToSegmentationsButtonVisible = False
        editor.maximumNumberOfUndoStates = UNDO_STATES
        editor.currentSegmentIDChanged.connect(self._show_segment)
        self._ui.editCollapsibleButton.layout().addWidget(editor)
        return editor

    def _show_segment(self, segment_id: str) -> None:
        """Name what is edited; the editor has a list of its own to choose from."""
        segment = self._node.GetSegmentation().GetSegment(segment_id) if self._node else None
        if segment:
            words = _("{name}: what you paint leaves all other structures as they are.")
            self._ui.editLabel.text = words.format(name=segment.GetName())

    def _on_contrast(self, *_ignored: Any) -> None:
        volume, contrast = volumes_of(self._node) if self._node else (None, None)
        chosen = contrast if self._ui.contrastButton.checked else volume
        if not chosen:
            return
        # Thresholds and the like look at what is seen; the editor puts it on the contours' grid.
        if self._editor and not self._ui.editCollapsibleButton.collapsed:
            self._editor.setSourceVolumeNode(chosen)
        show_in_slice_views(chosen)


def _parameter_node() -> Any:
    """The editor's own state in the scene; the Segment Editor module keeps another one."""
    scene, kind = slicer.mrmlScene, "vtkMRMLSegmentEditorNode"
    node = scene.GetSingletonNode("SegRapSlicer", kind)
    if not node:
        node = scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetSingletonTag("SegRapSlicer")
        node = scene.AddNode(node)
    return node
