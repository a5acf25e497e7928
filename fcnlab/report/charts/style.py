"""Style and file formats of charts: reproducible bytes, readable in gray and with color blindness."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fcnlab.report.charts.fonts import DEFAULT

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Okabe and Ito's palette without yellow, which is hard to see on white; the last color is a gray."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)))
DPI = 110

_RC: dict[Any, Any] = {
    "font.family": DEFAULT,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # keep dollar signs of labels
    "svg.fonttype": "none",  # keep text as text: smaller and searchable
    "svg.hashsalt": "fcnlab",
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Plot:
    """A chart.

    Attributes:
        name: name of its files.
        caption: one sentence on its content.
        figure: the matplotlib figure.
        tooltips: texts of its marks by their ids.
    """

    name: str
    caption: str
    figure: Figure
    tooltips: Mapping[str, str]


@contextmanager
def plot_style() -> Iterator[None]:
    """Use the style of all charts, independent of the user's settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _RC.items():
            mpl.rcParams[name] = value
        yield


@contextmanager
def _draw_style() -> Iterator[None]:
    """Use the style of all charts. Missing characters were reported by `add_fallback_fonts`, once for all charts."""
    with plot_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield


def cell_style(index: int) -> dict[str, Any]:
    """Return color, marker and line style of a cell, which are distinct for the first eight cells.

    Args:
        index: index of the cell.
    """
    index = index % len(COLORS)
    return {"color": COLORS[index], "marker": MARKERS[index], "linestyle": LINES[index]}


def add_tooltip(artist: Artist, tooltips: dict[str, str], text: str) -> None:
    """Add a tooltip to a mark of a chart.

    Args:
        artist: the mark.
        tooltips: tooltips of the chart, to which the new one is added.
        text: the text.
    """
    name = f"tip-{len(tooltips)}"
    artist.set_gid(name)
    tooltips[name] = text


def to_png(plot: Plot) -> bytes:
    """Return a chart as PNG.

    Args:
        plot: the chart.
    """
    file = BytesIO()
    with _draw_style():
        FigureCanvasAgg(plot.figure).print_figure(
            file, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
    return file.getvalue()


def to_svg(plot: Plot, prefix: str = "") -> bytes:
    """Return a chart as SVG, with its tooltips as titles.

    Args:
        plot: the chart.
        prefix: prefix of all ids, which makes them unique on a page with several charts of the same name.
    """
    file = BytesIO()
    with _draw_style():
        FigureCanvasAgg(plot.figure).print_figure(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    for name, tooltip in plot.tooltips.items():
        text = text.replace(f'<g id="{name}">', f'<g id="{name}" class="tip"><title>{escape(tooltip)}</title>')
    return _prefix_ids(text, f"{prefix}-{plot.name}" if prefix else plot.name).encode()


def _prefix_ids(svg: str, name: str) -> str:
    """Prefix each id and each reference to one."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{name}-', svg)
    return svg.replace("url(#", f"url(#{name}-")


def shorten(label: str, longest: int = 40) -> str:
    """Shorten a label to fit an axis.

    Args:
        label: the label.
        longest: most characters.
    """
    return label if len(label) <= longest else label[: longest - 1] + "…"


def padded_limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return axis limits around values with some padding.

    Args:
        values: the values.
        least: smallest distance of the limits.
    """
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), (least - (high - low)) / 2, 1e-9)
    return low - room, high + room
