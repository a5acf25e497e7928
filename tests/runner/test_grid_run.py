"""Whole grids through worker processes, MLflow and the report, as a user runs them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import fcnlab
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner import scheduler
from fcnlab.runner.executors.process import ProcessExecutor, plan_slots
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import Publisher
from fcnlab.trial.run_folder import RunFolder
from tests.conftest import SMOKE, write_grid

TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]
"""The columns that differ from run to run."""


def run(path: Path, lab: Lab | None = None) -> scheduler.Outcome:
    return fcnlab.run_grid(fcnlab.load_grid(path), workers=2, threads=1, lab=lab, quiet=True)


def fcnlab_run(path: Path, workers: int = 2) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fcnlab", "grid", "run", str(path), "--workers", str(workers), "--threads", "1"]
    command += ["--checkpoint-every", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path.parent.parent / "results" / path.stem / "table.csv").drop(columns=TIMES, errors="ignore")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that ran to its end undisturbed; gives its file."""
    path = write_grid(tmp_path_factory.mktemp("calm"), SMOKE)
    outcome = run(path)
    assert outcome == scheduler.Outcome(finished=4, failed=0, reused=0)
    return path


def test_a_grid_ends_in_tables_in_every_format(calm: Path) -> None:
    results = calm.parent.parent / "results" / "question"
    names = {"README.md", "table.csv", "table.md", "table.tex", "trials.csv", "provenance.json", "predictions.png"}
    names |= {"plots", "report.html"}
    assert {file.name for file in results.iterdir()} == names
    page = (results / "README.md").read_text()
    assert (results / "table.md").read_text() in page
    assert "fcnlab grid run experiments/question.yaml" in page
    assert str(calm.parent.parent) not in page, "a committed report holds no path of this machine"


def test_the_frame_has_a_row_a_trial_and_the_summary_a_row_a_cell(calm: Path) -> None:
    grid = fcnlab.load_grid(calm)
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


def test_the_book_has_a_parent_and_a_child_a_trial_that_group_and_filter(calm: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Lab.find(calm).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if r.data.tags["fcnlab.role"] == "grid"]
    assert [(r.info.status, r.data.tags["mlflow.runName"]) for r in parents] == [("FINISHED", "question")]
    assert {item.path for item in client.list_artifacts(parents[0].info.run_id)} == {"report"}
    found = client.search_runs([experiment.experiment_id], "params.head = 'fcn8s' and params.seed = '1'")
    assert len(found) == 1
    child = found[0]
    assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert child.info.status == "FINISHED"
    assert {"variant", "backbone", "head", "upsampler", "recipe", "dataset", "seed"} <= set(child.data.params)
    assert {"test_miou", "val_miou", "pixel_acc", "miou", "params", "gmacs"} <= set(child.data.metrics)
    assert [p.step for p in client.get_metric_history(child.info.run_id, "epoch_loss")] == [1, 2]


def test_a_finished_grid_runs_nothing_and_keeps_its_table(calm: Path) -> None:
    before = table(calm)
    grid, lab = fcnlab.load_grid(calm), Lab.find(calm)
    outcome = scheduler.run(grid, lab, lambda: pytest.fail("an executor was created"), ProgressReporter())
    assert outcome == scheduler.Outcome(finished=4, failed=0, reused=4)
    fcnlab.api.report(grid, lab=lab)
    pd.testing.assert_frame_equal(table(calm), before)


def test_a_seed_more_runs_only_what_is_new(calm: Path) -> None:
    longer = write_grid(calm.parent.parent, SMOKE.replace("seeds: 2", "seeds: 3"), "longer")
    plan = make_plan(fcnlab.load_grid(longer), Lab.find(longer))
    assert [planned.trial.seed for planned in plan.remaining] == [2, 2]


