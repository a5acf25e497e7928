"""`fcnlab report` does not replace a report of finished trials where no trial has finished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer

import fcnlab as api
from fcnlab.cli.grid.running import conclude
from fcnlab.errors import RunError
from fcnlab.runner.run import Outcome
from tests.cli.conftest import Call
from tests.report.finished_grid import THREE, finished_lab


def test_a_report_of_finished_trials_is_not_replaced_by_an_empty_one(
    fcnlab: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid, lab = finished_lab(tmp_path, THREE)
    assert fcnlab("report", grid.path)[0] == 0
    folder = lab.results / grid.name
    written = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    shutil.rmtree(lab.runs)
    code, out, err = fcnlab("report", grid.path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        f"{folder}: has the report of 9 finished trials, and no trial of the grid in its present state has finished"
        in err
    )
    with pytest.raises(RunError, match="the report is not replaced"):
        api.report(grid)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == written
    failed = Outcome(finished=0, reused=0, failed=9)
    with pytest.raises(typer.Exit):
        conclude(failed, grid, lab)
    assert "the report is not replaced" in capsys.readouterr().out
    with pytest.raises(typer.Exit):
        conclude(failed, grid, lab, as_json=True)
    assert json.loads(capsys.readouterr().out)["report"] is None
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == written
    shutil.rmtree(folder)
    assert fcnlab("report", grid.path)[0] == 0
