"""The cells of a grid and how far their trials are, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from fcnlab.execute.plan import Plan, Planned


def states(plan: Plan, *, epochs: bool = False) -> Table:
    """One row a cell, one column a seed; with `epochs`, how many of them a started trial has done."""
    from rich.table import Table

    table = Table(title=f"{plan.grid.name}: {plan.grid.file.question}", title_justify="left", title_style="bold")
    table.add_column("cell")
    for seed in plan.grid.seeds:
        table.add_column(f"seed {seed}")
    for cell in plan.grid.cells:
        row = [cell.label + (" (baseline)" if cell is plan.grid.baseline else "")]
        row += [_state(planned, epochs) for planned in plan.trials if planned.cell is cell]
        table.add_row(*row)
    for planned in plan.before:
        at = plan.grid.seeds.index(planned.trial.seed)
        table.add_row(f"first: {planned.trial.names['variant']}", *[""] * at, _state(planned, epochs))
    return table


def _state(planned: Planned, epochs: bool) -> str:
    done = len(planned.folder.read_progress()) if epochs and planned.state == "started" else 0
    return f"epoch {done}/{planned.trial.recipe.epochs}" if done else planned.state
