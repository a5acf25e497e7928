"""The first grid of a dataset that `fcnlab data add` has added: it runs at once, without a download."""

from __future__ import annotations

from pathlib import Path

from fcnlab.config.recipe import Recipe
from fcnlab.lab import Lab
from fcnlab.storage_errors import convert_write_errors

_GRID = """\
# yaml-language-server: $schema=grid.schema.json
# A tiny network from random weights: quick, and without a download. For better accuracy:
# base: {{backbone: resnet18, dataset: {name}, recipe: {recipe}{accurate_batch}}}
# The ImageNet weights of resnet18 are downloaded at the first run.
question: Do skip connections improve mIoU on {name}?
base: {{backbone: tiny-scratch, dataset: {name}, recipe: quick{length}}}
product: {{head: [fcn32s, fcn8s]}}
seeds: {seeds}
"""

_SMALL = 1000
"""With fewer training images, the recipe for accuracy is `small-data`."""

_STEPS = 300
"""Least number of steps of the quick training. With fewer, networks predict little but the most frequent class."""

_STEPS_PER_EPOCH = 6
"""Least number of steps per epoch, so that few images are left out of the last batch."""


def write_first_grid(lab: Lab, name: str) -> tuple[Path, bool]:
    """Write a grid file for a dataset, unless there is a file of that name.

    Args:
        lab: the lab, whose registry contains the dataset.
        name: name of the dataset.

    Returns:
        The file, and whether it is new.

    Raises:
        RunError: the file cannot be written.
    """
    file = lab.root / "experiments" / f"{name}.yaml"
    dataset = lab.registry.get("dataset", name)
    images = len(lab.open_dataset(dataset).split(dataset.splits.train))
    folds = dataset.folds_by_seed
    recipe = "small-data" if images < _SMALL else "standard"
    text = _GRID.format(
        name=name,
        recipe=recipe,
        seeds=f"{folds.folds}  # each seed holds out another fold" if folds is not None else "3",
        length=_lengthen(lab.registry.get("recipe", "quick"), images),
        accurate_batch=_limit_batch(lab.registry.get("recipe", recipe), images),
    )
    with convert_write_errors(file):
        file.parent.mkdir(exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
        except FileExistsError:
            return file, False
    return file, True


def _lengthen(recipe: Recipe, images: int) -> str:
    """Return overrides of the batch size and the epochs for few training images, else nothing."""
    batch = recipe.batch_size
    while batch > 2 and images < _STEPS_PER_EPOCH * batch:
        batch //= 2
    batch = min(batch, images)
    epochs = max(recipe.epochs, -(-_STEPS // max(1, images // batch)))
    changed = {"batch_size": batch, "epochs": epochs}
    return "".join(f", recipe.{name}: {n}" for name, n in changed.items() if n != getattr(recipe, name))


def _limit_batch(recipe: Recipe, images: int) -> str:
    """Return the override of the batch size for fewer training images than a batch, else nothing."""
    return f", recipe.batch_size: {images}" if images < recipe.batch_size else ""
