"""Functions with which tests call the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fcnlab import cli


class CommandResult(NamedTuple):
    """Exit code and output of a call of `fcnlab`."""

    code: int
    out: str
    err: str


Call = Callable[..., CommandResult]


@pytest.fixture
def columns() -> int:
    """Return the width of the terminal."""
    return 80


@pytest.fixture
def fcnlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, columns: int) -> Call:
    """Call `fcnlab` in this process, as the shell would, from an empty folder."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["fcnlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return CommandResult(code or 0, *capsys.readouterr())

    return call
