"""`fcnlab doctor`: check the installation, the machine and the lab."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption, TrackingUri
from fcnlab.console import create_console

EXAMPLE = "Example: fcnlab doctor --data-root ~/data"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Check versions, devices, compilers, folders, store and datasets, and print what to do about each problem.

    Exit code 1 if a grid could not run; warnings do not change the exit code.
    """
    from rich.table import Table

    from fcnlab.doctor import check_installation
    from fcnlab.lab import Lab

    checks = check_installation(Lab.find(root=lab, data_root=data_root, tracking_uri=tracking_uri))
    errors, warnings = (sum(check.status == status for check in checks) for status in ("error", "warning"))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        table = Table("status", "check", "found", "what to do", box=None, pad_edge=False)
        for check in checks:
            table.add_row(check.status, check.name, check.found, check.remedy)
        create_console().print(table)
        typer.echo(f"{errors} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(1)
