"""The cells of a grid and how far their trials are: as a table, in short, and as plain values."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fcnlab.config.grid.axes import format_value

if TYPE_CHECKING:
    from rich.table import Table

    from fcnlab.config.grid.grid import Cell
    from fcnlab.runner.plan import Plan

STATES = ("finished", "failed", "stopped", "started", "to do")
SHOWN = 50
"""Rows that a person still reads."""

NAMED = 6
"""Values of an axis that are named in short."""


def counted(plan: Plan) -> list[tuple[Cell, Counter[str]]]:
    """Each cell, and how many of its trials are in each state."""
    counts: dict[int, Counter[str]] = {id(cell): Counter() for cell in plan.grid.cells}
    for planned in plan.trials:
        counts[id(planned.cell)][planned.state] += 1
    return [(cell, counts[id(cell)]) for cell in plan.grid.cells]


def cells(plan: Plan) -> Table:
    """One row a cell: a column an axis, and a column for each state that occurs, in trials."""
    grid = plan.grid
    states = [state for state in STATES if plan.count(state)]
    table = _bare()
    for name in grid.axes or ("cell",):
        table.add_column(name)
    for state in states:
        table.add_column(state, justify="right")
    table.add_column()
    for cell, count in counted(plan):
        values = [format_value(value) for value in cell.axes.values()] or [cell.label]
        numbers = [str(count[state] or "") for state in states]
        table.add_row(*values, *numbers, "baseline" if cell is grid.baseline else "")
    return table


def in_short(plan: Plan) -> Table:
    """One row an axis: its values, the first of them by name."""
    table = _bare()
    table.add_column("axis")
    table.add_column("values", justify="right")
    table.add_column()
    for axis in plan.grid.axes:
        values = list(dict.fromkeys(format_value(cell.axes[axis]) for cell in plan.grid.cells))
        more = ", ..." if len(values) > NAMED else ""
        table.add_row(axis, str(len(values)), ", ".join(values[:NAMED]) + more)
    return table


def _bare() -> Table:
    from rich.table import Table

    return Table(box=None, padding=(0, 2, 0, 0))


def as_values(plan: Plan) -> list[dict[str, Any]]:
    """The cells as plain values."""
    return [
        {"cell": cell.label, "axes": dict(cell.axes), "baseline": cell is plan.grid.baseline, "trials": dict(count)}
        for cell, count in counted(plan)
    ]
