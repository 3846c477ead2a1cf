"""The module's own tests, which run in Slicer (ctest, Reload and Test), on the desktop host."""

from __future__ import annotations

import unittest
from pathlib import Path

import pytest
from desktop import Desktop


def test_every_test_that_the_module_brings_passes(desktop: Desktop) -> None:
    import SegRapSlicer

    tests = unittest.TestLoader().loadTestsFromModule(SegRapSlicer)  # as slicer.testing.runUnitTest does
    assert tests.countTestCases() == 9
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    desktop.tidy()
    assert result.wasSuccessful() and not result.skipped


def test_reload_and_test_runs_them_without_those_that_need_missing_packages(
    desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import SegRapSlicer
    from SegRapSlicerLib import self_test

    (tmp_path / "requirements.txt").write_text("segrap_needs_this>=1")
    monkeypatch.setattr(self_test, "REQUIREMENTS", tmp_path / "requirements.txt")
    told: list[str] = []
    monkeypatch.setattr(self_test.SegRapSlicerTest, "delayDisplay", lambda test, words: told.append(words))
    SegRapSlicer.SegRapSlicerTest().runTest()
    desktop.tidy()
    assert [words.split(":")[1] for words in told if "skipped" in words] == [" not installed"] * 3
