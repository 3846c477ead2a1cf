"""The time that a running job is said to take still."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from desktop import Desktop
from panel import Panel

from segrap.training.phantom import PhantomCase


@pytest.fixture
def left(desktop: Desktop) -> Any:
    from SegRapSlicerLib.time_left import TimeLeft

    return TimeLeft()


def test_nothing_is_said_before_enough_was_seen(left: Any) -> None:
    assert [left.words(now, now / 1000) for now in range(20)] == [""] * 20  # under 3 %
    assert left.words(30.0, 0.03) == "about 16 min left"


def test_an_even_pace_is_told_rightly_and_preparing_does_not_count(left: Any) -> None:
    for now in range(40):
        assert left.words(now, 0.0) == ""
    told = [left.words(40 + second, second / 200) for second in range(1, 200)]
    assert told[99] == "about 2 min left" and told[149] == "about 50 s left" and told[195] == "a few seconds left"


def test_another_pace_is_noticed_within_a_minute(left: Any) -> None:
    for second in range(100):
        left.words(second, second / 1000)
    for second in range(100):
        told = left.words(100 + second, 0.1 + second * 0.008)
    assert told == "a few seconds left" or told.endswith("10 s left"), told


def test_a_step_that_takes_long_is_counted_down_while_it_runs(left: Any) -> None:
    for step in range(5):
        left.words(step * 20.0, step / 10)
    assert left.words(81.0, 0.4) == "about 2 min left"
    assert left.words(99.0, 0.4) == "about 2 min left"
    assert left.words(130.0, 0.4) == "about 70 s left"


@pytest.mark.skipif(sys.platform == "win32", reason="the panel's tests kill with POSIX signals")
def test_panel_says_what_computes_while_it_does(panel: Panel, case: PhantomCase, tmp_path: Path) -> None:
    panel.load_pair(case)
    panel.begin("Slow")
    panel.wait_until(lambda: panel.text("deviceLabel").startswith("Computed by "))
    assert " on " in panel.text("deviceLabel")
    assert "GB of memory, tiles added up in float32" in panel.text("deviceLabel")
    panel.desktop.screenshot(panel.widget, tmp_path / "running.png", "autoContourButton", "statusLabel")
    panel.click("autoContourButton")
    panel.wait_until_idle()
    assert panel.ui.deviceLabel.isHidden()
