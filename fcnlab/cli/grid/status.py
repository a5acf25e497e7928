"""`fcnlab grid status`: the progress of a grid, from any machine that shares the lab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import DataRoot, GridFile, LabOption
from fcnlab.cli.output import AsJson, print_json
from fcnlab.console import create_console, format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fcnlab.runner.progress.eta import Running
    from fcnlab.runner.status import StatusReader

EXAMPLE = "Example: fcnlab grid status experiments/quickstart.yaml --watch"

EVERY = 2.0
"""Seconds between two updates with --watch, or four times the duration of an update if that is longer."""

NAMED = 10
"""Maximum number of listed trials per state; --json lists all."""


def status(
    file: GridFile,
    watch: Annotated[bool, typer.Option("--watch", help="Update until all trials have ended, or Ctrl-C")] = False,
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Show the progress of a grid.

    Prints the running trials of each driver, and the errors of failed ones. Nothing is changed. Exit code 1 if files of
    a trial are damaged: `fcnlab grid run` moves them to runs/.quarantine/ and runs the trial.
    """
    from fcnlab.cli.damage import report_damage
    from fcnlab.cli.grid.cells import MAX_ROWS, create_axes_table, create_cells_table
    from fcnlab.errors import RunError
    from fcnlab.lab import Lab
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.status import StatusReader

    if watch and as_json:
        raise RunError("--watch and --json cannot be combined; choose one")
    lab_ = Lab.find(file, root=lab, data_root=data_root)
    reader = StatusReader(make_plan(lab_.load_grid(file), lab_), lab_)
    if as_json:
        _print_values(reader)
    elif watch:
        _watch(reader)
    else:
        terminal = create_console()
        plan = reader.plan
        few = len(plan.grid.cells) <= MAX_ROWS
        terminal.print(
            create_cells_table(plan, terminal.width, with_keys=True) if few else create_axes_table(plan, terminal.width)
        )
        terminal.print(_render(reader, terminal.width))
        for line in _notes(reader):
            terminal.print(line, soft_wrap=True)
    report_damage(reader.plan)


def _watch(reader: StatusReader) -> None:
    """Update until all trials have ended: in place in a terminal, else one snapshot per change."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    terminal = create_console()
    with suppress(KeyboardInterrupt):  # ends only the display
        if not terminal.is_terminal:
            for _ in _changes(reader):
                terminal.print(_render(reader, terminal.width))
                for line in _notes(reader):
                    terminal.print(line, soft_wrap=True)
            return
        with Live(console=terminal, auto_refresh=False, vertical_overflow="crop") as live:
            for _ in _updates(reader):
                notes = [Text(line, overflow="fold") for line in _notes(reader)]
                live.update(Group(_render(reader, terminal.width), *notes), refresh=True)


def _updates(reader: StatusReader) -> Iterator[None]:
    """Yield now and after each refresh of the status, until all trials have ended."""
    while True:
        yield
        if not reader.plan.remaining:
            return
        start = time.monotonic()
        reader.refresh()
        time.sleep(max(EVERY, 4 * (time.monotonic() - start)))


def _changes(reader: StatusReader) -> Iterator[None]:
    """Yield now and after each refresh that shows other counts, or a new epoch of a trial."""
    before: object = None
    for _ in _updates(reader):
        started = [*reader.paused, *chain.from_iterable(reader.running.values())]
        now = (reader.counts(), {one.planned.key: len(one.epochs) for one in started})
        if now != before:
            yield
        before = now


def _render(reader: StatusReader, width: int) -> RenderableType:
    """Return the counts and a table of running trials per driver."""
    from rich.console import Group
    from rich.text import Text

    from fcnlab.runner.progress.rich import create_running_table, format_clock, format_row

    parts: list[RenderableType] = [Text(_counts(reader), style="bold")]
    for driver, trials in reader.running.items():
        table = create_running_table(width, idle=True)
        for one in trials:
            table.add_row(*format_row(one, reader.time_left_of(one)), format_clock(one.idle))
        host, process, _ = driver.split(":")
        parts += [Text(f"\non {host}, driver {process}:"), table]
    return Group(*parts)


def _counts(reader: StatusReader) -> str:
    """Return the counts by state and the estimated time left, in one line."""
    from fcnlab.runner.progress.base import format_duration

    parts = [f"{count:,} {state}" for state, count in reader.counts().items() if count]
    left = reader.time_left
    parts += [f"about {format_duration(left)} left"] if left is not None else []
    return f"{format_count(len(reader.plan.all_trials), 'trial')}: {', '.join(parts)}"


def _notes(reader: StatusReader) -> list[str]:
    """List paused, pruned and failed trials, up to a maximum per state."""
    paused = [
        f"paused: {one.planned.description}, after epoch {len(one.epochs)} of {one.planned.trial.recipe.epochs}"
        for one in reader.paused
    ]
    epochs = {one.cell_name: one.pruned_after for one in reader.plan.trials if one.pruned_after is not None}
    pruned = [f"pruned: {cell}, after epoch {epoch}" for cell, epoch in epochs.items()]
    failures = [one for one in reader.plan.all_trials if one.state == "failed"]
    failed = []
    for one in failures[:NAMED]:
        record = one.record
        message = record.failure.message.splitlines()[0] if record is not None and record.failure else "being retried"
        failed.append(f"failed: {one.description}: {message}\n        log: {one.folder.log}")
    return [*_truncate(paused, len(paused)), *_truncate(pruned, len(pruned)), *_truncate(failed, len(failures))]


def _truncate(lines: list[str], count: int) -> list[str]:
    more = count - NAMED
    return [*lines[:NAMED], *([f"        and {more} more: --json lists them"] if more > 0 else [])]


def _print_values(reader: StatusReader) -> None:
    plan = reader.plan
    failures = [(one, one.record) for one in plan.all_trials if one.state == "failed"]
    values = {
        "grid": plan.grid.name,
        "question": plan.grid.file.question,
        "trials": len(plan.all_trials),
        "counts": reader.counts(),
        "seconds_left": reader.time_left,
        "running": [
            {"driver": driver, "host": driver.partition(":")[0], "seconds": round(one.seconds, 1)}
            | {"seconds_left": reader.time_left_of(one)}
            | {"idle_seconds": None if one.idle is None else round(one.idle, 1)}
            | _progress(one)
            for driver, trials in reader.running.items()
            for one in trials
        ],
        "paused": [_progress(one) for one in reader.paused],
        "damaged": [
            {"key": one.key, "cell": one.cell.label, "seed": one.trial.seed, "damage": one.damage}
            for one in plan.all_trials
            if one.state == "damaged"
        ],
        "pruned": [
            {"key": one.key, "cell": one.cell.label, "seed": one.trial.seed, "epoch": one.pruned_after}
            for one in plan.trials
            if one.pruned_after is not None
        ],
        "failed": [
            {"key": one.key, "cell": one.cell.label, "seed": one.trial.seed}
            | {"cause": record.failure.cause, "message": record.failure.message, "log": str(one.folder.log)}
            for one, record in failures
            if record is not None and record.failure is not None
        ],
    }
    print_json(values)


def _progress(one: Running) -> dict[str, Any]:
    """Return the progress of a trial as JSON values."""
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
