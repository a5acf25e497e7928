"""Random search: the samples of a grid file, how they are combined with other keys, and errors of ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.grid.sample import Sample, draw_samples
from tests.config.grid.test_grid import BASE, error_of, grid, same_data

RANGES: dict[str, dict[str, Any]] = {
    "recipe.optimizer.lr": {"log_uniform": [1e-4, 1e-1]},
    "recipe.flip": {"uniform": [0.12345, 0.5]},
    "recipe.epochs": {"int_uniform": [2, 9]},
    "head": {"choice": ["fcn32s", "fcn16s", "fcn8s"]},
}
LR = {"recipe.lr": {"log_uniform": [1e-4, 1e-1]}}
UNSAMPLED = {**BASE, "head": "fcn8s"}


def draw(n: int, ranges: dict[str, Any] = RANGES, **keys: Any) -> list[dict[str, Any]]:
    return draw_samples(Sample.model_validate({"n": n, **keys, **ranges}))


@given(
    st.sampled_from(["random", "qmc"]),
    st.integers(0, 2**31),
    st.lists(st.sampled_from(sorted(RANGES)), min_size=1, unique=True),
    st.integers(1, 3),
    st.integers(0, 8),
)
@settings(deadline=None, max_examples=25)
def test_a_larger_n_keeps_the_first_samples_which_are_different_and_within_the_ranges(
    sampler: str, seed: int, axes: list[str], n: int, more: int
) -> None:
    ranges = {axis: RANGES[axis] for axis in axes}
    more = 0 if axes == ["head"] else min(more, 5)
    found = draw(n + more, ranges, sampler=sampler, seed=seed)
    assert found[:n] == draw(n, dict(reversed(ranges.items())), sampler=sampler, seed=seed)
    assert len({repr(row) for row in found}) == n + more
    for row in found:
        assert list(row) == axes
        for axis, value in row.items():
            ((kind, values),) = RANGES[axis].items()
            if kind == "choice":
                assert value in values
                continue
            assert values[0] <= value <= values[-1] and type(value) is (int if kind == "int_uniform" else float)
            assert value in values or float(f"{value:.4g}") == value


def test_the_same_file_has_the_same_cells_everywhere() -> None:
    expected = [0.00443, 0.01398, 0.006431, 0.004312]  # uniform numbers of numpy.random.RandomState(0)
    assert [row["recipe.optimizer.lr"] for row in draw(4, LR)] == expected
    assert [row["recipe.optimizer.lr"] for row in draw(4, LR, seed=1)] != expected


def test_a_sobol_sequence_fills_a_range_evenly() -> None:
    logarithms = [math.log10(row["recipe.optimizer.lr"]) for row in draw(8, LR, sampler="qmc")]
    assert sorted(int((logarithm + 4) / 3 * 8) for logarithm in logarithms) == list(range(8))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
@pytest.mark.parametrize(
    ("kind", "ends", "middle"), [("uniform", [1, 9], 5), ("log_uniform", [0.01, 1], 0.1), ("int_uniform", [1, 9], 5)]
)
def test_half_of_the_samples_are_below_the_middle_of_their_range(
    sampler: str, kind: str, ends: list[float], middle: float
) -> None:
    ranges = {"recipe.lr": {kind: ends}, "recipe.weight_decay": {"uniform": [0, 1]}}
    values = [row["recipe.optimizer.lr"] for row in draw(1000, ranges, sampler=sampler)]
    below, equal = sum(value < middle for value in values), sum(value == middle for value in values)
    assert abs(below + equal / 2 - 500) < 50
    assert kind != "int_uniform" or all(70 < values.count(value) < 160 for value in range(1, 10))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_every_choice_has_the_same_probability(sampler: str) -> None:
    ranges = {"head": {"choice": ["fcn32s", "fcn16s", "fcn8s"]}, **LR}
    heads = [row["head"] for row in draw(900, ranges, sampler=sampler)]
    assert all(abs(heads.count(head) - 300) < 50 for head in set(heads)) and len(set(heads)) == 3


def test_samples_are_crossed_with_the_product_and_have_equal_keys_for_a_larger_n(tmp_path: Path) -> None:
    keys = {"baseline": None, "base": BASE, "product": {"head": ["fcn32s", "fcn8s"]}}
    small, large = (grid(tmp_path, **keys, sample={"n": n, **LR}) for n in (2, 3))
    assert small.axes == ("head", "recipe.optimizer.lr")
    values = [row["recipe.optimizer.lr"] for row in draw(3, LR)]
    assert [tuple(cell.axes.values()) for cell in large.cells] == [
        (head, value) for head in ("fcn32s", "fcn8s") for value in values
    ]
    assert small.baseline.label == "fcn32s, 0.00443"
    first, second = ({trial.key for _, trial in found.trials(same_data)} for found in (small, large))
    assert len(first) == 4 and len(second) == 6 and first < second


def test_axes_of_samples_may_be_conditional_and_cells_are_added_to_them(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        base={**UNSAMPLED, "recipe.optimizer": {"name": "sgd", "lr": 0.1}},
        product=None,
        sample={"n": 6, "recipe.optimizer.name": {"choice": ["sgd", "adamw"]}, "recipe.momentum": {"uniform": [0, 1]}},
        when={"recipe.momentum": {"recipe.optimizer.name": "sgd"}},
        cells=[{}],
        baseline={"recipe.momentum": 0.0},
    )
    rows = [tuple(cell.axes.values()) for cell in found.cells]
    assert rows.count(("adamw", "–")) == 1 and rows[-1] == ("sgd", 0.0) and len(rows) > 2


@pytest.mark.parametrize(
    ("sample", "error"),
    [
        ({"n": 2}, "sample: give at least one axis, such as recipe.lr: {log_uniform: [0.0001, 0.1]}"),
        ({"n": 0, **LR}, "sample.n: input should be greater than or equal to 1, not 0"),
        (
            {"n": 2, "recipe.lr": [0.1, 0.2]},
            "sample.recipe.lr: give one range: {uniform: [low, high]}, log_uniform, int_uniform, or {choice: [values]}",
        ),
        (
            {"n": 2, "recipe.lr": {"log": [0.1, 0.2]}},
            "sample.recipe.lr: log: unknown range; valid: choice, int_uniform, log_uniform, uniform",
        ),
        (
            {"n": 2, "recipe.lr": {"uniform": [0.2, 0.1]}},
            "sample.recipe.lr: uniform: the range must increase, not 0.2 to 0.1",
        ),
        (
            {"n": 2, "recipe.lr": {"log_uniform": [0, 0.1]}},
            "sample.recipe.lr: log_uniform: the range must begin above 0, not at 0",
        ),
        (
            {"n": 2, "recipe.epochs": {"int_uniform": [1, 2.5]}},
            "sample.recipe.epochs: int_uniform: give two integers, not [1, 2.5]",
        ),
        (
            {"n": 2, "recipe.lr": {"log_uniform": [1, 10**400]}},
            "sample.recipe.lr: log_uniform: the ends must be within ±9e+15",
        ),
        ({"n": 2, "seed": 2**32, **LR}, "sample.seed: input should be less than 4294967296, not 4294967296"),
        ({"n": 2, "head": {"uniform": [1, 2]}}, "sample: head: uniform is for numbers; use choice"),
        (
            {"n": 2, "head": {"choice": ["fcn8s", "fcn8s"]}},
            "sample.head: choice: a value appears twice in ['fcn8s', 'fcn8s']",
        ),
        (
            {"n": 3, "head": {"choice": ["fcn32s", "fcn8s"]}},
            "sample: n: the ranges have 2 combinations, not 3; lower n, or list them in product",
        ),
        (
            {"n": 30, "recipe.lr": {"uniform": [1, 1.001]}},
            "sample: n: the ranges gave 2 different samples, not 30; lower n or widen a range",
        ),
        (
            {"n": 9, **LR, "recipe.flip": {"uniform": [0, 1.5]}},
            "sample: recipe.flip: input should be less than or equal to 1, not 1.5",
        ),
        (
            {"n": 9, "recipe.epochs": {"uniform": [1, 5]}},
            "sample: recipe.epochs: input should be a valid integer, not 1.0",
        ),
        (
            {"n": 9, **LR, "recipe.optimizer.lr": {"uniform": [1, 2]}},
            "sample: recipe.lr and recipe.optimizer.lr are the same axis; keep one of them",
        ),
    ],
)
def test_an_error_of_a_range_is_one_line(tmp_path: Path, sample: dict[str, Any], error: str) -> None:
    assert error_of(tmp_path, base=UNSAMPLED, product=None, baseline=None, sample=sample) == error


def test_an_axis_may_not_also_be_in_the_product(tmp_path: Path) -> None:
    error = error_of(tmp_path, base=UNSAMPLED, product={"recipe.lr": [1]}, baseline=None, sample={"n": 3, **LR})
    assert error == "recipe.optimizer.lr: is in product and in sample; keep one of them"
