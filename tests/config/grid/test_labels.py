"""Labels of a grid file: display names of axes, values and cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fcnlab.config.grid.display_names import Names
from tests.config.grid.test_grid import BASE, error_of, grid

PRODUCT = {"head": ["fcn32s", "fcn8s"], "recipe.lr": [0.01, 1]}
BASELINE = {"head": "fcn32s", "recipe.lr": 1}


def test_labels_name_axes_values_and_cells_and_change_no_reference(tmp_path: Path) -> None:
    labels = {
        "axes": {"recipe.lr": "rate"},
        "values": {"head": {"fcn8s": "FCN-8s"}, "recipe.lr": {0.01: "low"}},
        "cells": {"fcn8s,1": "ours"},
    }
    found = grid(tmp_path, product=PRODUCT, baseline=BASELINE, labels=labels)
    assert [cell.label for cell in found.cells] == ["fcn32s, 0.01", "fcn32s, 1", "fcn8s, 0.01", "fcn8s, 1"]
    assert list(found.display_names.values()) == ["fcn32s, low", "fcn32s, 1", "FCN-8s, low", "ours"]
    assert found.file.labels.name_axes(found.axes) == {"head": "head", "recipe.optimizer.lr": "rate"}
    names = Names.of_grid(found)
    for name in ("recipe.optimizer.lr", "recipe.lr", "lr", "rate"):
        assert names.find_axis(name) == "recipe.optimizer.lr"
    assert names.find_axis("recipe.epochs") is names.find_axis("epochs") is None
    assert found.display_name("another text") == "another text"


def test_cells_of_one_axis_are_named_by_their_number(tmp_path: Path) -> None:
    product, labels = {"recipe.lr": [0.01, 1]}, {"cells": {0.01: "slow", 1: "fast"}}
    found = grid(tmp_path, product=product, base={**BASE, "head": "fcn8s"}, baseline={"recipe.lr": 1}, labels=labels)
    assert list(found.display_names.values()) == ["slow", "fast"]


def test_labels_name_the_changes_of_an_ablation(tmp_path: Path) -> None:
    changes = [{"head": "fcn8s"}, {"recipe.ema": 0.9, "recipe.flip": 0.5}, {"recipe.lr": 1}]
    labels = {
        "axes": {"recipe.ema": "EMA"},
        "values": {"head": {"fcn8s": "with skips"}},
        "cells": {"unchanged": "plain", "lr 1": "fast"},
    }
    base = {**BASE, "head": "fcn32s"}
    found = grid(tmp_path, product=None, base=base, baseline=None, ablate={"changes": changes}, labels=labels)
    assert [cell.label for cell in found.cells] == ["unchanged", "head fcn8s", "ema 0.9, flip 0.5", "lr 1"]
    assert list(found.display_names.values()) == ["plain", "with skips", "EMA 0.9, flip 0.5", "fast"]
    assert found.unchanged is not None
    text = found.file.labels.describe_unchanged(found.unchanged)
    assert text == "plain: head fcn32s, EMA None, flip 0.0, lr 0.01"


def test_labels_are_checked_once_the_cells_are_valid(tmp_path: Path) -> None:
    keys = {"product": PRODUCT, "baseline": None, "labels": {"cells": {"fcn8s, 1": "ours"}}}
    assert error_of(tmp_path, **keys, exclude=[{"dataset": "shapes"}]) == "exclude: excludes all 4 cells"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"axes": {"hed": "Head"}}, "labels.axes.hed: unknown axis; did you mean 'head'?"),
        ({"axes": {"dataset": "Data"}}, "labels: axes: dataset is not an axis of this grid; valid: head, recipe.opt"),
        (
            {"axes": {"head": "Setting", "recipe.lr": "Setting"}},
            "labels: axes: head and recipe.optimizer.lr are both shown as 'Setting'; give one of them another name",
        ),
        (
            {"axes": {"head": "lr", "recipe.lr": "lr"}},
            "labels: axes: head and recipe.optimizer.lr are both shown as 'lr'; give one of them another name",
        ),
        ({"columns": {"moiu": "a"}}, "labels.columns.moiu: the table has no such column; did you mean 'miou'?"),
        ({"columns": {"mIoU": "a"}}, "labels.columns.mIoU: the table has no such column; did you mean 'miou'?"),
        (
            {"columns": {"miou": "a", "dice": "a"}},
            "labels: columns: miou and dice are both shown as 'a'; give one of them another name",
        ),
        ({"classes": {"car": "a", "bus": "a"}}, "labels: classes: car and bus are both shown as 'a'"),
        ({"values": {"head": {"fcn_8s": "a"}}}, "labels: values: head: no cell has fcn_8s; did you mean 'fcn8s'?"),
        ({"values": {"recipe.lr": {2: "a"}}}, "labels: values: recipe.optimizer.lr: no cell has 2; valid: 0.01, 1"),
        ({"cells": {"fcn8, 1": "ours"}}, "labels: cells: no cell 'fcn8, 1'; the closest cells are 'fcn8s, 1'"),
        ({"cells": {"fcn8s, 1": ""}}, "labels.cells.fcn8s, 1: string should have at least 1 character"),
        (
            {"values": {"head": {"fcn8s": "fcn32s"}}},
            "labels: the cells 'fcn32s, 0.01' and 'fcn8s, 0.01' are both shown as 'fcn32s, 0.01'",
        ),
    ],
)
def test_a_wrong_label_is_an_error_with_the_nearest_valid_one(
    tmp_path: Path, labels: dict[str, Any], expected: str
) -> None:
    assert error_of(tmp_path, product=PRODUCT, baseline=BASELINE, labels=labels).startswith(expected)
