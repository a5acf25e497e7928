"""Whole grids with worker processes, MLflow and reports."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import fcnlab
from fcnlab.cli import app
from fcnlab.errors import RunError, StopRunError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Executor
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import Publisher
from fcnlab.runner.run import Outcome, hold_leases, run_grid, sync_grid
from fcnlab.settings import RunOptions
from fcnlab.tracking.store import open_client
from fcnlab.trial.run_folder import RunFolder
from tests.builders import failed_record, finished_record
from tests.conftest import SMOKE, write_grid
from tests.patience import patience, wait_until
from tests.remarks import RemarkRecorder

TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]
"""The columns that differ from run to run."""


def run(path: Path, lab: Lab | None = None, *, retry_failed: bool = False) -> Outcome:
    return fcnlab.run_grid(fcnlab.load_grid(path), workers=2, threads=1, lab=lab, quiet=True, retry_failed=retry_failed)


DRIVER = """
import sys
import fcnlab.runner.run
from fcnlab.cli import main
fcnlab.runner.run.EXIT_TIMEOUT = 600.0  # on a slow machine, MLflow may need longer to open its first store
try:
    main()
finally:
    print("torch imported:", "torch" in sys.modules)
"""


def fcnlab_run(path: Path, workers: int = 2) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, "grid", "run", str(path), "--workers", str(workers), "--threads", "1"]
    command += ["--checkpoint-every", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path.parent.parent / "results" / path.stem / "table.csv").drop(columns=TIMES, errors="ignore")


@pytest.fixture(scope="module")
def complete_grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a grid without interruption and return its file."""
    path = write_grid(tmp_path_factory.mktemp("complete"), SMOKE)
    outcome = run(path)
    assert outcome == Outcome(finished=4, failed=0, reused=0)
    return path


def test_report_contains_every_format(complete_grid: Path) -> None:
    results = complete_grid.parent.parent / "results" / "question"
    names = {"README.md", "table.csv", "table.md", "table.tex", "trials.csv", "provenance.json", "predictions.png"}
    names |= {"plots", "report.html"}
    assert {file.name for file in results.iterdir()} == names
    page = (results / "README.md").read_text()
    assert (results / "table.md").read_text() in page
    assert "fcnlab grid run experiments/question.yaml" in page
    assert str(complete_grid.parent.parent) not in page, "a report contains no absolute path"


def test_frame_has_one_row_per_trial_and_summary_one_row_per_cell(complete_grid: Path) -> None:
    grid = fcnlab.load_grid(complete_grid)
    frame, summary = fcnlab.frame(grid), fcnlab.summary(grid)
    assert list(frame["seed"]) == [0, 1, 0, 1]
    assert set(frame["status"]) == {"finished"}
    assert list(summary["head"]) == ["fcn32s", "fcn8s"]
    assert list(summary["n"]) == [2, 2]
    by_cell = frame.groupby("head")["miou"]
    assert list(summary["miou"]) == pytest.approx(list(by_cell.mean()))
    assert list(summary["miou_std"]) == pytest.approx(list(by_cell.std()))
    paired = frame[frame["head"] == "fcn8s"]["miou"].to_numpy() - frame[frame["head"] == "fcn32s"]["miou"].to_numpy()
    assert summary["delta"][1] == pytest.approx(paired.mean())


