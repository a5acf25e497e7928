"""`fcnlab lab check`: verify all files of a lab."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption, TrackingUri
from fcnlab.cli.output import AsJson, print_json
from fcnlab.console import format_count

app = typer.Typer(help="Verify the files of a lab.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Verify the files of a lab."""


@app.command("check", epilog="Example: fcnlab lab check --repair")
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged files to runs/.quarantine/ and remove damaged caches")
    ] = False,
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Verify all run folders, the MLflow store and the decoded caches.

    A store is verified if it is a SQLite file. Prints one line per problem; exit code 1 if there are any, also if they
    were repaired. Trials whose results were moved run again at the next `fcnlab grid run`.
    """
    from fcnlab.lab import Lab
    from fcnlab.lab_check import check_lab

    checked_lab = check_lab(Lab.find(root=lab, data_root=data_root, tracking_uri=tracking_uri), repair=repair)
    if as_json:
        print_json(asdict(checked_lab))
    else:
        for found in checked_lab.problems:
            typer.echo(f"{found.path}: {found.problem}" + (f"; {found.repair}" if found.repair else ""))
        typer.echo(
            f"{format_count(checked_lab.trials, 'trial')} and {format_count(checked_lab.caches, 'cache')}: "
            f"{format_count(len(checked_lab.problems), 'problem')}"
        )
    if checked_lab.problems:
        raise typer.Exit(1)
