"""The functions of `import fcnlab` on a finished grid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import fcnlab
from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.report.charts.draw import draw_plots
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.styled import to_styler
from fcnlab.report.tables.table import Table
from fcnlab.runner.plan import make_plan
from tests.builders import epoch_records
from tests.report.finished_grid import CLASSES, IMAGES, THREE, finished_lab


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Three cells with three seeds."""
    return finished_lab(tmp_path_factory.mktemp("lab"))[0]


def test_curves_have_one_row_per_trial_and_epoch(grid: Grid) -> None:
    curves = fcnlab.curves(grid)
    names = "cell head seed key epoch loss lr images_per_s seconds val_miou val_pixel_acc"
    assert list(curves.columns) == names.split() and len(curves) == 3 * 3 * 2
    assert curves["epoch"].tolist() == [1, 2] * 9 and curves["seed"].tolist() == [0, 0, 1, 1, 2, 2] * 3
    assert curves["cell"].tolist() == ["fcn32s"] * 6 + ["fcn16s"] * 6 + ["fcn8s"] * 6
    assert curves["val_miou"].tolist() == [0.1, 0.2] * 9 and curves["val_pixel_acc"].isna().all()
    assert curves.pivot_table(index="epoch", columns="head", values="loss").loc[2].tolist() == [0.5] * 3


def test_curves_contain_running_trials(grid: Grid) -> None:
    lab = Lab.find(grid.path)
    longer = fcnlab.load_grid(
        grid.file.model_dump(include={"question", "base", "product"}) | {"seeds": [2, 3]}, "longer", lab=lab
    )
    running = [planned for planned in make_plan(longer, lab).trials if planned.trial.seed == 3]
    running[0].folder.create()
    running[0].folder.progress.write_text("".join(epoch.model_dump_json() + "\n" for epoch in epoch_records(1)))
    curves = fcnlab.curves(longer)
    assert curves[["cell", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["fcn32s", 2],
        ["fcn32s", 3],
        ["fcn16s", 2],
        ["fcn8s", 2],
    ]
    assert curves[curves["seed"] == 3]["epoch"].tolist() == [1]


def test_compare_returns_the_difference_by_class_and_by_image(grid: Grid) -> None:
    a, b = f"{grid.path}:fcn32s", f"{grid.path}:best"
    found = fcnlab.compare(a, b)
    assert repr(found).startswith(
        "CellComparison(fcn8s scored 12.68 points of mIoU more than fcn32s at the last epoch: 95 % interval +12"
    )
    assert found.difference.value == pytest.approx(0.1268, abs=1e-4) and found.difference.low > 0
    assert list(found.classes["class"]) == list(CLASSES) and (found.classes["low"] < found.classes["delta"]).all()
    assert len(found.images) == IMAGES
    assert found.images["delta"].mean() == pytest.approx((found.images["b"] - found.images["a"]).mean())
    assert all(name in found._repr_html_() for name in CLASSES)


def test_diff_returns_the_fields_in_which_two_trials_differ(grid: Grid) -> None:
    found = fcnlab.diff(f"{grid.path}:fcn32s:0", f"{grid.path}:fcn8s:0").set_index("field")
    assert found.loc["head.stride", ["a", "b", "delta"]].tolist() == [32, 8, -24]
    metrics = found[found["section"] == "metrics"]
    assert len(metrics) and (metrics["delta"] > 0).all()


def test_names_that_do_not_exist_are_errors(grid: Grid) -> None:
    with pytest.raises(ConfigError, match="no cell 'fcn4s'; the closest cells are"):
        fcnlab.compare(f"{grid.path}:fcn4s", f"{grid.path}:best")
    with pytest.raises(RunError, match="0123456789"):
        fcnlab.diff("0123456789", f"{grid.path}:best", lab=Lab.find(grid.path))


@pytest.fixture(scope="module")
def report(grid: Grid) -> Report:
    return fcnlab.report(grid)


def test_a_report_is_described_in_one_line_and_in_a_notebook(report: Report) -> None:
    assert repr(report) == "Report(question: 9 of 9 trials finished, in results/question)"
    page = report._repr_html_()
    assert "Does it run?" in page and "fcn16s" in page and "n = 3" in page and "color" not in page


def test_the_table_of_a_report_is_a_styler_or_a_text(report: Report) -> None:
    styler = report.table(columns=["n", "miou"], sort="-miou")
    shown = styler.to_html()
    assert re.findall(r"<th .*?>(.+?)</th>", shown) == ["head", "n", "mIoU %"]
    assert re.findall(r">(fcn.*?)</td>", shown) == ["fcn8s", "fcn16s", "fcn32s"]
    assert "Does it run?" in shown and shown.count("font-weight: bold") == 1 and "background" not in shown
    assert report.table(format="markdown") == (report.folder / "table.md").read_text(encoding="utf-8")
    assert report.table(columns=["miou"], format="csv").splitlines()[0] == "cell,head,miou,miou_std,baseline"
    assert [row["cell"] for row in json.loads(report.table(format="json"))["cells"]] == ["fcn32s", "fcn16s", "fcn8s"]
    text = report.table(columns=["n"], format="text")
    assert text.split() == ["Does", "it", "run?", "head", "n", "fcn32s", "3", "fcn16s", "3", "fcn8s", "3"]
    assert "<td" in report.table(format="html") and "\\toprule" in report.table(format="latex")
    with pytest.raises(ConfigError, match="the table has no 'mious'; did you mean 'miou'"):
        report.table(columns=["mious"])
    with pytest.raises(ConfigError, match="there is no 'markdwn'; did you mean 'markdown'"):
        report.table(format="markdwn")  # type: ignore[call-overload]


def test_a_styler_has_the_caption_of_the_grid_file(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, f"{THREE}labels: {{caption: 'Skips & more.'}}\n")
    report = make_report(make_plan(grid, lab), lab, None)
    shown = report.table().to_html()
    assert "Skips &amp; more." in shown and "Does it run?" not in shown
    assert r"\caption{Skips \& more.}" in report.table(format="latex")


def test_texts_of_a_styler_are_escaped() -> None:
    table = Table(("<head>", "n"), (("<b>", "1"),), 1)
    shown = to_styler(table, "a < b").to_html()
    assert "&lt;head&gt;" in shown and "&lt;b&gt;" in shown and "a &lt; b" in shown


def test_the_charts_of_a_report_and_of_any_two_columns(report: Report) -> None:
    specs = {plot.name: plot.spec for plot in draw_plots(report)}
    assert set(specs) >= {"differences", "loss"}
    for name, spec in specs.items():
        assert report.plot(name).to_dict()["layer"] == spec["layer"]
    chart = report.plot(x="gmacs", y="head").to_dict()  # validated against the schema
    encoding = chart["layer"][0]["encoding"]
    assert (encoding["x"]["type"], encoding["y"]["type"]) == ("quantitative", "nominal")
    (rows,) = chart["datasets"].values()
    assert [(row["cell"], row["y"]) for row in rows] == [
        ("fcn32s (baseline)", "fcn32s"),
        ("fcn16s", "fcn16s"),
        ("fcn8s", "fcn8s"),
    ]
    assert [row["x"] for row in rows] == pytest.approx(report.cells["gmacs"].tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "curvs"}, "pass the name of a chart, or x and y; did you mean 'curves'"),
        ({"x": "gmacs"}, "pass the name of a chart, or x and y; valid: "),
        ({"x": "gmac", "y": "miou"}, "x: report.cells has no column 'gmac'; did you mean 'gmacs'"),
    ],
)
def test_a_chart_that_does_not_exist_is_an_error(report: Report, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        report.plot(**arguments)
