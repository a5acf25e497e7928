"""Several labs whose grids have the same name, in one MLflow store."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import fcnlab
from fcnlab.config.grid.grid import Grid
from fcnlab.lab import Lab
from fcnlab.report.report import make_report
from fcnlab.report.write import create_report
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.publisher import OptionalTracker, open_tracker
from fcnlab.runner.run import sync_grid
from fcnlab.tracking.base import TrackedTrial
from fcnlab.tracking.lab_id import TAG, ensure_lab_id, read_lab_id
from fcnlab.tracking.published_report import read_report_digest
from fcnlab.tracking.store import open_client
from fcnlab.tracking.view import encode_view
from tests.builders import finished_record
from tests.conftest import SMOKE, write_grid
from tests.remarks import RemarkRecorder
from tests.report.finished_grid import finish


def make_lab(folder: Path, text: str = SMOKE) -> tuple[Grid, Lab]:
    """Write the grid `question` in a lab whose store is shared with the labs beside it."""
    folder.mkdir()
    path = write_grid(folder, text)
    lab = Lab.find(path, tracking_uri=f"sqlite:///{folder.parent}/store.db")
    return lab.load_grid(path), lab


def publish(grid: Grid, lab: Lab, miou: float) -> list[str]:
    """Finish the trials of a grid, publish them with the report, and return the remarks."""
    for planned in make_plan(grid, lab).remaining:
        finish(planned, miou)
    recorder = RemarkRecorder()
    assert sync_grid(grid, lab, recorder).deferred == {}
    tracker = OptionalTracker(grid, lab)
    create_report(grid, lab, tracker, predict=False)
    assert tracker.error is None
    return recorder.remarks


def describe(planned: PlannedTrial) -> TrackedTrial:
    planned.folder.create()
    label = planned.cell.label
    return TrackedTrial(planned.trial, label, label, {}, "fcnlab ...", planned.folder, time.time())


def read_runs(lab: Lab, role: str) -> list[Any]:
    client = open_client(lab.tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/question")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`fcnlab.role` = '{role}'"))


def test_labs_that_run_the_same_trial_at_the_same_time_have_a_run_each(tmp_path: Path) -> None:
    labs = [make_lab(tmp_path / name) for name in ("one", "two")]
    trials = [make_plan(grid, lab).trials[0] for grid, lab in labs]
    assert trials[0].key == trials[1].key
    record = finished_record(trials[0].trial)
    trackers = []
    for number, ((grid, lab), planned) in enumerate(zip(labs, trials, strict=True)):
        tracker = open_tracker(grid, lab)  # the trial of the first lab is running
        tracker.start_grid({planned.key})
        tracker.start_trial(describe(planned))
        epochs = tuple(epoch.model_copy(update={"loss": float(number)}) for epoch in record.epochs)
        tracker.log_epochs(describe(planned), epochs[: 2 - number])
        trackers.append((tracker, planned, record.model_copy(update={"epochs": epochs})))
    for tracker, planned, own in trackers:
        planned.folder.finish(own)
        assert not tracker.is_published(own)
        tracker.log_record(describe(planned), own, samples=False)
        tracker.close(complete=True)
    client = open_client(labs[0][1].tracking_uri)
    runs = {run.data.tags[TAG]: run for run in read_runs(labs[0][1], "trial")}
    parents = {run.data.tags[TAG]: run.info.run_id for run in read_runs(labs[0][1], "grid")}
    assert len(runs) == len(parents) == 2
    for number, (_, lab) in enumerate(labs):
        run = runs[ensure_lab_id(lab.state)]
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in points] == [(1, number), (2, number)]
        assert run.data.tags["mlflow.parentRunId"] == parents[ensure_lab_id(lab.state)]


def test_a_lab_leaves_the_runs_and_the_report_of_another_lab_as_they_are(tmp_path: Path) -> None:
    first = make_lab(tmp_path / "one")
    assert publish(*first, 0.7) == []
    before = {run.info.run_id: run for run in read_runs(first[1], "trial") + read_runs(first[1], "grid")}
    digest = read_report_digest(first[1].tracking_uri, "question", read_lab_id(first[1].state))
    assert digest is not None

    text = SMOKE.replace("Does it run?", "Something else?").replace("seeds: 2", "seeds: 3")
    assert text != SMOKE
    second = make_lab(tmp_path / "two", f"{text}labels: {{cells: {{fcn32s: the baseline}}}}\n")
    (remark,) = publish(*second, 0.5)
    assert remark.startswith("the MLflow experiment fcnlab/question also has runs of 1 other lab")
    for run_id, run in before.items():
        after = open_client(first[1].tracking_uri).get_run(run_id)
        assert (after.data.tags, after.data.metrics, after.info) == (run.data.tags, run.data.metrics, run.info)
    assert read_report_digest(first[1].tracking_uri, "question", read_lab_id(first[1].state)) == digest
    assert read_report_digest(first[1].tracking_uri, "question", read_lab_id(second[1].state)) not in (None, digest)
    assert len(read_runs(first[1], "grid")) == 2
    for page in (tmp_path / "one" / "mlartifacts").rglob("report/README.md"):
        assert ("Something else?" in page.read_text()) == (page.parents[2].name not in before)


def test_the_view_shows_cells_of_several_labs_separately(tmp_path: Path) -> None:
    first, second = make_lab(tmp_path / "one"), make_lab(tmp_path / "two")
    views = []
    for grid, lab in (first, second):
        publish(grid, lab, 0.6)
        experiment = open_client(lab.tracking_uri).get_experiment_by_name("fcnlab/question")
        assert experiment is not None
        views.append(experiment.tags["mlflow.sharedViewState.fcnlab-cells"])
    assert views == [encode_view(), encode_view(by_lab=True)]


def test_a_frame_shows_the_own_run_and_a_finished_run_of_another_lab_otherwise(tmp_path: Path) -> None:
    first, second = make_lab(tmp_path / "one"), make_lab(tmp_path / "two")
    publish(*first, 0.7)
    theirs = fcnlab.frame(first[0], lab=first[1])
    shown = fcnlab.frame(second[0], lab=second[1])
    assert list(shown["status"]) == ["finished"] * 4 and list(shown["run_id"]) == list(theirs["run_id"])

    planned = make_plan(*second).trials[0]
    tracker = open_tracker(*second)
    assert tracker.is_published(finished_record(planned.trial)), "the other lab has published it"
    tracker.start_grid({planned.key})
    tracker.start_trial(describe(planned))
    shown = fcnlab.frame(second[0], lab=second[1]).set_index("key")
    assert shown.loc[planned.key, "status"] == "finished", "a running trial does not hide it"
    finish(planned, 0.5)
    record = planned.record
    assert record is not None
    tracker.log_record(describe(planned), record, samples=False)
    shown = fcnlab.frame(second[0], lab=second[1]).set_index("key")
    assert shown.loc[planned.key, "run_id"] not in set(theirs["run_id"])


def test_runs_of_an_earlier_version_belong_to_the_first_lab_that_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_lab(tmp_path / "one"), make_lab(tmp_path / "two")
    publish(*first, 0.7)
    client = open_client(first[1].tracking_uri)
    earlier = read_runs(first[1], "trial") + read_runs(first[1], "grid")
    for run in earlier:
        client.delete_tag(run.info.run_id, TAG)
    (first[1].state / "id").unlink()
    assert publish(*first, 0.7) == []
    assert {run.info.run_id for run in read_runs(first[1], "grid")} <= {run.info.run_id for run in earlier}
    lab_id = read_lab_id(first[1].state)
    assert {run.data.tags[TAG] for run in read_runs(first[1], "trial")} == {lab_id}
    assert len(publish(*second, 0.5)) == 1
    assert len(read_runs(first[1], "grid")) == 2


def test_files_in_a_folder_of_another_machine_are_a_remark(tmp_path: Path) -> None:
    first, second = make_lab(tmp_path / "one"), make_lab(tmp_path / "two")
    publish(*first, 0.7)
    folder = first[1].artifacts
    folder.rename(tmp_path / "on another machine")
    where = f"{folder}/fcnlab/question"
    remark = f"files of the MLflow experiment fcnlab/question are missing here, since {where} is a folder"
    tracker = OptionalTracker(*second)
    report = tracker.call(lambda store: make_report(make_plan(*second), second[1], store))
    assert list(report.trials["status"]) == ["finished"] * 4 and report.records.by_cell == {}
    (text,) = tracker.remarks
    assert text.startswith(remark)
    opened = open_tracker(*second)
    opened.start_grid(set())
    assert [text.startswith(remark) for text in opened.remarks] == [False, True]


def test_a_copied_lab_has_the_same_id_and_continues_the_runs(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path / "one")
    publish(grid, lab, 0.7)
    copy = Lab.find(root=Path(shutil.copytree(lab.root, tmp_path / "copy")), tracking_uri=lab.tracking_uri)
    assert read_lab_id(copy.state) == read_lab_id(lab.state) is not None
    assert publish(copy.load_grid(copy.root / "experiments" / "question.yaml"), copy, 0.7) == []
    assert len(read_runs(lab, "grid")) == 1 and len(read_runs(lab, "trial")) == 4


@pytest.mark.parametrize("content", [b"", b"\0" * 13, b"../../x\n"])
def test_a_damaged_id_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "id").write_bytes(content)
    assert read_lab_id(tmp_path) is None
    lab_id = ensure_lab_id(tmp_path)
    assert ensure_lab_id(tmp_path) == read_lab_id(tmp_path) == lab_id
    assert len(lab_id) == 12
