"""`fcnlab doctor`: check the installation, the machine and the lab."""

from __future__ import annotations

from dataclasses import asdict

import typer

from fcnlab.cli.options import DataRoot, LabOption, TrackingUri
from fcnlab.cli.output import AsJson, print_json
from fcnlab.console import create_console, format_count, format_table

EXAMPLE = "Example: fcnlab doctor --data-root ~/data"


def doctor(
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Check the installation, the machine and the lab.

    Prints versions, devices, compilers, folders, store and datasets, and a remedy for each problem. Exit code 1 if a
    grid could not run; warnings do not change the exit code.
    """
    from fcnlab.doctor import check_installation
    from fcnlab.lab import Lab

    checks = check_installation(Lab.find(root=lab, data_root=data_root, tracking_uri=tracking_uri))
    errors, warnings = (sum(check.status == status for check in checks) for status in ("error", "warning"))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "errors": errors, "warnings": warnings})
    else:
        terminal = create_console()
        rows = [(check.status, check.name, check.found, check.remedy) for check in checks]
        terminal.print(format_table(("status", "check", "found", "remedy"), rows, terminal.width))
        typer.echo(f"{format_count(errors, 'error')}, {format_count(warnings, 'warning')}")
    if errors:
        raise typer.Exit(1)
