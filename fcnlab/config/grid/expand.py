"""From a grid file to what each of its cells says: crossing, changing one thing at a time, taking out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from fcnlab.config.grid.axes import Assignment, Value, overlay, text
from fcnlab.config.grid.file import Block, GridFile
from fcnlab.config.grid.resolve import Resolver
from fcnlab.errors import ConfigError, nearest

When = Mapping[str, Sequence[Assignment]]


@dataclass(frozen=True)
class Draft:
    """What a cell says: by its block's base, and by axes on top; `untouched` by the changes of an ablation."""

    base: Assignment
    axes: Assignment
    untouched: bool = False

    @cached_property
    def said(self) -> dict[str, Value]:
        """Everything that the cell says."""
        return overlay(self.base, self.axes)


@dataclass(frozen=True)
class Expansion:
    """What the cells of a grid say, how many there were before `exclude`, and what is wrong with the conditions."""

    drafts: list[Draft]
    before: int
    faults: list[str]


def expand(file: GridFile, resolver: Resolver) -> Expansion:
    """What the cells of a grid file say, in the order of the file."""
    faults: list[str] = []
    drafts: list[Draft] = []
    before: list[Draft] = []
    crossed: list[Draft] = []
    for block in file.sets:
        shared = block is not file
        base = overlay(file.base, block.base) if shared else block.base
        free = cross(block, base)
        own = [*_stilled(free, {**file.when, **block.when}, resolver, faults)]
        own += [Draft(base, cell) for cell in block.cells]
        rules = [*file.exclude, *block.exclude] if shared else block.exclude
        drafts += [draft for draft in own if not any(resolver.meets(draft.said, rule) for rule in rules)]
        if shared:
            faults += _idle(block, free, own, resolver)
        crossed += free
        before += own
    return Expansion(drafts, len(before), [*faults, *_idle(file, crossed, before, resolver)])


def cross(block: Block, base: Assignment) -> list[Draft]:
    """Each cell of `product` x `zip` x `ablate`; none where a block only lists cells."""
    if not block.crossed:
        return []
    columns = [
        [dict(zip(block.product, values, strict=True)) for values in itertools.product(*block.product.values())],
        [dict(zip(block.zip, values, strict=True)) for values in zip(*block.zip.values(), strict=True)] or [{}],
    ]
    changes = block.ablate.rows if block.ablate is not None else [{}]
    return [
        Draft(base, {**one, **other, **change}, untouched=block.ablate is not None and index == 0)
        for one, other in itertools.product(*columns)
        for index, change in enumerate(changes)
    ]


def _stilled(drafts: list[Draft], when: When, resolver: Resolver, faults: list[str]) -> Iterator[Draft]:
    """The drafts without the axes that do not vary in them; of those that become one by that, the first."""
    try:
        order = [axis for axis in TopologicalSorter(_waits(when)).static_order() if axis in when]
    except CycleError as error:
        circle = " and ".join(dict.fromkeys(error.args[1]))
        faults.append(f"when: {circle}: whether it varies depends on itself; name other axes in its condition")
        order = []
    seen: dict[str, bool] = {}
    for draft in drafts:
        axes = dict(draft.axes)
        for axis in order:
            said = overlay(draft.base, axes)
            if axis in axes and not any(resolver.meets(said, condition) for condition in when[axis]):
                del axes[axis]
        stilled = len(axes) < len(draft.axes)
        key = repr(sorted(axes.items(), key=lambda item: item[0])) if order else ""
        if order and key in seen and (stilled or seen[key]):
            continue
        seen[key] = stilled
        yield Draft(draft.base, axes, draft.untouched) if stilled else draft


def _waits(when: When) -> dict[str, list[str]]:
    """For each axis under `when` the others there that its conditions look at."""
    looked = {axis: {other for condition in conditions for other in condition} for axis, conditions in when.items()}
    return {axis: [other for other in when if any(_touch(other, seen) for seen in looked[axis])] for axis in when}


def _touch(one: str, other: str) -> bool:
    """Whether one of two axes is the other or lies in it."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _idle(block: Block, crossed: list[Draft], own: list[Draft], resolver: Resolver) -> list[str]:
    """The conditions of a block that no cell meets: most often something is misspelt."""
    found = []
    for rule in block.exclude:
        found += never_met("exclude", rule, own, resolver)
    for axis, conditions in block.when.items():
        for condition in conditions:
            varying = [draft for draft in crossed if axis in draft.axes]
            found += never_met(f"when: {axis}", condition, varying, resolver)
    return found


def never_met(where: str, condition: Assignment, drafts: Sequence[Draft], resolver: Resolver) -> list[str]:
    """Why no cell meets a condition, or has a value that it lists; nothing where all is well."""
    found = []
    for axis, wanted in condition.items():
        if any(resolver.has(draft.said, axis, wanted) for draft in drafts):
            continue
        values = wanted if isinstance(wanted, list) else [wanted]
        strange = [value for value in values if not any(resolver.has(draft.said, axis, value) for draft in drafts)]
        said = any(axis in draft.said for draft in drafts)
        if strange and (said or strange == values):  # a list about what the catalogue has may name more than occurs
            listing = nearest(text(strange[0]), _values(axis, drafts, resolver))
            found.append(f"{where}: {axis}: {text(strange[0])} is no value of this axis; {listing}")
    if drafts and not found and not any(resolver.meets(draft.said, condition) for draft in drafts):
        found.append(f"{where}: no cell has all of {text(dict(condition))} at once")
    return found


def _values(axis: str, drafts: Sequence[Draft], resolver: Resolver) -> set[str]:
    """What the cells that can be made have for an axis."""
    values = set()
    for draft in drafts:
        try:
            values.add(text(resolver.value(draft.said, axis)))
        except ConfigError:  # told when the cell is made
            continue
    return values
