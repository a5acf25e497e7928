"""The plan of a grid: which trials have ended, what is left, where it was reported, and what the rest may cost."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time

import pytest

from fcnlab import cli
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.cost.estimate import Estimate, estimate
from fcnlab.runner.cost.history import Pace, recorded, scorings, shapes_of
from fcnlab.runner.cost.probe import probe
from fcnlab.runner.executors.process import Slot
from fcnlab.runner.plan import Plan, PlannedTrial, count_reported, make_plan
from fcnlab.trial.record import Cost, Environment, EpochRecord, Failure, Record
from tests.conftest import SMOKE, write_grid


def planned_in(lab: Lab, text: str = SMOKE, name: str = "question") -> Plan:
    return make_plan(lab.load_grid(write_grid(lab.root, text, name)), lab)


def finish(planned: PlannedTrial, train: float = 8.0, evaluate: float = 2.0, memory: int | None = None) -> None:
    """Write the record of a trial that took so many seconds."""
    cost = Cost(params=1, trainable_params=1, gmacs=1.0, gmacs_size=(1, 1), train_seconds=train,
                evaluate_seconds=evaluate, images_per_s=1.0, peak_memory=memory)  # fmt: skip
    planned.folder.create()
    planned.folder.finish(Record.create(planned.trial, "finished", cost=cost))


def fail(planned: PlannedTrial) -> None:
    planned.folder.create()
    planned.folder.finish(Record.create(planned.trial, "failed", failure=Failure(cause="exception", message="no")))


def start(planned: PlannedTrial, epochs: int) -> None:
    planned.folder.create()
    epoch = EpochRecord(epoch=1, loss=1.0, lr=0.1, images_per_s=1.0, seconds=1.0)
    planned.folder.write_progress([epoch.model_copy(update={"epoch": number + 1}) for number in range(epochs)])


def test_a_plan_knows_how_far_each_trial_is(lab: Lab) -> None:
    first, second, third, fourth = planned_in(lab).trials
    finish(first)
    fail(second)
    start(third, 1)
    fourth.folder.create()
    plan = planned_in(lab)
    assert [planned.state for planned in plan.trials] == ["finished", "failed", "started", "to do"]
    assert [planned.key for planned in plan.remaining] == [third.key, fourth.key]
    assert [(planned.key, record.status) for planned, record in plan.records()] == [
        (first.key, "finished"),
        (second.key, "failed"),
    ]
    assert all(planned.key == planned.trial.key == planned.folder.key for planned in plan.trials)


def test_a_record_that_is_torn_does_not_count(lab: Lab) -> None:
    planned = planned_in(lab).trials[0]
    finish(planned)
    planned.folder.record.write_bytes(planned.folder.record.read_bytes()[:-40])
    assert planned_in(lab).trials[0].state == "to do"


def test_what_a_plan_says_is_of_the_moment_when_it_was_made(lab: Lab) -> None:
    plan = planned_in(lab)
    finish(plan.trials[0])
    assert plan.trials[0].state == "to do"
    assert plan.trials[0].record is not None
    assert list(plan.records()) == []


def test_cells_with_a_stop_are_stopped_and_not_left(lab: Lab) -> None:
    text = SMOKE.replace("recipe: smoke}", "recipe: smoke, recipe.epochs: 4}").replace(
        "[fcn32s, fcn8s]", "[fcn32s, fcn8s, fcn16s]"
    )
    plan = planned_in(lab, text + "early_stopping: {after: 2, margin: 10}\n")
    figures = {"fcn32s": 0.1, "fcn16s": 0.6, "fcn8s": 0.3}
    for planned in plan.trials:
        start(planned, 2)
        epochs = [epoch.model_copy(update={"val_miou": figures[planned.cell.label]})
                  for epoch in planned.folder.read_progress()]  # fmt: skip
        planned.folder.write_progress(epochs)
    plan = make_plan(plan.grid, lab)
    assert {(planned.cell.label, planned.state) for planned in plan.trials} == {
        ("fcn32s", "started"), ("fcn16s", "started"), ("fcn8s", "stopped"),
    }  # fmt: skip
    assert len(plan.remaining) == 4


def test_finished_trials_that_stand_in_results_are_found_there(lab: Lab) -> None:
    plan = planned_in(lab)
    for planned in plan.trials[:3]:
        finish(planned)
    for name, keys in (("before", [plan.trials[0].key, plan.trials[3].key]), ("other", ["a" * 64])):
        folder = lab.results / name
        folder.mkdir(parents=True)
        (folder / "provenance.json").write_text(json.dumps({"trials": [{"key": key} for key in keys]}))
    assert count_reported(make_plan(plan.grid, lab), lab) == {"before": 1}


# --- what the rest may cost -------------------------------------------------------------------------------------------


def test_nothing_is_claimed_where_nothing_is_known(lab: Lab) -> None:
    plan = planned_in(lab)
    shapes = shapes_of(plan)
    judged = estimate(plan, shapes, recorded(plan, lab, shapes), 2)
    assert (judged.trials, judged.known, judged.by, judged.memory) == (4, 0, (), None)


def test_trials_of_the_same_shape_are_judged_by_those_that_finished_scaled_by_epochs(lab: Lab) -> None:
    short = planned_in(lab)
    recipe = short.trials[0].trial.recipe
    for planned in short.trials:
        finish(planned, train=3.0 * recipe.epochs, evaluate=2.0 * scorings(recipe), memory=7)
    text = SMOKE.replace("recipe: smoke}", f"recipe: smoke, recipe.epochs: {10 * recipe.epochs}, recipe.lr: 0.001}}")
    plan = planned_in(lab, text, "longer")
    start(plan.trials[0], recipe.epochs)
    plan = make_plan(plan.grid, lab)
    shapes = shapes_of(plan)
    judged = estimate(plan, shapes, recorded(plan, lab, shapes), 3)
    long = plan.trials[0].trial.recipe
    epochs = 4 * long.epochs - recipe.epochs
    assert judged.device_seconds == pytest.approx(3.0 * epochs + 4 * 2.0 * scorings(long))
    assert judged.seconds == pytest.approx(judged.device_seconds / 3)
    assert (judged.known, judged.alike, judged.memory, judged.slots) == (4, 0, 7, 3)
    assert judged.by == ("4 finished trials on an unknown device",)
    assert judged.disk > 0


def test_trials_of_another_variant_are_judged_by_its_likes_and_other_data_by_nothing(lab: Lab) -> None:
    for planned in planned_in(lab).trials[::2]:  # one of two heads
        finish(planned)
    plan = planned_in(lab)
    shapes = shapes_of(plan)
    judged = estimate(plan, shapes, recorded(plan, lab, shapes), 1)
    assert (judged.trials, judged.known, judged.alike) == (2, 2, 2)
    other = planned_in(lab, SMOKE.replace("shapes-mini", "shapes"), "other")
    shapes = shapes_of(other)
    assert estimate(other, shapes, recorded(other, lab, shapes), 1).known == 0


def shared(planned: PlannedTrial, sharing: int) -> None:
    """Change the record of a trial to one on a GPU that so many trials shared."""
    record = planned.record
    assert record is not None
    environment = Environment(device="a GPU", precision="bf16", threads=1, repeatable=False, system="Linux",
                              versions={}, commit=None, kind="cuda", sharing=sharing)  # fmt: skip
    planned.folder.finish(record.model_copy(update={"environment": environment}))


def test_trials_that_share_a_gpu_are_taken_to_gain_nothing_unless_it_was_measured(lab: Lab) -> None:
    alone, together = [planned for planned in planned_in(lab).trials if planned.cell.label == "fcn32s"]
    finish(alone, train=10.0, evaluate=0.0)
    finish(together, train=24.0, evaluate=0.0)
    shared(alone, 1)
    plan = planned_in(lab)
    shapes = shapes_of(plan)

    def judged(sharing: int) -> Estimate:
        return estimate(plan, shapes, recorded(plan, lab, shapes, sharing), slots=sharing, sharing=sharing)

    shared(together, 1)
    both = judged(1)
    assert (both.trials, both.derived) == (2, 0)
    assert both.device_seconds == pytest.approx(2 * 17.0)
    derived = judged(2)
    assert (derived.sharing, derived.derived) == (2, 2)
    assert derived.device_seconds == pytest.approx(both.device_seconds)
    assert derived.seconds == pytest.approx(both.seconds), "two at once take as long as one after the other"
    shared(together, 2)
    measured = judged(2)
    assert measured.derived == 0
    assert measured.seconds == pytest.approx(24.0)
    assert measured.device_seconds == pytest.approx(24.0)
    assert judged(4).derived == 2


def test_a_plan_says_that_the_speed_of_trials_on_one_gpu_is_not_measured(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(planned_in(lab).trials[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    command = ["fcnlab", "grid", "plan", str(lab.root / "experiments" / "question.yaml")]
    for words, says in ([], False), (["--per-gpu", "2"], True), (["--per-gpu", "2", "--device", "cpu"], False):
        monkeypatch.setattr(sys, "argv", command + words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        text = capsys.readouterr().out
        assert ("2 trials share a GPU; their speed together is not measured for 3 of these" in text) == says, text


def test_a_grid_takes_no_less_than_its_longest_trial(lab: Lab) -> None:
    plan = planned_in(lab)
    shapes = shapes_of(plan)
    paces = {shape: Pace(epoch=float(number), scoring=0.0, memory=None, disk=1, device="a", trials=1)
             for number, shape in enumerate(dict.fromkeys(shapes.values()), start=1)}  # fmt: skip
    judged = estimate(plan, shapes, paces, 99)
    assert judged.slots == 4
    assert judged.seconds == max(
        paces[shapes[p.key]].seconds(p.trial.recipe, p.trial.recipe.epochs) for p in plan.remaining
    )


def test_a_probe_measures_each_shape_once_and_records_nothing(lab: Lab) -> None:
    plan = planned_in(lab, SMOKE.replace("[fcn32s, fcn8s]", "[fcn32s]"))
    shapes = shapes_of(plan)
    told: list[str] = []
    paces = probe(plan, lab, shapes, Slot(threads=1), told.append)
    assert told == ["fcn32s-tiny-scratch-bilinear on shapes-mini"]
    (pace,) = [paces[shape] for shape in set(shapes.values())]
    assert pace.epoch > 0 and pace.scoring > 0 and pace.disk > 1e6
    assert pace.memory is not None and pace.memory > 1e7
    judged = estimate(plan, shapes, paces, 2)
    assert judged.known == 2 and judged.by[0].startswith("1 probe of 4 steps on ")
    assert not lab.runs.exists()


def test_a_probe_of_what_cannot_be_built_says_why_in_a_line(lab: Lab) -> None:
    plan = planned_in(lab, SMOKE.replace("recipe: smoke}", "recipe: smoke, recipe.batch_size: 99}"))
    with pytest.raises(
        RunError, match=r"--probe: fcn32s-.*a batch of 99 is more than the training split has"
    ) as caught:
        probe(plan, lab, shapes_of(plan), Slot(threads=1), lambda what: None)
    assert "\n" not in str(caught.value)


# --- large grids ------------------------------------------------------------------------------------------------------

LARGE = """
question: How large may a grid be?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes, recipe: quick}
product:
  head: [fcn32s, fcn16s, fcn8s, fcn4s]
  recipe.lr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
  recipe.weight_decay: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
  recipe.flip: [0.0, 0.1, 0.2, 0.3, 0.4]
