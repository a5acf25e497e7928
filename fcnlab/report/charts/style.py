"""Style of the charts: colors that are distinct with color blindness, the same for a cell in all charts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A6761D")
"""Okabe and Ito's palette without yellow and black, which are hard to see on a light or dark page, and a brown."""

SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([8, 2], [4, 2], [2, 2], [8, 2, 2, 2], [6, 4], [10, 3], [3, 5])
BASELINE = ("#7A7A7A", "circle", [1, 0])
"""Color, shape and line of the baseline."""

OTHERS = ("#B0B0B0", "circle", [1, 0])
"""Color, shape and line of the cells without a color of their own."""

THEME = {"ink": "#1b1f24", "soft": "#5c6570", "line": "#e3e6ea", "paper": "#ffffff"}
"""Signals of a chart's colors, which a dark page sets to others."""

WIDTH = 560
"""Width of a chart in a file, without axes and legends."""

LONGEST = 40
"""Most characters of the name of a cell."""

LABEL_WIDTH = 280
"""Largest width of the name of a cell in pixels, for wide characters."""

_BASELINE = " (baseline)"

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


@dataclass(frozen=True)
class CellStyles:
    """Names, colors, shapes and lines of the cells in all charts of a grid.

    Attributes:
        names: label of each finished cell -> its name in charts.
        entries: label of each finished cell -> its entry in legends.
        legend: the entries of a legend.
        others: the entry of the cells without a color of their own.
        title: title of a legend: the axes.
        baseline: label of the baseline of the grid.
    """

    names: Mapping[str, str]
    entries: Mapping[str, str]
    legend: tuple[str, ...]
    others: str
    title: str
    baseline: str

    @classmethod
    def create(cls, cells: pd.DataFrame, title: str, baseline: str, name: Callable[[str], str] = str) -> CellStyles:
        """Choose the cells that have a color: the baseline and the best of the others.

        Args:
            cells: frame of the finished cells.
            title: title of a legend.
            baseline: label of the baseline of the grid.
            name: function from the label of a cell to its display name.
        """
        labels = [str(label) for label in cells["cell"]]
        names = dict(zip(labels, shorten_all([name(label) for label in labels]), strict=True))
        for label in cells["cell"][cells["baseline"]]:
            names[label] = f"{shorten(names[label], LONGEST - len(_BASELINE))}{_BASELINE}"
        best = {*cells[cells["cell"] != baseline].nlargest(len(COLORS), "miou")["cell"], baseline}
        rest = [label for label in labels if label not in best]
        others = names[rest[0]] if len(rest) == 1 else f"other cells ({len(rest)})"
        entries = {label: names[label] if label in best else others for label in labels}
        return cls(names, entries, tuple(dict.fromkeys(entries.values())), others, title, baseline)

    def color(self, *, legend: bool = True) -> alt.Color:
        """Return the encoding of the color by the field `entry`.

        Args:
            legend: whether the chart has a legend.
        """
        return alt.Color("entry:N", scale=self._scale(0), legend=self._legend() if legend else None)

    def find_color(self, label: str) -> str:
        """Return the color of a cell.

        Args:
            label: label of the cell.
        """
        return str(self._styles(0)[self.legend.index(self.entries[label])])

    def stroke(self) -> alt.Stroke:
        """Return the encoding of the color of lines by the field `entry`, with lines in the legend."""
        return alt.Stroke("entry:N", scale=self._scale(0), legend=self._legend(lines=True))

    def shape(self) -> alt.Shape:
        """Return the encoding of the shape by the field `entry`."""
        return alt.Shape("entry:N", scale=self._scale(1), legend=self._legend())

    def dash(self) -> alt.StrokeDash:
        """Return the encoding of the kind of line by the field `entry`."""
        return alt.StrokeDash("entry:N", scale=self._scale(2), legend=self._legend(lines=True))

    def _legend(self, *, lines: bool = False) -> alt.Legend:
        symbol: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 300, "symbolStrokeWidth": 2} if lines else {}
        return alt.Legend(title=self.title, symbolOpacity=1, **symbol)

    def _scale(self, index: int) -> alt.Scale:
        return alt.Scale(domain=list(self.legend), range=self._styles(index))

    def _styles(self, index: int) -> list[Any]:
        """Return the colors, shapes or lines of the legend's entries."""
        base = self.entries.get(self.baseline)
        own = iter(zip(COLORS, SHAPES, DASHES, strict=True))
        styles = [BASELINE if one == base else OTHERS if one == self.others else next(own) for one in self.legend]
        return [style[index] for style in styles]


