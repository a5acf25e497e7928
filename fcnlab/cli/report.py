"""`fcnlab report`: the report of one or more grids from the trials recorded so far."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnlab.cli.options import DataRoot, LabOption, Strict, TrackingUri
from fcnlab.cli.output import print_json, report_damage, report_missing_inputs
from fcnlab.console import create_console
from fcnlab.constants import Bold

if TYPE_CHECKING:
    from fcnlab.config.grid.grid import Grid
    from fcnlab.lab import Lab
    from fcnlab.report.report import Report
    from fcnlab.report.tables.cells import View
    from fcnlab.report.tables.table import Table

EXAMPLE = "Example: fcnlab report experiments/quickstart.yaml --columns n,miou,miou_best,delta --sort -miou"

Format = Literal["terminal", "csv", "markdown", "latex", "html", "json"]


def report(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Grid files", show_default=False)],
    columns: Annotated[
        str,
        typer.Option("--columns", metavar="NAMES", help="Print these columns, such as n,miou,delta or miou,iou:*"),
    ] = "",
    sort: Annotated[
        str,
        typer.Option("--sort", metavar="COLUMN", help="Sort by this column or axis; in descending order: -COLUMN"),
    ] = "",
    group_by: Annotated[
        str, typer.Option("--group-by", metavar="AXIS", help="Put cells with the same value of this axis together")
    ] = "",
    pivot: Annotated[
        tuple[str, str] | None,
        typer.Option("--pivot", metavar="AXIS AXIS", help="Print the mIoU with one axis as rows and one as columns"),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="Format of the printed table")] = "terminal",
    as_json: Annotated[
        bool, typer.Option("--json", help="Same as --format json: one JSON document, and nothing else")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="With --format latex: all columns in a table of full width (table*)")
    ] = False,
    decimals: Annotated[int, typer.Option("--decimals", metavar="N", help="Decimals of percentages")] = 1,
    bold: Annotated[
        Bold,
        typer.Option(
            "--bold",
            help="Cells in bold: the highest mean mIoU and those that do not differ significantly (tied), only the "
            "highest mean (max), or none",
        ),
    ] = "tied",
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write each chart as PDF, for LaTeX")] = False,
    strict: Strict = False,
    power: Annotated[
        float | None,
        typer.Option(
            "--power", metavar="POINTS", help="Also print how many more seeds would show this difference in mIoU"
        ),
    ] = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write the report of a grid to results/, and print its table.

    The report contains tables, charts and an HTML page. Several grids also get a common page and frame in
    results/<grid>+<grid>/. Options for columns, order, decimals and bold cells apply to the printed table only.
    Exit code 1 if files of a trial are damaged; the trial is left out.
    """
    from fcnlab.errors import ConfigError
    from fcnlab.lab import Lab

    output = "json" if as_json else output
    if wide and output != "latex":
        raise ConfigError("--wide: only for a table in LaTeX; add --format latex")
    if power is not None and not 0 < power <= 100:
        raise ConfigError(f"--power {power:g}: expected points of mIoU above 0 and up to 100, such as 0.5")
    names = split_columns(columns)
    lab_ = Lab.find(files[0], root=lab, data_root=data_root, tracking_uri=tracking_uri)
    grids = [lab_.load_grid(file) for file in files]

    # pandas and Altair are imported now, so that an error of a file is reported quickly
    from fcnlab.report.report import report_plan
    from fcnlab.report.tables.cells import View
    from fcnlab.report.tables.requested_columns import add_requested_columns
    from fcnlab.report.tables.seed_plan import make_seed_table
    from fcnlab.report.write import check_written_report, publish_report, write_combined, write_report
    from fcnlab.runner.changed_inputs import describe_changed_inputs
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.publisher import OptionalTracker

    view = View(names, sort, group_by, pivot, decimals)
    plans = [make_plan(grid, lab_, recorded_inputs=True) for grid in grids]
    report_missing_inputs(*plans)
    trackers = [OptionalTracker(grid, lab_) for grid in grids]
    reports = [report_plan(plan, lab_, tracker) for plan, tracker in zip(plans, trackers, strict=True)]
    for one in reports:
        check_written_report(one)
    if strict:
        refuse_flagged(reports)
    shown = [add_requested_columns(one.mark(bold), view.resolve(one.names)) for one in reports]
    tables = [own.make_table(one.cells, one.names) for one, own in shown]
    seed_tables = [make_seed_table(one, power) for one in reports] if power is not None else []
    sections = [write_report(one, lab_, predict=True, pdf=pdf) for one in reports]
    for one, tracker in zip(reports, trackers, strict=True):
        publish_report(one, tracker)
    folders = [one.folder for one in reports]
    if len(reports) > 1:
        folders.append(write_combined(sections, lab_))

    for plan in plans:
        for remark in describe_changed_inputs(plan, lab_):
            typer.echo(remark, err=True)
    _print(shown, tables, output, wide=wide)
    for seed_table in seed_tables:
        _print_seed_table(seed_table, stderr=output != "terminal")
    for folder in folders:
        typer.echo(f"report: {folder / 'report.html'}", err=output != "terminal")
    for grid, tracker in zip(grids, trackers, strict=True):
        for remark in tracker.remarks:
            typer.echo(remark, err=True)
        if tracker.error is not None:
            show_not_published([tracker.error], grid, lab_)
    report_damage(*plans)


