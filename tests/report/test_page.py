"""The page of a report in a real browser: from disk, without a network, sorted, filtered, printed."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import fcnlab
from fcnlab.data.datasets.palette import to_palette_image, voc_palette
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.report.gallery import predictions
from fcnlab.report.gallery import selection as gallery
from fcnlab.report.gallery.pictures import ERROR_COLORS, HATCH, IGNORED, WRONG, encode_error_map, encode_label_map
from fcnlab.report.html.gallery import make_columns_style, make_gallery
from fcnlab.report.html.page import render_page
from fcnlab.report.html.security import load_vega
from fcnlab.report.html.sortable import sort_key
from fcnlab.report.html.trials import make_trial_rows
from fcnlab.report.report import make_report
from fcnlab.report.write import write_combined, write_report
from fcnlab.runner.plan import make_plan
from fcnlab.tracking.view import format_runs_page
from tests.conftest import SMOKE, browser, write_grid
from tests.report.finished_grid import THREE, finished_lab

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> \"'&"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two grids, one of them with hostile texts and a failed trial, with two sections."""
    grid, lab = finished_lab(tmp_path_factory.mktemp("lab"))
    text = THREE.replace("Does it run?", "And <this>?") + f"conclusion: {json.dumps(HOSTILE)}\n"
    other = lab.load_grid(write_grid(lab.root, text, "other"))
    reports = [make_report(make_plan(one, lab), lab, None) for one in (grid, other)]
    trials = reports[1].trials
    failed = trials.assign(status=["failed", "failed", *trials["status"][2:]], failure=[HOSTILE, HOSTILE, *[""] * 7])
    reports[1] = replace(reports[1], trials=failed, summary_text=[HOSTILE])
    sections = [write_report(report, lab, predict=False) for report in reports]
    return write_combined(sections, lab) / "report.html"


@pytest.fixture(scope="module")
def tab(file: Path) -> Iterator[Any]:
    """The page in a browser, and the lines of its console."""
    with browser() as tab:
        tab.output = []
        tab.requests = []
        tab.on("console", lambda message: tab.output.append(message.text))
        tab.on("pageerror", lambda error: tab.output.append(str(error)))
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-charts=ready]")
        yield tab


def test_the_page_opens_from_disk_without_errors_or_requests(file: Path, tab: Any) -> None:
    assert tab.get_by_role("heading", name="And <this>?").count() == 1
    assert tab.locator(".plot svg.marks").count() == 12
    captions = [text.partition("  ")[0].strip() for text in tab.locator("#question figcaption").all_inner_texts()]
    texts = [plot.get_attribute("aria-label") for plot in tab.locator("#question .canvas").all()]
    assert len(texts) == 6 and all(caption.startswith(text) for text, caption in zip(texts, captions, strict=False))
    assert tab.output == [], "nothing violates the page's policy"
    assert {url for url in tab.requests if not url.startswith(("data:", "blob:"))} == {file.as_uri()}
    policy = tab.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_texts_of_the_user_stay_texts(tab: Any) -> None:
    assert tab.locator("#other .conclusion p").inner_text() == HOSTILE
    assert tab.locator("#other .failure").count() == 1
    assert tab.locator("#other .failure").inner_text().startswith(f"2 failed trials: {HOSTILE}")
    assert tab.title() != "owned" and tab.locator("img[src=x]").count() == 0


def test_a_click_on_a_heading_sorts_and_a_second_one_reverses(tab: Any) -> None:
    table = tab.locator("#question-cells")
    button = table.get_by_role("button", name="mIoU %", exact=True)
    button.click()
    assert _first_column(table) == ["fcn8s", "fcn16s", "fcn32s"]
    button.click()
    assert _first_column(table) == ["fcn32s", "fcn16s", "fcn8s"]
    assert table.get_by_role("columnheader", name="mIoU %", exact=True).get_attribute("aria-sort") == "ascending"
    assert _first_column(tab.locator("#other-cells")) == ["fcn32s", "fcn16s", "fcn8s"]


