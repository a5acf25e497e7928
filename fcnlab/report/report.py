"""A grid's report before it is written: frames, statistics, table, notes and findings, all from one set of records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fcnlab.config.grid.grid import Grid
from fcnlab.lab import Lab
from fcnlab.report.footnotes import footnotes
from fcnlab.report.frame import cells_frame, trials_frame
from fcnlab.report.records import Evidence, gather
from fcnlab.report.significance import Judged, judge, with_differences
from fcnlab.report.summary_text import findings
from fcnlab.report.tables.cells import Table, cell_table
from fcnlab.runner.plan import Plan
from fcnlab.tracking.mlflow import MlflowTracker


@dataclass(frozen=True)
class Report:
    """What a grid says: a row a trial, a row a cell, the table with its notes, what was found, where the files are."""

    plan: Plan
    trials: pd.DataFrame
    cells: pd.DataFrame
    table: Table
    notes: list[str]
    findings: list[str]
    judged: Judged
    evidence: Evidence
    folder: Path

    @property
    def grid(self) -> Grid:
        """The question."""
        return self.plan.grid

    @property
    def footnote(self) -> str:
        """The notes below the table."""
        return "\n".join(self.notes)

    @property
    def flags(self) -> list[str]:
        """Why cells are not to be compared as they stand, a line each."""
        return [f"{cell}: {flag.footnote}" for cell, found in self.judged.flags.items() for flag in found]


def make_report(plan: Plan, lab: Lab, tracker: MlflowTracker | None) -> Report:
    """Make the report of a plan, from runs/ and, for what was run elsewhere, from the tracker.

    Raises:
        TrackingError: the store is out of reach.
        RunError: a trial's counts are damaged.
    """
    grid = plan.grid
    trials = trials_frame(plan, tracker)
    evidence = gather(trials, lab.runs, tracker, lab.root / ".fcnlab" / "fetched", grid.file.checkpoint)
    judged = judge(grid, evidence)
    cells = with_differences(cells_frame(trials, grid.axes, grid.baseline.label), judged)
    return Report(
        plan=plan,
        trials=trials,
        cells=cells,
        table=cell_table(cells, grid.axes),
        notes=footnotes(grid, trials, evidence, judged),
        findings=findings(grid, trials, cells, judged),
        judged=judged,
        evidence=evidence,
        folder=lab.results / grid.name,
    )
