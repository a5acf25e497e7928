"""Reports from records: the statistics in the table, the notes, and the written files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from fcnlab.analysis import estimate_difference
from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import Grid
from fcnlab.constants import Bold
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.report.charts.draw import draw_plots
from fcnlab.report.comparison import compare, describe_difference, load_side, make_images_table
from fcnlab.report.comparison import to_values as to_comparison_values
from fcnlab.report.footnotes.data import describe_other_images
from fcnlab.report.frame import trials_frame
from fcnlab.report.gallery.selection import select_gallery
from fcnlab.report.html.page import Section
from fcnlab.report.html.sortable import make_sortable_classes
from fcnlab.report.report import Report, make_report
from fcnlab.report.summary_text import summarize
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.classes import collect_class_results, make_class_table
from fcnlab.report.tables.export import TextFormat, to_csv, to_values
from fcnlab.report.tables.formats import to_html, to_markdown
from fcnlab.report.tables.paper import report_to_latex
from fcnlab.report.tables.seed_plan import make_seed_table
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import SeedCounts, load_records
from fcnlab.report.write import merge_trials, name_combined, write_combined, write_report
from fcnlab.runner.find import find_reference
from fcnlab.runner.plan import make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.tracking.base import TrackedTrial
from fcnlab.tracking.fields import extract_tags
from fcnlab.trial.run_folder import RunFolder
from tests.builders import failed_record
from tests.conftest import REPOSITORY, SMOKE, write_grid
from tests.growth import count_calls
from tests.report.finished_grid import (
    CLASSES,
    IMAGES,
    RIGHT,
    THREE,
    counted,
    finish,
    finished_lab,
    make_report_of_repeated_class,
    plain_latex,
    raw_names,
)

CHARTS = ("seeds", "differences", "cost", "curves", "loss", "classes")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Lab]:
    grid, lab = finished_lab(tmp_path_factory.mktemp("lab"))
    return make_report(make_plan(grid, lab), lab, None), lab


@pytest.fixture(scope="module")
def written(made: tuple[Report, Lab]) -> Path:
    report, lab = made
    write_report(report, lab, predict=False)
    return report.folder


def row(report: Report, head: str) -> pd.Series[Any]:
    found = report.cells.set_index("head").loc[head]
    assert isinstance(found, pd.Series)
    return found


def class_table(report: Report) -> Table:
    found = collect_class_results(report)
    assert found is not None
    return make_class_table(report, found)


def test_trials_that_are_not_better_than_chance_are_named(made: tuple[Report, Lab], tmp_path: Path) -> None:
    assert not any("chance" in line for line in made[0].footnotes)
    grid, lab = finished_lab(tmp_path, right={"fcn32s": 0.33, "fcn16s": 0.701, "fcn8s": 0.37})
    report = make_report(make_plan(grid, lab), lab, None)
    (line,) = (line for line in report.footnotes if "chance" in line)
    assert line.startswith("Not better than chance: 3 of 3 trials of fcn32s have a mean accuracy")


def test_the_table_has_the_interval_of_the_statistics(made: tuple[Report, Lab]) -> None:
    report, _ = made
    counts = {head: report.records.counts(head) for head in RIGHT}
    expected = estimate_difference(counts["fcn8s"], counts["fcn32s"])
    found = row(report, "fcn8s")
    assert (found["delta_low"], found["delta_high"]) == pytest.approx((expected.low, expected.high))
    assert found["delta"] == pytest.approx(expected.value)
    assert found["p_holm"] >= found["p_value"]


def test_only_significant_differences_are_marked(made: tuple[Report, Lab]) -> None:
    report, _ = made
    texts = {cells[0]: cells[3] for cells in report.cell_table.rows}
    assert texts["fcn8s"].endswith("]*")
    assert texts["fcn16s"].endswith("]")
    assert any("significant after" in sentence and "fcn8s" in sentence for sentence in report.summary_text)
    assert any("no significant difference" in sentence and "fcn16s" in sentence for sentence in report.summary_text)
    assert any(note.startswith("*: significant") for note in report.footnotes)


def test_the_first_footnote_gives_the_number_of_evaluated_images(made: tuple[Report, Lab]) -> None:
    assert made[0].footnotes[0].startswith(f"Evaluated on test ({IMAGES} images) at native size")


def test_a_single_cell_is_compared_with_nothing(tmp_path: Path) -> None:
    text = THREE.replace("[fcn32s, fcn16s, fcn8s]", "[fcn8s]").replace("baseline: {head: fcn32s}", "")
    grid, lab = finished_lab(tmp_path, text)
    report = make_report(make_plan(grid, lab), lab, None)
    write_report(report, lab, predict=False)
    latex, page = ((report.folder / name).read_text() for name in ("table.tex", "report.html"))
    texts = [*report.cell_table.headings, *report.footnotes, latex, page[page.index("<body") : page.index(">Charts<")]]
    assert not any("Δ" in text or r"\Delta" in text or "baseline" in text for text in texts)
    assert latex.count(r"$\pm$") == 3, "mIoU, pixel accuracy and the note"


ABLATION = """
question: Which changes help?
base: {backbone: resnet18-scratch, head: fcn32s, dataset: shapes-mini, recipe: smoke}
ablate:
  changes: [{head: fcn8s}, {head: fcn16s, recipe.ema: 0.9}]
seeds: 3
labels: {cells: {"head fcn16s, ema 0.9": both}}
"""


def test_an_ablation_has_one_column_of_names_and_describes_the_unchanged_cell(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, ABLATION)
    report = make_report(make_plan(grid, lab), lab, None)
    assert report.cell_table.headings[:2] == ("cell", "n")
    assert [cells[0] for cells in report.cell_table.rows] == ["unchanged", "head fcn8s", "both"]
    assert report.footnotes[0] == "unchanged: head fcn32s, ema None."
    assert list(report.cells["head"]) == ["fcn32s", "fcn8s", "fcn16s"], "values by axis are in the frame"
    assert find_reference(f"{grid.path}:fcn8s", lab).named_plan is not None
    assert find_reference(f"{grid.path}:ema 0.9:1", lab).seed == 1


LABELS = """
labels:
  axes: {head: Head}
  values: {head: {fcn16s: FCN-16s}}
  cells: {fcn8s: ours}
