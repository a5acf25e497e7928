"""Table of the trials of a grid, and the failures grouped by their cause."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import pandas as pd

from fcnlab.constants import KEY_DIGITS
from fcnlab.report.html.sortable import sort_key
from fcnlab.report.report import Report
from fcnlab.report.tables.columns import MISSING, format_number

HEADINGS = ("cell", "seed", "status", "mIoU %", "acc. %", "best epoch", "device-h", "key")
TEXTS = frozenset({"cell", "status", "key"})
"""Headings of columns with texts."""


@dataclass(frozen=True)
class TrialRow:
    """A trial in the table.

    Attributes:
        texts: one text per column.
        keys: the values by which each column is sorted.
        status: status of the trial.
        link: address of its run in MLflow; empty for none.
    """

    texts: tuple[str, ...]
    keys: tuple[str, ...]
    status: str
    link: str


@dataclass(frozen=True)
class FailureGroup:
    """Trials that failed for the same reason.

    Attributes:
        cause: first line of the reason.
        trials: names of the trials.
        details: the complete reason of the first one; empty if there is no more than the cause.
    """

    cause: str
    trials: tuple[str, ...]
    details: str


def make_trial_rows(report: Report) -> list[TrialRow]:
    """Return the trials of a report in the order of cells and seeds.

    Args:
        report: report of a grid.
    """
    return [
        _make_row(row, report.grid.display_name(str(row["cell"])), report.runs_page)
        for _, row in report.trials.iterrows()
    ]


def _make_row(row: pd.Series, cell: str, runs_page: str) -> TrialRow:
    status = str(row["status"])
    if status == "pruned":
        status = f"pruned after epoch {row['pruned_after']:.0f}"
    percents = [format_number(100 * row[name], 2) for name in ("miou", "pixel_acc")]
    numbers = [*percents, format_number(row["best_epoch"], 0), format_number(row["device_hours"], 2)]
    fields = ("seed", "status", "miou", "pixel_acc", "best_epoch", "device_hours", "key")
    return TrialRow(
        texts=(cell, str(row["seed"]), status, *numbers, str(row["key"])[:KEY_DIGITS]),
        keys=(cell, *(sort_key(row[name]) for name in fields)),
        status=str(row["status"]),
        link=f"{runs_page}/{quote(str(row['run_id']), safe='')}" if runs_page and row["run_id"] else "",
    )


def group_failures(report: Report) -> list[FailureGroup]:
    """Return the failed trials by their cause, the most frequent cause first.

    Args:
        report: report of a grid.
    """
    failed = report.trials[report.trials["status"] == "failed"]
    groups: dict[str, list[pd.Series]] = {}
    for _, row in failed.iterrows():
        cause = (str(row["failure"]).splitlines() or [MISSING])[0]
        groups.setdefault(cause, []).append(row)
    return [
        FailureGroup(
            cause,
            tuple(f"{report.grid.display_name(str(row['cell']))}, seed {row['seed']}" for row in rows),
            "" if str(rows[0]["failure"]).strip() == cause.strip() else str(rows[0]["failure"]).strip(),
        )
        for cause, rows in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
