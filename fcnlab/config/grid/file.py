"""The content of a grid file. `docs/grids.md` explains each key by examples."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fcnlab.config.base import Config, Count, Whole
from fcnlab.config.grid.axes import Axis, ByAxis, Value, format_value
from fcnlab.config.grid.labels import Labels
from fcnlab.config.grid.sample import Sample
from fcnlab.constants import CheckpointChoice

MAX_CELLS = 10_000
"""Largest number of cells of a grid before `exclude` and `when`."""

MAX_TRIALS = 100_000
"""Largest number of trials of a grid."""

Values = Annotated[list[Value], Field(min_length=1)]
OverridesField = Annotated[dict[Axis, Value], ByAxis]
NonEmptyOverrides = Annotated[dict[Axis, Value], Field(min_length=1), ByAxis]
Columns = Annotated[dict[Axis, Values], ByAxis]
Conditions = Annotated[
    list[NonEmptyOverrides],
    Field(min_length=1),
    BeforeValidator(lambda value: [value] if isinstance(value, dict) else value),
]
"""Conditions, any of which is to be met; a single one need not be in a list."""


class Ablation(Config):
    """Changes that are examined one at a time.

    Attributes:
        changes: overrides of each change.
        mode: `add` compares the unchanged cell with one cell per change; `remove` compares the cell with all changes
            with one cell without each of them.
    """

    changes: Annotated[list[NonEmptyOverrides], Field(min_length=1)]
    mode: Literal["add", "remove"] = "add"

    @property
    def rows(self) -> list[dict[str, Value]]:
        """The overrides of each cell; the first cell is the one to compare with."""
        if self.mode == "add":
            return [{}, *self.changes]
        kept = [self.changes, *(self.changes[:i] + self.changes[i + 1 :] for i in range(len(self.changes)))]
        return [{axis: value for change in changes for axis, value in change.items()} for changes in kept]


class EarlyStopping(Config):
    """Configuration of early stopping: the epochs after which weak cells are pruned, and the rule.

    `{after: 10, margin: 5}` prunes the cells whose val mIoU is more than 5 points below the best cell.
    `{after: [5, 10, 20], keep: 0.5}` keeps the better half of the cells each time: successive halving (Jamieson and
    Talwalkar, AISTATS 2016, section 2). The baseline is never pruned.

    Attributes:
        after: the epoch or epochs after which cells are compared.
        margin: points of mIoU below the best cell, 0 to 100.
        keep: fraction of the cells that continue, between 0 and 1.
    """

    renamed: ClassVar[dict[str, str]] = {"below": "margin"}

    after: Count | Annotated[list[Count], Field(min_length=1)]
    margin: Annotated[float, Field(strict=True, ge=0, le=100)] | None = None
    keep: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs after which cells are compared, in increasing order."""
        return (self.after,) if isinstance(self.after, int) else tuple(self.after)

    @model_validator(mode="after")
    def _check_rule(self) -> EarlyStopping:
        if (self.margin is None) == (self.keep is None):
            raise ValueError("give one rule: 'margin', in points of mIoU such as 5, or 'keep', such as 0.5")
        if list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"after: the epochs must increase, not {list(self.epochs)}")
        return self


class Block(Config):
    """A set of cells: `product` x `zip` x `sample` x `ablate` on top of `base`, and the single `cells`.

    Attributes:
        base: overrides of all cells, by axis.
        product: values by axis; each combination is a cell.
        zip: values of axes that vary together: the first values of all axes, then the second, and so on.
        sample: random search: the number of samples `n`, and a range of values by axis.
        cells: overrides of single cells.
        ablate: changes that are examined one at a time.
        exclude: conditions; cells that meet one of them are left out.
        when: conditions by axis; the axis varies only in cells that meet one of its conditions.
    """

    base: OverridesField = Field(default_factory=dict)
    product: Columns = Field(default_factory=dict)
    zip: Columns = Field(default_factory=dict)
    sample: Sample | None = None
    cells: list[OverridesField] = Field(default_factory=list)
    ablate: Ablation | None = None
    exclude: list[NonEmptyOverrides] = Field(default_factory=list)
    when: Annotated[dict[Axis, Conditions], ByAxis] = Field(default_factory=dict)

    @field_validator("zip")
    @classmethod
    def _check_lengths(cls, columns: dict[str, list[Value]]) -> dict[str, list[Value]]:
        if len({len(values) for values in columns.values()}) > 1:
            listing = ", ".join(f"{axis} has {len(values)}" for axis, values in columns.items())
            raise ValueError(f"axes under zip must have the same number of values, and {listing}")
        return columns

    @property
    def is_crossed(self) -> bool:
        """True if there are axes to cross, not only single cells."""
        return bool(self.product or self.zip or self.sample or self.ablate or not self.cells)

    @property
    def is_ablation(self) -> bool:
        """True if all cells are those of `ablate`."""
        return self.ablate is not None and not (self.product or self.zip or self.sample or self.cells)

    @property
    def candidates(self) -> int:
        """The number of cells before `exclude` and `when`."""
        if not self.is_crossed:
            return len(self.cells)
        factors = [len(values) for values in self.product.values()]
        factors += [len(values) for values in [*self.zip.values()][:1]]
        factors += [self.sample.n] if self.sample is not None else []
        factors += [len(self.ablate.changes) + 1] if self.ablate is not None else []
        return math.prod(factors) + len(self.cells)

    @property
    def sampled_axes(self) -> tuple[str, ...]:
        """The axes of the random search."""
        return tuple(self.sample.ranges) if self.sample is not None else ()

    @property
    def changed_axes(self) -> list[str]:
        """The axes of all changes of the ablation, with duplicates."""
        return [axis for change in self.ablate.changes for axis in change] if self.ablate is not None else []

    @property
    def crossed_axes(self) -> tuple[str, ...]:
        """The axes of product, zip, sample and ablate, in order of appearance."""
        return tuple(dict.fromkeys([*self.product, *self.zip, *self.sampled_axes, *self.changed_axes]))

    @property
    def varied_axes(self) -> tuple[str, ...]:
        """The crossed axes and those of the single cells, in order of appearance."""
        return tuple(dict.fromkeys([*self.crossed_axes, *(axis for cell in self.cells for axis in cell)]))

    def find_conflicts(self, conditional: Collection[str]) -> list[str]:
        """List the contradictions in the block.

        Args:
            conditional: axes that vary only in some cells.

        Returns:
            One error per line.
        """
        changed = self.changed_axes
        fixed = [axis for axis in self.base if axis not in conditional]
        axes_of: dict[str, Collection[str]] = {
            "base": fixed, "product": self.product, "zip": self.zip, "sample": self.sampled_axes, "ablate": changed
        }  # fmt: skip
        errors = [
            f"{axis}: is in {one} and in {other}; keep one of them"
            for one, other in combinations(axes_of, 2)
            if (one, other) != ("base", "ablate")
            for axis in axes_of[one]
            if axis in axes_of[other]
        ]
        if self.ablate is not None and self.ablate.mode == "remove":
            errors += [
                f"ablate: {axis}: two changes set it, and with mode: remove all changes apply at once; keep one of them"
                for axis in dict.fromkeys(axis for axis in changed if changed.count(axis) > 1)
            ]
        return errors


