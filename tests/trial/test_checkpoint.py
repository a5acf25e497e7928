"""Checkpoints: their intervals, the state that they contain, and errors of writing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fcnlab.trial.checkpoint import CheckpointWriter


def test_a_checkpoint_holds_the_state_at_the_time_of_saving(tmp_path: Path) -> None:
    weights = torch.zeros(3)
    with CheckpointWriter(tmp_path / "checkpoint.pt", tmp_path / "previous.pt", every=0) as checkpoints:
        checkpoints.save({"weights": weights, "nested": [{"step": weights}], "best": (0.5, 1), "none": None})
        weights += 1
        checkpoints.wait()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.equal(state["weights"], torch.zeros(3))
    assert torch.equal(state["nested"][0]["step"], torch.zeros(3))
    assert state["best"] == (0.5, 1)
    assert state["none"] is None


def test_a_checkpoint_is_due_once_the_interval_has_passed(tmp_path: Path) -> None:
    with (
        CheckpointWriter(tmp_path / "a.pt", tmp_path / "a.previous.pt", every=0) as always,
        CheckpointWriter(tmp_path / "b.pt", tmp_path / "b.previous.pt", every=3600) as hourly,
    ):
        assert always.due
        assert not hourly.due


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path / "missing" / "checkpoint.pt", tmp_path / "previous.pt", every=0) as checkpoints:
        checkpoints.save({"step": 1})
        with pytest.raises(FileNotFoundError):
            checkpoints.save({"step": 2})
