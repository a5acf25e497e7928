"""Detection of interpolated masks: binary masks and label maps after each kind of resizing, and real label maps."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnlab.data.datasets.labels import open_mask
from fcnlab.data.inspection.interpolated_masks import find_interpolated_values
from fcnlab.data.inspection.pair_contents import read_contents
from fcnlab.errors import DataError

COLORS = np.array([[0, 0, 0], [200, 40, 40], [40, 160, 220]], np.uint8)

Change = Callable[[Image.Image], Image.Image]


def shapes(seed: int, size: int = 128) -> np.ndarray:
    """Return a label map with a disc (1) and a ring (2) at random places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    (y1, x1), (y2, x2) = rng.integers(size // 4, 3 * size // 4, (2, 2))
    radius = np.hypot(y - y2, x - x2)
    labels = (np.hypot(y - y1, x - x1) < size / 5).astype(np.uint8)
    labels[(radius < size / 4) & (radius > size / 5)] = 2
    return labels


def find(masks: Iterable[Path]) -> list[int | str]:
    """Return the interpolated values in masks."""
    by_mask: dict[Path, dict[int | str, int]] = {}
    for mask in masks:
        values, counts = np.unique(np.asarray(open_mask(mask)), return_counts=True)
        by_mask[mask] = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return find_interpolated_values(sum(map(Counter, by_mask.values()), Counter()), by_mask)


def write(folder: Path, masks: Iterable[np.ndarray], change: Change) -> list[Path]:
    files = []
    for number, mask in enumerate(masks):
        files.append(folder / f"{number}.png")
        change(Image.fromarray(mask)).save(files[-1])
    return files


def resize(size: int, method: Image.Resampling) -> Change:
    return lambda image: image.resize((size, size), method)


def save_as_jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        image.save(buffer := io.BytesIO(), "JPEG", quality=quality)
        return Image.open(buffer)

    return change


SMOOTH = [each for each in Image.Resampling if each is not Image.Resampling.NEAREST]


@pytest.mark.parametrize(
    "change",
    [resize(size, method) for size in (50, 100, 200, 500) for method in SMOOTH if method.name != "BOX" or size < 128]
    + [save_as_jpeg(quality) for quality in (30, 75, 95)],
)
def test_gray_values_of_binary_masks_are_found(tmp_path: Path, change: Change) -> None:
    files = write(tmp_path, [(shapes(seed) > 0).astype(np.uint8) * 255 for seed in range(4)], change)
    present = {value for file in files for value in np.unique(np.asarray(Image.open(file))).tolist()}
    assert find(files) == sorted(present - {0, 255})


@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("size", [100, 300])
def test_many_interpolated_colors_of_one_mask_name_the_cause(
    tmp_path: Path, size: int, method: Image.Resampling
) -> None:
    files = write(tmp_path, [COLORS[shapes(0)]], resize(size, method))
    with pytest.raises(DataError, match=r"more than 256 colors, most of them only at borders, .* nearest-neighbor"):
        read_contents({"a": (files[0], files[0])}, lambda: None)


def test_numbers_between_class_numbers_are_found(tmp_path: Path) -> None:
    files = write(tmp_path, [shapes(seed) * np.uint8(10) for seed in range(4)], resize(200, Image.Resampling.BILINEAR))
    assert find(files) == [*range(1, 10), *range(11, 20)]


@pytest.mark.parametrize("values", [[0, 1, 255], [0, 127, 255], [0, 255, 5], [3, 90, 200]])
@pytest.mark.parametrize("size", [16, 40, 128])
def test_masks_resized_to_the_nearest_neighbor_are_accepted(tmp_path: Path, values: list[int], size: int) -> None:
    masks = [np.array(values, np.uint8)[shapes(seed)] for seed in range(8)]
    assert find(write(tmp_path, masks, resize(size, Image.Resampling.NEAREST))) == []


@pytest.mark.parametrize("size", [8, 24, 64])
def test_label_maps_of_many_classes_and_objects_are_accepted(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    blocks = [np.kron(rng.choice(150, (8, 8)), np.ones((8, 8))).astype(np.uint8) for _ in range(20)]
    assert find(write(tmp_path, blocks, resize(size, Image.Resampling.NEAREST))) == []
    objects = [np.where(block % 3, 0, np.where(block % 2, 255, block)).astype(np.uint8) for block in blocks]
    assert find(write(tmp_path, objects, resize(64, Image.Resampling.NEAREST))) == []


def test_void_borders_around_thin_objects_are_accepted(tmp_path: Path) -> None:
    masks = []
    for label in range(1, 21):  # lines of three pixels with borders of two pixels
        mask = np.zeros((64, 64), np.uint8)
        mask[20:27], mask[22:25], mask[:, 30:37] = 255, label, 255
        masks.append(mask)
    assert find(write(tmp_path, masks, resize(64, Image.Resampling.NEAREST))) == []


@pytest.mark.parametrize("size", [None, 24, 48])
@pytest.mark.parametrize("folder", ["camvid/valannot", "VOCdevkit/VOC2012/SegmentationClass"])
def test_real_label_maps_are_accepted(real_data: Path, tmp_path: Path, folder: str, size: int | None) -> None:
    masks = [np.asarray(Image.open(file)) for file in sorted((real_data / folder).glob("*.png"))[:40]]
    change = resize(size, Image.Resampling.NEAREST) if size is not None else lambda image: image
    assert find(write(tmp_path, masks, change)) == []
