"""Trials that are initialized from finished trials: staged training, as in the paper."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fcnlab
from fcnlab.config.grid.grid import load
from fcnlab.config.yaml_file import parse
from fcnlab.errors import ConfigError, FcnlabError, ModelError
from fcnlab.lab import Lab
from fcnlab.models.fcn import load_matching_weights
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import Outcome, run_grid
from fcnlab.settings import RunOptions
from fcnlab.trial.repeated_images import list_initial_trials
from fcnlab.trial.run import run_trial
from tests.conftest import write_grid

STAGED = """
question: Are skips learned better in stages or at once?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke, head: fcn8s}
product:
  init_from: [null, {head: fcn16s, init_from: {head: fcn32s}}]
baseline: {init_from: null}
"""


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid with stages that has run to its end."""
    path = write_grid(tmp_path_factory.mktemp("staged"), STAGED)
    outcome = fcnlab.run_grid(fcnlab.load_grid(path), workers=2, threads=1, quiet=True)
    assert outcome == Outcome(finished=4, failed=0, reused=0)
    return path


def test_the_trial_of_init_from_is_run_first_and_has_no_row_in_the_table(staged: Path) -> None:
    lab = Lab.find(staged)
    plan = make_plan(lab.load_grid(staged), lab)
    assert [planned.trial.variant.head.stride for planned in plan.prerequisites] == [32, 16]
    assert [planned.record.ended for planned in plan.prerequisites if planned.record] == sorted(
        planned.record.ended for planned in plan.prerequisites if planned.record
    )
    assert len(fcnlab.summary(lab.load_grid(staged))) == 2


def test_a_key_contains_the_key_of_init_from(staged: Path) -> None:
    lab = Lab.find(staged)
    plan = make_plan(lab.load_grid(staged), lab)
    first, second = (planned.trial for planned in plan.prerequisites)
    plain, last = (planned.trial for planned in plan.trials)
    assert (first.init_from, second.init_from, last.init_from) == (None, first.key, second.key)
    assert plain.init_from is None and plain.key != last.key


def test_a_stage_that_is_a_cell_itself_is_run_once(tmp_path: Path) -> None:
    base = "base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke}"
    cells = "product: {head: [fcn32s, fcn16s]}\nbaseline: {head: fcn32s}"
    path = write_grid(tmp_path, f"question: q\n{base}\n{cells}\n")
    both = write_grid(tmp_path, STAGED.replace("head: fcn8s", "head: fcn16s").replace(
        "[null, {head: fcn16s, init_from: {head: fcn32s}}]", "[null, {head: fcn32s}]"), "both")  # fmt: skip
    lab = Lab.find(root=tmp_path)
    keys = {planned.trial.names["head"]: planned.trial.key for planned in make_plan(lab.load_grid(path), lab).trials}
    plan = make_plan(lab.load_grid(both), lab)
    assert [planned.trial.key for planned in plan.prerequisites] == [keys["fcn32s"]]
    assert plan.trials[0].trial.key == keys["fcn16s"]


def test_training_starts_from_the_weights_of_init_from(tmp_path: Path) -> None:
    # With a rate that moves nothing and statistics that stay, a stage must end with the weights that it started from.
    path = write_grid(
        tmp_path,
        """
question: q
base:
  backbone: tiny-scratch
  upsampler: bilinear
  dataset: shapes-mini
  recipe: smoke
  head: fcn16s
  recipe.optimizer.lr: 1e-30
  recipe.batch_norm: frozen
  init_from: {head: fcn32s, recipe.optimizer.lr: 0.01}
baseline: {}
""",
    )
    lab = Lab.find(root=tmp_path)
    plan = make_plan(lab.load_grid(path), lab)
    for planned in plan.all_trials:
        assert run_trial(planned.trial, lab).status == "finished"
    first, second = (load_file(planned.folder.weights) for planned in plan.all_trials)
    shared = [key for key in second if key in first and first[key].shape == second[key].shape]
    assert {key for key in second if key.startswith("backbone.")} | {"head.score.32.weight"} <= set(shared)
    assert all(torch.equal(first[key], second[key]) for key in shared if "num_batches" not in key)
    assert "head.upsample.weight" not in shared and "head.score.16.weight" not in shared


