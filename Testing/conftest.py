"""What several test files need: where the real CTs are, and one small made-up patient."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CTs (see docs/testing.md); the test is skipped where it is absent."""
    folder = Path(os.environ.get("SEGRAP_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real CTs at {folder} (set SEGRAP_TEST_DATA)")
    return folder
