"""Expansion of grid files: the number and order of cells, and equal keys for equal cells."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.grid.axes import full_name, short_names
from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.labels import Labels
from fcnlab.config.registry import KINDS
from tests.config.grid.test_grid import BASE, error_of, grid, same_data

VALUES: dict[str, list[Any]] = {
    "head": ["fcn32s", "fcn16s", "fcn8s", "fcn4s"],
    "upsampler": ["bilinear", "random", "interpolate"],
    "recipe.epochs": [1, 2, 3, 5],
    "recipe.optimizer.lr": [0.1, 0.2, 0.4],
    "recipe.flip": [0.0, 0.25, 0.5],
    "recipe.ema": [None, 0.9, 0.99],
    "dataset.options.train": [4, 8],
}
"""Values of axes that can be combined freely."""

BASES = {**BASE, "head": "dilated8", "upsampler": "bilinear-per-class", "recipe.epochs": 9}
"""A cell that differs from all others in these three."""


def axes(least: int = 1, most: int = 3) -> st.SearchStrategy[dict[str, list[Any]]]:
    """Draw axes, each with some of its values."""

    def some(names: list[str]) -> st.SearchStrategy[dict[str, list[Any]]]:
        values = {name: st.lists(st.sampled_from(VALUES[name]), min_size=1, unique=True) for name in names}
        return st.fixed_dictionaries(values)

    return st.lists(st.sampled_from(sorted(VALUES)), min_size=least, max_size=most, unique=True).flatmap(some)


def without(overrides: dict[str, Any], *axes: str) -> dict[str, Any]:
    return {axis: value for axis, value in overrides.items() if axis not in axes}


def first(columns: dict[str, list[Any]]) -> dict[str, Any]:
    return {axis: values[0] for axis, values in columns.items()}


def keys(found: Grid) -> list[str]:
    return [trial.key for _, trial in found.trials(same_data)]


def make(factory: pytest.TempPathFactory, **keys: Any) -> Grid:
    return grid(factory.getbasetemp(), **{"product": None, "base": BASES, "baseline": None} | keys)


few = settings(deadline=None, max_examples=30)


@given(axes())
@few
def test_a_product_has_one_cell_per_combination(
    tmp_path_factory: pytest.TempPathFactory, product: dict[str, list[Any]]
) -> None:
    found = make(tmp_path_factory, base=without(BASES, *product), product=product, baseline=first(product))
    assert len(found.cells) == math.prod(map(len, product.values()))
    assert found.axes == tuple(product)
    assert [tuple(cell.axes.values()) for cell in found.cells] == list(itertools.product(*product.values()))
    assert len({cell.label for cell in found.cells}) == len(set(keys(found))) == len(found.cells)


@given(axes(2), axes(1, 1))
@few
def test_zip_has_one_cell_per_row_and_is_crossed_with_the_product(
    tmp_path_factory: pytest.TempPathFactory, zipped: dict[str, list[Any]], product: dict[str, list[Any]]
) -> None:
    shortest = min(map(len, zipped.values()))
    columns = {axis: values[:shortest] for axis, values in zipped.items() if axis not in product}
    base = without(BASES, *columns, *product)
    found = make(tmp_path_factory, base=base, product=product, zip=columns, baseline=first(columns) | first(product))
    (values,) = product.values()
    assert len(found.cells) == len(values) * shortest
    assert {tuple(cell.axes[axis] for axis in columns) for cell in found.cells} == set(
        zip(*columns.values(), strict=True)
    )


@given(axes(2, 3), st.data())
@few
def test_excluded_and_remaining_cells_are_all_cells(
    tmp_path_factory: pytest.TempPathFactory, product: dict[str, list[Any]], data: st.DataObject
) -> None:
    base = without(BASES, *product)
    whole = make(tmp_path_factory, base=base, product=product, baseline=first(product))
    axis = data.draw(st.sampled_from(sorted(product)))
    taken = data.draw(st.lists(st.sampled_from(product[axis]), min_size=1, unique=True))
    left = [value for value in product[axis] if value not in taken]
    parts = []
    for out, kept in ((taken, left), (left, taken)):
        if out and kept:
            rest = {**product, axis: kept}
            parts.append(make(tmp_path_factory, base=base, product=product, exclude=[{axis: out}],
                              baseline=first(rest)))  # fmt: skip
    if parts:
        assert sorted(key for part in parts for key in keys(part)) == sorted(keys(whole))


CHANGES = [{axis: values[1]} for axis, values in VALUES.items()]
"""Each is a change of the base."""


@given(st.lists(st.sampled_from(CHANGES), min_size=1, unique_by=lambda change: next(iter(change))), st.booleans())
@few
def test_an_ablation_has_a_baseline_and_one_cell_per_change(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]], remove: bool
) -> None:
    found = make(tmp_path_factory, ablate={"changes": changes, "mode": "remove" if remove else "add"})
    assert len(found.cells) == 1 + len(changes)
    assert found.baseline is found.cells[0]
    for cell, change in zip(found.cells[1:], changes, strict=True):
        differing = [axis for axis in found.axes if cell.axes[axis] != found.baseline.axes[axis]]
        assert differing == list(change)
    everything = {axis: value for change in changes for axis, value in change.items()}
    changed = {axis for axis in found.axes if found.baseline.axes[axis] == everything[axis]}
    assert changed == (everything.keys() if remove else set())
    named = len(changes) > 1  # a single change is the only axis, whose values name the cells
    assert [cell.changed for cell in found.cells] == [tuple(one) if named else None for one in ({}, *changes)]
    assert len({cell.label for cell in found.cells}) == len(found.cells)


@pytest.mark.parametrize(
    ("other", "labels"),
    [
        ({}, ["unchanged", "head fcn8s", "ema 0.9, lr_factors.backbone 0.5"]),
        ({"mode": "remove"}, ["unchanged", "head dilated8", "ema None, lr_factors.backbone 1.0"]),
    ],
)
def test_cells_of_an_ablation_are_named_by_their_changes(
    tmp_path: Path, other: dict[str, Any], labels: list[str]
) -> None:
    changes = [{"head": "fcn8s"}, {"recipe.ema": 0.9, "recipe.lr_factors.backbone": 0.5}]
    found = grid(tmp_path, product=None, base=BASES, baseline=None, ablate={"changes": changes, **other})
    assert [cell.label for cell in found.cells] == labels
    assert found.unchanged is found.cells[0]


@pytest.mark.parametrize(
    ("base", "changes", "labels", "unchanged"),
    [
        (
            {},
            [{"recipe.optimizer.lr": 0.1}, {"recipe.optimizer": {"name": "adamw", "lr": 0.2}}],
            ["lr 0.1", "optimizer {name: adamw, lr: 0.2}"],
            "lr 0.01, optimizer {name: sgd, lr: 0.01, momentum: 0.9}",
        ),
        (
            {},
            [{"recipe.loss": {"lovasz": 0.5}}, {"recipe.loss.lovasz": 0.2}],
            ["loss {lovasz: 0.5}", "lovasz 0.2"],
            "lovasz 0.0",
        ),
        (
            {},
            [{"recipe.loss": {"lovasz": 0.5}}, {"recipe.ema": 0.9}],
            ["loss {lovasz: 0.5}", "ema 0.9"],
            "loss default, ema None",
        ),
        ({}, [{"head": "fcn8s"}, {"head.stride": 16}], ["head fcn8s", "stride 16"], "head fcn32s, stride 32"),
        (
            {},
            [{"head": "fcn8s"}, {"variant": "fcn8s-tiny", "recipe.ema": 0.9}],
            ["head fcn8s", "variant fcn8s-tiny, ema 0.9"],
            "head fcn32s, variant fcn32s-tiny, ema None",
        ),
        (
            {"recipe.loss.lovasz": 0},
            [{"recipe.loss.lovasz": 0.0, "recipe.ema": 0.9}, {"head": "fcn8s"}],
            ["ema 0.9", "head fcn8s"],
            "ema None, head fcn32s",
        ),
    ],
)
def test_a_label_of_an_ablation_contains_only_what_the_change_sets(
    tmp_path: Path, base: dict[str, Any], changes: list[dict[str, Any]], labels: list[str], unchanged: str
) -> None:
    base = {"variant": "fcn32s-tiny", "dataset": "shapes", "recipe": "smoke"} | base
    found = grid(tmp_path, product=None, base=base, baseline=None, ablate={"changes": changes})
    assert [cell.label for cell in found.cells[1:]] == labels
    assert found.unchanged is not None
    assert Labels().describe_unchanged(found.unchanged) == f"unchanged: {unchanged}"


@pytest.mark.parametrize(
    "other",
    [
        {"product": {"upsampler": ["bilinear", "random"]}},
        {"cells": [{"upsampler": "random"}]},
        {"exclude": [{"head": "dilated8", "recipe.ema": None}]},
    ],
)
def test_other_cells_are_named_by_the_values_of_all_axes(tmp_path: Path, other: dict[str, Any]) -> None:
    changes = [{"head": "fcn8s"}, {"recipe.ema": 0.9}]
    base = without(BASES, *other.get("product", {}))
    found = grid(tmp_path, **{"product": None, "base": base, "baseline": None, "ablate": {"changes": changes}} | other)
    assert found.unchanged is None
    assert all(cell.label.count(", ") == len(found.axes) - 1 for cell in found.cells)


@given(st.lists(st.sampled_from([full_name(axis) for axis in VALUES] + ["recipe.lr_factors.head"]), unique=True))
def test_short_names_of_axes_are_distinct_ends(names: list[str]) -> None:
    short = short_names(names)
    assert len(set(short.values())) == len(names)
    assert all(name == axis or axis.endswith(f".{name}") for axis, name in short.items())
    assert all(axis in KINDS or name not in KINDS for axis, name in short.items())


def test_adding_all_changes_but_one_equals_removing_one_of_all(tmp_path: Path) -> None:
    one, other = {"head": "fcn8s"}, {"recipe.ema": 0.9}
    add = grid(tmp_path, product=None, base=BASES, baseline=None, ablate={"changes": [one, other]})
    remove = grid(tmp_path, product=None, base=BASES, baseline=None,
                  ablate={"changes": [one, other], "mode": "remove"})  # fmt: skip
    assert keys(add)[1:] == keys(remove)[:0:-1]


@given(axes(1, 3))
@few
def test_a_key_does_not_depend_on_how_the_grid_is_written(
    tmp_path_factory: pytest.TempPathFactory, product: dict[str, list[Any]]
) -> None:
    base = without(BASES, *product)
    rows = [dict(zip(product, values, strict=True)) for values in itertools.product(*product.values())]
    short = {"recipe.optimizer.lr": "recipe.lr"}
    spellings: list[dict[str, Any]] = [
        {"product": product},
        {"product": dict(reversed(product.items()))},
        {"product": {short.get(axis, axis): values for axis, values in product.items()}},
        {"cells": rows},
        {"zip": {axis: [row[axis] for row in rows] for axis in product}},
        {"blocks": [{"cells": [row]} for row in rows]},
        {"blocks": [{"base": row} for row in rows]},
    ]
    grids = [make(tmp_path_factory, base=base, baseline=rows[0], **one) for one in spellings]
    assert len({frozenset(keys(found)) for found in grids}) == 1
    assert {len(found.cells) for found in grids} == {len(rows)}


@given(st.lists(axes(1, 2), min_size=1, max_size=3), st.data())
@few
def test_every_cell_has_a_value_on_every_axis_and_a_unique_label(
    tmp_path_factory: pytest.TempPathFactory, many: list[dict[str, list[Any]]], data: st.DataObject
) -> None:
    cells = {
        repr(sorted(row.items())): row
        for product in many
        for row in [{axis: data.draw(st.sampled_from(values)) for axis, values in product.items()}]
        if row.get("recipe.ema", 1) is not None and row.get("recipe.flip", 1)
    }
    listed = [{"head": "fcn8s-concat"}, *cells.values()]
    found = make(tmp_path_factory, cells=listed, baseline={"head": "fcn8s-concat"})
    assert len(found.cells) == len(listed)
    assert all(tuple(cell.axes) == found.axes for cell in found.cells)
    assert len({cell.label for cell in found.cells}) == len(found.cells)
    assert all(len({repr(cell.axes[axis]) for cell in found.cells}) > 1 for axis in found.axes if len(listed) > 1)


# --- cells, blocks ---------------------------------------------------------------------------------------------------


def test_listed_cells_come_after_those_of_the_product(tmp_path: Path) -> None:
    found = grid(tmp_path, cells=[{"head": "fcn8s", "recipe.ema": 0.9}])
    assert [cell.label for cell in found.cells] == ["fcn32s, None", "fcn16s, None", "fcn8s, None", "fcn8s, 0.9"]
    assert found.axes == ("head", "recipe.ema")


def test_other_axes_of_a_cell_have_the_value_of_base_or_the_registry(tmp_path: Path) -> None:
    base = {**BASE, "head": "fcn32s", "recipe.epochs": 7}
    cells = [{}, {"recipe.epochs": 3}, {"recipe.batch_size": 2}, {"recipe.optimizer": {"name": "adamw", "lr": 0.1}},
             {"recipe.momentum": 0.5}]  # fmt: skip
    found = grid(tmp_path, base=base, product=None, cells=cells, baseline={"recipe.epochs": 3})
    assert [cell.axes["recipe.epochs"] for cell in found.cells] == [7, 3, 7, 7, 7]
    assert [cell.axes["recipe.batch_size"] for cell in found.cells] == [4, 4, 2, 4, 4]
    assert [cell.axes["recipe.optimizer.momentum"] for cell in found.cells] == [0.9, 0.9, 0.9, "–", 0.5]


def test_blocks_share_the_base_and_what_differs_between_them_is_an_axis(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product=None,
        base={**BASE, "head": "fcn32s"},
        blocks=[
            {"product": {"recipe.epochs": [1, 2]}},
            {"base": {"head": "fcn8s", "recipe.batch_size": 2}, "product": {"recipe.epochs": [1, 5]}},
        ],
        exclude=[{"recipe.epochs": 5}],
        baseline={"head": "fcn32s", "recipe.epochs": 1},
    )
    assert found.axes == ("recipe.epochs", "head", "recipe.batch_size")
    assert [cell.label for cell in found.cells] == ["1, fcn32s, 4", "2, fcn32s, 4", "1, fcn8s, 2"]


def test_an_axis_that_sets_a_field_replaces_what_base_sets_inside_it(tmp_path: Path) -> None:
    base = {**BASE, "head": "fcn8s", "recipe.optimizer.lr": 0.5, "recipe.optimizer.momentum": 0.5}
    optimizer = {"name": "sgd", "lr": 0.25}
    found = grid(tmp_path, base=base, product={"recipe.optimizer": [optimizer]}, baseline={"head": "fcn8s"})
    assert found.cells[0].recipe.optimizer.model_dump(exclude_unset=True) == optimizer


@pytest.mark.parametrize("reverse", [False, True])
def test_within_a_cell_the_more_specific_override_wins(tmp_path: Path, reverse: bool) -> None:
    overrides = {"recipe.optimizer": {"name": "sgd", "lr": 0.25}, "recipe.optimizer.lr": 0.5}
    cells = [dict(reversed(overrides.items())) if reverse else overrides]
    found = grid(tmp_path, base={**BASE, "head": "fcn8s"}, product=None, cells=cells, baseline={})
    assert found.cells[0].recipe.optimizer.lr == 0.5


# --- conditions ------------------------------------------------------------------------------------------------------


def test_conditions_apply_to_the_resolved_cell(tmp_path: Path) -> None:
    base = {"dataset": "shapes", "recipe": "smoke"}
    keys = {"base": base, "product": {"variant": ["fcn32s-tiny", "fcn8s-tiny"], "recipe.flip": [0.0, 0.5]}}
    found = grid(tmp_path, **keys, exclude=[{"head.stride": [8, 16], "recipe.flip": 0.5}],
                 baseline={"head": "fcn8s"})  # fmt: skip
    assert [cell.label for cell in found.cells] == ["fcn32s-tiny, 0.0", "fcn32s-tiny, 0.5", "fcn8s-tiny, 0.0"]
    assert found.baseline.names["head"] == "fcn8s"


def test_an_axis_under_when_varies_only_where_its_condition_is_met(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product={"head": ["fcn32s", "dilated8-aux"], "recipe.loss.auxiliary": [0.2, 0.4, 0.8]},
        when={"recipe.auxiliary": {"head.auxiliary": [8, 16]}},
    )
    assert [cell.label for cell in found.cells] == [
        "fcn32s, 0.4",
        "dilated8-aux, 0.2",
        "dilated8-aux, 0.4",
        "dilated8-aux, 0.8",
    ]


def test_any_of_several_conditions_suffices_and_conditions_may_depend_on_each_other(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product={"recipe.schedule.power": [0.5, 1.0], "recipe.schedule.name": ["constant", "poly"], "head": HEADS},
        when={
            "recipe.schedule.power": {"recipe.schedule.name": "poly"},
            "recipe.schedule.name": [{"head": "fcn32s"}, {"head": "fcn16s"}],
        },
        baseline={"head": "fcn8s"},
    )
    assert len(found.cells) == 2 * 3 + 1
    assert found.baseline.axes["recipe.schedule.power"] == 0.9


@pytest.mark.parametrize("head", ["dilated8", ["dilated8"]])
def test_a_field_may_vary_only_with_components_of_some_names(tmp_path: Path, head: str | list[str]) -> None:
    found = grid(
        tmp_path,
        product={"head": ["fcn32s", "dilated8"], "head.dropout": [0.1, 0.5]},
        when={"head.dropout": {"head": head}},
        baseline={"head": "fcn32s"},
    )
    assert [cell.names["head"] for cell in found.cells] == ["fcn32s", "dilated8", "dilated8"]


HEADS = ["fcn32s", "fcn16s", "fcn8s"]


def test_a_change_whose_condition_is_not_met_adds_no_cell(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product={"head": ["fcn32s", "dilated8-aux"]},
        ablate={"changes": [{"recipe.loss.auxiliary": 0.2}, {"recipe.ema": 0.9}]},
        when={"recipe.loss.auxiliary": {"head": "dilated8-aux"}},
        baseline={"head": "fcn32s", "recipe.ema": None},
    )
    assert len(found.cells) == 5


def test_init_from_is_an_axis(tmp_path: Path) -> None:
    earlier = {"head": "fcn16s", "recipe.lr": 0.5}
    found = grid(
        tmp_path, base={**BASE, "head": "fcn8s"}, product={"init_from": [None, earlier]}, baseline={"init_from": None}
    )
    assert found.cells[1].axes["init_from"] == {"head": "fcn16s", "recipe.optimizer.lr": 0.5}
    assert error_of(
        tmp_path, base=BASE, product={"init_from": [None, {"haed": "fcn16s"}]}, baseline={"init_from": None}
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"zip": {"recipe.epochs": [1, 2], "recipe.batch_size": [1]}},
         "zip: axes under zip must have the same number of values, and recipe.epochs has 2, recipe.batch_size has 1"),
        ({"zip": {"head": HEADS}}, "head: is in product and in zip; keep one of them"),
        ({"ablate": {"changes": [{"head": "fcn8s"}]}}, "head: is in product and in ablate"),
        ({"ablate": {"changes": []}}, "ablate.changes: give at least 1 value, not []"),
        ({"ablate": {"changes": [{}]}}, "ablate.changes.0: give at least 1 key, not {}"),
        ({"ablate": {"changes": [{"recipe.ema": 0.9}], "mode": "drop"}}, "ablate.mode: \"drop\" is not valid"),
        ({"ablate": {"changes": [{"recipe.ema": 0.9}, {"recipe.ema": 0.8}], "mode": "remove"}},
         "ablate: recipe.ema: two changes set it"),
        ({"blocks": [{"product": {"head": HEADS}}]}, "product: cannot be combined with blocks; move it into one"),
        ({"blocks": [{"seeds": 3}]}, "blocks.0.seeds: unknown key"),
        ({"when": {"recipe.flip": {"head": "fcn8s"}}}, "when: recipe.flip: not an axis of product, zip, sample"),
        ({"when": {"head": {"recipe.epochs": 77}}}, "when: head: recipe.epochs: no cell has 77; valid: 2"),
        ({"when": {"head": {"head": "fcn8s"}}}, "when: head: the condition depends on the axis itself"),
        ({"exclude": [{"head.stride": 4}]}, "exclude: head.stride: no cell has 4; valid: 8, 16, 32"),
        ({"exclude": [{"head": ["fcn8s", "fcn_16s"]}]}, "exclude: head: no cell has fcn_16s"),
        ({"exclude": [{"head": "fcn8s", "head.stride": 32}]}, "no cell has all of {head: fcn8s, head.stride: 32}"),
        ({"exclude": [{}]}, "exclude.0: give at least 1 key, not {}"),
        ({"baseline": {"head": "fcn8s", "head.stride": 32}}, "baseline: no cell has all of"),
        ({"cells": [{"head": "fcn8s"}]}, "the cells 'fcn8s' and 'fcn8s' are the same"),
        ({"early_stopping": {"after": 2, "keep": 0.5}},
         "early_stopping: after: 2: 'fcn32s' ends with epoch 2; give an earlier epoch"),
        ({"early_stopping": {"after": 3, "keep": 0.5},
          "base": {**BASE, "recipe.epochs": 9, "recipe.validate_every": 2}},
         "early_stopping: after: 3: 'fcn32s' is validated every 2 epochs"),
        ({"early_stopping": {"after": 1, "keep": 0.5},
          "cells": [{"head": "fcn4s", "init_from": {"head": "fcn16s", "init_from": {"head": "fcn8s"}}}]},
         "is initialized from the cell 'fcn8s, None' and waits for its last epoch; remove one of the two cells"),
    ],
)  # fmt: skip
def test_an_invalid_grid_is_an_error_with_the_reason(tmp_path: Path, keys: dict[str, Any], expected: str) -> None:
    assert expected in error_of(tmp_path, **keys)


def test_the_baseline_of_a_crossed_ablation_is_its_first_unchanged_cell_by_default(tmp_path: Path) -> None:
    found = grid(tmp_path, ablate={"changes": [{"recipe.ema": 0.9}]}, baseline=None, exclude=[{"head": "fcn32s"}])
    assert found.baseline.axes == {"head": "fcn16s", "recipe.ema": None}


def test_valid_epochs_of_early_stopping_are_accepted(tmp_path: Path) -> None:
    base = {**BASE, "recipe.epochs": 9, "recipe.validate_every": 2}
    assert grid(tmp_path, base=base, early_stopping={"after": [2, 4], "keep": 0.5}).file.early_stopping is not None
