"""Images for timings of training: those of VOC, or generated ones with the layout of VOC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from fcnlab.config.dataset import Dataset
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import FileSplit, Pair, Sample
from fcnlab.data.datasets.labels import IdDecoder
from fcnlab.data.datasets.palette import voc_palette
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.errors import DataError
from fcnlab.lab import Lab

CLASSES = 21
SIZE = (375, 500)
"""Height and width of generated images: those of most images of VOC."""


@contextmanager
def files(lab: Lab, count: int, crop: tuple[int, int], *, every_class: int = 0) -> Iterator[tuple[str, list[Pair]]]:
    """Find or generate training images.

    Images that are smaller than the crop are left out, because the d2l chapter does so and all sides use the same
    images.

    Args:
        lab: lab with the data root; without one, images are generated.
        count: number of images.
        crop: minimum height and width.
        every_class: each class has pixels in this number of the first images, as a grid requires; 0 for any images.

    Yields:
        The name of the images, and their files.

    Raises:
        DataError: VOC is not in the data root, or has too few images.
    """
    if lab.data_root is None:
        with TemporaryDirectory(prefix="fcnlab-bench-") as folder:
            size = (max(SIZE[0], crop[0]), max(SIZE[1], crop[1]))
            written = write_scenes(Path(folder), count, size)
            yield f"generated shapes of {size[0]}x{size[1]}", _ordered(written, every_class)
        return
    spec = lab.registry.get("dataset", "voc2012")
    assert isinstance(spec, Dataset)
    split = lab.open_dataset(spec).split(spec.splits.train)
    assert isinstance(split, FileSplit), "VOC is files"
    found = _ordered([pair for pair in split.pairs if _holds(pair.image, crop)], every_class)[:count]
    if len(found) < count:
        raise DataError(
            f"{count} images were requested; VOC's training split has {len(found)} of at least {crop[0]}x{crop[1]}"
        )
    yield "PASCAL VOC 2012", found


def split_of(pairs: list[Pair]) -> FileSplit:
    """Return a split of pairs of images and masks.

    Args:
        pairs: files; mask values are class numbers, 255 for ignored.
    """
    return FileSplit(pairs, IdDecoder([[number] for number in range(CLASSES)], [IGNORE_INDEX]))


def _ordered(pairs: list[Pair], every_class: int) -> list[Pair]:
    """Return images in an order in which each class has pixels in a number of the first ones."""
    if not every_class:
        return pairs
    present = {pair.id: _classes(pair.mask) for pair in pairs}
    missing = set.union(*present.values())
    left, first = list(pairs), list[Pair]()
    while missing:
        left.sort(key=lambda pair: -len(present[pair.id] & missing))  # a stable order
        first.append(left.pop(0))
        missing -= present[first[-1].id]
    if len(set.union(*present.values())) < CLASSES or len(first) > every_class:
        raise DataError(f"no {every_class} images have pixels of all {CLASSES} classes; request more images")
    return first + left


def _classes(mask: Path) -> set[int]:
    """Return the classes that have pixels in a mask."""
    with Image.open(mask) as opened:
        return set(np.unique(np.asarray(opened)).tolist()) - {IGNORE_INDEX}


def _holds(image: Path, crop: tuple[int, int]) -> bool:
    with Image.open(image) as opened:
        return opened.height >= crop[0] and opened.width >= crop[1]


def write_scenes(folder: Path, count: int, size: tuple[int, int]) -> list[Pair]:
    """Write generated scenes as JPEG images and PNG masks with VOC's palette.

    Args:
        folder: an existing folder.
        count: number of scenes.
        size: height and width in pixels.
    """
    written = []
    for number in range(count):
        sample = make_scene(number, size)
        pair = Pair(sample.id, folder / f"{sample.id}.jpg", folder / f"{sample.id}.png")
        write_sample(Image.fromarray(sample.image), sample.label, pair)
        written.append(pair)
    return written


def make_scene(number: int, size: tuple[int, int]) -> Sample:
    """Generate a scene with some of VOC's classes.

    The shapes of one scene are the first classes, those of the next one the following classes, and so on.

    Args:
        number: number of the scene.
        size: height and width in pixels.
    """
    scenes = Shapes(train=number + 1, val=1, test=1, height=size[0], width=size[1], seed=0)
    sample = scenes.split("train")[number]
    shapes = len(scenes.classes) - 1
    moved = 1 + (sample.label.astype(int) - 1 + number * shapes) % (CLASSES - 1)
    label = np.where(np.isin(sample.label, (0, IGNORE_INDEX)), sample.label, moved).astype(np.uint8)
    return Sample(sample.id, sample.image, label)


def write_sample(image: Image.Image, label: np.ndarray, pair: Pair) -> None:
    """Write an image as JPEG of quality 92, and its labels as PNG with VOC's palette.

    Args:
        image: the image.
        label: class numbers, uint8 [H, W].
        pair: paths of both files.
    """
    image.save(pair.image, quality=92)
    mask = Image.fromarray(label)
    mask.putpalette(voc_palette().tobytes())
    mask.save(pair.mask)
