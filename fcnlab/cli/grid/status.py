"""`fcnlab grid status`: the progress of a grid, from any machine that shares the lab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import DataRoot, GridFile, LabOption
from fcnlab.cli.output import AsJson, print_json, report_damage, report_missing_inputs
from fcnlab.console import create_console, format_count

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from fcnlab.runner.plan import PlannedTrial
    from fcnlab.runner.progress.eta import Running
    from fcnlab.runner.status import StatusReader

EXAMPLE = "Example: fcnlab grid status experiments/quickstart.yaml --watch"

UPDATE_SECONDS = 2.0
"""Seconds between two updates with --watch, or four times the duration of an update if that is longer."""

MAX_LISTED = 10
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
    from fcnlab.cli.grid.cells import MAX_ROWS, create_axes_table, create_cells_table
    from fcnlab.errors import RunError
    from fcnlab.lab import Lab
    from fcnlab.runner.changed_inputs import describe_changed_inputs
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.status import StatusReader

    if watch and as_json:
        raise RunError("--watch and --json cannot be combined; choose one")
    lab_ = Lab.find(file, root=lab, data_root=data_root)
    plan = make_plan(lab_.load_grid(file), lab_, recorded_inputs=True)
    report_missing_inputs(plan)
    reader = StatusReader(plan, lab_)
    remarks = describe_changed_inputs(reader.plan, lab_)
    terminal = create_console()
    if as_json:
        _print_values(reader, remarks)
    elif watch:
        _print_lines(remarks, terminal)
        _watch(reader, terminal)
    else:
        has_few_cells = len(reader.plan.grid.cells) <= MAX_ROWS
        terminal.print(
            create_cells_table(reader.plan, reader.states, terminal.width, with_keys=True)
            if has_few_cells
            else create_axes_table(reader.plan, terminal.width)
        )
        _print_status(reader, terminal)
        _print_lines(remarks, terminal)
    report_damage(reader.plan)


def _watch(reader: StatusReader, terminal: Console) -> None:
    """Update until all trials have ended: in place in a terminal, else one snapshot per change."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with suppress(KeyboardInterrupt):  # ends only the display
        if not terminal.is_terminal:
            for _ in _changes(reader):
                _print_status(reader, terminal)
            return
        with Live(console=terminal, auto_refresh=False, vertical_overflow="crop") as live:
            for _ in _updates(reader):
                notes = [Text(line, overflow="fold") for line in _list_trials(reader)]
                live.update(Group(_render(reader, terminal.width), *notes), refresh=True)


def _updates(reader: StatusReader) -> Iterator[None]:
    """Yield now and after each refresh of the status, until all trials have ended."""
    while True:
        yield
        if not reader.plan.remaining:
            return
        start = time.monotonic()
        reader.refresh()
        time.sleep(max(UPDATE_SECONDS, 4 * (time.monotonic() - start)))


def _changes(reader: StatusReader) -> Iterator[None]:
    """Yield now and after each refresh that shows other counts, or a new epoch of a trial."""
    shown: object = None
    for _ in _updates(reader):
        started = [*reader.paused, *chain.from_iterable(reader.running.values())]
        present = (reader.counts(), {trial.planned.key: len(trial.epochs) for trial in started})
        if present != shown:
            yield
        shown = present


def _print_status(reader: StatusReader, terminal: Console) -> None:
    terminal.print(_render(reader, terminal.width))
    _print_lines(_list_trials(reader), terminal)


def _print_lines(lines: list[str], terminal: Console) -> None:
    for line in lines:
        terminal.print(line, soft_wrap=True)


def _render(reader: StatusReader, width: int) -> RenderableType:
    """Return the counts and a table of running trials per driver."""
    from rich.console import Group
    from rich.text import Text

    from fcnlab.runner.progress.rich import create_running_table, format_clock, format_row

    blocks: list[RenderableType] = [Text(_describe_counts(reader), style="bold")]
    for driver, trials in reader.running.items():
        table = create_running_table(width, idle=True)
        for trial in trials:
            table.add_row(*format_row(trial, reader.time_left_of(trial)), format_clock(trial.idle))
        host, process, _ = driver.rsplit("_", 2)
        blocks += [Text(f"\non {host}, driver {process}:"), table]
    return Group(*blocks)


