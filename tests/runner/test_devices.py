"""A trial on several devices, here two processes on the CPU: its record, and its resumption after a kill."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcnlab.config.grid.cell import Cell
from fcnlab.errors import ConfigError, FcnlabError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors import create, device_check, slots
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.create import check_executor
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.slots import Slot, plan_slots
from fcnlab.settings import DEVICE_VARIABLE, RunOptions
from fcnlab.trial.diff import diff_records
from fcnlab.trial.record import Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_cell, build_trial
from tests.conftest import arrays_of, create_cache
from tests.processes import find_children, needs_proc, wait_until_gone
from tests.runner.jobs import read_record, run_job, wait_for_epochs, wait_for_exit, worker_of

EVAL = {"recipe.batch_norm": "eval"}
"""Override of the recipe, since trained batch norm is refused on several devices."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.find(root=tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def pair(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessExecutor]:
    """A worker whose trials run in two processes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FCNLAB_CACHE", str(create_cache(tmp_path_factory)))
        patched.setenv("CUDA_VISIBLE_DEVICES", "")
        with ProcessExecutor(lab, [Slot(threads=2, devices=2)]) as executor:
            yield executor


def test_a_trial_on_two_devices_equals_that_on_one_up_to_rounding(
    pair: ProcessExecutor, lab: Lab, tmp_path: Path
) -> None:
    learns: dict[str, Any] = {
        "epochs": 6,
        "lr": 0.1,
        "flip": 0.5,
        "ema": 0.9,
        "grad_accum_steps": 2,
        "grad_clip_norm": 1.0,
    }
    asked = build_trial(EVAL, lab=lab, **learns)
    assert run_job(pair, asked) == JobExit(asked.key)
    distributed = read_record(lab, asked)
    elsewhere = Lab.find(root=tmp_path)
    single = run_trial(asked, elsewhere)
    assert single is not None and single.key == distributed.key
    assert distributed.failure is None, distributed.failure
    losses = [[epoch.loss for epoch in one.epochs] for one in (distributed, single)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]
    counts = [arrays_of(RunFolder(place.runs, asked.key).counts)["test_last"] for place in (lab, elsewhere)]
    assert abs(counts[0].astype(int) - counts[1].astype(int)).sum() <= 1e-3 * counts[1].sum()
    environment = distributed.environment
    assert environment is not None and (environment.devices, environment.threads) == (2, 1)
    assert {(one.field, one.a, one.b) for one in diff_records(distributed, single)} >= {
        ("devices", 2, 1),
        ("hardware", "2 x CPU", "CPU"),
    }


def test_trained_batch_norm_fails_with_a_remedy(pair: ProcessExecutor, lab: Lab) -> None:
    asked = build_trial(EVAL, lab=lab, batch_norm="train")
    run_job(pair, asked)
    failure = read_record(lab, asked).failure
    assert failure is not None and failure.message.endswith("eval or frozen, or leave out --devices-per-trial")
    assert not RunFolder(lab.runs, asked.key).read_progress()


def test_trained_batch_norm_is_refused_before_a_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "usable_cores", lambda: 8)
    trained, fixed = (
        build_cell(EVAL, registry=lab.registry, batch_norm="train"),
        build_cell(EVAL, registry=lab.registry, batch_norm="eval"),
    )
    check_executor(
        RunOptions(devices_per_trial=2),
        [fixed, build_cell(EVAL, registry=lab.registry, freeze="backbone", batch_norm="train")],
        lab,
    )
    for cells in ([fixed, trained], [replace(fixed, init_from=trained)]):
        with pytest.raises(
            ConfigError, match=r"^--devices-per-trial 2: cell '.*': 15 batch norm layers.* or frozen, or"
        ):
            check_executor(RunOptions(devices_per_trial=2), cells, lab)
    check_executor(RunOptions(devices_per_trial=1), [trained], lab)


def test_a_nan_loss_is_a_divergence(pair: ProcessExecutor, lab: Lab) -> None:
    asked = build_trial(EVAL, lab=lab, lr=1e30)
    run_job(pair, asked)
    failure = read_record(lab, asked).failure
    assert failure is not None and failure.cause == "diverged"


LONG: dict[str, Any] = {"epochs": 30, "validate_every": 15}
"""Fields of a recipe that takes a second or two."""


@pytest.fixture(scope="module")
def undisturbed(pair: ProcessExecutor, lab: Lab) -> Record:
    """The record of a long trial without interruption."""
    asked = build_trial(EVAL, lab=lab, **LONG)
    run_job(pair, asked)
    found = read_record(lab, asked)
    RunFolder(lab.runs, asked.key).path.rename(lab.root / "undisturbed")
    return found


def curve(record: Record) -> list[tuple[float, float | None]]:
    return [(epoch.loss, epoch.val_miou) for epoch in record.epochs]


def started(pair: ProcessExecutor, lab: Lab) -> RunFolder:
    """Start the long trial and wait for some epochs."""
    asked = build_trial(EVAL, lab=lab, **LONG)
    folder = RunFolder(lab.runs, asked.key)
    if folder.record.exists():
        folder.path.rename(lab.root / str(time.time_ns()))
    pair.start(Job(trial=asked, checkpoint_every=0))
    wait_for_epochs(pair, folder, 2)
    return folder


def goes_on(pair: ProcessExecutor, lab: Lab) -> Record:
    asked = build_trial(EVAL, lab=lab, **LONG)
    assert run_job(pair, asked).error is None
    return read_record(lab, asked)


def test_a_paused_trial_resumes_with_equal_metrics(pair: ProcessExecutor, lab: Lab, undisturbed: Record) -> None:
    folder = started(pair, lab)
    pair.pause()
    assert wait_for_exit(pair).error is None
    assert folder.read() is None and folder.checkpoint.exists()
    assert len(folder.read_progress()) < LONG["epochs"]
    assert curve(goes_on(pair, lab)) == curve(undisturbed)


@needs_proc
@pytest.mark.parametrize("victim", ["the trial's process", "rank 0", "rank 1"])
def test_a_killed_rank_ends_all_ranks_and_the_trial_resumes(
    pair: ProcessExecutor, lab: Lab, undisturbed: Record, victim: str
) -> None:
    folder = started(pair, lab)
    (own,) = find_children(worker_of(pair))
    ranks = find_children(own)
    assert len(ranks) == 2
    os.kill({"the trial's process": own, "rank 0": ranks[0], "rank 1": ranks[1]}[victim], signal.SIGKILL)
    assert "its process ended with" in str(wait_for_exit(pair).error)
    assert folder.read() is None
    for rank in ranks:
        wait_until_gone(rank)
    assert curve(goes_on(pair, lab)) == curve(undisturbed)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, 32 GiB, no GPU."""
    for module in (create, slots):
        monkeypatch.setattr(module, "usable_cores", lambda: 8)
    monkeypatch.setattr(slots, "usable_memory", lambda: 32 * 2**30)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return monkeypatch


