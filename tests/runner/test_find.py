from __future__ import annotations

import re
from pathlib import Path

import pytest

from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.find import find_grid_file, find_record, find_trial
from fcnlab.runner.plan import Plan, make_plan
from tests.conftest import SMOKE, write_grid
from tests.records import finished

TEXT = SMOKE.replace("{head: [fcn32s, fcn8s]}", "{head: [fcn32s, fcn8s], recipe.lr: [0.1, 0.01]}").replace(
    "baseline: {head: fcn32s}", "baseline: {head: fcn32s, recipe.lr: 0.1}"
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = write_grid(tmp_path, TEXT)
    lab = Lab.find(path)
    return make_plan(lab.load_grid(path), lab)


def test_find_trial_by_label_part_of_label_and_key(plan: Plan) -> None:
    last = plan.trials[-1]
    assert (last.cell.label, last.trial.seed) == ("fcn8s, 0.01", 1)
    assert find_trial(plan, "fcn8s, 0.01", 1) == last
    assert find_trial(plan, "FCN8S, 0.01", 1) == last
    assert find_trial(plan, last.key[:9]) == last, "a key determines the seed"
    assert find_trial(plan, "fcn8s, 0.1").trial.seed == 0
    assert find_trial(plan, "fcn32s, 0.1").cell.label == "fcn32s, 0.1", "an exact label is preferred to a part"


@pytest.mark.parametrize(
    ("name", "seed", "message"),
    [
        ("fcn8s, 0.001", None, "no cell 'fcn8s, 0.001'; did you mean 'fcn8s, 0.01'?"),
        ("fcn8s", None, "'fcn8s' matches 2 cells: fcn8s, 0.1; fcn8s, 0.01; give more of the label"),
        ("fcn8s, 0.01", 7, "no seed 7; the seeds are 0, 1"),
    ],
)
def test_find_trial_rejects_unknown_names_and_suggests_the_nearest(
    plan: Plan, name: str, seed: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_trial(plan, name, seed)


def test_find_record_by_key_and_by_file_cell_and_seed(plan: Plan) -> None:
    path, lab = plan.grid.path, Lab.find(plan.grid.path)
    with pytest.raises(RunError, match="contains no trials"):
        find_record(lab, "abc")
    for planned in plan.trials[:2]:
        planned.folder.create()
        planned.folder.finish(finished(planned.trial))
    one = plan.trials[1]
    assert find_record(lab, one.key[:10]).key == one.key
    assert find_record(lab, f"{path}:{one.cell.label}").key == one.key
    with pytest.raises(RunError, match="this trial has not ended"):
        find_record(lab, f"{path}:{one.cell.label}:1")
    with pytest.raises(RunError, match="no key of a trial begins with 'fcn8s'"):
        find_record(lab, "fcn8s")
    twin = one.folder.path.with_name(one.key[:10] + 54 * "0")
    twin.mkdir()
    with pytest.raises(RunError, match="2 keys begin with"):
        find_record(lab, one.key[:10])
    assert find_grid_file(one.key, "a/b.yaml:fcn8s:1") == Path("a/b.yaml")
    assert find_grid_file(one.key) is None
