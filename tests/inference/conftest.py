"""Finished trials that are used: made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fcnlab.config.grid.grid import resolve
from fcnlab.lab import Lab
from fcnlab.trial.find import FinishedTrial, find_finished_trial
from fcnlab.trial.run import run_trial


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCNLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        yield Lab(tmp_path_factory.mktemp("lab"))


def finished(lab: Lab, score_scale: float) -> FinishedTrial:
    """A trial that has learned a little and has finished."""
    said = {"backbone": "tiny-scratch", "head": "fcn8s", "upsampler": "bilinear", "dataset": "shapes-mini"}
    said |= {
        "recipe": "quick",
        "recipe.batch_size": 4,
        "recipe.epochs": 12,
        "recipe.precision": "fp32",
        "recipe.score_scale": score_scale,
    }
    trial = resolve(said, lab.registry, "test").trial(0, lab.fingerprints)
    record = run_trial(trial, lab)
    assert record is not None and record.failure is None, record
    return find_finished_trial(trial.key, lab)


@pytest.fixture(scope="package")
def plain(place: Lab) -> FinishedTrial:
    """Scored at the images' own size."""
    return finished(place, 1.0)


@pytest.fixture(scope="package")
def half(place: Lab) -> FinishedTrial:
    """Scored at half the images' size."""
    return finished(place, 0.5)
