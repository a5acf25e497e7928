"""Lack of memory in each phase of a trial: a failed record with this cause, which the retry policy handles."""

from __future__ import annotations

import pytest
import torch

from fcnlab.lab import Lab
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.settings import TrialSettings
from tests.builders import build_trial

PHASES = {
    "upload": "fcnlab.trial.build.TrainingBatches",
    "step": "fcnlab.training.step.Backward.accumulate",
    "optimizer": "fcnlab.training.fit._update_weights",
    "average": "fcnlab.training.optim.MovingAverage.update_parameters",
    "evaluation": "fcnlab.trial.evaluation.evaluator.evaluate_split",
    "checkpoint": "fcnlab.trial.trainer.capture_state",
    "weights": "fcnlab.trial.evaluation.evaluator._save_weights",
    "cost": "fcnlab.training.cost.count_gmacs",
}


@pytest.mark.parametrize("phase", PHASES)
def test_lack_of_memory_is_the_cause_of_a_failure_in_each_phase(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    trial = build_trial(lab=lab, epochs=2, ema=0.9)
    monkeypatch.setattr(PHASES[phase], fail)
    record = run_trial(trial, lab, TrialSettings(checkpoint_every=0))
    assert record is not None and record.failure is not None
    assert (record.failure.cause, record.failure.message.partition(".")[0]) == ("out_of_memory", "CUDA out of memory")
    assert not RunFolder(lab.runs, trial.key).heartbeat.exists()
