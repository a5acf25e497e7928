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
        {"entry": styles.entries[cell], "cell": styles.names[cell], "x": x_value, "y": y_value}
        for cell, x_value, y_value in zip(
            finished["cell"], _read_column(report, finished, x), _read_column(report, finished, y), strict=True
        )
    ]
    chosen = select_in_legend()
    x_title, y_title = (report.names.axes.get(name, name) for name in (x, y))
    horizontal = alt.X("x", title=x_title, **_describe(finished[x]))
    vertical = alt.Y("y", title=y_title, **_describe(finished[y]))
    tips = [alt.Tooltip("cell:N"), alt.Tooltip("x:N", title=x_title), alt.Tooltip("y:N", title=y_title)]
    points = make_chart(rows).mark_point(filled=True, size=90).add_params(chosen)
    points = points.encode(horizontal, vertical, styles.color(), styles.shape(), opacity=fade(chosen), tooltip=tips)
    return arrange(points, height=HEIGHT)


def _describe(column: pd.Series) -> dict[str, Any]:
    """Return type and scale of a column; the scale of numbers starts near the least one."""
    if _is_numeric(column):
        return {"type": "quantitative", "scale": alt.Scale(zero=False, padding=12)}
    return {"type": "nominal"}


def _read_column(report: Report, cells: pd.DataFrame, name: str) -> list[float] | list[str]:
    """Return numbers, the display names of the cells or of the values of an axis, or other values as texts."""
    if _is_numeric(cells[name]):
        return [float(value) for value in cells[name]]
    if name in report.names.axes:
        return [report.names.values[str(cell)][name] for cell in cells["cell"]]
    return [report.grid.display_name(str(value)) for value in cells[name]]


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
