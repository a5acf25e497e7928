"""Chart of any two columns of the frame of cells."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from fcnlab.errors import ConfigError, nearest
from fcnlab.report.charts.style import CellStyles, arrange, fade, make_chart, select_in_legend
from fcnlab.report.report import Report

HEIGHT = 300


def draw_columns(report: Report, x: str, y: str) -> alt.LayerChart:
    """Draw one point per cell at the values of two columns of `report.cells`.

    Args:
        report: report of a grid.
        x: column of the horizontal axis, numbers or texts.
        y: column of the vertical axis.

    Raises:
        ConfigError: there is no such column; the message names the nearest.
    """
    cells = report.cells
    for axis, name in (("x", x), ("y", y)):
        if name not in cells.columns:
            raise ConfigError(f"{axis}: report.cells has no column '{name}'; {nearest(name, map(str, cells.columns))}")
    finished = cells[cells["n"] > 0].dropna(subset=[x, y])
    title = ", ".join(report.names.headings)
    styles = CellStyles.create(finished, title, report.grid.baseline.label, report.grid.display_name)
    rows = [
        {"entry": styles.entries[cell], "cell": styles.names[cell], "x": _plain(x_value), "y": _plain(y_value)}
        for cell, x_value, y_value in zip(finished["cell"], finished[x], finished[y], strict=True)
    ]
    chosen = select_in_legend()
    horizontal = alt.X("x", title=x, **_describe(finished[x]))
    vertical = alt.Y("y", title=y, **_describe(finished[y]))
    tips = [alt.Tooltip("cell:N"), alt.Tooltip("x:N", title=x), alt.Tooltip("y:N", title=y)]
    points = make_chart(rows).mark_point(filled=True, size=90).add_params(chosen)
    points = points.encode(horizontal, vertical, styles.color(), styles.shape(), opacity=fade(chosen), tooltip=tips)
    return arrange(points, height=HEIGHT)


def _describe(column: pd.Series) -> dict[str, Any]:
    """Return type and scale of a column; the scale of numbers starts near the least one."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return {"type": "quantitative", "scale": alt.Scale(zero=False, padding=12)}
    return {"type": "nominal"}


def _plain(value: object) -> object:
    """Return a number of Python for one of numpy, and the text of other values."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
