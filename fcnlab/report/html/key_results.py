"""Key results of a grid: best cell, baseline, trials and device-hours."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from fcnlab.report.best import select_best
from fcnlab.report.footnotes.names import distinct_texts
from fcnlab.report.report import Report
from fcnlab.report.tables.columns import COLUMNS, DECIMALS, MISSING, format_number


class KeyResult(NamedTuple):
    """A key result.

    Attributes:
        name: name of the result.
        value: its value.
        note: further facts.
    """

    name: str
    value: str
    note: str


def make_key_results(report: Report) -> list[KeyResult]:
    """Return the key results of a report.

    Args:
        report: report of a grid.
    """
    if len(report.groups) == 1:
        cells = _describe_cells(report, report.cells)
    else:
        cells = []
        for group in report.groups:
            best, *_ = _describe_cells(report, report.cells[report.cells["cell"].isin(group.cells)])
            cells.append(best._replace(name=f"{best.name}, {group.name}"))
    return [*cells, _count_trials(report.trials), _sum_hours(report.trials)]


def _describe_cells(report: Report, cells: pd.DataFrame) -> list[KeyResult]:
    best = select_best(cells)
    baseline = cells[cells["baseline"]].iloc[0]
    base = KeyResult("Baseline", _format_miou(baseline), report.grid.display_name(str(baseline["cell"])))
    if best is None:
        return [KeyResult("Best cell", MISSING, "no trial has finished"), base]
    name = report.grid.display_name(str(best["cell"]))
    if len(cells) == 1:
        return [KeyResult("Cell", _format_miou(best), name)]
    if best["baseline"]:
        return [KeyResult("Best cell", _format_miou(best), f"{name}, the baseline")]
    delta = COLUMNS["delta"].text(best, DECIMALS)
    note = f"{name}: {delta} points against the baseline" if delta != MISSING else name
    return [KeyResult("Best cell", _format_miou(best), note), base]


def _format_miou(row: pd.Series) -> str:
    text = COLUMNS["miou"].text(row, DECIMALS)
    return text if text == MISSING else f"{text} % mIoU"


def _count_trials(trials: pd.DataFrame) -> KeyResult:
    counts = trials["status"].value_counts()
    others = [
        f"{counts[status]} {status}"
        for status in ("failed", "pruned", "running", "missing", "damaged")
        if status in counts
    ]
    value = f"{counts.get('finished', 0)} of {len(trials)}"
    return KeyResult("Trials finished", value, ", ".join(others) or "none failed")


def _sum_hours(trials: pd.DataFrame) -> KeyResult:
    hours = trials["device_hours"].sum()
    hardware = ", ".join(distinct_texts(trials["device"]))
    return KeyResult("Device-hours", format_number(hours, 2 if hours < 10 else 0), hardware or "hardware not recorded")
