"""`segrap dataset`: made-up patients, and the benchmark's data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from segrap.errors import Cancelled, InputError, UsageError
from segrap.terminal import as_json, give, progress_bar, say

some_folder = click.Path(path_type=Path)


@click.group()
def dataset() -> None:
    """Data for tests and training."""


@dataset.command()
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--format", "kind", type=click.Choice(["dicom", "nifti"]), default="dicom", show_default=True)
def phantom(output: Path, seed: int, kind: str) -> None:
    """Make up a patient: a non-contrast and a contrast CT with their true contours (RTSTRUCT, or masks)."""
    from segrap.training.phantom import Phantom
    from segrap.training.phantom.files import write_dicom_patient, write_nifti_pair
    from segrap.writing import replacing_folder

    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty. Choose a new folder for the patient.")
    with replacing_folder(output) as folder:
        (write_dicom_patient if kind == "dicom" else write_nifti_pair)(Phantom(seed).render(), folder, seed)
    print(output)


@dataset.command()
@click.argument("folder", type=some_folder)
@as_json
def check(folder: Path, as_json: bool) -> None:
    """Look through a SegRap2023 or SegRap2025 download and say what is in it and what is wrong; changes nothing."""
    from segrap.dataset.check import check_download, in_words

    with progress_bar() as progress:
        report = check_download(folder, progress)
    give(asdict(report) | {"usable": report.usable}, as_json, in_words(report))
    if not report.usable:
        raise InputError("Not all of the download can be converted as it is: see the faults above.")


@dataset.command()
@click.argument("folder", type=some_folder)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="nnUNet_raw, say.")
@click.option(
    "--task",
    type=click.Choice(["oar", "oar-regions", "gtv", "joint"]),
    required=True,
    help="The organs' 54 sub-classes; the same as regions; the two tumours; all in one.",
)
@as_json
def convert(folder: Path, output: Path, task: Any, as_json: bool) -> None:
    """Turn a SegRap download into an nnU-Net v2 raw data set.

    Goes on where it was interrupted, and converts again whose files have changed since.
    """
    from segrap.dataset.convert import convert as convert_download

    try:
        with progress_bar() as progress:
            made = convert_download(folder, output, task, progress)
    except KeyboardInterrupt:
        raise Cancelled("Cancelled. What is finished stays: the same command goes on where it stopped.") from None
    for reason in dict.fromkeys(made.without_contours.values()):
        patients = ", ".join(name for name, its_reason in made.without_contours.items() if its_reason == reason)
        say(f"Not for training, {reason}: {patients}.")
    if made.redone:
        say(f"{made.redone} patients were converted again: their files are not those of the last time.")
    for combination, voxels in made.unmodelled_voxels.items():
        say(f"{voxels} voxels of {combination} took the tumour or the nearest sub-class: none is for that combination.")
    say(f"{made.training} patients for training, {made.test} for testing.")
    give(asdict(made) | {"folder": str(made.folder)}, as_json, str(made.folder))


@dataset.command()
@click.argument("folder", type=some_folder)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A .json file.")
@click.option("--ct", type=some_folder, help="The folder of the cases' CTs, where they lie apart.")
@click.option("--names", type=some_folder, help='A site\'s own names in DICOM, a file of {"Parotid_L": "Parotis li"}.')
@as_json
def statistics(folder: Path, output: Path, ct: Path | None, names: Path | None, as_json: bool) -> None:
    """Measure volumes and Hounsfield units per structure over the patients of a download, or of a site's own folder of
    cases (as `segrap evaluate` reads them, with their CTs); for `contour --volumes`.
    """
    from segrap.dataset.statistics import measure, write_statistics
    from segrap.naming import read_names

    called = read_names(names) if names else None
    with progress_bar() as progress:
        found = measure(folder, progress, called, ct)
    if found["left_out"]:
        say(f"Left out, for they have no contours or no non-contrast CT: {', '.join(found['left_out'])}.")
    write_statistics(found, output)
    give(found, as_json, str(output))
