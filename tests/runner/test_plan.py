"""The plan of a grid: ended and remaining trials, reports that contain them, and the estimated cost."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import subprocess
import sys
import time
from functools import partial

import pytest
import timm
import torch
from PIL import Image

from fcnlab import cli
from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.runner.checks.network import read_gmacs
from fcnlab.runner.checks.trials import OpenedData, check_trials
from fcnlab.runner.cost import measure
from fcnlab.runner.cost.estimate import START_SECONDS, STARTS, CostEstimate, estimate_cost
from fcnlab.runner.cost.history import find_workloads, read_cost_rates
from fcnlab.runner.cost.probe import probe
from fcnlab.runner.cost.rate import EXTRAPOLATED_SPREAD, PROBE_SPREAD, SETUP_SECONDS, CostRate, count_validations
from fcnlab.runner.executors import worker_process
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import Plan, PlannedTrial, count_reported, make_plan
from fcnlab.settings import cache_folder
from fcnlab.trial.record import Cost, Environment, EpochRecord, Failure, Record, SplitMetrics
from tests.conftest import SMOKE, write_grid
from tests.growth import count_calls
from tests.patience import patience

VAL, TEST = 4, 6
"""Images of the splits of shapes-mini."""


def planned_in(lab: Lab, text: str = SMOKE, name: str = "question") -> Plan:
    return make_plan(lab.load_grid(write_grid(lab.root, text, name)), lab)


def finish(planned: PlannedTrial, train: float = 8.0, evaluate: float = 2.0, memory: int | None = None) -> None:
    """Write the record of a trial with this cost, in seconds."""
    cost = Cost(params=1, trainable_params=1, gmacs=1.0, gmacs_size=(1, 1), train_seconds=train,
                evaluate_seconds=evaluate, images_per_s=1.0, peak_memory=memory)  # fmt: skip
    planned.folder.create()
    metrics = tuple(
        SplitMetrics(split=split, checkpoint=checkpoint, epoch=planned.trial.recipe.epochs, images=images, miou=0.5,
                     pixel_acc=0.5, mean_acc=0.5, fw_iou=0.5, class_iou=())
        for split, images in (("val", VAL), ("test", TEST)) for checkpoint in ("last", "best")
    )  # fmt: skip
    planned.folder.finish(Record.create(planned.trial, "finished", cost=cost, metrics=metrics))


def fail(planned: PlannedTrial) -> None:
    planned.folder.create()
    planned.folder.finish(Record.create(planned.trial, "failed", failure=Failure(cause="exception", message="no")))


def start(planned: PlannedTrial, epochs: int) -> None:
    planned.folder.create()
    epoch = EpochRecord(epoch=1, loss=1.0, lr=0.1, images_per_s=1.0, seconds=1.0)
    planned.folder.write_progress([epoch.model_copy(update={"epoch": number + 1}) for number in range(epochs)])


COPIES = """
question: Is one row lost?
base: {head: fcn8s, backbone: tiny-scratch, recipe: smoke}
product: {dataset: [first, second]}
seeds: 2
"""


def test_cells_with_the_same_trials_are_an_error_before_anything_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = "{type: folder, images: %s/images, masks: %s/masks, classes: [a, b], "
    entry += "fractions: {val: 0.5}, nominal: {height: 4, width: 4}}"
    (lab.root / "registry").mkdir()
    entries = [f"{name}: {entry % (name, name)}\n" for name in ("first", "second")]
    (lab.root / "registry" / "datasets.yaml").write_text("".join(entries), encoding="utf-8")
    for folder, mode in itertools.product(("first", "second"), ("RGB", "L")):
        path = lab.root / folder / ("images" if mode == "RGB" else "masks")
        path.mkdir(parents=True)
        for name in "pq":
            Image.new(mode, (4, 4)).save(path / f"{name}.png")
    write_grid(lab.root, COPIES)
    for command in ("plan", "run"):
        assert run_cli(monkeypatch, lab, "grid", command, "experiments/question.yaml") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "question.yaml: the cells 'first' and 'second' have trials in common (same data" in error
    Image.new("L", (4, 4), 1).save(lab.root / "second" / "masks" / "p.png")
    assert len(planned_in(Lab.find(root=lab.root), COPIES).trials) == 4


def test_a_trial_and_its_key_in_init_from_give_cells_with_the_same_trials(lab: Lab) -> None:
    base = "base: {backbone: tiny-scratch, dataset: shapes-mini, recipe: smoke"
    (planned,) = planned_in(lab, f"question: q\n{base}, head: fcn32s}}\n").trials
    finish(planned)
    product = f"product: {{init_from: [{{head: fcn32s}}, {planned.key}]}}"
    with pytest.raises(ConfigError, match=f"and '{planned.key}' have trials in common"):
        planned_in(lab, f"question: q\n{base}, head: fcn8s}}\n{product}\n", "both")


def test_weights_files_are_checked_before_anything_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_grid(lab.root, SMOKE.replace("base: {", "base: {backbone.weights: w.ckpt, "), "weights")
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, lab.root / "w.ckpt")
    for command in ("plan", "run"):
        assert run_cli(monkeypatch, lab, "grid", command, "experiments/weights.yaml") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "w.ckpt: does not fit: " in error
    assert not lab.runs.exists() or not list(lab.runs.iterdir())

    state = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, lab.root / "w.ckpt")
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **options: reads.append(given) or load(*given, **options))
    assert run_cli(monkeypatch, lab, "grid", "plan", "experiments/weights.yaml") == 0
    assert "weights w.ckpt: prefix 'state_dict.module.' removed; not used: fc.weight" in capsys.readouterr().out
    assert len(reads) == 1  # the same backbone in two cells with two seeds


def run_cli(monkeypatch: pytest.MonkeyPatch, lab: Lab, *arguments: str) -> int:
    """Run a command in a lab and return its exit code."""
    monkeypatch.chdir(lab.root)
    monkeypatch.setattr(sys, "argv", ["fcnlab", *arguments])
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_plan_reads_the_state_of_each_trial(lab: Lab) -> None:
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


def test_a_trial_with_a_truncated_record_is_damaged_and_remains(lab: Lab) -> None:
    planned = planned_in(lab).trials[0]
    finish(planned)
    planned.folder.record.write_bytes(planned.folder.record.read_bytes()[:-40])
    plan = planned_in(lab)
    assert plan.trials[0].state == "damaged" and plan.trials[0].key in [one.key for one in plan.remaining]
    assert plan.damages == [f"damaged: {planned.description}: {planned.folder.record}: it is truncated or not JSON"]


def test_plan_does_not_change_after_it_is_made(lab: Lab) -> None:
    plan = planned_in(lab)
    finish(plan.trials[0])
    assert plan.trials[0].state == "to do"
    assert plan.trials[0].record is not None
    assert list(plan.records()) == []


def test_pruned_cells_are_marked_and_do_not_remain(lab: Lab) -> None:
    text = SMOKE.replace("recipe: smoke}", "recipe: smoke, recipe.epochs: 4}").replace(
        "[fcn32s, fcn8s]", "[fcn32s, fcn8s, fcn16s]"
    )
    plan = planned_in(lab, text + "early_stopping: {after: 2, margin: 10}\n")
    miou = {"fcn32s": 0.1, "fcn16s": 0.6, "fcn8s": 0.3}
    for planned in plan.trials:
        start(planned, 2)
        epochs = [epoch.model_copy(update={"val_miou": miou[planned.cell.label]})
                  for epoch in planned.folder.read_progress()]  # fmt: skip
        planned.folder.write_progress(epochs)
    plan = make_plan(plan.grid, lab)
    assert {(planned.cell.label, planned.state) for planned in plan.trials} == {
        ("fcn32s", "started"), ("fcn16s", "started"), ("fcn8s", "pruned"),
    }  # fmt: skip
    assert len(plan.remaining) == 4


def test_finished_trials_are_counted_in_existing_reports(lab: Lab) -> None:
    plan = planned_in(lab)
    for planned in plan.trials[:3]:
        finish(planned)
    for name, keys in (("before", [plan.trials[0].key, plan.trials[3].key]), ("other", ["a" * 64])):
        folder = lab.results / name
        folder.mkdir(parents=True)
        (folder / "provenance.json").write_text(json.dumps({"trials": [{"key": key} for key in keys]}))
    (lab.results / "damaged").mkdir()
    (lab.results / "damaged" / "provenance.json").write_text('{"trials": [')
    (lab.results / "foreign").mkdir()
    (lab.results / "foreign" / "provenance.json").write_text('["of another program"]')
    assert count_reported(make_plan(plan.grid, lab), lab) == {"before": 1}


def test_at_most_three_reports_with_reused_trials_are_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned_in(lab)
    for planned in plan.trials:
        finish(planned)
    for name, count in {"a": 1, "b": 1, "c": 1, "d": 1, "e": 4}.items():
        (lab.results / name).mkdir(parents=True)
        trials = [{"key": planned.key} for planned in plan.trials[:count]]
        (lab.results / name / "provenance.json").write_text(json.dumps({"trials": trials}))
    assert run_cli(monkeypatch, lab, "grid", "plan", "experiments/question.yaml") == 0
    output = capsys.readouterr().out
    few = "4 of them in results/e, 1 of them in results/a, 1 of them in results/b and in 2 other reports"
    assert few in output and "results/c" not in output


# --- estimated cost ---------------------------------------------------------------------------------------------------


def test_estimate_is_empty_without_finished_trials(lab: Lab) -> None:
    plan = planned_in(lab)
    workloads = find_workloads(plan)
    result = estimate_cost(plan, lab, workloads, read_cost_rates(plan, lab, workloads), 2)
    assert (result.trials, result.known, result.sources, result.memory) == (4, 0, (), None)


def test_estimate_scales_finished_trials_of_the_same_workload_by_epochs(lab: Lab) -> None:
    short = planned_in(lab)
    recipe = short.trials[0].trial.recipe
    for planned in short.trials:
        images = VAL * count_validations(recipe) + TEST
        finish(planned, train=3.0 * recipe.epochs, evaluate=2.0 * images, memory=7)
    text = SMOKE.replace("recipe: smoke}", f"recipe: smoke, recipe.epochs: {10 * recipe.epochs}, recipe.lr: 0.001}}")
    plan = planned_in(lab, text, "longer")
    start(plan.trials[0], recipe.epochs)
    plan = make_plan(plan.grid, lab)
    workloads = find_workloads(plan)
    result = estimate_cost(plan, lab, workloads, read_cost_rates(plan, lab, workloads), 3)
    long = plan.trials[0].trial.recipe
    epochs = 4 * long.epochs - recipe.epochs
    # Val and test are evaluated at the end, and again in every second trial, whose best epoch is not the last.
    evaluated = VAL * (count_validations(long) - 1) + 1.5 * (VAL + TEST)
    assert result.device_seconds == pytest.approx(3.0 * epochs + 4 * (2.0 * evaluated + SETUP_SECONDS))
    assert result.device_seconds / 3 < result.seconds and result.low < result.seconds < result.high
    assert (result.known, result.from_gmacs, result.memory, result.slots) == (4, 0, 7, 3)
    assert result.sources == ("4 finished trials on an unknown device",)
    assert result.disk > 0


def test_other_networks_are_estimated_by_gmacs_and_other_datasets_are_not(lab: Lab) -> None:
    text = SMOKE.replace("backbone: tiny-scratch, ", "head: fcn8s, ").replace("head: [fcn32s, fcn8s]",
        "backbone: [tiny-scratch, resnet18-scratch]").replace("{head: fcn32s}", "{backbone: tiny-scratch}")  # fmt: skip
    for planned in planned_in(lab, text).trials[::2]:
        finish(planned, train=4.0, evaluate=0.0)
    plan = planned_in(lab, text)
    check_trials(plan.all_trials, lab, plan.grid.path)
    workloads = find_workloads(plan)
    result = estimate_cost(plan, lab, workloads, read_cost_rates(plan, lab, workloads), 1)
    assert (result.trials, result.known, result.from_gmacs) == (2, 2, 2)
    assert result.sources == ("2 finished trials on an unknown device",)
    data = OpenedData(lab)
    gmacs = [read_gmacs(data.describe_network(planned.trial)) for planned in plan.trials[:2]]
    assert gmacs[0] and gmacs[1] and 5 < gmacs[1] / gmacs[0] < 20
    assert result.device_seconds == pytest.approx(2 * (4.0 * gmacs[1] / gmacs[0] + SETUP_SECONDS))
    assert result.high / result.low > 3
    other = planned_in(lab, text.replace("shapes-mini", "shapes"), "other")
    workloads = find_workloads(other)
    assert estimate_cost(other, lab, workloads, read_cost_rates(other, lab, workloads), 1).known == 0


def shared(planned: PlannedTrial, trials_per_device: int) -> None:
    """Change the record of a trial: the given number of trials shared its GPU."""
    record = planned.record
    assert record is not None
    environment = Environment(device="a GPU", precision="bf16", threads=1, repeatable=False, system="Linux",
                              versions={}, commit=None, kind="cuda", trials_per_device=trials_per_device)  # fmt: skip
    planned.folder.finish(record.model_copy(update={"environment": environment}))


def test_sharing_a_gpu_gains_nothing_unless_measured(lab: Lab) -> None:
    text = SMOKE.replace("[fcn32s, fcn8s]", "[fcn32s]").replace("seeds: 2", "seeds: 4")
    first, second = planned_in(lab, text).trials[:2]
    finish(first, train=10.0, evaluate=0.0)
    finish(second, train=24.0, evaluate=0.0)
    shared(first, 1)
    plan = planned_in(lab, text)
    workloads = find_workloads(plan)

    def estimate(trials_per_device: int) -> CostEstimate:
        return estimate_cost(
            plan,
            lab,
            workloads,
            read_cost_rates(plan, lab, workloads, trials_per_device),
            slots=trials_per_device,
            trials_per_device=trials_per_device,
        )

    shared(second, 1)
    both = estimate(1)
    assert (both.trials, both.extrapolated) == (2, 0)
    assert both.device_seconds == pytest.approx(2 * (17.0 + SETUP_SECONDS))
    derived = estimate(2)
    assert (derived.trials_per_device, derived.extrapolated) == (2, 2)
    assert derived.device_seconds == pytest.approx(both.device_seconds)
    assert derived.seconds == pytest.approx(both.seconds), "two concurrent trials take as long as two in sequence"
    shared(second, 2)
    measured = estimate(2)
    assert measured.extrapolated == 0
    assert measured.seconds == pytest.approx(24.0 + SETUP_SECONDS + STARTS * START_SECONDS)
    assert measured.device_seconds == pytest.approx(24.0 + SETUP_SECONDS)
    assert estimate(4).extrapolated == 2


def test_plan_command_reports_missing_measurements_of_shared_gpus(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(planned_in(lab).trials[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    command = ["fcnlab", "grid", "plan", str(lab.root / "experiments" / "question.yaml")]
    for words, expected in ([], False), (["--per-gpu", "2"], True), (["--per-gpu", "2", "--device", "cpu"], False):
        monkeypatch.setattr(sys, "argv", command + words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        text = capsys.readouterr().out
        assert ("2 trials share a GPU; no measurement with 2 trials per GPU for 3 of these" in text) == expected, text


def test_estimate_is_at_least_the_time_of_the_longest_trial(lab: Lab) -> None:
    plan = planned_in(lab)
    workloads = find_workloads(plan)
    rates = {workload: CostRate(epoch_seconds=float(number), image_seconds=0.0, memory=None, disk=1,
                                 device="a", trials=1)
             for number, workload in enumerate(dict.fromkeys(workloads.values()), start=1)}  # fmt: skip
    result = estimate_cost(plan, lab, workloads, rates, 99)
    assert result.slots == 4
    longest = max(rates[workloads[p.key]].epoch_seconds * p.trial.recipe.epochs for p in plan.remaining)
    assert result.seconds == longest + STARTS * START_SECONDS


@pytest.fixture
def patient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a probe measure everything on a machine of any speed."""
    monkeypatch.setattr("fcnlab.runner.cost.probe.BUDGET", 10 * patience())
    monkeypatch.setattr("fcnlab.runner.cost.probe.LIMIT", 10 * patience())


