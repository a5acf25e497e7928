"""Grids that are written as a dict in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

import fcnlab
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from tests.conftest import SMOKE, write_grid
from tests.report.finished_grid import finish

CONTENT: dict[str, Any] = yaml.safe_load(SMOKE)


def test_a_dict_is_the_grid_of_the_file_that_a_run_writes(lab: Lab) -> None:
    values = ("fcn32s", "fcn8s")
    content = {**CONTENT, "product": {"head": values}, "description": "0x1f: {a}"}
    grid = fcnlab.load_grid(content, "heads", lab=lab)
    assert [*lab.root.iterdir()] == []
    fcnlab.frame(grid, lab=lab)
    assert not grid.path.exists()
    for planned in make_plan(grid, lab).trials:
        finish(planned, 0.5)

    fcnlab.report(grid, lab=lab)
    read = fcnlab.load_grid(lab.root / "experiments" / "heads.yaml")
    assert (read.name, read.file, read.cells, read.seeds) == (grid.name, grid.file, grid.cells, grid.seeds)
    assert fcnlab.frame(read)["status"].tolist() == ["finished"] * 4
    assert "fcnlab grid run experiments/heads.yaml" in (lab.results / "heads" / "README.md").read_text()

    changed = fcnlab.load_grid({**content, "seeds": 1}, "heads", lab=lab)
    fcnlab.report(changed, lab=lab)
    assert len(fcnlab.load_grid(grid.path)) == len(changed) == 2


def test_a_file_of_the_user_is_not_replaced(lab: Lab) -> None:
    early = fcnlab.load_grid(CONTENT, "heads", lab=lab)
    path = write_grid(lab.root, SMOKE, "heads")
    with pytest.raises(ConfigError, match="exists and was not written from a dict; load this file, or"):
        fcnlab.load_grid(CONTENT, "heads", lab=lab)
    with pytest.raises(ConfigError, match="exists and was not written from a dict"):
        fcnlab.report(early, lab=lab)
    assert path.read_text(encoding="utf-8") == SMOKE


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (CONTENT, "", r"^a grid that is a dict needs a name, such as load_grid\(\{...\}, name=\"heads\"\)$"),
        (CONTENT, "../heads", r"^the name of a grid is made of letters, digits, '-', '_' and '.', not '../heads'$"),
        ({**CONTENT, "sedes": 3}, "heads", "^grid heads: sedes: .*did you mean 'seeds'"),
        ({**CONTENT, "product": {"head": ["fcn8"]}}, "heads", "grid heads: head: no head 'fcn8'; did you mean 'fcn8s'"),
        ({**CONTENT, "seeds": np.int64(3)}, "heads", r"^grid heads: .*3.* is of type numpy.int64; use mappings, lists"),
        ({3: "a"}, "heads", "^grid heads: the key 3 is a number"),
    ],
)
def test_an_invalid_dict_is_an_error(lab: Lab, content: Any, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fcnlab.load_grid(content, name, lab=lab)


def test_a_file_has_no_other_name(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="a grid file has the name of its file"):
        fcnlab.load_grid(write_grid(lab.root, SMOKE), "other")


def test_a_grid_is_described_in_one_line_and_in_a_notebook(lab: Lab) -> None:
    grid = fcnlab.load_grid({**CONTENT, "question": "Is a < b?"}, "heads", lab=lab)
    assert repr(grid) == "Grid(heads: 2 cells x 2 seeds, baseline fcn32s; Is a < b?)"
    page = grid._repr_html_()
    assert "Is a &lt; b?" in page and "2 cells x 2 seeds = 4 trials, baseline fcn32s" in page
    assert page.count("<tr>") == 3 and "color" not in page
