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
from fcnlab.runner.lease import Leases, Presence
from fcnlab.runner.plan import Plan, Planned, make_plan
from fcnlab.runner.progress.base import Waiting, Watcher
from fcnlab.runner.pruning_state import Race
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
    hire: Callable[[], Executor],
    watcher: Watcher,
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
    for planned in plan.left:  # before anything is started or published: this is where a full disk shows
        planned.folder.create()
    with _leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, watcher)
        shift = _Shift(plan, lab, leases, publisher, watcher, interrupted, fail_fast, checkpoint_every)
        try:
            publisher.take_over()
            watcher.planned(plan)
            if plan.left:
                _decode(plan, lab, watcher)
                shift.work(hire)
            while not (shift.stops or publisher.take_over()):  # another driver still publishes what is in the table
                time.sleep(POLL)
        finally:
            publisher.close(complete=shift.done)
    after = make_plan(grid, lab)
    return Outcome(
        finished=after.count("finished"),
        failed=after.count("failed"),
        reused=len(plan.everything) - len(plan.left),
        stopped=after.count("stopped"),
        postponed=publisher.postponed,
        interrupted=interrupted() and not shift.done,
    )


def sync(grid: Grid, lab: Lab, watcher: Watcher) -> Outcome:
    """Publish what the book lacks, and run nothing.

    Raises:
        RunError: another driver runs the grid and publishes it; or as `run` does.
        TrackingError: MLflow is not installed.
    """
    if not is_installed():
        raise TrackingError(f"MLflow is not installed; run `fcnlab grid sync {grid.path}` where it is")
    plan = make_plan(grid, lab)
    with _leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, watcher)
        if not publisher.take_over():
            raise RunError(
                f"the grid {grid.name} is being run in {lab.root}, and published as it goes; watch it with "
                f"`fcnlab grid status {grid.path}`"
            )
        publisher.close(complete=not plan.left)
    ended = len(plan.everything) - len(plan.left)
    return Outcome(
        plan.count("finished"), plan.count("failed"), ended, plan.count("stopped"), postponed=publisher.postponed
    )


def forget_failed(grid: Grid, lab: Lab) -> int:
    """Set the failed records of a grid aside, so that the next run runs those trials again; returns how many."""
    failed = [planned for planned, record in make_plan(grid, lab).ended if record.status == "failed"]
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
        presence = Presence(folder)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); choose another lab folder with --lab"
        ) from None
    with presence:
        yield Leases(presence)


def _decode(plan: Plan, lab: Lab, watcher: Watcher) -> None:
    """Decode what the trials will read, once and on all cores, before they ask for it all at the same moment."""
    needed = {(repr(one.trial.dataset), split) for one in plan.left for split in one.trial.dataset.used_splits}
    datasets = {repr(one.trial.dataset): one.trial.dataset for one in plan.left}
    for spec, split in sorted(needed):
        # A faulty file is what the trials that read it have to say; others of the grid may well run.
        with suppress(DataError):
            try_open_or_build_cache(lab.open_dataset(datasets[spec]), split, watcher.decoding)


