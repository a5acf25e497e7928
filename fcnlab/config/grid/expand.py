"""From a grid file to candidates of cells: cross axes, add single cells, exclude."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from graphlib import CycleError, TopologicalSorter

from fcnlab.config.grid.axes import Overrides, Value, format_value, merge, overlap
from fcnlab.config.grid.candidate import Candidate
from fcnlab.config.grid.file import Block, GridFile
from fcnlab.config.grid.sample import draw_samples
from fcnlab.config.registry import Registry
from fcnlab.errors import ConfigError, nearest

When = Mapping[str, Sequence[Overrides]]


@dataclass(frozen=True)
class Expansion:
    """The candidates of a grid file.

    Attributes:
        candidates: candidates in the order of the file.
        total: number of candidates before `exclude`.
        errors: errors of the conditions, one per line.
    """

    candidates: list[Candidate]
    total: int
    errors: list[str]


def expand(file: GridFile, registry: Registry, where: str) -> Expansion:
    """Expand a grid file to candidates.

    Args:
        file: the grid file.
        registry: the components.
        where: start of error messages.

    Returns:
        The candidates and the errors of the conditions.
    """
    errors: list[str] = []
    kept: list[Candidate] = []
    everything: list[Candidate] = []
    all_crossed: list[Candidate] = []
    for block in file.sets:
        shared = block is not file
        base = merge(file.base, block.base) if shared else block.base
        make = partial(Candidate, base, registry=registry, where=where)
        when = {**file.when, **block.when}
        sampled = _draw_valid_samples(block, make, when, errors)
        crossed = [make(axes, unchanged=unchanged) for axes, unchanged in cross(block, sampled)]
        own = _drop_conditional_axes(crossed, when, errors)
        own += [make(cell) for cell in block.cells]
        rules = [*file.exclude, *block.exclude] if shared else block.exclude
        kept += [candidate for candidate in own if not any(candidate.meets(rule) for rule in rules)]
        if shared:
            errors += _find_unmet(block, crossed, own)
        all_crossed += crossed
        everything += own
    return Expansion(kept, len(everything), [*errors, *_find_unmet(file, all_crossed, everything)])


def _draw_valid_samples(
    block: Block, make: Callable[[Overrides], Candidate], when: When, errors: list[str]
) -> list[dict[str, Value]]:
    """Draw the samples of a block. A range with an end that is not valid for its field is one error, and left out."""
    if block.sample is None:
        return [{}]
    try:
        samples = draw_samples(block.sample)
    except ConfigError as error:
        errors.append(f"sample: {error}")
        return [{}]
    ranges = block.sample.ranges
    crossed = {*block.product, *block.zip, *block.changed_axes}  # an axis that is sampled too is reported elsewhere
    context = {
        axis: value
        for axis, value in cross(block, samples[:1])[0][0].items()
        if axis not in when and (axis in crossed or not ranges[axis].ends)
    }
    invalid = dict.fromkeys(axis for axis in ranges if axis in crossed)
    for axis in ranges.keys() - crossed - when.keys():
        found = [_find_component_error(make({**context, axis: end}), axis) for end in ranges[axis].ends]
        if any(found) and _find_component_error(make(context), axis) is None:
            invalid[axis] = next(text for text in found if text)
    errors += [f"sample: {axis}: {invalid[axis]}" for axis in ranges if invalid.get(axis)]
    kept = [{axis: value for axis, value in row.items() if axis not in invalid} for row in samples]
    return list({repr(row): row for row in kept}.values())


def _find_component_error(candidate: Candidate, axis: str) -> str | None:
    """Return the first error of the component of an axis, without the file and the key."""
    component = axis.partition(".")[0]
    try:
        candidate.component(component)
    except ConfigError as error:
        key_and_problem = str(error).splitlines()[0].partition(f": {component}")[2]
        return key_and_problem.partition(": ")[2]
    return None


def cross(block: Block, sampled: Sequence[Overrides]) -> list[tuple[dict[str, Value], bool]]:
    """Combine `product`, `zip`, `sample` and `ablate`.

    Args:
        block: block of a grid file.
        sampled: the samples of the block; one without axes if it has none.

    Returns:
        The axes of each combination, and whether it is the unchanged one of an ablation; empty if the block has only
        single cells.
    """
    if not block.is_crossed:
        return []
    products = [dict(zip(block.product, values, strict=True)) for values in itertools.product(*block.product.values())]
    zipped = [dict(zip(block.zip, values, strict=True)) for values in zip(*block.zip.values(), strict=True)] or [{}]
    changes = block.ablate.rows if block.ablate is not None else [{}]
    return [
        ({**one, **other, **values, **change}, block.ablate is not None and index == 0)
        for one, other, values in itertools.product(products, zipped, sampled)
        for index, change in enumerate(changes)
    ]


def _drop_conditional_axes(candidates: list[Candidate], when: When, errors: list[str]) -> list[Candidate]:
    """Drop the axes whose condition is not met, then the resulting duplicate candidates except for the first."""
    order = _order_conditions(when, errors)
    if not order:
        return list(candidates)
    result = []
    dropped: dict[str, bool] = {}  # by the remaining axes: whether an axis was dropped to get there
    for candidate in candidates:
        reduced = candidate
        for axis in order:
            if axis in reduced.axes and not any(reduced.meets(condition) for condition in when[axis]):
                reduced = reduced.without(axis)
        changed = reduced is not candidate
        key = repr(sorted(reduced.axes.items(), key=lambda item: item[0]))
        if key in dropped and (changed or dropped[key]):
            continue
        dropped[key] = changed
        result.append(reduced)
    return result


def _order_conditions(when: When, errors: list[str]) -> list[str]:
    """Order the axes under `when` such that each follows those that its conditions depend on."""
    inside = {
        axis: [other for other in when if any(_depends(condition, other) for condition in conditions)]
        for axis, conditions in when.items()
    }
    try:
        return list(TopologicalSorter(inside).static_order())
    except CycleError as error:
        circle = " and ".join(dict.fromkeys(error.args[1]))
        errors.append(f"when: {circle}: the condition depends on the axis itself; use other axes in it")
        return []


def _depends(condition: Overrides, axis: str) -> bool:
    """Return whether a condition depends on an axis."""
    for used, wanted in condition.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        # The name of a component does not depend on the component's fields.
        names_component = "." not in used and all(isinstance(value, str) for value in values)
        if axis == used or (not names_component and overlap(axis, used)):
            return True
    return False


def _find_unmet(block: Block, crossed: list[Candidate], own: list[Candidate]) -> list[str]:
    """List the conditions of a block that no candidate meets, usually because of a typo."""
    errors = []
    for rule in block.exclude:
        errors += explain_unmet("exclude", rule, own)
    for axis, conditions in block.when.items():
        varying = [candidate for candidate in crossed if axis in candidate.axes]
        for condition in conditions:
            errors += explain_unmet(f"when: {axis}", condition, varying)
    return errors


def explain_unmet(where: str, condition: Overrides, candidates: Sequence[Candidate]) -> list[str]:
    """Explain why no candidate meets a condition, or has one of the values in it.

    Args:
        where: start of each error.
        condition: values by axis.
        candidates: the cells that could meet it.

    Returns:
        One error per line; empty if the condition is met.
    """
    errors = []
    for axis, wanted in condition.items():
        if any(candidate.has(axis, wanted) for candidate in candidates):
            continue
        values = wanted if isinstance(wanted, list) else [wanted]
        unknown = [value for value in values if not any(candidate.has(axis, value) for candidate in candidates)]
        given = any(axis in candidate.overrides for candidate in candidates)
        if unknown and (given or unknown == values):  # a list for a registry's field may have more values than occur
            text = format_value(unknown[0])
            errors.append(f"{where}: {axis}: no cell has {text}; {nearest(text, _values(axis, candidates))}")
    if candidates and not errors and not any(candidate.meets(condition) for candidate in candidates):
        errors.append(f"{where}: no cell has all of {format_value(dict(condition))}")
    return errors


def _values(axis: str, candidates: Sequence[Candidate]) -> set[str]:
    """Return the values of an axis in the valid candidates."""
    values = set()
    for candidate in candidates:
        try:
            values.add(format_value(candidate.value(axis)))
        except ConfigError:  # reported when the cell is made
            continue
    return values
