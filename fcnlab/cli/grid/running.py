"""Shared code of `grid run`, `grid sync` and `train`: interruptions, progress and the final summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import typer

from fcnlab.cli.output import print_json
from fcnlab.console import create_console
from fcnlab.settings import DEFAULT_OPTIONS

if TYPE_CHECKING:
    from fcnlab.config.grid.grid import Grid
    from fcnlab.lab import Lab
    from fcnlab.report.report import Report
    from fcnlab.runner.progress.base import ProgressReporter
    from fcnlab.runner.run import Outcome
    from fcnlab.settings import RunOptions


def run_and_conclude(grid: Grid, lab: Lab, options: RunOptions, *, strict: bool, as_json: bool) -> None:
    """Run the remaining trials of a grid and print the summary."""
    from fcnlab.runner.commands import list_run_options

    flags = [flag for flag, given in (("--strict", strict), ("--json", as_json)) if given]
    run_interruptibly(
        grid,
        lab,
        options,
        lambda: _make_reporter(as_json),
        partial(conclude, grid=grid, lab=lab, strict=strict, as_json=as_json, options=options),
        partial(_describe_resuming, grid, lab, [*list_run_options(options), *flags]),
    )


def run_interruptibly(
    grid: Grid,
    lab: Lab,
    options: RunOptions,
    make_reporter: Callable[[], ProgressReporter],
    conclude: Callable[[Outcome], None],
    describe_resuming: Callable[[Outcome | None], str],
) -> None:
    """Run the remaining trials of a grid; at an interruption they pause, and the exit code is 130.

    Args:
        grid: the grid.
        lab: the lab.
        options: options of the run.
        make_reporter: creates the reporter of the progress.
        conclude: prints the results of a complete run.
        describe_resuming: returns how to go on after an interruption of the run, or of `conclude`; its argument is None
            if the run was interrupted.
    """
    from fcnlab.runner.interrupts import Interrupts
    from fcnlab.runner.run import run_grid

    outcome: Outcome | None = None
    with Interrupts() as interrupts:  # also for the last message, whose reader may have ended
        try:
            with make_reporter() as reporter:
                outcome = run_grid(grid, lab, reporter, options, interrupts=interrupts)
            if not outcome.interrupted:
                conclude(outcome)
                return
        except KeyboardInterrupt:
            pass
        reason = ", because the program that reads the output has ended" if interrupts.lost_reader else ""
        typer.echo(f"interrupted{reason}; {describe_resuming(outcome)}", err=True)
        raise typer.Exit(130)


def _describe_resuming(grid: Grid, lab: Lab, words: list[str], outcome: Outcome | None) -> str:
    from fcnlab.runner.commands import format_grid_command

    if outcome is None or outcome.interrupted:
        return f"finished epochs are kept. Resume with: {format_grid_command('grid run', grid, lab, *words)}"
    return f"all trials have ended. Write the report with: {format_grid_command('report', grid, lab)}"


def _make_reporter(as_json: bool) -> ProgressReporter:
    from fcnlab.runner.progress.create import create_reporter
    from fcnlab.runner.progress.jsonl import JsonlReporter

    return JsonlReporter(partial(print_json, indent=None)) if as_json else create_reporter(create_console())


def conclude(
    outcome: Outcome,
    grid: Grid,
    lab: Lab,
    *,
    strict: bool = False,
    as_json: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
) -> None:
    """Print the table and the locations of the results.

    Args:
        outcome: the outcome of the run.
        grid: the grid.
        lab: the lab.
        strict: refuse cells that are not comparable.
        as_json: print a JSON object.
        options: options of the run, for the command that runs failed trials again.

    Raises:
        RunError: with `strict`, cells are not comparable.
    """
    from fcnlab.cli.report import refuse_flagged
    from fcnlab.report.write import create_report, describe_kept_report
    from fcnlab.runner.progress.jsonl import create_event
    from fcnlab.runner.publisher import OptionalTracker
    from fcnlab.tracking.store import is_installed

    tracker = OptionalTracker(grid, lab, outcome.deferred.get("mlflow"))
    report = create_report(grid, lab, tracker, predict=False)
    if tracker.error is not None:
        outcome = dataclasses.replace(outcome, deferred={**outcome.deferred, "mlflow": tracker.error})
    if strict:
        refuse_flagged([report])
    if as_json:
        written = str(report.folder) if describe_kept_report(report) is None else None
        print_json(create_event("done", **dataclasses.asdict(outcome), report=written), indent=None)
    else:
        _print_summary(outcome, report, grid, lab, options)
    if not outcome.ok or any(name != "mlflow" or is_installed() for name in outcome.deferred):
        raise typer.Exit(1)


def _print_summary(outcome: Outcome, report: Report, grid: Grid, lab: Lab, options: RunOptions) -> None:
    from fcnlab.cli.report import show_effects, show_not_published, show_table
    from fcnlab.report.write import describe_kept_report
    from fcnlab.runner.commands import format_grid_command, format_path, list_run_options

    pruned = f", {outcome.pruned} pruned" if outcome.pruned else ""
    typer.echo(f"{outcome.finished} finished ({outcome.reused} reused), {outcome.failed} failed{pruned}")
    show_table(report, report.cell_table)
    show_effects(report)
    typer.echo(describe_kept_report(report) or f"report: {report.folder / 'report.html'}")
    if "tensorboard" in lab.trackers:
        curves = format_path(lab.root / "tensorboard" / grid.name)
        typer.echo(f"curves in TensorBoard: tensorboard --logdir {curves}")
    if "mlflow" in lab.trackers and "mlflow" not in outcome.deferred:
        typer.echo(f"compare the runs in MLflow: {format_grid_command('ui', grid, lab)}")
    if outcome.deferred:
        show_not_published(outcome.deferred.values(), grid, lab)
    if not outcome.ok:
        typer.echo(f"show the errors: {format_grid_command('grid status', grid, lab)}", err=True)
        again = format_grid_command("grid run", grid, lab, *list_run_options(options), "--retry-failed")
        typer.echo(f"run the failed trials again: {again}", err=True)