def test_mlflow_has_a_parent_run_and_one_child_run_per_trial(complete_grid: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Lab.find(complete_grid).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if r.data.tags["fcnlab.role"] == "grid"]
    assert [(r.info.status, r.data.tags["mlflow.runName"]) for r in parents] == [("FINISHED", "question")]
    assert {item.path for item in client.list_artifacts(parents[0].info.run_id)} == {"report", "question.yaml"}
    found = client.search_runs([experiment.experiment_id], "params.head = 'fcn8s' and params.seed = '1'")
    assert len(found) == 1
    child = found[0]
    assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert child.info.status == "FINISHED"
    assert {"variant", "backbone", "head", "upsampler", "recipe", "dataset", "seed"} <= set(child.data.params)
    metrics = child.data.metrics
    assert {"test/miou", "val/miou", "val/miou_best", "pixel_acc", "miou", "cost/params", "cost/gmacs"} <= set(metrics)
    assert metrics["miou"] == metrics["test/miou"] < 1, "a fraction"
    record = RunFolder(Lab.find(complete_grid).runs, child.data.tags["fcnlab.key"]).read()
    classes = [f"test/iou/{name}" for name in record.classes]
    assert sorted(name for name in metrics if name.startswith("test/iou/")) == sorted(classes)
    assert metrics["test/miou"] == pytest.approx(sum(metrics[name] for name in classes) / len(classes))
    for name in ("train/loss", "val/miou"):
        points = client.get_metric_history(child.info.run_id, name)
        assert [point.step for point in points] == [1, 2], "the end of the trial repeats no point"
    assert "fractions of 1" in child.data.tags["mlflow.note.content"]


def test_mlflow_has_every_hyperparameter_and_the_origin_of_the_grid(complete_grid: Path) -> None:
    from mlflow.tracking import MlflowClient

    lab = Lab.find(complete_grid)
    client = MlflowClient(lab.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("fcnlab/question").experiment_id])
    (parent,) = (run for run in runs if run.data.tags["fcnlab.role"] == "grid")
    params = next(run for run in runs if run.data.tags.get("fcnlab.cell") == "fcn8s").data.params
    recipe = fcnlab.load_grid(complete_grid).cells[1].recipe
    assert params["recipe.optimizer.lr"] == str(recipe.optimizer.lr)
    assert params["recipe.optimizer.name"] == recipe.optimizer.name
    assert (params["head.stride"], params["upsampler.learned"], params["recipe.ema"]) == ("8", "true", "null")
    assert not any("description" in name for name in params)
    means = fcnlab.summary(fcnlab.load_grid(complete_grid)).set_index("cell")["miou"]
    assert parent.data.metrics == pytest.approx({"best/miou": means.max(), "best/seeds": 2})
    assert means[parent.data.tags["fcnlab.best_cell"]] == means.max()
    assert parent.data.tags["mlflow.source.name"] == "fcnlab grid run experiments/question.yaml"
    assert {run.data.tags["mlflow.user"] for run in runs} == {getpass.getuser()}


def test_finished_grid_runs_nothing_and_keeps_its_table(complete_grid: Path) -> None:
    before = table(complete_grid)
    grid, lab = fcnlab.load_grid(complete_grid), Lab.find(complete_grid)
    outcome = run_grid(grid, lab, ProgressReporter(), executor=lambda: pytest.fail("an executor was created"))
    assert outcome == Outcome(finished=4, failed=0, reused=4)
    fcnlab.report(grid, lab=lab)
    pd.testing.assert_frame_equal(table(complete_grid), before)


def test_additional_seed_runs_only_new_trials(complete_grid: Path) -> None:
    longer = write_grid(complete_grid.parent.parent, SMOKE.replace("seeds: 2", "seeds: 3"), "longer")
    plan = make_plan(fcnlab.load_grid(longer), Lab.find(longer))
    assert [planned.trial.seed for planned in plan.remaining] == [2, 2]


KILLED = """
import os, signal, sys
from pathlib import Path
import fcnlab
from fcnlab.lab import Lab
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import run_grid
from fcnlab.settings import RunOptions

class Killer(ProgressReporter):
    def on_trial_end(self, planned, record):
        os.kill(os.getpid(), signal.SIGKILL)

file = Path(sys.argv[1])
grid, lab = fcnlab.load_grid(file), Lab.find(file)
run_grid(grid, lab, Killer(), RunOptions(workers=2, threads=1))
"""
"""A driver that is killed when its first trial has finished, whatever the speed of the machine."""