@pytest.mark.usefixtures("patient_probe")
def test_probe_measures_each_workload_once_keeps_it_and_records_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A probe has more steps than a trial of one epoch, whose schedule ends after two.
    short = "recipe: smoke, recipe.epochs: 1, recipe.batch_size: 8, recipe.schedule: {name: poly}}"
    text = SMOKE.replace("seeds: 2", "seeds: 1").replace("recipe: smoke}", short)
    plan = planned_in(lab, text)
    workloads = find_workloads(plan)
    lines: list[str] = []
    rates = probe(plan, lab, workloads, [Slot(threads=1)], lines.append)
    assert len(lines) == 1 and lines[0].startswith("measuring 2 kinds of trials")
    assert set(rates) == set(workloads.values())
    for rate in rates.values():
        assert min(rate.epoch_seconds, rate.image_seconds, rate.setup_seconds, rate.start_seconds) > 0
        assert rate.disk > 1e6 and rate.memory is not None and rate.memory > 1e7 and rate.spread == PROBE_SPREAD
    result = estimate_cost(plan, lab, workloads, rates, 2)
    assert result.known == 2 and result.sources[0].startswith("2 probes of a few steps on ")
    assert not lab.runs.exists() and not list(cache_folder().glob("decoded/*/pixels.bin"))
    monkeypatch.setattr("fcnlab.runner.cost.probe._measure", None)  # nothing is measured again
    assert probe(plan, lab, workloads, [Slot(threads=1)], lines.append) == rates
    known = dict.fromkeys(rates, next(iter(rates.values())))
    assert probe(plan, lab, workloads, [Slot(threads=2)], lines.append, known) == {}
    assert len(lines) == 1


