"""`--json`: one document on standard output, with the keys that the documentation lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.conftest import REPOSITORY
from tests.report.finished_grid import finished_lab

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