class _Shift:
    """What a driver does from the plan until every trial has ended: here, elsewhere, or not at all."""

    def __init__(
        self,
        plan: Plan,
        lab: Lab,
        leases: Leases,
        publisher: Publisher,
        watcher: Watcher,
        interrupted: Callable[[], bool],
        fail_fast: bool,
        checkpoint_every: float,
    ) -> None:
        self._lab = lab
        self._leases = leases
        self._publisher = publisher
        self._watcher = watcher
        self._interrupted = interrupted
        self._fail_fast = fail_fast
        self._checkpoint_every = checkpoint_every
        self._failed = False
        self._left = {planned.key: planned for planned in plan.left}
        self._running: dict[str, tuple[Planned, Job]] = {}
        self._elsewhere: set[str] = set()
        self._looked_elsewhere = 0.0
        self._race = Race(plan) if plan.grid.file.early_stopping is not None else None

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return not self._left

    @property
    def stops(self) -> bool:
        """Whether nothing more is to be started."""
        return self._interrupted() or (self._fail_fast and self._failed)

    def work(self, hire: Callable[[], Executor]) -> None:
        """Run what this driver can lease, until all trials have ended or what runs has been paused."""
        with hire() as executor:
            while self._left and not self.stops:
                self._start(executor)
                self._look(executor)
            if self._running:
                self._watcher.pausing(len(self._running))
                executor.pause()
            while self._running:
                self._look(executor)

    def _look(self, executor: Executor) -> None:
        """See what has ended, and how far the rest is; first write to the book, while all places are taken."""
        self._publisher.catch_up()
        for ended in executor.wait(POLL):
            self._settle(ended, executor)
        for planned, _ in self._running.values():
            epochs = planned.folder.read_progress()
            self._watcher.progress(planned, epochs)
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

    def _start_one(self, planned: Planned, executor: Executor) -> None:
        until = self._race.until(planned) if self._race is not None else None
        attempts = planned.folder.attempts()
        job = retry_policy.job_for(planned.trial, attempts, shares_devices=executor.shares_devices, pause_after=until)
        job = job.model_copy(update={"checkpoint_every": self._checkpoint_every})
        self._running[planned.key] = planned, job
        executor.start(job)
        self._publisher.begin(planned)
        self._watcher.started(planned)

    def _can_go_on(self, planned: Planned) -> bool:
        """Whether what a trial starts from has ended, and no decision about its cell is to be waited for."""
        return not (self._waits_for_start(planned) or self._waits_for_decision(planned))

    def _waits_for_start(self, planned: Planned) -> bool:
        start = planned.trial.init_from
        return start is not None and RunFolder(self._lab.runs, start).read() is None

    def _waits_for_decision(self, planned: Planned) -> bool:
        return self._race is not None and self._race.waits(planned)

    def _waiting(self) -> Waiting:
        """Why what is left here is not started."""
        here = [planned for key, planned in self._left.items() if key not in self._elsewhere]
        return Waiting(
            for_start=sum(map(self._waits_for_start, here)), for_decision=sum(map(self._waits_for_decision, here))
        )

    def _settle(self, ended: JobExit, executor: Executor) -> None:
        """What is done about a job that ended: its record, another attempt, or a pause."""
        planned, job = self._running.pop(ended.key)
        if not self._leases.holds(planned.folder.path):  # this machine slept, and another driver has taken over
            self._elsewhere.add(ended.key)
            return
        record = planned.folder.read()
        attempt = _fruitless(planned, job, ended, record)
        if attempt is not None:
            record = self._try_again_or_fail(planned, attempt, executor)
        if record is not None:
            self._end(planned, record)
        elif attempt is None:
            self._watcher.paused(planned)
        self._leases.release(planned.folder.path)
        self._decide(planned)

    def _try_again_or_fail(self, planned: Planned, attempt: Attempt, executor: Executor) -> Record | None:
        """Note an attempt without a figure; returns the record if it was the last."""
        attempts = planned.folder.add_attempt(attempt)
        failure = retry_policy.failure(planned.trial, attempts, shares_devices=executor.shares_devices)
        if attempt.cause == "out_of_memory":
            planned.folder.restart()
        if failure is None:
            self._watcher.again(planned, attempt)
            return None
        record = Record.create(planned.trial, "failed", failure=failure)
        planned.folder.finish(record)
        return record

    def _end(self, planned: Planned, record: Record) -> None:
        del self._left[planned.key]
        self._failed = self._failed or record.status == "failed"
        self._publisher.ended(planned, record)
        self._watcher.ended(planned, record)

    def _decide(self, *reached: Planned) -> None:
        """Take the cells out of the race that are hopeless, now that these trials have come so far."""
        if self._race is None:
            return
        for planned, epoch in self._race.decide(reached):
            if self._left.pop(planned.key, None) is not None:
                self._publisher.stopped(planned, epoch)
                self._watcher.stopped(planned, epoch)

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
        self._watcher.elsewhere(len(self._elsewhere))
        if not self._running and not self.stops:
            self._watcher.waiting(self._waiting())


def _fruitless(planned: Planned, job: Job, ended: JobExit, record: Record | None) -> Attempt | None:
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
