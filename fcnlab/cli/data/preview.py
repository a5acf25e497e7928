"""`fcnlab data preview`: show images of a dataset with labels, also augmented."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, DatasetName, LabOption
from fcnlab.errors import DataError
from fcnlab.storage_errors import describe_reason

if TYPE_CHECKING:
    from fcnlab.config.recipe import Recipe
    from fcnlab.data.augmentation import Augmentation
    from fcnlab.data.datasets.base import Dataset
    from fcnlab.data.sample_transform import SampleTransform
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab data preview camvid --data-root ~/data --recipe standard --out camvid.png"

DRAWS = 3
"""Number of augmented versions of each image."""


def preview(
    name: DatasetName,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Split of the images", show_default="the training split"),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME", help="Also show the images as this recipe augments them")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="PNG file to write", show_default="NAME-SPLIT.png")
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=64, help="Number of images")] = 4,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the choice of images and of the augmentation")
    ] = 0,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Write a picture of a few images of a dataset with their labels."""
    from fcnlab.data.datasets.palette import find_palette
    from fcnlab.data.inspection.preview import choose_samples, create_rows, draw_sheet
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    spec = lab_.registry.get("dataset", name)
    dataset = lab_.open_dataset(spec)
    augment, transform = None, None
    if recipe is not None:
        settings = lab_.registry.get("recipe", recipe)
        augment = _augmentation(settings, spec.image_channels)
        transform = _transform(settings, dataset, lab_)
    split = split or spec.splits.train
    samples = dataset.split(split)
    if not len(samples):
        raise DataError(f"dataset {name}: the split '{split}' is empty")
    shown = create_rows(
        samples,
        choose_samples(samples, count, seed),
        len(dataset.classes),
        augment=augment,
        transform=transform,
        draws=DRAWS,
        seed=seed,
    )
    path = out or Path(f"{name}-{split}.png")
    try:
        draw_sheet(shown, dataset.classes, find_palette(spec, dataset.classes)).save(path, format="PNG")
    except OSError as error:
        raise DataError(f"--out: {path} cannot be written: {describe_reason(error)}") from None
    typer.echo(f"{path}: {len(shown)} of {len(samples)} images of {name} {split}")


def _transform(recipe: Recipe, dataset: Dataset, lab: Lab) -> SampleTransform | None:
    from fcnlab.data.sample_transform import create_sample_transform

    return create_sample_transform(recipe.transform, len(dataset.classes), lab.extensions)


def _augmentation(recipe: Recipe, channels: int) -> Augmentation:
    """Return the augmentation of a recipe with the mean color of ImageNet, which most backbones use."""
    from fcnlab.data.augmentation import build_augmentation
    from fcnlab.normalization import IMAGENET_MEAN, adapt_normalization

    return build_augmentation(recipe, adapt_normalization(IMAGENET_MEAN, channels))
