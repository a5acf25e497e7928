"""Options and errors that commands which run or use trials share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch

from fcnlab.cli.options import parse_hang_timeout
from fcnlab.report.write import create_report
from fcnlab.runner.run import run_grid
from tests.cli.conftest import Call
from tests.cli.test_cli import refused
from tests.conftest import SMOKE, write_grid
from tests.report.finished_grid import finished_lab


def test_a_hang_timeout_is_a_positive_number_or_off(fcnlab: Call, tmp_path: Path) -> None:
    assert [parse_hang_timeout(text) for text in ("600", "0.5", "off")] == [600.0, 0.5, None]
    file = write_grid(tmp_path, SMOKE)
    for text in ("soon", "0", "-1", "nan", "inf"):
        refused(
            fcnlab("grid", "run", file, "--hang-timeout", text), f"--hang-timeout {text}: expected a positive number"
        )
    assert not (tmp_path / "runs").exists()


def test_lack_of_memory_in_a_command_is_one_line(fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    monkeypatch.setattr(f"{run_grid.__module__}.run_grid", fail)
    result = fcnlab("grid", "run", write_grid(tmp_path, SMOKE))
    assert result.code == 2
    assert result.err == "fcnlab: error: out of memory: CUDA out of memory. Tried to allocate 9 GiB\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_report_names_the_command_that_writes_it(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    finished_lab(tmp_path)
    module = sys.modules[create_report.__module__]  # the attribute `fcnlab.report` is a function
    monkeypatch.setattr(module, "create_report", lambda *_, **__: signal.raise_signal(number))
    result = fcnlab("grid", "run", "experiments/question.yaml")
    assert result.code == 130
    assert "all trials have ended. Write the report with: fcnlab report experiments/question.yaml" in result.err
