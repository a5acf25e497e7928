"""Runs of trials in an MLflow store: names, parameters, and runs that an interrupted driver left."""

from __future__ import annotations

import posixpath
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fcnlab.config.dataset import AnyDataset
from fcnlab.config.grid.grid import Grid
from fcnlab.config.validation import validate
from fcnlab.lab import Lab
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import open_tracker
from fcnlab.runner.run import sync_grid
from fcnlab.tracking.base import TrackedTrial
from fcnlab.tracking.fields import extract_columns, extract_final_metrics, extract_params
from fcnlab.tracking.names import PUBLISHED_NAMES, clean_names, read_columns
from tests.builders import build_trial, finished_record
from tests.conftest import SMOKE, write_grid

SIZE = {"height": 64, "width": 64}


def plan_first_trial(folder: Path) -> tuple[Grid, Lab, PlannedTrial]:
    """Write a grid, and return it with its lab and its first trial."""
    path = write_grid(folder, SMOKE)
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    return grid, lab, make_plan(grid, lab).trials[0]


def test_names_of_classes_are_valid_and_different() -> None:
    from mlflow.utils.validation import _validate_metric_name

    classes = ["sky", "Sky", "sky_2", "a/b", "a:b", "..", ".", "", "été", "x" * 500, "x" * 501, "/etc", "a//b", "a "]
    names = clean_names(classes)
    assert len({name.casefold() for name in names}) == len(classes)
    for name in names:
        _validate_metric_name(f"test/iou/{name}")
        assert posixpath.basename(f"test/iou/{name}") == name
    assert names[:2] == ["sky", "Sky_2"] and names[8] == "été"


def test_names_that_a_database_does_not_distinguish_get_numbers() -> None:
    # Each pair is equal in a default collation of MySQL or MariaDB; 𠮷 and 𠮸 are beyond U+FFFF.
    names = clean_names(
        ["été", "Ete", "straße", "STRASSE", "はし", "ハシ", "ばし", "𠮷", "𠮸", "ａ", "a", "道路", "道"]
    )
    assert names == [
        *("été", "Ete_2", "straße", "STRASSE_2", "はし", "ハシ_2", "ばし_3"),
        *("𠮷", "𠮸_2", "ａ", "a_2", "道路", "道"),
    ]


def test_parameters_of_classes_with_any_name_are_valid_and_different() -> None:
    from mlflow.entities import Param
    from mlflow.utils.validation import _validate_param_keys_unique, _validate_param_name

    classes = ["pavement (left)", "car, parked", "50 % & more", "a/b", "a:b", "x" * 300, "x" * 301, "été"]
    entry = {"type": "folder", "images": "i", "masks": "m", "fractions": {"val": 0.5}}
    dataset = validate(
        AnyDataset, {**entry, "classes": {name: 2 * i for i, name in enumerate(classes)}, "nominal": SIZE}, "mine"
    )
    params = extract_params(build_trial().model_copy(update={"dataset": dataset}), {})
    for name in params:
        _validate_param_name(name)
    _validate_param_keys_unique([Param(name, value) for name, value in params.items()])
    of_classes = {name: value for name, value in params.items() if name.startswith("dataset.classes.")}
    assert list(of_classes.values()) == [str(2 * i) for i in range(len(classes))]
    assert {"dataset.classes.pavement _left_", "dataset.classes.été"} <= of_classes.keys()


def test_columns_are_read_from_their_published_names() -> None:
    trial = build_trial()
    columns = extract_columns(finished_record(trial), "last")
    assert {"miou", "test_miou", "val_miou_best", "params"} <= set(columns)
    assert read_columns({PUBLISHED_NAMES[name]: value for name, value in columns.items()}) == columns


