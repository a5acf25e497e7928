"""The settings of one start of a trial. They do not change what is trained, and are not part of its key."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fcnlab.config.base import Config, Count
from fcnlab.settings import RunOptions


class TrialSettings(Config):
    """Settings of one start of a trial.

    Attributes:
        pause_after: pause after this epoch, with a checkpoint; None runs all epochs.
        micro_batches: factor by which the number of micro-batches of the recipe is raised, for trials that ran out of
            memory; gradients are accumulated.
        trials_per_device: number of trials that share its GPU.
        checkpoint_every: seconds between two checkpoints; 0 writes one after each epoch.
        log_every: steps between two training losses that are recorded; None records none.
    """

    pause_after: Count | None = None
    micro_batches: Count = 1
    trials_per_device: Count = 1
    checkpoint_every: Annotated[float, Field(ge=0)] = RunOptions.checkpoint_every
    log_every: Count | None = None
