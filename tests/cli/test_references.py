"""Shell completion of grid files, cells and keys, and the keys that commands show."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnlab.cli.references import complete_grid_file, complete_reference
from fcnlab.config.grid.grid import Grid
from fcnlab.lab import Lab
from fcnlab.report.report import make_report
from fcnlab.report.write import render_markdown
from fcnlab.runner.find import find_reference
from fcnlab.runner.plan import make_plan
from tests.cli.conftest import Call
from tests.conftest import write_grid
from tests.report.finished_grid import finished_lab


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.chdir(tmp_path)
    grid, _ = finished_lab(tmp_path)
    (tmp_path / "experiments" / "heads").mkdir()
    (tmp_path / "experiments" / "heads" / "more.yml").write_text("question: ?")
    return grid


def test_files_are_completed_in_the_lab_and_in_their_folder(grid: Grid, tmp_path: Path) -> None:
    assert complete_grid_file("exp") == ["experiments/heads/more.yml", "experiments/question.yaml"]
    assert complete_grid_file("experiments/q") == ["experiments/question.yaml"]
    assert complete_grid_file(f"{tmp_path}/experiments/") == [str(grid.path)]


def test_cells_and_keys_are_completed(grid: Grid, tmp_path: Path) -> None:
    names = [f"experiments/question.yaml:{name}" for name in ("best", "fcn32s", "fcn16s", "fcn8s")]
    assert complete_reference("experiments/question.yaml:") == names
    assert complete_reference("experiments/question.yaml:fcn8") == names[3:]
    assert complete_reference("experiments/q") == ["experiments/question.yaml:"]
    key = next((tmp_path / "runs").iterdir()).name
    assert complete_reference(key[:4]) == [key[:12]]


ABLATION = """
question: Which changes help?
base: {backbone: resnet18-scratch, head: fcn32s, dataset: shapes-mini, recipe: smoke}
ablate: {changes: [{head: fcn8s, recipe.ema: 0.9}, {recipe.scale: [0.5, 2.0]}]}
"""


def test_completed_names_of_cells_need_no_quotes_and_find_their_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_grid(tmp_path, ABLATION)
    lab = Lab.find(path)
    names = complete_reference("experiments/question.yaml:")[1:]
    assert not any(character.isspace() for name in names for character in name)
    found = [find_reference(name, lab).planned for name in names]
    assert [one.cell.label for one in found if one is not None] == [cell.label for cell in lab.load_grid(path).cells]


def test_an_invalid_file_has_no_completions(grid: Grid) -> None:
    assert complete_reference("experiments/heads/more.yml:f") == []
    assert complete_reference("absent.yaml:f") == []
    assert grid.cells


def test_best_is_printed_with_the_metric_that_selected_it(fcnlab: Call, grid: Grid) -> None:
    shown = fcnlab("compare", f"{grid.path}:fcn32s", f"{grid.path}:best")
    assert shown.code == 0
    assert shown.err.startswith("best of 3 cells: fcn8s, ") and "mIoU on test, last epoch, mean of 3" in shown.err
    assert "A: fcn32s\nB: fcn8s\n" in shown.out


def test_the_seed_of_a_trial_that_is_named_by_its_cell_is_printed(fcnlab: Call, grid: Grid) -> None:
    name = f"{grid.path}:fcn8s"
    shown = fcnlab("diff", name, f"{name}:1")
    assert (shown.code, shown.err) == (0, "fcn8s: the trial with seed 0 of 0, 1, 2; add :SEED for another\n")


def test_the_report_lists_the_keys_that_commands_accept(fcnlab: Call, grid: Grid, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    plan = make_plan(grid, lab)
    page = render_markdown(make_report(plan, lab, None), (), with_samples=False)
    keys = [planned.short_key for planned in plan.trials if planned.cell is grid.cells[0]]
    assert f"- fcn32s: {' '.join(keys)}\n" in page
    assert fcnlab("diff", keys[0], keys[1]).code == 0