def refuse_flagged(reports: list[Report]) -> None:
    """Raise RunError with one line per flag if cells are not comparable."""
    from fcnlab.errors import RunError

    lines = [f"{one.grid.path}: {flag}" for one in reports for flag in one.flags]
    if lines:
        raise RunError("\n".join([*lines, "these cells are not comparable; without --strict the table marks them"]))


def split_columns(text: str) -> tuple[str, ...]:
    """Return the names in the value of `--columns`, which are separated by commas outside of double quotes.

    Args:
        text: the value; a backslash precedes a quote or a backslash that is part of a name.

    Raises:
        ConfigError: a quote is not closed.

    Example:
        >>> split_columns('n, miou,iou:"car, parked"')
        ('n', 'miou', 'iou:car, parked')
    """
    from shlex import shlex

    from fcnlab.errors import ConfigError

    lexer = shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.quotes, lexer.commenters = ",", True, '"', ""
    try:
        return tuple(name.strip() for name in lexer if name.strip())
    except ValueError as error:
        raise ConfigError(f"--columns: {str(error).lower()} in '{text}'") from None


def _print(shown: list[tuple[Report, View]], tables: list[Table], output: Format, *, wide: bool) -> None:
    from fcnlab.report.footnotes.image_metrics import describe_missing_image_metrics
    from fcnlab.report.tables.csv_text import to_csv_text
    from fcnlab.report.tables.export import format_report, merge_cells, to_values

    if output == "json":
        values = [to_values(one, view) for one, view in shown]
        print_json(values if len(values) > 1 else values[0])
        return
    is_merged = output == "csv" and len(shown) > 1  # programs read one table
    if is_merged:
        typer.echo(to_csv_text(merge_cells(shown)), nl=False)
    for (one, view), table in zip(shown, tables, strict=True):
        if output == "terminal":
            show_table(one, table)
            show_effects(one)
            continue
        if not is_merged:
            typer.echo(format_report(one, view, output, wide=wide), nl=False)
        for line in describe_missing_image_metrics(one, table.columns):
            typer.echo(line, err=True)


def _print_seed_table(table: Table, *, stderr: bool) -> None:
    from fcnlab.report.tables.formats import to_terminal
    from fcnlab.report.tables.seed_plan import NOTE

    terminal = create_console(stderr=stderr)
    terminal.print(to_terminal(table, "\nSeeds", terminal.width))
    terminal.print(NOTE, style="dim")


def show_not_published(errors: Iterable[str], grid: Grid, lab: Lab) -> None:
    """Print why trials or their report are not in a tracker, and the commands that help."""
    from fcnlab.runner.commands import format_grid_command

    for error in errors:
        typer.echo(f"not published: {error}", err=True)
    typer.echo(f"publish later with: {format_grid_command('grid sync', grid, lab)}", err=True)


def show_effects(report: Report) -> None:
    """Print the table of the effects of the axes with its footnotes, if there are any."""
    from fcnlab.report.tables.effects import describe_effects, make_effects_table
    from fcnlab.report.tables.formats import to_terminal

    if not report.axis_effects:
        return
    terminal = create_console()
    table = make_effects_table(report.axis_effects, report.names)
    terminal.print(to_terminal(table, "\nEffects of the axes", terminal.width))
    terminal.print("\n".join(describe_effects(report.axis_effects)), style="dim")


def show_table(report: Report, table: Table) -> None:
    """Print a table of a report with the footnotes that concern it."""
    from fcnlab.report.tables.formats import to_terminal

    terminal = create_console()
    terminal.print(to_terminal(table, report.grid.file.question, terminal.width))
    terminal.print("\n".join(report.write_footnotes_of(table)), style="dim")
