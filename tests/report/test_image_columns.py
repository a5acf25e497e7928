"""Columns of means over images in the table of cells, and display names of classes in comparisons."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.report.comparison import compare, load_side, make_class_differences_table, to_values
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.export import to_values as to_report_values
from fcnlab.runner.find import find_reference
from fcnlab.runner.plan import make_plan
from fcnlab.trial.run_folder import RunFolder
from tests.conftest import write_grid
from tests.report.finished_grid import CLASSES, IMAGES, RIGHT, THREE, counted, finish, finished_lab
from tests.report.test_cross_validation import make_lab as make_lab_of_folds
from tests.report.test_datasets import make_two

WITH_BOX = 15
"""Images that contain the class box; in the others, pixels are predicted as box."""

NAMED = f"""{THREE}
labels:
  classes: {{disc: Scheibe}}
  columns: {{image_dice: DSC}}
"""


def make_lab(root: Path, text: str = THREE) -> tuple[Grid, Lab]:
    """Finish all trials, with counts of images that do not all contain the class box, and one without labels."""
    grid, lab = finished_lab(root, text)
    for planned in make_plan(grid, lab).trials:
        counts = counted(RIGHT[planned.trial.names["head"]], planned.trial.seed)
        counts[WITH_BOX:, 2] = 0, 40, 0
        counts[-1] = 0
        counts[::2, 1] *= 10  # larger discs, which weigh more in the summed counts
        finish(planned, 0.0, counts)
    return grid, lab


def make(root: Path, text: str = THREE) -> Report:
    grid, lab = make_lab(root, text)
    return make_report(make_plan(grid, lab), lab, None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make(tmp_path_factory.mktemp("lab"))


def score_images(folder: RunFolder, *, dice: bool) -> Iterator[dict[str, float]]:
    """Yield the IoU or Dice of the classes that are labeled in each image of the reported split."""
    for image in np.load(folder.counts)["test_last"].tolist():
        yield {
            name: 2 * hit / (predicted + labeled) if dice else hit / (predicted + labeled - hit)
            for name, (hit, predicted, labeled) in zip(CLASSES, image, strict=True)
            if labeled
        }


def expected(report: Report, cell: str, column: str) -> list[float]:
    """Return the values of a column for the seeds of a cell, from the counts."""
    metric, _, name = column.partition(":")
    values = []
    for folder in report.records.folders[cell].values():
        images = [scores for scores in score_images(folder, dice=metric == "image_dice") if scores]
        means = [scores[name] for scores in images if name in scores] if name else [
            statistics.mean(scores.values()) for scores in images
        ]  # fmt: skip
        values.append(statistics.mean(means))
    return values


def list_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize("column", ["image_miou", "image_dice", "image_iou:box", "image_dice:disc"])
def test_columns_are_means_over_images_and_then_over_seeds(report: Report, column: str) -> None:
    name, colon, class_name = column.partition(":")
    for row in list_rows(report.table(columns=[column], format="csv")):
        values = expected(report, row["cell"], column)
        assert float(row[column]) == pytest.approx(statistics.mean(values))
        assert float(row[f"{name}_std{colon}{class_name}"]) == pytest.approx(statistics.stdev(values))
    assert not any("image_" in field for field in report.cells), "the frame has these columns only on request"


def test_all_classes_are_selected_and_headings_name_the_metric(report: Report) -> None:
    columns = ["image_miou", "image_dice", "image_iou:*", "image_dice:box", "iou:box"]
    table = report.table(columns=columns, format="csv")
    assert [name for name in list_rows(table)[0] if "std" not in name][2:-1] == [
        "image_miou", "image_dice", "image_iou:background", "image_iou:disc", "image_iou:box", "image_dice:box",
        "iou:box",
    ]  # fmt: skip
    markdown = report.table(columns=["image_miou", "image_dice", "image_iou:box", "image_dice:box"], format="markdown")
    headings = "| head | mIoU per image % | Dice per image % | IoU per image, box | Dice per image, box |"
    assert markdown.splitlines()[0] == headings
    assert list_rows(report.table(columns=["miou PER image %"], format="csv"))[0]["image_miou"]


def test_the_table_is_sorted_by_means_over_images(report: Report) -> None:
    for column in ("image_dice", "image_iou:disc"):
        order = sorted(report.records.by_cell, key=lambda cell: statistics.mean(expected(report, cell, column)))
        assert [row["cell"] for row in list_rows(report.table(sort=column, format="csv"))] == order
        assert [row["cell"] for row in list_rows(report.table(sort=f"-{column}", format="csv"))] == order[::-1]


def test_footnotes_define_the_means_and_count_the_images(report: Report) -> None:
    first, *others = report.write_footnotes(["image_miou", "image_iou:box"])
    assert first.endswith("at the last epoch, whose number was fixed before training; ignored pixels are not counted.")
    assert others[:2] == [
        "Columns of classes: IoU per image in %.",
        "mIoU per image: mean over the images of the mean over the classes in an image; IoU per image of a class: mean "
        f"over the images that contain it ({WITH_BOX} images); unlike mIoU and Dice, not from summed counts.",
    ]
    assert "Mean ± standard deviation over n = 3 seeds." in others
    of_all = report.write_footnotes(["miou", "image_iou:*", *(f"image_iou:{name}" for name in CLASSES)])
    assert "; mIoU from the summed counts of the split" in of_all[0]
    assert any(f"mean over the images that contain it ({WITH_BOX} to {IMAGES - 1} images)" in note for note in of_all)
    assert not any("per image" in note for note in report.footnotes)
    assert not any("per image" in note for note in to_report_values(report, View())["footnotes"])


def test_a_latex_table_has_the_definition_below_it(report: Report) -> None:
    latex = report.table(columns=["miou", "image_dice:box"], format="latex").partition(r"\begin{table")[2]
    values = expected(report, "fcn8s", "image_dice:box")
    text = rf"{100 * statistics.mean(values):.1f}\,$\pm$\,{100 * statistics.stdev(values):.1f}"
    assert "Dice per image, box" in latex and text in latex
    assert f"Dice per image of a class: mean over the images that contain it ({WITH_BOX} images)" in latex
    assert r"Mean $\pm$ standard deviation over 3 seeds." in latex


def test_headings_and_classes_have_the_names_of_the_grid_file(tmp_path: Path) -> None:
    report = make(tmp_path, NAMED)
    columns = ["DSC", "image_dice:Scheibe"]
    assert report.table(columns=columns, format="csv") == report.table(
        columns=["image_dice", "image_dice:disc"], format="csv"
    )
    assert report.table(columns=columns, format="markdown").startswith("| head | DSC | Dice per image, Scheibe |")
    assert any(note.startswith("DSC: mean over the images of") for note in report.write_footnotes(["image_dice"]))


def test_a_pivoted_table_of_two_datasets_does_not_count_images(tmp_path: Path) -> None:
    report = make_two(tmp_path)
    pivot = ("head", "dataset")
    latex = report.table(columns=["image_iou:disc"], pivot=pivot, format="latex").partition(r"\begin{table")[2]
    assert r"Values: IoU per image of the class disc in \%." in latex
    assert "mean over the images that contain it; unlike" in latex
    assert report.table(columns=["image_iou:box"], pivot=pivot, format="markdown").count("–") == 3


def test_each_seed_of_a_cross_validation_has_the_images_of_its_fold(tmp_path: Path) -> None:
    grid, lab = make_lab_of_folds(tmp_path)
    report = make_report(make_plan(grid, lab), lab, None)
    for row in list_rows(report.table(columns=["image_iou:disc"], format="csv")):
        assert float(row["image_iou:disc"]) == pytest.approx(
            statistics.mean(expected(report, row["cell"], "image_iou:disc"))
        )
    assert any(f"contain it ({3 * IMAGES} images)" in note for note in report.write_footnotes(["image_iou:disc"]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["image_iou:dics"], "--columns image_iou:dics: question has no class 'dics'; did you mean 'disc'?"),
        (["image_miuo"], "--columns: the table has no 'image_miuo'; did you mean 'image_miou'?"),
        (["image_acc:disc"], "image_dice:CLASS, image_iou:CLASS"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest(report: Report, columns: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        report.table(columns=columns)
    assert message in str(caught.value)


def test_before_a_trial_has_finished_there_is_no_value(tmp_path: Path) -> None:
    path = write_grid(tmp_path, THREE)
    lab = Lab.find(path)
    report = make_report(make_plan(lab.load_grid(path), lab), lab, None)
    text = report.table(columns=["image_miou", "image_iou:sky"], sort="image_dice", format="markdown")
    assert text.count("–") == 6


def remove_counts(grid: Grid, lab: Lab, cell: str, seed: int) -> None:
    """Remove the counts of a trial, as those of records without a checksum of them."""
    [planned] = [one for one in make_plan(grid, lab).trials if (one.cell.label, one.trial.seed) == (cell, seed)]
    record = planned.record
    assert record is not None
    planned.folder.counts.unlink()
    planned.folder.finish(record)


def test_a_cell_without_the_counts_of_a_trial_has_no_value_and_a_note(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path)
    remove_counts(grid, lab, "fcn8s", 1)
    report = make_report(make_plan(grid, lab), lab, None)
    rows = list_rows(report.table(columns=["image_miou", "image_iou:box", "iou:box"], format="csv"))
    for name in ("image_miou", "image_iou:box"):
        assert [bool(row[name]) for row in rows] == [True, True, False]
    assert all(row["iou:box"] for row in rows)
    assert report.table(columns=["image_miou"], format="markdown").splitlines()[4] == "| fcn8s | – |"
    note = "No metrics per image of fcn8s: counts.npz of 1 trial is missing."
    assert note in report.write_footnotes(["image_dice:disc"]) and note not in report.footnotes
    for cell, seed in (("fcn8s", 0), ("fcn8s", 2), ("fcn16s", 0)):
        remove_counts(grid, lab, cell, seed)
    report = make_report(make_plan(grid, lab), lab, None)
    assert "No metrics per image of fcn16s, fcn8s: counts.npz of 4 trials are missing." in report.write_footnotes(
        ["image_miou"]
    )


def name_classes(lab: Lab, *names: str) -> list[str]:
    found = compare(*(load_side(find_reference(name, lab), lab) for name in names))
    assert {row["class"] for row in to_values(found)["classes"]} == set(CLASSES), "JSON has the names of the dataset"  # type: ignore[attr-defined]
    shown = [row[0] for row in make_class_differences_table(found).rows]
    assert all(name in found._repr_html_() for name in shown)
    return shown


def test_a_comparison_has_the_class_names_of_the_grid_file_of_both_sides(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path, NAMED)
    plain = write_grid(tmp_path, THREE, "plain")
    assert set(name_classes(lab, f"{grid.path}:fcn32s", f"{grid.path}:fcn8s")) == {"background", "Scheibe", "box"}
    for other in (f"{plain}:fcn8s", make_plan(grid, lab).trials[-1].key[:12]):
        assert set(name_classes(lab, f"{grid.path}:fcn32s:2", other)) == set(CLASSES)