seeds: 5
baseline: {head: fcn32s, recipe.lr: 0.1, recipe.weight_decay: 0.0, recipe.flip: 0.0}
"""


def test_ten_thousand_trials_are_planned_without_torch(lab: Lab) -> None:
    file = write_grid(lab.root, LARGE)
    code = (
        "import sys, fcnlab.cli\n"
        f"sys.argv = ['fcnlab', 'grid', 'plan', {str(file)!r}]\n"
        "try: fcnlab.cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'mlflow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2000 cells; --all shows each" in done.stdout and "10000 trials: 10000 to do" in done.stdout


def test_ten_thousand_trials_are_planned_in_seconds_and_keep_no_record_in_memory(lab: Lab) -> None:
    # benchmarks/plan_cost.py measures it properly; this only notices when something becomes quadratic.
    grid = lab.load_grid(write_grid(lab.root, LARGE))
    for planned in make_plan(grid, lab).trials[:3]:
        finish(planned)
    gc.collect()
    before = sum(type(thing) is Record for thing in gc.get_objects())
    began = time.process_time()
    plan = make_plan(grid, lab)
    shapes = shapes_of(plan)
    estimate(plan, shapes, recorded(plan, lab, shapes), 2)
    assert time.process_time() - began < 5
    assert len(plan.trials) == len({planned.key for planned in plan.trials}) == 10_000
    gc.collect()
    assert sum(type(thing) is Record for thing in gc.get_objects()) <= before
