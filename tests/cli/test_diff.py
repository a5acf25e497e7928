"""`fcnlab diff`: the differences between two trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, make_plan
from tests.builders import finished_record
from tests.cli.conftest import Call
from tests.conftest import SMOKE, write_grid


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A grid in which the first seed of both cells has finished."""
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    made = make_plan(lab.load_grid(path), lab)
    for planned, miou, commit in zip(made.trials, (0.25, 0.5), ("aaaa", "bbbb"), strict=False):
        planned.folder.create()
        record = finished_record(planned.trial, miou=miou, commit=commit)
        assert record.cost is not None
        cost = record.cost.model_copy(update={"params": 30_000_000 + round(8_000_004 * miou)})
        planned.folder.finish(record.model_copy(update={"cost": cost}))
    return made


def test_two_cells_differ_by_their_head_their_commit_and_their_metrics(fcnlab: Call, plan: Plan) -> None:
    path = plan.grid.path
    result = fcnlab("diff", f"{path}:fcn32s:0", f"{path}:fcn8s:0")
    assert (result.code, result.err) == (0, "")
    rows = [line.split() for line in result.out.splitlines()]
    assert ["head.stride", "32", "8"] in rows
    assert ["commit", "aaaa", "bbbb"] in rows
    assert ["val", "mIoU", "25.00", "50.00", "+25.00"] in rows
    assert ["params", "32,000,001", "34,000,002", "+2,000,001"] in rows
    assert "seed" not in [row[0] for row in rows if row], "the seed is the same"
    assert fcnlab("diff", plan.trials[0].key[:12], plan.trials[1].key[:12], "--lab", path.parent.parent) == result


def test_json_contains_every_difference_with_its_section(fcnlab: Call, plan: Plan) -> None:
    a, b = (planned.key for planned in plan.trials[:2])
    result = json.loads(fcnlab("diff", a, b, "--json").out)
    assert (result["a"]["key"], result["b"]["key"]) == (a, b)
    assert {"section": "metrics", "field": "val mIoU", "a": 0.25, "b": 0.5, "delta": 0.25} in result["differences"]
    assert {one["section"] for one in result["differences"]} == {"configuration", "code", "metrics", "cost"}
    assert json.loads(fcnlab("diff", a, a, "--json").out)["differences"] == []
    assert "no field differs" in fcnlab("diff", a, a).out


def test_an_unknown_trial_is_rejected(fcnlab: Call, plan: Plan) -> None:
    result = fcnlab("diff", f"{plan.grid.path}:fcn32s:1", f"{plan.grid.path}:fcn8s")
    assert result.code == 2 and "has not ended" in result.err
    assert "the closest cells are 'fcn8s'; " in fcnlab("diff", f"{plan.grid.path}:fcn9s", "abc").err