def select_in_legend() -> alt.Parameter:
    """Return the selection of cells by clicks on entries of the legend."""
    return alt.selection_point(name="chosen", fields=["entry"], bind="legend")


def fade(chosen: alt.Parameter, opacity: float = 1.0) -> Any:
    """Return the opacity of marks: those of cells that are not selected are faint.

    Args:
        chosen: result of `select_in_legend`.
        opacity: opacity of the selected cells.
    """
    return alt.when(chosen).then(alt.value(opacity)).otherwise(alt.value(0.08))


def row_axis(names: Sequence[str]) -> alt.Y:
    """Return the encoding of the rows of a chart with one row per cell, by the field `cell`.

    Args:
        names: names of the cells from top to bottom.
    """
    return alt.Y("cell:N", sort=list(names), title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, grid=False, ticks=False))


def measure_rows(names: Sequence[str]) -> int:
    """Return the approximate width of the names of the rows of a chart in pixels.

    Args:
        names: names of the rows.
    """
    return min(LABEL_WIDTH, round(6.5 * max(map(len, names), default=0)))


def arrange(*layers: alt.Chart, height: float) -> alt.LayerChart:
    """Return layers as a chart in the style of all charts.

    Args:
        *layers: the layers, from the lowest.
        height: height without axes and legends.
    """
    theme = [alt.param(name=name, value=color) for name, color in THEME.items()]
    ink, soft, line, paper = (alt.expr(name) for name in THEME)
    return (
        alt.layer(*layers)
        .add_params(*theme)
        .properties(width=WIDTH, height=height)
        .configure(background=paper, font=FONT, padding=6)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=ink, titleColor=soft, gridColor=line, domainColor=line, tickColor=line, labelFontSize=12,
            titleFontSize=12, titleFontWeight="normal", titlePadding=8, labelFlush=False,
        )
        .configure_legend(
            labelColor=ink, titleColor=soft, labelFontSize=12, titleFontSize=12, titleFontWeight="normal",
            orient="bottom", direction="vertical", columns=2, labelLimit=LABEL_WIDTH, titleLimit=LABEL_WIDTH,
            symbolSize=80, rowPadding=4, offset=10,
        )
    )  # fmt: skip


def make_chart(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """Return a chart without marks.

    Args:
        rows: data, one mapping per row; values that are not finite numbers are None.
    """
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def shorten(label: str, longest: int = LONGEST) -> str:
    """Shorten a label to fit an axis.

    Args:
        label: the label.
        longest: most characters.
    """
    return label if len(label) <= longest else label[: longest - 1] + "…"


def shorten_all(labels: Sequence[str]) -> list[str]:
    """Shorten labels to fit an axis, so that different labels have different results.

    Labels with the same beginning are shortened before their first difference, and if this is not enough get numbers.

    Args:
        labels: the labels.

    Example:
        >>> shorten_all([f"fcn8s, a recipe with a very long name, {name}" for name in ("bilinear", "random")])
        ['fcn8s, a rec… a very long name, bilinear', 'fcn8s, a rec…th a very long name, random']
    """
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(shorten(label), []).append(label)
    common = {name: len(os.path.commonprefix(group)) for name, group in groups.items() if len(group) > 1}  # noqa: RUF071
    names = [_keep_difference(label, common[name]) if (name := shorten(label)) in common else name for label in labels]
    count = Counter(names)
    return [f"{shorten(name, LONGEST - 6)} ({n})" if count[name] > 1 else name for n, name in enumerate(names, 1)]


def _keep_difference(label: str, common: int) -> str:
    """Shorten a label before the end of the characters that it has in common with others."""
    first = LONGEST * 3 // 10
    rest = LONGEST - first - 1
    start = max(first, min(common - 4, len(label) - rest))
    return f"{label[:first]}…{shorten(label[start:], rest)}"
