"""Charts with one row or point per cell: mIoU of each seed, differences to the baseline, mIoU against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from fcnlab.analysis import MIN_SEEDS
from fcnlab.report.best import select_cells
from fcnlab.report.charts.plot import Plot
from fcnlab.report.charts.style import (
    CellStyles,
    arrange,
    fade,
    make_chart,
    measure_rows,
    row_axis,
    select_in_legend,
)
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import format_mean_std, format_p_value, format_points

MAX_ROWS = 40
"""Most cells of a chart with one row per cell: the best by mean mIoU."""

MAX_TITLE = 20
"""Most characters of the name of the baseline in the title of an axis."""

COST_AXES = {
    "gmacs": ("GMACs of one image", 1.0),
    "params": ("parameters (M)", 1e-6),
    "train_seconds": ("training time of a trial (s)", 1.0),
}
"""Label and factor of each measure of cost."""

MIN_COST_RANGE = {"gmacs": 0.05, "params": 0.05, "train_seconds": 0.2}
"""Smallest range of a measure, as a fraction of its maximum, that is shown; times also differ between equal trials."""

LOG_RANGE = 20.0
"""Ratio of the largest to the smallest cost from which the axis is logarithmic."""


def draw_seeds(scored: pd.DataFrame, trials: pd.DataFrame, styles: CellStyles) -> Plot:
    """Draw the mIoU of each seed and the mean of each cell.

    Args:
        scored: frame of the finished cells.
        trials: frame with one row per trial.
        styles: styles of the cells.
    """
    shown = select_cells(scored, MAX_ROWS)
    cells = scored.set_index("cell").loc[shown]
    means = [
        _identify(cell, styles)
        | {"miou": round(100 * row["miou"], 3), "text": _percent(row), "seeds": int(row["n"]), "delta": _delta(row)}
        for cell, row in cells.iterrows()
    ]
    finished = trials[(trials["status"] == "finished") & trials["cell"].isin(shown)].dropna(subset="miou")
    seeds = [
        _identify(row["cell"], styles) | {"miou": round(100 * row["miou"], 3), "seed": int(row["seed"])}
        for _, row in finished.iterrows()
    ]
    x = alt.X("miou:Q", title="mIoU (%)", scale=alt.Scale(zero=False, padding=12))
    y, color = row_axis([styles.names[cell] for cell in shown]), styles.color(legend=False)
    mean_tips = [
        ("cell:N", "cell"),
        ("text:N", "mIoU"),
        ("delta:N", "difference to the baseline"),
        ("seeds:Q", "seeds"),
    ]
    seed_tips = [("cell:N", "cell"), ("seed:O", "seed")]
    points = make_chart(seeds).mark_circle(size=46, opacity=0.6)
    ticks = make_chart(means).mark_tick(thickness=3, size=18, opacity=1)
    layers = [
        _baseline_rule(cells),
        points.encode(
            x, y, color, tooltip=[*_tooltips(seed_tips), alt.Tooltip("miou:Q", title="mIoU %", format=".2f")]
        ),
        ticks.encode(x, y, color, tooltip=_tooltips(mean_tips)),
    ]
    several = cells["baseline"].sum() > 1
    line = "dashed lines are the means of the baselines" if several else "dashed line is the mean of the baseline"
    caption = f"mIoU of each seed (points) and mean of each cell (bar); the {line}."
    caption += note_subset(shown, scored, "cells with the highest mean mIoU")
    chart = arrange(*layers, height=24 * len(shown) + 10)
    return Plot("seeds", "mIoU by cell", caption, chart, min_width=_min_width(shown, styles))


def draw_differences(scored: pd.DataFrame, significance: Significance, styles: CellStyles, name: str) -> Plot:
    """Draw the differences to the baseline with their intervals.

    Args:
        scored: frame of the finished cells.
        significance: statistics of the cells.
        styles: styles of the cells.
        name: display name of the baseline, or a phrase for several.
    """
    comparisons, claims = significance.comparisons, significance.num_claims
    holm = " (Holm)" if claims > 1 else ""
    shown = select_cells(scored[scored["cell"].isin(comparisons)], MAX_ROWS)
    rows = []
    for cell in shown:
        one, clear = comparisons[cell].difference, comparisons[cell].significant
        row = _identify(cell, styles) | {
            "value": _points(one.value),
            "low": _points(one.low),
            "high": _points(one.high),
        }
        row |= {
            "interval": f"{format_points(one.low, 2)} to {format_points(one.high, 2)}",
            "seeds": one.seeds,
            "clear": bool(clear),
        }
        row["holm"] = "no claim" if clear is None else f"{format_p_value(comparisons[cell].adjusted_p)}{holm}"
        rows.append(row)
    title = f"difference in mIoU to {name if len(name) <= MAX_TITLE else 'the baseline'} (points)"
    y, color = row_axis([styles.names[cell] for cell in shown]), styles.color(legend=False)
    tips = _tooltips(
        [("cell:N", "cell"), ("interval:N", "95 % interval"), ("holm:N", "significance"), ("seeds:Q", "seeds")]
    )
    tips.insert(1, alt.Tooltip("value:Q", title="difference", format="+.2f"))
    base = make_chart(rows).encode(y, color, tooltip=tips)
    interval = alt.X("low:Q", title=title)
    value = base.mark_point(size=90, strokeWidth=2, opacity=1).encode(
        alt.X("value:Q", title=title),
        fill=alt.when("datum.clear").then(styles.color(legend=False)).otherwise(alt.value("transparent")),
    )
    layers = [
        make_chart([{"zero": 0}])
        .mark_rule(strokeDash=[4, 3], stroke=alt.expr("ink"))
        .encode(alt.X("zero:Q", title=title)),
        base.mark_rule(strokeWidth=2).encode(interval, x2="high:Q"),
        *(
            base.mark_tick(thickness=2, size=9, opacity=1).encode(alt.X(f"{end}:Q", title=title))
            for end in ("low", "high")
        ),
        value,
    ]
    caption = f"Differences in mIoU to {name} with 95 % intervals; {_describe_marks(claims, len(comparisons))}."
    caption += note_subset(shown, comparisons, "cells with the highest mean mIoU")
    chart = arrange(*layers, height=28 * len(shown) + 10)
    return Plot("differences", "Differences to the baseline", caption, chart, min_width=_min_width(shown, styles))


def _describe_marks(claims: int, comparisons: int) -> str:
    """Describe the markers of the chart of differences."""
    if not claims:
        return f"no claim of significance is made with fewer than {MIN_SEEDS} seeds"
    filled = "filled: significant" + (" after Holm's correction" if claims > 1 else "")
    return f"{filled}; hollow: not significant" + (", or no claim" if claims < comparisons else "")


def draw_cost(scored: pd.DataFrame, styles: CellStyles, groups: Sequence[DatasetGroup]) -> Plot | None:
    """Draw mIoU against the measure of cost that differs most, with the Pareto front of each dataset.

    The time is used only where the others do not differ by `MIN_COST_RANGE`.

    Args:
        scored: frame of the finished cells.
        styles: styles of the cells.
        groups: the cells by dataset.

    Returns:
        The chart, or None where costs are not known or hardly differ.
    """
    name = _select_cost(scored)
    if name is None:
        return None
    heading, factor = COST_AXES[name]
    shown = scored.dropna(subset=[name, "miou"]).reset_index(drop=True)
    cost, miou = [factor * value for value in shown[name]], [100 * value for value in shown["miou"]]
    rows = []
    for index, (_, row) in enumerate(shown.iterrows()):
        std = 100 * row["miou_std"]
        point = _identify(row["cell"], styles) | {"cost": cost[index], "miou": round(miou[index], 3)}
        point |= {"text": _percent(row), "delta": _delta(row), "seeds": int(row["n"])}
        rows.append(point | ({} if math.isnan(std) else {"low": miou[index] - std, "high": miou[index] + std}))
    fronts = []
    for group in groups:
        own = np.flatnonzero(shown["cell"].isin(group.cells)).tolist()
        fronts.append([own[i] for i in pareto_front([cost[i] for i in own], [miou[i] for i in own])])
    log = min(cost) > 0 and max(cost) > LOG_RANGE * min(cost)
    scale = alt.Scale(type="log" if log else "linear", zero=False, padding=16)
    x = alt.X("cost:Q", title=heading, scale=scale, axis=alt.Axis(labelFlush=True))  # a long last label is not clipped
    y = alt.Y("miou:Q", title="mIoU (%)", scale=alt.Scale(zero=False, padding=12))
    chosen, color = select_in_legend(), styles.color()
    tips = [("cell:N", "cell"), ("text:N", "mIoU"), ("delta:N", "difference to the baseline")]
    tooltip = [
        *_tooltips(tips),
        alt.Tooltip("cost:Q", title=heading, format=",.2f"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    front = make_chart([{"cost": cost[i], "miou": miou[i], "front": n} for n, own in enumerate(fronts) for i in own])
    spread = [row for row in rows if "low" in row]  # with one seed there is none
    points = make_chart(rows).mark_point(size=110, filled=True).add_params(chosen).properties(name="points")
    layers = [
        front.mark_line(interpolate="step-after", stroke=alt.expr("soft"), strokeWidth=1).encode(
            x, y, alt.Detail("front:N")
        ),
        *([_draw_spread(spread, x, color, chosen)] if spread else []),
        points.encode(x, y, color, styles.shape(), opacity=fade(chosen), tooltip=tooltip),
    ]
    if len(groups) > 1:
        front_note = "a line is the Pareto front of a dataset"
    else:
        front_note = "the line is the Pareto front" if len(fronts[0]) > 1 else "one cell is the best and the cheapest"
    caption = f"mIoU against {heading}, mean and standard deviation over seeds; {front_note}."
    return Plot("cost", "mIoU against cost", caption, arrange(*layers, height=280))


def _select_cost(scored: pd.DataFrame) -> str | None:
    """Return the measure of cost that differs most between cells, or None if none differs enough."""
    ranges = {name: _relative_range(scored[name].dropna()) for name in COST_AXES}
    clear = [name for name, found in ranges.items() if found >= MIN_COST_RANGE[name]]
    return max(
        [name for name in clear if name != "train_seconds"] or clear, key=lambda name: ranges[name], default=None
    )


def _draw_spread(rows: Sequence[dict[str, Any]], x: alt.X, color: alt.Color, chosen: alt.Parameter) -> alt.Chart:
    rule = make_chart(rows).mark_rule(strokeWidth=1.5)
    return rule.encode(x, alt.Y("low:Q", title="mIoU (%)"), color, y2="high:Q", opacity=fade(chosen))


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
    front: list[int] = []
    for index in order:
        if not front or value[index] > value[front[-1]]:
            front.append(index)
    return front


def note_subset(shown: Sized, everything: Sized, kind: str) -> str:
    """Return a sentence if a chart shows only a part of the cells or classes, else an empty text.

    Args:
        shown: the ones that it shows.
        everything: all of them.
        kind: description of the ones that it shows.
    """
    return f" Only the {len(shown)} {kind} are shown." if len(shown) < len(everything) else ""


def _min_width(shown: Sequence[str], styles: CellStyles) -> int:
    """Return the least width of a chart with one row per cell on a page."""
    return max(280, measure_rows([styles.names[cell] for cell in shown]) + 110)


def _identify(cell: Any, styles: CellStyles) -> dict[str, Any]:
    """Return the fields that identify a cell in a chart."""
    return {"cell": styles.names[cell], "entry": styles.entries[cell]}


def _baseline_rule(cells: pd.DataFrame) -> alt.Chart:
    """Return a vertical line at the mean of each baseline."""
    rule = make_chart([{"miou": round(100 * miou, 3)} for miou in cells["miou"][cells["baseline"]]])
    return rule.mark_rule(strokeDash=[4, 3], stroke=alt.expr("soft")).encode(alt.X("miou:Q"))


def _tooltips(fields: Sequence[tuple[str, str]]) -> list[alt.Tooltip]:
    return [alt.Tooltip(field, title=title) for field, title in fields]


def _percent(row: pd.Series) -> str:
    return f"{format_mean_std(row['miou'], row['miou_std'])} %"


def _delta(row: pd.Series) -> str:
    """Describe the difference of a cell to the baseline with its interval."""
    if row["baseline"]:
        return "baseline"
    if math.isnan(row["delta"]):
        return "not known"
    value, low, high = (format_points(row[name], 2) for name in ("delta", "delta_low", "delta_high"))
    return value if math.isnan(row["delta_low"]) else f"{value} [{low}, {high}]"


def _points(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 4)


def _relative_range(column: pd.Series) -> float:
    """Return the range of a column as a fraction of its maximum."""
    relative = (column.max() - column.min()) / column.max()
    return float(relative) if relative > 0 else 0.0
