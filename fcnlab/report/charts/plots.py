"""Charts of a report: accuracy against cost, differences with intervals, differences by class, learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fcnlab.report.charts.fonts import add_fallback_fonts
from fcnlab.report.charts.style import MARKERS, Plot, add_tooltip, cell_style, padded_limits, plot_style, shorten
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import format_mean_std, format_number, format_points
from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.record import EpochRecord

MAX_ROWS = 40
"""Most cells of a chart with one row per cell: the best by mean mIoU."""

MAX_SQUARES = (20, 30)
"""Most cells (the best) and classes (those that differ most) of the chart of differences by class."""

MAX_CURVES = 8
COST_AXES = {
    "gmacs": ("GMACs of one image", 1.0),
    "params": ("parameters (M)", 1e-6),
    "train_seconds": ("training time of a trial (s)", 1.0),
}
"""Label and factor of each measure of cost; the time is used only where the others do not differ."""


def draw_plots(cells: pd.DataFrame, records: TrialRecords, significance: Significance) -> list[Plot]:
    """Draw all charts that have data.

    Args:
        cells: frame with one row per cell.
        records: records of the finished trials.
        significance: statistics of the cells.
    """
    scored = cells[cells["n"] > 0].reset_index(drop=True)
    baseline = str(cells["cell"][cells["baseline"]].iloc[0])
    with plot_style():
        candidates = [
            _cost(scored, baseline) if len(scored) > 1 else None,
            _forest(scored, baseline, significance) if significance.comparisons else None,
            _curves(scored, baseline, records) if len(scored) else None,
            _by_class(scored, baseline, records.classes, significance) if significance.comparisons else None,
        ]
    plots = [plot for plot in candidates if plot is not None]
    add_fallback_fonts(plot.figure for plot in plots)
    return plots


def pareto_front(cost: Sequence[float], value: Sequence[float]) -> list[int]:
    """Return the indices of the Pareto front, from the cheapest to the most expensive.

    Args:
        cost: costs, lower is better.
        value: values, greater is better.

    Example:
        >>> pareto_front([1.0, 2.0, 3.0], [0.5, 0.4, 0.6])
        [0, 2]
    """
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -value[i]))
    found: list[int] = []
    for index in order:
        if not found or value[index] > value[found[-1]]:
            found.append(index)
    return found


def _cost(scored: pd.DataFrame, baseline: str) -> Plot | None:
    ranges = {name: _relative_range(scored[name]) for name in ("gmacs", "params")}
    name = max(ranges, key=lambda name: ranges[name]) if any(ranges.values()) else "train_seconds"
    heading, factor = COST_AXES[name]
    shown = scored.dropna(subset=[name, "miou"]).reset_index(drop=True)
    if shown.empty:
        return None
    cost, miou = factor * shown[name].to_numpy(), 100 * shown["miou"].to_numpy()
    figure, axes = _figure(6.4, 3.8)
    tooltips: dict[str, str] = {}
    best = pareto_front(list(cost), list(miou))
    axes.step(cost[best], miou[best], where="post", color="#555555", linewidth=1, zorder=1, label="Pareto front")
    few = len(shown) <= len(MARKERS)
    for index, (_, row) in enumerate(shown.iterrows()):
        style = cell_style(index) if few else {"color": "#0072B2" if index in best else "#7f7f7f", "marker": "o"}
        std = 100 * row["miou_std"]
        if not math.isnan(std):
            axes.errorbar(cost[index], miou[index], std, color=style["color"], elinewidth=0.8, capsize=2, zorder=2)
        (point,) = axes.plot(
            cost[index], miou[index], color=style["color"], marker=style["marker"], linestyle="none", zorder=3,
            markersize=9 if row["cell"] == baseline else 7, markeredgecolor="black", markeredgewidth=0.6,
            label=_legend_label(row["cell"], baseline) if few else None,
        )  # fmt: skip
        miou_text = format_mean_std(row["miou"], row["miou_std"])
        text = f"{row['cell']}: mIoU {miou_text} %, {heading} {format_number(cost[index], 2)}"
        add_tooltip(point, tooltips, text)
        if not few and index in best:
            axes.annotate(shorten(row["cell"], 24), (cost[index], miou[index]), (4, 4), textcoords="offset points")
    axes.set(xlabel=heading, ylabel="mIoU (%)", xlim=padded_limits(list(cost), 0.2 * float(cost.max())))
    _legend(axes)
    caption = f"mIoU against {heading}, mean and standard deviation over seeds; the line is the Pareto front."
    return Plot("cost", caption, figure, tooltips)


def _relative_range(column: pd.Series) -> float:
    """Return the range of a column as a fraction of its maximum."""
    relative = (column.max() - column.min()) / column.max()
    return float(relative) if relative > 0 else 0.0


def _forest(scored: pd.DataFrame, baseline: str, significance: Significance) -> Plot:
    shown = _best(scored[scored["cell"].isin(significance.comparisons)])
    figure, axes = _figure(6.4, 1.1 + 0.3 * len(shown))
    tooltips: dict[str, str] = {}
    for index, cell in enumerate(shown):
        comparison = significance.comparisons[cell]
        one = comparison.difference
        clear = bool(comparison.significant)
        axes.plot([100 * one.low, 100 * one.high], [index, index], color="#0072B2", linewidth=1.6)
        for end in (one.low, one.high):
            axes.plot([100 * end] * 2, [index - 0.14, index + 0.14], color="#0072B2", linewidth=1.6)
        (point,) = axes.plot(
            100 * one.value, index, marker="s", markersize=7, color="#0072B2", linestyle="none",
            markerfacecolor="#0072B2" if clear else "white",
        )  # fmt: skip
        interval = f"{100 * one.low:+.2f} to {100 * one.high:+.2f}"
        add_tooltip(
            point, tooltips, f"{cell}: {100 * one.value:+.2f} points, 95 % interval {interval}, {one.seeds} seeds"
        )
    axes.axvline(0, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(shown)), [shorten(cell) for cell in shown])
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=f"difference in mIoU to {shorten(baseline)} (points)")
    axes.grid(visible=False, axis="y")
    caption = f"Differences in mIoU to {baseline} with 95 % intervals; filled: significant after Holm's correction."
    caption += _of_all(shown, significance.comparisons, "cells with the highest mean mIoU")
    return Plot("differences", caption, figure, tooltips)


def _by_class(scored: pd.DataFrame, baseline: str, classes: Sequence[str], significance: Significance) -> Plot:
    shown = _best(scored[scored["cell"].isin(significance.comparisons)], MAX_SQUARES[0])
    found = [significance.comparisons[cell].difference.classes for cell in shown]
    values = 100 * np.array([one.value for one in found])
    limit = max(float(np.nanmax(np.abs(values), initial=0.0)), 0.1)
    largest = np.nan_to_num(np.abs(values)).max(0)
    listed = sorted(np.argsort(-largest, kind="stable")[: MAX_SQUARES[1]].tolist())
    figure, axes = _figure(1.6 + 0.52 * len(listed) + 0.05 * max(map(len, shown)), 1.5 + 0.34 * len(shown))
    tooltips: dict[str, str] = {}
    for (down, one), (across, index) in product(enumerate(found), enumerate(listed)):
        value, low, high = float(values[down, index]), 100 * one.low[index], 100 * one.high[index]
        box = _square(axes, (across, down), value, limit, bold=bool(low > 0 or high < 0))
        text = f"{shown[down]}, {classes[index]}: {value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
        add_tooltip(box, tooltips, f"{text}, in {one.images[index]} images")
    names = [shorten(classes[index], 16) for index in listed]
    axes.set_xticks(range(len(listed)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(shown)), [shorten(cell) for cell in shown])
    axes.set(xlim=(-0.5, len(listed) - 0.5), ylim=(len(shown) - 0.5, -0.5))
    axes.grid(visible=False)
    caption = (
        f"Differences in IoU to {baseline} by class, in points: hatched where negative, bold where the 95 % interval "
        "of the class excludes zero (not corrected for the number of classes)."
        + _of_all(shown, significance.comparisons, "cells with the highest mean mIoU")
        + _of_all(listed, classes, "classes that differ most")
    )
    return Plot("classes", caption, figure, tooltips)


def _of_all(shown: Sized, everything: Sized, kind: str) -> str:
    """Return a sentence if a chart shows only a part."""
    return f" Only the {len(shown)} {kind} are shown." if len(shown) < len(everything) else ""


def _square(axes: Axes, index: tuple[int, int], value: float, limit: float, *, bold: bool) -> Rectangle:
    """Draw a difference as a colored square with its number; a negative one is hatched."""
    across, down = index
    text, shade = format_points(value / 100), _shade(value / limit)
    box = Rectangle((across - 0.5, down - 0.5), 1, 1, facecolor=shade, edgecolor="#bbbbbb")
    if text.startswith("-"):
        box.set_hatch("///")
    axes.add_patch(box)
    axes.text(
        across, down, text, ha="center", va="center", fontsize=7.5, fontweight="bold" if bold else "normal",
        color="white" if value / limit > 0.6 else "black", bbox={"facecolor": shade, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip
    return box


def _shade(share: float) -> str:
    """Return a color from orange over white to purple, as in ColorBrewer's PuOr."""
    if math.isnan(share):
        return "#eeeeee"
    end = (0.37, 0.24, 0.60) if share > 0 else (0.90, 0.38, 0.00)
    weight = 0.85 * abs(share)
    return "#" + "".join(f"{round(255 * (1 - weight * (1 - c))):02x}" for c in end)


