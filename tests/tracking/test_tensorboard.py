"""Event files of TensorBoard, and trackers that raise errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError, TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.lease import Leases
from fcnlab.runner.plan import Plan, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import Publisher
from fcnlab.runner.run import hold_leases, sync_grid
from fcnlab.runner.trackers import check_trackers, track_grid
from fcnlab.settings import ALLOW_EXTENSIONS_VARIABLE
from fcnlab.tracking.base import TrackedTrial, Tracker
from fcnlab.tracking.tensorboard import TensorboardTracker
from fcnlab.trial.record import Attempt
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial
from tests.conftest import SMOKE
from tests.patience import wait_until
from tests.report.finished_grid import finished_lab


class Listener(ProgressReporter):
    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def on_publishing_deferred(self, why: str) -> None:
        self.reasons.append(why)


def finished(root: Path, names: tuple[str, ...]) -> tuple[Grid, Lab]:
    grid, lab = finished_lab(root, SMOKE)
    return grid, replace(lab, trackers=names)


def read(folder: Path) -> Any:
    """Return everything in the event files of a trial."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_event_files_have_curves_hyperparameters_metrics_and_images(tmp_path: Path) -> None:
    grid, lab = finished(tmp_path, ("tensorboard",))
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    assert not (tmp_path / "mlflow.db").exists()
    folder = tmp_path / "tensorboard" / "question"
    runs = [f"{head}, seed {seed}" for head in ("fcn32s", "fcn8s") for seed in (0, 1)]
    assert sorted(path.name for path in folder.iterdir()) == runs
    events = read(folder / "fcn8s, seed 0")
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    record = next(p.record for p in make_plan(grid, lab).trials if p.cell.label == "fcn8s" and p.trial.seed == 0)
    assert [point.value for point in events.Scalars("miou")] == pytest.approx([record.metrics[0].miou])
    assert {"test/iou/disc", "cost/params"} <= set(events.Tags()["scalars"])
    assert "samples/scene_000/prediction" in events.Tags()["images"]
    assert read(folder / "fcn8s, seed 1").Tags()["images"] == [], "those of the first seed suffice"
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (hparams["head"].string_value, hparams["head.stride"].number_value) == ("fcn8s", 8)
    assert hparams["upsampler.learned"].bool_value


def test_an_interrupted_driver_repeats_no_point_and_published_records_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcnlab.runner.publisher.LOG_INTERVAL", 0.0)
    grid, lab = finished(tmp_path, ("tensorboard",))
    plan = make_plan(grid, lab)
    running, ended = plan.trials[0], plan.trials[3]
    record = running.record
    assert record is not None
    running.folder.record.unlink()
    unfinished = make_plan(grid, lab)

    def publish(leases: Leases, plan: Plan) -> Publisher:
        publisher = Publisher(plan, lab, leases, ProgressReporter())
        assert publisher.take_over()
        return publisher

    folder = tmp_path / "tensorboard" / "question"
    with hold_leases(lab) as leases:  # this driver is killed: it closes nothing
        publish(leases, unfinished).log_progress(running, record.epochs[:1])
        wait_until(lambda: any(map(has_loss, folder.glob("fcn32s, seed 0/events*"))), "the loss is written")
    assert [point.step for point in read(folder / "fcn32s, seed 0").Scalars("train/loss")] == [1]
    kept = {file: file.read_bytes() for file in (folder / "fcn8s, seed 1").iterdir()}
    with hold_leases(lab) as leases:
        publisher = publish(leases, unfinished)
        publisher.log_progress(running, record.epochs)
        running.folder.finish(record)
        publisher.publish(running)
        publisher.close(complete=True)
    events = read(folder / "fcn32s, seed 0")
    assert [point.step for point in events.Scalars("train/loss")] == [1, 2]
    assert len(events.Scalars("miou")) == 1
    assert {file: file.read_bytes() for file in (folder / "fcn8s, seed 1").iterdir()} == kept, ended.key


def test_a_trial_that_ran_out_of_memory_has_the_epochs_of_its_last_attempt_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcnlab.runner.publisher.LOG_INTERVAL", 0.0)
    grid, lab = finished(tmp_path, ("tensorboard",))
    planned = make_plan(grid, lab).trials[0]
    record = planned.record
    assert record is not None
    planned.folder.record.unlink()
    discarded = [epoch.model_copy(update={"loss": 9.0}) for epoch in record.epochs]
    folder = tmp_path / "tensorboard" / "question" / "fcn32s, seed 0"
    with hold_leases(lab) as leases:
        publisher = Publisher(make_plan(grid, lab), lab, leases, ProgressReporter())
        assert publisher.take_over()
        publisher.log_progress(planned, discarded)
        wait_until(lambda: any(map(has_loss, folder.glob("events*"))), "the loss is written")
        planned.folder.add_attempt(Attempt(cause="out_of_memory", message="no memory", epoch=2))
        publisher.log_progress(planned, record.epochs[:1])
        planned.folder.finish(record)
        publisher.publish(planned)
        publisher.close(complete=True)
    points = [(point.step, point.value) for point in read(folder).Scalars("train/loss")]
    assert points == [(epoch.epoch, epoch.loss) for epoch in record.epochs]


