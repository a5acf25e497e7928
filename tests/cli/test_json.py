"""`--json`: one document on standard output, with the keys that the documentation lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.conftest import REPOSITORY
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
