"""Lines about damaged files of trials, which commands that only read leave where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fcnlab.runner.plan import Plan


def report_damage(*plans: Plan) -> None:
    """Print one line per trial with damaged or unusable files to standard error, and exit with 1 if there is one.

    Args:
        *plans: the plans of the grids that a command has read.
    """
    lines = list(dict.fromkeys(line for plan in plans for line in plan.damages))
    for line in lines:
        typer.echo(line, err=True)
    if lines:
        moved = any(line.startswith("damaged: ") for line in lines)
        remedy = "; `fcnlab grid run` moves damaged files and runs the trials again" if moved else ""
        typer.echo(f"they are left out{remedy}", err=True)
        raise typer.Exit(1)
