"""What a person sees while a grid runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fcnlab.execute.plan import Plan, Planned
from fcnlab.trial.record import Attempt, EpochRecord, Record


class Watcher:
    """Told what happens; keeps count of it. This one shows nothing."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[Planned, list[EpochRecord]]] = {}
        self.total = self.done = self.failed = self.run_elsewhere = 0
        self.decoded: tuple[str, int, int] | None = None  # which split, how many samples of how many
        self._epochs_to_do = self._epochs_done = 0
        self._began = time.monotonic()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def planned(self, plan: Plan) -> None:
        """The plan stands."""
        self.total, self.failed = len(plan.everything), plan.count("failed")
        self.done = self.total - len(plan.left)
        self._began = time.monotonic()
        self._epochs_to_do = sum(
            planned.trial.recipe.epochs - len(planned.folder.read_progress()) for planned in plan.left
        )

    def decoding(self, split: str, samples: int) -> Callable[[], None]:
        """A split is decoded for all trials; what is returned is called for each sample that is done."""
        done = count(1)

        def advance() -> None:
            self.decoded = (split, next(done), samples)

        return advance

    def started(self, planned: Planned) -> None:
        """A trial starts."""
        self.decoded = None
        self.running[planned.trial.key] = (planned, planned.folder.read_progress())

    def progress(self, planned: Planned, epochs: list[EpochRecord]) -> bool:
        """The epochs of a trial so far; returns whether there is a new one."""
        _, known = self.running[planned.trial.key]
        new = len(epochs) - len(known)
        self.running[planned.trial.key] = (planned, epochs)
        self._epochs_done += max(0, new)
        return new > 0

    def ended(self, planned: Planned, record: Record) -> None:
        """A trial has a record."""
        _, known = self.running.pop(planned.trial.key, (planned, ()))  # another driver may have run it
        self._epochs_done += planned.trial.recipe.epochs - len(known)
        self.done += 1
        self.failed += record.status == "failed"

    def again(self, planned: Planned, attempt: Attempt) -> None:  # noqa: ARG002 - shown by those who show
        """An attempt at a trial gave no figure; there will be another."""
        self.running.pop(planned.trial.key)

    def pausing(self, trials: int) -> None:
        """What runs goes to the end of its epoch, and nothing more is started."""

    def paused(self, planned: Planned) -> None:
        """A trial has stopped after an epoch; it can go on from there."""
        self.running.pop(planned.trial.key)

    def stopped(self, planned: Planned, epoch: int) -> None:
        """The grid's own rule has stopped a trial after an epoch."""
        self._epochs_to_do -= planned.trial.recipe.epochs - epoch
        self.done += 1

    def elsewhere(self, trials: int) -> None:
        """So many trials are run by other drivers."""
        self.run_elsewhere = trials

    def postponed(self, why: str) -> None:
        """The book is out of reach; publication waits."""

    @property
    def time_left(self) -> float | None:
        """Seconds until the grid is done, by the epochs per second so far; None before the first epoch."""
        if not self._epochs_done:
            return None
        elapsed = time.monotonic() - self._began
        return elapsed / self._epochs_done * max(0, self._epochs_to_do - self._epochs_done)

    @property
    def fraction(self) -> float:
        """How much of what was left to do is done."""
        return min(1.0, self._epochs_done / self._epochs_to_do) if self._epochs_to_do else 1.0


