"""Work beside Slicer's window: in a thread, with progress, cancel and errors back in the window's own thread.

The work must touch no MRML node and no widget: it is given arrays and paths (see `segrap.scene.segmentation.
hold_segments`), and what it returns is handed over afterwards. Contouring is heavier and has a process of its own.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from segrap.errors import Cancelled, SegRapError
from segrap.progress import Progress, ProgressCallback

POLL_MILLISECONDS = 20
# While the window waits for events it may hold Python's lock, which the thread needs: this is the thread's share.
SHARE_SECONDS = 0.01


class SideJob:
    """One piece of work at a time; `told` is given its Progress."""

    def __init__(self, told: Callable[[Progress], None]) -> None:
        self._told = told
        self._work: _Work | None = None
        self._done: Callable[[Any], None] = lambda result: None
        self._failed: Callable[[SegRapError], None] = lambda error: None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MILLISECONDS
        self._timer.timeout.connect(self._look)

    @property
    def running(self) -> bool:
        return self._work is not None

    def start(
        self,
        work: Callable[[ProgressCallback], Any],
        done: Callable[[Any], None],
        failed: Callable[[SegRapError], None],
    ) -> None:
        """Begin `work(progress)`; later `done` is called with what it returned, or `failed` with why it did not.

        The progress that the work is given raises Cancelled once somebody has cancelled.
        """
        assert not self.running
        self._done, self._failed = done, failed
        self._work = _Work(work)
        self._timer.start()

    def cancel(self) -> None:
        """Let the work go; `failed` is called with Cancelled at once, the thread ends where it next tells progress."""
        if self._work is not None:
            self.drop()
            self._failed(Cancelled(_("Cancelled. Nothing was written or changed.")))

    def drop(self) -> None:
        """Let the work go without a word: what it was for is gone."""
        if self._work is not None:
            self._work.cancelled.set()
            self._work = None
        self._timer.stop()

    def _look(self) -> None:
        work = self._work
        if work is None:
            return
        work.thread.join(SHARE_SECONDS)
        if work.thread.is_alive():
            if work.progress is not None:
                self._told(work.progress)
            return
        self._work = None
        self._timer.stop()
        if work.error is not None:
            self._failed(work.error)
        else:
            self._done(work.result)


class _Work:
    """A thread at work. progress: the last it told. result or error: what came of it."""

    def __init__(self, work: Callable[[ProgressCallback], Any]) -> None:
        self.cancelled = threading.Event()
        self.progress: Progress | None = None
        self.result: Any = None
        self.error: SegRapError | None = None
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self.thread.start()

    def _run(self, work: Callable[[ProgressCallback], Any]) -> None:
        try:
            self.result = work(self._tell)
        except SegRapError as error:
            self.error = error
        except MemoryError:
            self.error = SegRapError(_("There is not enough memory. Close other programs, and try again."))
        except Exception as error:
            # A defect of this software: the person must hear of it, and the log must tell where it was.
            traceback.print_exc()
            words = _("An unexpected fault ({fault}). The log says more.")
            self.error = SegRapError(words.format(fault=f"{type(error).__name__}: {error}"))

    def _tell(self, progress: Progress) -> None:
        if self.cancelled.is_set():
            raise Cancelled(_("Cancelled. Nothing was written or changed."))
        self.progress = progress
