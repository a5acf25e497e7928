"""`fcnlab train`: run one trial, with the same record as in a grid."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.grid.running import run_interruptibly
from fcnlab.cli.options import (
    HANG_TIMEOUT_TEXT,
    VARIANT_HELP,
    DataRoot,
    DeviceOption,
    DevicesPerTrial,
    HangTimeout,
    LabOption,
    LogEvery,
    RetryFailed,
    Threads,
    TrackerOption,
    TrackingUri,
    parse_hang_timeout,
)
from fcnlab.console import create_console
from fcnlab.settings import RunOptions

if TYPE_CHECKING:
    from fcnlab.runner.plan import PlannedTrial
    from fcnlab.runner.run import Outcome
    from fcnlab.trial.record import Record

EXAMPLE = "Example: fcnlab train fcn8s-tiny --dataset shapes --recipe quick --set recipe.epochs=2 --seed 0"


def train(
    variant: Annotated[
        str,
        typer.Argument(metavar="VARIANT", help=VARIANT_HELP, show_default=False),
    ],
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="A dataset of the registry")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="A recipe of the registry")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="AXIS=VALUE", help="Override a field, such as recipe.epochs=2; repeatable"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of all random numbers")] = 0,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", metavar="KEY", help="Start from the last weights of the trial with this key"),
    ] = None,
    threads: Threads = RunOptions.threads,
    device: DeviceOption = RunOptions.device,
    devices_per_trial: DevicesPerTrial = RunOptions.devices_per_trial,
    retry_failed: RetryFailed = RunOptions.retry_failed,
    log_every: LogEvery = RunOptions.log_every,
    hang_timeout: HangTimeout = HANG_TIMEOUT_TEXT,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    tracker: TrackerOption = None,
    workdir: Annotated[
        Path | None,
        typer.Option("--workdir", metavar="DIR", help="Write to this folder, with separate records and MLflow store"),
    ] = None,
) -> None:
    """Train and evaluate one variant. A grid with the same trial reuses its record."""
    from fcnlab.config.grid.grid import Grid, GridFile, resolve
    from fcnlab.lab import Lab
    from fcnlab.runner.commands import train_words
    from fcnlab.runner.grid_state import SINGLE_TRIALS
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.progress.create import create_reporter

    options = RunOptions(
        workers=1,
        threads=threads,
        devices_per_trial=devices_per_trial,
        device=device,
        retry_failed=retry_failed,
        log_every=log_every,
        hang_timeout=parse_hang_timeout(hang_timeout),
    )
    found = Lab.find(root=lab, data_root=data_root, tracking_uri=tracking_uri, trackers=tracker)
    overrides = _parse_variant(variant) | {"dataset": dataset, "recipe": recipe, "init_from": init_from}
    changes = _parse_settings(settings or [])
    _refuse_repeated(overrides, changes)
    overrides |= changes
    cell = resolve(overrides, found.registry, "fcnlab train")
    command = shlex.join(train_words(cell, seed, found.registry))
    if workdir is not None:
        found = found.with_workdir(workdir)
    file = GridFile(question="Single trials", base=overrides, seeds=[seed], baseline={})
    grid = Grid(SINGLE_TRIALS, Path("fcnlab train"), file, (cell,), cell, (seed,), command=command)
    run_interruptibly(
        grid,
        found,
        options,
        lambda: create_reporter(create_console()),
        lambda outcome: _conclude(outcome, make_plan(grid, found).trials[0]),
        lambda _: "finished epochs are kept. Resume with the same command",
    )


def _conclude(outcome: Outcome, planned: PlannedTrial) -> None:
    """Print the metrics of the trial, or its failure."""
    record = planned.record
    assert record is not None, "run has ended every trial"
    _print_metrics(planned, record)
    for error in outcome.deferred.values():
        typer.echo(f"not published: {error}", err=True)
    if record.failure is not None:
        typer.echo(f"failed: {record.failure.message}; log: {planned.folder.log}", err=True)
        typer.echo("run it again: repeat this command with --retry-failed", err=True)
        raise typer.Exit(1)


def _parse_variant(variant: str) -> dict[str, Any]:
    """Return the overrides that select a variant or its components."""
    from fcnlab.config.variant import parse_variant

    return dict(parse_variant(variant)) if "+" in variant else {"variant": variant}


def _parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse `--set` options into overrides; values are YAML, as in a grid file."""
    from fcnlab.config.yaml_file import parse
    from fcnlab.errors import ConfigError

    overrides: dict[str, Any] = {}
    for setting in settings:
        axis, mark, value = setting.partition("=")
        if not mark or not axis:
            raise ConfigError(f"--set: expected AXIS=VALUE, such as recipe.epochs=5, not '{setting}'")
        if axis in overrides:
            raise ConfigError(f"--set {axis}: given twice; keep one")
        if "\n" in value:  # YAML would read further keys
            raise ConfigError(f"--set {axis}: the value has several lines; write it on one line")
        overrides[axis] = parse(f"value: {value}", f"--set {axis}")["value"]
    return overrides


def _refuse_repeated(overrides: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ConfigError if `--set` gives a value that an argument or another option gives, too."""
    from fcnlab.errors import ConfigError

    for axis in settings:
        if overrides.get(axis) is not None:
            option = f"--{axis.replace('_', '-')}" if axis in ("dataset", "recipe", "init_from") else "VARIANT"
            raise ConfigError(f"--set {axis}: given twice, also by {option}; keep one")


def _print_metrics(planned: PlannedTrial, record: Record) -> None:
    for metrics in record.metrics:
        split, name = metrics.split, metrics.checkpoint
        values = (metrics.miou, metrics.pixel_acc, metrics.mean_acc, metrics.fw_iou)
        shown = "  ".join(f"{100 * v:5.1f}" if v is not None else "    –" for v in values)
        typer.echo(f"{split:>4} {name} (epoch {metrics.epoch}): mIoU, pixel, mean acc., f.w. IoU %  {shown}")
    typer.echo(f"record: {planned.folder.record}")
