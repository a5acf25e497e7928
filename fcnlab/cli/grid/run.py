"""`fcnlab grid run`: run what is left of a grid."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.grid.running import run_and_conclude
from fcnlab.cli.options import (
    Address,
    CheckpointEvery,
    DataRoot,
    DeviceOption,
    DevicesPerTrial,
    ExecutorOption,
    FailFast,
    GridFile,
    LabOption,
    PerGpu,
    Threads,
    TrackingUri,
    Workers,
)
from fcnlab.settings import CHECKPOINT_EVERY

EXAMPLE = "Example: fcnlab grid run experiments/quickstart.yaml"


def run(
    file: GridFile,
    executor: ExecutorOption = "process",
    workers: Workers = None,
    threads: Threads = None,
    device: DeviceOption = "auto",
    per_gpu: PerGpu = 1,
    devices_per_trial: DevicesPerTrial = 1,
    address: Address = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
    fail_fast: FailFast = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a table of cells that are not comparable, with exit code 2")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a line of JSON for each event")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run what is left of a grid, then show its table. Exit code 1 if a trial failed, 130 if it was stopped.

    Ctrl-C once lets what runs go to the end of its epoch; twice stops at once. Either way the next run goes on from
    there. Several of these may run one grid from one lab, also from many machines; they share the trials.
    """
    from fcnlab.lab import Lab
    from fcnlab.runner.executors.config import ExecutorConfig

    place = Lab.find(file, root=lab, data_root=data_root, tracking_uri=tracking_uri)
    executor_config = ExecutorConfig(executor, workers, threads, per_gpu, address, devices_per_trial, device)
    grid = place.load_grid(file)
    executor_config.check(grid.cells, place)
    run_and_conclude(
        grid,
        place,
        executor_config,
        fail_fast=fail_fast,
        checkpoint_every=checkpoint_every,
        strict=strict,
        as_json=as_json,
    )