def test_killed_driver_loses_and_repeats_nothing(complete_grid: Path, tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    first = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=patience())
    assert first.returncode == -signal.SIGKILL
    finished = {file: file.read_bytes() for file in (tmp_path / "runs").glob("*/record.json")}
    assert 0 < len(finished) < 4
    assert run(path).ok
    assert all(file.read_bytes() == content for file, content in finished.items())
    pd.testing.assert_frame_equal(table(path), table(complete_grid))
    frame = fcnlab.frame(fcnlab.load_grid(path))
    assert set(frame["status"]) == {"finished"}
    assert frame["run_id"].is_unique
    assert _statuses(path) == {"FINISHED"}


def test_exception_fails_the_trial_and_other_trials_run(tmp_path: Path) -> None:
    text = SMOKE.replace("head: [fcn32s, fcn8s]", "recipe.lr: [0.01, 1.0e+30]").replace("seeds: 2", "seeds: 1")
    text = text.replace("{head: fcn32s}", "{recipe.lr: 0.01}").replace("upsampler:", "head: fcn32s, upsampler:")
    path = write_grid(tmp_path, text)
    done = CliRunner().invoke(app, ["grid", "run", str(path), "--workers", "2", "--threads", "1"])
    assert done.exit_code == 1, done.output
    assert "a smaller learning rate may help" in done.output
    assert "0 of 1, 1 failed" in (tmp_path / "results" / "question" / "table.md").read_text()
    frame = fcnlab.frame(fcnlab.load_grid(path))
    assert list(frame["status"]) == ["finished", "failed"]
    assert "the loss of epoch 1 is" in frame["failure"][1]
    assert run(path, retry_failed=True) == Outcome(finished=1, failed=1, reused=1)
    again = fcnlab.frame(fcnlab.load_grid(path))
    assert list(again["status"]) == ["finished", "failed"], "the retried run replaces the previous one"
    assert list(again["run_id"] == frame["run_id"]) == [True, False]


def test_a_trial_that_another_driver_has_run_again_is_not_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_grid(tmp_path, SMOKE)
    grid, lab = fcnlab.load_grid(path), Lab.find(path, trackers="none")
    first, second, *_ = make_plan(grid, lab).trials
    for planned in (first, second):
        planned.folder.create()
        planned.folder.finish(failed_record(planned.trial))

    def check_while_another_driver_runs(*_: Any) -> list[str]:
        first.folder.finish(finished_record(first.trial))
        return []

    def create_no_executor() -> Executor:
        raise StopRunError("before a trial is started")

    monkeypatch.setattr("fcnlab.runner.run.check_trials", check_while_another_driver_runs)
    recorder = RemarkRecorder()
    with pytest.raises(StopRunError):
        run_grid(grid, lab, recorder, RunOptions(retry_failed=True), executor=create_no_executor)
    assert recorder.remarks[0] == "1 failed trial will be run again"
    assert first.record is not None and first.record.status == "finished"
    assert second.record is None


def test_trial_published_by_another_lab_is_not_published_again(complete_grid: Path, tmp_path: Path) -> None:
    theirs = Lab.find(complete_grid)
    path = write_grid(tmp_path, SMOKE)
    ours = Lab.find(path, tracking_uri=theirs.tracking_uri)
    grid = fcnlab.load_grid(path)
    before = fcnlab.frame(grid, lab=theirs)
    for planned in make_plan(grid, theirs).trials:
        record = planned.record
        assert record is not None
        own = RunFolder(ours.runs, record.key)
        own.create()
        own.finish(record.model_copy(update={"ended": "2001-01-01T00:00:00+00:00"}))
    assert sync_grid(grid, ours, ProgressReporter()).deferred == {}
    pd.testing.assert_frame_equal(fcnlab.frame(grid, lab=ours), before)


