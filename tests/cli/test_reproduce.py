"""`fcnlab grid reproduce`: its command sets everything, and running it gives the same metrics."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.trial.record import Failure, Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.cli.conftest import Call
from tests.conftest import SMOKE, write_grid
from tests.data.images import random_image, random_mask, save_image

TEXT = """
question: Does it run again?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: street, recipe: mine, recipe.flip: 0.5}
product: {head: [fcn32s, fcn8s], recipe.optimizer: [{name: sgd, lr: 0.01}, {name: adamw, lr: 1.0e-5}]}
seeds: [3]
baseline: {head: fcn32s, recipe.optimizer: {name: sgd, lr: 0.01}}
"""
DATASET = """
street:
  type: folder
  images: street/images
  masks: street/masks
  classes: [road, car]
  fractions: {val: 0.2, test: 0.2}
  splits: {test: test}
  nominal: {height: 6, width: 8}
"""
"""A dataset in the lab, as `fcnlab data add` writes it."""

MINE = "mine: {epochs: 1, batch_size: 4, crop: {height: 64, width: 64}, optimizer: {name: sgd, lr: 1}}\n"


@pytest.fixture
def ran(tmp_path: Path) -> RunFolder:
    """The last trial of a grid, finished, in a lab with its own recipe and data."""
    lab_folder = tmp_path / "lab"
    for number in range(10):
        save_image(random_image(number), lab_folder / f"street/images/{number}.png")
        save_image(random_mask(number, (0, 1)), lab_folder / f"street/masks/{number}.png")
    (lab_folder / "registry").mkdir(parents=True)
    (lab_folder / "registry/recipes.yaml").write_text(MINE)
    (lab_folder / "registry/datasets.yaml").write_text(DATASET)
    path = write_grid(lab_folder, TEXT)
    lab = Lab.find(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    *_, (_, trial) = lab.load_grid(path).trials(lab.fingerprints)
    run_trial(trial, lab)
    torch.set_num_threads(threads)
    return RunFolder(lab.runs, trial.key)


def test_command_sets_everything_and_reproduces_the_metrics(fcnlab: Call, ran: RunFolder, tmp_path: Path) -> None:
    file = ran.path.parent.parent / "experiments/question.yaml"
    shown = fcnlab("grid", "reproduce", f"{file}:fcn8s,{{name: adamw", "--dry-run", "--workdir", "again one")
    assert (shown.code, shown.err) == (0, "") and shown.out.count("\n") == 1
    words = shlex.split(shown.out)
    assert words[:3] == ["fcnlab", "train", "tiny-scratch+fcn8s+bilinear"]
    assert words[-8:-6] == ["--device", "cpu"], "the recorded device"
    assert words[-6:] == ["--threads", "1", "--lab", "lab", "--workdir", "again one"]
    assert not (tmp_path / "again one").exists(), "a dry run creates nothing"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lab").rglob("*")}
    done = fcnlab("grid", "reproduce", f"{file}:fcn8s,{{name:adamw:3", "--workdir", "again one")
    assert done.code == 0, done.out + done.err
    assert done.out.startswith(shown.out)
    assert "identical: all metrics, losses and learning rates equal the record bit for bit" in done.out
    assert RunFolder(tmp_path / "again one/runs", ran.key).read() is not None
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lab").rglob("*")} == before
    refused = fcnlab("grid", "reproduce", ran.key[:8], "--lab", "lab", "--workdir", "again one")
    assert refused.code == 2 and "this trial has already run there; choose a new folder" in refused.err


def test_command_of_a_distributed_trial_sets_devices_and_threads(fcnlab: Call, ran: RunFolder) -> None:
    record = ran.read()
    assert record is not None and record.environment is not None
    ran.finish(record.model_copy(update={"environment": record.environment.model_copy(update={"devices": 2})}))
    shown = fcnlab("grid", "reproduce", ran.key[:8], "--lab", "lab", "--dry-run")
    assert "--threads 2 --devices-per-trial 2 --lab lab" in shown.out


def test_differing_metrics_are_printed_with_possible_causes(
    fcnlab: Call, ran: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ran.read()
    assert record is not None and record.environment is not None
    other = record.environment.model_copy(update={"threads": 7, "commit": "ffff"})
    epochs = (record.epochs[0].model_copy(update={"loss": 9.0}),)
    scores = tuple(score.model_copy(update={"miou": (score.miou or 0) + 0.25}) for score in record.metrics)

    def pretend(words: list[str], check: bool) -> None:
        folder = RunFolder(tmp_path / "again/runs", ran.key)
        folder.create()
        changed = {"environment": other, "epochs": epochs, "metrics": scores}
        folder.finish(record.model_copy(update=changed))

    monkeypatch.setattr(subprocess, "run", pretend)
    result = fcnlab("grid", "reproduce", ran.key[:8], "--lab", "lab", "--workdir", "again")
    assert result.code == 1
    assert "(+25.00)" in result.out and "the losses differ from epoch 1 on" in result.out
    assert "differs: threads: 1 recorded, 7 now" in result.out
    assert "differs: commit: " in result.out
    assert "on the CPU metrics repeat bit for bit with the same code, versions, threads" in result.out


def test_the_temporary_folder_is_removed_if_the_metrics_are_equal(
    fcnlab: Call, ran: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ran.read()
    assert record is not None
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def pretend(words: list[str], check: bool) -> None:
        folder = RunFolder(Path(words[-1]) / "runs", ran.key)
        folder.create()
        folder.finish(record)

    monkeypatch.setattr(subprocess, "run", pretend)
    result = fcnlab("grid", "reproduce", ran.key[:8], "--lab", "lab")
    assert result.code == 0 and f"--workdir {temporary}" in result.out and not list(temporary.iterdir())


def test_ctrl_c_pauses_the_trial_which_resumes_in_the_same_folder(
    fcnlab: Call, ran: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ran.read()
    assert record is not None
    folder = RunFolder(tmp_path / "again/runs", ran.key)

    def interrupt(words: list[str], check: bool) -> None:
        folder.create()
        folder.write_progress(list(record.epochs))
        os.kill(os.getpid(), signal.SIGINT)

    def resume(words: list[str], check: bool) -> None:
        folder.finish(record)

    words = ("grid", "reproduce", ran.key[:8], "--lab", "lab", "--workdir", "again")
    former = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(subprocess, "run", interrupt)
    interrupted = fcnlab(*words)
    assert interrupted.code == 130 and "to resume and compare, repeat the command" in interrupted.err
    assert signal.getsignal(signal.SIGINT) is former
    monkeypatch.setattr(subprocess, "run", resume)
    assert "identical: all metrics" in fcnlab(*words).out


def test_trial_without_a_record_is_printed_but_not_run(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE)
    assert fcnlab("grid", "reproduce", f"{file}:fcn8s", "--dry-run").code == 0
    result = fcnlab("grid", "reproduce", f"{file}:fcn8s")
    assert result.code == 2 and "no record to compare with" in result.err
    assert "the closest cells are 'fcn8s'; " in fcnlab("grid", "reproduce", f"{file}:fcn9s").err


def test_failed_trial_is_printed_but_not_run(fcnlab: Call, ran: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    record = ran.read()
    assert record is not None
    trial = Trial.model_validate_json(ran.trial.read_bytes())
    ran.finish(Record.create(trial, "failed", failure=Failure(cause="diverged", message="the loss is nan")))
    monkeypatch.setattr(subprocess, "run", None)
    assert fcnlab("grid", "reproduce", ran.key[:8], "--lab", "lab", "--dry-run").code == 0
    result = fcnlab("grid", "reproduce", ran.key[:8], "--lab", "lab")
    assert result.code == 2 and "this trial has failed and has no metrics to compare with" in result.err


def test_init_from_is_part_of_the_command(fcnlab: Call, tmp_path: Path) -> None:
    text = SMOKE.replace(
        "product: {head: [fcn32s, fcn8s]}", "cells: [{head: fcn32s}, {head: fcn8s, init_from: {head: fcn32s}}]"
    )
    result = fcnlab("grid", "reproduce", f"{write_grid(tmp_path, text)}:fcn8s", "--dry-run")
    assert "init_from={head: fcn32s}" in shlex.split(result.out)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("recipe.epochs", "--set: expected AXIS=VALUE, such as recipe.epochs=5, not 'recipe.epochs'"),
        ("recipe.epochs=1\nx: 2", "--set recipe.epochs: the value has several lines; write it on one line"),
        ("recipe.epoch=5", "a recipe has no field 'epoch'; did you mean 'epochs'?"),
        ("recipe.epochs=many", "epochs: input should be a valid integer"),
        ("recipe.epochs=[", "--set recipe.epochs"),
    ],
)
def test_invalid_setting_is_rejected(fcnlab: Call, setting: str, expected: str) -> None:
    result = fcnlab("train", "fcn8s-tiny", "--dataset", "shapes-mini", "--recipe", "smoke", "--set", setting)
    assert result.code == 2 and expected in result.err and result.err.count("\n") == 1


def test_workdir_cannot_be_the_lab(fcnlab: Call) -> None:
    result = fcnlab("train", "fcn8s-tiny", "--dataset", "shapes-mini", "--recipe", "smoke", "--workdir", ".")
    assert result.code == 2 and "this is the lab itself" in result.err
