"""What can be seen of a grid that others run, also from another machine that shares the lab: by reading alone.

Nothing is locked, leased or cleared away here. Whether a driver of another host lives is told by the age of its last
sign of life, so the clocks of hosts are compared, as the lease itself never does: this is a picture, not a decision.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

from fcnlab.lab import Lab
from fcnlab.runner.lease import EXPIRY, latest
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.eta import EtaEstimator, Running
from fcnlab.runner.pruning import Pruner
from fcnlab.trial.record import Record

State = Literal["finished", "running", "paused", "stopped", "failed", "to do"]


class StatusReader:
    """A grid as it stood at the last look; each look reads only what had not ended before.

    `running` are the trials that run, by their drivers; `paused` those that have begun and that nobody runs.
    """

    def __init__(self, plan: Plan, lab: Lab) -> None:
        self.plan = plan
        self.running: dict[str, list[Running]] = {}
        self.paused: list[Running] = []
        self._drivers = lab.state / "drivers"
        self._outlook = EtaEstimator(plan)
        self._pruner = Pruner(plan) if plan.grid.file.early_stopping is not None else None
        self.look()

    def look(self) -> None:
        """See how far it is now."""
        self.running, self.paused = {}, []
        alive: dict[str, bool] = {}
        ended: dict[str, Record] = {}
        for planned in self.plan.remaining:
            names = _names(planned.folder.path)
            record = planned.folder.read() if planned.folder.record.name in names else None
            if record is not None:
                ended[planned.key] = record
                continue
            driver = latest(planned.folder.path)[0] if any(name.startswith("lease.") for name in names) else None
            if driver is not None and alive.setdefault(driver, _lives(driver, self._drivers)):
                self.running.setdefault(driver, []).append(self._seen(planned))
            elif planned.folder.progress.name in names:
                self.paused.append(self._seen(planned))
        self._take_in(ended)

    def counts(self) -> dict[State, int]:
        """How many trials are in each state."""
        settled = Counter(planned.state for planned in self.plan.all_trials)
        running, paused = sum(map(len, self.running.values())), len(self.paused)
        return {
            "finished": settled["finished"],
            "running": running,
            "paused": paused,
            "stopped": settled["stopped"],
            "failed": settled["failed"],
            "to do": settled["started"] + settled["to do"] - running - paused,
        }

    @property
    def time_left(self) -> float | None:
        """Seconds until the grid is done if what runs goes on as it does; None before anything can be said."""
        running = list(chain.from_iterable(self.running.values()))
        return self._outlook.left(running) if running else None

    def time_left_of(self, one: Running) -> float | None:
        """Seconds until a trial is done; None before anything can be said."""
        return one.time_left(self._outlook.epoch(one.planned))

    def _seen(self, planned: PlannedTrial) -> Running:
        """A trial that has begun: since when its lease lasts, and when its last epoch was written."""
        epochs = planned.folder.read_progress()
        self._outlook.saw(planned, epochs)
        leases = planned.folder.path.glob("lease.*")
        since = max(map(_age, leases), default=0.0)
        seen = min(since, _age(planned.folder.progress)) if epochs else since
        now = time.monotonic()
        return Running(planned, epochs, before=len(epochs), since=now - since, seen=now - seen)

    def _take_in(self, ended: dict[str, Record]) -> None:
        """Put into the plan what has ended since the last look, and what the grid's rule has stopped by that."""
        begun = {one.planned.key for one in (*self.paused, *chain.from_iterable(self.running.values()))}
        moved = [planned for planned in self.plan.remaining if planned.key in ended or planned.key in begun]
        found = self._pruner.update(moved) if self._pruner is not None else []
        stopped = {planned.key: epoch for planned, epoch in found}
        for planned in self.plan.remaining:
            if planned.key in ended:
                self._outlook.saw(planned, ended[planned.key].epochs)
            if planned.key in ended or planned.key in stopped:
                self._outlook.close(planned)
        self.paused = [one for one in self.paused if one.planned.key not in stopped]

        def now(planned: PlannedTrial) -> PlannedTrial:
            record = ended.get(planned.key)
            status = record.status if record is not None else planned.status
            return replace(planned, status=status, stopped=stopped.get(planned.key, planned.stopped))

        self.plan = replace(
            self.plan, trials=tuple(map(now, self.plan.trials)), prerequisites=tuple(map(now, self.plan.prerequisites))
        )


def _names(folder: Path) -> set[str]:
    """What is in a run folder; nothing where it is not made yet."""
    with suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir()}
    return set()


def _age(file: Path) -> float:
    """Seconds since a file was written; 0 for one that is gone at this moment."""
    try:
        return max(0.0, time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _lives(driver: str, folder: Path) -> bool:
    """Whether a driver shows signs of life; one of this very host is asked of the kernel."""
    beat = folder / driver
    if not beat.exists():
        return False
    host, process, _ = driver.split(":")
    if host != socket.gethostname():
        return _age(beat) < EXPIRY
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True
