from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.config.grid.grid import resolve
from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.runner.retry_policy import failure, job_for, next_parts
from fcnlab.trial.record import Attempt


def a_trial(**recipe: Any) -> Trial:
    said = {"variant": "fcn8s-tiny", "dataset": "shapes", "recipe": "quick"}
    fields = {f"recipe.{name}": value for name, value in recipe.items()}
    cell = resolve({**said, **fields}, Lab.find().registry, "test")
    return cell.trial(0, lambda variant, dataset: ("data", None, {}))


def lost(epoch: int) -> Attempt:
    return Attempt(cause="lost", message="its worker ended with signal 9", epoch=epoch)


def starved(parts: int = 1, alone: bool = False) -> Attempt:
    return Attempt(cause="out_of_memory", message="no memory left", epoch=0, micro_batches=parts, exclusive=alone)


def test_a_first_attempt_is_as_the_recipe_says() -> None:
    job = job_for(a_trial(), [], shares_devices=True, pause_after=3)
    assert (job.micro_batches, job.exclusive, job.pause_after) == (1, False, 3)


def test_a_lost_worker_is_replaced_while_the_trial_gets_on() -> None:
    trial = a_trial()
    getting_on = [lost(0), lost(1), lost(4)]
    assert failure(trial, getting_on, shares_devices=True) is None
    given_up = failure(trial, [*getting_on, lost(4)], shares_devices=True)
    assert given_up is not None and given_up.cause == "lost"
    assert given_up.message == "its worker ended with signal 9 (2 times after epoch 4)"


def test_a_trial_whose_worker_was_lost_has_no_neighbours_the_next_time() -> None:
    assert job_for(a_trial(), [lost(0)], shares_devices=True).exclusive
    assert not job_for(a_trial(), [lost(0)], shares_devices=False).exclusive


def test_memory_that_runs_out_is_answered_by_solitude_and_then_by_parts() -> None:
    trial = a_trial(batch_size=12)
    tried: list[Attempt] = []
    ways = []
    while failure(trial, [*tried, starved()], shares_devices=True) is None or len(tried) < 2:
        job = job_for(trial, tried, shares_devices=True)
        ways.append((job.exclusive, job.micro_batches))
        tried.append(starved(job.micro_batches, job.exclusive))
        if failure(trial, tried, shares_devices=True) is not None:
            break
    assert ways == [(False, 1), (True, 1), (True, 2), (True, 3), (True, 4), (True, 6), (True, 12)]
    given_up = failure(trial, tried, shares_devices=True)
    assert given_up is not None and given_up.cause == "out_of_memory"
    assert "12 parts" in given_up.message


def test_alone_on_its_device_a_trial_goes_to_parts_at_once() -> None:
    assert job_for(a_trial(batch_size=8), [starved()], shares_devices=False).micro_batches == 2


@pytest.mark.parametrize("loss", ["dice", "lovasz"])
def test_a_loss_that_sees_the_whole_batch_is_never_cut(loss: str) -> None:
    trial = a_trial(**{f"loss.{loss}": 0.5})
    assert failure(trial, [starved()], shares_devices=False) is not None


@given(batch=st.integers(1, 64), accumulate=st.integers(1, 8))
def test_parts_are_equal_and_grow_until_each_holds_one_image(batch: int, accumulate: int) -> None:
    recipe = a_trial(batch_size=batch * accumulate, grad_accum_steps=accumulate).recipe
    parts, seen = 1, [1]
    while (more := next_parts(recipe, parts)) is not None:
        assert more > parts and recipe.batch_size % (recipe.grad_accum_steps * more) == 0
        parts = more
        seen.append(parts)
    assert parts == batch
    assert seen == [n for n in range(1, batch + 1) if batch % n == 0]
