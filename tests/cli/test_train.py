"""`fcnlab train`: single trials beside each other and beside grids."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from fcnlab.lab import Lab
from fcnlab.runner.grid_state import noted_experiments
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import Publisher
from fcnlab.runner.run import hold_leases, run_grid, sync_grid
from fcnlab.trial.record import EpochRecord
from tests.cli.conftest import Call
from tests.conftest import SMOKE, write_grid
from tests.report.finished_grid import finish

COMMAND = "train tiny-scratch+fcn8s+bilinear --dataset shapes-mini --recipe smoke --seed"


@pytest.fixture
def finished(tmp_path: Path) -> Lab:
    """A lab in which the trials of the seeds 0 and 1 of the command have finished."""
    file = write_grid(tmp_path, SMOKE, "train")
    lab = Lab.find(file)
    for planned in make_plan(lab.load_grid(file), lab).trials:
        finish(planned, 0.7)
    return lab


def list_current(lab: Lab) -> dict[str, list[str]]:
    """Return the tag `fcnlab.current` of the runs of trials, by experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(lab.tracking_uri)
    found = {}
    for name, experiment in noted_experiments(lab).items():
        runs = client.search_runs([experiment], "tags.`fcnlab.role` = 'trial'")
        found[name] = [run.data.tags["fcnlab.current"] for run in runs]
    return found


def test_single_trials_do_not_change_each_other_nor_a_grid_with_the_file_train(fcnlab: Call, finished: Lab) -> None:
    grid = finished.load_grid(finished.root / "experiments" / "train.yaml")
    assert sync_grid(grid, finished, ProgressReporter()).deferred == {}
    for seed in (0, 1, 0):
        result = fcnlab(*shlex.split(COMMAND), seed)
        assert (result.code, result.err) == (0, "")
    assert list_current(finished) == {".train": 2 * ["true"], "train": 4 * ["true"]}


def test_single_trial_does_not_wait_for_others(fcnlab: Call, finished: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Lab]] = []

    def run(grid: Any, lab: Lab, *arguments: Any, **options: Any) -> Any:
        calls.append((grid, lab))
        return run_grid(grid, lab, *arguments, **options)

    def refuse(seconds: float) -> None:
        raise AssertionError(f"waited for another driver for {seconds} s")

    monkeypatch.setattr(f"{run_grid.__module__}.run_grid", run)
    assert fcnlab(*shlex.split(COMMAND), 0).code == 0
    grid, lab = calls[0]
    with hold_leases(lab) as leases:
        publisher = Publisher(make_plan(grid, lab), lab, leases, ProgressReporter())
        assert publisher.take_over()
        monkeypatch.setattr("fcnlab.runner.run.time.sleep", refuse)
        try:
            assert fcnlab(*shlex.split(COMMAND), 1).code == 0, "another trial"
            assert fcnlab(*shlex.split(COMMAND), 0, "--tracker", "none").code == 0, "nothing to publish"
        finally:
            monkeypatch.undo()
            publisher.close(complete=True)


def test_a_file_of_the_current_folder_is_not_the_grid_file_of_a_single_trial(
    fcnlab: Call, finished: Lab, tmp_path: Path
) -> None:
    for name in ("train", "fcnlab train"):
        (tmp_path / name).write_text("of the user")
    assert fcnlab(*shlex.split(COMMAND), 0).code == 0
    assert not [file for file in (finished.root / "mlartifacts").rglob("*") if file.name in ("train", "fcnlab train")
                and file.is_file()]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("--set recipe=quick", "--recipe"),
        ("--set dataset=shapes", "--dataset"),
        ("--init-from abc --set init_from=def", "--init-from"),
        ("--set head=fcn32s", "VARIANT"),
    ],
)
def test_a_value_that_is_given_twice_is_an_error(fcnlab: Call, tmp_path: Path, words: str, option: str) -> None:
    result = fcnlab(*shlex.split(COMMAND), 0, *words.split())
    axis = words.rpartition(" ")[2].partition("=")[0]
    assert result.code == 2
    assert result.err == f"fcnlab: error: --set {axis}: given twice, also by {option}; keep one\n"
    assert not (tmp_path / "runs").exists()


def test_a_signal_pauses_a_single_trial_and_the_same_command_resumes_it(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lab.find(root=tmp_path)
    start = ProgressReporter.on_progress
    interrupted: list[bool] = []

    def interrupt_after_an_epoch(self: ProgressReporter, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        if epochs and not interrupted:  # a second signal would stop the trial at once
            interrupted.append(True)
            signal.raise_signal(signal.SIGINT)
        return start(self, planned, epochs)

    command = [*shlex.split(COMMAND), 0, "--set", "recipe.epochs=60", "--threads", 1]
    with monkeypatch.context() as patched:
        patched.setattr(ProgressReporter, "on_progress", interrupt_after_an_epoch)
        result = fcnlab(*command)
    assert result.code == 130
    assert result.err.endswith("interrupted; finished epochs are kept. Resume with the same command\n")
    [checkpoint] = tmp_path.glob("runs/*/checkpoint.pt")
    assert checkpoint.stat().st_size > 0
    resumed = fcnlab(*command)
    assert resumed.code == 0 and "resume fcn8s" in resumed.out
