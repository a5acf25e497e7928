"""An MLflow store that another process locks."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from benchmarks.failures.environment.commands import FILE, Workbench, find_problems
from benchmarks.failures.environment.moved import find_lost_artifacts

POSTPONED = "publishing is deferred"


def lock_store(bench: Workbench, seconds: float, after: str | None, kind: str = "EXCLUSIVE") -> list[str]:
    """Run a grid while another process locks its MLflow store, and publish it afterwards.

    Args:
        bench: the workbench.
        seconds: duration of the lock; longer than the grid for `for ever`.
        after: file in a run folder after which it is locked; None for before the start.
        kind: kind of the lock of SQLite.
    """
    lab = bench.copy(store=True)
    ended_event = threading.Event()
    holder = threading.Thread(target=_hold, args=(lab, seconds, after, kind, ended_event))
    holder.start()
    if after is None:
        while not (lab / "locked").exists():
            time.sleep(0.01)
    ended = bench.run(lab, timeout=900)
    ended_event.set()
    holder.join()
    warnings = ended.output.count(POSTPONED)
    bad = find_problems(ended, 0, 1) + bench.find_changes(lab)
    if ended.code == 1 and (warnings != 1 or "fcnlab grid sync" not in ended.output):
        bad.append(f"{warnings} warnings: {ended.output[-1500:]}")
    bad += find_problems(bench.call(lab, "grid", "sync", FILE), 0) + find_lost_artifacts(lab) + bench.find_changes(lab)
    with closing(sqlite3.connect(lab / "mlflow.db")) as store:
        states = store.execute("SELECT name, status FROM runs WHERE status != 'FINISHED'").fetchall()
    return bad + [f"MLflow: {name} is {status}" for name, status in states]


def _hold(lab: Path, seconds: float, after: str | None, kind: str, ended: threading.Event) -> None:
    """Lock the store until a time has passed or the command has ended."""
    while after is not None and not list(lab.glob(f"runs/*/{after}")):
        if ended.wait(0.01):
            return
    with closing(sqlite3.connect(lab / "mlflow.db", timeout=60)) as store:
        store.execute(f"BEGIN {kind}")
        (lab / "locked").touch()
        ended.wait(seconds)
        store.rollback()
