"""The window behind Get models..., with a real archive behind a real address."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from desktop import Desktop
from nnunet_folders import write_model_folder

from segrap.models.library import user_folder

SHIPPED = ["OpenKBP_8", "SegRapPhantom"]


@pytest.fixture
def window(desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "library"))
    widget = desktop.open("SegRapSlicer")
    widget.ui.getModelsButton.click()
    yield widget._library
    widget._library.close()
    desktop.tidy()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    facts = {"name": "Neck 2", "version": "2.0", "licence": "CC BY-NC 4.0", "intended_use": "research"}
    folder = write_model_folder(tmp_path / "trained", facts=facts)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path("Neck2") / path.relative_to(folder))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/a.zip"
        running.shutdown()


def listed(window: Any) -> list[str]:
    tree = window._ui.libraryTree
    return [tree.topLevelItem(row).text(0) for row in range(tree.property("topLevelItemCount"))]


def words(window: Any) -> str:
    return str(window._ui.installLabel.property("text"))


def install(desktop: Desktop, window: Any, source: str) -> None:
    window._ui.sourceLineEdit.setProperty("text", source)
    window._ui.installButton.click()
    desktop.wait(lambda: not window._job.running)


def test_models_are_listed_with_what_they_cover(window: Any) -> None:
    item = window._ui.libraryTree.topLevelItem(SHIPPED.index("SegRapPhantom"))
    texts = [item.text(column) for column in range(6)]
    assert texts[:4] == ["SegRapPhantom", "45 organs at risk, 2 tumour volumes", "both CTs", "demonstration"]
    assert not window._ui.installButton.property("enabled")
    item.setSelected(True)
    assert "cannot be removed" in window._ui.removeModelButton.property("toolTip")
    assert not window._ui.removeModelButton.property("enabled")


def test_an_agreed_restart_for_packages_starts_no_installation(
    desktop: Desktop, window: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "_prepare", lambda: True)  # what the packages' row says when Slicer restarts
    window._ui.sourceLineEdit.setProperty("text", address)
    window._ui.installButton.click()
    assert not window._job.running and desktop.dialogs == []


def test_address_is_installed_after_size_and_licence_were_shown(desktop: Desktop, window: Any, address: str) -> None:
    install(desktop, window, address)
    size, licence = desktop.dialogs
    assert "MB) from 127.0.0.1" in size
    assert "Licence: CC BY-NC 4.0" in licence and "accept the licence" in licence
    assert words(window) == "Neck 2 is installed."
    assert listed(window) == [*SHIPPED, "Neck 2"]
    ui = desktop.open("SegRapSlicer").ui
    assert ui.modelComboBox.property("currentText") == "Neck 2"
    window._ui.libraryTree.topLevelItem(len(SHIPPED)).setSelected(True)
    window._ui.removeModelButton.click()
    assert listed(window) == SHIPPED and list(user_folder().iterdir()) == []
    assert ui.modelComboBox.findText("Neck 2") == -1


def test_nothing_is_downloaded_when_the_person_declines(desktop: Desktop, window: Any, address: str) -> None:
    desktop.answer = False
    install(desktop, window, address)
    assert len(desktop.dialogs) == 1 and words(window) == "Nothing was downloaded."
    assert listed(window) == SHIPPED


def test_a_file_with_another_checksum_is_refused_in_words(desktop: Desktop, window: Any, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"no model")
    window._ui.sha256LineEdit.setProperty("text", "0" * 64)
    install(desktop, window, str(tmp_path / "b.zip"))
    window._ui.sha256LineEdit.setProperty("text", "")
    assert "damaged or not the right file" in words(window)
    assert window._ui.installButton.property("text") == "Install"
