"""How long Slicer's window would stand still while a CT pair of 1024 x 1024 x 130 is measured, contoured and reviewed.

Run from the repository's root, with SegRapSlicer/Logic and Testing on PYTHONPATH: python Testing/benchmarks/window.py
(needs 8 GB of memory). On the desktop host, so without Slicer's own drawing. Between two ticks of the event loop it
measures the clock and the main thread's own processor time, which other programs on the machine do not stretch.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import slicer
from desktop import Desktop
from PySide6 import QtCore
from scene import balls

from segrap.background import Outcome
from segrap.geometry import Geometry
from segrap.image import Image
from segrap.quality import check
from segrap.scene.volumes import add_volume
from segrap.training.phantom import Phantom


@contextmanager
def longest_gap(what: str) -> Iterator[None]:
    """Print the longest time between two ticks of the event loop meanwhile."""
    timer = QtCore.QTimer()
    seen = [(time.perf_counter(), time.thread_time())]
    timer.timeout.connect(lambda: seen.append((time.perf_counter(), time.thread_time())))
    timer.start(2)
    yield
    seen.append((time.perf_counter(), time.thread_time()))
    timer.stop()
    clock, processor = 1000 * np.diff(np.array(seen), axis=0).max(axis=0)
    print(f"{what:<58}{clock:>8,.0f} ms{processor:>8,.0f} ms", flush=True)


def large(image: Image) -> Image:
    """A scan of 250 x 250 voxels with each voxel in 16, and air around it."""
    array = np.repeat(np.repeat(image.array, 4, axis=1), 4, axis=2)
    array = np.pad(array, ((0, 0), (12, 12), (12, 12)), constant_values=-1000)
    return Image(np.ascontiguousarray(array), Geometry((0.5, 0.5, 3.0), image.geometry.origin_mm))


def main() -> None:
    os.environ["SEGRAP_MODELS"] = tempfile.mkdtemp()
    desktop = Desktop()
    sys.excepthook = sys.__excepthook__  # tests look at what the host has caught; here it must be seen
    widget = desktop.open("SegRapSlicer")
    ui, logic = widget.ui, widget.logic
    case = Phantom(1).render(spacing_mm=(2.0, 2.0, 3.0))
    for name, image in (("non-contrast", case.non_contrast), ("with contrast", case.contrast)):
        volume = add_volume(slicer.mrmlScene, large(image), name)
    print(f"{'longest standstill of the window':<58}{'clock':>11}{'processor':>11}")
    with longest_gap("recognising the pair, measuring how it lies"):
        desktop.app.processEvents()
        desktop.wait(lambda: not widget._inputs.measuring)
    ui.modelComboBox.setProperty("currentIndex", ui.modelComboBox.findText("SegRapPhantom"))
    for patient in ("first", "second"):
        with longest_gap(f"click on Auto-contour, {patient} patient"):
            start = time.perf_counter()
            ui.autoContourButton.click()
        with longest_gap("handing the CTs over, checking, preparing"):
            desktop.wait(lambda: logic.progress)
            begun = time.perf_counter() - start
            desktop.wait(lambda: not logic.running or logic.progress.stage.startswith("Contouring"))
        with longest_gap("contouring, taking the contours over"):
            desktop.wait(lambda: not logic.running, 1800)
        print(f"   the process was at work {begun:.2f} s after the click")

    contours = balls()
    outcome = Outcome(contours, (), tuple(check(contours)))
    logic._inputs = (volume,)
    with longest_gap("47 structures into scene and review"):
        logic.getParameterNode().segmentation = logic._addSegmentation(outcome)
        desktop.app.processEvents()
    with longest_gap("selecting one, marking it done"):
        ui.reviewTable.selectRow(5)
        ui.doneButton.click()
        desktop.app.processEvents()
    widget.cleanup()


if __name__ == "__main__":
    main()
