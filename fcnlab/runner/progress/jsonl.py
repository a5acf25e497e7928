"""Progress of a grid as JSON Lines.

Each line is an object with `event`, `time` (UTC, ISO 8601) and the fields of the event:

    checking    torch is imported to check extensions, and networks that were not checked on this machine; before `plan`
    plan        grid, trials, ended, remaining
    remark      text: on the grid, such as the names of a weights file
    decoding    split, images
    start       key, cell, seed, epoch (the number of finished epochs), epochs, repeated (the number of later epochs,
                which are trained again); of a trial that resumes, once it has read its checkpoint
    device_wait key, cell, seed: the trial starts when no other trial uses its device
    epoch       key, cell, seed, epochs, seconds_left (of the grid), and the fields of progress.jsonl
    end         key, cell, seed, status, split, miou, plateau, train_seconds, failure; done, trials
    retry       key, cell, seed, cause, message, remedy: an attempt that ended without a record, and how it is retried
    pausing     trials: the number of trials that finish their epoch; seconds_left: until then, null without an estimate
    pause       key, cell, seed, epoch
    prune       key, cell, seed, epoch: pruned by early stopping
    elsewhere   trials: the number of trials that other drivers run
    waiting     why: the reason why no trial runs in this driver
    deferred    why: a tracker raised an error; publishing to it is deferred
    done        finished, failed, reused, pruned, deferred (reasons by tracker), interrupted, report (folder of the
                written report, null if an earlier one was kept); the last event of a run that was not interrupted
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter, Waiting
from fcnlab.trial.record import Attempt, EpochRecord, Record


class JsonlReporter(ProgressReporter):
    """Reporter that writes one JSON object per event."""

    def __init__(self, write: Callable[[dict[str, Any]], object]) -> None:
        """Create a reporter.

        Args:
            write: function that writes an object.
        """
        super().__init__()
        self._write = write

    def _write_event(self, event: str, **fields: Any) -> None:
        self._write(create_event(event, **fields))

    def on_plan(self, plan: Plan) -> None:
        super().on_plan(plan)
        self._write_event(
            "plan", grid=plan.grid.name, trials=self.total, ended=self.done, remaining=len(plan.remaining)
        )

    def on_remark(self, text: str) -> None:
        self._write_event("remark", text=text)

    def on_check_start(self) -> None:
        self._write_event("checking")

    def on_decode_start(self, split: str, samples: int) -> Callable[[], None]:
        self._write_event("decoding", split=split, images=samples)
        return super().on_decode_start(split, samples)

    def on_trial_start(self, planned: PlannedTrial) -> None:
        super().on_trial_start(planned)
        if not self.running[planned.key].before:
            self._write_start(planned)

    def on_trial_resume(self, planned: PlannedTrial, repeated: int) -> None:
        self._write_start(planned, repeated)

    def _write_start(self, planned: PlannedTrial, repeated: int = 0) -> None:
        fields = {"epoch": self.running[planned.key].before, "epochs": planned.trial.recipe.epochs}
        self._write_event("start", **_identify(planned), **fields, repeated=repeated)

    def on_device_wait(self, planned: PlannedTrial) -> None:
        self._write_event("device_wait", **_identify(planned))

    def on_progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        known = len(self.running[planned.key].epochs)
        new = super().on_progress(planned, epochs)
        for epoch in epochs[known:] if new else ():
            fields = {"epochs": planned.trial.recipe.epochs, "seconds_left": self.time_left}
            self._write_event("epoch", **_identify(planned), **fields, **epoch.model_dump(mode="json"))
        return new

    def on_trial_end(self, planned: PlannedTrial, record: Record) -> None:
        super().on_trial_end(planned, record)
        metrics = record.find_metrics(record.report_split, "last")
        self._write_event(
            "end",
            **_identify(planned),
            status=record.status,
            split=record.report_split if metrics is not None else None,
            miou=metrics.miou if metrics is not None else None,
            plateau=record.plateau.model_dump() if record.plateau is not None else None,
            train_seconds=record.cost.train_seconds if record.cost is not None else None,
            failure=record.failure.message if record.failure is not None else None,
            done=self.done,
            trials=self.total,
        )

    def on_trial_retry(self, planned: PlannedTrial, attempt: Attempt, remedy: str) -> None:
        super().on_trial_retry(planned, attempt, remedy)
        self._write_event("retry", **_identify(planned), cause=attempt.cause, message=attempt.message, remedy=remedy)

    def on_pause(self) -> None:
        super().on_pause()
        self._write_event("pausing", trials=len(self.running), seconds_left=self.pause_time_left)

    def on_trial_pause(self, planned: PlannedTrial) -> None:
        super().on_trial_pause(planned)
        self._write_event("pause", **_identify(planned), epoch=len(planned.folder.read_progress()))

    def on_trial_prune(self, planned: PlannedTrial, epoch: int) -> None:
        super().on_trial_prune(planned, epoch)
        self._write_event("prune", **_identify(planned), epoch=epoch)

    def on_trials_elsewhere(self, trials: int) -> None:
        before, _ = self.run_elsewhere, super().on_trials_elsewhere(trials)
        if trials != before:
            self._write_event("elsewhere", trials=trials)

    def on_wait(self, waiting: Waiting) -> bool:
        new = super().on_wait(waiting)
        if new:
            self._write_event("waiting", why=self.idle)
        return new

    def on_publishing_deferred(self, why: str) -> None:
        self._write_event("deferred", why=why)


def create_event(event: str, **fields: Any) -> dict[str, Any]:
    """Return the object of an event that happens now.

    Args:
        event: name of the event.
        fields: its fields.
    """
    return {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}


def _identify(planned: PlannedTrial) -> dict[str, Any]:
    return {"key": planned.key, "cell": planned.cell.label, "seed": planned.trial.seed}
