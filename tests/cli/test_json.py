"""`--json`: one document on standard output, with the keys that the documentation lists."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.trial.run import run_trial
from tests.cli.conftest import Call
from tests.conftest import REPOSITORY, SMOKE, write_grid
from tests.report.finished_grid import THREE, finished_lab

COMMANDS = {
    "grid plan": "FILE --no-probe",
    "grid status": "FILE",
    "compare": "FILE:fcn32s FILE:best",
    "diff": "FILE:fcn32s FILE:fcn8s",
    "data list": "",
    "data check": "shapes-mini",
    "data stats": "shapes-mini",
    "data cache list": "",
    "registry list": "heads",
    "registry show": "head fcn8s",
    "model show": "fcn8s-tiny --size 64x64",
    "model compare": "fcn8s-tiny --size 64x64",
    "weights list": "",
}
"""Arguments of each command; `evaluate`, `report` and `doctor` are slower and have tests of their own."""

TABLE = re.compile(r"^\| `(.+?)` \| (.+) \|$", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    page = (REPOSITORY / "docs/commands.md").read_text(encoding="utf-8")
    return {command: set(re.findall(r"`(\w+)`", keys)) for command, keys in TABLE.findall(page)}


def test_every_command_is_documented() -> None:
    assert documented().keys() == {*COMMANDS, "evaluate", "report", "doctor"}


def test_each_command_prints_one_document_with_the_documented_keys(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, lab = finished_lab(tmp_path)
    monkeypatch.setenv("FCNLAB_LAB", str(lab.root))
    for command, arguments in COMMANDS.items():
        result = fcnlab(*command.split(), *arguments.replace("FILE", str(grid.path)).split(), "--json")
        assert result.code == 0, (command, result.err)
        assert json.loads(result.out).keys() == documented()[command], command


def test_each_command_prints_valid_json_without_secrets(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "70000000")  # also the digits of a number that reports contain
    text = THREE.replace("Does it run?", r"""'Does password="hunter2" matter, or ?token=hunter2" at 70000000?'""")
    grid, lab = finished_lab(tmp_path, text)
    shown = 'Does password="***" matter, or ?token=***" at ***?'
    monkeypatch.setenv("FCNLAB_LAB", str(lab.root))
    for command in ("grid plan", "grid status", "report"):
        result = fcnlab(*command.split(), grid.path, "--json")
        assert json.loads(result.out)["question"] == shown, command
        assert "hunter2" not in result.out + result.err
    monkeypatch.setenv("FCNLAB_TRACKER", "none")
    file = tmp_path / 'password="hunter2".yaml'
    file.write_text(grid.path.read_text())
    result = fcnlab("grid", "run", file, "--json")
    assert "hunter2" not in result.out
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["plan", "done"]
    assert all(datetime.fromisoformat(event["time"]).tzinfo is UTC for event in events)


def test_damaged_trials_are_reported_with_and_without_json(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCNLAB_TRACKER", "none")
    grid, lab = finished_lab(tmp_path)
    damaged = make_plan(grid, lab).trials[0]
    damaged.folder.record.write_text(damaged.folder.record.read_text()[:-100])
    line = f"damaged: {damaged.description}: {damaged.folder.record}: "
    for command in ("grid status FILE", "report FILE", "compare FILE:fcn32s FILE:fcn8s"):
        arguments = command.replace("FILE", "experiments/question.yaml").split()
        plain, as_json = fcnlab(*arguments), fcnlab(*arguments, "--json")
        assert (plain.code, as_json.code) == (1, 1), command
        assert line in plain.err and line in as_json.err, command
        assert json.loads(as_json.out)
    synced = fcnlab("grid", "sync", "experiments/question.yaml")
    assert synced.code == 1 and line in synced.err


def test_a_grid_is_evaluated_without_its_damaged_trial_which_is_reported(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE)
    lab = Lab.find(file)
    first, second, *_ = make_plan(lab.load_grid(file), lab).trials
    run_trial(first.trial, lab)
    second.folder.create()
    second.folder.record.write_text("{")
    for options in ([], ["--json"]):
        result = fcnlab("evaluate", file, *options)
        assert result.code == 1
        assert f"damaged: {second.description}: " in result.err
        assert "fcn32s" in result.out and "fcn8s" not in result.out
