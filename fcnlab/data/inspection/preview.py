"""Sheets of a dataset's images with their labels, also after a recipe's augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels, Sample, Split, read_sample
from fcnlab.data.datasets.image_file import to_display
from fcnlab.data.inspection.font import fit_text, load_font
from fcnlab.seeding import derive_seed

if TYPE_CHECKING:
    from fcnlab.data.sample_transform import SampleTransform
    from fcnlab.kernels.inputs import DecodedSample

WIDTH = 240
"""Width of one picture on a sheet in pixels."""

GAP = 6
HEADING = 24

OPACITY = 0.6
"""Opacity of the label's color over the gray image."""

SMALL = 12
"""Size of the font below pictures and in legends, in pixels."""

LINE = 20
"""Height of a line of text in pixels."""

Augment = Callable[["DecodedSample", np.random.Generator], "DecodedSample"]
"""Augmentation of a sample, such as `fcnlab.data.augmentation.Augmentation`."""


@dataclass(frozen=True)
class SheetItem:
    """One sample on the sheet, with the heading of its column and a caption below it."""

    heading: str
    caption: str
    image: Pixels
    label: Pixels


def choose_samples(split: Split, count: int, seed: int) -> list[int]:
    """Draw indices of samples, sorted.

    Args:
        split: the split to draw from.
        count: number of samples.
        seed: seed of the draw.
    """
    chosen = np.random.default_rng(derive_seed(seed, "preview")).permutation(len(split))[:count]
    return sorted(int(index) for index in chosen)


def create_rows(
    split: Split,
    chosen: Sequence[int],
    num_classes: int,
    *,
    augment: Augment | None = None,
    transform: SampleTransform | None = None,
    draws: int = 0,
    seed: int = 0,
) -> list[list[SheetItem]]:
    """Return one row per sample: the sample, and its augmented versions in the epochs 0, 1, ... of a trial.

    Args:
        split: the split of the samples.
        chosen: indices of the samples.
        num_classes: number of classes of the dataset.
        augment: the augmentation; None for only the samples.
        transform: transform of the samples before their augmentation.
        draws: number of epochs.
        seed: seed of the trial.

    Raises:
        DataError: a sample cannot be decoded, or has labels that are neither classes nor ignored.
    """
    return [
        _create_row(read_sample(split, index, num_classes), index, augment, transform, draws, seed) for index in chosen
    ]


def _create_row(
    sample: Sample, index: int, augment: Augment | None, transform: SampleTransform | None, draws: int, seed: int
) -> list[SheetItem]:
    height, width = sample.label.shape
    row = [SheetItem("image", f"{sample.id}  {height}x{width}", sample.image, sample.label)]
    if augment is None:
        return row
    import torch

    from fcnlab.data.batches import augmentation_rng
    from fcnlab.kernels.inputs import DecodedSample

    decoded = DecodedSample(torch.tensor(sample.image).permute(2, 0, 1).contiguous(), torch.tensor(sample.label))
    for epoch in range(draws):
        transformed = transform(decoded, seed, epoch, index) if transform is not None else decoded
        augmented = augment(transformed, augmentation_rng(seed, epoch, index))
        image, label = augmented.image.permute(1, 2, 0).numpy(), augmented.label.numpy()
        row.append(SheetItem(f"augmented in epoch {epoch}", f"{label.shape[0]}x{label.shape[1]}", image, label))
    return row


def draw_sheet(rows: Sequence[Sequence[SheetItem]], classes: Sequence[str], palette: Pixels) -> Image.Image:
    """Draw each sample with its label overlay on the right, and a legend of the classes that occur.

    Args:
        rows: rows of samples.
        classes: names of the classes.
        palette: colors of the labels, uint8 [256, 3].
    """
    pictures = [[_draw_pair(sample, palette) for sample in row] for row in rows]
    heights = [max(left.height for left, _ in row) + LINE + GAP for row in pictures]
    width = max(len(row) for row in pictures) * 2 * (WIDTH + GAP) + GAP
    legend = draw_legend(_find_labels(rows), classes, width, blend_with_gray(palette))
    page = Image.new("RGB", (width, HEADING + sum(heights) + legend.height), "white")
    draw, font = ImageDraw.Draw(page), load_font(14)
    y = HEADING
    for row, samples, height in zip(pictures, rows, heights, strict=True):
        for column, (pair, sample) in enumerate(zip(row, samples, strict=True)):
            x = GAP + column * 2 * (WIDTH + GAP)
            if y == HEADING:
                draw.text((x, 4), sample.heading, fill="black", font=font)
                draw.text((x + WIDTH + GAP, 4), "label", fill="black", font=font)
            for position, picture in enumerate(pair):
                page.paste(picture, (x + position * (WIDTH + GAP), y))
            caption = fit_text(sample.caption, SMALL, WIDTH, keep_end=True)  # ids differ at their end
            draw.text((x, y + pair[0].height + 2), caption, fill="#444444", font=load_font(SMALL))
        y += height
    page.paste(legend, (0, y))
    return page


def _draw_pair(sample: SheetItem, palette: Pixels) -> tuple[Image.Image, Image.Image]:
    """Return the image and its overlay with the label, both with the width of the sheet's pictures."""
    size = (WIDTH, max(1, round(sample.label.shape[0] * WIDTH / sample.label.shape[1])))
    image = to_display(sample.image).resize(size, Image.Resampling.BILINEAR)
    return image, blend_label_colors(
        image, Image.fromarray(palette[sample.label]).resize(size, Image.Resampling.NEAREST)
    )


def blend_label_colors(image: Image.Image, colors: Image.Image) -> Image.Image:
    """Blend the gray version of an image with the colors of its labels.

    Args:
        image: RGB image.
        colors: RGB image of the same size.
    """
    return Image.blend(image.convert("L").convert("RGB"), colors, OPACITY)


def _find_labels(rows: Sequence[Sequence[SheetItem]]) -> list[int]:
    counts = sum(np.bincount(sample.label.ravel(), minlength=256) for row in rows for sample in row)
    return [int(label) for label in np.flatnonzero(counts)]


def draw_legend(labels: Sequence[int], classes: Sequence[str], width: int, palette: Pixels) -> Image.Image:
    """Draw the colors of labels with the names of the classes.

    Args:
        labels: the labels.
        classes: names of the classes.
        width: width of the picture in pixels.
        palette: colors of the labels, uint8 [256, 3].
    """
    font = load_font(SMALL)
    names = ["ignored" if label == IGNORE_INDEX else f"{label} {classes[label]}" for label in labels]
    cell = LINE + 16 + max(round(font.getlength(name)) for name in names)
    across = max(1, (width - GAP) // cell)
    page = Image.new("RGB", (width, (len(labels) + across - 1) // across * LINE + 2 * GAP), "white")
    draw = ImageDraw.Draw(page)
    for position, (label, name) in enumerate(zip(labels, names, strict=True)):
        x, y = GAP + position % across * cell, GAP + position // across * LINE
        draw.rectangle((x, y + 2, x + 14, y + 16), fill=tuple(palette[label].tolist()), outline="black")
        draw.text((x + LINE, y + 1), name, fill="black", font=font)
    return page


def blend_with_gray(palette: Pixels) -> Pixels:
    """Return colors over a middle gray, as they look in an overlay.

    Args:
        palette: uint8 [256, 3].
    """
    return (OPACITY * palette + (1 - OPACITY) * 128).round().astype(np.uint8)
