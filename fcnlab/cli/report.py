"""`fcnlab report`: the table of a grid, or of several, from what is recorded so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnlab.cli.options import DataRoot, LabOption, TrackingUri
from fcnlab.console import create_console

if TYPE_CHECKING:
    from fcnlab.config.grid.grid import Grid
    from fcnlab.report.report import Report
    from fcnlab.report.tables.cells import Table, View

EXAMPLE = "Example: fcnlab report experiments/quickstart.yaml --columns n,miou,miou_best,delta --sort -miou"

Format = Literal["terminal", "csv", "markdown", "latex", "html", "json"]


def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The YAML files of one or more grids", show_default=False)
    ],
    columns: Annotated[
        str, typer.Option("--columns", help="Columns with commas between, such as n,miou,miou_best,delta")
    ] = "",
    sort: Annotated[
        str, typer.Option("--sort", help="Sort the cells by this column or axis; from the greatest: -miou")
    ] = "",
    group_by: Annotated[
        str, typer.Option("--group-by", help="Put the cells with the same value of this axis together")
    ] = "",
    pivot: Annotated[
        tuple[str, str] | None,
        typer.Option("--pivot", metavar="AXIS AXIS", help="One axis down, one across, mIoU in between"),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="Of the table that is printed")] = "terminal",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse where cells are not to be compared as they stand")
    ] = False,
    power: Annotated[
        float | None,
        typer.Option("--power", help="Plan how many seeds more would show a difference of so many points"),
    ] = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a grid's tables, plots and page to results/, at any moment, and show the table.

    Of several grids results/<grid>+<grid>/ has one page and one frame beside. What shapes the table shapes what is
    printed alone.
    """
    from fcnlab.lab import Lab
    from fcnlab.report.report import make_report
    from fcnlab.report.tables.cells import View
    from fcnlab.report.write import write_report, write_together
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.publisher import open_if_installed

    place = Lab.find(files[0], root=lab, data_root=data_root, tracking_uri=tracking_uri)
    view = View(tuple(name.strip() for name in columns.split(",") if name.strip()), sort, group_by, pivot)
    grids = [place.load_grid(file) for file in files]
    books = [open_if_installed(grid, place) for grid in grids]
    made = [make_report(make_plan(grid, place), place, tracker) for grid, tracker in zip(grids, books, strict=True)]
    if strict:
        refuse_flagged(made)
    tables = [view.of(one.cells, one.grid.axes) for one in made]
    plans = [_plans(one, power) for one in made] if power is not None else []
    sections = [write_report(one, place, tracker, predict=True) for one, tracker in zip(made, books, strict=True)]
    folders = [one.folder for one in made]
    if len(made) > 1:
        folders.append(write_together(sections, place))

    _print(made, tables, view, output)
    for plan in plans:
        _print_plan(plan)
    for folder in folders:
        typer.echo(f"report: {folder / 'report.html'}", err=output != "terminal")


def refuse_flagged(made: list[Report]) -> None:
    """Refuse grids of which cells are not to be compared; raises RunError with a line for each flag of each cell."""
    from fcnlab.errors import RunError

    lines = [f"{one.grid.path}: {flag}" for one in made for flag in one.flags]
    if lines:
        raise RunError(
            "\n".join([*lines, "these figures are not to be compared; without --strict the table marks them"])
        )


def _print(made: list[Report], tables: list[Table], view: View, output: Format) -> None:
    from fcnlab.report.machine import as_values, to_csv
    from fcnlab.report.tables.formats import to_html, to_latex, to_markdown

    if output == "json":
        values = [as_values(one, view) for one in made]
        typer.echo(json.dumps(values if len(values) > 1 else values[0], indent=1, ensure_ascii=False))
        return
    for one, table in zip(made, tables, strict=True):
        if output == "terminal":
            show_table(one, table)
        elif output == "csv":
            typer.echo(to_csv(one, view), nl=False)
        elif output == "latex":
            typer.echo(to_latex(table, " ".join([one.grid.file.question, *one.footnotes])), nl=False)
        else:
            typer.echo(to_markdown(table) if output == "markdown" else to_html(table), nl=False)


def _plans(made: Report, points: float) -> Table:
    from fcnlab.report.planning import seeds_table

    return seeds_table(made, points)


def _print_plan(plan: Table) -> None:
    from fcnlab.report.planning import NOTE
    from fcnlab.report.tables.formats import to_terminal

    terminal = create_console()
    terminal.print(to_terminal(plan, "\nSeeds", terminal.width))
    terminal.print(NOTE, style="dim")


def show(_grid: Grid, made: Report) -> None:
    """Show a report in the terminal."""
    show_table(made, made.table)
    typer.echo(f"report: {made.folder / 'report.html'}")


def show_table(made: Report, table: Table) -> None:
    """Show a table of a report with its notes."""
    from fcnlab.report.tables.formats import to_terminal

    terminal = create_console()
    terminal.print(to_terminal(table, made.grid.file.question, terminal.width))
    terminal.print("\n".join(made.footnotes), style="dim")
