"""Every word that the panel shows can be translated, every widget is reached by the Tab key, in the order one sees."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desktop import Desktop
from reviewing import Review

MODULE = Path(__file__).resolve().parent.parent / "SegRapSlicer"
PANELS = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
SOURCES = [MODULE / "SegRapSlicer.py", *sorted((MODULE / "SegRapSlicerLib").glob("*.py"))]
SHOWN = {"text", "toolTip", "title", "placeholderText", "plainText", "windowTitle"}
SHOWING = {"errorDisplay", "warningDisplay", "infoDisplay", "confirmOkCancelDisplay", "addAction", "showIdle"}
SHOWING |= {"getOpenFileName", "getSaveFileName", "getExistingDirectory", "SegRapError", "InputError", "UsageError"}
INTERACTIVE = {"QPushButton", "QToolButton", "QCheckBox", "QComboBox", "QLineEdit", "QPlainTextEdit", "QTreeWidget"}
INTERACTIVE |= {"QTableWidget", "qMRMLNodeComboBox", "ctkDirectoryButton", "ctkPathLineEdit"}


def words_outside_tr(node: ast.AST) -> Iterator[str]:
    """String literals with words in them, but for those inside _(...) or translate(...)."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "translate"):
        return
    if isinstance(node, ast.Compare):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and any(map(str.isalpha, node.value)):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from words_outside_tr(child)


def shown(source: Path) -> Iterator[tuple[int, ast.AST]]:
    """What is assigned to a widget's words or handed to what shows words."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign):
            if any(isinstance(target, ast.Attribute) and target.attr in SHOWN for target in node.targets):
                yield node.lineno, node.value
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for argument in node.args if name in SHOWING else ():
                yield node.lineno, argument


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_word_goes_through_tr(source: Path) -> None:
    if source.stem == "self_test":
        return  # its messages are for developers
    file_names = {"presets.json"}
    bare = [(line, words) for line, node in shown(source) for words in words_outside_tr(node)]
    assert [one for one in bare if one[1] not in file_names] == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda path: path.stem)
def test_tab_goes_through_every_widget_in_the_order_one_sees(panel: Path) -> None:
    root = ElementTree.parse(panel).getroot()
    seen = [str(one.get("name")) for one in root.iter("widget") if one.get("class") in INTERACTIVE]
    assert [one.text for one in root.iter("tabstop")] == seen


def test_tab_goes_from_the_top_of_the_panel_to_its_end(desktop: Desktop) -> None:
    stops = {str(one.text) for path in PANELS for one in ElementTree.parse(path).getroot().iter("tabstop")}
    panel = desktop.open("SegRapSlicer").parent
    desktop.app.processEvents()
    seen, widget = [], panel.nextInFocusChain()
    while widget is not panel:
        if widget.property("objectName") in stops and widget.isVisible():
            seen.append(widget)
        widget = widget.nextInFocusChain()
    rows = [one.mapTo(panel, one.rect().center()).y() // 10 for one in seen]
    assert len(rows) > 25 and rows == sorted(rows)


@pytest.mark.parametrize("panel", PANELS, ids=lambda path: path.stem)
def test_every_widget_says_what_it_does_when_pointed_at(panel: Path) -> None:
    for one in ElementTree.parse(panel).getroot().iter("widget"):
        if one.get("class") in INTERACTIVE:
            stated = any(entry.get("name") == "toolTip" and entry.findtext("string") for entry in one.iter("property"))
            assert stated, one.get("name")


def off_without_a_reason(ui: Any) -> list[str]:
    """Widgets that are off and have still the tooltip that says what they do when they are on."""
    widgets = [one for path in PANELS for one in ElementTree.parse(path).getroot().iter("widget")]
    stated = {
        str(one.get("name")): entry.findtext("string")
        for one in widgets
        if one.get("class") in INTERACTIVE
        for entry in one.iter("property")
        if entry.get("name") == "toolTip"
    }
    own = {name: getattr(ui, name) for name in stated if hasattr(ui, name)}
    return [
        name for name, one in own.items() if not one.property("enabled") and one.property("toolTip") == stated[name]
    ]


def test_what_is_off_says_why(review: Review) -> None:
    for text in ("SegRap challenge (.mha)", "RTSTRUCT (DICOM)"):
        review.choose("Format", text)
        assert off_without_a_reason(review.ui) == []
    review.choose("Place", "Slicer's DICOM database")
    assert off_without_a_reason(review.ui) == []
    review.choose("Place", "A folder")
    review.desktop.close_scene()
    assert off_without_a_reason(review.ui) == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda path: path.stem)
def test_only_names_for_the_program_are_kept_from_translators(panel: Path) -> None:
    for entry in ElementTree.parse(panel).getroot().iter("property"):
        if entry.get("name") in SHOWN:
            assert all(string.get("notr") != "true" for string in entry.iter("string"))
