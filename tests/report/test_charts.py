"""Charts: valid specifications, one color per cell in all of them, files that regenerate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import vl_convert
from PIL import Image

from fcnlab.lab import Lab
from fcnlab.report.charts.cells import MAX_ROWS, draw_seeds, pareto_front
from fcnlab.report.charts.classes import MAX_SQUARES
from fcnlab.report.charts.draw import NAMES, draw_plots
from fcnlab.report.charts.plot import Plot
from fcnlab.report.charts.style import COLORS, LONGEST, CellStyles, shorten_all
from fcnlab.report.report import Report, make_report
from fcnlab.report.significance import Significance
from fcnlab.report.write import write_report
from fcnlab.runner.plan import make_plan
from tests.report.finished_grid import THREE, finished_lab


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Lab]:
    grid, lab = finished_lab(tmp_path_factory.mktemp("lab"))
    return make_report(make_plan(grid, lab), lab, None), lab


@pytest.fixture(scope="module")
def plots(made: tuple[Report, Lab]) -> dict[str, Plot]:
    return {plot.name: plot for plot in draw_plots(made[0])}


def test_charts_are_valid_vega_lite_with_the_axes_as_the_title_of_legends(plots: dict[str, Plot]) -> None:
    assert list(plots) == ["seeds", "differences", "cost", "curves", "loss", "classes"]
    for plot in plots.values():
        assert plot.chart.to_dict(validate=True) == plot.spec
    for name in ("cost", "curves", "loss"):
        titles = {legend["title"] for legend in _find(plots[name].spec, "legend") if legend and "title" in legend}
        assert titles == {"head"}


def test_a_cell_has_one_color_in_all_charts(plots: dict[str, Plot]) -> None:
    scales = [
        dict(zip(scale["domain"], scale["range"], strict=True))
        for plot in plots.values()
        for scale in _find(plot.spec, "scale")
        if scale and str(scale.get("range", [""])[0]).startswith("#") and isinstance(scale["domain"][0], str)
    ]
    assert len(scales) >= 5
    assert all(scale == scales[0] for scale in scales)
    assert list(scales[0]) == ["fcn32s (baseline)", "fcn16s", "fcn8s"]
    assert len(set(scales[0].values())) == 3
    with Image.open(BytesIO(plots["differences"].to_png())) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for color in list(scales[0].values())[1:]:
        assert np.abs(pixels - list(bytes.fromhex(color[1:]))).max(1).min() <= 4, "also in the palette of a PNG"


def test_tooltips_have_the_values_of_the_table(plots: dict[str, Plot], made: tuple[Report, Lab]) -> None:
    (row,) = (row for row in _rows(plots["differences"].spec) if row.get("cell") == "fcn8s")
    one = made[0].significance.comparisons["fcn8s"].difference
    assert row["value"] == pytest.approx(100 * one.value, abs=1e-3)
    assert row["interval"] == f"{100 * one.low:+.2f} to {100 * one.high:+.2f}"
    assert row["seeds"] == 3 and row["clear"]
    seeds = [row for row in _rows(plots["seeds"].spec) if row.get("cell") == "fcn8s" and "seed" in row]
    assert [row["seed"] for row in seeds] == [0, 1, 2]


def test_a_large_grid_shows_the_best_cells_with_a_note(made: tuple[Report, Lab]) -> None:
    report, _ = made
    one = report.significance.comparisons["fcn8s"]
    many = pd.concat([report.cells.iloc[[0]], *[report.cells.iloc[[2]]] * 60], ignore_index=True)
    many["cell"] = ["fcn32s", *(f"cell {place}" for place in range(60))]
    significance = Significance(dict.fromkeys(many["cell"][1:], one), {}, 0)
    labels = tuple(many["cell"])
    group = replace(report.groups[0], cells=labels, same=frozenset(labels))
    large = replace(report, cells=many, significance=significance, groups=(group,))
    plots = {plot.name: plot for plot in draw_plots(large)}
    assert f"Only the {MAX_ROWS} cells" in plots["differences"].caption
    assert f"Only the {MAX_SQUARES[0]} cells" in plots["classes"].caption
    squares = MAX_SQUARES[0] * len(report.classes)
    assert sum("bold" in row for row in _rows(plots["classes"].spec)) == squares
    assert len(plots["classes"].to_svg()) < 200_000
    entries = {row["entry"] for row in _rows(plots["cost"].spec) if "entry" in row}
    assert f"other cells ({60 - len(COLORS)})" in entries and len(entries) == len(COLORS) + 2


def test_a_single_cell_without_a_color_of_its_own_has_its_name_in_the_legend(made: tuple[Report, Lab]) -> None:
    report, _ = made
    cells = pd.concat([report.cells.iloc[[0]], *[report.cells.iloc[[2]]] * (len(COLORS) + 1)], ignore_index=True)
    cells["cell"] = ["fcn32s", *(f"cell {place}" for place in range(len(COLORS) + 1))]
    cells["miou"] = [0.5, *(0.9 - place / 100 for place in range(len(COLORS) + 1))]
    styles = CellStyles.create(cells, "head", "fcn32s")
    assert styles.legend == ("fcn32s (baseline)", *cells["cell"][1:])
    found = [styles.find_color(label) for label in cells["cell"]]
    assert len(set(found)) == len(cells) and found[1:-1] == list(COLORS)


def test_one_seed_has_no_standard_deviation_in_charts(made: tuple[Report, Lab]) -> None:
    plots = {plot.name: plot for plot in draw_plots(replace(made[0], cells=made[0].cells.assign(miou_std=math.nan)))}
    assert not any("low" in str(encoding) for encoding in _find(plots["cost"].spec, "encoding"))
    assert {row["text"] for row in _rows(plots["cost"].spec) if "text" in row} == {"53.4 %", "53.6 %", "66.1 %"}


def test_differences_by_class_are_bold_only_with_enough_seeds_for_a_claim(
    plots: dict[str, Plot], tmp_path: Path
) -> None:
    def bold(chart: Plot) -> set[str]:
        return {row["cell"] for row in _rows(chart.spec) if row["bold"]}

    assert "fcn8s" in bold(plots["classes"]) and "common seeds" not in plots["classes"].caption
    grid, lab = finished_lab(tmp_path, unfinished=lambda head, seed: head == "fcn8s" and seed > 0)
    some = next(plot for plot in draw_plots(make_report(make_plan(grid, lab), lab, None)) if plot.name == "classes")
    assert "fcn8s" not in bold(some) and "zero, for cells with 3 or more common seeds (not" in some.caption
    grid, lab = finished_lab(tmp_path / "two", THREE.replace("seeds: 3", "seeds: 2"))
    two = next(plot for plot in draw_plots(make_report(make_plan(grid, lab), lab, None)) if plot.name == "classes")
    assert not bold(two) and "in points; no claim is made with fewer than 3 common seeds." in two.caption


def test_names_of_every_script_are_texts_in_charts(made: tuple[Report, Lab]) -> None:
    report = made[0]
    name = "快速 <b>&\"'$x$ größer"
    cells = report.cells.assign(cell=["fcn32s", "fcn16s", name])
    trials = report.trials.assign(cell=report.trials["cell"].replace("fcn8s", name))
    seeds = draw_plots(replace(report, cells=cells, trials=trials))[0]
    texts = [element.text for element in ElementTree.fromstring(seeds.to_svg()).iter() if element.text]
    assert name in texts
    assert seeds.to_png().startswith(b"\x89PNG")


def test_long_names_with_one_beginning_have_rows_and_entries_of_their_own(made: tuple[Report, Lab]) -> None:
    report = made[0]
    start = "timm:a_backbone_with_a_very_long_name.of_timm, {name: sgd, lr: 0.01, momentum: 0.9}, "
    names = {"fcn32s": f"{start}bilinear", "fcn16s": f"{start}random", "fcn8s": f"{start}random, 0.1"}
    cells, trials = (frame.assign(cell=frame["cell"].map(names)) for frame in (report.cells, report.trials))
    styles = CellStyles.create(cells, "head", names["fcn32s"])
    rows = _rows(draw_seeds(cells, trials, styles).spec)
    assert [len({row[field] for row in rows if field in row}) for field in ("cell", "entry")] == [3, 3]
    assert all(len(row["cell"]) <= LONGEST for row in rows if "cell" in row)
    middle = [f"{start}{number}{' and the same end' * 4}" for number in range(30)]
    assert len(set(shorten_all([*middle, "a"]))) == 31 and shorten_all(["a", "b" * LONGEST]) == ["a", "b" * LONGEST]


def test_the_axis_of_epochs_has_a_tick_per_epoch_at_most(plots: dict[str, Plot]) -> None:
    texts = [element.text for element in ElementTree.fromstring(plots["curves"].to_svg()).iter()]
    assert (texts.count("1"), texts.count("2")) == (1, 1), "two epochs have no tick between them"


def test_files_of_an_earlier_report_are_reused_for_the_same_chart_only(
    made: tuple[Report, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = made[0]
    first = draw_plots(report)[0]
    svg, png = first.to_svg(), first.to_png()
    (tmp_path / "seeds.svg").write_bytes(svg)
    (tmp_path / "seeds.png").write_bytes(png)
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: pytest.fail("it is rendered again"))
    again = draw_plots(report)[0].reuse_files(tmp_path)
    assert (again.to_svg(), again.to_png()) == (svg, png)
    assert draw_plots(replace(report, cells=report.cells.assign(miou=0.5)))[0].reuse_files(tmp_path).rendered is None
    (tmp_path / "seeds.png").write_bytes(b"")
    assert first.reuse_files(tmp_path).rendered is None


def test_a_pdf_has_vectors_and_is_reused_for_the_same_chart_only(made: tuple[Report, Lab], tmp_path: Path) -> None:
    plot = draw_plots(made[0])[0]
    pdf = plot.to_pdf()
    assert pdf.startswith(b"%PDF-") and b"/Font" in pdf and b"/Subtype /Image" not in pdf
    for kind, content in (("svg", plot.to_svg()), ("png", plot.to_png()), ("pdf", pdf)):
        (tmp_path / f"seeds.{kind}").write_bytes(content)
    assert plot.reuse_files(tmp_path).to_pdf() == pdf
    (tmp_path / "seeds.pdf").write_bytes(pdf.replace(b"sha256:", b"sha256:0"))
    again = plot.reuse_files(tmp_path)
    assert again.rendered is not None and again.rendered.pdf is None and again.to_pdf().startswith(b"%PDF-")


def test_pdf_files_are_written_on_request_and_renewed_by_later_reports(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    report = make_report(make_plan(grid, lab), lab, None)
    folder = report.folder / "plots"
    write_report(report, lab, predict=False)
    assert [*folder.glob("*.pdf")] == []
    write_report(report, lab, predict=False, pdf=True)
    assert {file.stem for file in folder.glob("*.pdf")} == {file.stem for file in folder.glob("*.svg")}
    before = (folder / "loss.pdf").read_bytes(), (folder / "seeds.pdf").read_bytes()
    changed = replace(report, cells=report.cells.assign(miou=report.cells["miou"] / 2))
    write_report(changed, lab, predict=False)
    assert (folder / "loss.pdf").read_bytes() == before[0], "the same chart"
    assert (folder / "seeds.pdf").read_bytes() != before[1]


@pytest.mark.parametrize(
    ("costs", "title"),
    [
        ({"gmacs": (3.80, 3.83, 3.99), "params": 1e6, "train_seconds": (10.0, 10.0, 12.0)}, None),
        ({"gmacs": (3.80, 3.83, 4.01), "params": 1e6, "train_seconds": 10.0}, "GMACs of one image"),
        ({"gmacs": (3.80, 3.83, 4.01), "params": (1e6, 2e6, 2e6), "train_seconds": 10.0}, "parameters (M)"),
        (
            {"gmacs": 3.8, "params": (1e6, 1e6, 1.01e6), "train_seconds": (10.0, 10.0, 30.0)},
            "training time of a trial (s)",
        ),
        ({"gmacs": float("nan"), "params": float("nan"), "train_seconds": float("nan")}, None),
    ],
)
def test_costs_that_hardly_differ_have_no_chart(
    made: tuple[Report, Lab], costs: dict[str, Any], title: str | None
) -> None:
    report = made[0]
    found = [plot for plot in draw_plots(replace(report, cells=report.cells.assign(**costs))) if plot.name == "cost"]
    assert bool(found) == (title is not None)
    assert title is None or title in {axis["title"] for axis in _find(found[0].spec, "x") if "title" in axis}


def test_the_names_of_charts_are_complete(plots: dict[str, Plot]) -> None:
    assert tuple(plots) == NAMES


def test_files_of_charts_that_a_report_no_longer_has_are_removed(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    report = make_report(make_plan(grid, lab), lab, None)
    folder = report.folder / "plots"
    write_report(report, lab, predict=False, pdf=True)
    (folder / "mine.png").write_bytes(b"")
    write_report(replace(report, cells=report.cells.assign(gmacs=1.0)), lab, predict=False)
    assert {file.stem for file in folder.iterdir()} == {*NAMES, "mine"} - {"cost"}


def test_the_pareto_front_has_the_cells_that_no_cheaper_cell_beats() -> None:
    random = np.random.default_rng(0)
    cost, value = random.integers(0, 8, 40).astype(float), random.integers(0, 8, 40).astype(float)
    beaten = {
        i
        for i in range(40)
        if any(
            cost[j] <= cost[i] and value[j] >= value[i] and (cost[j], value[j]) != (cost[i], value[i])
            for j in range(40)
        )
    }
    points = {(cost[i], value[i]) for i in range(40) if i not in beaten}
    assert {(cost[i], value[i]) for i in pareto_front(list(cost), list(value))} == points


def _find(value: Any, key: str) -> list[Any]:
    """All values of a key in nested values."""
    if isinstance(value, dict):
        return [
            *([value[key]] if key in value else []),
            *(one for inner in value.values() for one in _find(inner, key)),
        ]
    return [one for inner in value for one in _find(inner, key)] if isinstance(value, list) else []


def _rows(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The distinct rows of data of a chart."""
    rows = [row for values in _find(spec, "values") for row in values if isinstance(row, dict)]
    rows += [row for data in spec.get("datasets", {}).values() for row in data]
    return [json.loads(text) for text in dict.fromkeys(json.dumps(row, sort_keys=True) for row in rows)]
