"""What is done about an attempt that ended without a figure, by its cause.

    a lost worker       again, from the checkpoint; LIVES times without an epoch between are a failure
    out of memory       alone on its device, if it had neighbours; then each batch in more parts, and so on
    diverged, or raised is what the trial has to say: a failed record, and no other attempt

What was tried stands in the run folder (`attempts.jsonl`), so that a driver that takes over goes on where the last one
was. Cutting a batch into parts leaves the gradient as it is; the record has how many there were
(`Record.micro_batches`).
"""

from __future__ import annotations

from collections.abc import Sequence

from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.runner.executors.base import Job
from fcnlab.trial.record import Attempt, Failure

LIVES = 2
"""How often a worker may be lost at one epoch of a trial."""


def job_for(trial: Trial, attempts: Sequence[Attempt], *, shares_devices: bool, pause_after: int | None = None) -> Job:
    """How a trial is run next, after these attempts, none of which was the last that it may have."""
    starved = [attempt for attempt in attempts if attempt.cause == "out_of_memory"]
    # Linux kills a process that takes the last of the memory: a trial whose worker was lost may do better alone.
    alone = shares_devices and bool(attempts)
    if not starved:
        return Job(trial=trial, pause_after=pause_after, exclusive=alone)
    last = starved[-1]
    if shares_devices and not last.exclusive:
        return Job(trial=trial, pause_after=pause_after, micro_batches=last.micro_batches, exclusive=True)
    parts = next_parts(trial.recipe, last.micro_batches)
    assert parts is not None, "the trial has failed"
    return Job(trial=trial, pause_after=pause_after, micro_batches=parts, exclusive=alone)


def failure(trial: Trial, attempts: Sequence[Attempt], *, shares_devices: bool) -> Failure | None:
    """Why a trial is given up after these attempts; None if it is worth another."""
    last = attempts[-1]
    if last.cause == "lost":
        losses = sum(attempt.cause == "lost" and attempt.epoch == last.epoch for attempt in attempts)
        if losses < LIVES:
            return None
        return Failure(cause="lost", message=f"{last.message} ({losses} times after epoch {last.epoch})")
    if (shares_devices and not last.exclusive) or next_parts(trial.recipe, last.micro_batches) is not None:
        return None
    tried = f", also with each batch in {last.micro_batches} parts" if last.micro_batches > 1 else ""
    return Failure(cause="out_of_memory", message=f"{last.message}{tried}; a smaller batch or crop may fit")


def next_parts(recipe: Recipe, parts: int) -> int | None:
    """The next larger number of equal parts that a batch can be cut into; None if there is none.

    Dice and Lovász losses look at a batch as a whole; in parts they would be another loss.
    """
    if recipe.loss.dice or recipe.loss.lovasz:
        return None
    images = recipe.batch_size // recipe.grad_accum_steps
    return next((more for more in range(parts + 1, images + 1) if images % more == 0), None)
