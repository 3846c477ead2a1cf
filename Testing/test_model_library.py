"""The library of models: what may be installed, from where, and what is refused before anything is written."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import run_segrap
from nnunet_folders import installed, write_model_folder, zipped

from segrap.errors import ModelError, UsageError
from segrap.models import library
from segrap.models.combinations import members
from segrap.models.folder import Model, read_model
from segrap.models.library import find_model, install, list_models, remove, user_folder

pytestmark = pytest.mark.usefixtures("own_library")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {"name": "Neck 2", "version": "2.0", "licence": "CC0-1.0", "intended_use": "research", "description": "d"}
    return write_model_folder(tmp_path / "trained", facts=facts)


def test_a_folder_is_copied_without_what_only_training_needs(folder: Path) -> None:
    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"x")
    (folder / "MODEL_CARD.md").write_text("How it was measured")
    model = install(folder)
    assert model.folder == user_folder() / "Neck 2"
    files = {path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*") if path.is_file()}
    assert files == {"dataset.json", "plans.json", "segrap.json", "MODEL_CARD.md", "fold_0/checkpoint_final.pth"}
    assert installed() == ["Neck 2"]


def test_a_zip_file_is_installed_from_any_depth(folder: Path, tmp_path: Path) -> None:
    install(zipped(folder, tmp_path / "a.zip", inside="results/Dataset001/plans__3d"))
    assert installed() == ["Neck 2"]


def test_a_tar_file_is_installed_and_named_after_its_folder_or_itself(tmp_path: Path) -> None:
    nameless = write_model_folder(tmp_path / "Dataset005")
    with tarfile.open(tmp_path / "OnlyFiles.tar.gz", "w:gz") as archive:
        archive.add(nameless, ".")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(nameless, "Dataset005")
    assert install(tmp_path / "OnlyFiles.tar.gz").folder.name == "OnlyFiles"
    assert install(tmp_path / "b.tar").folder.name == "Dataset005"


def test_a_file_with_another_checksum_is_not_opened(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="damaged or not the right file"):
        install(zipped(folder, tmp_path / "a.zip"), sha256="0" * 64)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "C:\\outside", "a\\..\\outside"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_would_leave_the_folder_are_refused(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    archive = zipped(folder, tmp_path / "a.zip")
    if kind == "zip":
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr(name, "x")
    else:
        archive = tmp_path / "a.tar"
        with tarfile.open(archive, "w") as opened_tar:
            opened_tar.add(folder, "Neck2")
            opened_tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ModelError, match="outside"):
        install(archive)
    assert installed() == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_file_are_refused(folder: Path, tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("Neck2/link")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, "Neck2")
        archive.addfile(member)
    with pytest.raises(ModelError, match="link or device"):
        install(tmp_path / "a.tar")


def test_links_in_a_zip_file_are_refused(folder: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("Neck2/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(zipped(folder, tmp_path / "a.zip"), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="link or device"):
        install(tmp_path / "a.zip")


def test_an_archive_that_unpacks_to_too_much_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "LARGEST_MODEL_BYTES", 5000)
    with pytest.raises(ModelError, match="unpacks to more than"):
        install(zipped(folder, tmp_path / "a.zip"))
    assert installed() == []


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not an archive")
    with pytest.raises(ModelError, match="not an archive"):
        install(tmp_path / "a.zip")


def test_a_cut_off_archive_is_refused(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, "Neck2")
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged"):
        install(tmp_path / "a.tar.gz")
    assert installed() == []


def test_an_archive_of_no_model_or_of_two_is_refused(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
        archive.write(folder / "plans.json", "OnlyPlans/plans.json")
    two = write_model_folder(tmp_path / "both" / "Second").parent
    write_model_folder(two / "deep" / "First")
    with pytest.raises(ModelError, match=r"none\.zip holds no model\. A model is a folder with plans\.json and fold_"):
        install(tmp_path / "none.zip")
    with pytest.raises(ModelError, match=r"two\.zip holds 2 models: .*Second, .*deep/First\. Unpack it and install"):
        install(zipped(two, tmp_path / "two.zip"))
    assert installed() == []


def results_of_nnunet(output: Path, dataset: str = "Dataset231_Neck") -> Path:
    """A dataset's folder as nnU-Net leaves it: its model, beside it and in it copies of plans.json without weights."""
    model = write_model_folder(output / "results" / dataset / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    for copy in (model / "crossval_results_folds_0", model.parent / "ensembles" / "ensemble___a___b___0"):
        copy.mkdir(parents=True)
        (copy / "plans.json").write_text("{}")
    return model.parent


@pytest.mark.parametrize("up", [0, 1, 2])
def test_a_model_is_found_in_the_results_of_nnunet_and_named_after_its_dataset(tmp_path: Path, up: int) -> None:
    dataset = results_of_nnunet(tmp_path / "output")
    model = install([dataset, *dataset.parents][up])
    assert model.folder == user_folder() / "Dataset231_Neck"
    assert model.structures == ("BrainStem", "SpinalCord")


def test_a_folder_with_several_models_lists_them_and_one_without_says_so(tmp_path: Path) -> None:
    for name in ("Dataset231_Neck", "Dataset232_Head"):
        results_of_nnunet(tmp_path / "output", name)
    done = run_segrap("models", "install", tmp_path / "output")
    assert done.returncode == 4
    assert "holds 2 models: results/Dataset231_Neck/nnUNetTrainer__" in done.stderr
    assert "Install the folder of one of them" in done.stderr
    (tmp_path / "empty" / "fold_0").mkdir(parents=True)
    done = run_segrap("models", "install", tmp_path / "empty")
    assert done.returncode == 4
    assert f"{tmp_path / 'empty'} holds no model, neither in it nor up to 4 folders below" in done.stderr
    assert installed() == []


def test_a_folder_without_weights_is_named_as_the_person_knows_it(folder: Path) -> None:
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(ModelError, match=rf"The model folder {folder} is incomplete"):
        install(folder)


def test_an_archive_cannot_bring_other_models_to_run_in_place_of_the_one_that_was_checked(
    folder: Path, tmp_path: Path
) -> None:
    other = write_model_folder(tmp_path / "other")
    (folder / "combination.json").write_text(json.dumps({"models": [str(other)]}))
    model = install(zipped(folder, tmp_path / "a.zip"))
    assert sorted(path.name for path in model.folder.iterdir()) == [
        *("dataset.json", "fold_0", "plans.json", "segrap.json")
    ]
    assert members(model.folder) == (model.folder,)
    with pytest.raises(ModelError, match=r"is a model, but combination\.json in it names others"):
        members(folder)


def test_a_model_that_cannot_be_run_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cascade"):
        install(write_model_folder(tmp_path / "trained", previous_stage="3d_lowres"))
    assert installed() == []


def test_a_name_is_given_once(folder: Path) -> None:
    install(folder)
    with pytest.raises(ModelError, match="already"):
        install(folder, name="NECK 2")
    assert install(folder, name="Neck 3").folder.name == "Neck 3"


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a:b", "dot."])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(ModelError, match="cannot be a model's name"):
            install(write_model_folder(tmp_path / "trained"), name=name)
    else:
        assert install(write_model_folder(tmp_path / "trained"), name=name).folder.name == "trained"


def test_the_list_tells_each_models_own_words(folder: Path) -> None:
    install(folder)
    (entry,) = [entry for entry in list_models() if not entry.shipped]
    assert (entry.name, entry.version, entry.licence, entry.intended_use) == ("Neck 2", "2.0", "CC0-1.0", "research")


def test_a_damaged_model_is_listed_as_such_and_hides_no_other(folder: Path) -> None:
    install(folder)
    (install(folder, name="Other").folder / "segrap.json").write_text("{")
    described = {entry.name: entry.description for entry in list_models()}
    assert described["Neck 2"] == "d"
    assert described["Other"].startswith("Damaged")


def test_a_model_is_found_by_name_in_any_case_or_by_its_folder(folder: Path) -> None:
    install(folder)
    assert find_model("neck 2") == user_folder() / "Neck 2"
    assert find_model(folder) == folder
    with pytest.raises(UsageError, match=r"Models at hand: .*Neck 2"):
        find_model("Leg")


def test_a_removed_model_is_gone(folder: Path) -> None:
    install(folder)
    remove("Neck 2")
    assert installed() == []
    with pytest.raises(UsageError, match="no installed model"):
        remove("Neck 2")


def test_every_shipped_model_can_be_run_and_states_its_licence_and_use() -> None:
    shipped = [entry for entry in list_models() if entry.shipped]
    assert shipped
    for entry in shipped:
        model = read_model(entry.folder)
        assert model.name == entry.name
        assert model.licence != "unknown" and model.version != "unknown" and model.description


def test_a_shipped_model_cannot_be_removed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "shipped")
    shipped = write_model_folder(tmp_path / "shipped" / "Demo")
    with pytest.raises(UsageError, match="ships with segrap"):
        remove("Demo")
    assert shipped.exists()


def test_a_model_whose_licence_is_not_accepted_is_not_installed(folder: Path) -> None:
    asked: list[str] = []

    def refuse(model: Model) -> bool:
        asked.append(model.licence)
        return False

    with pytest.raises(UsageError, match="was not accepted"):
        install(folder, agree=refuse)
    assert asked == ["CC0-1.0"] and installed() == []
