"""`segrap`: the road from a terminal. Each command reads its arguments, calls one room and reports.

Exit status: 0 done; 2 the command line is wrong; 3 the input cannot be used; 4 the model cannot be used; 5 out of
memory, no such device, or the result cannot be written; 130 cancelled. People are spoken to on stderr, results go to
stdout.
"""

from __future__ import annotations

import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import segrap
from segrap.dataset.commands import dataset
from segrap.models.commands import models
from segrap.terminal import as_json, errors_as_exit_status, give, progress_bar, say, some_path

if TYPE_CHECKING:
    from segrap.contours import Contours
    from segrap.ct.dicom_series import CTSeries
    from segrap.ct.pair import CTPair
    from segrap.progress import ProgressCallback
    from segrap.quality import Expected

FORMATS = ("seg.nrrd", "rtstruct", "dicom-seg", "segrap", "nifti")

output_folder = click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True)
overwrite_results = click.option("--overwrite", is_flag=True, help="Replace all results that are in the output folder.")


class Commands(click.Group):
    """A group whose commands end with the exit statuses above."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):  # a console or log file of Windows may lack a path's letters
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with errors_as_exit_status():
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(segrap.__version__, prog_name="segrap")
def main() -> None:
    """Auto-contouring for radiotherapy of nasopharyngeal cancer. For research: every contour needs review."""


@main.command()
@click.argument("ncct", type=some_path)
@click.argument("cect", type=some_path, required=False)
@output_folder
@click.option(
    "--model",
    "model_names",
    metavar="NAME_OR_FOLDER",
    multiple=True,
    help="An installed model, or a model folder. Several times: each structure from the first that contours it.",
)
@click.option("--structures", metavar="NAMES", help="SegRap names with commas between them, or OARs, GTVs, all.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--quick", is_flag=True, help="Compute in bfloat16 where the CPU can: faster, borders may differ.")
@click.option(
    "--step",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Part of a tile between one and the next; more is faster, and contours may differ.",
)
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), help="May be given several times.")
@click.option("--volumes", type=some_path, help="A site's own measures for the checks: `segrap dataset statistics`.")
@click.option("--allow-demo-model", is_flag=True, help="Let a demonstration model run on a real scan.")
@overwrite_results
@as_json
def contour(
    ncct: Path,
    cect: Path | None,
    output: Path,
    model_names: tuple[str, ...],
    structures: str | None,
    device: str,
    quick: bool,
    step: float,
    formats: tuple[str, ...],
    volumes: Path | None,
    allow_demo_model: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Contour a CT pair (or one CT); write contours, a table and a report into the output folder.

    NCCT and CECT are a DICOM folder or a .nii, .nii.gz, .nrrd, .mha or .mhd file. One DICOM folder may hold both scans.
    """
    from segrap import anatomy
    from segrap.ct.pair import load_pair
    from segrap.dataset.statistics import read_expected
    from segrap.progress import Progress
    from segrap.results import check_place

    check_place(output, overwrite)
    expected = read_expected(volumes) if volumes else None
    chosen = anatomy.choose(name.strip() for name in structures.split(",")) if structures else None
    with progress_bar() as progress:
        progress(Progress("Reading the CT", 0.0))
        pair = load_pair(ncct, cect)
        how = {"device": device, "allow_demo_model": allow_demo_model, "quick": quick, "step": step}
        result = _contour_and_write(
            pair, model_names, output, progress, formats, expected, overwrite, structures=chosen, **how
        )
    _report(result, as_json)


@main.command()
@output_folder
@click.option("--seed", default=1, show_default=True, help="Which made-up patient.")
@overwrite_results
@as_json
def demo(output: Path, seed: int, overwrite: bool, as_json: bool) -> None:
    """Contour a made-up patient: the whole road, from two DICOM series to an RTSTRUCT, with pictures and report."""
    from segrap.ct.pair import load_pair
    from segrap.progress import Progress
    from segrap.results import check_place
    from segrap.training.phantom import Phantom
    from segrap.training.phantom.files import write_dicom_pair
    from segrap.writing import replacing_folder

    name = "made-up patient"
    check_place(output, overwrite, also=[name])
    with progress_bar() as progress:
        progress(Progress("Making up a patient", 0.0))
        with replacing_folder(output, instead_of=[name]) as folder:
            write_dicom_pair(Phantom(seed).render(), folder / name, seed)
        progress(Progress("Reading the CT", 0.0))
        pair = load_pair(output / name)
        result = _contour_and_write(pair, ("SegRapPhantom",), output, progress, overwrite=overwrite)
    _report(result, as_json)


