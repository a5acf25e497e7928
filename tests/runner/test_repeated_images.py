"""Images on which a trial is evaluated although it, or a trial that it is initialized from, was trained on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.report.report import make_report
from fcnlab.runner.checks.repeated_images import check_repeated_images
from fcnlab.runner.plan import Plan, make_plan
from fcnlab.trial.repeated_images import count_training_images
from tests.conftest import write_grid
from tests.data.images import random_image, random_mask, save_image
from tests.report.finished_grid import finish

CLASSES = "classes: [background, disc, box]\n  nominal: {height: 6, width: 8}"
REGISTRY = f"""
mine:
  type: folder
  images: mine/{{split}}
  masks: mine/{{split}}_masks
  splits: {{test: test}}
  {CLASSES}
copy:
  type: folder
  images: copy/images
  masks: copy/masks
  fractions: {{val: 0.5}}
  {CLASSES}
folds:
  type: folder
  images: copy/images
  masks: copy/masks
  cross_validation: {{folds: 2}}
  {CLASSES}
"""
GRID = """
question: q
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: DATASET, recipe: smoke, recipe.batch_size: 1}
product: {head: [fcn32s, fcn8s]}
baseline: {head: fcn32s}
"""
STAGED = GRID.replace("base: {", "base: {init_from: START, ")
SPLITS = {"train": (0, 1, 2), "val": (3, 4), "test": (5, 6)}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab with seven images in three splits, and the same images under other names in one folder."""
    for split, numbers in SPLITS.items():
        for number in numbers:
            save_image(random_image(number), tmp_path / f"mine/{split}/{number}.png")
            save_image(random_mask(number, (0, 1, 2)), tmp_path / f"mine/{split}_masks/{number}.png")
            save_image(random_image(number), tmp_path / f"copy/images/copy{number}.png")
            save_image(random_mask(number, (0, 1, 2)), tmp_path / f"copy/masks/copy{number}.png")
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(REGISTRY, encoding="utf-8")
    return Lab.find(root=tmp_path)


def plan_of(lab: Lab, text: str, name: str = "grid") -> Plan:
    return make_plan(lab.load_grid(write_grid(lab.root, text, name)), lab)


def finish_trials(lab: Lab, dataset: str, name: str = "earlier") -> Plan:
    plan = plan_of(lab, GRID.replace("DATASET", dataset), name)
    for planned in plan.trials:
        finish(planned, 0.7)
    return make_plan(plan.grid, lab)


def test_splits_without_a_common_image_have_no_warning_and_no_footnote(lab: Lab) -> None:
    assert check_repeated_images(plan_of(lab, GRID.replace("DATASET", "mine")), lab) == []
    assert "too high" not in " ".join(make_report(finish_trials(lab, "mine"), lab, None).footnotes)


def test_an_equal_image_in_two_splits_is_a_warning_and_a_footnote(lab: Lab) -> None:
    shutil.copy(lab.root / "mine/train/1.png", lab.root / "mine/test/6.png")
    warnings = check_repeated_images(plan_of(lab, GRID.replace("DATASET", "mine")), lab)
    assert warnings == [
        "also in 'train': 1 image of 'test' of mine (6, equal to 1), so metrics on 'test' will be too high; keep each "
        "image in one split"
    ]
    footnotes = " ".join(make_report(finish_trials(lab, "mine"), lab, None).footnotes)
    assert "Metrics are too high: trained on 1 image of 'test' of mine (6, equal to 1)." in footnotes


def test_an_equal_image_in_val_is_a_warning_without_a_footnote_if_test_is_reported(lab: Lab) -> None:
    shutil.copy(lab.root / "mine/train/1.png", lab.root / "mine/val/4.png")
    [warning] = check_repeated_images(plan_of(lab, GRID.replace("DATASET", "mine")), lab)
    assert "'val' of mine (4, equal to 1)" in warning
    assert "too high" not in " ".join(make_report(finish_trials(lab, "mine"), lab, None).footnotes)


def test_init_from_a_trial_that_was_trained_on_the_images_of_test_is_an_error(lab: Lab) -> None:
    key = finish_trials(lab, "copy").trials[0].key  # trained on four of the seven images, under other names
    with pytest.raises(
        ConfigError, match=f"init_from: the trial {key[:12]} was trained on . images? of 'test' of mine"
    ):
        check_repeated_images(plan_of(lab, STAGED.replace("START", key).replace("DATASET", "mine")), lab)


def test_a_trial_behind_the_one_of_init_from_is_compared_too(lab: Lab) -> None:
    text = STAGED.replace("START", "{dataset: mine, init_from: {dataset: copy}}").replace("DATASET", "mine")
    with pytest.raises(ConfigError, match=r"was trained on [12] images? of 'test' of mine"):
        check_repeated_images(plan_of(lab, text), lab)


def test_init_from_the_same_fold_is_valid_and_from_another_fold_is_an_error(lab: Lab) -> None:
    text = STAGED.replace("DATASET", "folds") + "seeds: 2\n"
    staged = plan_of(lab, text.replace("START", "{head: fcn16s}"), "staged")
    assert check_repeated_images(staged, lab) == []
    finish(staged.prerequisites[0], 0.7)
    key = staged.prerequisites[0].key
    with pytest.raises(ConfigError, match=f"the trial {key[:12]} was trained on [34] images of 'val' of folds"):
        check_repeated_images(plan_of(lab, text.replace("START", key), "named"), lab)


def test_an_initial_trial_whose_data_are_missing_is_a_warning(lab: Lab) -> None:
    key = finish_trials(lab, "copy").trials[0].key
    shutil.move(lab.root / "copy", lab.root / "away")
    [warning] = check_repeated_images(plan_of(lab, STAGED.replace("START", key).replace("DATASET", "mine")), lab)
    assert "init_from: the images of the initial trial were not compared: cell 'fcn32s': trial" in warning
    assert "copy/images" in warning


def test_the_images_of_another_dataset_that_a_trial_was_trained_on_are_counted(lab: Lab) -> None:
    trial = plan_of(lab, GRID.replace("DATASET", "mine")).trials[0].trial
    mine, copies = lab.registry.get("dataset", "mine"), lab.registry.get("dataset", "copy")
    assert count_training_images(trial, mine, "train", lab) == 3
    assert count_training_images(trial, mine, "test", lab) == 0
    assert sum(count_training_images(trial, copies, split, lab) or 0 for split in ("train", "val")) == 3
    shapes = lab.registry.get("dataset", "shapes-mini")
    assert count_training_images(trial, shapes, "test", lab) is None, "generated scenes are not files"
    for folder in ("train", "train_masks"):
        shutil.copy(lab.root / f"mine/{folder}/0.png", lab.root / f"mine/{folder}/7.png")
    assert count_training_images(trial, copies, "val", lab) is None, "the training images have changed since the plan"
