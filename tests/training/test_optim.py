"""Learning rates over a run, and which parameters learn."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcnlab.training.optim import adamw, schedule, set_rates, sgd

torch.set_num_threads(1)


def test_a_constant_schedule_is_one_throughout() -> None:
    assert {schedule("constant", steps=10)(step) for step in range(10)} == {1.0}


@pytest.mark.parametrize("power", [0.5, 0.9, 2])
def test_poly_is_the_remaining_part_to_the_power(power: float) -> None:
    factor = schedule("poly", steps=20, power=power)
    assert [factor(step) for step in range(20)] == pytest.approx([(1 - step / 20) ** power for step in range(20)])


def test_cosine_falls_from_one_over_a_half_to_zero() -> None:
    factor = schedule("cosine", steps=8)
    assert [factor(step) for step in (0, 2, 4, 8)] == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


@pytest.mark.parametrize("name", ["constant", "poly", "cosine"])
def test_the_warm_up_rises_in_equal_steps_to_where_the_decay_begins(name: str) -> None:
    factor = schedule(name, steps=20, warmup=4)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    short = schedule(name, steps=16)
    assert [factor(4 + step) for step in range(16)] == pytest.approx([short(step) for step in range(16)])


@given(st.sampled_from(["constant", "poly", "cosine"]), st.integers(1, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=60)
def test_every_step_has_a_rate_above_zero_and_at_most_the_initial_one(name: str, steps: int, warmup: int) -> None:
    factors = [schedule(name, steps=steps, warmup=warmup)(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    rising, falling = factors[: warmup + 1], factors[warmup:]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)


def test_setting_rates_does_not_compound() -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (1.0, 0.1), strict=True)]
    optimizer = torch.optim.SGD(groups)
    for factor in (0.5, 0.5, 0.25, 1.0):
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([factor, 0.1 * factor])


def test_rates_go_on_where_a_saved_optimiser_stopped() -> None:
    model = nn.Linear(2, 2)
    first, second = (sgd(model, lr=0.4, momentum=0, weight_decay=0, nesterov=False) for _ in range(2))
    set_rates(first, 0.5)
    second.load_state_dict(first.state_dict())
    set_rates(second, 0.5)
    assert second.param_groups[0]["lr"] == pytest.approx(0.2)


def test_frozen_parameters_are_not_in_the_optimiser() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    for optimizer in (
        sgd(model, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        adamw(model, lr=0.1, weight_decay=0.1),
    ):
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert [id(parameter) for parameter in held] == [id(parameter) for parameter in model[0].parameters()]