def _contour_and_write(
    pair: CTPair,
    model_names: tuple[str, ...],
    output: Path,
    progress: ProgressCallback,
    formats: tuple[str, ...] = (),
    expected: dict[str, Expected] | None = None,
    overwrite: bool = False,
    structures: tuple[str, ...] | None = None,
    **how: Any,
) -> dict[str, Any]:
    from segrap.composition import choose_models, compose
    from segrap.progress import Progress
    from segrap.results import choose_formats, write_results

    choose_formats(pair, formats)  # what cannot be written is refused before the contouring
    models = choose_models(pair, model_names, structures)
    contours = compose(pair, models, structures, progress=progress, **how)
    progress(Progress("Writing", 1.0))
    files, remarks = write_results(contours, pair, output, formats, expected, overwrite)
    return {
        "title": contours.title,
        "files": [str(path) for path in files],
        "remarks": [*pair.remarks, *remarks],
        "structures": {name: round(facts.volume_cc, 3) for name, facts in contours.structures.items()},
        "models": {name: contours.maker(name) for name in contours.names},
        "provenance": asdict(contours.provenance),
    }


def _report(result: dict[str, Any], as_json: bool) -> None:
    for remark in result["remarks"]:
        say(remark)
    say(f"{result['title']}: {len(result['structures'])} structures. Look at report.html first.")
    give(result, as_json, "\n".join(result["files"]))


@main.command()
@click.argument("predictions", metavar="PREDICTION...", type=some_path, nargs=-1, required=True)
@click.argument("reference", type=some_path)
@output_folder
@click.option(
    "--tolerances",
    type=click.Choice(["published", "2023-test-as-run"]),
    default="published",
    show_default=True,
    help="NSD tolerances: of the challenge's published script, or those that its 2023 test really applied.",
)
@click.option("--commission", is_flag=True, help="Write a clinic's commissioning report instead of the tables.")
@click.option("--ct", type=some_path, help="The CT, or a folder of the cases' CTs, to show or read contours on.")
@click.option("--names", type=some_path, help='A site\'s own names in DICOM, a file of {"Parotid_L": "Parotis li"}.')
@as_json
def evaluate(
    predictions: tuple[Path, ...],
    reference: Path,
    output: Path,
    tolerances: Any,
    commission: bool,
    ct: Path | None,
    names: Path | None,
    as_json: bool,
) -> None:
    """Score PREDICTION against REFERENCE as the SegRap challenge does; write tables and figures into the output folder.

    Each is one case or a folder of cases: .seg.nrrd, a challenge stack (.mha), a folder of masks named after structures
    (.nii.gz), a volume of labels (nnU-Net's with its dataset.json, or the challenge's ids), an RTSTRUCT or DICOM SEG
    beside its CT, or a folder with one of these. Several predictions are methods, which are ranked as the challenge
    ranked its teams.
    """
    from segrap.evaluation.evaluate import evaluate as evaluate_contours
    from segrap.evaluation.score_tables import summary_facts
    from segrap.naming import read_names

    called = read_names(names) if names else None
    with progress_bar() as progress:
        comparisons, files = evaluate_contours(
            predictions, reference, output, tolerances, commission, ct, progress, called
        )
    facts = {method: summary_facts(comparison) for method, comparison in comparisons.items()}
    for method, found in facts.items():
        for kind in ("missing_cases", "missing_structures", "extra_cases", "extra_structures"):
            if found[kind]:
                say(f"{method}: {kind.replace('_', ' ')}: {', '.join(found[kind])}.")
        for remark in comparisons[method].remarks:
            say(f"{method}: {remark}")
    paths = [str(path) for path in files]
    give({"methods": facts, "files": paths}, as_json, "\n".join(paths))


main.add_command(models)
main.add_command(dataset)


