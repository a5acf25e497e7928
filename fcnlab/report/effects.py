"""Effects of the axes of a grid: mean differences in mIoU between cells that differ in one axis only.

A difference to the baseline changes all axes in which a cell differs from it. In a grid of several axes, the effect of
one of them is in the pairs of cells that are equal in the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fcnlab.analysis import MIN_SEEDS, Effect, adjust_p_values, estimate_effects, is_significant
from fcnlab.config.grid.cell import Cell
from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import Grid
from fcnlab.config.trial import canonical
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.significance import choose_resamples, load_counts
from fcnlab.report.trial_records import TrialRecords

MIN_PAIRS = 2
"""Fewest pairs of an effect; that of one pair is a difference between two cells, which `compare` describes."""


@dataclass(frozen=True)
class AxisEffect:
    """The effect of a value of an axis, compared with the value of the baseline.

    Attributes:
        dataset: display name of the dataset.
        axis: the axis.
        value: display name of the value.
        reference: display name of the value of the baseline.
        pairs: labels of the cells with each value that are equal in all other axes.
        effect: mean difference of the pairs.
        adjusted_p: p-value after Holm's correction over all effects of the grid; NaN where no claim is made.
    """

    dataset: str
    axis: str
    value: str
    reference: str
    pairs: tuple[tuple[str, str], ...]
    effect: Effect
    adjusted_p: float


def compute_axis_effects(
    grid: Grid, names: Names, records: TrialRecords, groups: Sequence[DatasetGroup]
) -> list[AxisEffect]:
    """Compute the effects of all axes that vary over at least two pairs of cells of a dataset.

    Args:
        grid: the grid.
        names: display names of the axes and their values.
        records: records of the finished trials.
        groups: the cells by dataset.

    Returns:
        The effects, by dataset and axis in the order of the grid.
    """
    found: list[tuple[DatasetGroup, str, tuple[tuple[str, str], ...], Effect]] = []
    for group in groups:
        counts = load_counts(records, (cell for cell in group.cells if cell in group.same))
        cells = [cell for cell in grid.cells if cell.label in counts]
        baseline = next(cell for cell in grid.cells if cell.label == group.baseline)
        pairs = {
            (axis, value): labels
            for axis in grid.axes
            for value, labels in _find_pairs(cells, axis, canonical(baseline.axes[axis])).items()
        }
        effects = estimate_effects(counts, pairs, folds=group.folds, resamples=choose_resamples(grid))
        found += [(group, key[0], pairs[key], effect) for key, effect in effects.items()]
    p_values = [effect.p_value if len(effect.seeds) >= MIN_SEEDS else np.nan for *_, effect in found]
    return [
        AxisEffect(
            dataset=group.name,
            axis=axis,
            value=names.values[pairs[0][0]][axis],
            reference=names.values[pairs[0][1]][axis],
            pairs=pairs,
            effect=effect,
            adjusted_p=float(p),
        )
        for (group, axis, pairs, effect), p in zip(found, adjust_p_values(p_values), strict=True)
    ]


def _find_pairs(cells: Sequence[Cell], axis: str, reference: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return pairs of labels by the value of the first cell; the second has the value of the reference."""
    by_value: dict[str, dict[str, str]] = {}
    for cell in cells:
        others = canonical({name: value for name, value in cell.axes.items() if name != axis})
        by_value.setdefault(canonical(cell.axes[axis]), {})[others] = cell.label
    compared = by_value.pop(reference, {})
    pairs = {
        value: tuple((label, compared[others]) for others, label in labels.items() if others in compared)
        for value, labels in by_value.items()
    }
    return {value: labels for value, labels in pairs.items() if len(labels) >= MIN_PAIRS}


def effects_frame(effects: Sequence[AxisEffect], names: Names) -> pd.DataFrame:
    """Return a frame with one row per effect; metrics are fractions of 1.

    Args:
        effects: the effects.
        names: display names of the axes.

    Returns:
        Columns `dataset`, `axis`, `value`, `reference`, `pairs`, `n` (seeds), `delta`, `delta_low`, `delta_high` (the
        95 % interval), `p_value`, `p_holm`, `significant` (missing where no claim is made), `delta_min` and `delta_max`
        (the smallest and the largest difference of a pair).
    """
    columns: dict[str, list[object]] = {
        "dataset": [one.dataset for one in effects],
        "axis": [names.axes[one.axis] for one in effects],
        "value": [one.value for one in effects],
        "reference": [one.reference for one in effects],
        "pairs": [len(one.pairs) for one in effects],
        "n": [len(one.effect.seeds) for one in effects],
        "delta": [one.effect.value for one in effects],
        "delta_low": [one.effect.low for one in effects],
        "delta_high": [one.effect.high for one in effects],
        "p_value": [one.effect.p_value for one in effects],
        "p_holm": [one.adjusted_p for one in effects],
        "significant": [is_significant(one.adjusted_p) for one in effects],
        "delta_min": [min(one.effect.by_pair) for one in effects],
        "delta_max": [max(one.effect.by_pair) for one in effects],
    }
    return pd.DataFrame(columns).astype({"significant": "boolean"})
