"""How plots look, and how they become files: the same bytes each time, readable in grey and for the colour-blind."""

from __future__ import annotations

import re
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

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Okabe and Ito's, without the yellow that white paper swallows; the eighth is a grey."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)))
DPI = 110

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a label's dollar is a dollar
    "svg.fonttype": "none",  # texts as texts: small, and found by a search
    "svg.hashsalt": "fcnlab",
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Plot:
    """A drawn figure: its name as a file, what it shows in a sentence, and tips for its marked parts by their ids."""

    name: str
    caption: str
    figure: Figure
    tips: Mapping[str, str]


@contextmanager
def styled() -> Iterator[None]:
    """The style of all plots, whatever the user's own is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _RC.items():
            mpl.rcParams[name] = value
        yield


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line of the `index`-th cell: no two of the first eight share any of them."""
    turn = index % len(COLOURS)
    return {"color": COLOURS[turn], "marker": MARKERS[turn], "linestyle": LINES[turn]}


def tip(artist: Artist, tips: dict[str, str], text: str) -> None:
    """Give a part of a figure a text that the page shows when it is pointed at."""
    name = f"tip-{len(tips)}"
    artist.set_gid(name)
    tips[name] = text


def to_png(plot: Plot) -> bytes:
    """The plot as PNG."""
    file = BytesIO()
    with styled():
        FigureCanvasAgg(plot.figure).print_figure(
            file, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
    return file.getvalue()


def to_svg(plot: Plot, within: str = "") -> bytes:
    """The plot as SVG, with its tips as titles, and ids that no other plot has of those `within` a page."""
    file = BytesIO()
    with styled():
        FigureCanvasAgg(plot.figure).print_figure(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    for name, said in plot.tips.items():
        text = text.replace(f'<g id="{name}">', f'<g id="{name}" class="tip"><title>{escape(said)}</title>')
    return _named_apart(text, f"{within}-{plot.name}" if within else plot.name).encode()


def _named_apart(svg: str, name: str) -> str:
    """Put the plot's name before each id and each mention of one."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{name}-', svg)
    return svg.replace("url(#", f"url(#{name}-")


def shortened(label: str, longest: int = 40) -> str:
    """A label as an axis has room for it."""
    return label if len(label) <= longest else label[: longest - 1] + "…"


def bounded(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits around values with some room, at least `least` apart."""
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), (least - (high - low)) / 2, 1e-9)
    return low - room, high + room