def test_columns_are_sorted_by_their_values_and_not_by_their_texts(tab: Any) -> None:
    keys = [sort_key(value) for value in (0.01, 1e-05, 1234.0, 44.7, float("nan"), -1.5, "none")]
    order = tab.evaluate(
        """keys => {
          const table = document.querySelector("#other-trial-table table").cloneNode(true);
          keys.forEach((key, index) => { table.tBodies[0].rows[index].cells[3].dataset.sort = key; });
          while (table.tBodies[0].rows.length > keys.length) table.tBodies[0].rows[keys.length].remove();
          sortRows(table, 3, "ascending");
          return [...table.tBodies[0].rows].map((row) => row.cells[3].dataset.sort);
        }""",
        keys,
    )
    assert order == ["-1.5", "1e-05", "0.01", "44.7", "1234.0", "none", ""]


def test_a_search_keeps_the_rows_with_the_word(tab: Any) -> None:
    table = tab.locator("#question-cells")
    search = tab.locator("input[data-table=question-cells]")
    search.fill("FCN8")
    assert _first_column(table) == ["fcn8s"]
    assert tab.locator("#question .filter output").first.inner_text() == "1 of 3"
    search.fill("")
    assert len(_first_column(table)) == 3


def test_hovering_over_a_mark_shows_its_values(tab: Any) -> None:
    mark = tab.locator("[data-name=question-differences] .mark-symbol path[aria-label*=fcn8s]").first
    mark.scroll_into_view_if_needed()
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    mark.hover(force=True)
    tip = tab.locator("#tooltip")
    tip.wait_for()
    assert "95 % interval" in tip.inner_text()
    tab.mouse.move(0, 0)


def test_the_theme_changes_page_and_charts(tab: Any) -> None:
    colors = """() => [getComputedStyle(document.body).backgroundColor,
                       getComputedStyle(document.querySelector("[data-name=question-cost] svg")).backgroundColor]"""
    assert tab.evaluate(colors) == ["rgb(255, 255, 255)"] * 2
    tab.get_by_role("button", name="Dark").click()
    assert tab.evaluate(colors) == ["rgb(20, 23, 27)"] * 2
    tab.get_by_role("button", name="Light").click()
    assert tab.evaluate(colors) == ["rgb(255, 255, 255)"] * 2


def test_pictures_are_enlarged_and_compared_by_keys(tab: Any) -> None:
    tab.locator("#question .tile[data-kind=prediction]").first.focus()
    tab.keyboard.press("Enter")
    box = tab.locator("#lightbox")
    caption, over = box.locator(".caption"), box.locator(".over")
    assert box.is_visible() and "fcn32s" in caption.inner_text()
    assert over.evaluate("image => image.style.opacity") == "0.7"
    tab.keyboard.press("ArrowRight")
    assert caption.inner_text().endswith("errors")
    scale = "() => Number(document.querySelector('.stack').style.transform.match(/scale\\((.*)\\)/)[1])"
    before = tab.evaluate(scale)
    tab.keyboard.press("+")
    assert tab.evaluate(scale) == pytest.approx(1.4 * before)
    box.locator("input").fill("30")
    assert over.evaluate("image => image.style.opacity") == "0.3"
    box.locator(".stage").hover()
    assert "prediction: " in box.locator(".class").inner_text()
    tab.keyboard.press("Escape")
    assert not box.is_visible()
    tab.wait_for_function("() => document.activeElement.dataset.kind === 'error'")


def test_the_page_is_readable_on_a_phone(tab: Any) -> None:
    tab.set_viewport_size({"width": 420, "height": 800})
    tab.evaluate("() => { document.querySelector('.note p').textContent += ' ' + 'runs/'.repeat(60); }")
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 420
    hint = tab.locator(".filter:has(input[data-table=question-cells]) .more")
    assert hint.is_visible()
    tab.locator("#question-cells").evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    hint.wait_for(state="hidden")
    tab.locator("#question-cells").evaluate("box => { box.scrollLeft = 200; }")
    frozen = tab.locator("#question-cells td.frozen").first.bounding_box()
    assert frozen["x"] == pytest.approx(tab.locator("#question-cells").bounding_box()["x"], abs=2)
    tab.reload()
    tab.wait_for_selector("html[data-charts=ready]")
    entries = tab.locator("[data-name=question-cost] .role-legend-label text").all()
    assert len({round(entry.bounding_box()["x"]) for entry in entries}) == 1 < len(entries), "one column of entries"
    tab.set_viewport_size({"width": 1500, "height": 1000})
    hint.wait_for(state="hidden")