def _describe_counts(reader: StatusReader) -> str:
    """Return the counts by state and the estimated time left, in one line."""
    from fcnlab.runner.progress.base import format_duration

    counts = [f"{count:,} {state}" for state, count in reader.counts().items() if count]
    if reader.time_left is not None:
        counts.append(f"about {format_duration(reader.time_left)} left")
    return f"{format_count(len(reader.plan.all_trials), 'trial')}: {', '.join(counts)}"


def _list_trials(reader: StatusReader) -> list[str]:
    """List waiting, paused, pruned and failed trials, up to a maximum per state."""
    waiting = [f"waiting: {trial.planned.description}, until its device is idle" for trial in reader.waiting]
    paused = [
        f"paused: {trial.planned.description}, after epoch {len(trial.epochs)} of {trial.planned.trial.recipe.epochs}"
        for trial in reader.paused
    ]
    pruned = {
        planned.cell_name: f"pruned: {planned.cell_name}, after epoch {planned.pruned_after}"
        for planned in reader.plan.trials
        if planned.pruned_after is not None
    }
    failures = [planned for planned in reader.plan.all_trials if planned.state == "failed"]
    failed = []
    for planned in failures[:MAX_LISTED]:
        record = planned.record  # read from disk
        message = record.failure.message.splitlines()[0] if record is not None and record.failure else "being retried"
        failed.append(f"failed: {planned.description}: {message}\n        log: {planned.folder.log}")
    return [
        *_truncate(waiting, len(waiting)),
        *_truncate(paused, len(paused)),
        *_truncate(list(pruned.values()), len(pruned)),
        *_truncate(failed, len(failures)),
    ]


def _truncate(lines: list[str], count: int) -> list[str]:
    more = count - MAX_LISTED
    return [*lines[:MAX_LISTED], *([f"        and {more} more: --json lists them"] if more > 0 else [])]


def _print_values(reader: StatusReader, remarks: list[str]) -> None:
    plan = reader.plan
    failures = [(planned, planned.record) for planned in plan.all_trials if planned.state == "failed"]
    values = {
        "grid": plan.grid.name,
        "question": plan.grid.file.question,
        "trials": len(plan.all_trials),
        "counts": reader.counts(),
        "seconds_left": reader.time_left,
        "running": [
            {
                "driver": driver,
                "host": driver.rsplit("_", 2)[0],
                "seconds": round(trial.seconds, 1),
                "seconds_left": reader.time_left_of(trial),
                "idle_seconds": None if trial.idle is None else round(trial.idle, 1),
                **_describe_progress(trial),
            }
            for driver, trials in reader.running.items()
            for trial in trials
        ],
        "waiting": [_describe_progress(trial) for trial in reader.waiting],
        "paused": [_describe_progress(trial) for trial in reader.paused],
        "damaged": [
            {**_identify(planned), "damage": planned.damage}
            for planned in plan.all_trials
            if planned.state == "damaged"
        ],
        "pruned": [
            {**_identify(planned), "epoch": planned.pruned_after}
            for planned in plan.trials
            if planned.pruned_after is not None
        ],
        "failed": [
            {
                **_identify(planned),
                "cause": record.failure.cause,
                "message": record.failure.message,
                "log": str(planned.folder.log),
            }
            for planned, record in failures
            if record is not None and record.failure is not None
        ],
        "remarks": remarks,
    }
    print_json(values)


def _identify(planned: PlannedTrial) -> dict[str, Any]:
    return {"key": planned.key, "cell": planned.cell.label, "seed": planned.trial.seed}


def _describe_progress(trial: Running) -> dict[str, Any]:
    """Return the progress of a trial as JSON values."""
    last = trial.last
    return {
        **_identify(trial.planned),
        "epoch": len(trial.epochs),
        "epochs": trial.planned.trial.recipe.epochs,
        "loss": last.loss if last is not None else None,
        "val_miou": trial.val_miou,
        "images_per_s": last.images_per_s if last is not None else None,
    }
