from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from rich.console import Console

from fcnlab.cli.grid.cells import create_cells_table
from fcnlab.lab import Lab
from fcnlab.runner.lease import EXPIRY, WAITING, DriverHeartbeat, Leases
from fcnlab.runner.plan import Plan, make_plan
from fcnlab.runner.status import StatusReader
from tests.builders import build_plan, epoch_records, failed_record, finished_record
from tests.conftest import SMOKE, write_grid


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return build_plan(tmp_path)


def read_status(plan: Plan) -> StatusReader:
    lab = Lab.find(plan.grid.path)
    return StatusReader(make_plan(plan.grid, lab), lab)


def states(status: StatusReader) -> dict[str, int]:
    return {state: count for state, count in status.counts().items() if count}


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_new_grid_is_to_do(plan: Plan) -> None:
    status = read_status(plan)
    assert states(status) == {"to do": 4}
    assert status.time_left is None


def test_status_shows_running_trials_and_changes_no_file(plan: Plan) -> None:
    lab = Lab.find(plan.grid.path)
    running, paused, done, broken = plan.trials
    for planned in plan.trials:
        planned.folder.create()
    with DriverHeartbeat(lab.root / ".fcnlab" / "drivers") as heartbeat:
        assert Leases(heartbeat).claim(running.folder.path)
        running.folder.write_progress(epoch_records(1, seconds=30))
        paused.folder.write_progress(epoch_records(1, seconds=10))
        done.folder.finish(finished_record(done.trial))
        broken.folder.finish(failed_record(broken.trial))
        before = files(lab.root)
        status = read_status(plan)
        assert files(lab.root) == before
        assert states(status) == {"running": 1, "paused": 1, "finished": 1, "failed": 1}
        with (console := Console(width=80)).capture() as output:
            console.print(create_cells_table(status.plan, status.states, 80))
        assert output.get().split()[1:5] == ["finished", "failed", "running", "paused"]
        ((driver, (one,)),) = status.running.items()
        assert driver.startswith(f"{socket.gethostname()}_{os.getpid()}_")
        assert (one.planned.key, len(one.epochs)) == (running.key, 1)
        assert [one.planned.key for one in status.paused] == [paused.key]
        assert status.time_left is not None and 25 < status.time_left < 41


def test_time_left_of_a_new_reader_counts_one_trial_at_a_time_per_running_trial(plan: Plan) -> None:
    lab = Lab.find(plan.grid.path)
    for planned in plan.trials:
        planned.folder.create()
    with DriverHeartbeat(lab.root / ".fcnlab" / "drivers") as heartbeat:
        for planned in plan.trials[:2]:
            assert Leases(heartbeat).claim(planned.folder.path)
            planned.folder.write_progress(epoch_records(1, seconds=100))
            written = time.time() - 50  # the trials are in the middle of their second epoch
            os.utime(planned.folder.progress, (written, written))
            os.utime(next(planned.folder.path.glob("lease.*")), (written - 100, written - 100))
        status = read_status(plan)
    # Two trials have half an epoch left, two have two epochs: 500 s of training by two workers.
    assert status.time_left == pytest.approx(250, abs=20)


def test_refresh_finds_newly_ended_trials(plan: Plan) -> None:
    status = read_status(plan)
    first = plan.trials[0]
    first.folder.create()
    first.folder.finish(finished_record(first.trial))
    assert states(status) == {"to do": 4}
    status.refresh()
    assert states(status) == {"finished": 1, "to do": 3}
    assert [planned.key for planned in status.plan.remaining] == [planned.key for planned in plan.trials[1:]]


