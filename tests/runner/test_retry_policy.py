from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.runner.retry_policy import create_job, describe_retry, find_failure, next_micro_batches
from fcnlab.trial.record import Attempt
from tests.builders import build_trial


def lost(epoch: int) -> Attempt:
    return Attempt(cause="lost", message="its worker ended with signal 9", epoch=epoch)


def out_of_memory(micro_batches: int = 1, exclusive: bool = False) -> Attempt:
    return Attempt(
        cause="out_of_memory", message="no memory left", epoch=0, micro_batches=micro_batches, exclusive=exclusive
    )


def test_first_attempt_follows_the_recipe() -> None:
    job = create_job(build_trial(), [], shares_devices=True, pause_after=3)
    assert (job.micro_batches, job.exclusive, job.pause_after) == (1, False, 3)


def test_lost_worker_is_retried_while_the_trial_makes_progress() -> None:
    trial = build_trial()
    attempts = [lost(0), lost(1), lost(4)]
    assert find_failure(trial, attempts, shares_devices=True) is None
    failure = find_failure(trial, [*attempts, lost(4)], shares_devices=True)
    assert failure is not None and failure.cause == "lost"
    assert failure.message == "its worker ended with signal 9 (2 times after epoch 4)"


def test_trial_is_exclusive_after_a_lost_worker() -> None:
    assert create_job(build_trial(), [lost(0)], shares_devices=True).exclusive
    assert not create_job(build_trial(), [lost(0)], shares_devices=False).exclusive


def test_the_next_attempt_is_described_in_one_phrase() -> None:
    def describe(attempt: Attempt, *, shares: bool = True, resumes: bool = False, **recipe: int) -> str:
        job = create_job(build_trial(batch_size=8, **recipe), [attempt], shares_devices=shares)
        return describe_retry(job, resumes=resumes)

    assert describe(lost(3), shares=False, resumes=True) == "it resumes from its last checkpoint"
    assert describe(lost(0), shares=False) == "it starts again"
    assert describe(out_of_memory()) == "it starts again, as the only trial on its device"
    assert describe(out_of_memory(2, exclusive=True)) == (
        "it starts again, as the only trial on its device, with 4 micro-batches per batch"
    )
    assert describe(out_of_memory(), shares=False, grad_accum_steps=4) == (
        "it starts again, with 8 micro-batches per batch"
    )


def test_out_of_memory_retries_exclusively_then_splits_the_batch() -> None:
    trial = build_trial(batch_size=12)
    tried: list[Attempt] = []
    jobs = []
    while find_failure(trial, [*tried, out_of_memory()], shares_devices=True) is None or len(tried) < 2:
        job = create_job(trial, tried, shares_devices=True)
        jobs.append((job.exclusive, job.micro_batches))
        tried.append(out_of_memory(job.micro_batches, job.exclusive))
        if find_failure(trial, tried, shares_devices=True) is not None:
            break
    assert jobs == [(False, 1), (True, 1), (True, 2), (True, 3), (True, 4), (True, 6), (True, 12)]
    failure = find_failure(trial, tried, shares_devices=True)
    assert failure is not None and failure.cause == "out_of_memory"
    assert "12 micro-batches" in failure.message


def test_the_failure_counts_the_micro_batches_of_the_recipe() -> None:
    failure = find_failure(
        build_trial(batch_size=8, grad_accum_steps=4), [out_of_memory(2, exclusive=True)], shares_devices=True
    )
    assert failure is not None
    assert failure.message == "no memory left, also with 8 micro-batches per batch; reduce the batch size or the crop"


def test_out_of_memory_on_unshared_device_splits_the_batch_immediately() -> None:
    assert create_job(build_trial(batch_size=8), [out_of_memory()], shares_devices=False).micro_batches == 2


@pytest.mark.parametrize(
    ("term", "value"), [("dice", 0.5), ("lovasz", 0.5), ("ohem", {"keep": 0.1}), ("custom", {"type": "own"})]
)
def test_batch_is_not_split_for_losses_of_the_whole_batch(term: str, value: Any) -> None:
    trial = build_trial(**{f"loss.{term}": value})
    assert find_failure(trial, [out_of_memory()], shares_devices=False) is not None


@pytest.mark.parametrize(
    ("batch", "accumulate", "numbers"), [(8, 1, [1, 2, 4]), (6, 1, [1, 2, 3]), (8, 4, [1]), (2, 1, [1])]
)
def test_a_batch_is_split_into_as_many_images_as_the_head_needs(
    batch: int, accumulate: int, numbers: list[int]
) -> None:
    head = {"head": "deeplabv3plus", "backbone": "resnet18-scratch"}
    trial = build_trial(head, batch_size=batch, grad_accum_steps=accumulate)
    assert trial.variant.head.min_images == 2, "one image would be an error of its batch norm"
    attempts: list[Attempt] = []
    while not attempts or find_failure(trial, attempts, shares_devices=False) is None:
        attempts.append(out_of_memory(create_job(trial, attempts, shares_devices=False).micro_batches))
    assert [attempt.micro_batches for attempt in attempts] == numbers


ATTEMPTS = st.lists(
    st.builds(out_of_memory, micro_batches=st.sampled_from([1, 2, 4]), exclusive=st.booleans())
    | st.builds(lost, st.integers(0, 3)),
    max_size=4,
)


@settings(deadline=None)
@given(attempts=ATTEMPTS, shares=st.booleans(), batch=st.integers(1, 4), whole=st.booleans())
def test_every_history_of_attempts_has_a_next_job(
    attempts: list[Attempt], shares: bool, batch: int, whole: bool
) -> None:
    # The attempts may be those of another driver, whose trials shared their devices or did not.
    trial = build_trial(batch_size=batch, **({"loss.lovasz": 0.5} if whole else {}))
    job = create_job(trial, attempts, shares_devices=shares)
    assert job.micro_batches == 1 or batch % job.micro_batches == 0 or any(a.micro_batches > 1 for a in attempts)
    if whole and all(attempt.micro_batches == 1 for attempt in attempts):
        assert job.micro_batches == 1


@settings(deadline=None)
@given(batch=st.integers(1, 64), accumulate=st.integers(1, 8))
def test_micro_batches_are_equal_and_increase_to_one_image_each(batch: int, accumulate: int) -> None:
    trial = build_trial(batch_size=batch * accumulate, grad_accum_steps=accumulate)
    recipe = trial.recipe
    micro_batches, seen = 1, [1]
    while (more := next_micro_batches(trial, micro_batches)) is not None:
        assert more > micro_batches and recipe.batch_size % (recipe.grad_accum_steps * more) == 0
        micro_batches = more
        seen.append(micro_batches)
    assert micro_batches == batch
    assert seen == [n for n in range(1, batch + 1) if batch % n == 0]
