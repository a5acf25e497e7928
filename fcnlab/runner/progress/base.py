"""What a person sees while a grid runs: plain lines here, a live table in `fcnlab.runner.progress.rich`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType

from rich.console import Console

from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.eta import EtaEstimator, Running
from fcnlab.trial.record import Attempt, EpochRecord, Record


@dataclass(frozen=True)
class Waiting:
    """How many trials wait to be started here: for what they start from, or for a decision about their cells."""

    for_start: int = 0
    for_decision: int = 0

    def why(self, elsewhere: int) -> str:
        """What a driver waits for that has nothing to run, with so many trials run by other drivers."""
        reasons = [
            f"{elsewhere} run by other drivers" if elsewhere else "",
            f"{self.for_start} wait for what they start from" if self.for_start else "",
            f"{self.for_decision} wait for the decision about their cells" if self.for_decision else "",
        ]
        return ", ".join(filter(None, reasons)) or "starting"


class ProgressReporter:
    """Told what happens; keeps count of it. This one shows nothing."""

    def __init__(self) -> None:
        self.running: dict[str, Running] = {}
        self.total = self.done = self.failed = self.hopeless = self.run_elsewhere = 0
        self.waiting_for = Waiting()
        self._reason: str | None = None
        self.decoded: tuple[str, int, int] | None = None  # which split, how many samples of how many
        self.outlook = EtaEstimator()

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def planned(self, plan: Plan) -> None:
        """The plan stands."""
        self.total, self.failed, self.hopeless = len(plan.all_trials), plan.count("failed"), plan.count("stopped")
        self.done = self.total - len(plan.remaining)
        self.outlook = EtaEstimator(plan)

    def decoding(self, split: str, samples: int) -> Callable[[], None]:
        """A split is decoded for all trials; what is returned is called for each sample that is done."""
        done = count(1)

        def advance() -> None:
            self.decoded = (split, next(done), samples)

        return advance

    def started(self, planned: PlannedTrial) -> None:
        """A trial starts."""
        self.decoded = self._reason = None
        epochs = planned.folder.read_progress()
        self.outlook.saw(planned, epochs)
        self.running[planned.key] = Running(planned, epochs, before=len(epochs))

    def progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        """The epochs of a trial so far; returns whether there is a new one."""
        one = self.running[planned.key]
        if len(epochs) <= len(one.epochs):
            return False
        self.outlook.saw(planned, epochs)
        one.epochs, one.seen = epochs, time.monotonic()
        return True

    def ended(self, planned: PlannedTrial, record: Record) -> None:
        """A trial has a record, from here or from another driver."""
        self._leaves(planned, record.epochs)
        self.outlook.close(planned)
        self.done += 1
        self.failed += record.status == "failed"

    def again(self, planned: PlannedTrial, attempt: Attempt) -> None:  # noqa: ARG002 - shown by those who show
        """An attempt at a trial gave no figure; there will be another."""
        self._leaves(planned, planned.folder.read_progress())

    def pausing(self, trials: int) -> None:
        """What runs goes to the end of its epoch, and nothing more is started."""

    def paused(self, planned: PlannedTrial) -> None:
        """A trial has stopped after an epoch; it can go on from there."""
        self._leaves(planned, planned.folder.read_progress())

    def stopped(self, planned: PlannedTrial, epoch: int) -> None:  # noqa: ARG002 - shown by those who show
        """The grid's own rule has stopped a trial after an epoch."""
        self.outlook.close(planned)
        self.done += 1
        self.hopeless += 1

    def elsewhere(self, trials: int) -> None:
        """So many trials are run by other drivers."""
        self.run_elsewhere = trials

    def waiting(self, waiting: Waiting) -> bool:
        """Nothing runs here, and this is why; returns whether it is another reason than the last time."""
        self.waiting_for = waiting
        before, self._reason = self._reason, self.idle
        return self._reason not in (None, before)

    def postponed(self, why: str) -> None:
        """The book is out of reach; publication waits."""

    @property
    def time_left(self) -> float | None:
        """Seconds until the grid is done; None before anything can be said."""
        return self.outlook.left(self.running.values())

    @property
    def idle(self) -> str | None:
        """Why nothing runs here; None while something does."""
        if self.running:
            return None
        if self.decoded is not None:
            split, done, samples = self.decoded
            return f"decoding {split}, {done} of {samples} images"
        if self.total and self.done == self.total:
            return "all trials have ended; publishing"
        return self.waiting_for.why(self.run_elsewhere)

    def _leaves(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """A trial no longer runs here, having come so far."""
        self.running.pop(planned.key, None)
        self.outlook.saw(planned, epochs)


class PlainReporter(ProgressReporter):
    """A line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._say(f"{plan.grid.name}: {self.total} trials, {self.done} already ended, {len(plan.remaining)} to run")

    def decoding(self, split: str, samples: int) -> Callable[[], None]:
        self._say(f"decode {split}: {samples} images, once for all trials")
        return super().decoding(split, samples)

    def started(self, planned: PlannedTrial) -> None:
        super().started(planned)
        self._say(f"start  {planned.description}")

    def progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        new = super().progress(planned, epochs)
        if new and (epochs[-1].val_miou is not None or epochs[-1].epoch == 1):
            self._say(f"       {planned.description}: {_epoch(planned, epochs[-1])}")
        return new

    def ended(self, planned: PlannedTrial, record: Record) -> None:
        super().ended(planned, record)
        seconds = self.time_left if self.done < self.total else None
        left = f", about {format_duration(seconds)} left" if seconds is not None else ""
        self._say(f"{verdict(planned, record)}  [{self.done}/{self.total}{left}]")

    def again(self, planned: PlannedTrial, attempt: Attempt) -> None:
        super().again(planned, attempt)
        self._say(f"again  {planned.description}: {attempt.message}")

    def pausing(self, trials: int) -> None:
        self._say(f"stopping: {trials} trials go to the end of their epoch; press Ctrl-C again to stop now")

    def paused(self, planned: PlannedTrial) -> None:
        epochs = len(planned.folder.read_progress())
        super().paused(planned)
        self._say(f"paused {planned.description} after epoch {epochs} of {planned.trial.recipe.epochs}")

    def stopped(self, planned: PlannedTrial, epoch: int) -> None:
        super().stopped(planned, epoch)
        self._say(f"stop   {planned.description}: hopeless after epoch {epoch}, as the grid's stop says")

    def waiting(self, waiting: Waiting) -> bool:
        new = super().waiting(waiting)
        if new:
            self._say(f"wait   {self.idle}")
        return new

    def postponed(self, why: str) -> None:
        self._say(f"publishing is deferred: {why}")


def verdict(planned: PlannedTrial, record: Record) -> str:
    """How a trial ended, in a line."""
    if record.failure is not None:
        return f"FAILED {planned.description}: {record.failure.message.splitlines()[0]}"
    score = record.find_metrics(record.report_split, "last")
    figure = f"{100 * score.miou:.1f}" if score is not None and score.miou is not None else "–"
    seconds = record.cost.train_seconds if record.cost is not None else 0.0
    return f"done   {planned.description}: {record.report_split} mIoU {figure}, {format_duration(seconds)} of training"


def format_duration(seconds: float | None) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _epoch(planned: PlannedTrial, epoch: EpochRecord) -> str:
    scored = f", val mIoU {100 * epoch.val_miou:.1f}" if epoch.val_miou is not None else ""
    speed = f"{epoch.images_per_s:.1f} images/s"
    return f"epoch {epoch.epoch}/{planned.trial.recipe.epochs}, loss {epoch.loss:.3f}{scored}, {speed}"
