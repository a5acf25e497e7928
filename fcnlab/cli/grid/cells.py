"""Tables of the cells and axes of a grid, with the states of its trials."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fcnlab.config.grid.axes import format_value

if TYPE_CHECKING:
    from rich.table import Table

    from fcnlab.config.grid.grid import Cell
    from fcnlab.runner.plan import Plan

STATES = ("finished", "failed", "stopped", "started", "to do")
MAX_ROWS = 50
"""Largest number of cells that are listed by default."""

MAX_VALUES = 6
"""Maximum number of values listed per axis."""


def count_states(plan: Plan) -> list[tuple[Cell, Counter[str]]]:
    """Count the trials of each cell by state."""
    counts: dict[int, Counter[str]] = {id(cell): Counter() for cell in plan.grid.cells}
    for planned in plan.trials:
        counts[id(planned.cell)][planned.state] += 1
    return [(cell, counts[id(cell)]) for cell in plan.grid.cells]


def create_cells_table(plan: Plan) -> Table:
    """Create a table with one row per cell, one column per axis, and the number of trials in each state."""
    grid = plan.grid
    states = [state for state in STATES if plan.count(state)]
    table = _create_table()
    for name in grid.axes or ("cell",):
        table.add_column(name)
    for state in states:
        table.add_column(state, justify="right")
    table.add_column()
    for cell, count in count_states(plan):
        values = [format_value(value) for value in cell.axes.values()] or [cell.label]
        numbers = [str(count[state] or "") for state in states]
        table.add_row(*values, *numbers, "baseline" if cell is grid.baseline else "")
    return table


def create_axes_table(plan: Plan) -> Table:
    """Create a table with one row per axis: the number of values and the first of them."""
    table = _create_table()
    table.add_column("axis")
    table.add_column("values", justify="right")
    table.add_column()
    for axis in plan.grid.axes:
        values = list(dict.fromkeys(format_value(cell.axes[axis]) for cell in plan.grid.cells))
        more = ", ..." if len(values) > MAX_VALUES else ""
        table.add_row(axis, str(len(values)), ", ".join(values[:MAX_VALUES]) + more)
    return table


def _create_table() -> Table:
    from rich.table import Table

    return Table(box=None, padding=(0, 2, 0, 0))


def to_json(plan: Plan) -> list[dict[str, Any]]:
    """Return the cells and their counts as JSON values."""
    return [
        {"cell": cell.label, "axes": dict(cell.axes), "baseline": cell is plan.grid.baseline, "trials": dict(count)}
        for cell, count in count_states(plan)
    ]
