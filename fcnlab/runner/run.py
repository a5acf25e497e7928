"""Running a grid: run and publish its remaining trials, publish missing records.

Several drivers may run one grid from one lab, on one machine or on several that share its folder. A trial is run by the
driver that has leased it (`fcnlab.runner.lease`); every driver stays until all trials have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from fcnlab.atomic_file import list_temporary_files
from fcnlab.config.grid.grid import Grid
from fcnlab.console import format_count
from fcnlab.data.cache.build import try_open_or_build_cache
from fcnlab.errors import DataError, RunError, TrackingError
from fcnlab.lab import Lab
from fcnlab.notebook import render_html
from fcnlab.paths import is_file
from fcnlab.runner.changed_inputs import describe_changed_inputs
from fcnlab.runner.checks.class_presence import check_class_presence, find_trials_by_dataset
from fcnlab.runner.checks.code import check_code_is_allowed
from fcnlab.runner.checks.folds import check_folds
from fcnlab.runner.checks.repeated_images import check_repeated_images
from fcnlab.runner.checks.trials import OpenedData, check_trials
from fcnlab.runner.commands import format_grid_command
from fcnlab.runner.executors.base import Executor
from fcnlab.runner.executors.call_process import create_call
from fcnlab.runner.executors.create import check_executor, create_executor, worker_environment
from fcnlab.runner.executors.worker_process import prepare_workers
from fcnlab.runner.grid_state import claim_results, publishing_folder
from fcnlab.runner.inputs import has_unrecorded_inputs
from fcnlab.runner.interrupts import Interrupts
from fcnlab.runner.lease import DriverHeartbeat, Leases
from fcnlab.runner.plan import Plan, PlannedTrial, check_plan_weights, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import CLOSE_TIMEOUT, EXIT_TIMEOUT, Publisher
from fcnlab.runner.scheduler import POLL_INTERVAL, Scheduler
from fcnlab.runner.trackers import check_trackers
from fcnlab.settings import DEFAULT_OPTIONS, RunOptions
from fcnlab.storage_errors import convert_storage_errors
from fcnlab.tracking.store import is_installed


@dataclass(frozen=True)
class Outcome:
    """Result of running a grid.

    Attributes:
        finished: number of finished trials.
        failed: number of failed trials.
        reused: number of trials that had ended before the run.
        pruned: number of pruned trials.
        deferred: reason for deferred publishing, by tracker; empty if everything is published.
        interrupted: whether the run was interrupted before all trials had ended.
    """

    finished: int
    failed: int
    reused: int
    pruned: int = 0
    deferred: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """True if no trial has failed."""
        return self.failed == 0

    def _repr_html_(self) -> str:
        parts = [f"{self.finished} finished ({self.reused} reused)", f"{self.failed} failed"]
        parts += [f"{self.pruned} pruned"] if self.pruned else []
        parts += ["interrupted"] if self.interrupted else []
        note = f"not published: {'; '.join(self.deferred.values())}" if self.deferred else ""
        return render_html(", ".join(parts), note=note)


def run_grid(
    grid: Grid,
    lab: Lab,
    reporter: ProgressReporter,
    options: RunOptions = DEFAULT_OPTIONS,
    *,
    interrupts: Interrupts | None = None,
    executor: Callable[[], Executor] | None = None,
) -> Outcome:
    """Run the remaining trials of a grid and publish every record that is not published yet.

    Args:
        grid: the grid.
        lab: the lab that contains the run folders.
        reporter: reports the progress.
        options: the options of the run.
        interrupts: the handler of signals; None handles none.
        executor: creates an executor other than that of the options; not called if no trial remains.

    Raises:
        RunError: this machine does not have the devices of the options.
        StopRunError: the lab cannot be written or read, has files of a newer version of fcnlab, or the inputs of a
            trial have changed since the plan was made. Trials that have ended keep their records, and others continue
            in the next run.
        ConfigError: a trial cannot be trained or evaluated, see `check_trials`; or a tracker does not exist.
        DataError: a dataset is missing, or a class has no pixel in its training split.
        ModelError: a weights file is missing or does not fit, or a finished trial that another is initialized from is
            missing.
        TrackingError: MLflow cannot open a file with the path of the lab's store.
    """
    environment = None
    if executor is None:
        check_executor(options, grid.cells, lab)
        environment = worker_environment(options, grid.recipes)
        executor = partial(create_executor, options, lab, grid.recipes)
    with convert_storage_errors(lab.output):
        return _run_grid(grid, lab, reporter, options, interrupts or Interrupts(), executor, environment)


def _run_grid(
    grid: Grid,
    lab: Lab,
    reporter: ProgressReporter,
    options: RunOptions,
    interrupts: Interrupts,
    executor: Callable[[], Executor],
    environment: Mapping[str, str] | None,
) -> Outcome:
    plan = make_plan(grid, lab)
    check_trackers(lab)
    claim_results(grid, lab)
    changes = _repair(plan, lab)
    plan = make_plan(grid, lab) if changes else plan
    failed = _find_failed(plan) if options.retry_failed else []
    checked, data = [*plan.remaining, *failed], OpenedData(lab)
    check_code_is_allowed(checked, lab)
    with create_call(environment, reporter.on_check_start) as call:
        warnings = check_trials(checked, lab, grid.path, data, call)
    if failed:
        changes.append(f"{format_count(_clear_failed(failed, lab), 'failed trial')} will be run again")
        plan = make_plan(grid, lab)
    if plan.remaining and environment is not None:
        prepare_workers(environment)  # they import torch while this process imports MLflow
    remarks = [*check_plan_weights(plan, lab), *describe_changed_inputs(plan, lab)]
    check_class_presence(plan, lab, data)
    warnings += [*check_repeated_images(plan, lab), *check_folds(grid)]
    if plan.remaining:  # detects a full disk before anything is started or published
        plan.remaining[0].folder.create()
    with hold_leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, reporter)
        scheduler = Scheduler(plan, leases, publisher, reporter, options, interrupts)
        try:
            publisher.take_over()
            reporter.on_plan(plan)
            for text in (*changes, *remarks, *warnings):
                reporter.on_remark(text)
            if plan.remaining:
                _decode(plan, lab, reporter)
                for warning in check_class_presence(plan, lab):
                    reporter.on_remark(warning)
                scheduler.run(executor)
            # Another driver may still be publishing.
            while scheduler.is_done and not (scheduler.is_stopping or publisher.take_over()) and publisher.has_trackers:
                time.sleep(POLL_INTERVAL)
            _remove_leftovers(plan, lab, leases)
        finally:
            publisher.close(
                complete=scheduler.is_done,
                timeout=EXIT_TIMEOUT if interrupts.received else CLOSE_TIMEOUT,
                exiting=interrupts.received and not scheduler.is_done,
            )
    counts = make_plan(grid, lab).counts()
    return Outcome(
        finished=counts["finished"],
        failed=counts["failed"],
        reused=len(plan.all_trials) - len(plan.remaining),
        pruned=counts["pruned"],
        deferred=publisher.deferred,
        interrupted=interrupts.received and not scheduler.is_done,
    )


def sync_grid(grid: Grid, lab: Lab, reporter: ProgressReporter) -> Outcome:
    """Publish the records that are not published yet; run nothing.

    Args:
        grid: the grid.
        lab: the lab that contains the run folders.
        reporter: reports if publishing is deferred.

    Raises:
        RunError: another driver runs the grid and publishes its records, or the lab cannot be written.
        DataError: a dataset is missing, and not all of its trials have been started in this lab.
        ModelError: the same for a weights file; or a finished trial that another is initialized from is missing.
        TrackingError: MLflow is not installed, or cannot open a file with the path of the lab's store.
    """
    check_trackers(lab)
    if "mlflow" in lab.trackers and not is_installed():
        command = format_grid_command("grid sync", grid, lab)
        raise TrackingError(f"MLflow is not installed; run `{command}` where it is")
    plan = make_plan(grid, lab, recorded_inputs=True)
    if any(has_unrecorded_inputs(planned.trial) for planned in plan.all_trials):
        make_plan(grid, lab)  # trackers would hide the runs of other labs whose keys are unknown here
    claim_results(grid, lab)
    with convert_storage_errors(lab.output), hold_leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, reporter)
        if not publisher.take_over():
            raise RunError(
                f"{grid.name} is being run in {lab.root} by a driver that publishes its records; show its progress "
                f"with `{format_grid_command('grid status', grid, lab)}`"
            )
        publisher.close(complete=not plan.remaining, timeout=None)
    counts = plan.counts()
    ended = len(plan.all_trials) - len(plan.remaining)
    return Outcome(counts["finished"], counts["failed"], ended, counts["pruned"], deferred=publisher.deferred)


def _find_failed(plan: Plan) -> list[PlannedTrial]:
    return [planned for planned, record in plan.records() if record.status == "failed"]


def _clear_failed(failed: Iterable[PlannedTrial], lab: Lab) -> int:
    """Clear failed trials, so that they are run again; return the number of those that no other driver has leased."""
    with hold_leases(lab) as leases:
        return sum(_clear_if_failed(planned, leases) for planned in failed)


def _clear_if_failed(planned: PlannedTrial, leases: Leases) -> bool:
    """Clear a failed trial, unless another driver has leased it or has run it again since the plan was made."""
    if not leases.claim(planned.folder.path):
        return False
    record = planned.record
    is_failed = record is not None and record.status == "failed"
    if is_failed:
        planned.folder.clear()
    leases.release(planned.folder.path)
    return is_failed


@contextmanager
def hold_leases(lab: Lab) -> Iterator[Leases]:
    """Yield the leases of a new driver; they are valid until the context is left.

    Args:
        lab: the lab that contains the leased folders.

    Raises:
        StopRunError: the lab cannot be written.
    """
    with ExitStack() as stack:
        with convert_storage_errors(lab.output):
            heartbeat = stack.enter_context(DriverHeartbeat(lab.state / "drivers"))
        yield Leases(heartbeat)


def _repair(plan: Plan, lab: Lab) -> list[str]:
    """Move the damaged files of the trials that no other driver runs, and describe each move in one line.

    Raises:
        StopRunError: files cannot be read, or were written by a newer version of fcnlab; nothing is moved then.
    """
    damaged = [planned for planned in plan.remaining if planned.status == "damaged"]
    if not damaged:
        return []
    for planned in damaged:
        planned.folder.read_compatible()
    lines = []
    with hold_leases(lab) as leases:
        for planned in damaged:
            if is_file(planned.folder.path):  # it cannot contain a lease
                lines += planned.folder.repair()
            elif leases.claim(planned.folder.path):
                lines += planned.folder.repair()
                leases.release(planned.folder.path)
    return [f"damaged: {line}" for line in lines]


def _remove_leftovers(plan: Plan, lab: Lab, leases: Leases) -> None:
    """Remove what killed processes have left in the run folders that no other driver has leased."""
    for planned in plan.all_trials:
        folder = planned.folder
        if (any(folder.path.glob("*lease.*")) or folder.list_leftovers()) and leases.claim(folder.path):
            folder.remove_leftovers()
            leases.release(folder.path)
    state = publishing_folder(plan, lab)
    if leases.holds(state):
        for file in list_temporary_files(state):
            file.unlink(missing_ok=True)


def _decode(plan: Plan, lab: Lab, reporter: ProgressReporter) -> None:
    """Decode the data of the remaining trials once, on all cores, before the trials request it simultaneously."""
    for trial in find_trials_by_dataset(plan):
        name, dataset = trial.names["dataset"], trial.dataset
        for split in sorted(set(dataset.used_splits)):

            def start(_: str, samples: int, what: str = f"{name} {split}") -> Callable[[], None]:
                return reporter.on_decode_start(what, samples)

            # An invalid file fails the trials that read it; other trials of the grid may not need it.
            with suppress(DataError):
                try_open_or_build_cache(lab.open_dataset(dataset), split, start)
