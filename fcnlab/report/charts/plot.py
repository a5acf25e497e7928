"""A chart and its file formats: PNG, SVG, PDF, and the Vega-Lite specification that a page draws."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fcnlab.atomic_file import read_shared

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that the specifications are written for."""

SCALE = 2.0
"""Pixels of a PNG per unit of length, for screens with a high density."""

HOVER = "hover"
"""Beginning of the names of layers that only show tooltips. Files leave them out."""


SPECIFICATION = "specification"
"""Name of the text in a PNG that has the digest of the chart's specification; SVG and PDF have it in a comment at their
end."""


@dataclass(frozen=True)
class RenderedFiles:
    """The files of a chart; `pdf` is None if there is none."""

    svg: bytes
    png: bytes
    pdf: bytes | None = None


@dataclass(frozen=True)
class Plot:
    """A chart of a report.

    Attributes:
        name: name of its files.
        title: short title.
        caption: one or two sentences on its content.
        chart: the Altair chart; notebooks display it.
        min_width: smallest width in pixels at which it is readable on a page.
        rendered: its files, if an earlier report has them; else they are rendered when they are needed.
    """

    name: str
    title: str
    caption: str
    chart: alt.LayerChart
    min_width: int = 280
    rendered: RenderedFiles | None = None

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification."""
        return self.chart.to_dict(validate=False)  # a test validates it; here this would take most of the time

    @property
    def page_spec(self) -> dict[str, Any]:
        """The Vega-Lite specification of a chart that is as wide as its place on a page, with its alternative text."""
        fit = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        return self.spec | fit | {"description": self.caption}

    def to_png(self) -> bytes:
        """Return the chart as PNG with a palette, which is half the size."""
        if self.rendered is not None:
            return self.rendered.png
        rendered = vl_convert.svg_to_png(self._svg.decode(), scale=SCALE)
        file, texts = BytesIO(), PngInfo()
        texts.add_text(SPECIFICATION, self._digest)
        with Image.open(BytesIO(rendered)) as image:
            _reduce_colors(image).save(file, "PNG", pnginfo=texts)
        return file.getvalue()

    def to_svg(self) -> bytes:
        """Return the chart as SVG, with its texts as texts."""
        return self._svg if self.rendered is None else self.rendered.svg

    def to_pdf(self) -> bytes:
        """Return the chart as PDF with vectors and fonts, for LaTeX. Its bytes differ between calls."""
        if self.rendered is not None and self.rendered.pdf is not None:
            return self.rendered.pdf
        return vl_convert.svg_to_pdf(self.to_svg().decode()) + self._pdf_comment

    def reuse_files(self, folder: Path) -> Plot:
        """Return the plot with the files of an earlier report, if these show the same specification.

        Rendering takes most of the time of a report.

        Args:
            folder: folder with the files.
        """
        with suppress(OSError):  # they do not exist, or cannot be read
            files = RenderedFiles(*(read_shared(folder / f"{self.name}.{kind}") for kind in ("svg", "png")))
            with Image.open(BytesIO(files.png)) as image:
                shown = image.info.get(SPECIFICATION)
            if shown == self._digest and files.svg.endswith(self._comment):
                return replace(self, rendered=replace(files, pdf=self._read_pdf(folder)))
        return self

    def _read_pdf(self, folder: Path) -> bytes | None:
        """Return the PDF of an earlier report, or None if there is none that shows the same specification."""
        try:
            content = read_shared(folder / f"{self.name}.pdf")
        except OSError:  # it does not exist, or cannot be read
            return None
        return content if content.endswith(self._pdf_comment) else None

    @cached_property
    def _svg(self) -> bytes:
        return vl_convert.vegalite_to_svg(self._file_spec, vl_version=VEGA_LITE).encode() + self._comment

    @property
    def _comment(self) -> bytes:
        return f"\n<!-- {SPECIFICATION}: {self._digest} -->\n".encode()

    @property
    def _pdf_comment(self) -> bytes:
        return f"\n% {SPECIFICATION}: {self._digest}\n".encode()

    @cached_property
    def _digest(self) -> str:
        content = json.dumps([self._file_spec, SCALE, version("vl-convert-python")], sort_keys=True)
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"

    @cached_property
    def _file_spec(self) -> dict[str, Any]:
        layers = [one for one in self.spec["layer"] if not one.get("name", "").startswith(HOVER)]
        return self.spec | {"layer": layers}


def _reduce_colors(image: Image.Image) -> Image.Image:
    """Return a picture with 256 colors; maximum coverage keeps rare colors, such as those of a small mark."""
    return image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
