"""Columns of further metrics and of single classes in the table of cells."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from fcnlab.cli.report import split_columns
from fcnlab.config.grid.labels import COLUMNS as LABELED_COLUMNS
from fcnlab.constants import CheckpointChoice
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.report.frame import cells_frame, trials_frame
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.columns import COLUMNS
from fcnlab.report.tables.paper import report_to_latex
from fcnlab.report.tables.requested_columns import add_requested_columns
from fcnlab.report.tables.styled import to_styler
from fcnlab.report.tables.table import Table
from fcnlab.report.write import write_report
from fcnlab.runner.plan import make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.evaluation.metrics import compute_split_metrics
from tests.conftest import write_grid
from tests.report.finished_grid import (
    CLASSES,
    IMAGES,
    RIGHT,
    THREE,
    counted,
    finish,
    finished_lab,
    make_report_of_repeated_class,
)
from tests.report.test_cross_validation import GRID
from tests.report.test_cross_validation import make_lab as make_lab_of_folds
from tests.report.test_datasets import make_two

METRICS = ("mean_acc", "fw_iou", "boundary_iou", "dice")
HEADINGS = ("mean acc. %", "f.w. IoU %", "boundary IoU %", "Dice %")
CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip


def make_lab(root: Path, text: str = THREE) -> tuple[Report, Lab]:
    """Finish all trials, with other metrics at the best epoch than at the last, and with boundaries."""
    grid, lab = finished_lab(root, text)
    for planned in make_plan(grid, lab).trials:
        record = planned.record
        assert record is not None
        right, seed = RIGHT[planned.trial.names["head"]], planned.trial.seed
        arrays = dict(np.load(planned.folder.counts))
        scores = []
        for epoch, (checkpoint, better) in enumerate((("last", 0.0), ("best", 0.1)), start=1):
            counts, boundary = counted(right + better, seed), counted(right + better - 0.3, seed)
            counts[..., 1] += 50  # wrong pixels that are predicted as each class
            arrays |= {f"test_{checkpoint}": counts, f"test_{checkpoint}_boundary": boundary}
            scores.append(compute_split_metrics("test", cast("CheckpointChoice", checkpoint), epoch, counts, boundary))
        np.savez_compressed(planned.folder.counts, **arrays)
        planned.folder.finish(record.model_copy(update={"metrics": tuple(scores)}))
    return make_report(make_plan(grid, lab), lab, None), lab


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Lab]:
    return make_lab(tmp_path_factory.mktemp("lab"))


def class_iou(report: Report, cell: str, name: str, checkpoint: str = "last") -> list[float]:
    """Return the IoU of a class for each seed, from the records."""
    found = []
    for record in report.records.by_cell[cell].values():
        metrics = record.find_metrics("test", checkpoint)
        assert metrics is not None
        iou = metrics.class_iou[record.classes.index(name)]
        assert iou is not None
        found.append(iou)
    return found


def percent(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def make_table(report: Report, *names: str, sort: str = "", pivot: tuple[str, str] | None = None) -> Table:
    shown, view = add_requested_columns(report, View(names, sort, pivot=pivot))
    return view.make_table(shown.cells, shown.names)


def list_rows(report: Report, *names: str) -> list[dict[str, str]]:
    return list(csv.DictReader(report.table(columns=names, format="csv").splitlines()))


def test_metrics_of_a_split_are_columns_of_the_table(made: tuple[Report, Lab]) -> None:
    report, _ = made
    table = make_table(report, *METRICS)
    assert table.headings == ("head", *HEADINGS)
    records = report.records.by_cell["fcn16s"].values()
    for name, text in zip(METRICS, table.rows[1][1:], strict=True):
        assert text == percent([getattr(record.metrics[0], name) for record in records])
    assert not set(METRICS) & set(report.cell_table.columns), "the default columns are the same as before"


def test_dice_is_the_mean_over_classes_before_the_mean_over_seeds(made: tuple[Report, Lab]) -> None:
    report, _ = made
    by_class = [[2 * iou / (1 + iou) for iou in class_iou(report, "fcn8s", name)] for name in CLASSES]
    by_seed = [statistics.mean(values) for values in zip(*by_class, strict=True)]
    found = report.cells.set_index("cell").loc["fcn8s"]
    assert found["dice"] == pytest.approx(statistics.mean(by_seed))
    assert found["dice_std"] == pytest.approx(statistics.stdev(by_seed))


def test_metrics_are_those_of_the_checkpoint_of_the_grid(made: tuple[Report, Lab], tmp_path: Path) -> None:
    last, best = made[0], make_lab(tmp_path, f"{THREE}checkpoint: best\n")[0]
    for name in METRICS:
        assert list(best.trials[name]) == list(best.trials[f"test_{name}_best"])
        assert list(last.trials[name]) == list(last.trials[f"test_{name}"])
        assert (best.cells[name] > last.cells[name] + 0.05).all()
    assert make_table(best, "iou:disc").rows[2][1] == percent(class_iou(best, "fcn8s", "disc", "best"))


class OlderTracker:
    """A tracker whose runs were published before a metric was."""

    def __init__(self, tracker: MlflowTracker, name: str) -> None:
        self.tracker, self.name = tracker, name

    def list_trials(self) -> list[dict[str, Any]]:
        """List the runs without the metric."""
        runs: list[Mapping[str, Any]] = list(self.tracker.list_trials())
        assert all(f"test/{self.name}" in run["metrics"] for run in runs)
        return [
            {**run, "metrics": {name: value for name, value in run["metrics"].items() if self.name not in name}}
            for run in runs
        ]


def test_columns_of_trials_that_only_mlflow_has_are_the_same(made: tuple[Report, Lab], tmp_path: Path) -> None:
    from fcnlab.runner.progress.base import ProgressReporter
    from fcnlab.runner.run import sync_grid

    here, lab = made
    assert sync_grid(here.grid, lab, ProgressReporter()).deferred == {}
    away = Lab.find(root=tmp_path, tracking_uri=lab.tracking_uri)
    tracker, plan = open_tracker(here.grid, away), make_plan(here.grid, away)
    there = make_report(plan, away, tracker)
    names = ["miou", *METRICS, "iou:*", "dice:disc", "image_dice", "image_iou:*"]
    assert list_rows(there, *names) == list_rows(here, *names)
    shared = [*METRICS, *(f"test_{name}{suffix}" for name in METRICS for suffix in ("", "_best"))]
    pd.testing.assert_frame_equal(there.trials[shared], here.trials[shared])

    older = trials_frame(plan, cast("MlflowTracker", OlderTracker(tracker, "dice")))
    assert older["dice"].isna().all() and not older[["mean_acc", "boundary_iou"]].isna().any(axis=None)
    cells = cells_frame(older, here.grid.axes, dict.fromkeys(here.cells["cell"], "fcn32s"))
    assert cells["dice"].isna().all()
    assert list(cells["boundary_iou"]) == list(here.cells["boundary_iou"])


def test_class_columns_are_means_over_the_seeds(made: tuple[Report, Lab]) -> None:
    report, _ = made
    table = make_table(report, "miou", "iou:disc", "dice:box")
    assert table.headings == ("head", "mIoU %", "disc", "Dice box")
    assert table.rows[0][2] == percent(class_iou(report, "fcn32s", "disc"))
    assert table.rows[0][3] == percent([2 * iou / (1 + iou) for iou in class_iou(report, "fcn32s", "box")])
    row = list_rows(report, "iou:disc", "dice:box")[2]
    assert list(row) == ["cell", "head", "iou:disc", "iou_std:disc", "dice:box", "dice_std:box", "baseline"]
    assert float(row["iou:disc"]) == pytest.approx(statistics.mean(class_iou(report, "fcn8s", "disc")))
    assert float(row["iou_std:disc"]) == pytest.approx(statistics.stdev(class_iou(report, "fcn8s", "disc")))
    assert not any(":" in name for name in report.cells), "the frame has class columns only on request"


def test_all_classes_are_selected_in_the_order_of_their_labels(made: tuple[Report, Lab]) -> None:
    report, _ = made
    assert make_table(report, "iou:*", "miou").headings == ("head", *CLASSES, "mIoU %")
    assert make_table(report, "iou:box", "iou:*").headings == ("head", "box", "background", "disc")
    assert make_table(report, "dice:*").headings == ("head", *(f"Dice {name}" for name in CLASSES))
    mean = [float(row["miou"]) for row in list_rows(report, "miou")]
    for row, miou in zip(list_rows(report, "iou:*"), mean, strict=True):
        assert statistics.mean(float(row[f"iou:{name}"]) for name in CLASSES) == pytest.approx(miou)


def test_class_columns_sort_and_pivot(made: tuple[Report, Lab]) -> None:
    report, _ = made
    by_iou = sorted(report.records.by_cell, key=lambda cell: -statistics.mean(class_iou(report, cell, "disc")))
    assert [row[0] for row in make_table(report, "miou", sort="-iou:disc").rows] == by_iou
    assert [row[0] for row in make_table(report, "iou:disc", sort="iou:disc").rows] == by_iou[::-1]


def test_a_pivoted_table_has_the_cells_of_one_column(tmp_path: Path) -> None:
    report = make_two(tmp_path)
    table = make_table(report, "iou:disc", pivot=("head", "dataset"))
    assert table.headings == ("head", "dataset shapes-mini, disc", "dataset shapes, disc")
    assert all(" ± " in text for row in table.rows for text in row[1:])
    with pytest.raises(ConfigError, match="--pivot: shows one column, not iou:background, iou:disc, iou:box; name one"):
        make_table(report, "iou:*", pivot=("head", "dataset"))


def test_columns_of_classes_have_a_note_with_metric_and_unit(made: tuple[Report, Lab], tmp_path: Path) -> None:
    report, _ = made
    for columns, note in (
        (["miou", "iou:*"], "Columns of classes: IoU in %."),
        (["dice:disc", "iou:disc"], "Columns of classes: IoU and Dice in %."),
    ):
        assert note in report.write_footnotes(columns)
        printed = report.table(columns=columns, format="latex").partition(r"\begin{table")[2]
        assert note.replace("%", r"\%") in printed
    assert not any("Columns of classes" in note for note in report.footnotes)
    two = make_two(tmp_path)
    latex = two.table(columns=["iou:disc"], pivot=("head", "dataset"), format="latex").partition(r"\begin{table")[2]
    assert r"Values: IoU of the class disc in \%." in latex
    table = make_table(two, "dice:disc", pivot=("head", "dataset"))
    assert "Values: Dice of the class disc in %." in two.write_footnotes_of(table)


def test_footnotes_of_a_pivoted_table_are_on_its_markers_and_not_on_differences(tmp_path: Path) -> None:
    report = make_two(tmp_path)
    of_class = make_table(report, "iou:disc", pivot=("head", "dataset"))
    of_miou = make_table(report, pivot=("head", "dataset"))
    plain = replace(of_miou, rows=tuple(tuple(text.rstrip("*°") for text in row) for row in of_miou.rows))
    for table, marked in ((of_class, False), (plain, False), (of_miou, True)):
        footnotes = report.write_footnotes_of(table)
        assert any("*" in text for row in table.rows for text in row) == marked
        assert not any("Δ" in note or "interval" in note for note in footnotes)
        assert any(note.startswith("*: the difference in mIoU to the baseline") for note in footnotes) == marked
    latex = report.table(pivot=("head", "dataset"), format="latex")
    assert r"\Delta" not in latex and "$^{*}$~difference to the baseline of the dataset significant at 5" in latex


AXES = """
question: Which learning rate?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke}
product: {head: [fcn32s, fcn8s], recipe.lr: [0.1, 0.01]}
seeds: 1
labels: {axes: {head: Head}}
"""


def test_axes_and_columns_are_selected_by_short_and_display_names(tmp_path: Path) -> None:
    report = finished_lab(tmp_path, AXES)
    made = make_report(make_plan(*report), report[1], None)
    for rate in ("recipe.optimizer.lr", "recipe.lr", "lr"):
        table = made.table(columns=["mIoU"], sort=f"-{rate}", group_by="Head", format="csv")
        assert [line.split(",")[:3] for line in table.splitlines()] == [
            ["cell", "head", "recipe.optimizer.lr"],
            ['"fcn32s', ' 0.1"', "fcn32s"],
            ['"fcn32s', ' 0.01"', "fcn32s"],
            ['"fcn8s', ' 0.1"', "fcn8s"],
            ['"fcn8s', ' 0.01"', "fcn8s"],
        ]
        pivoted = made.table(pivot=("Head", rate), format="markdown")
        assert pivoted.splitlines()[0] == "| Head | lr 0.1, mIoU % | lr 0.01, mIoU % |"
    assert made.cell_table.headings[:2] == ("Head", "lr"), "in all formats"
    assert made.table(columns=["acc. %", "IoU:disc"], sort="-mIoU") is not None
    with pytest.raises(ConfigError, match=r"--pivot: the table has no 'recipe\.epochs'"):
        made.table(pivot=("head", "recipe.epochs"))


NAMED = f"""{THREE}
labels:
  classes: {{disc: Scheibe, box: Kiste}}
  columns: {{miou: "mean IoU [%]", pixel_acc: PA %, gmacs: GMAC, delta: Gain}}
