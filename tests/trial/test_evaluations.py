"""Stored evaluations of a finished trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fcnlab.atomic_file import write_atomically
from fcnlab.lab import Lab
from fcnlab.training.protocol import Protocol
from fcnlab.trial.evaluation.evaluate import EvaluationTarget, evaluate_trial, evaluation_file
from fcnlab.trial.find import FinishedTrial, read_finished_trial
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial


@pytest.fixture
def finished(lab: Lab) -> FinishedTrial:
    trial = build_trial(lab=lab)
    assert run_trial(trial, lab).status == "finished"
    return read_finished_trial(RunFolder(lab.runs, trial.key))


def test_an_evaluation_with_the_same_file_name_and_other_inputs_is_not_reused(
    finished: FinishedTrial, lab: Lab
) -> None:
    for scale in (0.5, 0.5000001):
        assert evaluate_trial(finished, lab, Protocol(scales=(scale,)), "last").scales == (scale,)
    for name in ("a/b", "a_b"):
        target = EvaluationTarget(name, finished.trial.dataset, "val")
        assert evaluate_trial(finished, lab, Protocol(), "last", target=target).dataset == name


def test_metrics_are_never_beside_counts_of_another_evaluation(
    finished: FinishedTrial, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_trial(finished, lab, Protocol(scales=(0.5,)), "last")
    file = evaluation_file(finished, Protocol(scales=(0.5,)), "last")
    assert file.exists()

    def crash(path: Path, *arguments: Any) -> None:
        if path == file:
            raise KeyboardInterrupt
        write_atomically(path, *arguments)

    monkeypatch.setattr("fcnlab.trial.evaluation.evaluate.write_atomically", crash)
    with pytest.raises(KeyboardInterrupt):
        evaluate_trial(finished, lab, Protocol(scales=(0.5000001,)), "last")
    assert not file.exists()
