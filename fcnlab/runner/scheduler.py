"""Run a grid: plan, start what is left, watch it, publish each record.

Several drivers may run one grid from one lab, on one machine or on many that share its folder: a trial is run by the
driver that has leased it (`fcnlab.runner.lease`), and every driver stays until all trials have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fcnlab.config.grid.grid import Grid
from fcnlab.data.cache.build import try_open_or_build_cache
from fcnlab.errors import DataError, RunError, TrackingError
from fcnlab.lab import Lab
from fcnlab.runner import retry_policy
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.lease import Heartbeat, Leases
from fcnlab.runner.plan import Plan, PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter, Waiting
from fcnlab.runner.pruning import Pruner
from fcnlab.runner.publisher import Publisher
from fcnlab.settings import CHECKPOINT_EVERY
from fcnlab.tracking.store import is_installed
from fcnlab.trial.record import Attempt, Record
from fcnlab.trial.run_folder import RunFolder

POLL = 0.25
"""Seconds between two looks at the trials that run here."""

LOOK_ELSEWHERE = 2.0
"""Seconds between two looks at the trials that other drivers run."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a grid went, in numbers of trials; why its book waits if it does; whether it was cut short."""

    finished: int
    failed: int
    reused: int
    stopped: int = 0
    postponed: str | None = None
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether no trial has failed."""
        return self.failed == 0


def run(
    grid: Grid,
    lab: Lab,
    create_executor: Callable[[], Executor],
    reporter: ProgressReporter,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
    checkpoint_every: float = CHECKPOINT_EVERY,
) -> Outcome:
    """Run what is left of a grid and publish every record that is not in the book yet.

    `hire` makes the executor; it is not called when nothing is left to run here. Once `interrupted` says so, what runs
    goes to the end of its epoch and nothing more is started; with `fail_fast`, the same once a trial has failed.
    A trial writes a checkpoint every `checkpoint_every` seconds; 0 writes one after each epoch.

    Raises:
        RunError: the lab cannot be written.
        DataError, ModelError: something that a trial needs is not there.
    """
    plan = make_plan(grid, lab)
    heads = {repr(planned.trial.variant.head): planned.trial.variant.head for planned in plan.remaining}
    for head in heads.values():
        lab.check_head(head)
    for planned in plan.remaining:  # before anything is started or published: this is where a full disk shows
        planned.folder.create()
    with _leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, reporter)
        shift = Scheduler(plan, lab, leases, publisher, reporter, interrupted, fail_fast, checkpoint_every)
        try:
            publisher.take_over()
            reporter.planned(plan)
            if plan.remaining:
                _decode(plan, lab, reporter)
                shift.work(create_executor)
            while not (shift.stops or publisher.take_over()):  # another driver still publishes what is in the table
                time.sleep(POLL)
        finally:
            publisher.close(complete=shift.done)
    after = make_plan(grid, lab)
    return Outcome(
        finished=after.count("finished"),
        failed=after.count("failed"),
        reused=len(plan.all_trials) - len(plan.remaining),
        stopped=after.count("stopped"),
        postponed=publisher.postponed,
        interrupted=interrupted() and not shift.done,
    )


def sync(grid: Grid, lab: Lab, reporter: ProgressReporter) -> Outcome:
    """Publish what the book lacks, and run nothing.

    Raises:
        RunError: another driver runs the grid and publishes it; or as `run` does.
        TrackingError: MLflow is not installed.
    """
    if not is_installed():
        raise TrackingError(f"MLflow is not installed; run `fcnlab grid sync {grid.path}` where it is")
    plan = make_plan(grid, lab)
    with _leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, reporter)
        if not publisher.take_over():
            raise RunError(
                f"the grid {grid.name} is being run in {lab.root}, and published as it goes; watch it with "
                f"`fcnlab grid status {grid.path}`"
            )
        publisher.close(complete=not plan.remaining)
    ended = len(plan.all_trials) - len(plan.remaining)
    return Outcome(
        plan.count("finished"), plan.count("failed"), ended, plan.count("stopped"), postponed=publisher.postponed
    )


def clear_failed(grid: Grid, lab: Lab) -> int:
    """Set the failed records of a grid aside, so that the next run runs those trials again; returns how many."""
    failed = [planned for planned, record in make_plan(grid, lab).records() if record.status == "failed"]
    with _leases(lab) as leases:
        free = [planned for planned in failed if leases.claim(planned.folder.path)]
        for planned in free:
            planned.folder.clear()
            leases.release(planned.folder.path)
    return len(free)


@contextmanager
def _leases(lab: Lab) -> Iterator[Leases]:
    folder = lab.state / "drivers"
    try:
        presence = Heartbeat(folder)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); choose another lab folder with --lab"
        ) from None
    with presence:
        yield Leases(presence)


def _decode(plan: Plan, lab: Lab, reporter: ProgressReporter) -> None:
    """Decode what the trials will read, once and on all cores, before they ask for it all at the same moment."""
    needed = {(repr(one.trial.dataset), split) for one in plan.remaining for split in one.trial.dataset.used_splits}
    datasets = {repr(one.trial.dataset): one.trial.dataset for one in plan.remaining}
    for spec, split in sorted(needed):
        # A faulty file is what the trials that read it have to say; others of the grid may well run.
        with suppress(DataError):
            try_open_or_build_cache(lab.open_dataset(datasets[spec]), split, reporter.decoding)


class Scheduler:
    """What a driver does from the plan until every trial has ended: here, elsewhere, or not at all."""

    def __init__(
        self,
        plan: Plan,
        lab: Lab,
        leases: Leases,
        publisher: Publisher,
        reporter: ProgressReporter,
        interrupted: Callable[[], bool],
        fail_fast: bool,
        checkpoint_every: float,
    ) -> None:
        self._lab = lab
        self._leases = leases
        self._publisher = publisher
        self._reporter = reporter
        self._interrupted = interrupted
        self._fail_fast = fail_fast
        self._checkpoint_every = checkpoint_every
        self._failed = False
        self._left = {planned.key: planned for planned in plan.remaining}
        self._running: dict[str, tuple[PlannedTrial, Job]] = {}
        self._elsewhere: set[str] = set()
        self._looked_elsewhere = 0.0
        self._pruner = Pruner(plan) if plan.grid.file.early_stopping is not None else None

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return not self._left

    @property
    def stops(self) -> bool:
        """Whether nothing more is to be started."""
        return self._interrupted() or (self._fail_fast and self._failed)

    def work(self, create_executor: Callable[[], Executor]) -> None:
        """Run what this driver can lease, until all trials have ended or what runs has been paused."""
        with create_executor() as executor:
            while self._left and not self.stops:
                self._start(executor)
                self._look(executor)
            if self._running:
                self._reporter.pausing(len(self._running))
                executor.pause()
            while self._running:
                self._look(executor)

    def _look(self, executor: Executor) -> None:
        """See what has ended, and how far the rest is; first write to the book, while all places are taken."""
        self._publisher.catch_up()
        for ended in executor.wait(POLL):
            self._handle_exit(ended, executor)
        for planned, _ in self._running.values():
            epochs = planned.folder.read_progress()
            self._reporter.progress(planned, epochs)
            self._publisher.follow(planned, epochs)
        if time.monotonic() - self._looked_elsewhere > LOOK_ELSEWHERE:
            self._look_elsewhere()

    def _start(self, executor: Executor) -> None:
        """Start what can be started and leased, in order, while there is room."""
        for key, planned in list(self._left.items()):
            if not executor.free_slots:
                return
            if key in self._running or key in self._elsewhere or not self._can_go_on(planned):
                continue
            if not self._leases.claim(planned.folder.path):
                self._elsewhere.add(key)
                continue
            record = planned.folder.read()
            if record is None:
                self._start_one(planned, executor)
            else:  # another driver has run it since this one made its plan
                self._leases.release(planned.folder.path)
                self._end(planned, record)

    def _start_one(self, planned: PlannedTrial, executor: Executor) -> None:
        until = self._pruner.pause_after(planned) if self._pruner is not None else None
        attempts = planned.folder.attempts()
        job = retry_policy.create_job(
            planned.trial, attempts, shares_devices=executor.shares_devices, pause_after=until
        )
        job = job.model_copy(update={"checkpoint_every": self._checkpoint_every})
        self._running[planned.key] = planned, job
        executor.start(job)
        self._publisher.begin(planned)
        self._reporter.started(planned)

    def _can_go_on(self, planned: PlannedTrial) -> bool:
        """Whether what a trial starts from has ended, and no decision about its cell is to be waited for."""
        return not (self._waits_for_start(planned) or self._waits_for_decision(planned))

    def _waits_for_start(self, planned: PlannedTrial) -> bool:
        start = planned.trial.init_from
        return start is not None and RunFolder(self._lab.runs, start).read() is None

    def _waits_for_decision(self, planned: PlannedTrial) -> bool:
        return self._pruner is not None and self._pruner.is_waiting(planned)

    def _waiting(self) -> Waiting:
        """Why what is left here is not started."""
        here = [planned for key, planned in self._left.items() if key not in self._elsewhere]
        return Waiting(
            for_start=sum(map(self._waits_for_start, here)), for_decision=sum(map(self._waits_for_decision, here))
        )

    def _handle_exit(self, ended: JobExit, executor: Executor) -> None:
        """What is done about a job that ended: its record, another attempt, or a pause."""
        planned, job = self._running.pop(ended.key)
        if not self._leases.holds(planned.folder.path):  # this machine slept, and another driver has taken over
            self._elsewhere.add(ended.key)
            return
        record = planned.folder.read()
        attempt = _failed_attempt(planned, job, ended, record)
        if attempt is not None:
            record = self._try_again_or_fail(planned, attempt, executor)
        if record is not None:
            self._end(planned, record)
        elif attempt is None:
            self._reporter.paused(planned)
        self._leases.release(planned.folder.path)
        self._decide(planned)

    def _try_again_or_fail(self, planned: PlannedTrial, attempt: Attempt, executor: Executor) -> Record | None:
        """Note an attempt without a figure; returns the record if it was the last."""
        attempts = planned.folder.add_attempt(attempt)
        failure = retry_policy.find_failure(planned.trial, attempts, shares_devices=executor.shares_devices)
        if attempt.cause == "out_of_memory":
            planned.folder.restart()
        if failure is None:
            self._reporter.retrying(planned, attempt)
            return None
        record = Record.create(planned.trial, "failed", failure=failure)
        planned.folder.finish(record)
        return record

    def _end(self, planned: PlannedTrial, record: Record) -> None:
        del self._left[planned.key]
        self._failed = self._failed or record.status == "failed"
        self._publisher.ended(planned, record)
        self._reporter.ended(planned, record)

    def _decide(self, *reached: PlannedTrial) -> None:
        """Take the cells out of the race that are hopeless, now that these trials have come so far."""
        if self._pruner is None:
            return
        for planned, epoch in self._pruner.update(reached):
            if self._left.pop(planned.key, None) is not None:
                self._publisher.stopped(planned, epoch)
                self._reporter.stopped(planned, epoch)

    def _look_elsewhere(self) -> None:
        """See what other drivers have done, and take over what they have left."""
        self._looked_elsewhere = time.monotonic()
        self._publisher.take_over()
        given_back = [
            self._left[key] for key in self._elsewhere if self._leases.holder(self._left[key].folder.path) is None
        ]
        for planned in given_back:
            self._elsewhere.remove(planned.key)
            record = planned.folder.read()
            if record is not None:
                self._end(planned, record)
        self._decide(*given_back)
        self._reporter.elsewhere(len(self._elsewhere))
        if not self._running and not self.stops:
            self._reporter.waiting(self._waiting())


def _failed_attempt(planned: PlannedTrial, job: Job, ended: JobExit, record: Record | None) -> Attempt | None:
    """The attempt that a job was, if its worker was lost or the memory ran out."""
    done = len(planned.folder.read_progress())
    if record is None and ended.error is not None:
        return Attempt(
            cause="lost", message=ended.error, epoch=done, micro_batches=job.micro_batches, exclusive=job.exclusive
        )
    if record is not None and record.failure is not None and record.failure.cause == "out_of_memory":
        message = record.failure.message.splitlines()[0]
        return Attempt(
            cause="out_of_memory", message=message, epoch=done, micro_batches=job.micro_batches, exclusive=job.exclusive
        )
    return None
