"""Tables of the cells and axes of a grid, with the states of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fcnlab.config.grid.axes import format_value
from fcnlab.config.grid.display_names import Names
from fcnlab.console import format_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fcnlab.config.grid.grid import Cell
    from fcnlab.runner.plan import Plan

STATES = ("finished", "failed", "pruned", "running", "waiting", "paused", "started", "damaged", "to do")
"""States in the order of their columns."""

MAX_ROWS = 50
"""Largest number of cells that are listed by default."""

MAX_KEYS = 5
"""Maximum number of keys listed per cell."""

MAX_VALUES = 6
"""Maximum number of values listed per axis."""


def count_states(plan: Plan, states: Mapping[str, str]) -> list[tuple[Cell, Counter[str]]]:
    """Count the trials of each cell by state, from the states by key."""
    counts: dict[int, Counter[str]] = {id(cell): Counter() for cell in plan.grid.cells}
    for planned in plan.trials:
        counts[id(planned.cell)][states[planned.key]] += 1
    return [(cell, counts[id(cell)]) for cell in plan.grid.cells]


def create_cells_table(plan: Plan, states: Mapping[str, str], width: int, *, with_keys: bool = False) -> RenderableType:
    """Create a table with one row per cell, one column per axis, and the number of trials in each state.

    The names are those of the report: if every cell has its own, as in an ablation, one column replaces those of axes.

    Args:
        plan: the plan of the grid.
        states: the states of its trials by key.
        width: characters per line.
        with_keys: add the beginnings of the keys of each cell's first trials, in the order of the seeds.
    """
    grid = plan.grid
    cell_counts = count_states(plan, states)
    present = [state for state in STATES if any(count[state] for _, count in cell_counts)]
    names = Names.of_grid(grid)
    headings = [*names.headings, *present, "", *(["keys by seed"] if with_keys else [])]
    keys: dict[int, list[str]] = {}
    for planned in plan.trials:
        keys.setdefault(id(planned.cell), []).append(planned.short_key)
    rows = []
    for cell, count in cell_counts:
        numbers = [str(count[state] or "") for state in present]
        row = [*names.texts(cell.label), *numbers, "baseline" if cell is grid.baseline else ""]
        rows.append([*row, *([_list_keys(keys[id(cell)])] if with_keys else [])])
    numeric = range(len(names.headings), len(names.headings) + len(present))
    return format_table(headings, rows, width, numbers=numeric, optional=[len(headings) - 1] if with_keys else [])


def _list_keys(keys: Sequence[str]) -> str:
    return " ".join(keys[:MAX_KEYS]) + (" ..." if len(keys) > MAX_KEYS else "")


def create_axes_table(plan: Plan, width: int) -> RenderableType:
    """Create a table with one row per axis: the number of values and the first of them."""
    rows = []
    for axis in plan.grid.axes:
        values = list(dict.fromkeys(format_value(cell.axes[axis]) for cell in plan.grid.cells))
        more = ", ..." if len(values) > MAX_VALUES else ""
        rows.append([axis, str(len(values)), ", ".join(values[:MAX_VALUES]) + more])
    return format_table(("axis", "values", ""), rows, width, numbers=[1])


def to_json(plan: Plan) -> list[dict[str, Any]]:
    """Return the cells and their counts as JSON values."""
    return [
        {"cell": cell.label, "axes": dict(cell.axes), "baseline": cell is plan.grid.baseline, "trials": dict(count)}
        for cell, count in count_states(plan, plan.states)
    ]