@main.group()
def rtstruct() -> None:
    """RTSTRUCT files: write, check, read."""


@rtstruct.command("write")
@click.argument("contours", type=some_path)
@click.argument("ct_folder", type=some_path)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--structures", metavar="NAMES", help="SegRap names with commas between them, or OARs, GTVs, all.")
@click.option(
    "--names", metavar="tg263|segrap|FILE.json", default="tg263", show_default=True, help="What structures are called."
)
def write(contours: Path, ct_folder: Path, output: Path, structures: str | None, names: str) -> None:
    """Write CONTOURS (.seg.nrrd, also as edited and saved by Slicer) as an RTSTRUCT on the CT in CT_FOLDER."""
    from segrap import anatomy
    from segrap.contour_files.seg_nrrd import read_seg_nrrd
    from segrap.naming import read_names
    from segrap.rtstruct.write import write_rtstruct

    called: Any = names if names in ("tg263", "segrap") else read_names(names)
    read = read_seg_nrrd(contours)
    _say_left_out(read.left_out)
    chosen = anatomy.choose(name.strip() for name in structures.split(",")) if structures else None
    report = write_rtstruct(read, _series_under(read, ct_folder), output, chosen, called)
    for warning in report.warnings:
        say(warning)
    if report.empty:
        say(f"Empty, hence not in the RTSTRUCT: {', '.join(report.empty)}.")
    print(output)


@rtstruct.command("check")
@click.argument("file", type=some_path)
@click.argument("ct_folder", type=some_path)
@as_json
def check(file: Path, ct_folder: Path, as_json: bool) -> None:
    """Look for what planning systems stumble over; exit status 3 if there is an error."""
    from segrap.ct.dicom_series import read_series_folder
    from segrap.errors import InputError
    from segrap.rtstruct.lint import lint
    from segrap.rtstruct.read import drawn_on

    findings = lint(file, drawn_on(file, read_series_folder(ct_folder)))
    lines = [f"{finding.severity}: {finding.where}: {finding.what}" for finding in findings]
    give({"findings": [asdict(finding) for finding in findings]}, as_json, "\n".join(lines) or "Nothing found.")
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise InputError(f"{file.name} has {errors} error{'s' * (errors > 1)}.")


@rtstruct.command("read")
@click.argument("file", type=some_path)
@click.argument("ct_folder", type=some_path)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--names", type=some_path, help='A site\'s own names, as for `write`: {"Parotid_L": "Parotis li"}.')
def read(file: Path, ct_folder: Path, output: Path, names: Path | None) -> None:
    """Turn the structures of an RTSTRUCT into a Slicer segmentation (.seg.nrrd) on the CT in CT_FOLDER.

    They are known by their SegRap or TG-263 names, and by those in the file of --names.
    """
    from segrap.contour_files.seg_nrrd import write_seg_nrrd
    from segrap.ct.dicom_series import read_series_folder
    from segrap.naming import read_names
    from segrap.rtstruct.read import drawn_on, read_rtstruct

    series = drawn_on(file, read_series_folder(ct_folder))
    contours = read_rtstruct(file, series, read_names(names) if names else None)
    _say_left_out(contours.left_out)
    for remark in contours.provenance.remarks:
        say(remark)
    write_seg_nrrd(contours, output)
    print(output)


def _series_under(contours: Contours, ct_folder: Path) -> CTSeries:
    """The one CT series of the folder on whose grid the contours lie, or, of several, that which they name."""
    from segrap.ct.dicom_series import read_series_folder
    from segrap.errors import InputError
    from segrap.geometry import same_grid

    found = [
        one
        for one in read_series_folder(ct_folder)
        if same_grid(contours.geometry, contours.shape, one.geometry, one.shape)
    ]
    named = [one for one in found if one.series_uid in contours.provenance.input_series_uids[:1]]
    if len(named or found) != 1:
        raise InputError(
            f"{ct_folder} holds {len(found)} CT series that fit. Give the folder of the planning CT alone."
        )
    return (named or found)[0]


def _say_left_out(names: tuple[str, ...]) -> None:
    if names:
        say(f"Left out, for they are no SegRap structures: {', '.join(names)}.")