"""


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Lab]:
    """A report with display names, in which two cells are better than the baseline and hardly differ."""
    right = {"fcn32s": 0.70, "fcn16s": 0.80, "fcn8s": 0.801}
    grid, lab = finished_lab(tmp_path_factory.mktemp("level"), THREE + LABELS, right)
    return make_report(make_plan(grid, lab), lab, None), lab


def test_cells_that_do_not_differ_from_the_best_are_bold_in_every_format(
    made: tuple[Report, Lab], level: tuple[Report, Lab]
) -> None:
    assert made[0].cell_table.marks == {(2, 2)}, "the best cell differs significantly from the others"
    report, _ = level
    assert report.cell_table.marks == {(1, 2), (2, 2)}
    assert list(report.cells["best"]) == [False, True, True]
    bold = [report.cell_table.rows[row][2] for row in (1, 2)]
    assert re.findall(r"\*\*(.+?)\*\*", to_markdown(report.cell_table)) == bold
    assert re.findall(r"<strong>(.+?)</strong>", to_html(report.cell_table)) == bold
    assert len(re.findall(r"\\textbf", plain_latex(report.cell_table, ""))) == 2
    (note,) = (note for note in report.footnotes if note.startswith("Bold"))
    assert "does not differ significantly" in note and "2 comparisons" in note
    cells = report.cells.assign(upsampler="a")
    pivoted = View(pivot=("head", "upsampler")).make_table(cells, raw_names(cells, ["head", "upsampler"]))
    assert pivoted.marks == {(1, 1), (2, 1)}
    assert not View(("delta",)).make_table(report.cells, report.names).marks


def test_decimals_and_bold_cells_are_chosen_in_every_format(made: tuple[Report, Lab]) -> None:
    report, _ = made
    miou, std = (100 * row(report, "fcn8s")[name] for name in ("miou", "miou_std"))
    columns = ["miou", "delta", "miou_range", "delta_std"]
    formats: tuple[TextFormat, ...] = ("text", "markdown", "html")
    for decimals in (0, 3):
        spread = f"{miou:.{decimals}f} ± {std:.{decimals}f}"
        for text_format in formats:
            assert spread in report.table(columns=columns, decimals=decimals, format=text_format)
        latex = report.table(columns=columns, decimals=decimals, format="latex")
        assert spread.replace(" ± ", r"\,$\pm$\,") in latex
        table = View(tuple(columns), decimals=decimals).make_table(report.cells, report.names)
        digits = {len(number.partition(".")[2]) for number in re.findall(r"\d[\d.]*", " ".join(table.rows[2][1:]))}
        assert digits == {decimals}
    assert report.table(decimals=3, format="csv") == report.table(format="csv")
    mean = f"{miou:.1f} ± {std:.1f}"
    choices: tuple[tuple[Bold, int], ...] = (("tied", 1), ("max", 1), ("none", 0))
    for bold, marked in choices:
        assert report.table(bold=bold, format="markdown").count("**") == 2 * marked
        assert report.table(bold=bold, format="html").count("<strong>") == marked
        assert (f"**{mean}**" in report.table(bold=bold, format="markdown")) == bool(marked)
    with pytest.raises(ConfigError, match="--decimals -1: expected a number from 0 to 6"):
        report.table(decimals=-1)
    with pytest.raises(ConfigError, match="bold: there is no 'best'"):
        report.table(bold="best")  # type: ignore[call-overload]


def test_only_the_highest_mean_is_bold_on_request(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, right={"fcn32s": 0.70, "fcn16s": 0.701, "fcn8s": 0.5})
    report = make_report(make_plan(grid, lab), lab, None)
    assert report.table(format="markdown").count("**") == 4, "fcn32s does not differ significantly from fcn16s"
    notes: tuple[tuple[Bold, str], ...] = (("max", "Bold: the highest mean mIoU."), ("none", ""))
    for bold, note in notes:
        marked = report.mark(bold)
        assert marked.table(bold=bold, format="markdown").count("**") == (2 if note else 0)
        assert [line for line in marked.footnotes if line.startswith("Bold")] == ([note] if note else [])
        assert ("not significantly different" in marked.table(bold=bold, format="latex")) is False
        assert ("Bold" in marked.table(bold=bold, format="latex")) == bool(note)


def test_labels_are_above_the_samples_as_far_as_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "a name that is much longer than the pictures below it are wide"
    labels = f"labels: {{cells: {{fcn8s: ours, fcn16s: {long}}}}}"
    grid, lab = finished_lab(tmp_path, THREE + labels)
    texts = []
    draw = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *args: Any, **options: Any) -> None:
        texts.append(text)
        draw(self, at, text, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    write_report(make_report(make_plan(grid, lab), lab, None), lab, predict=False)
    assert texts[:2] == ["input", "ground truth"] and {"fcn32s", "ours"} <= set(texts)
    (short,) = (text for text in texts if text.endswith("…"))
    assert long.startswith(short[:-1]) and len(short) < len(long)


def test_names_of_several_words_are_quoted_in_sentences(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, THREE + "labels: {cells: {fcn8s: with skips}}")
    report = make_report(make_plan(grid, lab), lab, None)
    text = " ".join(report.summary_text)
    assert "“with skips” reaches" in text and "than fcn32s (" in text


def test_numbers_in_names_are_not_read_as_values(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, THREE + 'labels: {cells: {fcn32s: "none, 0.01", fcn8s: "skips, 0.1"}}')
    report = make_report(make_plan(grid, lab), lab, None)
    footnotes = report.footnotes
    assert any(note.startswith("Δ is the difference to “none, 0.01” in points") for note in footnotes)
    assert "difference in mIoU to ``none, 0.01'' in points, with 95" in report_to_latex(report)
    captions = " ".join(plot.caption for plot in draw_plots(report))
    assert "mIoU to “none, 0.01” with" in captions and "IoU to “none, 0.01” by class" in captions
    sides = [load_side(find_reference(f"{grid.path}:{head}", lab), lab) for head in ("fcn32s", "fcn8s")]
    assert re.match("“skips, 0.1” scored .* than “none, 0.01” at the last", describe_difference(compare(*sides)))


def test_before_the_first_trial_has_finished_the_only_footnote_states_it(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, unfinished=lambda _head, _seed: True)
    report = make_report(make_plan(grid, lab), lab, None)
    assert list(report.footnotes) == ["No trial has finished yet."]


def test_labels_are_in_all_texts_and_raw_values_in_the_csv(level: tuple[Report, Lab]) -> None:
    report, lab = level
    assert report.cell_table.headings[0] == "Head"
    assert [cells[0] for cells in report.cell_table.rows] == ["fcn32s", "FCN-16s", "fcn8s (ours)"]
    texts = " ".join(report.summary_text)
    assert "ours" in texts and "FCN-16s" in texts and "fcn8s" not in texts
    classes = class_table(report)
    assert classes.headings[2:] == ("fcn32s", "FCN-16s", "ours")
    assert [row[0] for row in make_seed_table(report, 1.0).rows] == ["FCN-16s", "ours"]
    assert load_side(find_reference(f"{report.grid.path}:fcn8s", lab), lab).name == "ours"
    assert "fcn8s,fcn8s" in to_csv(report, View()) and "FCN-16s" not in to_csv(report, View())
    assert to_values(report, View())["display_names"]["fcn8s"] == "ours"
    named = Names(report.names.axes, report.names.values, {"fcn32s": "a", "fcn16s": "b", "fcn8s": "c"})
    table = View().make_table(report.cells, named)
    assert table.headings[0] == "cell" and [row[0] for row in table.rows] == ["a", "b", "c"]


def test_footnotes_are_those_of_the_shown_columns(made: tuple[Report, Lab]) -> None:
    report, _ = made
    evaluation, *others = report.footnotes
    of_accuracy, *some = report.write_footnotes(("gmacs", "pixel_acc"))
    assert "; mIoU and pixel accuracy (acc.) from the summed counts" in evaluation
    assert of_accuracy == evaluation.replace("mIoU and pixel", "pixel")
    assert set(some) < {*others, "GMACs for one image of 64x64."}
    assert not any(word in line for line in some for word in ("Δ", "Bold", "device-hours", "images/s"))
    assert any("significant" in line for line in report.write_footnotes(("delta",)))


def test_a_text_is_not_a_list_of_columns(made: tuple[Report, Lab]) -> None:
    with pytest.raises(ConfigError, match=r"^columns: a list of names is expected, .* not 'n,miou'$"):
        made[0].table(columns="n,miou")


@pytest.mark.parametrize(
    ("columns", "metrics"),
    [
        (("dice", "iou:disc", "iou:box"), "Dice (F1) and IoU of classes"),
        (("boundary_iou", "miou"), "mIoU and Boundary IoU"),
        (("mean_acc", "fw_iou", "delta"), "mIoU, mean accuracy (mean acc.) and frequency-weighted IoU (f.w. IoU)"),
        (("miou_range",), "mIoU"),
    ],
)
def test_the_evaluation_and_the_spread_of_all_metrics_are_described(
    made: tuple[Report, Lab], columns: tuple[str, ...], metrics: str
) -> None:
    footnotes = made[0].write_footnotes(columns)
    assert (
        f"at the last epoch, whose number was fixed before training; {metrics} from the summed counts of the split"
        in footnotes[0]
    )
    has_spread = "Mean ± standard deviation over n = 3 seeds." in footnotes
    assert has_spread == (columns != ("miou_range",))


def test_texts_of_ties_and_missing_seeds_are_literally_true(tmp_path: Path) -> None:
    path = write_grid(tmp_path, THREE.replace("seeds: 3", "seeds: 4").replace("fcn8s]", "fcn8s, fcn4s]"))
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        head, seed = planned.trial.names["head"], planned.trial.seed
        if seed < {"fcn32s": 4, "fcn16s": 4, "fcn8s": 3, "fcn4s": 1}[head]:
            finish(planned, 0.7 if head in ("fcn32s", "fcn16s") else 0.6)
    report = make_report(make_plan(grid, lab), lab, None)
    summary, footnotes = " ".join(report.summary_text), " ".join(report.footnotes)
    assert "is fcn32s with 53.3 % (4 seeds); 1 other cell has the same." in summary
    assert "0.0 points more (95 % interval 0.0 to 0.0, 4 seeds)" in summary
    assert "same order" not in summary, "the cells have one seed in common"
    others = report.trials[report.trials["cell"] != "fcn4s"]
    order = " ".join(summarize(grid, others, report.cells, report.significance, report.groups))
    tied = "fcn32s has the highest mIoU in all 3 seeds that all cells have (tied with another cell in each of them)."
    assert tied in order
    assert "2 of 4 cells are incomplete" in summary
    assert "over the n finished seeds of a cell, 1 to 4 of 4." in footnotes
    assert "resamples), and of seeds if two are shared." in footnotes
    assert "1 cell with fewer than 3 common seeds is not compared" in footnotes
    assert "deviation over the finished seeds of each cell" in report_to_latex(report)
    few, enough = (report.significance.comparisons[head] for head in ("fcn4s", "fcn8s"))
    assert enough.significant and few.significant is None
    many = {str(index): enough for index in range(9)} | {"few": few}
    significance = replace(report.significance, comparisons=many)
    group = replace(report.groups[0], cells=(*report.groups[0].cells, *many))
    text = " ".join(summarize(grid, report.trials, report.cells, significance, [group]))
    assert "9 of 9 cells differ significantly from fcn32s; the 8 largest" in text
    assert "No claim is made about 1 of 10 cells" in text
    sides = [load_side(find_reference(f"{path}:{head}", lab), lab) for head in ("fcn32s", "fcn16s")]
    shown = describe_difference(compare(*sides))
    assert "0.00 points" in shown and "interval 0.00 to 0.00" in shown


def test_cells_that_cannot_be_compared_are_named_with_the_reason(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path / "baseline", unfinished=lambda head, _: head == "fcn32s")
    report = make_report(make_plan(grid, lab), lab, None)
    assert "No trial of the baseline fcn32s has finished, so no cell is compared with it." in report.summary_text
    assert "Δ is the difference to fcn32s, of which no trial has finished." in report.footnotes
    assert not any("counts" in note for note in report.footnotes if note.startswith("Δ"))

    grid, lab = finished_lab(tmp_path / "seeds", unfinished=lambda head, seed: (head == "fcn8s") != (seed == 0))
    report = make_report(make_plan(grid, lab), lab, None)
    assert "fcn8s has no finished seed in common with fcn32s." in report.summary_text
    assert "fcn8s: no Δ without a finished seed in common with fcn32s." in report.footnotes
    assert report.cell_table.rows[2][3] == "–"

    grid, lab = finished_lab(tmp_path / "all", unfinished=lambda head, seed: (head == "fcn32s") == (seed == 0))
    report = make_report(make_plan(grid, lab), lab, None)
    assert "Δ is the difference to fcn32s, paired by seed." in report.footnotes
    assert "2 cells (fcn16s; fcn8s): no Δ without a finished seed in common with fcn32s." in report.footnotes


def test_a_marker_is_only_shown_where_there_is_an_interval(tmp_path: Path) -> None:
    product = "product: {upsampler: [bilinear, random], head"
    text = THREE.replace(" upsampler: bilinear,", "").replace("product: {head", product)
    text = text.replace("baseline: {head: fcn32s}", "baseline: {head: fcn32s, upsampler: bilinear}")
    text = text.replace("seeds: 3", "seeds: 2")
    grid, lab = finished_lab(tmp_path, text, unfinished=lambda head, _: head == "fcn8s")
    report = make_report(make_plan(grid, lab), lab, None)
    pivoted = View(pivot=("head", "upsampler")).make_table(report.cells, report.names)
    assert [texts[1][-1] for texts in pivoted.rows] == ["4", "°", "–"]


def test_an_interval_without_zero_that_is_not_significant_after_the_correction_is_explained(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    report = make_report(make_plan(grid, lab), lab, None)
    one = report.significance.comparisons["fcn8s"]
    corrected = replace(one, adjusted_p=0.08)
    significance = replace(report.significance, comparisons=report.significance.comparisons | {"fcn8s": corrected})
    text = " ".join(summarize(grid, report.trials, report.cells, significance, report.groups))
    assert one.difference.low > 0 and "significant difference between fcn8s and fcn32s" in text
    assert "excludes zero, but over 2 comparisons that is no longer unlikely by chance (p = 0.08 after Holm's" in text
    assert text.count("within the interval remain possible") == 1, "of fcn16s"
    assert any("the intervals are not corrected" in note for note in report.footnotes)
    alone = replace(report.significance, comparisons={"fcn8s": replace(one, adjusted_p=0.0)})
    text = " ".join(summarize(grid, report.trials, report.cells, alone, report.groups))
    assert "3 seeds): significant, p < 0.0001." in text, "one comparison needs no correction"


def test_cells_without_a_significant_difference_are_named_in_one_sentence(made: tuple[Report, Lab]) -> None:
    report, _ = made
    comparisons = report.significance.comparisons
    equal = comparisons["fcn16s"]
    assert equal.significant is False
    several = replace(report.significance, comparisons=comparisons | {"fcn4s": equal})
    groups = [replace(report.groups[0], cells=(*report.groups[0].cells, "fcn4s"))]
    sentences = summarize(report.grid, report.trials, report.cells, several, groups)
    (merged,) = (text for text in sentences if "no significant difference" in text)
    found = r"0\.\d points more, 95 % interval -0\.\d to \+\d\.\d, 3 seeds"
    start = (
        rf"There is no significant difference to fcn32s for fcn16s \({found}\) and fcn4s \({found}\)\. This does not"
    )
    assert re.match(start, merged)
    assert any(text.startswith("fcn8s reaches") for text in sentences)


def test_a_split_with_labels_in_one_image_has_no_interval(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    for planned in make_plan(grid, lab).trials:
        counts = counted(RIGHT[planned.trial.names["head"]], planned.trial.seed)
        counts[1:] = 0
        finish(planned, 0.0, counts)
    report = make_report(make_plan(grid, lab), lab, None)
    assert any("one image is too few for an interval" in sentence for sentence in report.summary_text)
    assert row(report, "fcn8s")["significant"] is pd.NA and "[" not in report.cell_table.rows[2][3]


def test_without_labeled_pixels_there_is_no_miou(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    for planned in make_plan(grid, lab).trials:
        finish(planned, 0.0, np.zeros((IMAGES, len(CLASSES), 3), dtype=np.int64))
    report = make_report(make_plan(grid, lab), lab, None)
    write_report(report, lab, predict=False)
    assert report.summary_text[0] == "There is no mIoU: no class has a labeled pixel in the evaluated split."
    assert "nan" not in " ".join([*report.summary_text, *report.footnotes, to_markdown(report.cell_table)]).lower()


def test_a_large_difference_between_the_last_and_the_best_epoch_is_noted(tmp_path: Path) -> None:
    at_last, at_best = "At the last epoch instead", "At the epoch with the best mIoU on val instead"
    for checkpoint, changed, expected in (
        ("best", {"miou_last": -0.2}, f"{at_last}, mIoU differs by 1 point or more: fcn8s -20.0."),
        ("last", {"miou_best": 0.011}, f"{at_best}, mIoU differs by 1 point or more: fcn8s +1.1."),
        ("last", {"miou_best": 0.009}, None),
    ):
        grid, lab = finished_lab(tmp_path / f"{checkpoint}{len(changed)}", f"{THREE}checkpoint: {checkpoint}\n")
        report = make_report(make_plan(grid, lab), lab, None)
        differs = report.cells["head"] == "fcn8s"
        columns = {name: report.cells[name] + np.where(differs, gap, 0.0) for name, gap in changed.items()}
        report = replace(report, cells=report.cells.assign(**columns))
        assert [note for note in report.footnotes if "instead, mIoU" in note] == ([expected] if expected else [])
        assert not any("instead" in note for note in report.write_footnotes(("n", "gmacs")))


def test_each_shown_cost_has_a_footnote_with_the_hardware(made: tuple[Report, Lab]) -> None:
    report, _ = made
    for column, words in {
        "peak_memory": "Memory: the largest peak of a trial",
        "train_seconds": "Train s: mean time of a trial's training",
        "images_per_s": "Images/s during training",
        "device_hours": "Device-hours of training and evaluation",
    }.items():
        (note,) = (note for note in report.write_footnotes((column,)) if note.startswith(words))
        assert note.endswith("; on a CPU.")


def test_the_order_of_cells_is_of_those_on_the_same_images(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    for planned in make_plan(grid, lab).trials:
        if planned.trial.names["head"] == "fcn16s":
            finish(planned, 0.9, image="street")
    text = " ".join(make_report(make_plan(grid, lab), lab, None).summary_text)
    assert "fcn8s has the highest mIoU in all 3 seeds among the cells on the same images. For two random" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"fcn32s": (0.5, 0.1, 0.1), "fcn16s": (0.4, 0.6, 0.4), "fcn8s": (0.3, 0.3, 0.5)},
            "fcn16s has the highest mIoU in 1 of 3 seeds. For two random seeds, 33 % of the pairs of cells have",
        ),
        (
            {"fcn32s": (0.5, 0.1, 0.1), "fcn16s": (0.4, 0.4, 0.4), "fcn8s": (0.3, 0.5, 0.1)},
            "fcn16s has the highest mIoU in 1 of 3 seeds.",
        ),
        (
            {"fcn32s": (0.5, 0.1, 0.1), "fcn16s": (0.4, 0.4, 0.4), "fcn8s": (0.1, 0.5, 0.5)},
            "fcn16s has the highest mIoU in none of 3 seeds.",
        ),
        (
            {"fcn32s": (0.6, 0.1, 0.1), "fcn16s": (0.6, 0.6, 0.4), "fcn8s": (0.3, 0.3, 0.5)},
            "fcn16s has the highest mIoU in 2 of 3 seeds (tied with another cell in 1 of them).",
        ),
    ],
)
def test_the_summary_counts_the_seeds_in_which_the_cell_with_the_highest_mean_wins(
    made: tuple[Report, Lab], values: dict[str, tuple[float, ...]], expected: str
) -> None:
    report, _ = made
    miou = [values[head][seed] for head, seed in zip(report.trials["head"], report.trials["seed"], strict=True)]
    trials = report.trials.assign(miou=miou)
    sentences = summarize(report.grid, trials, report.cells, report.significance, report.groups)
    assert expected in " ".join(sentences)


def test_below_three_seeds_significance_is_not_reported(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, THREE.replace("seeds: 3", "seeds: 2"))
    report = make_report(make_plan(grid, lab), lab, None)
    assert all(cells[3].endswith("]°") for cells in report.cell_table.rows[1:])
    assert row(report, "fcn8s")["significant"] is pd.NA
    assert "No claim is made about these differences: fewer than 3 common seeds." in report.summary_text
    assert any(note.startswith("°") for note in report.footnotes)
    assert not any("significant" in sentence for sentence in report.summary_text)
    assert report.cell_table.marks == {(2, 2)}
    assert any(note.startswith("Bold") and "no claim" in note for note in report.footnotes)


def test_the_note_of_one_seed_excludes_the_variance_of_training(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, THREE.replace("seeds: 3", "seeds: 1"))
    report = make_report(make_plan(grid, lab), lab, None)
    assert any("variance of training is not included" in note for note in report.footnotes)
    assert not any("mean over" in note for note in report.footnotes)  # each class is labeled


def test_a_class_without_labeled_pixels_is_excluded_from_means_and_named(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    plan = make_plan(grid, lab)
    for planned in plan.trials:
        head = planned.trial.names["head"]
        counts = counted(RIGHT[head], planned.trial.seed)
        counts[:, 2] = (0, 20, 0) if head == "fcn8s" else 0  # one cell predicts the class, the others do not
        finish(planned, RIGHT[head], counts)
    report = make_report(plan, lab, None)
    assert "mIoU is the mean over 2 of 3 classes: box has no pixel in test." in report.footnotes
    assert row(report, "fcn8s")["miou"] == pytest.approx(RIGHT["fcn8s"] / (2 - RIGHT["fcn8s"]), abs=0.02)
    table = class_table(report)
    assert [row[2:] for row in table.rows if row[0] == "box"] == [("–", "–", "–")]


def test_classes_with_one_name_are_sorted_by_their_own_values(tmp_path: Path) -> None:
    report = make_report_of_repeated_class(tmp_path)
    found = make_sortable_classes(report, ["#000000", "#800000", "#008000"])
    assert found is not None and found.colors == ("#000000", "#800000", "#008000")
    for texts, keys in zip(found.table.rows, found.keys, strict=True):
        assert [f"{100 * float(key):.1f}" for key in keys[2:]] == [text.split()[0] for text in texts[2:]]


def test_cells_that_are_not_comparable_are_marked_and_named(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    planned = next(one for one in make_plan(grid, lab).trials if one.trial.names["head"] == "fcn16s")
    finish(planned, RIGHT["fcn16s"], micro_batches=2)
    report = make_report(make_plan(grid, lab), lab, None)
    assert [cells[0] for cells in report.cell_table.rows] == ["fcn32s", "fcn16s†", "fcn8s"]
    (note,) = (note for note in report.footnotes if note.startswith("† fcn16s: micro-batches"))
    assert len(report.flags) == 1
    twice = report.significance.flags | {"fcn8s": report.significance.flags["fcn16s"]}
    both = replace(report, significance=replace(report.significance, flags=twice))
    assert [one for one in both.footnotes if "†" in one] == [note.replace("fcn16s", "2 cells (fcn16s; fcn8s)", 1)]


def test_a_pruned_cell_has_no_metrics_even_if_its_trials_have_records(tmp_path: Path) -> None:
    text = THREE + "early_stopping: {after: 1, margin: 1}\n"
    path = write_grid(tmp_path, text.replace("recipe: smoke", "recipe: smoke, recipe.validate_every: 1"))
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        head = planned.trial.names["head"]
        record = finish(planned, RIGHT[head])
        score = 0.1 if head == "fcn16s" else 0.5
        epochs = tuple(epoch.model_copy(update={"val_miou": score}) for epoch in record.epochs)
        planned.folder.finish(record.model_copy(update={"epochs": epochs}))
    report = make_report(make_plan(grid, lab), lab, None)
    pruned = report.cell_table.rows[1]
    assert pruned[1] == "0 of 3, pruned after epoch 1"
    assert pruned[2] == "–"
    assert math.isnan(row(report, "fcn16s")["miou"])
    assert "fcn16s" not in report.significance.comparisons


@pytest.mark.parametrize("rule", ["", "early_stopping: {after: 1, margin: 1}\n"])
def test_a_trial_is_pruned_in_mlflow_only_if_the_grid_has_early_stopping(tmp_path: Path, rule: str) -> None:
    text = THREE.replace("recipe: smoke", "recipe: smoke, recipe.validate_every: 1")
    path = write_grid(tmp_path, text + "early_stopping: {after: 1, margin: 1}\n")
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    plan = make_plan(grid, lab)
    tracker = open_tracker(grid, lab)
    tracker.start_grid({planned.key for planned in plan.trials})
    planned = plan.trials[0]
    trial = TrackedTrial(planned.trial, planned.cell.label, "weak", {}, "fcnlab", planned.folder, 0.0)
    tracker.start_trial(trial)
    tracker.pause_trial(trial, pruned_after=1)
    plan = make_plan(lab.load_grid(write_grid(tmp_path, text + rule)), lab)
    shown = trials_frame(plan, open_tracker(plan.grid, lab)).set_index("key").loc[planned.key]
    assert shown["status"] == ("pruned" if rule else "missing")


def test_the_report_from_mlflow_only_is_the_same(made: tuple[Report, Lab], tmp_path: Path) -> None:
    here, lab = made
    from fcnlab.runner.progress.base import ProgressReporter
    from fcnlab.runner.run import sync_grid

    assert sync_grid(here.grid, lab, ProgressReporter()).deferred == {}
    away = Lab.find(root=tmp_path, tracking_uri=lab.tracking_uri)
    tracker = open_tracker(here.grid, away)
    there = make_report(make_plan(here.grid, away), away, tracker)
    pd.testing.assert_frame_equal(there.cells, here.cells)
    assert there.footnotes == here.footnotes
    assert not (tmp_path / "runs").exists()
    again = load_records(there.trials, away.runs, None, tmp_path / ".fcnlab" / "fetched", "last")
    assert again.by_cell == {}, "without MLflow only runs/ is read"


def test_a_trial_that_failed_here_and_finished_elsewhere_is_loaded_from_mlflow(
    made: tuple[Report, Lab], tmp_path: Path
) -> None:
    here, lab = made
    from fcnlab.runner.progress.base import ProgressReporter
    from fcnlab.runner.run import sync_grid

    assert sync_grid(here.grid, lab, ProgressReporter()).deferred == {}
    away = Lab.find(root=tmp_path, tracking_uri=lab.tracking_uri)
    first = make_plan(here.grid, away).trials[0]
    assert (first.cell.label, first.trial.seed) == (here.grid.baseline.label, 0)
    first.folder.create()
    first.folder.finish(failed_record(first.trial))
    tracker = open_tracker(here.grid, away)
    there = make_report(make_plan(here.grid, away), away, tracker)
    pd.testing.assert_frame_equal(there.cells, here.cells)
    assert there.records.by_cell[first.cell.label][0].status == "finished"
    local = load_records(there.trials, away.runs, None, tmp_path / ".fcnlab" / "fetched", "last")
    assert local.by_cell == {}, "a failed record is not that of a finished trial"


def unequal_seeds(root: Path, right: float) -> tuple[Grid, Lab]:
    """A lab of a baseline with five seeds and a cell that is better in its three; `right` is that of the other two."""
    path = write_grid(root, SMOKE.replace("seeds: 2", "seeds: 5"))
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        head, seed = planned.trial.names["head"], planned.trial.seed
        if head == "fcn32s" or seed < 3:
            finish(planned, 0.67 if head == "fcn8s" else 0.66 if seed < 3 else right)
    return grid, lab


def test_a_cell_that_is_better_over_the_common_seeds_only_is_explained(tmp_path: Path) -> None:
    grid, lab = unequal_seeds(tmp_path, 0.74)
    report = make_report(make_plan(grid, lab), lab, None)
    better, baseline = row(report, "fcn8s"), row(report, "fcn32s")
    assert better["miou"] < baseline["miou"] and better["delta"] > 0 and better["significant"]
    shared = "Δ is over the seeds shared with fcn32s; it can differ from the difference of the means."
    reason = "another cell is significantly better over the seeds that both have."
    assert shared in report.footnotes
    assert f"Bold: the highest mean mIoU only; {reason}" in report.footnotes
    notes = report_to_latex(report).partition("bottomrule")[2]
    assert "over the seeds shared with fcn32s" in notes and f"Bold: highest mean; {reason}" in notes
    assert (list(report.cells["best"]), report.best.marks_equal_cells) == ([True, False], False)
    assert [line for line in report.mark("max").footnotes if "Bold" in line] == ["Bold: the highest mean mIoU."]


def test_the_difference_and_its_interval_are_of_the_same_seeds_without_the_counts_of_a_trial(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    plan = make_plan(grid, lab)
    complete = make_report(plan, lab, None)
    assert not any("could not be read" in note for note in complete.footnotes)
    planned = {(one.cell.label, one.trial.seed): one for one in plan.trials}

    def remove_counts(cell: str, seed: int) -> None:
        one = planned[cell, seed]
        record = one.record
        assert record is not None
        one.folder.counts.unlink()
        one.folder.finish(record)

    remove_counts("fcn8s", 0)
    report = make_report(plan, lab, None)
    found, expected = row(report, "fcn8s"), report.significance.comparisons["fcn8s"].difference
    assert (found["n"], found["delta_n"]) == (3, 2)
    assert found["delta"] == expected.value != row(complete, "fcn8s")["delta"]
    assert found["delta_std"] == pytest.approx(np.std(list(expected.by_seed.values()), ddof=1))
    assert (found["delta_low"] + found["delta_high"]) / 2 == pytest.approx(found["delta"])
    assert report.cell_table.rows[2][3].endswith("]°") and report.cell_table.rows[1][3].endswith("]")
    assert any(note.startswith("The counts of 1 trial could not be read: Δ is over") for note in report.footnotes)
    for seed in range(3):
        remove_counts("fcn16s", seed)
    report = make_report(plan, lab, None)
    assert row(report, "fcn16s")["delta"] == row(complete, "fcn16s")["delta"]
    assert "[" not in report.cell_table.rows[1][3]
    assert report.groups[0].others == (), "without counts, cells are compared by the fingerprint of their data"
    assert any(note.startswith("The counts of 4 trials") for note in report.footnotes)


def test_cells_that_were_evaluated_on_other_images_are_not_shown_beside_the_others(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    plan = make_plan(grid, lab)
    assert describe_other_images(make_report(plan, lab, None)) == ""
    streets = [planned for planned in plan.trials if planned.trial.names["head"] == "fcn8s"]
    for planned in streets:  # images with the same names, of another size and with other classes
        finish(planned, 0.9, counted(0.9, planned.trial.seed)[:, :2], classes=("road", "sky"))
        for picture in planned.folder.samples.iterdir():
            Image.open(picture).resize((32, 24), Image.Resampling.NEAREST).save(picture)
        planned.folder.finish(planned.record)
    report = make_report(plan, lab, None)
    section = write_report(report, lab, predict=False)
    assert section.gallery is not None and [cell.label for cell in section.gallery.cells] == ["fcn32s", "fcn16s"]
    classes = class_table(report)
    assert classes.headings == ("class", "images", "fcn32s", "fcn16s")
    assert [row[:2] for row in classes.rows] == [(name, str(IMAGES)) for name in CLASSES]
    note = "Classes and images are shown without fcn8s, which was evaluated on other images or classes than fcn32s."
    page, markdown = ((report.folder / name).read_text() for name in ("report.html", "README.md"))
    assert page.count(note) == markdown.count(note) == 1 and "road" not in page
    footnotes = " ".join(report.footnotes)
    assert "fcn8s was evaluated on other images or classes than fcn32s: its Δ has no interval." in footnotes
    assert "other cells, which were evaluated on other images." in footnotes, "fcn8s is the best cell"
    assert "no counts" not in footnotes and row(report, "fcn8s")["delta_n"] == 3

    for planned in streets:  # other images of the same size and with the same classes
        finish(planned, 0.5, counted(0.5, planned.trial.seed)[::-1])
    report = make_report(plan, lab, None)
    found = select_gallery(report, lab, predict=False)
    assert found is not None and [cell.label for cell in found.cells] == ["fcn32s", "fcn16s"]
    assert "; 1 cell evaluated on other images is not compared." in report.best.note
    only = View().make_table(report.cells, report.names)
    assert "[" in only.rows[1][3] and "[" not in only.rows[2][3]


def test_without_a_finished_baseline_classes_and_images_are_those_of_the_best_cell(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    plan = make_plan(grid, lab)
    for planned in plan.trials:
        head = planned.trial.names["head"]
        if head == "fcn32s":
            planned.folder.finish(failed_record(planned.trial))
        elif head == "fcn16s":
            finish(planned, 0.5, classes=("road", "sky", "tree"))
    report = make_report(make_plan(grid, lab), lab, None)
    assert report.classes == CLASSES and report.groups[0].others == ("fcn16s",)
    classes = class_table(report)
    assert classes.headings == ("class", "images", "fcn8s")


def test_cells_without_a_common_epoch_have_no_curve(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    for planned in make_plan(grid, lab).trials:
        record = planned.record
        assert record is not None
        only = record.epochs[planned.trial.seed % 2]
        planned.folder.finish(record.model_copy(update={"epochs": (only,)}))
    names = {plot.name for plot in draw_plots(make_report(make_plan(grid, lab), lab, None))}
    assert "seeds" in names and "loss" not in names


def test_the_files_are_complete_and_regenerating_changes_nothing(made: tuple[Report, Lab], written: Path) -> None:
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    plots = {f"plots/{name}.{kind}" for name in CHARTS for kind in ("png", "svg")}
    tables = {"table.csv", "table.md", "table.tex", "trials.csv"}
    assert names == plots | tables | {"README.md", "report.html", "provenance.json", "predictions.png"}
    before = {name: (written / name).read_bytes() for name in names}
    write_report(*made, predict=False)
    assert {name: (written / name).read_bytes() for name in names} == before


def test_written_files_do_not_name_this_machine(made: tuple[Report, Lab], written: Path) -> None:
    for path in written.rglob("*"):
        if path.suffix in (".md", ".html", ".csv", ".tex", ".json", ".svg"):
            assert str(made[1].root) not in path.read_text(encoding="utf-8"), path


def test_latex_tables_are_well_formed(written: Path) -> None:
    lines = (written / "table.tex").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("%"))
    assert text.isascii()
    for command in ("table", "tabular"):
        assert text.count(f"\\begin{{{command}}}") == text.count(f"\\end{{{command}}}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    columns = re.search(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}", text)
    assert columns is not None
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows} == {len(columns[1])}
    plain = re.sub(r"\\[%&#$_{}]", "", text)
    assert "%" not in plain and "#" not in plain and "_" not in plain
    assert plain.count("$") % 2 == 0 and plain.count("{") == plain.count("}")


def test_a_view_chooses_sorts_groups_and_pivots(made: tuple[Report, Lab]) -> None:
    report, _ = made
    table = View(("miou", "p_holm"), sort="-miou").make_table(report.cells, report.names)
    assert table.headings == ("head", "mIoU %", "p (Holm)")
    assert [cells[0] for cells in table.rows] == ["fcn8s", "fcn16s", "fcn32s"]
    assert [table.rows[index][0] for index in table.baseline_rows] == ["fcn32s"]
    cells = report.cells.assign(upsampler=["a", "b", "a"])
    names = raw_names(cells, ["head", "upsampler"])
    grouped = View(group_by="upsampler").make_table(cells, names)
    assert [texts[:2] for texts in grouped.rows] == [("fcn32s", "a"), ("fcn8s", "a"), ("fcn16s", "b")]
    assert grouped.group_starts == (2,)
    pivoted = View(pivot=("head", "upsampler")).make_table(cells, names)
    assert pivoted.headings == ("head", "upsampler a, mIoU %", "upsampler b, mIoU %")
    assert [bool(text) for text in pivoted.rows[1]] == [True, False, True]


def test_cells_of_a_pivoted_table_that_would_replace_each_other_are_an_error(made: tuple[Report, Lab]) -> None:
    cells = made[0].cells.assign(head=["a", "b", "b"], upsampler=[1, 1, 2])
    axes, shown = ["head", "upsampler"], {"upsampler": "low"}
    values = {cell: {"head": head} | shown for cell, head in zip(cells["cell"], cells["head"], strict=True)}
    names = Names({axis: axis for axis in axes}, values, {})
    assert len(View().make_table(cells, names).rows) == 3
    with pytest.raises(ConfigError, match=r"the cells 'fcn16s' and 'fcn8s' have the same place.*labels: values"):
        View(pivot=("head", "upsampler")).make_table(cells, names)
    merged = View(pivot=("head", "upsampler")).make_table(cells.iloc[:2], names)
    assert merged.headings == ("head", "upsampler low, mIoU %") and len(merged.rows) == 2


@pytest.mark.parametrize(
    ("view", "nearest"),
    [(View(("moiu",)), "miou"), (View(sort="-detla"), "delta"), (View(group_by="heda"), "head")],
)
def test_a_misspelled_name_is_reported_with_the_nearest(made: tuple[Report, Lab], view: View, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{nearest}'"):
        view.make_table(made[0].cells, made[0].names)


def test_csv_and_json_contain_raw_values(made: tuple[Report, Lab]) -> None:
    report, _ = made
    view = View(("miou",), sort="miou")
    lines = to_csv(report, view).splitlines()
    assert lines[0] == "cell,head,miou,miou_std,baseline"
    values = json.loads(json.dumps(to_values(report, view), allow_nan=False))
    assert [cell["cell"] for cell in values["cells"]] == ["fcn32s", "fcn16s", "fcn8s"]
    assert values["cells"][0]["miou"] == pytest.approx(row(report, "fcn32s")["miou"])


def test_larger_differences_need_fewer_seeds(made: tuple[Report, Lab]) -> None:
    small, large = (make_seed_table(made[0], points).rows[0][2] for points in (0.3, 5.0))
    assert int(large) == 0
    assert small == "–" or int(small) > 0


def test_compare_agrees_with_the_table(made: tuple[Report, Lab]) -> None:
    report, lab = made
    a, b = (load_side(find_reference(f"{report.grid.path}:{head}", lab), lab) for head in ("fcn32s", "fcn8s"))
    found = compare(a, b)
    assert found.difference.value == pytest.approx(row(report, "fcn8s")["delta"])
    assert compare(b, a).difference.value == pytest.approx(-found.difference.value)
    distances = [abs(float(cells[3])) for cells in make_images_table(found).rows]
    assert distances == sorted(distances, reverse=True)
    keys = report.trials.set_index(["head", "seed"])["key"]
    one, other = (load_side(find_reference(keys[head, seed], lab), lab) for head, seed in (("fcn32s", 0), ("fcn8s", 1)))
    assert compare(one, other).difference.seeds == 1


def test_images_are_compared_over_the_seeds_of_the_difference(tmp_path: Path) -> None:
    grid, lab = unequal_seeds(tmp_path, 0.9)
    found = compare(*(load_side(find_reference(f"{grid.path}:{head}", lab), lab) for head in ("fcn32s", "fcn8s")))
    assert found.difference.seeds == 3 and found.difference.value > 0
    assert found.images["delta"].mean() == pytest.approx(found.difference.value, abs=0.005)
    values = to_comparison_values(found)
    assert values["a"] == {"name": "fcn32s", "seeds": [0, 1, 2], "checkpoint": "last"}


def test_cells_of_one_name_in_two_grids_are_named_with_their_grids(made: tuple[Report, Lab]) -> None:
    report, lab = made
    copy = report.grid.path.with_stem("copy")
    copy.write_bytes(report.grid.path.read_bytes())
    a, b = (load_side(find_reference(f"{path}:fcn8s", lab), lab) for path in (report.grid.path, copy))
    found = compare(a, b)
    assert (found.a.name, found.b.name) == (f"fcn8s ({report.grid.name})", "fcn8s (copy)")
    copy.unlink()
    assert compare(a, a).a.name == "fcn8s", "as where the best cell is the baseline"


def test_compare_refuses_different_checkpoints_and_names_that_of_both_sides(made: tuple[Report, Lab]) -> None:
    report, lab = made
    path = write_grid(lab.root, THREE + "checkpoint: best\n", "best")
    last = load_side(find_reference(f"{report.grid.path}:fcn32s:0", lab), lab)
    one, other = (load_side(find_reference(f"{path}:{head}:0", lab), lab) for head in ("fcn32s", "fcn8s"))
    by_key = load_side(find_reference(report.trials["key"][0], lab), lab)
    for a in (last, by_key):
        with pytest.raises(RunError, match=r"last epoch and .* best mIoU on val.*the same 'checkpoint'"):
            compare(a, other)
    assert "“fcn32s, seed 0” at the epoch with the best mIoU on val: 95" in describe_difference(compare(one, other))
    assert "at the last epoch: 95" in describe_difference(compare(last, by_key))
    values = to_comparison_values(compare(one, other))
    assert values["a"] == {"name": "fcn32s, seed 0", "seeds": [0], "checkpoint": "best"}


def test_a_trial_of_several_grids_has_the_values_and_axes_of_each_grid(made: tuple[Report, Lab]) -> None:
    report, lab = made
    text = THREE.replace(
        "product: {head: [fcn32s, fcn16s, fcn8s]}", "product: {head: [fcn8s], recipe.ema: [null, 0.9]}"
    )
    text = text.replace("baseline: {head: fcn32s}", "checkpoint: best")
    path = write_grid(lab.root, text, "other")
    other = make_report(make_plan(lab.load_grid(path), lab), lab, None)
    frame = merge_trials([report, other, report])
    assert list(frame.columns[:2]) == ["grid", "checkpoint"]
    pd.testing.assert_frame_equal(frame[frame["grid"] == "question"][report.trials.columns], report.trials)
    rows = frame[frame["grid"] == "other"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[other.trials.columns], other.trials)
    assert rows["key"].isin(report.trials["key"]).sum() == 3, "the trials without EMA"
    assert frame.groupby("grid")["checkpoint"].unique().map(list).to_dict() == {"question": ["last"], "other": ["best"]}
    assert sorted(rows.groupby("recipe.ema").size()) == [3, 3]
    assert frame["recipe.ema"][frame["grid"] == "question"].isna().all()


def test_folders_of_several_grids_have_short_names_of_their_own(made: tuple[Report, Lab]) -> None:
    report, lab = made
    names = [["a", "b"], ["a/b", "c"], ["a-b", "c"], ["a+b", "c"], ["a", "b+c"], ["é" * 99] * 8, ["é" * 99] * 9]
    folders = [name_combined(one) for one in names]
    assert folders[0] == "a+b" and folders[2] == "a-b+c" and len(set(folders)) == len(names)
    assert not any("/" in folder or len(f"{folder}.report.lock".encode()) > 255 for folder in folders)
    long = [
        replace(report, plan=replace(report.plan, grid=replace(report.grid, name=letter * 125)))
        for letter in "abcdefgh"
    ]
    folder = write_combined([Section(one, (), None, {}) for one in long], lab)
    assert folder.is_relative_to(lab.results)
    assert {file.name for file in folder.iterdir()} == {"report.html", "trials.csv"}


def test_texts_of_the_user_are_escaped(made: tuple[Report, Lab]) -> None:
    cells = made[0].cells.assign(head=["<b>", "a & b", "50 % ≤ ü 日"])
    table = View().make_table(cells, raw_names(cells, ["head"]))
    assert "<b>" not in to_html(table)
    assert r"50 \% $\leq$ ü 日" in plain_latex(table, "")


def test_the_documentation_names_every_column(made: tuple[Report, Lab]) -> None:
    report, _ = made
    text = (REPOSITORY / "docs" / "reading-a-report.md").read_text(encoding="utf-8")
    frame, summary = text.split("`fcnlab.frame(grid)` is tidy")[1].split("`fcnlab.summary(grid)`")
    for part, columns in ((frame, report.trials.columns), (summary, report.cells.columns)):
        listed = [line.split("|")[1] for line in part.splitlines() if line.startswith("|")]
        assert set(re.findall(r"`([\w.]+)`", " ".join(listed))) | {"head"} == set(columns) | {"head"}
    from fcnlab.report.tables.columns import COLUMNS

    table = text.split("## The table")[1].split("### Markers")[0]
    output = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE))
    assert output == {name: column.heading for name, column in COLUMNS.items()}


def test_a_trial_on_two_devices_counts_twice_its_time(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    planned = make_plan(grid, lab).trials[0]
    record = planned.record
    assert record is not None and record.environment is not None
    before = trials_frame(make_plan(grid, lab), None).set_index("key").loc[planned.key]
    planned.folder.finish(
        record.model_copy(update={"environment": record.environment.model_copy(update={"devices": 2})})
    )
    after = trials_frame(make_plan(grid, lab), None).set_index("key").loc[planned.key]
    assert after["device_hours"] == pytest.approx(2 * before["device_hours"])
    assert after["device"] == f"2 x {before['device']}"


def test_gmacs_that_could_not_be_counted_are_missing_in_the_table(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    for without in ([make_plan(grid, lab).trials[0].cell.label], [cell.label for cell in grid.cells]):
        for planned in make_plan(grid, lab).trials:
            record = planned.record
            assert record is not None and record.cost is not None
            if planned.cell.label in without:
                planned.folder.finish(
                    record.model_copy(update={"cost": record.cost.model_copy(update={"gmacs": None})})
                )
        report = make_report(make_plan(grid, lab), lab, None)
        assert all(math.isnan(row(report, label)["gmacs"]) for label in without)
        every = len(without) == len(grid.cells)
        assert ("GMACs" in report.cell_table.headings) != every
        assert ("GMACs for one image of 64x64" in " ".join(report.footnotes)) != every


def test_trials_that_shared_a_gpu_share_its_hours_and_are_named(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    alone = make_report(make_plan(grid, lab), lab, None)
    assert "shared a GPU" not in " ".join(alone.footnotes)
    for planned in make_plan(grid, lab).trials:
        record = planned.record
        assert record is not None and record.environment is not None
        environment = record.environment.model_copy(update={"trials_per_device": 4, "device": "NVIDIA H100"})
        planned.folder.finish(record.model_copy(update={"environment": environment}))
        assert extract_tags(record.model_copy(update={"environment": environment}))["fcnlab.trials_per_device"] == "4"
    shared = make_report(make_plan(grid, lab), lab, None)
    assert list(shared.cells["device_hours"]) == pytest.approx(list(alone.cells["device_hours"] / 4))
    assert list(shared.cells["images_per_s"]) == list(alone.cells["images_per_s"])
    assert "4 trials shared a GPU: images/s is the speed of one of them" in " ".join(shared.footnotes)
    planned, record = make_plan(grid, lab).trials[0], make_plan(grid, lab).trials[0].record
    assert record is not None and record.environment is not None
    environment = record.environment.model_copy(update={"trials_per_device": 2})
    planned.folder.finish(record.model_copy(update={"environment": environment}))
    mixed = " ".join(make_report(make_plan(grid, lab), lab, None).footnotes)
    assert f"2 trials shared a GPU ({grid.cells[0].label}): " in mixed


def test_looking_for_seeds_reads_no_counts(tmp_path: Path) -> None:
    counts = SeedCounts({0: (RunFolder(tmp_path, "absent"), "test_last")})
    assert 0 in counts and 1 not in counts
    assert counts.keys() & {0, 1} == {0}


def test_work_of_a_frame_grows_in_proportion_to_its_trials(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, THREE.replace("seeds: 3", "seeds: 1"))
    plan = make_plan(grid, lab)
    many, twice = (type(plan)(grid, plan.trials * copies) for copies in (50, 100))
    assert len(trials_frame(twice, None)) == 300
    assert count_calls(lambda: trials_frame(twice, None)) < 2.5 * count_calls(lambda: trials_frame(many, None))
