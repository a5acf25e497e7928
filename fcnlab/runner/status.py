"""The status of a grid that other drivers run, possibly on other machines that share the lab.

The status is read only: nothing is locked, leased or removed. A driver is alive if its last heartbeat is recent, and on
this host if its process exists too. The age of a heartbeat compares the clocks of two hosts, unless two refreshes have
seen it change, and a process id may be in use again. This is precise enough for display; leases never rely on it.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from fcnlab.atomic_file import read_shared
from fcnlab.lab import Lab
from fcnlab.paths import exists
from fcnlab.runner.lease import EXPIRY, WAITING, is_running, is_waiting, read_latest_lease, split_driver
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.eta import EtaEstimator, Running
from fcnlab.runner.pruning import Pruner
from fcnlab.trial.record import Record

RunState = Literal["finished", "running", "waiting", "paused", "pruned", "failed", "damaged", "to do"]


class StatusReader:
    """The status of a grid at the last refresh, which reads only the trials that had not ended before.

    Attributes:
        plan: the plan with the current status of its trials.
        running: the running trials by the id of their driver.
        waiting: the trials that wait until no other trial uses their device, such as after lack of memory.
        paused: the trials that have been started and that no driver runs.
    """

    def __init__(self, plan: Plan, lab: Lab) -> None:
        """Read the status of a plan.

        Args:
            plan: the plan of the grid.
            lab: the lab that contains the run folders and the heartbeats of drivers.
        """
        self.plan = plan
        self.running: dict[str, list[Running]] = {}
        self.waiting: list[Running] = []
        self.paused: list[Running] = []
        self._drivers = lab.state / "drivers"
        self._beats: dict[str, tuple[bytes, float | None]] = {}  # the last heartbeat, and when a refresh saw it change
        self._eta = EtaEstimator(plan)
        self._pruner = Pruner(plan)
        self.refresh()

    def refresh(self) -> None:
        """Read the current status of the trials that had not ended."""
        self.running, self.waiting, self.paused = {}, [], []
        alive: dict[str, bool] = {}
        ended: dict[str, Record] = {}
        for planned in self.plan.remaining:
            names = _list_names(planned.folder.path)
            record = planned.folder.read() if planned.folder.record.name in names else None
            if record is not None:
                ended[planned.key] = record
                continue
            driver = (
                read_latest_lease(planned.folder.path)[0] if any(name.startswith("lease.") for name in names) else None
            )
            if driver is not None and alive.setdefault(driver, self._is_alive(driver)):
                waits = WAITING in names and is_waiting(planned.folder.path, driver)
                (self.waiting if waits else self.running.setdefault(driver, [])).append(self._read_running(planned))
            elif planned.folder.progress.name in names and planned.status != "damaged":
                self.paused.append(self._read_running(planned))
        self._update_plan(ended)

    @property
    def states(self) -> dict[str, RunState]:
        """The state of each trial by its key."""
        states: dict[str, RunState] = {
            planned.key: "to do" if planned.state == "started" else planned.state for planned in self.plan.all_trials
        }
        states.update((trial.planned.key, "running") for trial in self._list_running())
        states.update((trial.planned.key, "waiting") for trial in self.waiting)
        states.update((trial.planned.key, "paused") for trial in self.paused)
        return states

    def counts(self) -> dict[RunState, int]:
        """Return the number of trials in each state."""
        counts = Counter(self.states.values())
        return {state: counts[state] for state in get_args(RunState)}

    @property
    def time_left(self) -> float | None:
        """Estimated seconds until the running trials complete the grid; None without an estimate."""
        running = self._list_running()
        return self._eta.time_left(running) if running else None

    def _list_running(self) -> list[Running]:
        return list(chain.from_iterable(self.running.values()))

    def time_left_of(self, trial: Running) -> float | None:
        """Return the estimated seconds until a running trial ends; None without an estimate.

        Args:
            trial: the running trial.
        """
        return trial.time_left(self._eta.epoch_seconds(trial.planned))

    def _is_alive(self, driver: str) -> bool:
        """Return whether a driver is alive: its heartbeat is recent, and on this host its process exists."""
        parts = split_driver(driver)
        if parts is None:
            return False
        beat = self._drivers / driver
        try:
            content = read_shared(beat)
        except FileNotFoundError:  # it has just ended
            return False
        known, changed = self._beats.get(driver, (content, None))
        changed = changed if content == known else time.monotonic()
        self._beats[driver] = content, changed
        age = _age(beat) if changed is None else time.monotonic() - changed
        host, process = parts
        return age < EXPIRY and (host != socket.gethostname() or is_running(process))

    def _read_running(self, planned: PlannedTrial) -> Running:
        """Read the progress of a started trial, and the times of its lease, its last epoch and its heartbeat."""
        epochs = planned.folder.read_progress()
        self._eta.update(planned, epochs)
        _, number = read_latest_lease(planned.folder.path)  # earlier ones are of drivers that were killed
        since = _age(planned.folder.path / f"lease.{number}")
        seen = min(since, _age(planned.folder.progress)) if epochs else since
        beat = planned.folder.heartbeat
        idle = min(seen, _age(beat)) if exists(beat) else seen
        now = time.monotonic()
        return Running(planned, epochs, before=len(epochs), since=now - since, seen=now - seen, idle=idle)

    def _update_plan(self, ended: dict[str, Record]) -> None:
        """Set the status of trials that have ended, or that early stopping prunes, since the last refresh."""
        started = {trial.planned.key for trial in (*self.waiting, *self.paused, *self._list_running())}
        moved = [planned for planned in self.plan.remaining if planned.key in ended or planned.key in started]
        pruned = {planned.key: epoch for planned, epoch in self._pruner.update(moved)}
        for planned in self.plan.remaining:
            if planned.key in ended:
                self._eta.update(planned, ended[planned.key].epochs)
            if planned.key in ended or planned.key in pruned:
                self._eta.close(planned)
        self.paused = [trial for trial in self.paused if trial.planned.key not in pruned]

        def update(planned: PlannedTrial) -> PlannedTrial:
            record = ended.get(planned.key)
            status = record.status if record is not None else planned.status
            return replace(planned, status=status, pruned_after=pruned.get(planned.key, planned.pruned_after))

        self.plan = replace(
            self.plan,
            trials=tuple(map(update, self.plan.trials)),
            prerequisites=tuple(map(update, self.plan.prerequisites)),
        )


def _list_names(folder: Path) -> set[str]:
    """Return the names of the files in a run folder; none if it does not exist."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return {path.name for path in folder.iterdir()}
    return set()


def _age(file: Path) -> float:
    """Return the seconds since a file was written; 0 if it has just been removed."""
    try:
        return max(0.0, time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return 0.0
