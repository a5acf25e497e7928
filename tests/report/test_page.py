"""The page of a report in a real browser: from disk, without a network, sorted, filtered, printed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import fcnlab
from fcnlab.lab import Lab
from fcnlab.report.gallery import selection as gallery
from fcnlab.report.gallery.thumbnails import encode_error_map, encode_label_map
from fcnlab.report.html.page import render_page
from fcnlab.report.report import make_report
from fcnlab.report.write import write_combined, write_report
from fcnlab.runner.plan import make_plan
from tests.conftest import SMOKE, browser, write_grid
from tests.report.finished_grid import THREE, finished_lab


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two grids, with two sections."""
    grid, lab = finished_lab(tmp_path_factory.mktemp("lab"))
    other = lab.load_grid(write_grid(lab.root, THREE.replace("Does it run?", "And <this>?"), "other"))
    reports = [make_report(make_plan(one, lab), lab, None) for one in (grid, other)]
    sections = [write_report(report, lab, predict=False) for report in reports]
    return write_combined(sections, lab) / "report.html"


def test_the_page_opens_from_disk_without_errors_or_requests(file: Path) -> None:
    with browser() as page:
        output: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: output.append(message.text))
        page.on("pageerror", lambda error: output.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        assert page.get_by_role("heading", name="And <this>?").count() == 1
        assert output == []
        assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}


def test_a_click_on_a_heading_sorts_and_a_second_one_reverses(file: Path) -> None:
    with browser() as page:
        page.goto(file.as_uri())
        table = page.locator("#question-cells")
        button = table.get_by_role("button", name="mIoU %", exact=True)
        button.click()
        assert _first_column(table) == ["fcn8s", "fcn16s", "fcn32s"]
        button.click()
        assert _first_column(table) == ["fcn32s", "fcn16s", "fcn8s"]
        assert table.get_by_role("columnheader", name="mIoU %", exact=True).get_attribute("aria-sort") == "ascending"
        assert _first_column(page.locator("#other-cells")) == ["fcn32s", "fcn16s", "fcn8s"]


def test_a_search_keeps_the_rows_with_the_word(file: Path) -> None:
    with browser() as page:
        page.goto(file.as_uri())
        page.locator("#question-cells-filter").fill("FCN8")
        table = page.locator("#question-cells")
        assert _first_column(table) == ["fcn8s"]
        assert page.locator("#question-cells-filter-shown").inner_text() == "1 of 3"
        page.locator("#question-cells-filter").fill("")
        assert len(_first_column(table)) == 3


def test_hovering_over_a_mark_shows_its_values(file: Path) -> None:
    with browser() as page:
        page.goto(file.as_uri())
        mark = page.locator(".plot .tip[aria-label*='fcn8s'][aria-label*='interval']").first
        mark.scroll_into_view_if_needed()
        mark.hover(force=True)
        tip = page.locator("#tooltip")
        assert tip.is_visible()
        assert "95 % interval" in tip.inner_text()


def test_the_page_can_be_printed(file: Path) -> None:
    with browser() as page:
        page.goto(file.as_uri())
        printed = page.pdf(format="A4")
        assert printed.startswith(b"%PDF")
        assert 1 <= len(re.findall(rb"/Type /Page\b", printed)) <= 20
        page.emulate_media(media="print")
        assert not page.locator("#question-cells-filter").is_visible()


def _first_column(table: object) -> list[str]:
    cells = table.locator("tbody tr:visible td:first-child").all_inner_texts()  # type: ignore[attr-defined]
    return [str(text) for text in cells]


def test_every_tag_is_closed_and_ids_are_unique(file: Path) -> None:
    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.ids: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.ids += [value for name, value in attrs if name == "id" and value is not None]
            if tag not in {"meta", "link", "img", "input", "br"}:
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.ids += [value for name, value in attrs if name == "id" and value is not None]

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(file.read_text(encoding="utf-8"))
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))


