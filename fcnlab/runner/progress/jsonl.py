"""What happens while a grid runs as lines of JSON, for machines.

Each line is an object with `event`, `time` (UTC, ISO 8601), and what the event has:

    plan        grid, trials, ended, left
    decoding    split, images
    start       key, cell, seed, epoch (from which it goes on), epochs
    epoch       key, cell, seed, epochs, seconds_left (of the grid), and the line of progress.jsonl
    end         key, cell, seed, status, split, miou, train_seconds, failure; done, trials
    again       key, cell, seed, cause, message: an attempt without a figure
    pausing     trials: what runs goes to the end of its epoch
    pause       key, cell, seed, epoch
    stop        key, cell, seed, epoch: hopeless, as the grid's stop says
    elsewhere   trials: so many are run by other drivers
    waiting     why: nothing can be run here now
    postponed   why: the book is out of reach
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter, Waiting
from fcnlab.trial.record import Attempt, EpochRecord, Record


class JsonlReporter(ProgressReporter):
    """A line of JSON for each event."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        super().__init__()
        self._write = write

    def _say(self, event: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(json.dumps({"event": event, "time": now, **fields}))

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._say("plan", grid=plan.grid.name, trials=self.total, ended=self.done, left=len(plan.remaining))

    def decoding(self, split: str, samples: int) -> Callable[[], None]:
        self._say("decoding", split=split, images=samples)
        return super().decoding(split, samples)

    def started(self, planned: PlannedTrial) -> None:
        super().started(planned)
        epoch = self.running[planned.key].before
        self._say("start", **_which(planned), epoch=epoch, epochs=planned.trial.recipe.epochs)

    def progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        known = len(self.running[planned.key].epochs)
        new = super().progress(planned, epochs)
        for epoch in epochs[known:]:
            fields = {"epochs": planned.trial.recipe.epochs, "seconds_left": self.time_left}
            self._say("epoch", **_which(planned), **fields, **epoch.model_dump(mode="json"))
        return new

    def ended(self, planned: PlannedTrial, record: Record) -> None:
        super().ended(planned, record)
        score = record.find_metrics(record.report_split, "last")
        self._say(
            "end",
            **_which(planned),
            status=record.status,
            split=record.report_split if score is not None else None,
            miou=score.miou if score is not None else None,
            train_seconds=record.cost.train_seconds if record.cost is not None else None,
            failure=record.failure.message if record.failure is not None else None,
            done=self.done,
            trials=self.total,
        )

    def again(self, planned: PlannedTrial, attempt: Attempt) -> None:
        super().again(planned, attempt)
        self._say("again", **_which(planned), cause=attempt.cause, message=attempt.message)

    def pausing(self, trials: int) -> None:
        self._say("pausing", trials=trials)

    def paused(self, planned: PlannedTrial) -> None:
        super().paused(planned)
        self._say("pause", **_which(planned), epoch=len(planned.folder.read_progress()))

    def stopped(self, planned: PlannedTrial, epoch: int) -> None:
        super().stopped(planned, epoch)
        self._say("stop", **_which(planned), epoch=epoch)

    def elsewhere(self, trials: int) -> None:
        before, _ = self.run_elsewhere, super().elsewhere(trials)
        if trials != before:
            self._say("elsewhere", trials=trials)

    def waiting(self, waiting: Waiting) -> bool:
        new = super().waiting(waiting)
        if new:
            self._say("waiting", why=self.idle)
        return new

    def postponed(self, why: str) -> None:
        self._say("postponed", why=why)


def _which(planned: PlannedTrial) -> dict[str, Any]:
    return {"key": planned.key, "cell": planned.cell.label, "seed": planned.trial.seed}