def test_class_iou_is_published_for_few_classes_and_the_reported_checkpoint() -> None:
    record = finished_record(build_trial()).model_copy(update={"classes": ("road", "sky")})
    assert extract_final_metrics(record, "last").keys() & {"test/iou/road", "test/iou_best/sky"} == {"test/iou/road"}
    assert {"test/iou/road", "test/iou_best/sky"} <= extract_final_metrics(record, "best").keys()
    many = record.model_copy(update={"classes": tuple(map(str, range(31)))})
    assert not any("iou/" in name for name in extract_final_metrics(many, "last"))


def test_a_run_left_by_a_killed_driver_is_completed_without_repeated_points_or_an_end_before_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    grid, lab, planned = plan_first_trial(tmp_path)
    axes = {f"dataset.options.extra{number}": "x" * 7000 for number in range(120)}
    record = finished_record(planned.trial)
    planned.folder.create()
    planned.folder.finish(record)
    trial = TrackedTrial(planned.trial, "fcn32s", "fcn32s, seed 0", axes, "fcnlab ...", planned.folder, time.time())

    first = open_tracker(grid, lab)
    log_batch, requests = MlflowClient.log_batch, []

    def log_one_batch(client: MlflowClient, run_id: str, *content: object, **named: object) -> None:
        if "extra0" in str(content) + str(named):
            requests.append(run_id)
        elif requests:
            raise KeyboardInterrupt
        log_batch(client, run_id, *content, **named)

    first.start_grid({planned.key})
    first.start_trial(trial)
    monkeypatch.setattr(MlflowClient, "log_batch", log_one_batch)
    with pytest.raises(KeyboardInterrupt):
        first.log_epochs(trial, record.epochs[:1])
    monkeypatch.undo()

    second = open_tracker(grid, lab)
    second.start_trial(trial)
    second.log_epochs(trial, record.epochs)
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() - 86_400)  # the clock is set back
    second.log_record(trial, record, samples=False)
    second.close(complete=True)
    monkeypatch.undo()
    (run,) = second.list_trials()
    assert run["status"] == "FINISHED"
    assert run["params"].keys() == extract_params(planned.trial, axes).keys()
    assert len(run["params"]) > 200 and len(run["params"]["dataset.options.extra0"]) == 6000
    client = MlflowClient(lab.tracking_uri)
    runs = client.search_runs([second.experiment_id])
    assert [one.info.status for one in runs] == ["FINISHED"] * 2
    assert all(one.info.end_time == one.info.start_time for one in runs)
    for name, steps in {"train/loss": [1, 2], "test/miou": [0]}.items():
        assert [point.step for point in client.get_metric_history(run["run_id"], name)] == steps