def test_the_page_is_small_and_its_plots_are_valid_svg(file: Path) -> None:
    assert file.stat().st_size < 1_000_000
    for svg in file.parent.parent.joinpath("question", "plots").glob("*.svg"):
        ElementTree.parse(svg)
        assert svg.stat().st_size < 60_000
        assert "<title>" in svg.read_text(encoding="utf-8")


def test_an_empty_grid_has_a_page(lab: Lab) -> None:
    grid = lab.load_grid(write_grid(lab.root, THREE))
    report = make_report(make_plan(grid, lab), lab, None)
    section = write_report(report, lab, predict=False)
    assert "No trial has finished yet" in render_page([section], "empty")
    assert section.gallery is None and section.plots == []


def test_the_gallery_is_of_the_images_on_which_cells_disagree_most() -> None:
    miou = {"a": [0.5, 0.9, 0.4, np.nan], "b": [0.6, 0.1, 0.4, 0.3]}
    shown = [
        gallery.GalleryCell(cell, 0, dict(zip("wxyz", values, strict=True)), (Path("nowhere"),))
        for cell, values in miou.items()
    ]
    made = gallery._gallery(shown, "wxyz", "")
    assert made.disagreements == ("x", "w")
    assert made.extremes == {"a": ("x", "y"), "b": ("w", "x")}


def test_repeated_predictions_equal_the_evaluated_ones(tmp_path: Path) -> None:
    text = SMOKE.replace("seeds: 2", "seeds: 1").replace("[fcn32s, fcn8s]", "[fcn32s]")
    path = write_grid(tmp_path, text)
    fcnlab.run_grid(fcnlab.load_grid(path), workers=1, threads=1, executor="serial", quiet=True)
    grid, lab = fcnlab.load_grid(path), Lab.find(path)
    report = make_report(make_plan(grid, lab), lab, None)
    made = gallery.select_gallery(report.plan, report.cells, report.records, lab, predict=True)
    assert made is not None and made.note == ""
    (shown,) = made.cells
    counts, ids = report.records.counts(shown.label)[0], report.records.ids(shown.label, 0)
    for id_ in made.extremes[shown.label]:
        prediction, label = shown.find_picture(id_, "prediction.png"), shown.find_picture(id_, "label.png")
        assert prediction is not None and label is not None
        found, truth = np.asarray(Image.open(prediction)), np.asarray(Image.open(label))
        right = [int(((found == c) & (truth == c)).sum()) for c in range(counts.shape[1])]
        assert right == counts[ids.index(id_), :, 0].tolist()


def test_without_weights_the_gallery_has_only_the_samples_and_a_note(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    report = make_report(make_plan(grid, lab), lab, None)
    made = gallery.select_gallery(report.plan, report.cells, report.records, lab, predict=True)
    assert made is not None
    assert "samples" in made.note and "weights are missing" in made.note
    assert str(tmp_path) not in made.note
    samples = {f"scene_{index:03}" for index in range(4)}
    assert {*made.disagreements, *(id_ for pair in made.extremes.values() for id_ in pair)} <= samples


def test_an_error_map_is_black_where_wrong_and_gray_where_nothing_counts(tmp_path: Path) -> None:
    from base64 import b64decode
    from io import BytesIO

    truth, found = np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8)
    truth[0, 0], found[1, 1] = 255, 2
    for name, labels in (("t", truth), ("p", found)):
        Image.fromarray(labels).save(tmp_path / f"{name}.png")
    uri = encode_error_map(tmp_path / "p.png", tmp_path / "t.png")
    picture = Image.open(BytesIO(b64decode(uri.removeprefix("data:image/png;base64,")))).convert("L")
    assert np.asarray(picture).tolist() == [[160, 255, 255], [255, 0, 255]]
    assert encode_label_map(tmp_path / "t.png").startswith("data:image/png;base64,")
