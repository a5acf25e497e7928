"""Tests of trials on a GPU: records, results close to those of the CPU, and reproducible resuming."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.decoded import DecodedSplit
from fcnlab.lab import Lab
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate_split
from fcnlab.trial.build import build_model
from fcnlab.trial.record import Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.settings import TrialSettings
from tests.builders import build_trial, create_lab
from tests.gpu.test_fake_training import variant
from tests.trial.interruption import interrupt_trial, timeless_content

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda", 0)


def finished(record: Record | None) -> Record:
    assert record is not None
    assert record.failure is None, record.failure.traceback
    return record


@pytest.mark.parametrize("head", ["fcn8s", "dilated8-aux"])
def test_the_record_of_a_finished_trial_names_the_gpu(lab: Lab, head: str) -> None:
    record = finished(
        run_trial(
            build_trial({"head": head}, lab=lab, jitter={"brightness": 0.3}),
            lab,
            TrialSettings(trials_per_device=2, log_every=1),
        )
    )
    environment, cost = record.environment, record.cost
    assert environment is not None and cost is not None
    assert (environment.kind, environment.trials_per_device) == ("cuda", 2)
    assert environment.device == torch.cuda.get_device_name(0)
    assert environment.cuda == torch.version.cuda and environment.cudnn and environment.precision == "fp32"
    assert 2**20 < cost.peak_memory < torch.cuda.get_device_properties(0).total_memory
    for epoch in record.epochs:  # the tensor with the loss is overwritten by the next step of a CUDA graph
        assert np.mean([loss for _, loss in epoch.step_losses]) == pytest.approx(epoch.loss)
        assert 0 < epoch.system["gpu_0_memory_usage_percentage"] < 100
    assert record.metrics and all(score.miou is not None for score in record.metrics)


def test_the_loss_of_the_first_epoch_is_close_to_that_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for name in ("cuda", "cpu"):
        monkeypatch.setenv(DEVICE_VARIABLE, name)
        lab = create_lab(tmp_path / name)
        record = finished(run_trial(build_trial(lab=lab, epochs=1), lab))
        assert record.environment is not None and record.environment.kind == name
        losses.append(record.epochs[0].loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("head", ["dilated16", "dilated16-aux"])  # both have dropout
def test_a_resumed_deterministic_trial_is_reproducible_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    labs = calm, rough = create_lab(tmp_path / "calm"), create_lab(tmp_path / "rough")
    trial = build_trial({"head": head}, lab=calm, epochs=3, deterministic=True, ema=0.9)
    expected = finished(run_trial(trial, calm))
    interrupt_trial(trial, rough, monkeypatch, after=1)
    resumed = finished(run_trial(trial, rough))
    assert resumed.environment is not None and resumed.environment.repeatable
    assert timeless_content(resumed) == timeless_content(expected)
    weights: list[dict[str, Any]] = [load_file(lab.runs / trial.key / "last.safetensors") for lab in labs]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_counts_equal_those_of_the_cpu() -> None:
    shapes = Shapes(train=12, val=1, test=1, height=64, width=80, seed=0)
    split, num_classes = DecodedSplit(shapes.split("train")), len(shapes.classes)
    model = build_model(variant("fcn8s"), num_classes, seed=0)
    hardware.create_autocast(DEVICE, "fp32")  # turns TF32 off
    counts = [
        evaluate_split(
            model.to(device),
            split,
            num_classes=num_classes,
            autocast=nullcontext,
            boundaries=True,
        )
        for device in (DEVICE, torch.device("cpu"))
    ]
    for found, expected in zip(*counts, strict=True):
        assert found is not None and expected is not None and expected.sum() > 0
        assert np.array_equal(found[..., 2], expected[..., 2])  # labeled pixels
        # Scores differ in their last bits, so that pixels with two nearly equal classes can differ.
        assert np.abs(found - expected).sum() <= 0.002 * expected.sum()
