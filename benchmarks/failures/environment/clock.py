"""A wall clock that jumps, in a run and between two runs."""

from __future__ import annotations

import datetime
import json
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.failures.environment.commands import FILE, Workbench, find_problems

DAY = 86_400.0


def jump(after: float, seconds: float) -> None:
    """Let the wall clock of this process jump.

    Args:
        after: seconds from now until the jump.
        seconds: seconds by which it jumps; negative for a clock that is set back.
    """
    real, start = time.time, time.monotonic()

    def shifted() -> float:
        return real() + (seconds if time.monotonic() - start >= after else 0.0)

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.fromtimestamp(shifted(), tz)

    patch("time.time", shifted).start()
    for module in ("fcnlab.trial.record", "fcnlab.runner.progress.jsonl", "fcnlab.data.cache.maintenance"):
        patch(f"{module}.datetime", Shifted).start()


def jump_in_a_run(bench: Workbench, after: float, seconds: float) -> list[str]:
    """Run a grid while the wall clock jumps.

    Args:
        bench: the workbench.
        after: seconds from the start of the command until the jump.
        seconds: seconds by which the clock jumps.
    """
    lab = bench.copy(store=True)
    ended = bench.run(lab, prepare=partial(jump, after, seconds))
    return find_problems(ended, 0) + bench.find_changes(lab) + find_negative_times(lab)


def jump_between_runs(bench: Workbench, seconds: float) -> list[str]:
    """Interrupt a grid and continue it after the wall clock has jumped, also with `grid status` and `data cache list`.

    Args:
        bench: the workbench.
        seconds: seconds by which the clock jumps.
    """
    lab = bench.copy(store=True)
    whole = (lab / FILE).read_text()
    (lab / FILE).write_text(whole.replace("[fcn32s, fcn8s]", "[fcn32s]"))
    bad = find_problems(bench.run(lab, prepare=partial(jump, 0.0, seconds)), 0)
    (lab / FILE).write_text(whole)
    for command in (("grid", "status", FILE), ("data", "cache", "list")):
        bad += find_problems(bench.call(lab, *command), 0)
    return bad + bench.rerun(lab) + find_negative_times(lab)


def find_negative_times(lab: Path) -> list[str]:
    """Return the durations in records and in MLflow's store that are negative.

    Args:
        lab: the lab.
    """
    bad = []
    for file in (lab / "runs").glob("*/record.json"):
        record = json.loads(file.read_bytes())
        times = [record["cost"][name] for name in ("train_seconds", "evaluate_seconds")]
        times += [epoch["seconds"] for epoch in record["epochs"]]
        bad += [f"{file.parent.name[:6]}: a duration is {value}" for value in times if value < 0]
    with closing(sqlite3.connect(lab / "mlflow.db")) as store:
        query = "SELECT name, start_time, end_time FROM runs WHERE end_time < start_time"
        bad += [f"MLflow: {name} ended before it started" for name, _, _ in store.execute(query)]
    return bad