@pytest.mark.usefixtures("patient_probe")
def test_a_trial_that_cannot_be_measured_is_reported_in_one_line_and_has_no_estimate(lab: Lab) -> None:
    plan = planned_in(lab, SMOKE.replace("recipe: smoke}", "recipe: smoke, recipe.batch_size: 99}"))
    workloads = find_workloads(plan)
    lines: list[str] = []
    assert probe(plan, lab, workloads, [Slot(threads=1)], lines.append) == {}
    assert len(lines) == 3 and all("\n" not in line for line in lines)
    assert "not measured: fcn32s-" in lines[1] and "a batch of 99 is more than the" in lines[1]
    assert estimate_cost(plan, lab, workloads, {}, 2).known == 0


def test_a_probe_that_is_cut_off_names_the_trials_that_it_has_not_measured(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned_in(lab)
    lines: list[str] = []
    monkeypatch.setattr("fcnlab.runner.cost.probe.LIMIT", 0.0)
    assert probe(plan, lab, find_workloads(plan), [Slot(threads=1)], lines.append) == {}
    names = "fcn32s-tiny-scratch-bilinear, fcn8s-tiny-scratch-bilinear"
    assert lines[1:] == [f"not measured in this time: 2 kinds of trials ({names})"]


def test_a_probe_whose_processes_end_at_once_is_one_line_also_for_many_workloads(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "{backbone: tiny-scratch, dataset: shapes-mini, recipe: smoke, head: fcn32s}"
    product = f"{{recipe.batch_size: {[*range(1, 41)]}}}"
    plan = planned_in(lab, f"question: 40 workloads?\nbase: {base}\nproduct: {product}\n")
    assert sum(len(planned.trial.model_dump_json()) for planned in plan.remaining) > 2**16  # more than a pipe holds
    monkeypatch.setattr("sys.executable", "false")
    monkeypatch.setattr(worker_process, "_servers", {})
    lines: list[str] = []
    assert probe(plan, lab, find_workloads(plan), [Slot(threads=1)], lines.append) == {}
    assert "the process that measures it ended with exit code" in lines[1]
    for server in worker_process._servers.values():
        server.close()


def test_a_slow_network_is_measured_with_one_small_step(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(measure, "_train", lambda *arguments: steps.append(arguments[-1]) or 2.0)
    trial = planned_in(lab).trials[0].trial
    images = len(lab.open_dataset(trial.dataset).split("train"))
    rate = measure.measure_trial(trial, lab, deadline=time.monotonic())
    assert steps == [2] and images % trial.recipe.batch_size == 0
    assert rate.epoch_seconds == pytest.approx(images / 2 * 2.0)
    assert (rate.memory, rate.spread, rate.final_image_seconds) == (None, EXTRAPOLATED_SPREAD, rate.image_seconds)


def test_trials_of_other_sizes_are_estimated_by_their_arithmetic_with_a_wide_range(lab: Lab) -> None:
    text = SMOKE.replace("head: [fcn32s, fcn8s]", "recipe.crop: [{height: 64, width: 64}, {height: 32, width: 64}]")
    text = text.replace("base: {", "base: {head: fcn8s, ").replace("seeds: 2", "seeds: 1")
    plan = planned_in(lab, text.replace("baseline: {head: fcn32s}", ""))
    check_trials(plan.all_trials, lab, plan.grid.path)
    workloads = find_workloads(plan)
    large = CostRate(epoch_seconds=8.0, image_seconds=1.0, memory=7, disk=1, device="a", trials=0)
    result = estimate_cost(plan, lab, workloads, {workloads[plan.trials[0].key]: large}, 1)
    assert (result.known, result.from_gmacs) == (2, 1)
    alone = estimate_cost(plan, lab, workloads, dict.fromkeys(workloads.values(), large), 1)
    epochs = plan.trials[0].trial.recipe.epochs
    assert alone.device_seconds - result.device_seconds == pytest.approx(4.0 * epochs, rel=0.1)
    assert result.high - result.seconds > alone.high - alone.seconds


# --- large grids ------------------------------------------------------------------------------------------------------

LARGE = """
question: How large can a grid be?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes, recipe: quick}
product:
  head: [fcn32s, fcn16s, fcn8s, fcn4s]
  recipe.lr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
  recipe.weight_decay: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
  recipe.flip: [0.0, 0.1, 0.2, 0.3, 0.4]
seeds: 5
baseline: {head: fcn32s, recipe.lr: 0.1, recipe.weight_decay: 0.0, recipe.flip: 0.0}
"""
SMALLER = LARGE.replace("[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]", "[0.0]")


def test_plan_of_ten_thousand_trials_with_known_networks_does_not_import_torch(lab: Lab) -> None:
    file = write_grid(lab.root, LARGE)
    check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file)
    code = (
        "import sys, fcnlab.cli\n"
        f"sys.argv = ['fcnlab', 'grid', 'plan', {str(file)!r}]\n"
        "try: fcnlab.cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'mlflow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=patience())
    assert done.returncode == 0, done.stderr
    assert "2,000 cells; --all shows each" in done.stdout and "10,000 trials: 10,000 to do" in done.stdout


def plan_and_estimate(grid: Grid, lab: Lab) -> Plan:
    plan = make_plan(grid, lab)
    workloads = find_workloads(plan)
    estimate_cost(plan, lab, workloads, read_cost_rates(plan, lab, workloads), 2)
    return plan


def test_work_of_a_plan_grows_in_proportion_to_its_trials(lab: Lab) -> None:
    calls = []
    for seeds in (1, 2):
        grid = lab.load_grid(write_grid(lab.root, SMALLER.replace("seeds: 5", f"seeds: {seeds}")))
        assert len(plan_and_estimate(grid, lab).trials) == 200 * seeds  # what is cached is in the cache
        calls.append(count_calls(partial(plan_and_estimate, grid, lab)))
    assert calls[1] < 2.5 * calls[0]


def test_a_plan_keeps_no_records_in_memory(lab: Lab) -> None:
    grid = lab.load_grid(write_grid(lab.root, SMALLER))
    for planned in make_plan(grid, lab).trials[:3]:
        finish(planned)
    gc.collect()
    before = sum(type(thing) is Record for thing in gc.get_objects())
    plan = plan_and_estimate(grid, lab)
    assert len(plan.trials) == len({planned.key for planned in plan.trials}) == 1_000
    gc.collect()
    assert sum(type(thing) is Record for thing in gc.get_objects()) <= before


def test_code_to_paste_is_printed_without_a_prefix(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_grid(lab.root, SMOKE.replace("base: {", "base: {backbone.weights: w.pth, "), "weights")
    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, lab.root / "w.pth")
    assert run_cli(monkeypatch, lab, "grid", "plan", "experiments/weights.yaml") == 2
    first, *code = capsys.readouterr().err.splitlines()
    assert first.startswith("fcnlab: error: ")
    assert [line.split("(")[0] for line in code] == ["import torch; c = torch.load", "torch.save"]
