"""A grid's report before it is written: frames, statistics, table, notes and findings, all from one set of records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fcnlab.config.grid.grid import Grid
from fcnlab.lab import Lab
from fcnlab.report.footnotes import footnotes
from fcnlab.report.frame import cells_frame, trials_frame
from fcnlab.report.significance import Significance, compute_significance, with_differences
from fcnlab.report.summary_text import summary_text
from fcnlab.report.tables.cells import Table, cell_table
from fcnlab.report.trial_records import TrialRecords, load_records
from fcnlab.runner.plan import Plan
from fcnlab.tracking.tracker import MlflowTracker


@dataclass(frozen=True)
class Report:
    """What a grid says: a row a trial, a row a cell, the table with its notes, what was found, where the files are."""

    plan: Plan
    trials: pd.DataFrame
    cells: pd.DataFrame
    table: Table
    footnotes: list[str]
    summary_text: list[str]
    significance: Significance
    records: TrialRecords
    folder: Path

    @property
    def grid(self) -> Grid:
        """The question."""
        return self.plan.grid

    @property
    def flags(self) -> list[str]:
        """Why cells are not to be compared as they stand, a line each."""
        return [f"{cell}: {flag.footnote}" for cell, found in self.significance.flags.items() for flag in found]


def make_report(plan: Plan, lab: Lab, tracker: MlflowTracker | None) -> Report:
    """Make the report of a plan, from runs/ and, for what was run elsewhere, from the tracker.

    Raises:
        TrackingError: the store is out of reach.
        RunError: a trial's counts are damaged.
    """
    grid = plan.grid
    trials = trials_frame(plan, tracker)
    records = load_records(trials, lab.runs, tracker, lab.root / ".fcnlab" / "fetched", grid.file.checkpoint)
    significance = compute_significance(grid, records)
    cells = with_differences(cells_frame(trials, grid.axes, grid.baseline.label), significance)
    return Report(
        plan=plan,
        trials=trials,
        cells=cells,
        table=cell_table(cells, grid.axes),
        footnotes=footnotes(grid, trials, records, significance),
        summary_text=summary_text(grid, trials, cells, significance),
        significance=significance,
        records=records,
        folder=lab.results / grid.name,
    )