def _curves(scored: pd.DataFrame, baseline: str, records: TrialRecords) -> Plot | None:
    shown = [cell for cell in _best(scored, MAX_CURVES, keep=baseline) if cell in records.by_cell]
    epochs = {cell: [record.epochs for record in records.by_cell[cell].values()] for cell in shown}
    often = all(sum(epoch.val_miou is not None for epoch in seed) > 1 for seeds in epochs.values() for seed in seeds)
    label, read = ("mIoU on val (%)", _val_miou) if often else ("training loss", _loss)
    bands = {cell: band for cell in shown if (band := _band(epochs[cell], read))}
    if not bands:
        return None
    figure, axes = _figure(6.4, 3.6)
    tooltips: dict[str, str] = {}
    for index, (cell, band) in enumerate(bands.items()):
        x, mean, low, high = map(list, zip(*band, strict=True))
        style = cell_style(index)
        (line,) = axes.plot(
            x,
            mean,
            **style,
            markersize=4,
            markevery=max(1, len(x) // 8),
            linewidth=1.4,
            label=_legend_label(cell, baseline),
        )
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        add_tooltip(line, tooltips, f"{cell}: {label} {mean[-1]:.3g} after epoch {x[-1]:.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=label)
    _legend(axes)
    return Plot("curves", f"{label} by epoch: mean over seeds; the band is the range over seeds.", figure, tooltips)


def _val_miou(epoch: EpochRecord) -> float | None:
    return 100 * epoch.val_miou if epoch.val_miou is not None else None


def _loss(epoch: EpochRecord) -> float | None:
    return epoch.loss


def _band(
    seeds: Sequence[Sequence[EpochRecord]], read: Callable[[EpochRecord], float | None]
) -> list[tuple[float, float, float, float]]:
    """Return epoch, mean, minimum and maximum over seeds, for the epochs that all seeds have a value of."""
    curves = [{epoch.epoch: value for epoch in epochs if (value := read(epoch)) is not None} for epochs in seeds]
    rows = {epoch: [curve[epoch] for curve in curves] for epoch in sorted(set.intersection(*map(set, curves)))}
    return [(epoch, float(np.mean(row)), min(row), max(row)) for epoch, row in rows.items()]


def _best(scored: pd.DataFrame, most: int = MAX_ROWS, keep: str = "") -> list[str]:
    """Return the labels of the best cells by mean mIoU, and of `keep`, in the order of the table."""
    chosen = set(scored.nlargest(most, "miou")["cell"])
    if keep in set(scored["cell"]) and keep not in chosen:
        chosen = set(scored.nlargest(most - 1, "miou")["cell"]) | {keep}
    return [str(cell) for cell in scored["cell"] if cell in chosen]


def _legend_label(cell: str, baseline: str) -> str:
    return shorten(cell, 32) + (" (baseline)" if cell == baseline else "")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.0)
