"""Commands that read results, in a lab without its data and weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import fcnlab as api
from fcnlab.errors import RunError
from fcnlab.runner.plan import make_plan
from tests.cli.conftest import Call
from tests.conftest import write_grid
from tests.own_inputs import GRID, write_lab
from tests.report.finished_grid import RIGHT, finish


@pytest.fixture
def grid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the grid file of a lab whose trials have finished and whose data and weights have been removed."""
    lab = write_lab(tmp_path)
    file = write_grid(lab.root, GRID)
    for planned in make_plan(lab.load_grid(file), lab).trials:
        finish(planned, RIGHT[planned.cell.label])
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setenv("FCNLAB_TRACKER", "none")
    return file


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["grid", "status", "{}"], "4 trials: 4 finished"),
        (["grid", "status", "{}", "--watch"], "4 trials: 4 finished"),
        (["grid", "sync", "{}"], "4 finished (4 reused), 0 failed"),
        (["report", "{}"], "fcn8s"),
        (["compare", "{}:fcn32s", "{}:fcn8s"], "fcn8s scored"),
        (["diff", "{}:fcn32s:0", "{}:fcn8s:0"], "head.stride"),
    ],
)
def test_commands_that_read_results_report_missing_inputs_in_one_line(
    grid_file: Path, fcnlab: Call, arguments: list[str], expected: str
) -> None:
    result = fcnlab(*(word.format(grid_file) for word in arguments))
    assert result.code == 0 and expected in result.out, result.err
    assert "not found: " not in result.out
    (line,) = [line for line in result.err.splitlines() if "not found: " in line]
    assert line.startswith("not found: dataset street, weights file 'w.pth' (--data-root sets the folder); the trials")


def test_report_states_that_images_were_not_compared(grid_file: Path, fcnlab: Call) -> None:
    note = "Not checked: images of street in more than one split, because the files are missing here."
    assert fcnlab("report", grid_file).code == 0
    assert note in (grid_file.parent.parent / "results" / "question" / "README.md").read_text()


def test_json_documents_are_not_mixed_with_the_line(grid_file: Path, fcnlab: Call) -> None:
    for command in (["grid", "status"], ["report"]):
        result = fcnlab(*command, grid_file, "--json")
        assert result.code == 0 and json.loads(result.out)
    assert json.loads(fcnlab("grid", "status", grid_file, "--json").out)["counts"]["finished"] == 4


def test_names_of_cells_are_resolved_to_models(grid_file: Path, fcnlab: Call, tmp_path: Path) -> None:
    for arguments in (
        ["predict", f"{grid_file}:best", tmp_path],
        ["export", f"{grid_file}:fcn8s", "--to", "onnx", "--out", tmp_path / "model.onnx"],
    ):
        result = fcnlab(*arguments)
        assert result.code == 2
        # The trial is found, and has no weights.
        assert "the weights are missing; to train the trial again, remove" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["grid", "plan", "{}"],
        ["grid", "run", "{}"],
        ["evaluate", "{}"],
        ["train", "mine+fcn8s+bilinear", "--dataset", "street", "--recipe", "smoke", "--lab", "{lab}"],
    ],
)
def test_commands_that_read_images_list_missing_inputs_as_errors(
    grid_file: Path, fcnlab: Call, arguments: list[str]
) -> None:
    result = fcnlab(*(word.format(grid_file, lab=grid_file.parent.parent) for word in arguments))
    assert result.code == 2
    data, weights = [line for line in result.err.splitlines() if line.startswith("fcnlab: error: ")]
    assert "street/images does not exist" in data and "the weights file 'w.pth' is not at" in weights


def test_evaluation_of_a_cell_on_missing_data_is_an_error(grid_file: Path, fcnlab: Call) -> None:
    result = fcnlab("evaluate", f"{grid_file}:fcn8s:0")
    assert result.code == 2
    assert "street/images does not exist" in result.err.splitlines()[-1]


def test_functions_that_read_results_warn_once_at_the_line_of_the_call(grid_file: Path) -> None:
    a, b = f"{grid_file}:fcn32s", f"{grid_file}:fcn8s"
    calls = [
        lambda: len(api.frame(grid_file)) == 4,
        lambda: len(api.summary(grid_file)) == 2,
        lambda: len(api.curves(grid_file)) == 8,
        lambda: api.compare(a, b).difference.value > 0,
        lambda: len(api.diff(a, b)) > 0,
        lambda: len(api.report(grid_file).trials) == 4,
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="not found: dataset street, weights file") as caught:
            assert call()
        assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    with (
        pytest.warns(UserWarning, match="not found: dataset street") as caught,
        pytest.raises(RunError, match="the weights are missing"),
    ):
        api.load(b)
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
