"""A chart and its file formats: PNG, SVG, and the Vega-Lite specification that a page draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import altair as alt
import vl_convert
from PIL import Image

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that the specifications are written for."""

SCALE = 2.0
"""Pixels of a PNG per unit of length, for screens with a high density."""

HOVER = "hover"
"""Beginning of the names of layers that only show tooltips. Files leave them out."""


@dataclass(frozen=True)
class Plot:
    """A chart of a report.

    Attributes:
        name: name of its files.
        title: short title.
        caption: one or two sentences on its content.
        chart: the Altair chart; notebooks display it.
        min_width: smallest width in pixels at which it is readable on a page.
    """

    name: str
    title: str
    caption: str
    chart: alt.LayerChart
    min_width: int = 280

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification."""
        return self.chart.to_dict(validate=False)  # a test validates it; here this would take most of the time

    @property
    def page_spec(self) -> dict[str, Any]:
        """The Vega-Lite specification of a chart that is as wide as its place on a page."""
        return self.spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}

    def to_png(self) -> bytes:
        """Return the chart as PNG with a palette, which is half the size."""
        rendered = vl_convert.svg_to_png(self._svg.decode(), scale=SCALE)
        file = BytesIO()
        with Image.open(BytesIO(rendered)) as image:
            _reduce_colors(image).save(file, "PNG")
        return file.getvalue()

    def to_svg(self) -> bytes:
        """Return the chart as SVG, with its texts as texts."""
        return self._svg

    @cached_property
    def _svg(self) -> bytes:
        return vl_convert.vegalite_to_svg(self._to_file_spec(), vl_version=VEGA_LITE).encode()

    def _to_file_spec(self) -> dict[str, Any]:
        layers = [one for one in self.spec["layer"] if not one.get("name", "").startswith(HOVER)]
        return self.spec | {"layer": layers}


def _reduce_colors(image: Image.Image) -> Image.Image:
    """Return a picture with 256 colors; maximum coverage keeps rare colors, such as those of a small mark."""
    return image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
