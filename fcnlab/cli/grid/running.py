"""What `grid run`, `grid retry` and `grid sync` have in common: running in a terminal, and what is said at the end."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from fcnlab.cli.options import console

if TYPE_CHECKING:
    from fcnlab.execute.driver import Outcome
    from fcnlab.places import Lab
    from fcnlab.spec.grid import Grid


@dataclass(frozen=True)
class Means:
    """With what a grid is run; None leaves it to the machine."""

    workers: int | None = None
    threads: int | None = None


def run_and_conclude(grid: Grid, lab: Lab, means: Means) -> None:
    """Run what is left of a grid and show what has come of it."""
    from fcnlab.execute import driver
    from fcnlab.execute.process import ProcessExecutor, plan_slots
    from fcnlab.execute.watch import LiveWatcher, PlainWatcher

    terminal = console()
    watcher = LiveWatcher(terminal) if terminal.is_terminal else PlainWatcher(terminal)
    signal.signal(signal.SIGTERM, _stop)  # clusters say SIGTERM where people press Ctrl-C
    slots = plan_slots(grid.recipes, means.workers, means.threads)
    try:
        with watcher:
            outcome = driver.run(grid, lab, lambda: ProcessExecutor(lab, slots), watcher)
    except KeyboardInterrupt:
        typer.echo(f"stopped; what is finished stays. Go on with: fcnlab grid run {_shown(grid.path)}", err=True)
        raise typer.Exit(130) from None
    conclude(outcome, grid, lab)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def conclude(outcome: Outcome, grid: Grid, lab: Lab) -> None:
    """Show the table and say where everything is."""
    file = _shown(grid.path)
    typer.echo(f"{outcome.finished} finished ({outcome.reused} had ended before), {outcome.failed} failed")
    if outcome.postponed is not None:
        typer.echo(f"not published: {outcome.postponed}\npublish later with: fcnlab grid sync {file}", err=True)
    else:
        from fcnlab.api import report
        from fcnlab.cli.report import show

        show(grid, report(grid, lab=lab))
        typer.echo(f"compare the runs in MLflow: fcnlab ui{_elsewhere(lab)}")
    if not outcome.ok:
        typer.echo(f"see why: fcnlab grid status {file}; run them again: fcnlab grid retry {file}", err=True)
    if not outcome.ok or outcome.postponed is not None:
        raise typer.Exit(1)


def _elsewhere(lab: Lab) -> str:
    return "" if lab.root == Path.cwd() else f" --lab {_shown(lab.root)}"


def _shown(path: Path) -> str:
    """A path as the user would type it here."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
