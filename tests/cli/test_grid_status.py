"""`fcnlab grid status`: running, paused and failed trials, as text and as JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from fcnlab.runner.lease import DriverHeartbeat, Leases
from fcnlab.runner.plan import Plan, make_plan
from tests.builders import epoch_records, failed_record, finished_record
from tests.cli.conftest import Call
from tests.conftest import SMOKE, write_grid
from tests.patience import patience


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of four trials one has finished, one has failed, one has paused, and one is to do."""
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    made = make_plan(lab.load_grid(path), lab)
    for planned in made.trials:
        planned.folder.create()
    done, broken, paused, _ = made.trials
    done.folder.finish(finished_record(done.trial, seconds=20))
    broken.folder.finish(failed_record(broken.trial, "the disk [/x] is full\nand more"))
    paused.folder.write_progress(epoch_records(1, seconds=20))
    return made


def test_states_and_errors_are_printed(fcnlab: Call, plan: Plan) -> None:
    result = fcnlab("grid", "status", plan.grid.path)
    assert (result.code, result.err) == (0, "")
    text = " ".join(result.out.split())
    assert "4 trials: 1 finished, 1 paused, 1 failed, 1 to do" in text
    assert f"{plan.trials[0].key[:12]} {plan.trials[2].key[:12]}" in text, "the keys of a cell, by seed"
    assert "failed: fcn8s, seed 0: the disk [/x] is full log: " in text and "and more" not in text
    assert f"{plan.trials[1].key}/log.txt" in "".join(result.out.split())
    assert "paused: fcn32s, seed 1, after epoch 1 of 2" in text


def test_running_trials_are_listed_by_driver(fcnlab: Call, plan: Plan) -> None:
    with DriverHeartbeat(Lab.find(plan.grid.path).root / ".fcnlab" / "drivers") as heartbeat:
        leases = Leases(heartbeat)
        for planned in plan.trials[2:]:
            assert leases.claim(planned.folder.path)
        beat = plan.trials[2].folder.heartbeat
        beat.write_text("training epoch 2")
        result = fcnlab("grid", "status", plan.grid.path)
        assert f"on {socket.gethostname()}, driver {os.getpid()}:" in result.out
        rows = [line.split() for line in result.out.splitlines() if "/2 " in line]
        assert re.search(r"images/s +for +left +idle", result.out)
        assert all(re.fullmatch(r"\d+:\d\d", row[-1]) for row in rows)
        assert [row[:5] for row in rows] == [
            ["fcn32s", "1", "1/2", "1.000", "50.0"],
            ["fcn8s", "1", "0/2", rows[1][3], rows[1][4]],
        ]
        assert "2 running, 1 failed, about " in result.out
        machine = json.loads(fcnlab("grid", "status", plan.grid.path, "--json").out)
    empty = dict.fromkeys(("waiting", "paused", "pruned", "to do", "damaged"), 0)
    assert machine["counts"] == {"finished": 1, "failed": 1, "running": 2, **empty}
    one = machine["running"][0]
    assert one | {"key": plan.trials[2].key, "epoch": 1, "epochs": 2, "val_miou": 0.5, "loss": 1.0} == one
    assert 0 <= one["idle_seconds"] <= one["seconds"]
    assert (one["host"], one["driver"]) == (socket.gethostname(), heartbeat.driver)
    assert machine["failed"] == [
        {
            "key": plan.trials[1].key, "cell": "fcn8s", "seed": 0, "cause": "exception",
            "message": "the disk [/x] is full\nand more", "log": str(plan.trials[1].folder.log),
        }
    ]  # fmt: skip
    assert 20 <= machine["seconds_left"] <= 60


def test_trial_that_waits_for_its_device_is_not_shown_as_running(fcnlab: Call, plan: Plan) -> None:
    with DriverHeartbeat(Lab.find(plan.grid.path).root / ".fcnlab" / "drivers") as heartbeat:
        leases, folder = Leases(heartbeat), plan.trials[2].folder.path
        assert leases.claim(folder)
        leases.note_waiting(folder, True)
        result = fcnlab("grid", "status", plan.grid.path)
        assert "4 trials: 1 finished, 1 waiting, 1 failed, 1 to do" in result.out and "/2 " not in result.out
        assert "waiting: fcn32s, seed 1, until its device is idle\n" in result.out
        machine = json.loads(fcnlab("grid", "status", plan.grid.path, "--json").out)
        assert (machine["running"], [one["key"] for one in machine["waiting"]]) == ([], [plan.trials[2].key])
        leases.note_waiting(folder, False)
        assert "1 running" in fcnlab("grid", "status", plan.grid.path).out


def test_watch_ends_with_the_last_trial_or_ctrl_c(tmp_path: Path, plan: Plan) -> None:
    command = [sys.executable, "-m", "fcnlab", "grid", "status", str(plan.grid.path), "--watch"]
    # A shell that starts tests in the background has them ignore Ctrl-C, and their children with them.
    heeds = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "4 trials: 1 finished, 1 paused, 1 failed, 1 to do\n"
        plan.trials[2].folder.finish(finished_record(plan.trials[2].trial))
        lines = iter(process.stdout.readline, "")
        assert next(line for line in lines if " finished" in line) == "4 trials: 2 finished, 1 failed, 1 to do\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=patience()) == 0
        assert process.stderr.read() == ""
    plan.trials[3].folder.finish(finished_record(plan.trials[3].trial))
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience())
    assert done.returncode == 0
    first, *notes = done.stdout.splitlines()
    assert first == "4 trials: 3 finished, 1 failed" and notes[0].startswith("failed: ")


def test_watch_does_not_report_damage_that_a_driver_has_repaired(
    fcnlab: Call, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan.trials[2].folder.create()
    plan.trials[2].folder.record.write_text("{")

    def run_trials(_: float) -> None:
        plan.trials[2].folder.repair()
        for planned in plan.trials[2:]:
            planned.folder.finish(finished_record(planned.trial))

    monkeypatch.setattr("time.sleep", run_trials)
    result = fcnlab("grid", "status", plan.grid.path, "--watch")
    assert (result.code, result.err) == (0, "")


def test_watch_and_json_cannot_be_combined(fcnlab: Call, plan: Plan) -> None:
    result = fcnlab("grid", "status", plan.grid.path, "--watch", "--json")
    assert result.code == 2 and "choose one" in result.err


def test_long_list_of_failures_is_truncated(fcnlab: Call, tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 30"))
    lab = Lab.find(path)
    for planned in make_plan(lab.load_grid(path), lab).trials:
        planned.folder.create()
        planned.folder.finish(failed_record(planned.trial))
    result = fcnlab("grid", "status", path)
    assert result.out.count("failed: ") == 10 and "and 50 more: --json lists them" in result.out
    assert len(json.loads(fcnlab("grid", "status", path, "--json").out)["failed"]) == 60
