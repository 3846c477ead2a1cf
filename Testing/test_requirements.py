"""Python packages that are missing: installed after asking, from a folder of wheels, and what is said when it fails."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from desktop import Desktop, packages
from nnunet_folders import write_model_folder

from segrap.errors import SegRapError
from segrap.training.phantom import Phantom

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the desktop host's pip folder is set up for POSIX")
NAME = "segrap_needed"
ONE = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False], "spacing": [8.0, 8.0, 8.0]}


@pytest.fixture
def panel(desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The panel with a CT and a model chosen, in a Slicer that lacks segrap_needed 2.0."""
    facts = {"version": "0.1", "licence": "CC0-1.0", "intended_use": "research"}
    write_model_folder(tmp_path / "models" / "Single", facts=facts, channels=("CT",), **ONE)
    monkeypatch.setenv("SEGRAP_MODELS", str(tmp_path / "models"))
    (tmp_path / "requirements.txt").write_text(f"# one\n{NAME}>=2.0\n")
    widget = desktop.open("SegRapSlicer")
    monkeypatch.setattr(widget._packages, "_path", str(tmp_path / "requirements.txt"))
    path = tmp_path / "ct.nrrd"
    save_ct(path)
    desktop.app.processEvents()
    widget.ui.nonContrastSelector.setCurrentNode(load_ct(str(path)))
    box = widget.ui.modelComboBox
    box.setProperty("currentIndex", box.findText("Single"))
    widget._packages.show()
    yield widget
    desktop.tidy()
    slicer.app.userSettings().clear()
    sys.modules.pop(NAME, None)
    for left in Path(packages.SITE).iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def save_ct(path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    image = Phantom(3).render(spacing_mm=(8.0, 8.0, 8.0)).non_contrast
    volume = sitk.GetImageFromArray(image.array)
    volume.SetSpacing(image.geometry.spacing_mm)
    volume.SetOrigin(image.geometry.origin_mm)
    sitk.WriteImage(volume, str(path))


def load_ct(path: str) -> Any:
    """What slicer.util.loadVolume does with a file."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", Path(path).stem)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(path)
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    return node


def wheel(folder: Path, version: str, source: str = "here = True\n") -> Path:
    """A wheel of segrap_needed, as `pip download` leaves it."""
    folder.mkdir(exist_ok=True)
    info = f"{NAME}-{version}.dist-info"
    files = {
        f"{NAME}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{NAME}-{version}-py3-none-any.whl", "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return folder


def choose(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(folder))


def text(panel: Any, name: str) -> str:
    return str(getattr(panel.ui, name).property("text"))


def test_missing_packages_are_named_and_installed_from_a_folder_of_wheels_without_a_network(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = panel.ui.requirementsWidget
    assert not row.isHidden() and f"({NAME}>=2.0)" in text(panel, "requirementsLabel")
    choose(monkeypatch, wheel(tmp_path / "wheels of ours", "2.1"))
    panel.ui.installFromFolderButton.click()
    assert text(panel, "statusLabel") == "The Python packages are installed."
    assert row.isHidden() and desktop.dialogs == []
    panel.ui.autoContourButton.click()
    desktop.wait(lambda: not panel.logic.running)
    assert text(panel, "statusLabel").startswith("Done.")


def test_a_folder_without_a_fitting_wheel_is_said_in_words(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, wheel(tmp_path / "wheels", "1.9"))
    panel.ui.installFromFolderButton.click()
    assert f"Not installed: {NAME}>=2.0. The folder {tmp_path / 'wheels'} lacks a wheel" in desktop.dialogs[0]
    assert text(panel, "statusLabel") == desktop.dialogs[0]
    assert not panel.ui.requirementsWidget.isHidden()


def test_a_failed_download_is_said_in_words_and_nothing_runs(panel: Any, desktop: Desktop) -> None:
    panel.ui.autoContourButton.click()
    question, failure = desktop.dialogs
    assert "need to be installed" in question
    assert failure.startswith(f"Not installed: {NAME}>=2.0.") and "choose Install from folder" in failure
    assert not panel.logic.running and text(panel, "autoContourButton") == "Auto-contour"


def test_declining_is_no_failure_and_nothing_runs(panel: Any, desktop: Desktop) -> None:
    desktop.answer = False
    panel.ui.autoContourButton.click()
    assert "declined" in text(panel, "statusLabel") and not panel.logic.running


def test_slicer_5_10_asks_too_and_says_the_same(panel: Any, desktop: Desktop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "slicer.packaging")
    monkeypatch.delattr(slicer, "packaging")
    panel.ui.autoContourButton.click()
    question, failure = desktop.dialogs
    assert question == f"Contouring needs Python packages: {NAME}>=2.0. Download and install them into Slicer?"
    assert failure.startswith(f"Not installed: {NAME}>=2.0.")


def test_clicks_while_packages_are_installed_start_nothing(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slicer 5.10 handles clicks while pip runs."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel(tmp_path / "wheels", "2.1")))
    seen = []

    def click_again() -> None:
        seen.append(text(panel, "statusLabel"))
        panel.ui.autoContourButton.click()

    import qt

    qt.QTimer.singleShot(0, click_again)
    panel.ui.autoContourButton.click()
    assert seen == ["Python packages are being installed. This may take minutes."]
    assert len(desktop.dialogs) == 1 and panel.logic.running  # one question, and the first click's job
    desktop.wait(lambda: not panel.logic.running)


def test_a_package_that_is_there_but_does_not_work_is_not_called_installed(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, wheel(tmp_path / "wheels", "2.1", "raise OSError('a DLL is missing')\n"))
    panel.ui.installFromFolderButton.click()
    assert desktop.dialogs[0].startswith(f"Installed, but not usable: {NAME}>=2.0 (OSError: a DLL is missing).")


def test_auto_contour_goes_on_by_itself_after_the_restart_that_a_replaced_package_needs(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.pip_install([NAME, "--find-links", str(wheel(tmp_path / "old", "1.0"))])
    __import__(NAME)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel(tmp_path / "new", "2.0")))
    panel.ui.structuresTree.topLevelItem(0).child(0).setCheckState(0, unchecked(panel))
    skipped = list(panel.logic.getParameterNode().skippedStructures)
    panel.ui.autoContourButton.click()
    assert desktop.restarts == 1 and not panel.logic.running
    assert NAME in desktop.dialogs[1] and "goes on by itself" in desktop.dialogs[1]

    desktop.close_scene()  # what a restart leaves: nothing but the settings
    monkeypatch.setattr(slicer.util, "loadVolume", load_ct)
    desktop.start()
    assert desktop.module == "SegRapSlicer" and panel.logic.running
    desktop.wait(lambda: not panel.logic.running)
    parameters = panel.logic.getParameterNode()
    assert parameters.nonContrast.GetName() == "ct" and parameters.model == "Single"
    assert skipped and list(parameters.skippedStructures) == skipped
    assert text(panel, "statusLabel").startswith("Done.")
    desktop.close_scene()
    desktop.start()
    assert not panel.logic.running, "a request is taken up once"


def test_a_ct_of_the_dicom_database_is_loaded_when_slicer_has_opened_it(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slicer calls what waits for its start before the DICOM module has opened its database."""
    from SegRapSlicerLib import go_on

    def load_series(uids: list[str]) -> list[str]:
        if not slicer.dicomDatabase.isOpen:  # as DICOMUtils.loadSeriesByUID begins
            raise OSError("DICOM module or database cannot be accessed")
        assert uids == ["1.2.3"]
        return [of_the_database(load_ct(str(tmp_path / "ct.nrrd"))).GetID()]

    def of_the_database(node: Any) -> Any:
        node.SetAttribute("DICOM.instanceUIDs", "1.2.3.1")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        hierarchy.SetItemUID(hierarchy.GetItemByDataNode(node), "DICOM", "1.2.3")
        return node

    utilities = SimpleNamespace(loadSeriesByUID=load_series)
    monkeypatch.setitem(sys.modules, "DICOMLib", SimpleNamespace(DICOMUtils=utilities))
    of_the_database(panel.logic.getParameterNode().nonContrast)
    (tmp_path / "requirements.txt").write_text("")
    go_on.remember(panel.logic.getParameterNode())
    desktop.close_scene()
    desktop.start()
    assert panel.logic.running and panel.logic.getParameterNode().nonContrast.GetName() == "ct"
    desktop.wait(lambda: not panel.logic.running)

    go_on.remember(panel.logic.getParameterNode())
    desktop.close_scene()
    monkeypatch.setattr(type(desktop.dicom), "isOpen", False)
    desktop.start()
    assert not panel.logic.running and "database is not open" in text(panel, "statusLabel")


def unchecked(panel: Any) -> Any:
    state = panel.ui.structuresTree.topLevelItem(0).child(0).checkState(0)
    return type(state)(0)


def test_an_export_needs_what_writes_dicom_and_nothing_else(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague's contours are exported on a computer that never contoured, and lacks PyTorch."""
    row = panel._packages
    (tmp_path / "requirements.txt").write_text(f"{NAME}>=2.0\npydicom>=2.0\n")
    assert not row.ensure_for_dicom() and desktop.dialogs == []
    (tmp_path / "requirements.txt").write_text(f"{NAME}>=2.0\npydicom>=99\n")
    with pytest.raises(SegRapError, match=r"Not installed: pydicom>=99\."):
        row.ensure_for_dicom()
    assert len(desktop.dialogs) == 1


def test_an_older_package_that_is_still_loaded_writes_no_dicom(
    panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SegRapSlicerLib import requirements_row

    monkeypatch.setattr(requirements_row, "DICOM_PACKAGES", (NAME,))
    packages.pip_install([NAME, "--find-links", str(wheel(tmp_path / "old", "1.0", "__version__ = '1.0'\n"))])
    __import__(NAME)
    packages.pip_install([NAME, "--find-links", str(wheel(tmp_path / "new", "2.0"))])
    with pytest.raises(SegRapError, match=f"still has {NAME} 1.0 loaded"):
        panel._packages.ensure_for_dicom()


def test_a_changed_ct_is_not_promised_to_come_back(
    panel: Any, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.pip_install([NAME, "--find-links", str(wheel(tmp_path / "old", "1.0"))])
    __import__(NAME)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel(tmp_path / "new", "2.0")))
    node = panel.logic.getParameterNode().nonContrast
    slicer.util.arrayFromVolume(node)[0] = 0
    slicer.util.arrayFromVolumeModified(node)
    panel.ui.autoContourButton.click()
    assert "load the CTs and press Auto-contour again: ct is neither" in desktop.dialogs[1]
    assert slicer.app.userSettings().allKeys() == []


def test_a_ct_that_went_meanwhile_is_said_and_nothing_runs(panel: Any, desktop: Desktop, tmp_path: Path) -> None:
    from SegRapSlicerLib import go_on

    go_on.remember(panel.logic.getParameterNode())
    desktop.close_scene()
    (tmp_path / "ct.nrrd").unlink()
    desktop.start()
    assert "could not be loaded again" in text(panel, "statusLabel") and not panel.logic.running
