"""The report of a grid: frames, statistics, table, footnotes and summary."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args, overload

import pandas as pd

from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import Grid
from fcnlab.constants import Bold
from fcnlab.errors import ConfigError, nearest
from fcnlab.lab import Lab
from fcnlab.notebook import render_html
from fcnlab.report.best import Best, add_best, find_best, select_cells
from fcnlab.report.dataset_groups import DatasetGroup, find_groups
from fcnlab.report.effects import AxisEffect, compute_axis_effects, effects_frame
from fcnlab.report.footnotes.write import write_footnotes
from fcnlab.report.frame import cells_frame, curves_frame, trials_frame
from fcnlab.report.significance import Significance, add_differences, compute_significance
from fcnlab.report.summary_text import summarize
from fcnlab.report.tables.cells import View, make_cell_table
from fcnlab.report.tables.columns import DECIMALS
from fcnlab.report.tables.formats import to_html
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import TrialRecords, load_records
from fcnlab.runner.checks.repeated_images import RepeatedImages, find_repeated_images
from fcnlab.runner.plan import Plan
from fcnlab.runner.publisher import OptionalTracker
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.tracking.view import format_runs_page

if TYPE_CHECKING:
    from altair import LayerChart
    from pandas.io.formats.style import Styler

    from fcnlab.report.tables.export import TextFormat


@dataclass(frozen=True)
class Report:
    """Report of a grid.

    Attributes:
        plan: plan of the grid.
        trials: frame with one row per trial.
        cells: frame with one row per cell.
        cell_table: the table of cells, with the default columns.
        names: display names of the axes and cells.
        summary_text: sentences that summarize the results.
        significance: statistics of the cells.
        best: the best cells.
        groups: the cells by dataset, those of the grid's baseline first; classes and images are shown of this group.
        records: records of the finished trials.
        repeated: images on which finished trials were evaluated although they were trained on equal images.
        not_compared: names of the datasets whose files are missing, so that such images could not be found.
        folder: the folder of the report's files.
        runs_page: address of the runs of the grid's experiment on an MLflow server; empty for none.
    """

    plan: Plan
    trials: pd.DataFrame
    cells: pd.DataFrame
    cell_table: Table
    names: Names
    summary_text: list[str]
    significance: Significance
    best: Best
    groups: tuple[DatasetGroup, ...]
    records: TrialRecords
    repeated: list[RepeatedImages]
    folder: Path
    runs_page: str = ""
    not_compared: Sequence[str] = ()

    def __repr__(self) -> str:
        finished = int((self.trials["status"] == "finished").sum())
        return (
            f"Report({self.grid.name}: {finished} of {len(self.trials)} trials finished, in results/{self.grid.name})"
        )

    def _repr_html_(self) -> str:
        notes = "".join(render_html("", note=note) for note in self.footnotes)
        return render_html(self.grid.file.question) + to_html(self.cell_table) + notes

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.plan.grid

    @property
    def caption(self) -> str:
        """Caption of the table: that of the grid file, else the question."""
        return self.grid.file.labels.caption or self.grid.file.question

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the first group in the dataset, by label; empty where no trial has finished."""
        by_seed = self.records.by_cell.get(self.groups[0].reference, {})
        return next((record.classes for record in by_seed.values()), ())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Display names of these classes."""
        return tuple(self.names.classes.get(name, name) for name in self.classes)

    def select_cells(self, most: int) -> list[str]:
        """Return the labels of the baseline and the best of the other cells that were evaluated on the same images.

        Args:
            most: largest number of cells.
        """
        return select_cells(self.cells[self.cells["cell"].isin(self.groups[0].same)], most)

    @cached_property
    def footnotes(self) -> list[str]:
        """Footnotes of the table, one text per line."""
        return self.write_footnotes(self.cell_table.columns)

    def write_footnotes(self, columns: Collection[str]) -> list[str]:
        """Return the footnotes that concern the shown columns, one text per line.

        Args:
            columns: names of the shown columns.
        """
        return write_footnotes(self, columns)

    def write_footnotes_of(self, table: Table) -> list[str]:
        """Return the footnotes that concern a table, one text per line.

        Args:
            table: a table of the cells, which may be pivoted.
        """
        return write_footnotes(self, table.columns, table if table.is_pivoted else None)

    def mark(self, bold: Bold) -> Report:
        """Return this report with other cells in bold.

        Args:
            bold: the cells in bold; see `table`.

        Raises:
            ConfigError: there is no such value.
        """
        if bold not in get_args(Bold):
            raise ConfigError(f"bold: there is no '{bold}'; {nearest(bold, get_args(Bold))}")
        best = replace(self.best, bold=bold)
        return replace(self, cells=add_best(self.cells, best), best=best)

    @overload
    def table(
        self,
        *,
        columns: Sequence[str] = ...,
        sort: str = ...,
        group_by: str = ...,
        pivot: tuple[str, str] | None = ...,
        decimals: int = ...,
        bold: Bold = ...,
    ) -> Styler: ...
    @overload
    def table(
        self,
        *,
        columns: Sequence[str] = ...,
        sort: str = ...,
        group_by: str = ...,
        pivot: tuple[str, str] | None = ...,
        decimals: int = ...,
        bold: Bold = ...,
        format: TextFormat,
    ) -> str: ...
    def table(
        self,
        *,
        columns: Sequence[str] = (),
        sort: str = "",
        group_by: str = "",
        pivot: tuple[str, str] | None = None,
        decimals: int = DECIMALS,
        bold: Bold = "tied",
        format: TextFormat | None = None,
    ) -> Styler | str:
        """Return the table of cells, as `fcnlab report` prints it.

        Args:
            columns: names of columns, such as `["n", "miou", "iou:car"]` or `["dice:*"]`; by default those of
                `cell_table`.
            sort: column or axis by which the cells are sorted; descending with a minus, such as `-miou`.
            group_by: axis whose cells of one value are put together.
            pivot: axis of the rows and axis of the columns of a table of one metric.
            decimals: number of decimals of percentages; CSV and JSON have raw values.
            bold: cells in bold: `tied` for the cell with the highest mean mIoU and those that do not differ
                significantly from it, `max` for the highest mean only, or `none`.
            format: format of a text; None for a pandas Styler, which a notebook shows. `format="latex"` compiles;
                `Styler.to_latex` does not, since it takes the styles of HTML for commands.

        Returns:
            The Styler, or the text.

        Raises:
            ConfigError: there is no such column, class, axis or format; the message names the nearest.
        """
        from fcnlab.report.tables.export import format_report
        from fcnlab.report.tables.requested_columns import add_requested_columns
        from fcnlab.report.tables.styled import to_styler

        if isinstance(columns, str):
            raise ConfigError(f"columns: a list of names is expected, such as ['n', 'miou'], not '{columns}'")
        view = View(tuple(columns), sort, group_by, pivot, decimals).resolve(self.names)
        shown, view = add_requested_columns(self.mark(bold), view)
        if format is not None:
            return format_report(shown, view, format)
        return to_styler(view.make_table(shown.cells, shown.names), self.caption)

    def plot(self, name: str = "", *, x: str = "", y: str = "") -> LayerChart:
        """Return a chart of the report, or of two columns of `cells`.

        Args:
            name: name of a chart of the report, such as `differences` or `curves`; an unknown one lists the names.
            x: column of `cells` on the horizontal axis, instead of a name.
            y: column of `cells` on the vertical axis.

        Returns:
            The Altair chart, which a notebook shows.

        Raises:
            ConfigError: there is no such chart or column; the message names the nearest.

        Example::

            report.plot("curves")
            report.plot(x="gmacs", y="miou")
        """
        from fcnlab.report.charts.custom import draw_columns
        from fcnlab.report.charts.draw import draw_plots

        if x and y and not name:
            return draw_columns(self, x, y)
        charts = {plot.name: plot.chart for plot in draw_plots(self)}
        if name not in charts or x or y:
            raise ConfigError(f"plot: pass the name of a chart, or x and y; {nearest(name, charts)}")
        return charts[name]

    @cached_property
    def axis_effects(self) -> list[AxisEffect]:
        """Effects of the axes that vary over several pairs of cells."""
        return compute_axis_effects(self.grid, self.names, self.records, self.groups)

    @property
    def effects(self) -> pd.DataFrame:
        """Frame with one row per effect of an axis; see `effects_frame`."""
        return effects_frame(self.axis_effects, self.names)

    @property
    def flags(self) -> list[str]:
        """Reasons why cells are not comparable with the baseline, one text per reason."""
        return [f"{cell}: {flag.footnote}" for cell, flags in self.significance.flags.items() for flag in flags]


def make_report(plan: Plan, lab: Lab, tracker: MlflowTracker | None) -> Report:
    """Make the report of a plan.

    Args:
        plan: plan of the grid.
        lab: the lab of the grid.
        tracker: source of the trials that were run elsewhere; None to use only `runs/`.

    Raises:
        TrackingError: the tracking store is unreachable.
        RunError: a trial's counts are damaged.
    """
    grid = plan.grid
    trials = trials_frame(plan, tracker)
    records = _load_records(grid, trials, lab, tracker)
    groups = find_groups(grid, trials, records)
    cells = cells_frame(trials, grid.axes, {cell: group.baseline for group in groups for cell in group.cells})
    significance = compute_significance(grid, records, groups)
    cells = add_differences(cells, significance)
    best = find_best(cells, records, groups, significance)
    cells, names = add_best(cells, best), Names.of_grid(grid)
    images = find_repeated_images(plan, (one for one in plan.trials if one.status == "finished"), lab)
    return Report(
        plan=plan,
        trials=trials,
        cells=cells,
        cell_table=make_cell_table(cells, names),
        names=names,
        summary_text=summarize(grid, trials, cells, significance, groups),
        significance=significance,
        best=best,
        groups=groups,
        records=records,
        repeated=images.found,
        not_compared=images.missing,
        folder=lab.results / grid.name,
        runs_page=format_runs_page(lab.tracking_uri, tracker.experiment_id) if tracker is not None else "",
    )


def report_plan(plan: Plan, lab: Lab, tracker: OptionalTracker) -> Report:
    """Make the report of a plan, and ask MLflow only for trials that the lab does not have, and for links to runs.

    Args:
        plan: plan of the grid.
        lab: the lab of the grid.
        tracker: tracker of the grid, which keeps an error of the store.

    Raises:
        RunError: a trial's counts are damaged.
    """
    if all(planned.status == "finished" for planned in plan.trials) and not tracker.has_pages:
        return make_report(plan, lab, None)
    return tracker.call(lambda store: make_report(plan, lab, store))


def make_curves(plan: Plan, lab: Lab, tracker: MlflowTracker | None) -> pd.DataFrame:
    """Make the frame of the epochs of a plan's trials; see `curves_frame`.

    Args:
        plan: plan of the grid.
        lab: the lab of the grid.
        tracker: source of the trials that were run elsewhere; None to use only `runs/`.

    Raises:
        TrackingError: the tracking store is unreachable.
    """
    return curves_frame(plan, _load_records(plan.grid, trials_frame(plan, tracker), lab, tracker))


def _load_records(grid: Grid, trials: pd.DataFrame, lab: Lab, tracker: MlflowTracker | None) -> TrialRecords:
    return load_records(trials, lab.runs, tracker, lab.state / "fetched", grid.file.checkpoint)
