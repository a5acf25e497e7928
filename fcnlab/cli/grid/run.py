"""`fcnlab grid run`: run the remaining trials of a grid."""

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
    RetryFailed,
    Strict,
    Threads,
    TrackerOption,
    TrackingUri,
    Wait,
    Workers,
    parse_hang_timeout,
)
from fcnlab.settings import RunOptions

EXAMPLE = "Example: fcnlab grid run experiments/quickstart.yaml"


def run(
    file: GridFile,
    executor: ExecutorOption = RunOptions.executor,
    workers: Workers = RunOptions.workers,
    threads: Threads = RunOptions.threads,
    device: DeviceOption = RunOptions.device,
    per_gpu: PerGpu = RunOptions.per_gpu,
    devices_per_trial: DevicesPerTrial = RunOptions.devices_per_trial,
    address: Address = RunOptions.address,
    retry_failed: RetryFailed = RunOptions.retry_failed,
    checkpoint_every: CheckpointEvery = RunOptions.checkpoint_every,
    log_every: LogEvery = RunOptions.log_every,
    hang_timeout: HangTimeout = HANG_TIMEOUT_TEXT,
    fail_fast: FailFast = RunOptions.fail_fast,
    wait: Wait = RunOptions.wait,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    tracker: TrackerOption = None,
) -> None:
    """Run the remaining trials of a grid, and print its table.

    Exit code 1 if a trial failed, 130 if interrupted.

    After Ctrl-C, running trials finish their epoch; a second Ctrl-C stops at once. The next run resumes from the last
    checkpoints. Several drivers, also on several machines, can run one grid of a shared lab.
    """
    from fcnlab.lab import Lab

    options = RunOptions(
        executor=executor,
        workers=workers,
        threads=threads,
        per_gpu=per_gpu,
        devices_per_trial=devices_per_trial,
        device=device,
        address=address,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        wait=wait,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        hang_timeout=parse_hang_timeout(hang_timeout),
    )
    lab_ = Lab.find(file, root=lab, data_root=data_root, tracking_uri=tracking_uri, trackers=tracker)
    run_and_conclude(lab_.load_grid(file), lab_, options, strict=strict, as_json=as_json)
