"""The retry policy for attempts that end without a record, by cause.

- A lost worker, or one that was killed because its trial made no progress: retry from the checkpoint, until MAX_LOSSES
  workers are lost at the same epoch.
- Out of memory: retry exclusively on the device if it is shared, then with more micro-batches per batch.
- A trial that diverges or raises an exception is not retried; it gets a failed record.

"Exclusively" refers to the trials of one driver: other drivers, which may use the same device, are not stopped. An
exclusive attempt that runs out of memory because of them continues with more micro-batches.

The attempts are stored in the run folder (`attempts.jsonl`), so a driver that takes over a trial continues with the
next step. More micro-batches change the gradient only through batch norms in training mode, of the backbone or of the
head, which see smaller batches. Attempts, jobs and records contain the factor by which their number is raised
(`Record.micro_batches`).
"""

from __future__ import annotations

from collections.abc import Sequence

from fcnlab.config.trial import Trial
from fcnlab.runner.executors.base import Job
from fcnlab.settings import DEFAULT_OPTIONS, RunOptions
from fcnlab.trial.record import Attempt, Failure

MAX_LOSSES = 2
"""Number of lost workers at one epoch of a trial after which the trial has failed."""


def create_job(
    trial: Trial,
    attempts: Sequence[Attempt],
    *,
    shares_devices: bool,
    pause_after: int | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
) -> Job:
    """Create the job of a trial's next attempt.

    Args:
        trial: the trial.
        attempts: the previous attempts.
        shares_devices: whether trials of the executor share devices.
        pause_after: epoch after which the job pauses; None runs all epochs.
        options: the options of the run.
    """
    return Job(
        trial=trial,
        pause_after=pause_after,
        micro_batches=_choose_micro_batches(trial, attempts, shares_devices=shares_devices),
        # Linux kills processes when memory runs out, so a trial with a lost worker may succeed without neighbors.
        exclusive=shares_devices and bool(attempts),
        checkpoint_every=options.checkpoint_every,
        log_every=options.log_every,
        hang_timeout=options.hang_timeout,
    )


def _choose_micro_batches(trial: Trial, attempts: Sequence[Attempt], *, shares_devices: bool) -> int:
    """Return the factor of the next attempt: greater only after an exclusive attempt ran out of memory."""
    out_of_memory = [attempt for attempt in attempts if attempt.cause == "out_of_memory"]
    if not out_of_memory:
        return 1
    last = out_of_memory[-1]
    if shares_devices and not last.exclusive:
        return last.micro_batches
    # A batch that cannot be split may fit without the trials that shared the device with an earlier driver.
    return next_micro_batches(trial, last.micro_batches) or last.micro_batches


def describe_retry(job: Job, *, resumes: bool) -> str:
    """Describe the next attempt of a trial in one phrase, for the line that reports the failed one.

    Args:
        job: the job of the next attempt, from `create_job`.
        resumes: whether the trial has a checkpoint.
    """
    parts = ["it resumes from its last checkpoint" if resumes else "it starts again"]
    parts += ["as the only trial on its device"] if job.exclusive else []
    parts += [f"with {_describe_micro_batches(job.trial, job.micro_batches)}"] if job.micro_batches > 1 else []
    return ", ".join(parts)


def find_failure(trial: Trial, attempts: Sequence[Attempt], *, shares_devices: bool) -> Failure | None:
    """Return the failure of a trial that is not retried again.

    Args:
        trial: the trial.
        attempts: the attempts so far, at least one.
        shares_devices: whether trials of the executor share devices.

    Returns:
        The failure; None if the trial is retried.
    """
    last = attempts[-1]
    if last.cause == "lost":
        losses = sum(attempt.cause == "lost" and attempt.epoch == last.epoch for attempt in attempts)
        if losses < MAX_LOSSES:
            return None
        return Failure(cause="lost", message=f"{last.message} ({losses} times after epoch {last.epoch})")
    if (shares_devices and not last.exclusive) or next_micro_batches(trial, last.micro_batches) is not None:
        return None
    tried = f", also with {_describe_micro_batches(trial, last.micro_batches)}" if last.micro_batches > 1 else ""
    return Failure(cause="out_of_memory", message=f"{last.message}{tried}; reduce the batch size or the crop")


def _describe_micro_batches(trial: Trial, factor: int) -> str:
    return f"{trial.recipe.grad_accum_steps * factor} micro-batches per batch"


def next_micro_batches(trial: Trial, micro_batches: int) -> int | None:
    """Return the next greater factor of the number of micro-batches with which all of them have equal size.

    Args:
        trial: the trial.
        micro_batches: the current factor.

    Returns:
        The factor; None if there is none with as many images per micro-batch as the head needs, or if the loss depends
        on the whole batch, which is never split then.
    """
    recipe = trial.recipe
    if recipe.loss.batch_terms:
        return None
    images = recipe.batch_size // recipe.grad_accum_steps
    most = images // trial.variant.head.min_images
    return next((more for more in range(micro_batches + 1, most + 1) if images % more == 0), None)