def test_a_slot_has_the_gpus_or_threads_of_all_ranks(machine: pytest.MonkeyPatch, lab: Lab) -> None:
    recipes = [build_cell(EVAL, registry=lab.registry).recipe]
    assert plan_slots(recipes, RunOptions(devices_per_trial=2)) == [Slot(threads=2, devices=2)] * 4
    machine.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,5")
    assert plan_slots(recipes, RunOptions(devices_per_trial=2)) == [Slot(4, "0,1", 2), Slot(4, "2,3", 2)]
    three = plan_slots(recipes, RunOptions(workers=3, devices_per_trial=2))
    assert [slot.gpu for slot in three] == ["0,1", "2,3", "0,1"]


@pytest.mark.parametrize(
    ("how", "fields", "error", "expected_text"),
    [
        (
            {"devices_per_trial": 3},
            {},
            ConfigError,
            "a batch of 4 cannot be shared out equally among 3 devices; .* divisor of 4",
        ),
        (
            {"devices_per_trial": 4},
            {"grad_accum_steps": 2},
            ConfigError,
            "a batch of 4 in 2 parts cannot be .* divisor of 2",
        ),
        ({"devices_per_trial": 2}, {"loss.dice": 0.5}, ConfigError, "recipe smoke: loss.dice needs the whole batch"),
        ({"devices_per_trial": 2}, {"loss.ohem": {}}, ConfigError, "loss.ohem needs the whole batch"),
        ({"devices_per_trial": 16}, {}, RunError, "--devices-per-trial 16: this machine has no GPU and 8 cores"),
        ({"devices_per_trial": 2, "per_gpu": 2}, {}, RunError, "--per-gpu a part of one; leave one out"),
        ({"devices_per_trial": 2, "executor": "serial"}, {}, RunError, "goes with --executor process, not serial"),
        ({"devices_per_trial": 2, "executor": "ray"}, {}, RunError, "goes with --executor process, not ray"),
    ],
)
def test_options_unsupported_on_several_devices_are_rejected_before_a_run(
    machine: pytest.MonkeyPatch, lab: Lab, how: dict[str, Any], fields: dict[str, Any], error: type, expected_text: str
) -> None:
    with pytest.raises(error, match=expected_text) as refused:
        check_executor(RunOptions(**how), [build_cell(EVAL, registry=lab.registry, **fields)], lab)
    assert isinstance(refused.value, FcnlabError) and "\n" not in str(refused.value)


def test_the_trials_of_init_from_are_checked_too(machine: pytest.MonkeyPatch, lab: Lab) -> None:
    machine.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    fits, does_not = build_cell(EVAL, registry=lab.registry), build_cell(EVAL, registry=lab.registry, batch_size=3)
    check_executor(RunOptions(devices_per_trial=2), [fits], lab)
    with pytest.raises(ConfigError, match="a batch of 3"):
        check_executor(
            RunOptions(devices_per_trial=2),
            [Cell(fits.axes, fits.variant, fits.dataset, fits.recipe, fits.names, does_not)],
            lab,
        )
    with pytest.raises(RunError, match="this machine has 2 GPUs"):
        check_executor(RunOptions(devices_per_trial=4), [fits], lab)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_while_devices_are_counted_is_no_failure_of_cuda(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        os.kill(os.getpid(), number)  # as a cluster, which signals all processes of a job
        return 1

    monkeypatch.setenv(DEVICE_VARIABLE, "cuda")
    monkeypatch.setattr(device_check, "count_devices", count)
    assert device_check.find_device_error(1, verify=True) is None
