"""How long a job will still take, estimated from how its percent has moved, and said only when that means something."""

from __future__ import annotations

from collections import deque

from slicer.i18n import tr as _

WINDOW_SECONDS = 60.0
"""Only this much of the past counts: another stage, or another program on the computer, changes the pace."""
MEANINGFUL_SECONDS = 5.0
MEANINGFUL_FRACTION = 0.03


class TimeLeft:
    """Given (seconds, fraction done) pairs of one job in order, says in words what is left."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def words(self, now: float, fraction: float) -> str:
        """What is left, "" as long as nobody can tell: before 5 s and 3 % have been seen, and when nothing moves."""
        if fraction <= 0.0:
            self._seen.clear()  # reading, preparing and loading are over when the first percent is counted
        if not self._seen or fraction > self._seen[-1][1] or fraction == 0.0:
            self._seen.append((now, fraction))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_SECONDS:
            self._seen.popleft()
        (began, first), (moved, last) = self._seen[0], self._seen[-1]
        if now - began < MEANINGFUL_SECONDS or last - first < MEANINGFUL_FRACTION:
            return ""
        # Until the next step is reported the clock goes on, and what is left must not stand still meanwhile.
        left = (1.0 - last) * (moved - began) / (last - first) - (now - moved)
        if left < 10.0:
            return _("a few seconds left")
        if left < 90.0:
            return _("about {seconds} s left").format(seconds=round(left / 10) * 10)
        return _("about {minutes} min left").format(minutes=round(left / 60))
