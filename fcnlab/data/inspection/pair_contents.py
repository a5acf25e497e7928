"""Inspection of pairs of images and masks: sizes, bands, and the values of the masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcnlab.config.mask_values import MAX_NUMBER
from fcnlab.data.datasets.image_file import RGB, ImageFormat
from fcnlab.data.datasets.labels import EXPECTED_NUMBERS, NUMBER_MODES, open_mask, pack_rgb, simplify_mode
from fcnlab.data.inspection.diagnosis import explain_mismatch
from fcnlab.data.inspection.image_contents import ImageContents
from fcnlab.data.inspection.interpolated_masks import REMEDY, Neighbors, is_interpolated
from fcnlab.data.parallel import map_on_all_cores
from fcnlab.errors import DataError

MAX_VALUES = 256
"""Maximum number of different numbers or colors of masks."""

SHOWN = 10
"""Maximum number of values and problems that an error lists."""


@dataclass
class Contents:
    """Statistics of the pairs.

    Attributes:
        images: bands and values of the images.
        sizes: number of images of each height and width.
        modes: number of masks of each mode of Pillow.
        pixels: number of pixels of each value: a number or a color '#rrggbb'.
        masks: number of masks in which each value occurs.
        by_mask: number of pixels of each value in each mask.
    """

    images: ImageContents = field(default_factory=ImageContents)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    pixels: Counter[int | str] = field(default_factory=Counter)
    masks: Counter[int | str] = field(default_factory=Counter)
    by_mask: dict[Path, dict[int | str, int]] = field(default_factory=dict)

    def add(self, pair: Contents) -> None:
        """Add the statistics of another pair.

        Args:
            pair: statistics of one pair.

        Raises:
            DataError: the masks have too many values.
        """
        [mask] = pair.by_mask
        if len(self.pixels.keys() | pair.pixels.keys()) > MAX_VALUES:
            raise DataError(_describe_many_values(mask, np.asarray(simplify_mode(open_mask(mask), mask))))
        self.images.add_all(pair.images)
        self.sizes.update(pair.sizes)
        self.modes.update(pair.modes)
        self.pixels.update(pair.pixels)
        self.masks.update(pair.masks)
        self.by_mask |= pair.by_mask

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a third of the images or more; if sizes are mixed, those of the image of median area."""
        size, count = self.sizes.most_common(1)[0]
        if 3 * count >= self.sizes.total():
            return size
        by_area = sorted(self.sizes.elements(), key=lambda size: (size[0] * size[1], size))
        return by_area[len(by_area) // 2]

    @property
    def values(self) -> list[int | str]:
        """The values of the masks, sorted."""
        return sorted(self.pixels)  # all numbers or all colors

    @property
    def background(self) -> int | str:
        """0 or black; if no mask contains it, the most frequent value."""
        return next((value for value in (0, "#000000") if value in self.pixels), self.pixels.most_common(1)[0][0])

    @property
    def main_value(self) -> int | str | None:
        """The most frequent value beside the background; None if several are."""
        frequent = [found for found in self.pixels.most_common(3) if found[0] != self.background]
        return frequent[0][0] if len(frequent) == 1 or (frequent and frequent[0][1] > frequent[1][1]) else None


def read_contents(
    pairs: Mapping[str, tuple[Path, Path]], advance: Callable[[], object], image_format: ImageFormat = RGB
) -> Contents:
    """Read all masks and the sizes of all images, on all cores. After `SHOWN` problems, no more files are read.

    Args:
        pairs: image and mask of each id.
        advance: called after each pair.
        image_format: channels of the images.

    Raises:
        DataError: files cannot be read or used; one line per file.
    """
    contents = Contents(ImageContents(image_format))
    files = [*pairs.values()]
    problems: list[str] = []
    results = map_on_all_cores(lambda index: _try_to_read(*files[index], image_format), len(files), advance)
    with closing(results):  # cancels the others
        for result in results:
            try:
                contents.add(_get_result(result))
            except DataError as error:
                problems.append(str(error))
            if len(problems) == SHOWN:
                break
    if len({type(value) for value in contents.pixels}) > 1:
        modes = ", ".join(f"{count} of mode {mode}" for mode, count in sorted(contents.modes.items()))
        problems.append(f"{files[0][1].parent}: masks with numbers and masks with colors are mixed: {modes}")
    if len(problems) >= SHOWN:
        problems.append(f"at least {SHOWN} of {len(files)} files cannot be used; further files were not read")
    if problems:
        raise DataError("\n".join(problems))
    return contents


def _try_to_read(image: Path, mask: Path, image_format: ImageFormat) -> Contents | DataError:
    """Read one pair; return an error, because the results of other pairs are needed, too."""
    try:
        return _read_pair(image, mask, image_format)
    except DataError as error:
        return error


def _get_result(result: Contents | DataError) -> Contents:
    if isinstance(result, DataError):
        raise result
    return result


def _read_pair(image: Path, mask: Path, image_format: ImageFormat) -> Contents:
    contents = Contents(ImageContents(image_format))
    height, width = contents.images.add(image)
    picture = open_mask(mask)
    if picture.size != (width, height):
        stored, remedy = explain_mismatch(contents.images.rotated.get(image, 1))
        raise DataError(
            f"{mask}: the mask is {picture.height}x{picture.width} (height x width), its image {image} is "
            f"{height}x{width}{stored}; {remedy}"
        )
    contents.sizes[height, width] += 1
    contents.modes[picture.mode] += 1
    picture = simplify_mode(picture, mask)
    if picture.mode not in (*NUMBER_MODES, "RGB"):
        raise DataError(f"{mask}: the mask has mode {picture.mode}; {EXPECTED_NUMBERS}, or colors (mode RGB)")
    values = np.asarray(picture)
    colors = picture.mode == "RGB"
    found, counts = _count_values(pack_rgb(values) if colors else values)
    if len(found) > MAX_VALUES:  # before a million colors are written as text
        raise DataError(_describe_many_values(mask, values))
    if not colors and not 0 <= int(found[0]) <= int(found[-1]) <= MAX_NUMBER:
        raise DataError(f"{mask}: values from {found[0]} to {found[-1]}; class numbers are from 0 to {MAX_NUMBER}")
    names = [f"#{value:06x}" if colors else int(value) for value in found]
    contents.by_mask[mask] = dict(zip(names, counts.tolist(), strict=True))
    contents.pixels.update(contents.by_mask[mask])
    contents.masks.update(names)
    return contents


def _count_values(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values that occur, in ascending order, and the number of pixels of each."""
    if values.dtype != np.uint8:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values.ravel(), minlength=256)  # in a fraction of the time
    found = np.flatnonzero(counts)
    return found, counts[found]


def _describe_many_values(mask: Path, values: NDArray[Any]) -> str:
    """Return the error of a mask with which there are too many values: numbers [H, W], or colors [H, W, 3]."""
    what = "values; are these numbers of objects, or depths?" if values.ndim == 2 else _describe_colors(values)
    return f"{mask}: the masks up to this one have more than {MAX_VALUES} {what}"


def _describe_colors(values: NDArray[np.uint8]) -> str:
    """Return the probable origin of a mask with many colors, uint8 [H, W, 3]."""
    neighbors = Neighbors()
    neighbors.add(values)
    if is_interpolated(neighbors, least_between=0):  # few of the colors of JPEG are between those of their neighbors
        return f"colors, most of them only at borders, as after interpolation or JPEG compression; {REMEDY}"
    return "colors; is it a photograph?"
