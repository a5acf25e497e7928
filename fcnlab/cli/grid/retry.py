"""`fcnlab grid retry`: run the failed trials of a grid again."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.grid.running import run_and_conclude
from fcnlab.cli.options import (
    HANG_TIMEOUT_TEXT,
    Address,
    CheckpointEvery,
    DataRoot,
    DeviceOption,
    DevicesPerTrial,
    ExecutorOption,
    FailFast,
    GridFile,
    HangTimeout,
    LabOption,
    LogEvery,
    PerGpu,
    Threads,
    TrackerOption,
    TrackingUri,
    Workers,
    parse_hang_timeout,
)
from fcnlab.settings import CHECKPOINT_EVERY

EXAMPLE = "Example: fcnlab grid retry experiments/quickstart.yaml"


def retry(
    file: GridFile,
    executor: ExecutorOption = "process",
    workers: Workers = None,
    threads: Threads = None,
    device: DeviceOption = "auto",
    per_gpu: PerGpu = 1,
    devices_per_trial: DevicesPerTrial = 1,
    address: Address = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
    log_every: LogEvery = None,
    hang_timeout: HangTimeout = HANG_TIMEOUT_TEXT,
    fail_fast: FailFast = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail with exit code 2 if cells are not comparable")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    tracker: TrackerOption = None,
) -> None:
    """Run the failed trials of a grid again, and its remaining trials."""
    from fcnlab.lab import Lab
    from fcnlab.runner.executors.config import ExecutorConfig
    from fcnlab.runner.run import clear_failed

    timeout = parse_hang_timeout(hang_timeout)
    found = Lab.find(file, root=lab, data_root=data_root, tracking_uri=tracking_uri, trackers=tracker)
    grid = found.load_grid(file)
    executor_config = ExecutorConfig(executor, workers, threads, per_gpu, address, devices_per_trial, device)
    executor_config.check(grid.cells, found)
    typer.echo(f"{clear_failed(grid, found)} failed trials will be run again", err=as_json)
    run_and_conclude(
        grid,
        found,
        executor_config,
        fail_fast=fail_fast,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        hang_timeout=timeout,
        strict=strict,
        as_json=as_json,
    )
