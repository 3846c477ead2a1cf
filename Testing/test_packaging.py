"""What the extension is packaged from: CMake leaves out, without a word, every file that is not listed."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

MODULE = Path(__file__).resolve().parent.parent / "SegRapSlicer"
MADE_ALONG_THE_WAY = ("__pycache__", ".egg-info", ".mypy_cache", ".ruff_cache", ".pytest_cache")


def listed(name: str) -> list[str]:
    found = re.search(rf"set\({name}\n(.*?)\)", (MODULE / "CMakeLists.txt").read_text(), re.DOTALL)
    assert found
    return found.group(1).split()


def files() -> set[str]:
    found = (path.relative_to(MODULE) for path in MODULE.rglob("*") if path.is_file())
    return {
        path.as_posix()
        for path in found
        if not any(part.endswith(MADE_ALONG_THE_WAY) for part in path.parts) and path.name != "CMakeLists.txt"
    }


def test_every_file_of_the_module_is_packaged_once_and_every_listed_file_is_there() -> None:
    names = listed("MODULE_PYTHON_SCRIPTS") + listed("MODULE_PYTHON_RESOURCES")
    assert sorted(names) == sorted(files())


def test_scripts_are_python_and_resources_are_not() -> None:
    assert all(name.endswith(".py") for name in listed("MODULE_PYTHON_SCRIPTS"))
    assert not any(name.endswith(".py") for name in listed("MODULE_PYTHON_RESOURCES"))


def test_icon_is_128_by_128() -> None:
    header = (MODULE / "Resources" / "Icons" / "SegRapSlicer.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:24]) == (128, 128)


def test_extension_states_what_the_catalogue_asks_for_and_its_pictures_are_here() -> None:
    text = (MODULE.parent / "CMakeLists.txt").read_text()
    fields = dict(re.findall(r'set\(EXTENSION_(\w+) "(.+)"\)', text))
    asked = {"HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS", "KEYWORDS"}
    assert asked <= set(fields)
    for url in [fields["ICONURL"], *fields["SCREENSHOTURLS"].split()]:
        assert (MODULE.parent / url.split("/main/")[1]).read_bytes().startswith(b"\x89PNG"), url
    for name in re.findall(r"set\(EXTENSION_\w+_FILE \$\{CMAKE_CURRENT_SOURCE_DIR\}/(.+)\)", text):
        assert (MODULE.parent / name).is_file()


def test_requirements_are_floors_and_never_pins() -> None:
    lines = (MODULE / "Resources" / "requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements and all(re.fullmatch(r"[\w-]+>=[\d.]+", requirement) for requirement in requirements)


def test_panel_names_only_widgets_that_slicer_has_and_gives_the_scene_to_each_that_needs_it() -> None:
    panel = ElementTree.parse(MODULE / "Resources" / "UI" / "SegRapSlicer.ui").getroot()
    declared = {widget.findtext("class") for widget in panel.iter("customwidget")}
    selectors = {w.get("name") for w in panel.iter("widget") if str(w.get("class")).startswith("qMRMLNode")}
    assert {str(w.get("class")) for w in panel.iter("widget") if not str(w.get("class")).startswith("Q")} == declared
    assert selectors == {connection.findtext("receiver") for connection in panel.iter("connection")}


def test_nothing_is_installed_or_downloaded_when_the_module_is_imported() -> None:
    source = (MODULE / "SegRapSlicer.py").read_text()
    top_level = [line for line in source.splitlines() if re.match(r"(import|from) ", line)]
    allowed = r"(import|from) (shutil|sys|time|pathlib|qt|slicer|vtk|segrap|SegRapSlicerLib)\b"
    assert [line for line in top_level if not re.match(allowed, line)] == []


def test_slicer_starts_without_importing_what_only_the_work_needs() -> None:
    sources = [MODULE / "SegRapSlicer.py", *(MODULE / "SegRapSlicerLib").glob("*.py")]
    lines = [line for source in sources for line in source.read_text(encoding="utf-8").splitlines()]
    imported = {found.group(1) for line in lines if (found := re.match(r"from (segrap[\w.]*) import", line))}
    assert "segrap.quality" in imported
    heavy = "{'torch', 'scipy', 'pydicom', 'SimpleITK', 'requests', 'PIL'}"
    script = f"import sys, {', '.join(sorted(imported))}; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(MODULE / "Logic")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
