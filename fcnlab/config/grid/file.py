"""What a grid file may say. What it means, `fcnlab.config.grid.expand` says; by examples, `docs/grids.md`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from fcnlab.config.base import Config, Count, Whole
from fcnlab.config.grid.axes import Axis, ByAxis, Value, text
from fcnlab.config.grid.early_stopping import EarlyStopping

Said = Annotated[dict[Axis, Value], *ByAxis]
"""What a cell says, by axis."""

Condition = Annotated[dict[Axis, Value], Field(min_length=1), *ByAxis]
"""What a cell must hold, by axis; of a list of values any will do."""

Change = Annotated[dict[Axis, Value], Field(min_length=1), *ByAxis]
"""What an ablation says otherwise, by axis."""

Values = Annotated[list[Value], Field(min_length=1)]
Columns = Annotated[dict[Axis, Values], *ByAxis]


def _listed(said: Any) -> Any:
    return [said] if isinstance(said, dict) else said


Conditions = Annotated[list[Condition], Field(min_length=1), BeforeValidator(_listed)]
"""Conditions of which any will do; one may stand without a list."""


class Ablation(Config):
    """Changes that are looked at one at a time.

    `add` gives the cell as it is and one more for each change; `remove` the cell with all changes and one more without
    each of them.
    """

    changes: Annotated[list[Change], Field(min_length=1)]
    mode: Literal["add", "remove"] = "add"

    @property
    def rows(self) -> list[dict[str, Value]]:
        """What each cell says, the one that the others are compared to first."""
        if self.mode == "add":
            return [{}, *self.changes]
        without = [self.changes[:i] + self.changes[i + 1 :] for i in range(len(self.changes))]
        return [{axis: value for change in kept for axis, value in change.items()} for kept in (self.changes, *without)]


class Block(Config):
    """A set of cells: `product` x `zip` x `ablate` on top of `base`, and the `cells` that are listed.

    `exclude` takes out the cells that meet a condition. An axis under `when` varies only in cells that meet its
    condition, and the others leave it as base or the catalogue has it.
    """

    base: Said = Field(default_factory=dict)
    product: Columns = Field(default_factory=dict)
    zip: Columns = Field(default_factory=dict)
    cells: list[Said] = Field(default_factory=list)
    ablate: Ablation | None = None
    exclude: list[Condition] = Field(default_factory=list)
    when: Annotated[dict[Axis, Conditions], *ByAxis] = Field(default_factory=dict)

    @field_validator("zip")
    @classmethod
    def _of_equal_length(cls, columns: dict[str, list[Value]]) -> dict[str, list[Value]]:
        if len({len(values) for values in columns.values()}) > 1:
            listing = ", ".join(f"{axis} has {len(values)}" for axis, values in columns.items())
            raise ValueError(f"axes that vary together have equally many values, and {listing}")
        return columns

    @property
    def crossed(self) -> bool:
        """Whether there are axes to be crossed, and not only cells that are listed."""
        return bool(self.product or self.zip or self.ablate or not self.cells)

    @property
    def changed(self) -> list[str]:
        """The axes that the changes of the ablation name, as often as they do."""
        return [axis for change in self.ablate.changes for axis in change] if self.ablate is not None else []

    @property
    def free(self) -> tuple[str, ...]:
        """The axes that product, zip and ablate name, in the order of their first mention."""
        return tuple(dict.fromkeys([*self.product, *self.zip, *self.changed]))

    @property
    def varied(self) -> tuple[str, ...]:
        """Those, and the axes that the listed cells name."""
        return tuple(dict.fromkeys([*self.free, *(axis for cell in self.cells for axis in cell)]))

    def clashes(self, stilled: Collection[str]) -> list[str]:
        """What in this block contradicts itself, one line each; `stilled` axes vary in some of the cells alone."""
        changed = self.changed
        fixed = [axis for axis in self.base if axis not in stilled]
        pairs: list[tuple[str, Iterable[str], str, Collection[str]]] = [
            ("base", fixed, "product", self.product),
            ("base", fixed, "zip", self.zip),
            ("product", self.product, "zip", self.zip),
            ("product", self.product, "ablate", changed),
            ("zip", self.zip, "ablate", changed),
        ]
        found = [
            f"{axis}: stands under {one} and under {other}; keep one of them"
            for one, left, other, right in pairs
            for axis in left
            if axis in right
        ]
        if self.ablate is not None and self.ablate.mode == "remove":
            found += [
                f"ablate: {axis}: two changes set it, and with mode: remove all changes hold at once; keep one of them"
                for axis in dict.fromkeys(axis for axis in changed if changed.count(axis) > 1)
            ]
        return found


class GridFile(Block):
    """What a grid file may say.

    With `blocks` the cells are those of all blocks; `base`, `exclude` and `when` beside them hold for each.
    `description` is what a reader should know beside the table; `conclusion` is added once the results are there.
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
    baseline: Said | None = None
    checkpoint: Literal["last", "best"] = "last"
    early_stopping: EarlyStopping | None = None

    @property
    def sets(self) -> list[Block]:
        """The blocks, or the file itself where it has none."""
        return self.blocks or [self]

    def faults(self) -> list[str]:
        """What in the file contradicts itself, one line each."""
        found = [clash for block in self.sets for clash in block.clashes({**self.when, **block.when})]
        if self.blocks:
            found += [
                f"{name}: stands beside blocks; move it into one of them (base, exclude and when may be shared)"
                for name in ("product", "zip", "cells", "ablate")
                if getattr(self, name)
            ]
        everywhere = tuple(dict.fromkeys(axis for block in self.sets for axis in block.free))
        for block in (self, *self.blocks):
            there = everywhere if block is self else block.free
            found += [
                f"when: {axis}: not an axis of product, zip or ablate, where alone it has a say; these are "
                f"{', '.join(there) or 'none'}"
                for axis in block.when
                if axis not in there
            ]
        if isinstance(self.seeds, list) and len(set(self.seeds)) < len(self.seeds):
            found.append(f"seeds: a seed stands twice in {text(self.seeds)}")
        return list(dict.fromkeys(found))
