"""Chart of the differences by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import altair as alt
import numpy as np
import pandas as pd

from fcnlab.analysis import MIN_SEEDS, Comparison
from fcnlab.report.best import select_cells
from fcnlab.report.charts.cells import note_subset
from fcnlab.report.charts.plot import Plot
from fcnlab.report.charts.style import CellStyles, arrange, make_chart, measure_rows, row_axis, shorten
from fcnlab.report.tables.columns import format_points

MAX_SQUARES = (20, 30)
"""Most cells (the best) and classes (those that differ most)."""

SHADES = ("#b35806", "#f1a340", "#f7f7f7", "#998ec3", "#542788")
"""Orange over white to purple: ColorBrewer's PuOr, which is distinct with color blindness."""


def draw_classes(
    scored: pd.DataFrame,
    classes: Sequence[str],
    comparisons: Mapping[str, Comparison],
    styles: CellStyles,
    name: str,
) -> Plot:
    """Draw the differences of the IoU of each class to the baseline.

    Args:
        scored: frame of the finished cells.
        classes: names of the classes.
        comparisons: comparisons of cells with the baseline.
        styles: styles of the cells.
        name: display name of the baseline.
    """
    shown = select_cells(scored[scored["cell"].isin(comparisons)], MAX_SQUARES[0])
    by_cell = [comparisons[cell].difference.classes for cell in shown]
    claimed = [comparisons[cell].difference.seeds >= MIN_SEEDS for cell in shown]
    values = 100 * np.array([one.value for one in by_cell])
    limit = max(float(np.nanmax(np.abs(values), initial=0.0)), 0.1)
    largest = np.nan_to_num(np.abs(values)).max(0)
    listed = sorted(np.argsort(-largest, kind="stable")[: MAX_SQUARES[1]].tolist())
    names = _distinct_names([classes[index] for index in listed])
    rows = []
    for (down, one), (across, index) in product(enumerate(by_cell), enumerate(listed)):
        value, low, high = (float(part[index]) for part in (one.value, one.low, one.high))
        rows.append(
            {"cell": styles.names[shown[down]], "class": names[across], "text": format_points(value)}
            | {
                "value": None if np.isnan(value) else round(100 * value, 3),
                "bold": bool(claimed[down] and (low > 0 or high < 0)),
            }
            | {"interval": f"{format_points(low)} to {format_points(high)}", "images": int(one.images[index])}
        )
    base = make_chart(rows).encode(
        alt.X("class:N", sort=names, title=None, axis=alt.Axis(labelAngle=-45, labelLimit=120, ticks=False)),
        row_axis([styles.names[cell] for cell in shown]),
    )
    tooltip = [
        alt.Tooltip("cell:N"), alt.Tooltip("class:N"), alt.Tooltip("text:N", title="difference in IoU"),
        alt.Tooltip("interval:N", title="95 % interval"), alt.Tooltip("images:Q", title="images with the class"),
    ]  # fmt: skip
    scale = alt.Scale(domain=[-limit, -limit / 2, 0, limit / 2, limit], range=list(SHADES), interpolate="rgb")
    squares = base.mark_rect(stroke=alt.expr("paper"), strokeWidth=1).encode(
        alt.Color("value:Q", scale=scale, legend=None), tooltip=tooltip
    )
    dark = f"datum.value != null && abs(datum.value) > {0.6 * limit:.4g}"
    texts = base.mark_text(fontSize=10.5, tooltip=None, aria=False).encode(
        text="text:N",
        color=alt.when(dark)
        .then(alt.value("white"))
        .when("datum.value == null")  # there is no square below the text
        .then(alt.value(alt.expr("soft")))
        .otherwise(alt.value("black")),
    )
    bold, normal = (texts.transform_filter(f"{sign}datum.bold") for sign in ("", "!"))
    caption = (
        f"Differences in IoU to {name} by class, in points{_describe_bold(claimed)}."
        + note_subset(shown, comparisons, "cells with the highest mean mIoU")
        + note_subset(listed, classes, "classes that differ most")
    )
    layers = [squares, normal, bold.mark_text(fontSize=10.5, fontWeight="bold", tooltip=None, aria=False)]
    chart = arrange(*layers, height=26 * len(shown) + 4)
    width = 38 * len(listed) + max(160, measure_rows([styles.names[cell] for cell in shown]) + 20)
    return Plot("classes", "Differences by class", caption, chart, min_width=width)


def _describe_bold(claimed: Sequence[bool]) -> str:
    """Describe the bold differences, given for each cell whether it has enough seeds for a claim."""
    if not any(claimed):
        return f"; no claim is made with fewer than {MIN_SEEDS} common seeds"
    few = "" if all(claimed) else f", for cells with {MIN_SEEDS} or more common seeds"
    return f": bold where the 95 % interval of the class excludes zero{few} (not corrected for the number of classes)"


def _distinct_names(classes: Sequence[str]) -> list[str]:
    """Shorten the names of classes; equal results get their number, as each column needs a name of its own."""
    names = [shorten(name, 20) for name in classes]
    return [f"{name} ({index})" if names.count(name) > 1 else name for index, name in enumerate(names)]
