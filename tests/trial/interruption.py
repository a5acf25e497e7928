"""Trials that are interrupted, and the comparison of their records with those of uninterrupted ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.trial.checkpoint import CheckpointWriter
from fcnlab.trial.record import Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.settings import TrialSettings


def interrupt_trial(trial: Trial, lab: Lab, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Run a trial until it has saved its checkpoint after an epoch.

    Args:
        trial: the trial.
        lab: its lab.
        monkeypatch: pytest's fixture.
        after: the epoch.
    """
    save = CheckpointWriter.save

    def save_and_stop(self: CheckpointWriter, state: Mapping[str, Any]) -> None:
        save(self, state)
        if len(state["epochs"]) == after:
            self.wait()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run_trial(trial, lab, TrialSettings(checkpoint_every=0))


def timeless_content(record: Record) -> list[Any]:
    """Return everything in a record that does not depend on time.

    Args:
        record: record of a finished trial.

    Returns:
        The metrics and the epochs.
    """
    assert record.failure is None, record.failure
    return [record.metrics, [(epoch.epoch, epoch.loss, epoch.lr, epoch.val_miou) for epoch in record.epochs]]
