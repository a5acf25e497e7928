"""A cell: one configuration of a grid with all its seeds, one row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from fcnlab.config.dataset import AnyDataset, Dataset
from fcnlab.config.grid.axes import Overrides, format_name, short_names
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.config.variant import Variant


class InputFingerprints(NamedTuple):
    """Fingerprints of the content of a trial's inputs; see the fields of `Trial`."""

    data: str
    weights: str | None
    extensions: dict[str, str]


Fingerprints = Callable[[Variant, Dataset, Recipe], InputFingerprints]
"""Returns the fingerprints of a dataset, of a variant's weights file, and of the code of extensions by kind."""

NOT_DATA = frozenset({"description", "nominal", "colors"})
"""Fields of a dataset that change neither its images nor its labels."""

UNCHANGED = "unchanged"
"""Label of the cell of an ablation to which the others are compared."""


@dataclass(frozen=True)
class Cell:
    """One configuration of a grid.

    Attributes:
        axes: the values of the grid's axes in this cell.
        variant: the architecture.
        dataset: images and labels.
        recipe: the training.
        names: names of the components in the registry.
        init_from: the cell whose trials this one is initialized from, or the key of a trial.
        changed: the axes in which the cell of an ablation differs from the unchanged one; None in other grids.
    """

    axes: Overrides
    variant: Variant
    dataset: AnyDataset
    recipe: Recipe
    names: Mapping[str, str]
    init_from: Cell | str | None = None
    changed: tuple[str, ...] | None = None

    @cached_property
    def label(self) -> str:
        """The values of the axes, such as `fcn8s, random`; in an ablation those that changed, such as `ema 0.99`."""
        if self.changed is not None:
            short = short_names(self.axes)
            return ", ".join(f"{short[axis]} {format_name(self.axes[axis])}" for axis in self.changed) or UNCHANGED
        return ", ".join(format_name(value) for value in self.axes.values()) or self.names["variant"]

    def trials(self, seeds: Iterable[int], fingerprints: Fingerprints) -> list[Trial]:
        """Return the trials of this cell, one per seed; with a cross-validation, each with the fold of its seed.

        Args:
            seeds: seeds of the trials.
            fingerprints: function that returns the fingerprints of the dataset, the weights file and the extensions.

        Returns:
            The trials in the order of the seeds.
        """
        seeds = list(seeds)
        datasets = [self.dataset.select_fold(seed) for seed in seeds]
        inputs = {
            text: (dataset, fingerprints(self.variant, dataset, self.recipe))
            for text, dataset in {repr(dataset): dataset for dataset in datasets}.items()
        }
        if isinstance(self.init_from, Cell):
            earlier: list[str | None] = [trial.key for trial in self.init_from.trials(seeds, fingerprints)]
        else:
            earlier = [self.init_from] * len(seeds)
        trials = []
        for seed, text, key in zip(seeds, map(repr, datasets), earlier, strict=True):
            dataset, found = inputs[text]
            trials.append(
                Trial(
                    variant=self.variant,
                    dataset=dataset,
                    recipe=self.recipe,
                    seed=seed,
                    names=dict(self.names),
                    init_from=key,
                    **found._asdict(),
                )
            )
        return trials

    def content(self) -> dict[str, Any]:
        """Return the identifying content of the cell as plain values.

        A key of a trial contains the fingerprint of the data. This content contains instead the fields that name the
        files of the dataset, since no file is read.
        """
        components = {"variant": self.variant, "dataset": self.dataset, "recipe": self.recipe}
        files = {name: getattr(self.dataset, name) for name in self.dataset.not_in_key - NOT_DATA}
        earlier = self.init_from.content() if isinstance(self.init_from, Cell) else self.init_from
        contents = {name: config.content() for name, config in components.items()}
        return {**contents, "files": files, "init_from": earlier}
