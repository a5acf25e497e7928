"""A cell: trials that differ by seed alone, one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fcnlab.config.dataset import Dataset
from fcnlab.config.grid.axes import Assignment, text
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial, key_of
from fcnlab.config.variant import Variant

Fingerprints = Callable[[Variant, Dataset], tuple[str, str | None]]
"""Gives the content fingerprints of a dataset and of a variant's weights file."""


@dataclass(frozen=True)
class Cell:
    """One row of a table: what varies, and the configuration that follows from it."""

    axes: Assignment
    variant: Variant
    dataset: Dataset
    recipe: Recipe
    names: Mapping[str, str]
    init_from: Cell | str | None = None

    @property
    def label(self) -> str:
        """The values of the axes, such as `fcn8s, random`."""
        return ", ".join(text(value) for value in self.axes.values()) or self.names["variant"]

    def trial(self, seed: int, fingerprints: Fingerprints) -> Trial:
        """The trial of this cell with a seed."""
        ((trial, _),) = self.trials([seed], fingerprints)
        return trial

    def trials(self, seeds: Iterable[int], fingerprints: Fingerprints) -> list[tuple[Trial, str]]:
        """The trials of this cell with their keys, one for each seed."""
        seeds = list(seeds)
        data, weights = fingerprints(self.variant, self.dataset)
        if isinstance(self.init_from, Cell):
            starts: list[str | None] = [key for _, key in self.init_from.trials(seeds, fingerprints)]
        else:
            starts = [self.init_from] * len(seeds)
        trials = [
            Trial(
                variant=self.variant,
                dataset=self.dataset,
                recipe=self.recipe,
                seed=seed,
                names=dict(self.names),
                data=data,
                weights=weights,
                init_from=start,
            )
            for seed, start in zip(seeds, starts, strict=True)
        ]
        return list(zip(trials, keys(trials), strict=True))

    def content(self) -> tuple[Any, ...]:
        """What makes this cell another than the next, as plain values."""
        start = self.init_from.content() if isinstance(self.init_from, Cell) else self.init_from
        return self.variant.content(), self.dataset.content(), self.recipe.content(), start


def keys(trials: list[Trial]) -> list[str]:
    """The keys of trials of one cell, which differ by seed and start alone: the rest is made canonical once."""
    if not trials:
        return []
    shared = trials[0].identity()
    shared.pop("init_from", None)
    return [
        key_of({**shared, "seed": trial.seed} | ({"init_from": trial.init_from} if trial.init_from is not None else {}))
        for trial in trials
    ]