def test_cells_that_differ_only_in_case_have_different_folders(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    grid, lab = finished(tmp_path, ("tensorboard",))
    tracked = track_grid(grid, lab)
    key, other = ("0" * 64, "1" * 64)

    def find_folders(names: tuple[str, ...]) -> list[str]:
        tracker: Any = TensorboardTracker(replace(tracked, display_names={name: name for name in names}))
        trial = build_trial()
        trials = [
            TrackedTrial(trial, cell, cell, {}, "", RunFolder(lab.runs, folder), 0.0)
            for cell, folder in zip(names, (key, other), strict=False)
        ]
        return [tracker._find_folder(trial).name for trial in trials]

    assert find_folders(("FCN8s", "fcn8s")) == [f"FCN8s, seed 0 {key[:8]}", f"fcn8s, seed 0 {other[:8]}"]
    assert find_folders(("fcn16s", "fcn8s")) == ["fcn16s, seed 0", "fcn8s, seed 0"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"key": "a', b"\xff"])
def test_a_trial_with_a_damaged_note_is_published_again(tmp_path: Path, content: bytes) -> None:
    grid, lab = finished(tmp_path, ("tensorboard",))
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    folder = tmp_path / "tensorboard" / "question"
    (folder / "fcn8s, seed 0" / "fcnlab.json").write_bytes(content)
    files = set(folder.glob("*/events*"))
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    assert {file.parent.name for file in files - set(folder.glob("*/events*"))} == {"fcn8s, seed 0"}
    assert len(read(folder / "fcn8s, seed 0").Scalars("miou")) == 1


def has_loss(file: Path) -> bool:
    return b"train/loss" in file.read_bytes()


class Broken(Tracker):
    """Raises the error of an extension when a record is published."""

    error: Exception = RuntimeError("no quota")

    def __init__(self, grid: object) -> None: ...

    def start_grid(self, keys: object) -> None: ...

    def is_published(self, record: object) -> bool:
        return False

    def start_trial(self, trial: object) -> None: ...

    def log_epochs(self, trial: object, epochs: object) -> None: ...

    def log_record(self, trial: object, record: object, *, samples: bool) -> None:
        raise self.error

    def pause_trial(self, trial: object, *, pruned_after: int | None) -> None: ...

    def close(self, *, complete: bool) -> None: ...


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("no quota"), "tracker broken: RuntimeError: no quota"), (TrackingError("offline"), "offline")],
)
def test_an_error_of_one_tracker_defers_only_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    (tmp_path / "broken.py").write_text(f"from {__name__} import Broken\n")
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "extensions.yaml").write_text("trackers: {broken: broken.py:Broken}\n")
    monkeypatch.setenv(ALLOW_EXTENSIONS_VARIABLE, "1")
    monkeypatch.setattr(Broken, "error", error)
    grid, lab = finished(tmp_path, ("broken", "tensorboard"))
    listener = Listener()
    assert sync_grid(grid, lab, listener).deferred == {"broken": reason}
    assert listener.reasons == [reason], "it is reported once"
    assert len(list((tmp_path / "tensorboard" / "question").glob("*/events*"))) == 4


def test_trackers_are_selected_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Lab.find(root=tmp_path).trackers == ("mlflow",)
    monkeypatch.setenv("FCNLAB_TRACKER", "tensorboard, mlflow")
    assert Lab.find(root=tmp_path).trackers == ("tensorboard", "mlflow")
    assert Lab.find(root=tmp_path, trackers="none").trackers == ()
    with pytest.raises(ConfigError, match="none cannot be combined"):
        Lab.find(root=tmp_path, trackers="none,mlflow")
    with pytest.raises(ConfigError, match=r"tracker 'tensorbord' is neither built in .* did you mean .tensorboard."):
        check_trackers(Lab.find(root=tmp_path, trackers="tensorbord"))
    monkeypatch.setattr("fcnlab.tracking.tensorboard.is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'fcnlab\[tensorboard\]'"):
        check_trackers(Lab.find(root=tmp_path))