def test_a_driver_killed_in_the_middle_loses_and_repeats_nothing(calm: Path, tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    first = fcnlab_run(path)
    records = tmp_path / "runs"
    _wait_for(lambda: any(records.glob("*/record.json")))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = {file: file.read_bytes() for file in records.glob("*/record.json")}
    assert 0 < len(finished) < 4
    second = fcnlab_run(path)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert all(file.read_bytes() == content for file, content in finished.items())
    pd.testing.assert_frame_equal(table(path), table(calm))
    frame = fcnlab.frame(fcnlab.load_grid(path))
    assert set(frame["status"]) == {"finished"}
    assert frame["run_id"].is_unique
    assert _statuses(path) == {"FINISHED"}


def test_a_killed_trial_process_is_started_once_more(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    grid, lab = fcnlab.load_grid(path), Lab.find(path)

    class Killer(ProgressReporter):
        killed = 0

        def started(self, planned: object) -> None:
            super().started(planned)  # type: ignore[arg-type]
            if not self.killed:
                self.killed = _kill_a_trial()

    killer = Killer()
    outcome = scheduler.run(grid, lab, lambda: ProcessExecutor(lab, plan_slots(grid.recipes, 1, 1)), killer)
    assert killer.killed
    assert outcome == scheduler.Outcome(finished=2, failed=0, reused=0)


def test_a_trial_that_raises_is_a_failed_row_and_the_rest_runs_on(tmp_path: Path) -> None:
    text = SMOKE.replace("head: [fcn32s, fcn8s]", "recipe.batch_size: [4, 99]").replace("seeds: 2", "seeds: 1")
    text = text.replace("{head: fcn32s}", "{recipe.batch_size: 4}").replace("upsampler:", "head: fcn32s, upsampler:")
    path = write_grid(tmp_path, text)
    done = fcnlab_run(path)
    out, _ = done.communicate(timeout=120)
    assert done.returncode == 1, out
    assert "a batch of 99 is more than the training split has" in out
    assert "0 of 1, 1 failed" in (tmp_path / "results" / "question" / "table.md").read_text()
    frame = fcnlab.frame(fcnlab.load_grid(path))
    assert list(frame["status"]) == ["finished", "failed"]
    assert "99" in frame["failure"][1]
    assert scheduler.clear_failed(fcnlab.load_grid(path), Lab.find(path)) == 1
    assert run(path) == scheduler.Outcome(finished=1, failed=1, reused=1)
    again = fcnlab.frame(fcnlab.load_grid(path))
    assert list(again["status"]) == ["finished", "failed"], "the retried run takes the place of the one before"
    assert list(again["run_id"] == frame["run_id"]) == [True, False]


def test_a_finished_trial_that_another_lab_has_published_is_not_published_twice(calm: Path, tmp_path: Path) -> None:
    theirs = Lab.find(calm)
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
    assert scheduler.sync(grid, ours, ProgressReporter()).postponed is None
    pd.testing.assert_frame_equal(fcnlab.frame(grid, lab=ours), before)


def test_two_drivers_of_one_grid_share_it(calm: Path, tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    drivers = [fcnlab_run(path, workers=1) for _ in range(2)]
    said = [driver.communicate(timeout=240)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    started = [line.split("start  ")[1] for text in said for line in text.splitlines() if line.startswith("start  ")]
    assert sorted(started) == sorted(set(started)) and len(started) == 4, "none is run twice"
    pd.testing.assert_frame_equal(table(path), table(calm))
    assert set(fcnlab.frame(fcnlab.load_grid(path))["run_id"]) == _trial_runs(path), "each is published once"
    assert _statuses(path) == {"FINISHED"}
    assert list(tmp_path.glob("runs/*/lease.*")) + list((tmp_path / ".fcnlab" / "drivers").iterdir()) == []


def test_what_another_driver_has_published_is_not_published_again(calm: Path) -> None:
    grid, lab = fcnlab.load_grid(calm), Lab.find(calm)
    before = _trial_runs(calm)
    with scheduler._leases(lab) as leases:
        publisher = Publisher(make_plan(grid, lab), lab, leases, ProgressReporter())
        assert publisher.take_over()
        for planned in make_plan(grid, lab).trials:
            assert planned.record is not None
            publisher.publish(planned, planned.record)
        publisher.close(complete=True)
    assert _trial_runs(calm) == before


def test_a_trial_that_runs_for_a_while_is_seen_with_its_curves(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    ended = make_plan(fcnlab.load_grid(calm), Lab.find(calm)).trials[0].record
    assert ended is not None
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(fcnlab.load_grid(path), lab)
    with scheduler._leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, ProgressReporter())
        assert publisher.take_over()
        publisher.begin(plan.trials[0])
        publisher.follow(plan.trials[0], ended.epochs)
        assert _trial_runs(path) == set(), "what may end in a moment is written when it has"
        monkeypatch.setattr("fcnlab.runner.publisher.PERIOD", 0.0)
        publisher.follow(plan.trials[0], [])
        publisher.follow(plan.trials[0], ended.epochs)
        (shown,) = (MlflowClient(lab.tracking_uri).get_run(run) for run in _trial_runs(path))
        assert shown.info.status == "RUNNING"
        assert shown.data.params["head"] == "fcn32s" and shown.inputs.dataset_inputs
        assert shown.data.metrics["epoch_loss"] == ended.epochs[-1].loss
        publisher.close(complete=False)
    assert _statuses(path) == {"KILLED"}, "until it is taken up again"


def test_a_trial_that_was_published_before_its_end_was_seen_is_followed_in_peace(calm: Path) -> None:
    grid, lab = fcnlab.load_grid(calm), Lab.find(calm)
    plan, before = make_plan(grid, lab), _trial_runs(calm)
    with scheduler._leases(lab) as leases:
        publisher = Publisher(plan, lab, leases, ProgressReporter())
        publisher.begin(plan.trials[0])
        assert publisher.take_over(), "and so publishes all that has a record"
        record = plan.trials[0].record
        assert record is not None
        publisher.follow(plan.trials[0], record.epochs)
        publisher.ended(plan.trials[0], record)
        publisher.close(complete=True)
    assert _trial_runs(calm) == before and _statuses(calm) == {"FINISHED"}


def test_a_grid_that_is_being_run_is_not_synced_by_another(calm: Path) -> None:
    grid, lab = fcnlab.load_grid(calm), Lab.find(calm)
    with scheduler._leases(lab) as leases:
        assert Publisher(make_plan(grid, lab), lab, leases, ProgressReporter()).take_over()
        with pytest.raises(RunError, match="is being run"):
            scheduler.sync(grid, lab, ProgressReporter())


def test_ctrl_c_once_goes_to_the_end_of_the_epoch_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 12"))
    first = fcnlab_run(path)
    _wait_for(lambda: any(tmp_path.glob("runs/*/checkpoint.pt")))
    first.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 130, out
    assert "press Ctrl-C again to stop now" in out
    assert "paused " in out and "Go on with: fcnlab grid run" in out
    assert list(tmp_path.glob("runs/*/lease.*")) == []
    assert _statuses(path) == {"KILLED"}
    plan = make_plan(fcnlab.load_grid(path), Lab.find(path))
    paused = {one.folder.progress: one.folder.progress.read_text() for one in plan.trials if one.state == "started"}
    assert len(paused) == 2
    assert run(path).ok
    assert all(file.read_text().startswith(epochs) for file, epochs in paused.items()), "no epoch is trained twice"


def test_a_store_out_of_reach_stops_nothing_and_sync_publishes_later(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    away = Lab.find(path, tracking_uri="http://127.0.0.1:9")  # the discard port: nobody answers
    grid = fcnlab.load_grid(path)
    outcome = run(path, away)
    assert outcome.finished == 2
    assert outcome.postponed is not None
    back = Lab.find(path)
    assert scheduler.sync(grid, back, ProgressReporter()).postponed is None
    assert set(fcnlab.frame(grid, lab=back)["status"]) == {"finished"}


def test_without_mlflow_a_grid_runs_and_reports_and_is_published_elsewhere(calm: Path, tmp_path: Path) -> None:
    there, blocker = tmp_path / "there", tmp_path / "blocker"
    there.mkdir()
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text("import sys\nsys.modules['mlflow'] = None\n")
    path = write_grid(there, SMOKE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocker), os.environ.get("PYTHONPATH", "")])}

    def fcnlab_there(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fcnlab", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=240,
        )  # fmt: skip
        return done.returncode, done.stdout

    code, out = fcnlab_there("grid", "run", str(path), "--workers", "2", "--threads", "1")
    assert code == 0, out
    remedy = f"MLflow is not installed; run `fcnlab grid sync {path}` where it is"
    assert out.count("MLflow") == 1 and f"publishing is deferred: {remedy}" in out
    assert "report: " in out and not (there / "mlflow.db").exists()
    pd.testing.assert_frame_equal(table(path), table(calm))
    code, out = fcnlab_there("report", str(path), "--format", "csv")
    assert code == 0 and out.startswith("cell,head,n") and out.count("\n") == 4, out
    code, out = fcnlab_there("grid", "sync", str(path))
    assert (code, out) == (2, f"fcnlab: error: {remedy}\n")
    here = shutil.copytree(there, tmp_path / "here") / "experiments" / path.name
    grid, lab = fcnlab.load_grid(here), Lab.find(here)
    assert scheduler.sync(grid, lab, ProgressReporter()) == scheduler.Outcome(finished=4, failed=0, reused=4)
    assert set(fcnlab.frame(grid)["run_id"]) == _trial_runs(here) and _statuses(here) == {"FINISHED"}


def _wait_for(condition: object, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _kill_a_trial() -> int:
    """Kill the first process that a worker of ours has started for a trial; its id."""
    found: list[int] = []

    def look() -> bool:
        for worker in _children(os.getpid()):
            found.extend(_children(worker))
        return bool(found)

    _wait_for(look)
    os.kill(found[0], signal.SIGKILL)
    return found[0]


def _children(pid: int) -> list[int]:
    if not Path("/proc").is_dir():
        pytest.skip("finds processes in /proc, which only Linux has")
    listed = [Path(f"/proc/{pid}/task/{pid}/children")]
    return [int(child) for file in listed if file.exists() for child in file.read_text().split()]


def _trial_runs(path: Path) -> set[str]:
    """The ids of all runs of trials, those that a retry has replaced among them."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Lab.find(path).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    assert experiment is not None
    return {run.info.run_id for run in client.search_runs([experiment.experiment_id], "tags.`fcnlab.role` = 'trial'")}


def _statuses(path: Path) -> set[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Lab.find(path).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    assert experiment is not None
    return {run.info.status for run in client.search_runs([experiment.experiment_id])}
