"""A sheet of a dataset's images with their labels, and of what a recipe's augmentation makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels, Sample, Split
from fcnlab.data.datasets.palette import voc_palette
from fcnlab.report.gallery.picture import GAP, HEADING, WIDTH
from fcnlab.seeding import derive_seed

if TYPE_CHECKING:
    from fcnlab.kernels.inputs import DecodedSample

OPACITY = 0.6
"""How much of the overlay is the label's colour; the rest is the image in grey."""

LINE = 20
"""Pixels of a line of text."""

Augment = Callable[["DecodedSample", np.random.Generator], "DecodedSample"]
"""What training does to a sample, such as `fcnlab.data.augmentation.Augmentation`."""


@dataclass(frozen=True)
class Shown:
    """One sample on the sheet: a heading for its column, a line below it."""

    heading: str
    caption: str
    image: Pixels
    label: Pixels


def choose(split: Split, count: int, seed: int) -> list[int]:
    """Which samples are shown: drawn by the seed, in the order of the split."""
    drawn = np.random.default_rng(derive_seed(seed, "preview")).permutation(len(split))[:count]
    return sorted(int(index) for index in drawn)


def rows(
    split: Split, chosen: Sequence[int], *, augment: Augment | None = None, draws: int = 0, seed: int = 0
) -> list[list[Shown]]:
    """A row a sample: as it is, and as it is drawn in the epochs 0, 1, ... of a trial with this seed."""
    return [_row(split[index], index, augment, draws, seed) for index in chosen]


def _row(sample: Sample, index: int, augment: Augment | None, draws: int, seed: int) -> list[Shown]:
    height, width = sample.label.shape
    row = [Shown("image", f"{sample.id}  {height}x{width}", sample.image, sample.label)]
    if augment is None:
        return row
    import torch

    from fcnlab.data.batches import augmentation_rng
    from fcnlab.kernels.inputs import DecodedSample

    decoded = DecodedSample(torch.tensor(sample.image).permute(2, 0, 1).contiguous(), torch.tensor(sample.label))
    for epoch in range(draws):
        made = augment(decoded, augmentation_rng(seed, epoch, index))
        image, label = made.image.permute(1, 2, 0).numpy(), made.label.numpy()
        row.append(Shown(f"drawn in epoch {epoch}", f"{label.shape[0]}x{label.shape[1]}", image, label))
    return row


def sheet(shown: Sequence[Sequence[Shown]], classes: Sequence[str]) -> Image.Image:
    """Each sample with its label over it on its right, row by row, and the colours of the classes that occur."""
    pictures = [[_pair(sample) for sample in row] for row in shown]
    heights = [max(left.height for left, _ in row) + LINE + GAP for row in pictures]
    width = max(len(row) for row in pictures) * 2 * (WIDTH + GAP) + GAP
    below = legend(_labels(shown), classes, width)
    page = Image.new("RGB", (width, HEADING + sum(heights) + below.height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    y = HEADING
    for row, samples, height in zip(pictures, shown, heights, strict=True):
        for column, (pair, sample) in enumerate(zip(row, samples, strict=True)):
            x = GAP + column * 2 * (WIDTH + GAP)
            if y == HEADING:
                draw.text((x, 4), sample.heading, fill="black", font=font)
                draw.text((x + WIDTH + GAP, 4), "label", fill="black", font=font)
            for place, picture in enumerate(pair):
                page.paste(picture, (x + place * (WIDTH + GAP), y))
            draw.text((x, y + pair[0].height + 2), _fitted(sample.caption, draw), fill="#444444", font=_small())
        y += height
    page.paste(below, (0, y))
    return page


def _pair(sample: Shown) -> tuple[Image.Image, Image.Image]:
    """The image, and its grey with the label's colours over it, both of the sheet's width."""
    size = (WIDTH, max(1, round(sample.label.shape[0] * WIDTH / sample.label.shape[1])))
    image = Image.fromarray(np.ascontiguousarray(sample.image)).resize(size, Image.Resampling.BILINEAR)
    return image, overlay(image, Image.fromarray(voc_palette()[sample.label]).resize(size, Image.Resampling.NEAREST))


def overlay(image: Image.Image, colours: Image.Image) -> Image.Image:
    """The grey of an image with colours of its size over it."""
    return Image.blend(image.convert("L").convert("RGB"), colours, OPACITY)


def _labels(shown: Sequence[Sequence[Shown]]) -> list[int]:
    counts = sum(np.bincount(sample.label.ravel(), minlength=256) for row in shown for sample in row)
    return [int(label) for label in np.flatnonzero(counts)]


def legend(labels: Sequence[int], classes: Sequence[str], width: int) -> Image.Image:
    """The colours of these labels with their names, in as many lines as they need."""
    font = _small()
    names = ["ignored" if label == IGNORE_INDEX else f"{label} {classes[label]}" for label in labels]
    cell = LINE + 16 + max(round(font.getlength(name)) for name in names)
    across = max(1, (width - GAP) // cell)
    page = Image.new("RGB", (width, (len(labels) + across - 1) // across * LINE + 2 * GAP), "white")
    draw = ImageDraw.Draw(page)
    for place, (label, name) in enumerate(zip(labels, names, strict=True)):
        x, y = GAP + place % across * cell, GAP + place // across * LINE
        draw.rectangle((x, y + 2, x + 14, y + 16), fill=_seen(label), outline="black")
        draw.text((x + LINE, y + 1), name, fill="black", font=font)
    return page


def _seen(label: int) -> tuple[int, int, int]:
    """A label's colour as it looks over a middle grey: that is how the sheet shows it."""
    red, green, blue = (round(OPACITY * int(value) + (1 - OPACITY) * 128) for value in voc_palette()[label])
    return red, green, blue


def _small() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def _fitted(text: str, draw: ImageDraw.ImageDraw) -> str:
    """A text cut on the left until it fits below a picture: ids differ at their end."""
    shown = text
    while len(shown) > 2 and draw.textlength(shown, font=_small()) > WIDTH:
        shown = "…" + shown.removeprefix("…")[1:]
    return shown