"""


def test_classes_and_columns_have_the_names_of_the_grid_file_in_all_formats(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, NAMED)
    report = make_report(make_plan(grid, lab), lab, None)
    headings = ("head", "n", "mean IoU [%]", "Gain", "PA %", "params M", "GMAC")
    assert report.cell_table.headings[:7] == headings
    assert "mIoU and pixel accuracy (PA) from the summed counts" in report.footnotes[0]
    table = make_table(report, "miou", "iou:*", "dice:disc")
    assert table.headings == ("head", "mean IoU [%]", "background", "Scheibe", "Kiste", "Dice Scheibe")
    for columns in (["iou:Scheibe", "mean IoU [%]"], ["iou:disc", "miou"]):
        assert report.table(columns=columns, sort="iou:Scheibe", format="csv").splitlines()[0] == (
            "cell,head,iou:disc,iou_std:disc,miou,miou_std,baseline"
        )
    for text_format in ("text", "markdown", "html", "latex"):
        text = report.table(columns=["miou", "iou:disc", "pixel_acc"], format=text_format)
        assert "Scheibe" in text and "disc" not in text and "PA" in text and "mean IoU" in text
    assert "Gain" in report.table(format="latex")
    write_report(report, lab, predict=False)
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("Scheibe") >= 3, "in the table of classes, the chart and the legend of the gallery"
    assert not re.search(r"\bdisc\b", page)
    plain = make_plan(lab.load_grid(write_grid(lab.root, THREE, "plain")), lab)
    assert [one.trial.key for one in plain.trials] == [one.trial.key for one in report.plan.trials]


def test_a_label_of_a_class_that_a_dataset_of_folders_does_not_have_is_an_error(tmp_path: Path) -> None:
    _, lab = make_lab_of_folds(tmp_path, lambda _head, _seed: False)
    path = write_grid(tmp_path, f"{GRID}labels: {{classes: {{dics: Scheibe}}}}\n", "labeled")
    with pytest.raises(ConfigError, match="no dataset of this grid has the class dics; did you mean 'disc'"):
        lab.load_grid(path)


def test_a_class_without_pixels_has_its_display_name_in_footnotes(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, NAMED)
    for planned in make_plan(grid, lab).trials:
        counts = counted(0.7, planned.trial.seed)
        counts[:, 2] = 0
        finish(planned, 0.7, counts)
    footnotes = make_report(make_plan(grid, lab), lab, None).footnotes
    assert "mIoU is the mean over 2 of 3 classes: Kiste has no pixel in test." in footnotes


def test_the_grid_file_knows_all_columns() -> None:
    assert tuple(COLUMNS) == LABELED_COLUMNS


def test_cells_with_other_classes_have_no_value(tmp_path: Path) -> None:
    report = make_two(tmp_path)
    table = make_table(report, "iou:*")
    assert table.headings == ("dataset", "head", "background", "disc", "box")
    assert [row[-1] == "–" for row in table.rows] == [row[0] == "shapes" for row in table.rows]
    values = json.loads(report.table(columns=["iou:box"], format="json"))
    assert [cell["iou:box"] is None for cell in values["cells"]] == [row[0] == "shapes" for row in table.rows]
    assert make_table(report, "iou:box", sort="iou:box").rows[-1][-1] == "–", "missing values are last"


def test_a_class_without_labeled_pixels_has_no_value(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    for planned in make_plan(grid, lab).trials:
        counts = counted(RIGHT[planned.trial.names["head"]], planned.trial.seed)
        counts[:, 2] = 0
        finish(planned, 0.0, counts)
    report = make_report(make_plan(grid, lab), lab, None)
    assert [row[1:] for row in make_table(report, "iou:box", "dice:box").rows] == [("–", "–")] * 3
    assert make_table(report, "dice").rows[0][1] != "–"


def test_a_repeated_class_name_gets_a_number(tmp_path: Path) -> None:
    report = make_report_of_repeated_class(tmp_path)
    table = make_table(report, "iou:*")
    assert table.headings[1:] == ("background", "disc", "disc (2)")
    assert float(table.rows[0][2].split()[0]) > 1.5 * float(table.rows[0][3].split()[0])


def test_before_a_trial_has_finished_any_class_is_accepted(tmp_path: Path) -> None:
    path = write_grid(tmp_path, THREE)
    lab = Lab.find(path)
    report = make_report(make_plan(lab.load_grid(path), lab), lab, None)
    table = make_table(report, "n", "iou:sky", "iou:*", sort="-iou:sky")
    assert table.headings == ("head", "n", "sky") and {row[2] for row in table.rows} == {"–"}


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(("iou:dics",)), "--columns iou:dics: question has no class 'dics'; did you mean 'disc'? valid: back"),
        (View(sort="-dice:Disc"), "--sort dice:Disc: question has no class 'Disc'; did you mean 'disc'?"),
        (View(sort="iou:*"), "--sort iou:[*]: question has no class '[*]'; valid: background, box, disc"),
        (View(("acc:disc",)), "--columns: the table has no 'acc:disc'; .*dice:CLASS, .*iou:CLASS"),
        (View(("moiu", "iou:disc")), "the table has no 'moiu'; did you mean 'miou'"),
    ],
)
def test_an_unknown_class_is_reported_with_the_nearest(made: tuple[Report, Lab], view: View, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", "[?]")):
        make_table(made[0], *view.columns, sort=view.sort)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n, miou,,", ("n", "miou")),
        ("iou:traffic light,n", ("iou:traffic light", "n")),
        ('iou:"car, parked",n', ("iou:car, parked", "n")),
        ('n,"iou:car, parked"', ("n", "iou:car, parked")),
        ("iou:driver's seat,n", ("iou:driver's seat", "n")),
        (r'iou:"5\" pipe, bent"', ('iou:5" pipe, bent',)),
        ("iou:#1,iou:a:b", ("iou:#1", "iou:a:b")),
    ],
)
def test_names_of_columns_are_separated_by_commas_outside_of_quotes(text: str, names: tuple[str, ...]) -> None:
    assert split_columns(text) == names


def test_a_latex_table_of_many_classes_has_rotated_headings(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    rng = np.random.default_rng(0)
    for planned in make_plan(grid, lab).trials:
        target = np.full((IMAGES, len(CITYSCAPES)), 300)
        hit = rng.integers(100, 300, target.shape)
        finish(planned, 0.0, np.stack((hit, target, target), axis=-1), classes=CITYSCAPES)
    report = make_report(make_plan(grid, lab), lab, None)
    shown, view = add_requested_columns(report, View(("iou:*", "miou")))
    latex = report_to_latex(shown, view, wide=True)
    assert r"needs \usepackage{booktabs} and \usepackage{graphicx}" in latex and "wider than the page" not in latex
    assert latex.count(r"\rotatebox{90}") == 20 and r"\rotatebox{90}{traffic light}" in latex
    body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == 6 and all(line.count("&") == 20 for line in body)
    means, stds = (line.removesuffix(r"\\[2pt]").removesuffix(r"\\").split(" & ") for line in body[:2])
    table = view.make_table(shown.cells, shown.names)
    assert means[0] == "fcn32s" and stds[0].strip() == ""
    for text, mean, std in zip(table.rows[0][1:], means[1:], stds[1:], strict=True):
        value, below = re.sub(r"\\textbf{(.*)}", r"\1", mean.strip()), std.strip().removeprefix(r"\tiny $\pm$")
        assert text == f"{value} ± {below}"
    few = add_requested_columns(report, View(("iou:car", "miou")))
    assert r"\rotatebox" not in report_to_latex(*few, wide=True)


def test_a_styler_accepts_headings_that_occur_twice() -> None:
    shown = to_styler(Table(("head", "n", "n"), (("a", "1", "2"),), 1), "").to_html()
    assert "n (2)" in shown


def test_missing_metrics_are_a_dash(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)  # its records have no Boundary IoU
    report = make_report(make_plan(grid, lab), lab, None)
    assert [row[1] for row in make_table(report, "boundary_iou").rows] == ["–"] * 3
    assert all(math.isnan(value) for value in report.cells["boundary_iou"])
