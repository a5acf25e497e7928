"""Seeds that do not hold out each fold of a cross-validation equally often."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fcnlab.cli import app
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.checks.folds import check_folds
from fcnlab.runner.checks.trials import OpenedData, check_trials
from fcnlab.runner.executors.base import Executor
from fcnlab.runner.plan import make_plan
from fcnlab.runner.run import run_grid
from tests.conftest import write_grid
from tests.data.images import random_image, random_mask, save_image
from tests.remarks import RemarkRecorder

REGISTRY = """
folds:
  type: folder
  images: folds/images
  masks: folds/masks
  classes: [background, disc, box]
  nominal: {height: 6, width: 8}
  cross_validation: {folds: 5}
"""
GRID = """
question: q
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: folds, recipe: smoke, recipe.batch_size: 1}
product: {head: [fcn32s, fcn8s]}
baseline: {head: fcn32s}
"""


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """A lab with seven images, which are divided into five folds."""
    for number in range(7):
        save_image(random_image(number), lab.root / f"folds/images/{number}.png")
        save_image(random_mask(number, (0, 1, 2)), lab.root / f"folds/masks/{number}.png")
    (lab.root / "registry").mkdir()
    (lab.root / "registry/datasets.yaml").write_text(REGISTRY, encoding="utf-8")
    return Lab.find(root=lab.root)


@pytest.mark.parametrize(
    ("seeds", "warning"),
    [
        ("5", None),
        ("[5, 6, 7, 8, 9]", None),
        ("10", None),
        ("3", "3 seeds (0, 1, 2) for 5 folds: the images of 2 folds are never held out; use a multiple of 5, such as "
         "seeds: 5"),
        ("6", "6 seeds (0, 1, 2, 3, 4 and 1 more) for 5 folds: the images of 1 fold count twice, those of others once; "
         "use a multiple of 5, such as seeds: 5"),
        ("12", "12 seeds (0, 1, 2, 3, 4 and 7 more) for 5 folds: the images of 2 folds count 3 times, those of others "
         "twice; use a multiple of 5, such as seeds: 10"),
        ("[4, 5]", "2 seeds (4, 5) for 5 folds: some images are held out more often than others; use a multiple of 5, "
         "such as seeds: 5"),
    ],
)  # fmt: skip
def test_seeds_that_are_no_multiple_of_the_folds_are_a_warning(lab: Lab, seeds: str, warning: str | None) -> None:
    grid = lab.load_grid(write_grid(lab.root, f"{GRID}seeds: {seeds}\n"))
    assert check_folds(grid) == ([] if warning is None else [f"dataset folds: {warning}"])


def test_plan_and_run_print_the_warning(lab: Lab) -> None:
    reporter = RemarkRecorder()
    file = write_grid(lab.root, f"{GRID}seeds: 3\n")
    (warning,) = check_folds(lab.load_grid(file))
    planned = CliRunner().invoke(app, ["grid", "plan", str(file), "--no-probe"])
    assert planned.exit_code == 0 and f"warning: {warning}\n" in planned.stderr
    with pytest.raises(RunError, match="not in this test"):
        run_grid(lab.load_grid(file), lab, reporter, executor=refuse_to_train)
    assert reporter.remarks.count(warning) == 1


def test_each_fold_is_checked(lab: Lab) -> None:
    text = GRID.replace("recipe.batch_size: 1", "recipe.batch_size: 6")
    plan = make_plan(lab.load_grid(write_grid(lab.root, f"{text}seeds: 5\n")), lab)
    sizes = {planned.trial.seed: len(OpenedData(lab).split(planned.trial, "train")) for planned in plan.trials}
    large, small = (next(seed for seed, size in sizes.items() if size == images) for images in (6, 5))
    file = write_grid(lab.root, f"{text}seeds: [{large}, {small}]\n")
    with pytest.raises(ConfigError, match="a batch of 6 is more than the training split has"):
        check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file)
    file = write_grid(lab.root, f"{text}seeds: [{large}]\n")
    assert check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file) == []


def refuse_to_train() -> Executor:
    raise RunError("not in this test")
