"""The HTML page of a report: one self-contained file that works without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from fcnlab.data.datasets.palette import read_palette
from fcnlab.report.charts.style import Plot, to_svg
from fcnlab.report.gallery.selection import Gallery, GalleryCell
from fcnlab.report.gallery.thumbnails import encode_error_map, encode_label_map, encode_photo
from fcnlab.report.html.environment import read_asset, render
from fcnlab.report.provenance import describe_provenance, rerun_command
from fcnlab.report.report import Report
from fcnlab.report.tables.classes import make_class_table

WIDE = frozenset({"classes"})
"""Plots that take the full width of the page."""


@dataclass(frozen=True)
class Section:
    """A grid on a page.

    Attributes:
        report: report of the grid.
        plots: charts of the report.
        gallery: images of the gallery; None where there are none.
    """

    report: Report
    plots: Sequence[Plot]
    gallery: Gallery | None


def render_page(sections: Sequence[Section], title: str) -> str:
    """Return the HTML of a page with one section per grid.

    Args:
        sections: the grids; several of them get a navigation bar.
        title: title of the page.
    """
    contexts = [_section_context(section) for section in sections]
    assets = {"style": read_asset("page.css"), "script": read_asset("page.js")}
    return render("page.html.j2", title=title, sections=contexts, **assets)


def _section_context(section: Section) -> dict[str, Any]:
    report, gallery = section.report, section.gallery
    file, name = report.grid.file, report.grid.name
    return {
        "name": name,
        "question": file.question,
        "texts": [text for text in (file.conclusion, file.description) if text],
        "summary": report.summary_text,
        "table": report.table,
        "footnotes": report.footnotes,
        "plots": [
            {"svg": _inline_svg(plot, name), "caption": plot.caption, "wide": plot.name in WIDE}
            for plot in section.plots
        ],
        "classes": make_class_table(report),
        "gallery": None if gallery is None else _gallery_context(gallery, report.records.classes),
        "command": rerun_command(report.grid),
        "provenance": describe_provenance(report.grid, report.trials),
    }


def _inline_svg(plot: Plot, grid: str) -> Markup:
    """Return a chart as an SVG element with its caption as accessible name."""
    text = to_svg(plot, prefix=grid).decode()
    text = text[text.index("<svg") :]
    return Markup(text.replace("<svg ", f'<svg role="group" aria-label="{escape(plot.caption)}" ', 1))


def _gallery_context(gallery: Gallery, classes: Sequence[str]) -> dict[str, Any]:
    seeds = " and ".join(str(seed) for seed in sorted({cell.seed for cell in gallery.cells}))
    notes = [
        "The error map below each prediction is black where it is wrong, white where it is right and gray where pixels "
        "are ignored. The mIoU of a single image is the mean over the classes labeled in it. Predictions are those of "
        f"seed {seeds}.",
        *([f"{gallery.note}."] if gallery.note else []),
    ]
    pictures = [
        cell.find_picture(id_, "label.png") for cell in gallery.cells for id_ in gallery.extremes.get(cell.label, ())
    ]
    picture = next((path for path in pictures if path is not None), None)
    colors = read_palette(picture)[: len(classes)].tolist() if picture is not None else []
    groups = [
        {"title": "Best image of each cell", "rows": _extreme_rows(gallery, 0, "best")},
        {"title": "Worst image of each cell", "rows": _extreme_rows(gallery, 1, "worst")},
    ]
    if gallery.disagreements:
        rows = [_image_row(id_, gallery.cells, id_) for id_ in gallery.disagreements]
        groups.insert(0, {"title": "Largest disagreement between cells", "rows": rows})
    return {"notes": notes, "legend": list(zip(classes, colors, strict=False)), "groups": groups}


def _extreme_rows(gallery: Gallery, index: int, kind: str) -> list[dict[str, Any]]:
    """Return one row per image that is the best (index 0) or worst (1) one of any cell."""
    by_id: dict[str, list[GalleryCell]] = {}
    for cell in gallery.cells:
        if cell.label in gallery.extremes:
            by_id.setdefault(gallery.extremes[cell.label][index], []).append(cell)
    return [
        _image_row(id_, cells, f"{id_}, {kind} of {' and '.join(cell.label for cell in cells)}")
        for id_, cells in by_id.items()
    ]


def _image_row(id_: str, cells: Sequence[GalleryCell], caption: str) -> dict[str, Any]:
    """Return an image with its ground truth, and the prediction and error map of each cell."""
    image, label = cells[0].find_picture(id_, "image.jpg"), cells[0].find_picture(id_, "label.png")
    assert image is not None and label is not None, "they are saved together with the prediction"
    truth = encode_label_map(label)
    pairs = [_pair(encode_photo(image), truth, "input and ground truth", "input", "ground truth")]
    for cell in cells:
        prediction = cell.find_picture(id_, "prediction.png")
        assert prediction is not None, "the gallery selects only images with predictions"
        text = f"{cell.label}: mIoU {100 * cell.miou[id_]:.0f} %"
        names = f"prediction of {cell.label}", f"errors of {cell.label}"
        pairs.append(_pair(encode_label_map(prediction), encode_error_map(prediction, label), text, *names))
    return {"caption": caption, "pairs": pairs}


def _pair(upper: str, lower: str, caption: str, upper_name: str, lower_name: str) -> dict[str, str]:
    return {"upper": upper, "lower": lower, "caption": caption, "upper_name": upper_name, "lower_name": lower_name}