class GridFile(Block):
    """Content of a grid file.

    Attributes:
        question: the question of the grid, in one sentence.
        description: context for readers of the table.
        conclusion: the answer; written when the results are there.
        blocks: several sets of cells; `base`, `exclude` and `when` beside them apply to each.
        seeds: number of seeds of each cell, or a list of seeds.
        baseline: overrides of the cell to which the others are compared; by default the first cell, or the first
            unchanged cell of an ablation.
        checkpoint: weights to evaluate: of the last epoch, or of the best on val.
        early_stopping: rule and epochs for pruning weak cells.
        labels: display names of axes, values and cells, and the caption of the table in LaTeX.
    """

    renamed: ClassVar[dict[str, str]] = {
        "about": "description",
        "learnt": "conclusion",
        "select": "checkpoint",
        "stop": "early_stopping",
    }

    question: Annotated[str, Field(min_length=1)]
    description: str = ""
    conclusion: str = ""
    blocks: list[Block] = Field(default_factory=list)
    seeds: Count | Annotated[list[Whole], Field(min_length=1)] = 1
    baseline: OverridesField | None = None
    checkpoint: CheckpointChoice = "last"
    early_stopping: EarlyStopping | None = None
    labels: Labels = Field(default_factory=Labels)

    @field_validator("seeds", mode="before")
    @classmethod
    def _check_seeds(cls, seeds: Any) -> Any:
        if isinstance(seeds, list) or type(seeds) is int:
            return seeds
        raise ValueError(f"give an integer, or a list such as [2, 3], not {format_value(seeds)}")

    @property
    def sets(self) -> list[Block]:
        """The blocks, or the file itself if it has none."""
        return self.blocks or [self]

    def find_excess(self) -> str | None:
        """Describe that the grid has too many cells or trials to be listed; None if it has not."""
        cells = sum(block.candidates for block in self.sets)
        seeds = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        if cells > MAX_CELLS:
            return f"the grid has {cells:,} cells; at most {MAX_CELLS:,} are possible: remove values, or use sample"
        if cells * seeds > MAX_TRIALS:
            return f"seeds: {cells:,} cells with {seeds:,} seeds are more than {MAX_TRIALS:,} trials; use fewer seeds"
        return None

    def find_errors(self) -> list[str]:
        """List the contradictions in the file, one error per line."""
        errors = [error for block in self.sets for error in block.find_conflicts({**self.when, **block.when})]
        if self.blocks:
            errors += [
                f"{name}: cannot be combined with blocks; move it into one (base, exclude and when can be shared)"
                for name in ("product", "zip", "sample", "cells", "ablate")
                if getattr(self, name)
            ]
        everywhere = tuple(dict.fromkeys(axis for block in self.sets for axis in block.crossed_axes))
        for block in (self, *self.blocks):
            valid = everywhere if block is self else block.crossed_axes
            errors += [
                f"when: {axis}: not an axis of product, zip, sample or ablate; these are {', '.join(valid) or 'none'}"
                for axis in block.when
                if axis not in valid
            ]
        if isinstance(self.seeds, list) and len(set(self.seeds)) < len(self.seeds):
            errors.append(f"seeds: a seed appears twice in {self.seeds}")
        return list(dict.fromkeys(errors))
