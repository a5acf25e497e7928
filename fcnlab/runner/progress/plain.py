"""Progress as plain lines, one per event."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from fcnlab.console import format_count
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter, Waiting, format_duration
from fcnlab.trial.record import Attempt, EpochRecord, Record

CHECK_START = "check networks and extensions: this takes some seconds"
"""Printed before torch is imported."""


class PlainReporter(ProgressReporter):
    """Reporter that prints one line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def on_plan(self, plan: Plan) -> None:
        super().on_plan(plan)
        self._print(
            f"{plan.grid.name}: {format_count(self.total, 'trial')}, {self.done} already ended, "
            f"{len(plan.remaining)} to run"
        )

    def on_remark(self, text: str) -> None:
        self._print(text)

    def on_check_start(self) -> None:
        self._print(CHECK_START)

    def on_decode_start(self, split: str, samples: int) -> Callable[[], None]:
        self._print(f"decode {split}: {format_count(samples, 'image')}, once for all trials")
        return super().on_decode_start(split, samples)

    def on_trial_start(self, planned: PlannedTrial) -> None:
        super().on_trial_start(planned)
        if not self.running[planned.key].before:
            self._print(f"start  {planned.description}")

    def on_trial_resume(self, planned: PlannedTrial, repeated: int) -> None:
        done = self.running[planned.key].before
        lost = f"epochs {done + 1} to {done + repeated} are" if repeated > 1 else f"epoch {done + 1} is"
        note = f"; {lost} trained again" if repeated else ""
        self._print(f"resume {planned.description} after epoch {done} of {planned.trial.recipe.epochs}{note}")

    def on_device_wait(self, planned: PlannedTrial) -> None:
        self._print(f"wait   {planned.description} waits for its device")

    def on_progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        new = super().on_progress(planned, epochs)
        if new and (epochs[-1].val_miou is not None or epochs[-1].epoch == 1):
            self._print(f"       {planned.description}: {_format_epoch(planned, epochs[-1])}")
        return new

    def on_trial_end(self, planned: PlannedTrial, record: Record) -> None:
        super().on_trial_end(planned, record)
        seconds = self.time_left if self.done < self.total else None
        left = f", about {format_duration(seconds)} left" if seconds is not None else ""
        self._print(f"{describe_result(planned, record)}  {planned.short_key}  [{self.done}/{self.total}{left}]")

    def on_trial_retry(self, planned: PlannedTrial, attempt: Attempt, remedy: str) -> None:
        super().on_trial_retry(planned, attempt, remedy)
        self._print(f"retry  {planned.description}: {attempt.message}; {remedy}")

    def on_pause(self) -> None:
        super().on_pause()
        self._print(f"stopping: {self.describe_pause()}; press Ctrl-C again to stop now and lose these epochs")

    def on_trial_pause(self, planned: PlannedTrial) -> None:
        epochs = len(planned.folder.read_progress())
        super().on_trial_pause(planned)
        self._print(f"paused {planned.description} after epoch {epochs} of {planned.trial.recipe.epochs}")

    def on_trial_prune(self, planned: PlannedTrial, epoch: int) -> None:
        super().on_trial_prune(planned, epoch)
        self._print(f"pruned {planned.description} after epoch {epoch}")

    def on_wait(self, waiting: Waiting) -> bool:
        new = super().on_wait(waiting)
        if new:
            self._print(f"wait   {self.idle}")
        return new

    def on_publishing_deferred(self, why: str) -> None:
        self._print(f"publishing is deferred: {why.splitlines()[0]}")


def describe_result(planned: PlannedTrial, record: Record) -> str:
    """Describe the result of a trial in one line.

    Args:
        planned: the trial.
        record: its record.
    """
    if record.failure is not None:
        return f"FAILED {planned.description}: {record.failure.message.splitlines()[0]}"
    metrics = record.find_metrics(record.report_split, "last")
    miou = f"{100 * metrics.miou:.1f}" if metrics is not None and metrics.miou is not None else "–"
    seconds = record.cost.train_seconds if record.cost is not None else 0.0
    training = f"{format_duration(seconds)} of training{_describe_precision(planned, record)}"
    if record.plateau is not None:
        training += f", stopped on a plateau at epoch {record.plateau.epoch}/{planned.trial.recipe.epochs}"
    return f"done   {planned.description}: {record.report_split} mIoU {miou}, {training}"


def _describe_precision(planned: PlannedTrial, record: Record) -> str:
    """Return the precision that `precision: auto` has selected; empty for fp32 and for one that the recipe sets."""
    environment = record.environment
    if planned.trial.recipe.precision != "auto" or environment is None or environment.precision == "fp32":
        return ""
    return f" in {environment.precision}"


def _format_epoch(planned: PlannedTrial, epoch: EpochRecord) -> str:
    validated = f", val mIoU {100 * epoch.val_miou:.1f}" if epoch.val_miou is not None else ""
    speed = f"{epoch.images_per_s:.1f} images/s"
    return f"epoch {epoch.epoch}/{planned.trial.recipe.epochs}, loss {epoch.loss:.3f}{validated}, {speed}"
