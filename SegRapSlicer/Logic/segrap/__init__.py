"""segrap: from a CT pair to reviewed-ready contours for radiotherapy of nasopharyngeal cancer.

The package is the part of SegRapSlicer that needs neither Qt nor 3D Slicer. Importing it loads nothing heavy; each
room is imported when it is needed (`from segrap import contouring`).
"""

__version__ = "0.1.0"
