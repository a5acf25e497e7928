"""Reports of a grid with a cross-validation: each seed has the images of the fold that it holds out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.report.comparison import compare, load_side
from fcnlab.report.gallery.selection import select_gallery
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.classes import collect_class_results
from fcnlab.report.tables.paper import report_to_latex
from fcnlab.report.write import write_report
from fcnlab.runner.cost.history import Workload
from fcnlab.runner.find import find_reference
from fcnlab.runner.plan import make_plan
from fcnlab.trial.evaluation.evaluate import resolve_target
from tests.conftest import write_grid
from tests.report.finished_grid import IMAGES, RIGHT, counted, finish

REGISTRY = """
mine:
  type: folder
  images: mine/images
  masks: mine/masks
  classes: [background, disc, box]
  cross_validation: {folds: 3, val: 0.2}
  splits: {test: test}
  nominal: {height: 64, width: 64}
"""
GRID = """
question: Do skips help?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: mine, recipe: smoke}
product: {head: [fcn32s, fcn16s, fcn8s]}
seeds: 4
baseline: {head: fcn32s}
"""


def make_lab(root: Path, finished: Callable[[str, int], bool] = lambda _head, _seed: True) -> tuple[Grid, Lab]:
    """A lab with a dataset in three folds, whose trials have counts of different images for each fold."""
    for index in range(9):
        for name, mode in (("images", "RGB"), ("masks", "L")):
            (root / "mine" / name).mkdir(parents=True, exist_ok=True)
            Image.new(mode, (16, 16), color=index if mode == "RGB" else index % 3).save(
                root / f"mine/{name}/{index}.png"
            )
    (root / "registry").mkdir()
    (root / "registry/datasets.yaml").write_text(REGISTRY, encoding="utf-8")
    path = write_grid(root, GRID)
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        head, seed = planned.trial.names["head"], planned.trial.seed
        if finished(head, seed):
            finish(planned, RIGHT[head], np.roll(counted(RIGHT[head], seed), seed, axis=0), image=f"fold{seed}")
    return grid, lab


def report_of(grid: Grid, lab: Lab) -> Report:
    return make_report(make_plan(grid, lab), lab, None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, Lab]:
    return make_lab(tmp_path_factory.mktemp("lab"))


def test_each_seed_trains_on_its_fold_with_other_data(finished: tuple[Grid, Lab]) -> None:
    grid, lab = finished
    by_cell: dict[str, list[str]] = {}
    for planned in make_plan(grid, lab).trials:
        by_cell.setdefault(planned.cell.label, []).append(planned.trial.data)
    assert len({tuple(data) for data in by_cell.values()}) == 1, "cells are paired by fold"
    [data, *_] = by_cell.values()
    assert len(set(data)) == 4, "the fourth seed has another division"


def test_the_difference_is_over_folds_and_no_cell_is_flagged(finished: tuple[Grid, Lab]) -> None:
    report = report_of(*finished)
    assert report.flags == [] and report.groups[0].others == ()
    row = report.cells.set_index("cell").loc["fcn8s"]
    values = report.trials.pivot(index="seed", columns="cell", values="miou")
    difference = values["fcn8s"] - values["fcn32s"]
    assert (row["delta"], row["delta_n"]) == (pytest.approx(difference.mean()), 4)
    error = difference.std() * np.sqrt(1 / 4 + (1 / 3) / (1 - 1 / 3 - 0.2))
    assert row["delta_high"] - row["delta_low"] == pytest.approx(2 * 3.182446 * error)
    assert row["significant"] is True or bool(row["significant"])
    comparison = report.significance.comparisons["fcn8s"]
    assert comparison.difference.images == 3 * IMAGES, "the images of seed 3 are among them"


def test_footnotes_describe_the_folds_and_the_interval(finished: tuple[Grid, Lab]) -> None:
    footnotes = "\n".join(report_of(*finished).footnotes)
    assert (
        "Cross-validation in 3 folds: each image is held out once per 3 seeds; every further 3 seeds use another "
        "division."
    ) in footnotes
    assert f"Evaluated on test ({3 * IMAGES} images, held out in 3 folds) at native size" in footnotes
    assert "Student's t, variance of folds corrected for their common training images" in footnotes
    assert "bootstrap" not in footnotes


def list_notes_on_classes(grid: Grid, lab: Lab, seeds: tuple[int, ...]) -> list[str]:
    """Return the notes on classes, after trials of which those with these seeds have no pixel of the class box."""
    for planned in make_plan(grid, lab).trials:
        counts = counted(0.7, planned.trial.seed)
        if planned.trial.seed in seeds:
            counts[:, 2] = 0
        finish(planned, 0.7, counts, image=f"fold{planned.trial.seed}")
    report = report_of(grid, lab)
    notes = [line for line in report.footnotes if "no pixel" in line]
    below = report_to_latex(report).partition("bottomrule")[2].replace("\\allowbreak{}", "")
    assert all(note in below for note in notes)
    return notes


def test_one_footnote_counts_the_folds_without_a_class(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path, lambda _head, _seed: False)
    note = "mIoU of a fold is the mean over its labeled classes: box has no pixel in {} of {} folds."
    assert list_notes_on_classes(grid, lab, (0, 2, 3)) == [note.format(3, 4)]
    assert list_notes_on_classes(grid, lab, ()) == []
    once = lab.load_grid(write_grid(tmp_path, GRID.replace("seeds: 4", "seeds: 1"), "once"))
    assert list_notes_on_classes(once, lab, (0,)) == ["mIoU is the mean over 2 of 3 classes: box has no pixel in test."]


def test_footnotes_on_absent_classes_name_the_number_of_folds_and_the_dataset(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, lambda _head, _seed: False)[1]
    text = GRID.replace("seeds: 4", "seeds: 1").replace("baseline: {head: fcn32s}\n", "")
    several = text.replace("head: [fcn32s, fcn16s, fcn8s]", "head: [fcn8s], dataset.cross_validation.folds: [2, 3]")
    grid = lab.load_grid(write_grid(tmp_path, several, "folds"))
    note = "mIoU of a fold is the mean over its labeled classes: box has no pixel in 2 of 2 folds."
    assert list_notes_on_classes(grid, lab, (0,)) == [note]
    several = text.replace("dataset: mine, ", "").replace(
        "[fcn32s, fcn16s, fcn8s]", "[fcn8s], dataset: [mine, shapes-mini]"
    )
    grid = lab.load_grid(write_grid(tmp_path, several, "datasets"))
    start = "mIoU is the mean over 2 of 3 classes: box has no pixel in test of "
    assert list_notes_on_classes(grid, lab, (0,)) == [f"{start}mine.", f"{start}shapes-mini."]


def test_cells_of_other_data_in_the_same_fold_are_flagged(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path)
    for planned in make_plan(grid, lab).trials:
        if planned.trial.names["head"] == "fcn8s" and planned.trial.seed in (1, 2):
            record = planned.record
            assert record is not None
            changed = {**record.trial, "data": "sha256:" + "0" * 64}
            planned.folder.finish(record.model_copy(update={"trial": changed}))
    flags = report_of(grid, lab).flags
    assert len(flags) == 1, "one flag, also of two folds"
    assert flags[0].startswith("fcn8s: data: sha256:000000000000; the baseline has sha256:")


def test_missing_folds_are_stated_and_one_seed_has_the_interval_of_its_images(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path, lambda _head, seed: seed == 1)
    report = report_of(grid, lab)
    row = report.cells.set_index("cell").loc["fcn8s"]
    assert row["delta_low"] < row["delta"] < row["delta_high"]
    footnotes = "\n".join(report.footnotes)
    assert "in 3 folds: each image is held out once per 3 seeds; folds held out so far: 1." in footnotes
    assert f"Evaluated on test ({IMAGES} images, held out in 1 of 3 folds)" in footnotes
    assert "variance of images" in footnotes and "variance of folds" not in footnotes
    write_report(report, lab, predict=False)


def test_the_images_of_the_gallery_are_those_of_one_fold(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path, lambda head, seed: (head, seed) != ("fcn8s", 0))
    gallery = select_gallery(report_of(grid, lab), lab, predict=False)
    assert gallery is not None and {cell.seed for cell in gallery.cells} == {1}
    assert gallery.disagreements and all(id_.startswith("fold1_") for id_ in gallery.disagreements)


def test_cells_are_compared_over_the_images_of_all_folds(finished: tuple[Grid, Lab]) -> None:
    grid, lab = finished
    sides = [load_side(find_reference(f"{grid.path}:{head}", lab), lab) for head in ("fcn32s", "fcn8s")]
    comparison = compare(*sides)
    difference = report_of(grid, lab).significance.comparisons["fcn8s"].difference
    assert (comparison.difference.low, comparison.difference.high) == (difference.low, difference.high)
    assert len(comparison.images) == comparison.images["image"].nunique() == 4 * IMAGES


def test_trials_of_two_folds_are_not_compared(finished: tuple[Grid, Lab]) -> None:
    grid, lab = finished

    def load(name: str) -> object:
        return load_side(find_reference(f"{grid.path}:{name}", lab), lab)

    assert compare(load("fcn32s:1"), load("fcn8s:1")).difference.seeds == 1
    with pytest.raises(RunError, match="different images or classes"):
        compare(load("fcn32s:1"), load("fcn8s:2"))


def test_another_evaluation_of_the_dataset_is_on_the_fold_of_the_trial(finished: tuple[Grid, Lab]) -> None:
    grid, lab = finished
    for seed in range(4):
        trial = find_reference(f"{grid.path}:fcn8s:{seed}", lab).read_finished()
        assert resolve_target(trial, lab, "mine", None) is None, "the reported split of the trial"
        target = resolve_target(trial, lab, "mine", "val")
        assert target is not None and target.config == trial.trial.dataset


def test_costs_of_one_fold_are_those_of_the_others(finished: tuple[Grid, Lab]) -> None:
    [workload, *others] = [Workload.of(trial) for cell, trial in finished[0].trials(finished[1].fingerprints)][::3]
    assert others == [workload] * 3


def test_the_table_of_classes_counts_the_images_of_all_folds(finished: tuple[Grid, Lab]) -> None:
    report = report_of(*finished)
    results = collect_class_results(report)
    assert results is not None and set(results.images.values()) == {3 * IMAGES}


def test_each_number_of_folds_and_a_fixed_fold_are_described(tmp_path: Path) -> None:
    grid, lab = make_lab(tmp_path, lambda _head, _seed: False)
    values = "product: {head: [fcn32s], dataset.cross_validation.FIELD: [VALUES]}"
    for field, numbers, footnotes in (
        (
            "folds",
            "2, 5",
            ["in 2 folds: ", "in 5 folds: each image is held out once per 5 seeds; folds held out so far: 4."],
        ),
        ("fold", "0, 2", ["all trials hold out fold 0 of 3.", "all trials hold out fold 2 of 3."]),
    ):
        product = values.replace("FIELD", field).replace("VALUES", numbers)
        text = GRID.replace("product: {head: [fcn32s, fcn16s, fcn8s]}", product).replace("baseline: {head: fcn32s}", "")
        grid = lab.load_grid(write_grid(tmp_path, text, field))
        for planned in make_plan(grid, lab).trials:
            finish(planned, 0.7, counted(0.7, planned.trial.seed))
        found = [line for line in report_of(grid, lab).footnotes if line.startswith("Cross-validation")]
        assert len(found) == 2 and all(part in line for part, line in zip(footnotes, found, strict=True))