def test_a_restarted_trial_has_the_epochs_of_its_last_attempt_only(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    grid, lab, planned = plan_first_trial(tmp_path)
    record = finished_record(planned.trial)
    discarded = [epoch.model_copy(update={"loss": 9.0}) for epoch in record.epochs]
    planned.folder.create()
    planned.folder.finish(record)
    trial = TrackedTrial(planned.trial, "fcn32s", "fcn32s, seed 0", {}, "fcnlab ...", planned.folder, time.time())
    first = open_tracker(grid, lab)
    first.start_grid({planned.key})
    first.start_trial(trial)
    first.log_epochs(trial, discarded)
    restarted = replace(trial, restarts=1)
    first.start_trial(restarted)
    first.log_epochs(restarted, record.epochs[:1])

    second = open_tracker(grid, lab)  # of another driver
    second.start_trial(restarted)
    second.log_record(restarted, record, samples=False)
    (run,) = second.list_trials()
    client = MlflowClient(lab.tracking_uri)
    history = client.get_metric_history(run["run_id"], "train/loss")
    assert [(point.step, point.value) for point in history] == [(one.epoch, one.loss) for one in record.epochs]
    superseded = client.search_runs([second.experiment_id], "tags.`fcnlab.superseded` = 'true'")
    assert [(one.info.status, one.data.metrics["train/loss"]) for one in superseded] == [("FAILED", 9.0)]


def test_a_driver_killed_between_two_requests_leaves_no_part_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    grid, lab, planned = plan_first_trial(tmp_path)
    last = finished_record(planned.trial).epochs[-1].model_copy(update={"system": {"memory": 5.0}})
    epochs = [
        last.model_copy(update={"epoch": epoch, "step_losses": ((2 * epoch - 1, 1.0), (2 * epoch, 2.0))})
        for epoch in range(1, 201)
    ]
    planned.folder.create()
    trial = TrackedTrial(planned.trial, "fcn32s", "fcn32s, seed 0", {}, "fcnlab ...", planned.folder, time.time())
    log_batch = MlflowClient.log_batch
    requests: list[int] = []

    def log_one_batch(client: MlflowClient, run_id: str, metrics: list[object], *others: object) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(len(metrics))
        log_batch(client, run_id, metrics, *others)

    first = open_tracker(grid, lab)
    first.start_trial(trial)
    monkeypatch.setattr(MlflowClient, "log_batch", log_one_batch)
    with pytest.raises(KeyboardInterrupt):
        first.log_epochs(trial, epochs)
    monkeypatch.undo()
    assert 800 < requests[0] <= 1000
    second = open_tracker(grid, lab)
    second.start_trial(trial)
    second.log_epochs(trial, epochs)
    (run,) = second.list_trials()
    client = MlflowClient(lab.tracking_uri)
    for name in ("train/loss", "val/miou", "system/memory"):
        points = client.get_metric_history(run["run_id"], name)
        assert sorted(point.step for point in points) == list(range(1, 201)), name
    steps = sorted(point.step for point in client.get_metric_history(run["run_id"], "train/loss_step"))
    assert steps == list(range(1, 401))


def test_closing_deletes_a_run_created_twice_but_no_run_of_another_lab(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    grid, lab, planned = plan_first_trial(tmp_path)
    planned.folder.create()
    trial = TrackedTrial(planned.trial, "fcn32s", "fcn32s, seed 0", {}, "fcnlab ...", planned.folder, time.time())
    trackers = [open_tracker(grid, lab) for _ in range(2)]
    for seconds, tracker in enumerate(trackers):  # in its first epoch, each run has no parameters yet
        tracker.start_grid({planned.key})
        tracker.start_trial(replace(trial, started=trial.started - 60 * seconds))
    client = MlflowClient(lab.tracking_uri)
    own, other = client.search_runs([trackers[0].experiment_id], "tags.`fcnlab.role` = 'trial'")
    repeated = client.create_run(trackers[0].experiment_id, own.info.start_time, own.data.tags)
    trackers[0].log_epochs(trial, finished_record(planned.trial).epochs)
    trackers[0].close(complete=False)
    remaining = {run["run_id"] for run in trackers[0].list_trials()}
    assert remaining == {own.info.run_id, other.info.run_id} and repeated.info.run_id not in remaining


def test_runs_have_the_display_names_of_the_grid_file(tmp_path: Path) -> None:
    path = write_grid(tmp_path, f"{SMOKE}labels: {{values: {{head: {{fcn8s: FCN-8s}}}}}}\n")
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        planned.folder.create()
        planned.folder.finish(finished_record(planned.trial))
    expected = ["FCN-8s, seed 0", "FCN-8s, seed 1", "fcn32s, seed 0", "fcn32s, seed 1"]
    for _ in range(2):  # a second time, nothing is published again
        assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
        assert _list_run_names(grid, lab) == expected
    write_grid(tmp_path, f"{SMOKE}labels: {{cells: {{fcn32s: the baseline}}}}\n")
    renamed = lab.load_grid(path)
    assert sync_grid(renamed, lab, ProgressReporter()).deferred == {}
    baseline = ["the baseline, seed 0", "the baseline, seed 1"]
    assert _list_run_names(renamed, lab) == ["fcn8s, seed 0", "fcn8s, seed 1", *baseline]


def test_reported_metrics_are_those_of_the_present_checkpoint(tmp_path: Path) -> None:
    _, lab, planned = plan_first_trial(tmp_path)
    expected = {"last": (0.5, 0.8), "best": (0.6, 0.9)}
    record = finished_record(planned.trial)
    metrics = tuple(
        one.model_copy(update=dict(zip(("miou", "pixel_acc"), expected[one.checkpoint], strict=True)))
        for one in record.metrics
    )
    record = record.model_copy(update={"metrics": metrics})
    planned.folder.create()
    planned.folder.trial.write_text(planned.trial.model_dump_json())
    planned.folder.finish(record)

    def publish(checkpoint: str) -> tuple[str, float, float, int]:
        text = SMOKE if checkpoint == "last" else f"{SMOKE}\ncheckpoint: best\n"
        changed = lab.load_grid(write_grid(tmp_path, text))
        sync_grid(changed, lab, ProgressReporter())
        tracker = open_tracker(changed, lab)
        (run,) = tracker.list_trials()
        points = len(tracker._client.get_metric_history(run["run_id"], "miou"))
        return run["tags"]["fcnlab.checkpoint"], run["metrics"]["miou"], run["metrics"]["pixel_acc"], points

    for points, checkpoint in enumerate(("last", "best", "last"), start=1):
        found = (checkpoint, *expected[checkpoint], points)
        assert publish(checkpoint) == publish(checkpoint) == found


def _list_run_names(grid: Grid, lab: Lab) -> list[str]:
    return sorted(run["tags"]["mlflow.runName"] for run in open_tracker(grid, lab).list_trials())


def test_no_text_is_longer_than_its_column_in_a_database_that_enforces_lengths(tmp_path: Path) -> None:
    from mlflow.store.tracking.dbmodels.models import SqlDataset, SqlExperiment, SqlParam, SqlRun, SqlTag

    labels = f"labels: {{values: {{head: {{fcn8s: {'a long name ' * 30}}}}}}}\n"
    path = write_grid(tmp_path, SMOKE + labels)
    (tmp_path / "registry").mkdir(exist_ok=True)
    folder = path.parent / ("x" * 190)
    folder.mkdir()
    paths = [path.rename(folder / f"{'y' * 80}1.yaml")]
    paths.append(paths[0].with_name(f"{'y' * 80}2.yaml"))
    paths[1].write_text(paths[0].read_text())
    lab = Lab.find(paths[0])
    for file in paths:
        grid = lab.load_grid(file)
        for planned in make_plan(grid, lab).trials:
            planned.folder.create()
            planned.folder.finish(finished_record(planned.trial))
        assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    names = _list_run_names(grid, lab)
    assert len(set(names)) == 4 and all(name.endswith((", seed 0", ", seed 1")) for name in names)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        for model in (SqlDataset, SqlExperiment, SqlParam, SqlRun, SqlTag):
            for column in model.__table__.columns:
                limit = getattr(column.type, "length", None)
                if limit is not None and not column.name.startswith("artifact_"):  # a server chooses these itself
                    ((longest,),) = store.execute(f"SELECT max(length({column.name})) FROM {model.__tablename__}")
                    assert (longest or 0) <= limit, (model.__tablename__, column.name)
        ((experiments,),) = store.execute("SELECT count(*) FROM experiments WHERE name LIKE 'fcnlab/%'")
    assert experiments == 2


@pytest.mark.parametrize("axis", ["head.options.a/b: (c)", "head.options." + "x" * 300, "dataset.classes.car, parked"])
def test_parameters_of_axes_with_any_name_are_valid(axis: str) -> None:
    from mlflow.utils.validation import _validate_param_name

    params = extract_params(build_trial(), {axis: "7"})
    for name in params:
        _validate_param_name(name)
        assert len(name) <= 250
    assert [value for name, value in params.items() if name[:12] == axis[:12]].count("7") == 1
