"""What is seen of a grid that others run, and that seeing changes nothing."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from fcnlab.runner.lease import EXPIRY, Leases, Presence
from fcnlab.runner.plan import Plan, make_plan
from fcnlab.runner.status import StatusReader
from tests.conftest import SMOKE, write_grid
from tests.records import epochs, failed, finished

Seen = dict[str, int]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    return make_plan(lab.load_grid(path), lab)


def onlooker(plan: Plan) -> StatusReader:
    lab = Lab.find(plan.grid.path)
    return StatusReader(make_plan(plan.grid, lab), lab)


def states(seen: StatusReader) -> Seen:
    return {state: count for state, count in seen.counts().items() if count}


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_has_begun(plan: Plan) -> None:
    seen = onlooker(plan)
    assert states(seen) == {"to do": 4}
    assert seen.time_left is None


def test_a_living_driver_is_seen_with_what_it_runs_and_nothing_is_touched(plan: Plan) -> None:
    lab = Lab.find(plan.grid.path)
    running, paused, done, broken = plan.trials
    for planned in plan.trials:
        planned.folder.create()
    with Presence(lab.root / ".fcnlab" / "drivers") as presence:
        assert Leases(presence).claim(running.folder.path)
        running.folder.write_progress(epochs(1, seconds=30))
        paused.folder.write_progress(epochs(1, seconds=10))
        done.folder.finish(finished(done.trial))
        broken.folder.finish(failed(broken.trial))
        before = files(lab.root)
        seen = onlooker(plan)
        assert files(lab.root) == before
        assert states(seen) == {"running": 1, "paused": 1, "finished": 1, "failed": 1}
        ((driver, (one,)),) = seen.running.items()
        assert driver.startswith(f"{socket.gethostname()}:{os.getpid()}:")
        assert (one.planned.key, len(one.epochs)) == (running.key, 1)
        assert [one.planned.key for one in seen.paused] == [paused.key]
        assert seen.time_left is not None and 25 < seen.time_left < 41


def test_a_look_takes_in_what_has_ended_since_the_last(plan: Plan) -> None:
    seen = onlooker(plan)
    first = plan.trials[0]
    first.folder.create()
    first.folder.finish(finished(first.trial))
    assert states(seen) == {"to do": 4}
    seen.look()
    assert states(seen) == {"finished": 1, "to do": 3}
    assert [planned.key for planned in seen.plan.remaining] == [planned.key for planned in plan.trials[1:]]


@pytest.mark.parametrize(
    ("host", "process", "age", "state"),
    [
        ("elsewhere", 1, 10.0, "running"),
        ("elsewhere", 1, EXPIRY + 10, "paused"),
        (socket.gethostname(), 2**22 + 1, 1.0, "paused"),  # above the largest number of a process
    ],
)
def test_whether_a_driver_lives_is_told_by_its_signs_of_life(
    plan: Plan, host: str, process: int, age: float, state: str
) -> None:
    lab = Lab.find(plan.grid.path)
    driver = f"{host}:{process}:12345678"
    beat = lab.root / ".fcnlab" / "drivers" / driver
    beat.parent.mkdir(parents=True)
    beat.write_text("7")
    os.utime(beat, (time.time() - age, time.time() - age))
    first = plan.trials[0]
    first.folder.create()
    (first.folder.path / "lease.3").write_text(driver)
    first.folder.write_progress(epochs(1))
    assert states(onlooker(plan)) == {state: 1, "to do": 3}
    beat.unlink()
    assert states(onlooker(plan)) == {"paused": 1, "to do": 3}


def test_cells_that_the_grids_rule_stops_are_seen_as_stopped(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE + "early_stopping: {after: 1, margin: 5}\n")
    lab = Lab.find(path)
    plan = make_plan(lab.load_grid(path), lab)
    seen = StatusReader(plan, lab)
    for planned in plan.trials:
        planned.folder.create()
        planned.folder.write_progress(epochs(1, miou=0.5 if planned.cell.label == "fcn32s" else 0.1))
    seen.look()
    assert states(seen) == {"paused": 2, "stopped": 2}
    assert {planned.stopped for planned in seen.plan.trials if planned.cell.label == "fcn8s"} == {1}
    assert len(seen.plan.remaining) == 2
