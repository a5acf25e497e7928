"""Generated scenes with VOC-style labels, for comparisons that need no download.

Overlapping discs, boxes, triangles, rings and bars of many sizes on a textured background. Colors overlap between
classes, so a network must recognize outlines. Rings have a hole, bars are two to four pixels thick, and a third of the
objects are small; a head with stride 32 cannot resolve these. Every object has a void border (255), as in VOC.

Scenes have the same bytes on every machine: random numbers come from `numpy.random.RandomState`, whose streams are
stable across versions of NumPy, and drawing uses integer arithmetic only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, Sample, Split
from fcnlab.errors import DataError, nearest
from fcnlab.seeding import derive_seed

VERSION = 1
"""Increased when the pixels of a scene change."""

Mask = NDArray[np.bool_]
Grid = NDArray[np.int64]


class Shapes(Dataset):
    """Generated scenes with five classes of objects and a background."""

    classes = ("background", "disc", "box", "triangle", "ring", "bar")

    def __init__(self, *, train: int, val: int, test: int, height: int, width: int, seed: int) -> None:
        self.counts = {"train": train, "val": val, "test": test}
        self.size = (height, width)
        self.seed = seed

    def split(self, name: str) -> Split:
        if name not in self.counts:
            raise DataError(f"Shapes has no split '{name}'; {nearest(name, self.counts)}")
        return _Scenes(name, self.counts[name], self.size, self.seed)

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        sizes = ",".join(f"{name}={len(self.split(name))}" for name in splits)
        return f"shapes-v{VERSION}:{self.size[0]}x{self.size[1]}:seed={self.seed}:{sizes}"


class _Scenes(Split):
    def __init__(self, name: str, count: int, size: tuple[int, int], seed: int) -> None:
        self.ids = tuple(f"{name}_{index:05d}" for index in range(count))
        self._size = size
        self._seed = seed

    def __getitem__(self, index: int) -> Sample:
        id_ = self.ids[index]
        rng = np.random.RandomState(derive_seed(self._seed, "shapes", id_) % 2**32)
        return Sample(id_, *_draw_scene(rng, *self._size))

    def size(self, index: int) -> tuple[int, int]:  # noqa: ARG002 - all scenes have one size
        return self._size


def _draw_scene(rng: np.random.RandomState, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    y, x = np.mgrid[:height, :width].astype(np.int64)
    image = _draw_background(rng, y, x)
    label = np.zeros((height, width), dtype=np.uint8)
    for _ in range(rng.randint(4, 9)):
        kind = rng.randint(len(_DRAW))
        inside = _DRAW[kind](rng, y, x)
        image[inside] = _color_object(rng, kind, y, x)[inside]
        label[_dilate(inside) & ~inside] = IGNORE_INDEX
        label[inside] = kind + 1
    image += rng.randint(-9, 10, size=image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), label


def _draw_background(rng: np.random.RandomState, y: Grid, x: Grid) -> Grid:
    """Return a background: a random color with a gradient and broad stripes."""
    base = rng.randint(70, 150, size=3)
    slope = rng.randint(-40, 41, size=2)
    period = rng.randint(6, 24)
    shade = slope[0] * y // y.shape[0] + slope[1] * x // x.shape[1] + 12 * ((x * rng.randint(0, 3) + y) // period % 2)
    return np.asarray(base[None, None, :] + shade[..., None], dtype=np.int64)


_TINT = np.array([[190, 90, 80], [80, 110, 190], [190, 170, 70], [150, 80, 170], [90, 180, 150]])
"""Mean color of each class; the spread around it is so wide that the color does not determine the class."""


def _color_object(rng: np.random.RandomState, kind: int, y: Grid, x: Grid) -> Grid:
    color = _TINT[kind] + rng.randint(-60, 61, size=3)
    stripe = rng.randint(0, 25) * ((x + y) // rng.randint(2, 6) % 2)
    return np.asarray(color[None, None, :] + stripe[..., None], dtype=np.int64)


def _sample_position(rng: np.random.RandomState, y: Grid) -> tuple[int, int, int]:
    """Return the row and column of a center and a radius; one object in three is small."""
    height, width = y.shape
    largest = min(height, width) // 4
    radius = rng.randint(3, 7) if rng.randint(3) == 0 else rng.randint(7, max(8, largest))
    return rng.randint(height), rng.randint(width), radius


def _disc(rng: np.random.RandomState, y: Grid, x: Grid) -> Mask:
    cy, cx, r = _sample_position(rng, y)
    return np.asarray((y - cy) ** 2 + (x - cx) ** 2 <= r * r)


def _box(rng: np.random.RandomState, y: Grid, x: Grid) -> Mask:
    cy, cx, r = _sample_position(rng, y)
    half = max(2, r * rng.randint(5, 10) // 10)
    tall, wide = (r, half) if rng.randint(2) else (half, r)
    return np.asarray((abs(y - cy) <= tall) & (abs(x - cx) <= wide))


def _triangle(rng: np.random.RandomState, y: Grid, x: Grid) -> Mask:
    cy, cx, r = _sample_position(rng, y)
    down = y - cy + r if rng.randint(2) else cy + r - y  # rows from the tip
    return np.asarray((down >= 0) & (down <= 2 * r) & (2 * abs(x - cx) <= down))


def _ring(rng: np.random.RandomState, y: Grid, x: Grid) -> Mask:
    cy, cx, r = _sample_position(rng, y)
    hole = max(1, r * rng.randint(5, 8) // 10)
    distance = (y - cy) ** 2 + (x - cx) ** 2
    return np.asarray((distance <= r * r) & (distance > hole * hole))


def _bar(rng: np.random.RandomState, y: Grid, x: Grid) -> Mask:
    """Return the points that are closer to a segment than half of its thickness of 2 to 4 pixels."""
    cy, cx, _ = _sample_position(rng, y)
    dy, dx = rng.randint(-30, 31), rng.randint(-30, 31)
    dy = dy if dy or dx else 20
    thickness = rng.randint(2, 5)
    along = (y - cy) * dy + (x - cx) * dx
    length = dy * dy + dx * dx
    across = (y - cy) * dx - (x - cx) * dy
    return np.asarray((along >= 0) & (along <= length) & (4 * across**2 <= thickness * thickness * length))


_DRAW: tuple[Callable[[np.random.RandomState, Grid, Grid], Mask], ...] = (_disc, _box, _triangle, _ring, _bar)


def _dilate(mask: Mask) -> Mask:
    """Return the mask, extended by the four neighbors of each pixel."""
    dilated = mask.copy()
    dilated[1:] |= mask[:-1]
    dilated[:-1] |= mask[1:]
    dilated[:, 1:] |= mask[:, :-1]
    dilated[:, :-1] |= mask[:, 1:]
    return dilated
