"""Reports of grids over several datasets: each cell is compared with the baseline of its dataset only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fcnlab.report.charts.draw import draw_plots
from fcnlab.report.charts.plot import Plot
from fcnlab.report.footnotes.data import describe_other_images
from fcnlab.report.html.key_results import make_key_results
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.paper import report_to_latex
from fcnlab.report.write import find_best_cell
from fcnlab.runner.plan import make_plan
from tests.report.finished_grid import CLASSES, THREE, counted, finish, finished_lab

DATASETS = THREE.replace(" dataset: shapes-mini,", "").replace(
    "product: {head", "product: {dataset: [shapes-mini, shapes], head"
)
BASELINE = "baseline: {head: fcn32s, dataset: shapes-mini}"
LABELS = "labels: {values: {dataset: {shapes: Shapes}}}\n"


def make_two(root: Path, text: str = DATASETS, *, other_images: bool = True) -> Report:
    """A report of two datasets; fcn8s is the best on the first, fcn16s on the second, where metrics are lower."""
    grid, lab = finished_lab(root, text.replace("baseline: {head: fcn32s}", BASELINE))
    for planned in make_plan(grid, lab).trials:
        if planned.trial.names["dataset"] == "shapes":
            right = {"fcn32s": 0.40, "fcn16s": 0.50, "fcn8s": 0.401}[planned.trial.names["head"]]
            if other_images:
                finish(planned, right, counted(right, planned.trial.seed)[:, :2], "street", classes=CLASSES[:2])
            else:
                finish(planned, right)
    return make_report(make_plan(grid, lab), lab, None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_two(tmp_path_factory.mktemp("lab"), DATASETS + LABELS)


def rows_by_axes(report: Report) -> dict[tuple[str, str], pd.Series[Any]]:
    return {(row["dataset"], row["head"]): row for _, row in report.cells.iterrows()}


def list_baselines(report: Report) -> list[tuple[str, str]]:
    return [axes for axes, row in rows_by_axes(report).items() if row["baseline"]]


def data_rows(plot: Plot) -> list[dict[str, Any]]:
    return [row for rows in plot.spec["datasets"].values() for row in rows]


def test_differences_are_to_the_baseline_of_the_same_dataset(report: Report) -> None:
    cells = rows_by_axes(report)
    assert list_baselines(report) == [("shapes-mini", "fcn32s"), ("shapes", "fcn32s")]
    for dataset in ("shapes-mini", "shapes"):
        gap = cells[dataset, "fcn16s"]["miou"] - cells[dataset, "fcn32s"]["miou"]
        assert cells[dataset, "fcn16s"]["delta"] == pytest.approx(gap)
    assert cells["shapes", "fcn16s"]["delta_low"] > 0
    deltas = [texts[4] for texts in report.cell_table.rows]
    assert [text == "baseline" for text in deltas] == [True, False, False, True, False, False]
    assert report.significance.num_claims == 4, "Holm's correction is over the grid"
    assert report.significance.flags == {}


def test_the_best_cells_are_those_of_each_dataset(report: Report) -> None:
    assert {report.cell_table.rows[row][:2] for row, _ in report.cell_table.marks} == {
        ("shapes-mini", "fcn8s"),
        ("Shapes", "fcn16s"),
    }
    assert [(one.name, one.note.split(":")[0]) for one in make_key_results(report)[:2]] == [
        ("Best cell, shapes-mini", "shapes-mini, fcn8s"),
        ("Best cell, Shapes", "Shapes, fcn16s"),
    ]
    best = find_best_cell(report)
    assert best is not None and best.label == "shapes-mini, fcn8s"


def test_texts_name_the_datasets_and_their_baselines(report: Report) -> None:
    summary, footnotes, latex = " ".join(report.summary_text), " ".join(report.footnotes), report_to_latex(report)
    assert "The highest mean mIoU on shapes-mini is “shapes-mini, fcn8s”" in summary
    assert "The highest mean mIoU on Shapes is “Shapes, fcn16s”" in summary
    assert "“Shapes, fcn16s” reaches" in summary and "more than “Shapes, fcn32s”" in summary
    assert "has the highest mIoU in all 3 seeds on Shapes. For two random seeds" in summary
    assert "Δ is the difference to the baseline of the dataset in points" in footnotes
    assert "Baselines: “shapes-mini, fcn32s” on shapes-mini; “Shapes, fcn32s” on Shapes." in footnotes
    assert "Bold: the highest mean mIoU of each dataset" in footnotes and "within each dataset" in footnotes
    assert "difference in mIoU to the baseline of the dataset in points" in latex
    assert "highest mean of each dataset" in latex
    assert "evaluated on other images" not in footnotes


def test_charts_have_a_pareto_front_per_dataset_and_the_classes_of_one(report: Report) -> None:
    plots = {plot.name: plot for plot in draw_plots(report)}
    assert {row["front"] for row in data_rows(plots["cost"]) if "front" in row} == {0, 1}
    assert sum(row.keys() == {"miou"} for row in data_rows(plots["seeds"])) == 2, "a line per baseline"
    classes = json.dumps(plots["classes"].spec)
    assert "shapes-mini, fcn16s" in classes and "Shapes, fcn16s" not in classes
    without = "Classes and images are shown without 3 cells (“Shapes, fcn32s”; “Shapes, fcn16s”; “Shapes, fcn8s”)"
    assert describe_other_images(report).startswith(without)


def test_charts_of_two_columns_have_the_display_names_of_the_values(report: Report) -> None:
    chart = report.plot(x="dataset", y="miou").to_dict()
    (rows,) = chart["datasets"].values()
    assert {row["x"] for row in rows} == {"shapes-mini", "Shapes"}


def test_datasets_that_are_evaluated_on_the_same_images_have_one_baseline(tmp_path: Path) -> None:
    report = make_two(tmp_path, other_images=False)
    (group,) = report.groups
    assert group.name == "shapes-mini and shapes" and len(group.cells) == 6
    assert list(report.cells["baseline"]) == [True, *[False] * 5]
    assert report.cells["delta_low"].notna().sum() == 5, "also of the cells of the other dataset"


def test_the_baseline_of_another_dataset_has_the_most_values_in_common(tmp_path: Path) -> None:
    recipes = "zip: {dataset: [shapes-mini, shapes], recipe.ema: [null, 0.9]}\nproduct: {head: [fcn8s, fcn32s]}"
    text = THREE.replace(" dataset: shapes-mini,", "").replace("product: {head: [fcn32s, fcn16s, fcn8s]}", recipes)
    report = make_two(tmp_path, text)
    assert list_baselines(report) == [("shapes-mini", "fcn32s"), ("shapes", "fcn32s")]


def test_a_dataset_without_a_finished_baseline_has_no_differences(tmp_path: Path) -> None:
    text = (DATASETS + LABELS).replace("baseline: {head: fcn32s}", BASELINE)
    grid, lab = finished_lab(tmp_path, text)
    for planned in make_plan(grid, lab).trials:
        if planned.trial.names["dataset"] == "shapes":
            if planned.trial.names["head"] == "fcn32s":
                planned.folder.record.unlink()
            else:
                finish(planned, 0.5, counted(0.5, planned.trial.seed)[:, :2], classes=CLASSES[:2])
    report = make_report(make_plan(grid, lab), lab, None)
    cells = rows_by_axes(report)
    assert math.isnan(cells["shapes", "fcn8s"]["delta"]) and not math.isnan(cells["shapes-mini", "fcn8s"]["delta"])
    assert "No trial of the baseline “Shapes, fcn32s” has finished, so no cell is compared" in " ".join(
        report.summary_text
    )
    note = "2 cells (“Shapes, fcn16s”; “Shapes, fcn8s”): no Δ without a finished seed in common with “Shapes, fcn32s”."
    assert note in report.footnotes
    assert report.groups[1].reference == "shapes, fcn16s"