def test_two_drivers_share_a_grid(complete_grid: Path, tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    drivers = [fcnlab_run(path, workers=1) for _ in range(2)]
    outputs = [driver.communicate(timeout=patience())[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    started = [line.split("start  ")[1] for text in outputs for line in text.splitlines() if line.startswith("start  ")]
    assert sorted(started) == sorted(set(started)) and len(started) == 4, "no trial is run twice"
    pd.testing.assert_frame_equal(table(path), table(complete_grid))
    assert set(fcnlab.frame(fcnlab.load_grid(path))["run_id"]) == _trial_runs(path), "each is published once"
    assert _statuses(path) == {"FINISHED"}
    assert list(tmp_path.glob("runs/*/lease.*")) + list((tmp_path / ".fcnlab" / "drivers").iterdir()) == []


def test_record_published_by_another_driver_is_not_published_again(complete_grid: Path) -> None:
    grid, lab = fcnlab.load_grid(complete_grid), Lab.find(complete_grid)
    before = _trial_runs(complete_grid)
    with hold_leases(lab) as leases:
        publisher = Publisher(make_plan(grid, lab), lab, leases, ProgressReporter())
        assert publisher.take_over()
        for planned in make_plan(grid, lab).trials:
            publisher.publish(planned)
        publisher.close(complete=True)
    assert _trial_runs(complete_grid) == before


def test_running_trial_is_shown_with_its_curves(
    complete_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    ended = make_plan(fcnlab.load_grid(complete_grid), Lab.find(complete_grid)).trials[0].record
    assert ended is not None
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(fcnlab.load_grid(path), lab)
    with hold_leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, ProgressReporter())
        assert publisher.take_over()
        publisher.log_progress(plan.trials[0], ended.epochs)  # a trial that ends soon is written at its end
        monkeypatch.setattr("fcnlab.runner.publisher.LOG_INTERVAL", 0.0)
        publisher.log_progress(plan.trials[1], [])
        wait_until(lambda: _trial_runs(path), "the trial is in MLflow")
        publisher.log_progress(plan.trials[1], ended.epochs)
        (run_id,) = _trial_runs(path)
        client = MlflowClient(lab.tracking_uri)
        wait_until(lambda: "train/loss" in client.get_run(run_id).data.metrics, "its epochs are in MLflow")
        shown = client.get_run(run_id)
        assert shown.info.status == "RUNNING"
        assert shown.data.params["head"] == "fcn8s" and shown.inputs.dataset_inputs
        assert shown.data.metrics["train/loss"] == ended.epochs[-1].loss
        publisher.close(complete=False)
    assert _statuses(path) == {"KILLED"}, "until it is resumed"


def test_progress_of_an_already_published_trial_is_ignored(complete_grid: Path) -> None:
    grid, lab = fcnlab.load_grid(complete_grid), Lab.find(complete_grid)
    plan, before = make_plan(grid, lab), _trial_runs(complete_grid)
    with hold_leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, ProgressReporter())
        publisher.start_trial(plan.trials[0])
        assert publisher.take_over(), "all records are published"
        record = plan.trials[0].record
        assert record is not None
        publisher.log_progress(plan.trials[0], record.epochs)
        publisher.publish(plan.trials[0])
        publisher.close(complete=True)
    assert _trial_runs(complete_grid) == before and _statuses(complete_grid) == {"FINISHED"}


def test_sync_rejects_a_running_grid(complete_grid: Path) -> None:
    grid, lab = fcnlab.load_grid(complete_grid), Lab.find(complete_grid)
    with hold_leases(lab) as leases:
        assert Publisher(make_plan(grid, lab), lab, leases, ProgressReporter()).take_over()
        with pytest.raises(RunError, match="is being run"):
            sync_grid(grid, lab, ProgressReporter())


def test_interrupt_pauses_after_the_epoch_and_the_next_run_resumes(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path, SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 40").replace("seeds: 2", "seeds: 1")
    )
    first = fcnlab_run(path)
    wait_until(lambda: len(list(tmp_path.glob("runs/*/checkpoint.pt"))) == 2, "both trials have a checkpoint")
    first.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=patience())
    assert first.returncode == 130, out
    assert out.startswith("check networks and "), "there is output before torch is imported"
    assert "press Ctrl-C again to stop now" in out
    assert out.endswith("torch imported: False\n"), "it does not import torch, which needs seconds and memory"
    assert "paused " in out and "Resume with: fcnlab grid run" in out
    assert list(tmp_path.glob("runs/*/lease.*")) == []
    assert _statuses(path) == {"KILLED"}
    plan = make_plan(fcnlab.load_grid(path), Lab.find(path))
    paused = {one.folder.progress: one.folder.progress.read_text() for one in plan.trials if one.state == "started"}
    assert len(paused) == 2
    assert run(path).ok
    assert all(file.read_text().startswith(epochs) for file, epochs in paused.items()), "no epoch is trained twice"


def test_the_end_of_the_program_that_reads_the_output_pauses_trials(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 400"))
    driver = fcnlab_run(path)  # as `fcnlab grid run ... 2>&1 | head`
    assert driver.stdout is not None
    wait_until(lambda: len(list(tmp_path.glob("runs/*/checkpoint.pt"))) == 2, "both trials have a checkpoint")
    driver.stdout.close()
    assert driver.wait(patience()) == 130
    plan = make_plan(fcnlab.load_grid(path), Lab.find(path))
    assert [planned.state for planned in plan.trials].count("started") == 2
    assert list(tmp_path.glob("runs/*/lease.*")) == []
    logs = [file.read_text() for file in tmp_path.glob("runs/*/log.txt")]
    assert not any("Traceback" in log for log in logs)


def test_unreachable_store_defers_publishing_until_sync(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    away = Lab.find(path, tracking_uri="http://127.0.0.1:9")  # the discard port: no server answers
    grid = fcnlab.load_grid(path)
    outcome = run(path, away)
    assert outcome.finished == 2
    assert "the server cannot be reached" in outcome.deferred["mlflow"]
    back = Lab.find(path)
    assert sync_grid(grid, back, ProgressReporter()).deferred == {}
    assert set(fcnlab.frame(grid, lab=back)["status"]) == {"finished"}


def test_grid_without_mlflow_is_run_reported_and_published_elsewhere(complete_grid: Path, tmp_path: Path) -> None:
    there, blocker = tmp_path / "there", tmp_path / "blocker"
    there.mkdir()
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text("import sys\nsys.modules['mlflow'] = None\n")
    path = write_grid(there, SMOKE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocker), os.environ.get("PYTHONPATH", "")])}

    def fcnlab_there(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fcnlab", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=patience(),
        )  # fmt: skip
        return done.returncode, done.stdout

    code, out = fcnlab_there("grid", "run", str(path), "--workers", "2", "--threads", "1")
    assert code == 0, out
    remedy = f"MLflow is not installed; run `fcnlab grid sync {path}` where it is"
    # Once when it happens, and once below the table.
    assert out.count("MLflow") == 2 and f"publishing is deferred: {remedy}" in out and f"not published: {remedy}" in out
    assert "report: " in out and not (there / "mlflow.db").exists()
    pd.testing.assert_frame_equal(table(path), table(complete_grid))
    code, out = fcnlab_there("report", str(path), "--format", "csv")
    assert code == 0 and out.startswith("cell,head,n") and out.count("\n") == 4, out
    code, out = fcnlab_there("grid", "sync", str(path))
    assert (code, out) == (2, f"fcnlab: error: {remedy}\n")
    here = shutil.copytree(there, tmp_path / "here") / "experiments" / path.name
    grid, lab = fcnlab.load_grid(here), Lab.find(here)
    assert sync_grid(grid, lab, ProgressReporter()) == Outcome(finished=4, failed=0, reused=4)
    assert set(fcnlab.frame(grid)["run_id"]) == _trial_runs(here) and _statuses(here) == {"FINISHED"}


def _trial_runs(path: Path) -> set[str]:
    """Return the ids of all runs of trials, including those that a retry has replaced."""
    client = open_client(Lab.find(path).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    if experiment is None:
        return set()
    return {run.info.run_id for run in client.search_runs([experiment.experiment_id], "tags.`fcnlab.role` = 'trial'")}


def _statuses(path: Path) -> set[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Lab.find(path).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    assert experiment is not None
    return {run.info.status for run in client.search_runs([experiment.experiment_id])}
