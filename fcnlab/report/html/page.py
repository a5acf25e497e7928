"""The page of a report: one HTML file that holds all that it shows, and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

from fcnlab.data.datasets.palette import voc_palette
from fcnlab.report.charts.style import Plot, to_svg
from fcnlab.report.gallery.selection import Gallery, Shown
from fcnlab.report.gallery.thumbnails import error_map, label_map, photograph
from fcnlab.report.provenance import command, facts
from fcnlab.report.report import Report
from fcnlab.report.tables.cells import Table
from fcnlab.report.tables.classes import class_table
from fcnlab.report.tables.formats import to_html

WIDE = frozenset({"classes"})
"""Plots that take the whole width of the page."""


@dataclass(frozen=True)
class Section:
    """A grid on a page: its report, its plots and its gallery."""

    report: Report
    plots: Sequence[Plot]
    gallery: Gallery | None


def page(sections: Sequence[Section], title: str) -> str:
    """The whole page. Grids stand one below the other, with links to each where there are several."""
    several = len(sections) > 1
    links = "".join(f'<a href="#{escape(s.report.grid.name)}">{escape(s.report.grid.name)}</a>' for s in sections)
    body = "\n".join(_section(section, several) for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        + (f'<h1>{escape(title)}</h1>\n<nav aria-label="Grids">{links}</nav>\n' if several else "")
        + f'{body}\n<div id="tooltip" role="presentation" hidden></div>\n<script>\n{_asset("page.js")}</script>\n'
        "</body>\n</html>\n"
    )


@cache
def _asset(name: str) -> str:
    return files("fcnlab.report.html").joinpath(name).read_text(encoding="utf-8")


def _section(section: Section, several: bool) -> str:
    report, name = section.report, section.report.grid.name
    heading = "h2" if several else "h1"
    texts = (report.grid.file.conclusion, report.grid.file.description)
    about = "".join(f"<p>{escape(text)}</p>" for text in texts if text)
    found = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.summary_text)
    parts = [
        f'<section id="{escape(name)}">\n<p class="kicker">{escape(name)}</p>\n'
        f"<{heading}>{escape(report.grid.file.question)}</{heading}>\n{about}",
        f'<h2>What was found</h2>\n<ul class="findings">{found}</ul>',
        f"<h2>Cells</h2>\n{_table(f'{name}-cells', report.table)}\n{_notes(report.footnotes)}",
        _plots(section.plots, name),
        _classes(report, name),
        _gallery(section.gallery, report.records.classes) if section.gallery is not None else "",
        _provenance(report),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _table(name: str, table: Table) -> str:
    """A table with a field that filters its rows."""
    name, rows = escape(name), len(table.rows)
    return (
        f'<div class="filter"><label for="{name}-filter">Show rows with</label>'
        f'<input type="search" id="{name}-filter" data-table="{name}" autocomplete="off">'
        f'<output id="{name}-filter-shown">{rows} of {rows}</output></div>\n'
        f'<div class="scroll" id="{name}">\n{to_html(table)}</div>'
    )


def _notes(lines: Iterable[str]) -> str:
    return '<div class="note">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</div>"


def _plots(plots: Sequence[Plot], grid: str) -> str:
    if not plots:
        return ""
    drawn = "\n".join(
        f'<figure class="plot{" wide" if plot.name in WIDE else ""}">{_svg(plot, grid)}'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    )
    return f'<h2>Plots</h2>\n<div class="plots">\n{drawn}\n</div>'


def _svg(plot: Plot, grid: str) -> str:
    """The drawing alone, without the head of a file, as a picture with a name for those who do not see it."""
    text = to_svg(plot, within=grid).decode()
    text = text[text.index("<svg") :]
    return text.replace("<svg ", f'<svg role="group" aria-label="{escape(plot.caption)}" ', 1)


def _classes(report: Report, name: str) -> str:
    table = class_table(report)
    if table is None:
        return ""
    return f"<h2>Classes</h2>\n{_table(f'{name}-classes', table)}\n" + _notes(
        ["IoU in percent, mean ± standard deviation over seeds; images: in how many the class is labelled."]
    )


def _gallery(gallery: Gallery, classes: Sequence[str]) -> str:
    parts = [
        "<h2>Images</h2>",
        _notes(
            [
                "Below each prediction is its error map: black is wrong, white right, and grey does not count. mIoU of "
                f"a single image is over the classes labelled in it. Predictions are of seed {_seeds(gallery.shown)}.",
                *([gallery.note + "."] if gallery.note else []),
            ]
        ),
        _legend(classes),
    ]
    if gallery.disagreements:
        parts.append("<h3>Where the cells disagree most</h3>")
        parts += [_row(id_, gallery.shown, id_) for id_ in gallery.disagreements]
    for place, what in ((0, "best"), (1, "worst")):
        parts.append(f"<h3>Each cell's {what} image</h3>")
        by_id: dict[str, list[Shown]] = {}
        for shown in gallery.shown:
            if shown.cell in gallery.extremes:
                by_id.setdefault(gallery.extremes[shown.cell][place], []).append(shown)
        parts += [_row(id_, cells, f"{id_}, {what} of {_and(s.cell for s in cells)}") for id_, cells in by_id.items()]
    return "\n".join(parts)


def _seeds(shown: Sequence[Shown]) -> str:
    return " and ".join(str(seed) for seed in sorted({one.seed for one in shown}))


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


def _legend(classes: Sequence[str]) -> str:
    colours = voc_palette()
    entries = "".join(
        f'<li><span style="background:rgb({r},{g},{b})"></span>{escape(name)}</li>'
        for name, (r, g, b) in zip(classes, colours[: len(classes)].tolist(), strict=True)
    )
    return f'<ul class="legend" aria-label="Colours of the classes">{entries}</ul>'


def _row(id_: str, cells: Sequence[Shown], caption: str) -> str:
    """An image, its truth, and what each of these cells predicts with its errors."""
    image, label = cells[0].picture(id_, "image.jpg"), cells[0].picture(id_, "label.png")
    assert image is not None and label is not None, "they are written with the prediction"
    figures = [_pair(photograph(image), label_map(label), "input and truth", "input", "truth")]
    for shown in cells:
        prediction = shown.picture(id_, "prediction.png")
        assert prediction is not None, "only images of which it is known are chosen"
        what = f"{shown.cell}: mIoU {100 * shown.miou[id_]:.0f} %"
        names = f"prediction of {shown.cell}", f"errors of {shown.cell}"
        figures.append(_pair(label_map(prediction), error_map(prediction, label), what, *names))
    pictures = f'<div class="pictures">{"".join(figures)}</div>'
    return f'<div class="image"><p class="kicker">{escape(caption)}</p>{pictures}</div>'


def _pair(upper: str, lower: str, caption: str, *names: str) -> str:
    """Two pictures, one above the other, with what each shows for those who do not see it."""
    pictures = "".join(
        f'<img src="{source}" alt="{escape(name)}">' for source, name in zip((upper, lower), names, strict=True)
    )
    return f'<figure><div class="pair">{pictures}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _provenance(report: Report) -> str:
    entries = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(report.grid, report.trials)
    )
    again = f"<p>Reproduce: <code>{escape(command(report.grid))}</code></p>"
    return f"<h2>Where it comes from</h2>\n{again}\n<dl>{entries}</dl>"
