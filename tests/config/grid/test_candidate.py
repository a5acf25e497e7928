"""Candidates: `to_overrides` is the inverse of `resolve`, and a type may be overridden."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.config.grid.candidate import to_overrides
from fcnlab.config.grid.grid import resolve
from fcnlab.config.registry import builtin
from tests.builders import TINY

BASE = TINY | {"dataset": "shapes"}


def check(overrides: dict[str, Any]) -> dict[str, Any]:
    cell = resolve(overrides, builtin(), "test")
    again = to_overrides(cell, builtin())
    assert resolve(again, builtin(), "again").content() == cell.content()
    return again


SETTINGS = {
    "recipe.lr": 0.003,
    "recipe.optimizer": {"name": "adamw", "lr": 0.01},
    "recipe.loss.ohem": {},
    "recipe.loss": {"dice": 1.0},
    "recipe.scale": [0.5, 2.0],
    "recipe.crop.height": 64,
    "recipe.jitter.hue": 0.1,
    "recipe.schedule": {"name": "step", "milestones": [0.5]},
    "recipe.ema": 0.99,
    "dataset.options.train": 20,
    "dataset.splits.test": None,
    "upsampler.stage_init.image": "random",
    "upsampler.learned": False,
    "head": "fcn32s",
    "variant": "fcn8s-tiny",
}
CONFLICTS = [
    {"recipe.lr", "recipe.optimizer"}, {"recipe.loss", "recipe.loss.ohem"},
    {"upsampler.learned", "upsampler.stage_init.image"},
]  # fmt: skip


@given(st.sets(st.sampled_from(sorted(SETTINGS))), st.sets(st.sampled_from(sorted(SETTINGS))))
def test_the_overrides_of_a_cell_make_the_same_cell(axes: set[str], first: set[str]) -> None:
    for conflict in CONFLICTS:
        axes, first = (axes - conflict if conflict & (axes | first) else axes), first - conflict
    earlier = {axis: SETTINGS[axis] for axis in first} | {"recipe.epochs": 7}
    check({**BASE, **{axis: SETTINGS[axis] for axis in axes}, "init_from": earlier})


TYPES: dict[str, list[dict[str, Any]]] = {
    "recipe.optimizer": [
        {"recipe.optimizer.momentum": 0.5},
        {"recipe.optimizer": {"name": "adamw", "lr": 0.001}},
        {"recipe.optimizer": {"name": "rmsprop", "lr": 0.001, "momentum": 0.5}},
    ],
    "recipe.loss.ohem": [{"recipe.loss.ohem.keep": 0.5}, {"recipe.loss.ohem": None}, {"recipe.loss": {"dice": 1.0}}],
    "recipe.schedule": [{"recipe.schedule.power": 0.5}, {"recipe.schedule": {"name": "step", "gamma": 0.3}}],
}


@given(st.data())
def test_a_cell_is_initialized_from_one_with_other_types_or_from_an_equal_one(data: st.DataObject) -> None:
    axes, earlier = (
        {axis: value for kind in TYPES.values() for axis, value in data.draw(st.sampled_from([{}, *kind])).items()}
        for _ in range(2)
    )
    earlier = {axis: value for axis, value in earlier.items() if not any(axis.startswith(f"{one}.") for one in axes)}
    check({**BASE, "recipe.epochs": 7, **axes, "init_from": {"recipe.epochs": 7, **earlier}})


def test_only_differences_from_the_registry_are_overrides() -> None:
    assert check(BASE) == BASE
    assert check({**BASE, "recipe.lr": 0.5}) == {**BASE, "recipe.optimizer.lr": 0.5}


def test_the_cell_to_start_from_keeps_its_own_fields() -> None:
    found = check({**BASE, "recipe.epochs": 9, "init_from": {"recipe.epochs": 3, "head": "fcn32s"}})
    assert found["init_from"] == {"recipe.epochs": 3, "head": "fcn32s"}
    once = builtin().get("recipe", "smoke").epochs
    assert check({**BASE, "recipe.epochs": 9, "init_from": {"recipe.epochs": once}})["init_from"] == {
        "recipe.epochs": once
    }
    assert check({**BASE, "init_from": 64 * "a"})["init_from"] == 64 * "a"


@pytest.mark.parametrize("kind", ["recipe", "head", "upsampler"])
def test_the_override_of_a_registry_entry_is_its_name(kind: str) -> None:
    skipped = {"fcn32s-paper", "fcn16s-paper", "fcn8s-paper"}
    for name in builtin().names(kind):
        entry = builtin().get(kind, name)
        if name in skipped or getattr(entry, "type", "") == "paper":
            continue
        assert check({**BASE, kind: name})[kind] == name


@pytest.mark.parametrize(
    "overrides",
    [
        {"head.type": "dilated", "head.output_stride": 8},
        {"head.type": "custom_head", "head.options": {"width": 3}},
        {"upsampler.type": "resize", "upsampler.mode": "nearest"},
        {"upsampler": "interpolate", "upsampler.type": "resize"},
        {"upsampler": "interpolate", "upsampler.type": "transposed", "upsampler.init": "zero"},
    ],
    ids=str,
)
def test_another_type_keeps_the_fields_that_it_has_too(overrides: dict[str, Any]) -> None:
    again = check({**BASE, **overrides})
    assert {axis: again[axis] for axis in overrides} == overrides
