"""Learning curves: mIoU on val and training loss by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from fcnlab.report.best import select_cells
from fcnlab.report.charts.plot import HOVER, Plot
from fcnlab.report.charts.style import CellStyles, arrange, fade, make_chart, select_in_legend
from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.record import EpochRecord

MAX_CURVES = 8
MAX_POINTS = 200
"""Most epochs of a curve; of longer trainings, evenly spaced ones are shown."""

MAX_TICKS = 14
"""Approximate number of ticks of the axis of epochs."""

Band = list[tuple[int, float, float, float]]
"""Epoch, mean, minimum and maximum over seeds."""


def draw_curves(scored: pd.DataFrame, records: TrialRecords, styles: CellStyles) -> list[Plot]:
    """Draw the mIoU on val, where it was evaluated more than once in each trial, and the training loss.

    Args:
        scored: frame of the finished cells.
        records: records of the finished trials.
        styles: styles of the cells.
    """
    shown = [cell for cell in select_cells(scored, MAX_CURVES) if cell in records.by_cell]
    epochs = {cell: [record.epochs for record in records.by_cell[cell].values()] for cell in shown}
    often = all(sum(epoch.val_miou is not None for epoch in seed) > 1 for seeds in epochs.values() for seed in seeds)
    kinds = [("curves", "mIoU on val", "mIoU on val (%)", _val_miou)] if often else []
    kinds.append(("loss", "Training loss", "training loss", _loss))
    plots = []
    for name, title, heading, read in kinds:
        bands = {cell: band for cell in shown if len(band := _band(epochs[cell], read)) > 1}
        if bands:
            seeds = {cell: len(epochs[cell]) for cell in bands}
            chart = _draw(bands, seeds, styles, heading)
            caption = f"{title} by epoch: mean over seeds; the band is the range over seeds."
            plots.append(Plot(name, title, caption, chart))
    return plots


def _draw(bands: dict[str, Band], seeds: dict[str, int], styles: CellStyles, heading: str) -> alt.LayerChart:
    rows = [
        {"entry": styles.entries[cell], "epoch": epoch, "mean": _round(mean), "low": _round(low), "high": _round(high)}
        | {"range": f"{low:.4g} to {high:.4g}", "seeds": seeds[cell], "color": styles.find_color(cell)}
        for cell, band in bands.items()
        for epoch, mean, low, high in band
    ]
    chosen = select_in_legend()
    epochs = [epoch for band in bands.values() for epoch, *_ in band]
    axis = alt.Axis(tickCount=min(max(epochs) - min(epochs), MAX_TICKS), format="d")  # at most one tick per epoch
    x = alt.X("epoch:Q", title="epoch", axis=axis, scale=alt.Scale(nice=False, zero=False))
    y = alt.Y("mean:Q", title=heading, scale=alt.Scale(zero=False))
    base = make_chart(rows)
    tooltip = [
        alt.Tooltip("entry:N", title="cell"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("mean:Q", title=heading, format=".4~g"),
        alt.Tooltip("range:N", title="range over seeds"),
        alt.Tooltip("seeds:Q"),
    ]
    area = base.mark_area(tooltip=None).encode(
        x,
        alt.Detail("entry:N"),
        alt.Y("low:Q", title=heading),
        alt.Fill("color:N", scale=None),
        alt.Y2("high:Q"),
        opacity=fade(chosen, 0.15),
    )
    line = base.mark_line(strokeWidth=2).encode(x, y, styles.stroke(), styles.dash(), opacity=fade(chosen))
    points = base.mark_circle(size=120, opacity=0, aria=False).encode(x, y, tooltip=tooltip)
    layers = [area, line.add_params(chosen).properties(name="lines"), points.properties(name=f"{HOVER}-points")]
    return arrange(*layers, height=260)


def _val_miou(epoch: EpochRecord) -> float | None:
    return 100 * epoch.val_miou if epoch.val_miou is not None else None


def _loss(epoch: EpochRecord) -> float | None:
    return epoch.loss


def _band(seeds: Sequence[Sequence[EpochRecord]], read: Callable[[EpochRecord], float | None]) -> Band:
    """Return the mean and the range over seeds at the epochs that all seeds have a finite value of."""
    curves = [{epoch.epoch: value for epoch in epochs if _is_finite(value := read(epoch))} for epochs in seeds]
    common = sorted(set.intersection(*map(set, curves)))
    if not common:
        return []
    thinned = [common[i] for i in np.unique(np.linspace(0, len(common) - 1, MAX_POINTS).round().astype(int))]
    rows: dict[int, list[Any]] = {epoch: [curve[epoch] for curve in curves] for epoch in thinned}
    return [(epoch, float(np.mean(row)), min(row), max(row)) for epoch, row in rows.items()]


def _is_finite(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _round(value: float) -> float:
    return float(f"{value:.5g}")