def test_the_page_can_be_printed(tab: Any) -> None:
    printed = tab.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type /Page\b", printed)) <= 20
    tab.emulate_media(media="print")
    assert not tab.locator("input[data-table=question-cells]").is_visible()
    tab.emulate_media(media="screen")
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    tab.evaluate("() => dispatchEvent(new Event('afterprint'))")


def test_downloads_are_the_files_of_the_report(file: Path, tab: Any) -> None:
    for name in ("table.csv", "trials.csv", "table.tex"):
        with tab.expect_download() as started:
            tab.locator(f"#question .downloads a[download='{name}']").click()
        assert Path(started.value.path()).read_bytes() == (file.parent.parent / "question" / name).read_bytes()


def test_trials_link_to_their_runs_on_a_server_without_its_password(file: Path) -> None:
    address = format_runs_page("https://me:secret@mlflow.example/base/", "7")
    assert address == "https://mlflow.example/base/#/experiments/7/runs"
    assert format_runs_page("sqlite:///mlflow.db", "7") == ""
    lab = Lab.find(root=file.parents[2])
    grid = lab.load_grid(lab.root / "experiments" / "question.yaml")
    report = make_report(make_plan(grid, lab), lab, None)
    runs = replace(report, runs_page=address, trials=report.trials.assign(run_id=["a/b", *[""] * 8]))
    assert [row.link for row in make_trial_rows(runs)] == [f"{address}/a%2Fb", *[""] * 8]


def _first_column(table: Any) -> list[str]:
    cells = table.locator("tbody tr:visible td:first-child").all_inner_texts()
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
    assert file.stat().st_size < 1_600_000, "most of it is the JavaScript of Vega, once"
    for svg in file.parent.parent.joinpath("question", "plots").glob("*.svg"):
        ElementTree.parse(svg)
        assert svg.stat().st_size < 60_000


def test_an_empty_grid_has_a_page(lab: Lab) -> None:
    grid = lab.load_grid(write_grid(lab.root, THREE))
    report = make_report(make_plan(grid, lab), lab, None)
    section = write_report(report, lab, predict=False)
    assert "No trial has finished yet" in render_page([section], "empty")
    assert section.gallery is None and section.plots == []


def test_the_scripts_are_bundled_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_, **__: "bundled()")
    load_vega.cache_clear()
    assert load_vega() == "bundled()"
    load_vega.cache_clear()


def test_the_gallery_is_of_the_images_on_which_cells_disagree_most() -> None:
    miou = {"a": [0.5, 0.9, 0.4, np.nan], "b": [0.6, 0.1, 0.4, 0.3]}
    shown = [
        gallery.GalleryCell(cell, cell, 0, dict(zip("wxyz", values, strict=True)), (Path("nowhere"),))
        for cell, values in miou.items()
    ]
    made = gallery._gallery(shown, "wxyz", "")
    assert made.disagreements == ("x", "w")
    assert made.extremes == {"a": ("x", "y"), "b": ("w", "x")}


