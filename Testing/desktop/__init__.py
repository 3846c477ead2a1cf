"""A desktop for tests where there is no Slicer: its Python names, over PySide6 and the real MRML scene of slicer-core.

Real here: the scene, its nodes, `slicer.util`, the segmentation code, Qt's own widgets, the module's .ui file, the
module itself. Stand-ins, made to the contracts in Slicer's sources: the `qt` and `ctk` names (`names`), the qMRML
widgets (`widgets`), the application with its module base classes and dialogs (`application`), and the parameter node
wrapper (`parameters`). Whatever a test of the panel needs and this does not have must be added here, not in the module.

    desktop = Desktop()                      # once per process
    widget = desktop.open("SegRapSlicer")    # as choosing the module does
"""

from __future__ import annotations

from desktop.application import Desktop

__all__ = ["Desktop"]
