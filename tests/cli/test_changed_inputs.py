"""Remarks of `grid plan` about trials that have finished with other inputs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcnlab.config import trial
from fcnlab.lab import Lab
from fcnlab.runner.changed_inputs import describe_changed_inputs
from fcnlab.runner.plan import Plan, make_plan
from tests.cli.conftest import Call
from tests.conftest import SMOKE, write_grid
from tests.own_inputs import FOLDS, GRID, write_lab
from tests.report.finished_grid import finish, finished_lab


@pytest.mark.parametrize(
    ("changed", "remarks"),
    [
        ({"data": "earlier"}, ["1 trial to do has finished in this lab with other images or labels of dataset {data}"]),
        ({"data": "earlier", "names": {"dataset": "copy"}}, []),
        ({"seed": 99}, []),
        ({}, []),
    ],
)
def test_plan_describes_trials_that_have_finished_with_other_inputs(
    tmp_path: Path, changed: dict[str, Any], remarks: list[str], fcnlab: Call
) -> None:
    path = write_grid(tmp_path, SMOKE)
    _, lab = finished_lab(tmp_path, SMOKE, unfinished=lambda _head, _seed: True)
    plan = make_plan(lab.load_grid(path), lab)
    first = plan.trials[0]
    if changed:
        names = first.trial.names | changed.get("names", {})
        earlier = first.trial.model_copy(update={**changed, "names": names})
        finish(replace(first, trial=earlier, key=earlier.key), 0.7)
    expected = [
        text.format(data=first.trial.names["dataset"], backbone=first.trial.names["backbone"]) for text in remarks
    ]
    assert describe_changed_inputs(plan, lab) == expected
    code, out, _ = fcnlab("grid", "plan", path, "--no-probe")
    assert code == 0 and all(text in out for text in expected)
    assert json.loads(fcnlab("grid", "status", path, "--json").out)["remarks"] == expected
    assert fcnlab("grid", "status", path).out.splitlines()[-len(expected) - 1 :][1:] == expected


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ("[road, car]", "[road, bus]", "other classes of dataset street"),
        ("{val: 0.2, test: 0.2}", "{val: 0.1, test: 0.2}", "other fractions of dataset street"),
        ("[road, car]", "[road, bus]\n  channels: 1", "other classes and channels of dataset street"),
        ("[road, car]", "[road, car]\n  value_range: [0, 4095]", "other value_range of dataset street"),
        ("splits: {test: test}", "splits: {val: test, test: test}", "other splits of dataset street"),
    ],
)
def test_changed_fields_of_a_dataset_are_named(tmp_path: Path, before: str, now: str, change: str) -> None:
    lab = write_lab(tmp_path)
    file = write_grid(lab.root, GRID)
    for planned in make_plan(lab.load_grid(file), lab).trials[:3]:
        finish(planned, 0.7)
    entries = lab.root / "registry" / "datasets.yaml"
    text = entries.read_text()
    assert text.count(before) == 1
    entries.write_text(text.replace(before, now))
    lab = Lab.find(root=lab.root, data_root=lab.data_root)
    assert describe_changed_inputs(make_plan(lab.load_grid(file), lab), lab) == [
        f"3 trials to do have finished in this lab with {change}"
    ]


def test_trials_with_an_equal_dataset_are_described_before_those_with_other_fields(tmp_path: Path) -> None:
    lab = write_lab(tmp_path)
    file = write_grid(lab.root, GRID)
    first = make_plan(lab.load_grid(file), lab).trials[0]
    other = first.trial.dataset.model_copy(update={"channels": 1})
    for changes in ({"dataset": other}, {"data": "earlier"}, {"dataset": other, "data": "other"}):
        trial = first.trial.model_copy(update=changes)
        finish(replace(first, trial=trial, key=trial.key), 0.7)
    assert describe_changed_inputs(make_plan(lab.load_grid(file), lab), lab) == [
        "1 trial to do has finished in this lab with other images or labels of dataset street"
    ]


def test_trials_of_missing_data_that_were_never_started_have_no_remark(tmp_path: Path) -> None:
    lab = write_lab(tmp_path, FOLDS)
    file = write_grid(lab.root, GRID)
    first, *_ = make_plan(lab.load_grid(file), lab).trials
    finish(first, 0.7)
    for planned in make_plan(lab.load_grid(file), lab).trials:
        if planned.trial.seed != first.trial.seed:
            other = planned.trial.dataset.model_copy(update={"ignore": (7,)})
            earlier = planned.trial.model_copy(update={"dataset": other})
            finish(replace(planned, trial=earlier, key=earlier.key), 0.7)
    shutil.rmtree(tmp_path / "data")
    plan = make_plan(lab.load_grid(file), Lab.find(root=lab.root), recorded_inputs=True)
    assert [one.state for one in plan.trials] == ["finished", "to do", "to do", "to do"]
    assert describe_changed_inputs(plan, lab) == []


def test_links_that_lead_nowhere_are_left_out(tmp_path: Path, fcnlab: Call) -> None:
    grid, lab = finished_lab(tmp_path, SMOKE, unfinished=lambda _head, _seed: True)
    plan = make_plan(grid, lab)
    first = plan.trials[0]
    earlier = first.trial.model_copy(update={"data": "earlier"})
    finish(replace(first, trial=earlier, key=earlier.key), 0.7)
    (lab.runs / ("0" * 64)).symlink_to(tmp_path / "moved away")
    (lab.runs / ("1" * 64)).symlink_to("1" * 64)
    assert len(describe_changed_inputs(plan, lab)) == 1
    for command in ("plan", "status"):
        result = fcnlab("grid", command, grid.path, *(["--no-probe"] if command == "plan" else []))
        assert result.code == 0 and "have finished in this lab" not in result.err
        assert "1 trial to do has finished in this lab with other images or labels" in result.out


def test_watch_shows_remarks_once(tmp_path: Path, fcnlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_grid(tmp_path, SMOKE)
    _, lab = finished_lab(tmp_path, SMOKE, unfinished=lambda _head, _seed: True)
    plan = make_plan(lab.load_grid(path), lab)
    first, *others = plan.trials
    earlier = first.trial.model_copy(update={"data": "earlier"})
    finish(replace(first, trial=earlier, key=earlier.key), 0.7)
    (remark,) = describe_changed_inputs(plan, lab)
    to_finish = [others, [first], []]  # by update
    monkeypatch.setattr("time.sleep", lambda _: [finish(planned, 0.7) for planned in to_finish.pop(0)])
    lines = fcnlab("grid", "status", path, "--watch").out.splitlines()
    assert lines == [remark, "4 trials: 4 to do", "4 trials: 3 finished, 1 to do", "4 trials: 4 finished"]


def test_several_inputs_that_have_changed_are_described_together(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, SMOKE, unfinished=lambda _head, _seed: True)
    first = make_plan(grid, lab).trials[0]
    before = first.trial.model_copy(update={"data": "earlier", "weights": "sha256:1", "extensions": {"loss": "a"}})
    now = first.trial.model_copy(update={"weights": "sha256:2", "extensions": {"loss": "b"}})
    finish(replace(first, trial=before, key=before.key), 0.7)
    plan = Plan(grid, (replace(first, trial=now, key=now.key),))
    assert describe_changed_inputs(plan, lab) == [
        "1 trial to do has finished in this lab with other images or labels of dataset shapes-mini and another weights "
        "file of backbone tiny-scratch and other code of the loss"
    ]


def test_trials_that_are_initialized_from_changed_ones_are_described_too(tmp_path: Path) -> None:
    text = SMOKE.replace("head: [fcn32s, fcn8s]", "init_from: [null, {head: fcn16s}]").replace("seeds: 2", "seeds: 1")
    text = text.replace("upsampler:", "head: fcn32s, upsampler:").replace("{head: fcn32s}", "{init_from: null}")
    path = write_grid(tmp_path, text)
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    plan = make_plan(grid, lab)
    keys: dict[str, str] = {}
    for planned in plan.all_trials:  # the initial trials come first
        before = planned.trial.model_copy(
            update={"data": "earlier", "init_from": keys.get(planned.trial.init_from or "")}
        )
        keys[planned.key] = before.key
        finish(replace(planned, trial=before, key=before.key), 0.7)
    assert describe_changed_inputs(plan, lab) == [
        "3 trials to do have finished in this lab with other images or labels of dataset shapes-mini"
    ]
    initial = plan.prerequisites[0].trial.model_copy(update={"data": "later"})
    initialized = plan.trials[1].trial.model_copy(update={"data": "earlier", "init_from": initial.key})
    later = Plan(
        grid,
        (replace(plan.trials[1], trial=initialized, key=initialized.key),),
        (replace(plan.prerequisites[0], trial=initial, key=initial.key),),
    )
    assert describe_changed_inputs(later, lab) == [
        "1 trial to do has finished in this lab with other images or labels of dataset shapes-mini",
        "1 trial to do has finished in this lab with other inputs of the trial that it is initialized from",
    ]


def test_plan_describes_trials_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(trial, "NUMERICS", trial.NUMERICS - 1)
        grid, lab = finished_lab(tmp_path, SMOKE)
    plan = make_plan(grid, lab)
    assert {one.status for one in plan.trials} == {"to do"}
    assert describe_changed_inputs(plan, lab) == [
        f"{len(plan.trials)} trials to do have finished in this lab with an earlier version of fcnlab, whose training "
        "computes other values"
    ]
