"""Finished trials, trained once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fcnlab.lab import Lab
from fcnlab.trial.find import FinishedTrial, read_finished_trial
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial
from tests.conftest import create_cache


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCNLAB_CACHE", str(create_cache(tmp_path_factory)))
        torch.set_num_threads(1)
        yield Lab(tmp_path_factory.mktemp("lab"))


def train(lab: Lab, score_scale: float) -> FinishedTrial:
    """Run a short trial to its end."""
    overrides = {"recipe": "quick", "recipe.batch_size": 4, "recipe.epochs": 12, "recipe.precision": "fp32"}
    trial = build_trial(overrides, lab=lab, score_scale=score_scale)
    record = run_trial(trial, lab)
    assert record is not None and record.failure is None, record
    return read_finished_trial(RunFolder(lab.runs, trial.key))


@pytest.fixture(scope="package")
def full_scale(lab: Lab) -> FinishedTrial:
    """A trial that is evaluated at native size."""
    return train(lab, 1.0)


@pytest.fixture(scope="package")
def half_scale(lab: Lab) -> FinishedTrial:
    """A trial that is evaluated at half the native size."""
    return train(lab, 0.5)
