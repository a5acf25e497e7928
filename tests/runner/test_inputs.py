"""Trials of a lab whose data or weights are missing, identified by the fingerprints that earlier trials recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fcnlab.errors import DataError, FcnlabError, ModelError
from fcnlab.lab import Lab
from fcnlab.runner.inputs import UNRECORDED, has_unrecorded_inputs
from fcnlab.runner.plan import Plan, PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import sync_grid
from tests.conftest import write_grid
from tests.data.images import random_image, save_image
from tests.growth import count_calls
from tests.own_inputs import FOLDS, GRID, write_lab
from tests.report.finished_grid import finish

MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(tmp_path: Path) -> MakeLab:
    """Return `write_lab` for the folder of the test."""
    return partial(write_lab, tmp_path)


def plan(lab: Lab, text: str = GRID, *, data_root: Path | None = None, recorded: bool = False) -> Plan:
    """Make the plan of a grid with a new `Lab`, which has read no file."""
    lab = Lab.find(root=lab.root, data_root=data_root)
    return make_plan(lab.load_grid(write_grid(lab.root, text)), lab, recorded_inputs=recorded)


def finish_all(planned: Plan) -> None:
    for one in planned.trials:
        finish(one, 0.7)


def keys(planned: Plan) -> list[str]:
    return [one.key for one in planned.trials]


def read_states(planned: Plan) -> list[str]:
    return [one.state for one in planned.trials]


def test_recorded_fingerprints_replace_those_of_missing_data_and_weights(make_lab: MakeLab) -> None:
    lab = make_lab()
    complete = plan(lab, data_root=lab.data_root)
    finish_all(complete)
    assert complete.missing_inputs is None
    without = plan(lab, recorded=True)
    assert keys(without) == keys(complete) and read_states(without) == ["finished"] * 4
    assert without.missing_inputs == (
        "not found: dataset street, weights file 'w.pth' (--data-root sets the folder); the trials are identified by "
        f"the data and weights of the latest trials in {lab.runs}"
    )
    with pytest.raises(FcnlabError):
        plan(lab)


@pytest.mark.parametrize(("left", "name"), [("w.pth", "dataset street"), ("street", "weights file 'w.pth'")])
def test_inputs_that_exist_are_read(make_lab: MakeLab, tmp_path: Path, left: str, name: str) -> None:
    lab = make_lab()
    complete = plan(lab, data_root=lab.data_root)
    finish_all(complete)
    (tmp_path / "other").mkdir()
    shutil.move(tmp_path / "data" / left, tmp_path / "other" / left)
    other = plan(lab, data_root=tmp_path / "other", recorded=True)
    assert keys(other) == keys(complete)
    assert other.missing_inputs is not None and other.missing_inputs.startswith(f"not found: {name} (")


def test_changed_data_are_not_replaced_by_recorded_ones(make_lab: MakeLab) -> None:
    lab = make_lab()
    finish_all(plan(lab, data_root=lab.data_root))
    assert lab.data_root is not None
    save_image(random_image(77), lab.data_root / "street" / "images" / "0.png")
    changed = plan(lab, data_root=lab.data_root, recorded=True)
    assert read_states(changed) == ["to do"] * 4 and changed.missing_inputs is None


@pytest.mark.parametrize("damage", [Path.unlink, partial(Path.write_text, data="no image")])
def test_damaged_data_are_not_replaced(make_lab: MakeLab, damage: Callable[[Path], object]) -> None:
    lab = make_lab()
    finish_all(plan(lab, data_root=lab.data_root))
    assert lab.data_root is not None
    mask = lab.data_root / "street" / "masks" / "3.png"
    damage(mask)
    if mask.exists():
        assert read_states(plan(lab, data_root=lab.data_root, recorded=True)) == ["to do"] * 4
    else:
        with pytest.raises(DataError, match=r"3\.png: cannot be read"):
            plan(lab, data_root=lab.data_root, recorded=True)


def test_a_folder_of_data_that_is_a_file_is_not_missing(make_lab: MakeLab) -> None:
    lab = make_lab()
    finish_all(plan(lab, data_root=lab.data_root))
    assert lab.data_root is not None
    shutil.rmtree(lab.data_root / "street" / "masks")
    (lab.data_root / "street" / "masks").write_text("")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        plan(lab, data_root=lab.data_root, recorded=True)


def test_all_missing_inputs_are_listed_where_no_trial_has_recorded_them(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab()
    (tmp_path / "empty").mkdir()
    for root, recorded in ((None, False), (None, True), (tmp_path / "empty", False)):
        with pytest.raises(DataError) as caught:
            plan(lab, data_root=root, recorded=recorded)
        data, weights = str(caught.value).splitlines()
        assert "street/images" in data and weights.startswith("the weights file 'w.pth' is not at")


def test_damage_is_reported_beside_missing_weights(make_lab: MakeLab) -> None:
    lab = make_lab()
    assert lab.data_root is not None
    (lab.data_root / "w.pth").unlink()
    (lab.data_root / "street" / "masks" / "3.png").unlink()
    with pytest.raises(ModelError) as caught:
        plan(lab, data_root=lab.data_root)
    weights, data = str(caught.value).splitlines()
    assert "w.pth" in weights and "3.png" in data


def test_the_inputs_of_initial_trials_are_found_too(make_lab: MakeLab) -> None:
    lab = make_lab(names=("street", "sea"))
    text = GRID.replace("product: {head: [fcn32s, fcn8s]}", "product: {init_from: [null, {dataset: sea}]}")
    text = text.replace("base: {", "base: {head: fcn32s, ").replace(
        "baseline: {head: fcn32s}", "baseline: {init_from: null}"
    )
    complete = plan(lab, text, data_root=lab.data_root)
    for one in complete.all_trials:
        finish(one, 0.7)
    with pytest.raises(DataError) as caught:
        plan(lab, text)
    assert [word in str(caught.value) for word in ("street/images", "sea/images", "w.pth")] == [True] * 3
    without = plan(lab, text, recorded=True)
    assert [one.key for one in without.all_trials] == [one.key for one in complete.all_trials]


def test_folds_that_no_trial_has_recorded_are_to_do(make_lab: MakeLab) -> None:
    lab = make_lab(FOLDS)
    text = GRID.replace("seeds: 2", "seeds: 5")
    complete = plan(lab, text, data_root=lab.data_root)
    started = [one for one in complete.trials if one.trial.seed in (0, 2)]
    for one in started:
        finish(one, 0.7)
    without = plan(lab, text, recorded=True)
    assert {one.key for one in without.trials if one.state == "finished"} == {one.key for one in started}
    unknown = {one.trial.seed for one in without.trials if has_unrecorded_inputs(one.trial)}
    assert unknown == {1, 3, 4} == {one.trial.seed for one in without.trials if one.trial.data == UNRECORDED}
    assert without.missing_inputs is not None
    assert without.missing_inputs.endswith(f"{lab.runs}, which has no such trial of dataset street")


def test_the_latest_of_several_fingerprints_is_used(make_lab: MakeLab) -> None:
    lab = make_lab()
    assert lab.data_root is not None
    first = plan(lab, data_root=lab.data_root)
    for one in first.trials:
        finish(one, 0.7, ended="2026-03-02T10:00:00+00:00")
    save_image(random_image(77), lab.data_root / "street" / "images" / "0.png")
    second = plan(lab, data_root=lab.data_root)
    finish(second.trials[0], 0.7, ended="2026-03-01T10:00:00+00:00")
    assert keys(plan(lab, recorded=True)) == keys(first)
    finish(second.trials[0], 0.7, ended="2026-03-03T10:00:00+02:00")
    assert keys(plan(lab, recorded=True)) == keys(second)


def test_the_start_of_an_unfinished_trial_counts_as_its_time(make_lab: MakeLab) -> None:
    lab = make_lab()
    assert lab.data_root is not None
    for one in plan(lab, data_root=lab.data_root).trials:
        finish(one, 0.7, ended="2026-03-02T10:00:00+00:00")
    save_image(random_image(77), lab.data_root / "street" / "images" / "0.png")
    second = plan(lab, data_root=lab.data_root)
    started = second.trials[0]
    started.folder.create()
    started.folder.write_trial(started.trial)
    assert keys(plan(lab, recorded=True)) == keys(second)
    os.utime(started.folder.trial, (0, 0))
    assert keys(plan(lab, recorded=True)) != keys(second)


def test_descriptions_and_colors_of_a_dataset_may_differ_and_classes_may_not(make_lab: MakeLab) -> None:
    lab = make_lab()
    complete = plan(lab, data_root=lab.data_root)
    finish_all(complete)
    file = lab.root / "registry" / "datasets.yaml"
    entry = file.read_text()
    file.write_text(f"{entry}  description: streets\n  colors: {{car: '#ff0000'}}\n")
    assert keys(plan(lab, recorded=True)) == keys(complete)
    assert lab.data_root is not None
    file.write_text(entry.replace("[road, car]", "[road, bus]"))
    (lab.root / "w.pth").write_bytes(b"weights")
    with pytest.raises(DataError, match="street/images"):
        plan(lab, recorded=True)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"dataset": {"type": "folder"}, "data": "a"}', '{"dataset": 1}'])
def test_configurations_of_trials_that_cannot_be_read_are_skipped(make_lab: MakeLab, content: str) -> None:
    lab = make_lab()
    complete = plan(lab, data_root=lab.data_root)
    finish_all(complete)
    (lab.runs / ("0" * 64)).mkdir()
    (lab.runs / ("0" * 64) / "trial.json").write_text(content)
    assert keys(plan(lab, recorded=True)) == keys(complete)


def test_nothing_is_published_while_keys_of_trials_are_unknown(make_lab: MakeLab) -> None:
    lab = make_lab(names=("street", "sea"))
    text = GRID.replace("dataset: street, ", "head: fcn8s, ").replace("head: [fcn32s, fcn8s]", "dataset: [street, sea]")
    text = text.replace("baseline: {head: fcn32s}", "baseline: {dataset: street}")
    complete = plan(lab, text, data_root=lab.data_root)
    for one in complete.trials:
        if one.trial.names["dataset"] == "street":
            finish(one, 0.7)
    here = Lab.find(root=lab.root, trackers="none")
    grid = complete.grid
    assert read_states(make_plan(grid, here, recorded_inputs=True)) == ["finished", "to do"] * 2
    with pytest.raises(FcnlabError, match="sea/images"):
        sync_grid(grid, here, ProgressReporter())
    for one in complete.trials:
        finish(one, 0.7)
    assert sync_grid(grid, here, ProgressReporter()).finished == 4


def test_work_of_reading_recorded_inputs_grows_in_proportion_to_the_trials(make_lab: MakeLab) -> None:
    lab = make_lab()

    def record(planned: PlannedTrial) -> None:
        planned.folder.create()
        planned.folder.write_trial(planned.trial)

    calls = []
    for seeds in (30, 60):
        text = GRID.replace("seeds: 2", f"seeds: {seeds}")
        for one in plan(lab, text, data_root=lab.data_root).trials:
            record(one)
        calls.append(count_calls(partial(plan, lab, text, recorded=True)))
    assert calls[1] < 2.5 * calls[0]