class PlainWatcher(Watcher):
    """A line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._say(f"{plan.grid.name}: {self.total} trials, {self.done} already ended, {len(plan.left)} to run")

    def decoding(self, split: str, samples: int) -> Callable[[], None]:
        self._say(f"decode {split}: {samples} images, once for all trials")
        return super().decoding(split, samples)

    def started(self, planned: Planned) -> None:
        super().started(planned)
        self._say(f"start  {describe(planned)}")

    def progress(self, planned: Planned, epochs: list[EpochRecord]) -> bool:
        new = super().progress(planned, epochs)
        if new and (epochs[-1].val_miou is not None or epochs[-1].epoch == 1):
            self._say(f"       {describe(planned)}: {_epoch(planned, epochs[-1])}")
        return new

    def ended(self, planned: Planned, record: Record) -> None:
        super().ended(planned, record)
        left = f", about {duration(self.time_left)} left" if self.time_left and self.done < self.total else ""
        self._say(f"{verdict(planned, record)}  [{self.done}/{self.total}{left}]")

    def again(self, planned: Planned, attempt: Attempt) -> None:
        super().again(planned, attempt)
        self._say(f"again  {describe(planned)}: {attempt.message}")

    def pausing(self, trials: int) -> None:
        self._say(f"stopping: {trials} trials go to the end of their epoch; press Ctrl-C again to stop now")

    def paused(self, planned: Planned) -> None:
        epochs = len(planned.folder.read_progress())
        super().paused(planned)
        self._say(f"paused {describe(planned)} after epoch {epochs} of {planned.trial.recipe.epochs}")

    def stopped(self, planned: Planned, epoch: int) -> None:
        super().stopped(planned, epoch)
        self._say(f"stop   {describe(planned)}: hopeless after epoch {epoch}, as the grid's stop says")

    def postponed(self, why: str) -> None:
        self._say(f"the book waits: {why}")


class LiveWatcher(PlainWatcher):
    """Ended trials scroll by; those that run stand in a table below."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4, transient=True)

    def __enter__(self) -> Watcher:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, planned: Planned) -> None:
        Watcher.started(self, planned)

    def progress(self, planned: Planned, epochs: list[EpochRecord]) -> bool:
        return Watcher.progress(self, planned, epochs)

    def _picture(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for name in ("running", "epoch", "loss", "val mIoU", "images/s"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for planned, epochs in self.running.values():
            last = epochs[-1] if epochs else None
            scored = next((e.val_miou for e in reversed(epochs) if e.val_miou is not None), None)
            table.add_row(
                describe(planned),
                f"{len(epochs)}/{planned.trial.recipe.epochs}",
                f"{last.loss:.3f}" if last else "",
                f"{100 * scored:.1f}" if scored is not None else "",
                f"{last.images_per_s:.1f}" if last else "",
            )
        left = f"about {duration(self.time_left)} left" if self.time_left is not None else self._beginning()
        line = Text(f"{self.done}/{self.total} trials, {self.failed} failed, {left}", style="bold")
        return Group(table, line, ProgressBar(total=1.0, completed=self.fraction, width=60))  # a bar ends no line

    def _beginning(self) -> str:
        if self.decoded is None:
            return "starting"
        split, done, samples = self.decoded
        return f"decoding {split}, {done} of {samples} images"


def describe(planned: Planned) -> str:
    """A trial in words, such as `fcn8s, random, seed 1`."""
    return f"{planned.cell.label}, seed {planned.trial.seed}"


def verdict(planned: Planned, record: Record) -> str:
    """How a trial ended, in a line."""
    if record.failure is not None:
        return f"FAILED {describe(planned)}: {record.failure.message.splitlines()[0]}"
    score = record.score(record.report_split, "last")
    figure = f"{100 * score.miou:.1f}" if score is not None and score.miou is not None else "–"
    seconds = record.cost.train_seconds if record.cost is not None else 0.0
    return f"done   {describe(planned)}: {record.report_split} mIoU {figure}, {duration(seconds)} of training"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _epoch(planned: Planned, epoch: EpochRecord) -> str:
    scored = f", val mIoU {100 * epoch.val_miou:.1f}" if epoch.val_miou is not None else ""
    speed = f"{epoch.images_per_s:.1f} images/s"
    return f"epoch {epoch.epoch}/{planned.trial.recipe.epochs}, loss {epoch.loss:.3f}{scored}, {speed}"