@pytest.mark.parametrize(
    ("process", "age", "state"),
    [
        ("elsewhere_1", 10.0, "running"),
        ("elsewhere_1", EXPIRY + 10, "paused"),
        ("none", 1.0, "paused"),
        ("this", 10.0, "running"),
        ("this", EXPIRY + 10, "paused"),  # the process id is in use again
    ],
)
def test_driver_is_alive_by_heartbeat_and_process(plan: Plan, process: str, age: float, state: str) -> None:
    lab = Lab.find(plan.grid.path)
    own = {"this": f"{socket.gethostname()}_{os.getpid()}", "none": f"{socket.gethostname()}_{2**22 + 1}"}
    driver = f"{own.get(process, process)}_12345678"
    beat = lab.root / ".fcnlab" / "drivers" / driver
    beat.parent.mkdir(parents=True)
    beat.write_text("7")
    os.utime(beat, (time.time() - age, time.time() - age))
    first = plan.trials[0]
    first.folder.create()
    (first.folder.path / "lease.3").write_text(driver)
    first.folder.write_progress(epoch_records(1))
    assert states(read_status(plan)) == {state: 1, "to do": 3}
    beat.unlink()
    assert states(read_status(plan)) == {"paused": 1, "to do": 3}


def test_a_driver_whose_heartbeat_changes_is_alive_also_if_the_clock_of_its_host_is_wrong(plan: Plan) -> None:
    driver = "elsewhere_1_12345678"
    beat = Lab.find(plan.grid.path).root / ".fcnlab" / "drivers" / driver
    beat.parent.mkdir(parents=True)
    first = plan.trials[0]
    first.folder.create()
    (first.folder.path / "lease.1").write_text(driver)
    first.folder.write_progress(epoch_records(1))

    def write_beat(number: int) -> None:
        beat.write_text(str(number))
        os.utime(beat, (time.time() - 3600, time.time() - 3600))

    write_beat(7)
    status = read_status(plan)
    assert states(status) == {"paused": 1, "to do": 3}
    status.refresh()
    assert states(status) == {"paused": 1, "to do": 3}
    write_beat(8)
    for _ in range(2):
        status.refresh()
        assert states(status) == {"running": 1, "to do": 3}


def test_a_trial_runs_since_its_last_start_and_not_since_that_of_a_killed_driver(plan: Plan) -> None:
    folder = plan.trials[0].folder
    folder.create()
    killed = folder.path / "lease.9"
    killed.write_text(f"{socket.gethostname()}_{2**22 + 1}_12345678")
    folder.write_progress(epoch_records(1))
    for file in (killed, folder.progress):
        os.utime(file, (time.time() - 3000, time.time() - 3000))
    with DriverHeartbeat(Lab.find(plan.grid.path).root / ".fcnlab" / "drivers") as heartbeat:
        assert Leases(heartbeat).claim(folder.path)
        ((trial,),) = read_status(plan).running.values()
    assert trial.seconds < 1000
    assert trial.idle is not None and trial.idle < 1000


def test_note_of_a_killed_driver_that_its_trial_waits_does_not_count(plan: Plan) -> None:
    folder = plan.trials[0].folder
    folder.create()
    with DriverHeartbeat(Lab.find(plan.grid.path).root / ".fcnlab" / "drivers") as heartbeat:
        leases = Leases(heartbeat)
        assert leases.claim(folder.path)
        (folder.path / WAITING).write_text("elsewhere_1_12345678")
        assert states(read_status(plan)) == {"running": 1, "to do": 3}
        leases.note_waiting(folder.path, True)
        assert states(read_status(plan)) == {"waiting": 1, "to do": 3}
        leases.release(folder.path)
        assert not (folder.path / WAITING).exists()


def test_pruned_cells_are_shown_as_pruned(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE + "early_stopping: {after: 1, margin: 5}\n")
    lab = Lab.find(path)
    plan = make_plan(lab.load_grid(path), lab)
    status = StatusReader(plan, lab)
    for planned in plan.trials:
        planned.folder.create()
        planned.folder.write_progress(epoch_records(1, miou=0.5 if planned.cell.label == "fcn32s" else 0.1))
    status.refresh()
    assert states(status) == {"paused": 2, "pruned": 2}
    assert {planned.pruned_after for planned in status.plan.trials if planned.cell.label == "fcn8s"} == {1}
    assert len(status.plan.remaining) == 2