@pytest.mark.parametrize("pictures", [1, 2, 3, 5, 7, 13])
def test_no_picture_is_alone_in_the_last_row_where_the_others_leave_room(pictures: int) -> None:
    rules = make_columns_style({"groups": [{"rows": [{"pairs": [()] * pictures}]}]})
    widths = re.findall(r"min-width: (\d+)px\) { .tiles.of(\d+) { grid-template-columns: repeat\((\d+), 1fr", rules)
    for fitting, (width, count, columns) in enumerate(widths, 3):
        assert int(width) >= 175 * fitting
        assert (int(count), len(widths)) == (pictures, pictures - 2)
        assert int(columns) <= fitting
        rows = -(-pictures // int(columns))
        assert rows == -(-pictures // fitting), "no more rows than the width needs"
        assert rows * int(columns) - pictures < rows, "less than one picture per row is missing in the last row"


def test_repeated_predictions_equal_the_evaluated_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMOKE.replace("seeds: 2", "seeds: 1").replace("[fcn32s, fcn8s]", "[fcn32s]")
    path = write_grid(tmp_path, text)
    fcnlab.run_grid(fcnlab.load_grid(path), workers=1, threads=1, executor="serial", quiet=True)
    grid, lab = fcnlab.load_grid(path), Lab.find(path)
    for file in lab.runs.glob("*/samples/*"):  # all images of the small dataset are samples
        file.unlink()
    report = make_report(make_plan(grid, lab), lab, None)

    def interrupt(into: Path, id_: str, *_: object) -> None:
        (into / f"{id_}.prediction.png").write_bytes(b"the first ha")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "save_sample", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gallery.select_gallery(report, lab, predict=True)
    made = gallery.select_gallery(report, lab, predict=True)
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
    made = gallery.select_gallery(report, lab, predict=True)
    assert made is not None
    assert "samples" in made.note and "weights are missing" in made.note
    assert str(tmp_path) not in made.note
    other = gallery.select_gallery(report, lab, predict=False)
    assert other is not None and other.note.endswith("of each trial. Run `fcnlab report` to select from all images")
    samples = {f"scene_{index:03}" for index in range(4)}
    assert {*made.disagreements, *(id_ for pair in made.extremes.values() for id_ in pair)} <= samples


def test_an_error_map_is_clear_where_right_and_hatched_where_nothing_counts(tmp_path: Path) -> None:
    truth, found = np.zeros((4, 16), np.uint8), np.zeros((4, 16), np.uint8)
    truth[0], found[1, 1] = 255, 2
    for name, labels in (("t", truth), ("p", found)):
        Image.fromarray(labels).save(tmp_path / f"{name}.png")
    pixels = _decode(encode_error_map(tmp_path / "p.png", tmp_path / "t.png", 640))
    assert {tuple(color) for color in pixels[0].tolist()} == {ERROR_COLORS[IGNORED], ERROR_COLORS[HATCH]}
    assert tuple(pixels[1, 1].tolist()) == ERROR_COLORS[WRONG]
    assert set(np.delete(pixels[1:, :, 3].ravel(), 1).tolist()) == {0}


def test_labels_have_the_colors_of_their_dataset(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 255]], np.uint8)
    to_palette_image(labels, np.zeros((256, 3), np.uint8)).save(tmp_path / "t.png")
    pixels = _decode(encode_label_map(tmp_path / "t.png", voc_palette(), 640))
    assert pixels[0, :, :3].tolist() == voc_palette()[[0, 1, 255]].tolist()


def test_an_error_names_a_damaged_picture(tmp_path: Path) -> None:
    file = tmp_path / "t.png"
    to_palette_image(np.zeros((64, 64), np.uint8), voc_palette()).save(file)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"t\.png.*remove it"):
        encode_label_map(file, voc_palette(), 640)


def test_pictures_shrink_until_the_page_is_small_enough(file: Path) -> None:
    lab = Lab.find(root=file.parents[2])
    grid = lab.load_grid(lab.root / "experiments" / "question.yaml")
    report = make_report(make_plan(grid, lab), lab, None)
    shown = gallery.select_gallery(report, lab, predict=False)
    for cell in shown.cells:
        for picture in cell.folders[1].glob("*.jpg"):
            noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
            Image.fromarray(noise).save(picture)
    sizes = [len(json.dumps(make_gallery(shown, ("a",), voc_palette(), budget))) for budget in (10**8, 10**6)]
    assert sizes[1] < 10**6 < sizes[0]


def _decode(uri: str) -> np.ndarray:
    """The pixels of a data URI of a PNG, [height, width, 4]."""
    return np.asarray(Image.open(BytesIO(b64decode(uri.removeprefix("data:image/png;base64,")))).convert("RGBA"))
