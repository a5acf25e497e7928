"""A cell can be said again: what `said_of` gives, `resolve` makes the same cell of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.config.grid.grid import resolve
from fcnlab.config.grid.overrides import said_of
from fcnlab.config.registry import builtin

BASE = {"backbone": "tiny-scratch", "head": "fcn8s", "upsampler": "bilinear", "dataset": "shapes", "recipe": "smoke"}


def check(said: dict[str, Any]) -> dict[str, Any]:
    cell = resolve(said, {}, builtin(), "test")
    again = said_of(cell, builtin())
    assert resolve(again, {}, builtin(), "again").content() == cell.content()
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
CLASHES = [
    {"recipe.lr", "recipe.optimizer"}, {"recipe.loss", "recipe.loss.ohem"},
    {"upsampler.learned", "upsampler.stage_init.image"},
]  # fmt: skip


@given(st.sets(st.sampled_from(sorted(SETTINGS))), st.sets(st.sampled_from(sorted(SETTINGS))))
def test_what_is_said_of_a_cell_makes_that_cell(axes: set[str], first: set[str]) -> None:
    for clash in CLASHES:
        axes, first = (axes - clash if clash & (axes | first) else axes), first - clash
    start = {axis: SETTINGS[axis] for axis in first} | {"recipe.epochs": 7}
    check({**BASE, **{axis: SETTINGS[axis] for axis in axes}, "init_from": start})


def test_only_what_differs_from_the_catalogue_is_said() -> None:
    assert check(BASE) == BASE
    assert check({**BASE, "recipe.lr": 0.5}) == {**BASE, "recipe.optimizer.lr": 0.5}


def test_what_a_cell_starts_from_keeps_nothing_that_it_does_not_have() -> None:
    said = check({**BASE, "recipe.epochs": 9, "init_from": {"recipe.epochs": 3, "head": "fcn32s"}})
    assert said["init_from"] == {"recipe.epochs": 3, "head": "fcn32s"}
    once = builtin().get("recipe", "smoke").epochs  # type: ignore[attr-defined]
    assert check({**BASE, "recipe.epochs": 9, "init_from": {"recipe.epochs": once}})["init_from"] == {
        "recipe.epochs": once
    }
    assert check({**BASE, "init_from": 64 * "a"})["init_from"] == 64 * "a"


@pytest.mark.parametrize("kind", ["recipe", "head", "upsampler"])
def test_every_entry_is_said_by_its_name_alone(kind: str) -> None:
    skipped = {"fcn32s-paper", "fcn16s-paper", "fcn8s-paper"}
    for name in builtin().names(kind):
        entry = builtin().get(kind, name)
        if name in skipped or getattr(entry, "type", "") == "paper":
            continue
        assert check({**BASE, kind: name})[kind] == name
