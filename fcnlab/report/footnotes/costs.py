"""Footnotes on the costs: how they are measured, and on which hardware."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from fcnlab.config.grid.grid import Grid
from fcnlab.report.footnotes.names import distinct_texts, name_cell
from fcnlab.report.trial_records import TrialRecords

SHARED = frozenset({"images_per_s", "train_seconds", "device_hours"})
"""Columns that change if trials share a GPU."""


COSTS = {
    "images_per_s": "images/s during training",
    "peak_memory": "memory: the largest peak of a trial, of the tensors on a GPU and of the process on the CPU",
    "train_seconds": "train s: mean time of a trial's training without evaluation",
    "device_hours": "device-hours of training and evaluation, summed over the cell's finished trials",
}
"""Descriptions of the columns that depend on the hardware."""


def describe_costs(grid: Grid, finished: pd.DataFrame, records: TrialRecords, columns: Collection[str]) -> list[str]:
    """Describe how the shown costs are measured, and on which hardware.

    Args:
        grid: the grid.
        finished: frame of the finished trials.
        records: records of the finished trials.
        columns: names of the shown columns.
    """
    costs = [record.cost for cell in records.by_cell.values() for record in cell.values() if record.cost is not None]
    counted = [f"{c.gmacs_size[0]}x{c.gmacs_size[1]}" for c in costs if c.gmacs is not None]
    measured = [text for name, text in COSTS.items() if name in columns]
    sizes = " or ".join(distinct_texts(pd.Series(counted, dtype=str)))
    shown = [*([f"GMACs for one image of {sizes}"] if counted and "gmacs" in columns else []), *measured]
    if not costs or not shown:
        return []
    hardware = f"; on {', '.join(distinct_texts(finished['device'])) or 'hardware not recorded'}"
    line = "; ".join(shown) + (hardware if measured else "")
    return [f"{line[0].upper()}{line[1:]}.", *(_describe_shared_gpus(grid, records) if SHARED & set(columns) else ())]


def _describe_shared_gpus(grid: Grid, records: TrialRecords) -> list[str]:
    """Name the cells whose trials shared a GPU, which slows each of them down."""
    cells: dict[int, list[str]] = {}
    for cell, by_seed in records.by_cell.items():
        for count in sorted(
            {record.environment.trials_per_device for record in by_seed.values() if record.environment}
        ):
            cells.setdefault(count, []).append(name_cell(grid, cell))
    return [
        f"{count} trials shared a GPU{_list_unless_all(cells[count], records)}: images/s is the speed of one of them, "
        f"and {count} trials on a GPU for one hour count as one device-hour."
        for count in sorted(cells)
        if count > 1
    ]


def _list_unless_all(cells: list[str], records: TrialRecords) -> str:
    return "" if len(cells) == len(records.by_cell) else f" ({', '.join(cells)})"
