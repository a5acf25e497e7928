"""`fcnlab report`: the table of a grid, from what is recorded so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from fcnlab.cli.options import DataRoot, GridFile, LabOption, TrackingUri, console

if TYPE_CHECKING:
    from fcnlab.report.write import Report
    from fcnlab.spec.grid import Grid

EXAMPLE = "Example: fcnlab report experiments/quickstart.yaml"


def report(file: GridFile, lab: LabOption = None, data_root: DataRoot = None, tracking_uri: TrackingUri = None) -> None:
    """Write a grid's tables to results/ from MLflow, at any moment, and show the table."""
    from fcnlab import api
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    grid = place.grid(file)
    show(grid, api.report(grid, lab=place))


def show(grid: Grid, made: Report) -> None:
    """Show a report in the terminal."""
    from fcnlab.report.tables import to_terminal

    terminal = console()
    terminal.print(to_terminal(made.table, grid.file.question, terminal.width))
    terminal.print(made.footnote, style="dim")
    typer.echo(f"report: {made.folder / 'README.md'}")
