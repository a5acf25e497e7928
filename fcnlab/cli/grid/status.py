"""`fcnlab grid status`: how far a grid is, also while others run it, from any machine that shares the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import DataRoot, GridFile, LabOption
from fcnlab.console import create_console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fcnlab.runner.progress.eta import Running
    from fcnlab.runner.status import State, StatusReader

EXAMPLE = "Example: fcnlab grid status experiments/quickstart.yaml --watch"

EVERY = 2.0
"""Seconds between two looks with --watch, or four times what a look takes where that is longer."""

NAMED = 10
"""Paused, stopped or failed trials that are named; --json names all."""


def status(
    file: GridFile,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until all trials have ended, or Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: everything as JSON")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Show how far a grid is: who runs what, and what has failed and why. It only reads, and disturbs nothing."""
    from fcnlab.cli.grid.cells import MAX_ROWS, create_axes_table, create_cells_table
    from fcnlab.errors import RunError
    from fcnlab.lab import Lab
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.status import StatusReader

    if watch and as_json:
        raise RunError("--watch is for people and --json for machines; choose one")
    place = Lab.find(file, root=lab, data_root=data_root)
    onlooker = StatusReader(make_plan(place.load_grid(file), place), place)
    if as_json:
        _print_json(onlooker)
    elif watch:
        _watch(onlooker)
    else:
        terminal = create_console()
        plan = onlooker.plan
        terminal.print(create_cells_table(plan) if len(plan.grid.cells) <= MAX_ROWS else create_axes_table(plan))
        terminal.print(_picture(onlooker, terminal.width))
        for line in _notes(onlooker):
            terminal.print(line, soft_wrap=True)


def _watch(onlooker: StatusReader) -> None:
    """Show each look until all trials have ended: in place in a terminal, elsewhere a line when something changes."""
    import time

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    terminal = create_console()
    said: dict[State, int] = {}
    try:
        with Live(console=terminal, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                if terminal.is_terminal:
                    notes = [Text(line, overflow="fold") for line in _notes(onlooker)]
                    live.update(Group(_picture(onlooker, terminal.width), *notes), refresh=True)
                elif said != (said := onlooker.counts()):
                    typer.echo(_counts(onlooker))
                if not onlooker.plan.remaining:
                    return
                began = time.monotonic()
                onlooker.refresh()
                time.sleep(max(EVERY, 4 * (time.monotonic() - began)))
    except KeyboardInterrupt:  # it is what ends a look, and nothing of the grid
        return


def _picture(onlooker: StatusReader, width: int) -> RenderableType:
    """How many trials are in each state, and who runs what."""
    from rich.console import Group
    from rich.text import Text

    from fcnlab.runner.progress.rich import create_running_table, format_row

    parts: list[RenderableType] = [Text(_counts(onlooker), style="bold")]
    for driver, trials in onlooker.running.items():
        table = create_running_table(width)
        for one in trials:
            table.add_row(*format_row(one, onlooker.time_left_of(one)))
        host, process, _ = driver.split(":")
        parts += [Text(f"\non {host}, driver {process}:"), table]
    return Group(*parts)


def _counts(onlooker: StatusReader) -> str:
    """How many trials are in each state, in a line, and how long the rest may take."""
    from fcnlab.runner.progress.base import format_duration

    parts = [f"{count} {state}" for state, count in onlooker.counts().items() if count]
    left = onlooker.time_left
    parts += [f"about {format_duration(left)} left"] if left is not None else []
    return f"{len(onlooker.plan.all_trials)} trials: {', '.join(parts)}"


def _notes(onlooker: StatusReader) -> list[str]:
    """The trials that do not run and are not finished, by name as far as they are few."""
    paused = [
        f"paused: {one.planned.description}, after epoch {len(one.epochs)} of {one.planned.trial.recipe.epochs}"
        for one in onlooker.paused
    ]
    epochs = {one.cell.label: one.stopped for one in onlooker.plan.trials if one.stopped is not None}
    stopped = [f"stopped early: {cell}, at epoch {epoch}" for cell, epoch in epochs.items()]
    failures = [one for one in onlooker.plan.all_trials if one.state == "failed"]
    failed = []
    for one in failures[:NAMED]:
        record = one.record
        message = record.failure.message.splitlines()[0] if record is not None and record.failure else "run again now"
        failed.append(f"failed: {one.description}: {message}\n        its log: {one.folder.log}")
    return [*_few(paused, len(paused)), *_few(stopped, len(stopped)), *_few(failed, len(failures))]


def _few(lines: list[str], count: int) -> list[str]:
    more = count - NAMED
    return [*lines[:NAMED], *([f"        and {more} more: --json names them"] if more > 0 else [])]


def _print_json(onlooker: StatusReader) -> None:
    import json

    plan = onlooker.plan
    failures = [(one, one.record) for one in plan.all_trials if one.state == "failed"]
    said = {
        "grid": plan.grid.name,
        "question": plan.grid.file.question,
        "trials": len(plan.all_trials),
        "counts": onlooker.counts(),
        "seconds_left": onlooker.time_left,
        "running": [
            {"driver": driver, "host": driver.partition(":")[0], "seconds": round(one.seconds, 1)}
            | {"seconds_left": onlooker.time_left_of(one)}
            | _progress(one)
            for driver, trials in onlooker.running.items()
            for one in trials
        ],
        "paused": [_progress(one) for one in onlooker.paused],
        "stopped": [
            {"key": one.key, "cell": one.cell.label, "seed": one.trial.seed, "epoch": one.stopped}
            for one in plan.trials
            if one.stopped is not None
        ],
        "failed": [
            {"key": one.key, "cell": one.cell.label, "seed": one.trial.seed}
            | {"cause": record.failure.cause, "message": record.failure.message, "log": str(one.folder.log)}
            for one, record in failures
            if record is not None and record.failure is not None
        ],
    }
    typer.echo(json.dumps(said, indent=1))


def _progress(one: Running) -> dict[str, Any]:
    """How far a trial is, as plain values."""
    last = one.last
    return {
        "key": one.planned.key,
        "cell": one.planned.cell.label,
        "seed": one.planned.trial.seed,
        "epoch": len(one.epochs),
        "epochs": one.planned.trial.recipe.epochs,
        "loss": last.loss if last is not None else None,
        "val_miou": one.val_miou,
        "images_per_s": last.images_per_s if last is not None else None,
    }