def test_a_trial_fails_if_the_trial_of_init_from_has_failed(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path, STAGED.replace("init_from: {head: fcn32s}", "init_from: {head: fcn32s, recipe.lr: 1e30}")
    )
    outcome = fcnlab.run_grid(fcnlab.load_grid(path), workers=2, threads=1, quiet=True)
    assert (outcome.finished, outcome.failed) == (1, 3)
    lab = Lab.find(path)
    messages = [record.failure.message for _, record in make_plan(lab.load_grid(path), lab).records() if record.failure]
    assert "the loss of epoch" in messages[0]
    assert all("init_from: the trial" in message for message in messages[1:])


def test_any_finished_trial_can_be_named_by_its_key(staged: Path) -> None:
    lab = Lab.find(staged)
    key = make_plan(lab.load_grid(staged), lab).trials[1].trial.key
    text = STAGED.replace("[null, {head: fcn16s, init_from: {head: fcn32s}}]", f"['{key}']")
    named = write_grid(lab.root, text.replace("{init_from: null}", "{}"), "named")
    plan = make_plan(lab.load_grid(named), lab)
    assert plan.prerequisites == ()
    assert plan.trials[0].trial.init_from == key
    record = run_trial(plan.trials[0].trial, lab)
    assert record.status == "finished"


def test_a_trial_with_a_working_folder_is_initialized_from_a_trial_of_the_lab(staged: Path, tmp_path: Path) -> None:
    lab = Lab.find(staged, trackers="none")
    initial = make_plan(lab.load_grid(staged), lab).trials[1]
    text = STAGED.replace("[null, {head: fcn16s, init_from: {head: fcn32s}}]", f"['{initial.key}']")
    grid = lab.create_grid(parse(text.replace("{init_from: null}", "{}"), "text"), "elsewhere")
    before = {path: path.stat().st_mtime_ns for path in lab.runs.rglob("*")}
    there = lab.with_workdir(tmp_path / "there")
    outcome = run_grid(grid, there, ProgressReporter(), RunOptions(executor="serial"))
    (planned,) = make_plan(grid, there).trials
    assert outcome.finished == 1 and [path.name for path in there.runs.iterdir()] == [planned.key]
    assert {path: path.stat().st_mtime_ns for path in lab.runs.rglob("*")} == before
    assert list_initial_trials(planned.trial, there, {})[0] == initial.trial


@pytest.mark.parametrize(
    ("start", "expected_text"),
    [
        ("'" + 64 * "a" + "'", "has no finished trial aaaa"),
        ("abc", "init_from: 'abc' is not the key of a trial"),
        ("{}", "init_from: give overrides that turn the cell into the trial"),
        ("{head: fcn9s}", "init_from: head: no head 'fcn9s'; did you mean"),
        ("{heat: fcn8s}", "init_from: heat: unknown axis"),
        ("3", "init_from: give overrides"),
    ],
)
def test_an_invalid_init_from_is_a_one_line_error(tmp_path: Path, start: str, expected_text: str) -> None:
    path = write_grid(tmp_path, STAGED.replace("[null, {head: fcn16s, init_from: {head: fcn32s}}]", f"[null, {start}]"))
    lab = Lab.find(root=tmp_path)
    with pytest.raises(FcnlabError, match=r".+") as caught:
        make_plan(load(path, lab.registry), lab)
    assert isinstance(caught.value, ConfigError | ModelError)
    assert expected_text in str(caught.value) and "\n" not in str(caught.value)


def test_a_backbone_that_does_not_fit_is_refused_with_its_first_key() -> None:
    tiny = fcnlab.build_model("fcn8s-tiny", 4)
    other = fcnlab.build_model("fcn8s-resnet18", 4, pretrained=False)
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    with pytest.raises(ModelError, match=r"a different backbone: \d+ keys do not match; the first, 'backbone\.body"):
        load_matching_weights(tiny, other.state_dict())
    assert all(torch.equal(before[key], value) for key, value in tiny.state_dict().items())


def test_score_layers_of_other_classes_are_initialized_again() -> None:
    one, other = fcnlab.build_model("fcn8s-tiny", 4, seed=0), fcnlab.build_model("fcn8s-tiny", 7, seed=1)
    score = other.head.state_dict()["score.32.weight"].clone()
    load_matching_weights(other, one.state_dict())
    assert torch.equal(other.head.state_dict()["score.32.weight"], score)
    body = other.backbone.state_dict()
    assert all(torch.equal(value, body[key]) for key, value in one.backbone.state_dict().items())
