"""Detection of masks whose values were interpolated: resized, antialiased, or saved as JPEG in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcnlab.config.mask_values import MaskValue
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.labels import open_mask, pack_rgb, simplify_mode
from fcnlab.errors import list_some

INSPECTED_MASKS = 16
"""Number of masks in which neighboring pixels are compared: those with the most different values."""

SHOWN = 6
"""Maximum number of values that an error lists."""

LEAST_GRAYS = 3
"""Least number of interpolated values besides 0 and 255."""

LEAST_VALUES = 4
"""Least number of interpolated values of other masks."""

MOST_INTERIOR = 0.1
"""Greatest fraction of the pixels of an interpolated value that are inside of areas of this value."""

LEAST_BETWEEN = 0.45
"""Least fraction of the pixels with interpolated values that are between the values of two opposite neighbors."""

MOST_PIXELS = 0.3
"""Greatest fraction of all pixels that have interpolated values."""

REMEDY = (
    "save the masks again as PNG, resized with nearest-neighbor interpolation, or restore their values, with a "
    "threshold if they are binary"
)


@dataclass(frozen=True)
class Neighbors:
    """Statistics of pixels and their neighbors in masks.

    Attributes:
        pixels: number of pixels of each value.
        interior: number of these whose eight neighbors have the same value.
        between: number of these whose value is between those of two opposite neighbors, and differs from both.
    """

    pixels: Counter[MaskValue] = field(default_factory=Counter)
    interior: Counter[MaskValue] = field(default_factory=Counter)
    between: Counter[MaskValue] = field(default_factory=Counter)

    def add(self, values: NDArray[Any]) -> None:
        """Add the pixels of a mask.

        Args:
            values: numbers [H, W], or colors uint8 [H, W, 3].
        """
        packed = pack_rgb(values) if values.ndim == 3 else values
        self.pixels.update(_count(packed, values))
        if min(packed.shape) < 3:  # no pixel has neighbors on all sides
            return
        center, inside, height, width = packed[1:-1, 1:-1], None, *packed.shape
        for y, x in np.ndindex(3, 3):
            same = packed[y : height - 2 + y, x : width - 2 + x] == center
            inside = same if inside is None else inside & same
        assert inside is not None
        self.interior.update(_count(center[inside], values))
        levels = values.reshape(height, width, -1).astype(np.int32)
        found = np.zeros(packed.shape, dtype=bool)
        found[:, 1:-1] |= _is_between(levels[:, :-2], levels[:, 1:-1], levels[:, 2:])
        found[1:-1] |= _is_between(levels[:-2], levels[1:-1], levels[2:])
        self.between.update(_count(packed[found], values))

    def edge_values(self) -> set[MaskValue]:
        """Return the values that have no areas, only lines and single pixels."""
        return {value for value, count in self.pixels.items() if self.interior[value] <= MOST_INTERIOR * count}


def find_interpolated_values(
    pixels: Counter[MaskValue], by_mask: Mapping[Path, Mapping[MaskValue, int]]
) -> list[MaskValue]:
    """Return the values that interpolation has produced, which are not classes.

    Interpolated pixels are located at borders, with values between those of both sides, and form no areas. Values with
    areas are classes or objects, whatever their numbers are.

    Args:
        pixels: number of pixels of each value.
        by_mask: the same by mask.

    Returns:
        The values, sorted; empty if the masks were not interpolated.
    """
    grays = _find_grays(pixels)
    if not grays and len(pixels) < LEAST_VALUES + 2:
        return []
    neighbors = Neighbors()
    for mask in sorted(by_mask, key=lambda mask: -len(by_mask[mask]))[:INSPECTED_MASKS]:
        neighbors.add(np.asarray(simplify_mode(open_mask(mask), mask)))
    found = _select_edges(grays, neighbors)
    return [value for value in sorted(pixels) if value in found]


def is_interpolated_mask(values: NDArray[Any]) -> bool:
    """Return whether one mask was interpolated.

    Args:
        values: numbers [H, W], or colors uint8 [H, W, 3].
    """
    neighbors = Neighbors()
    neighbors.add(values)
    return bool(_select_edges(_find_grays(neighbors.pixels), neighbors))


def _select_edges(grays: Collection[MaskValue], neighbors: Neighbors) -> Collection[MaskValue]:
    """Return the grays if they form no areas, or else the values of interpolated masks without areas."""
    seen = [value for value in grays if value in neighbors.pixels]
    if grays and _sum(neighbors.interior, seen) <= MOST_INTERIOR * _sum(neighbors.pixels, seen):
        return grays
    return neighbors.edge_values() if is_interpolated(neighbors) else ()


def is_interpolated(neighbors: Neighbors, least_between: float = LEAST_BETWEEN) -> bool:
    """Return whether most values have no areas, few pixels, and levels between those of their neighbors.

    Args:
        neighbors: statistics of masks.
        least_between: least fraction of the pixels of these values that are between two opposite neighbors.
    """
    edges = neighbors.edge_values()
    solid = len(neighbors.pixels) - len(edges)
    count = _sum(neighbors.pixels, edges)
    return (
        len(edges) >= LEAST_VALUES
        and 2 <= solid < len(edges)
        and count <= MOST_PIXELS * neighbors.pixels.total()
        and _sum(neighbors.between, edges) >= least_between * count
    )


def describe_interpolation(values: Sequence[MaskValue], pixels: Mapping[MaskValue, int]) -> str:
    """Return the error about interpolated masks.

    Args:
        values: values that interpolation has produced.
        pixels: number of pixels of each value.
    """
    others = [value for value in sorted(pixels, key=lambda value: -pixels[value]) if value not in values]
    share = 100 * _sum(pixels, values) / sum(pixels.values())
    return (
        f"the masks were probably resized with interpolation, antialiased or saved as JPEG: besides "
        f"{list_some(others, SHOWN)}, they contain {len(values)} values that form no areas and occur only at borders "
        f"({list_some(values, SHOWN)}; {share:.2g} % of the pixels); {REMEDY}; if the values are classes, assign each "
        "of them with --classes NAME=VALUE+VALUE,... or --ignore"
    )


def gray_level(value: MaskValue) -> int | None:
    """Return a number unchanged, and the level of a gray color; None for other colors.

    Args:
        value: a number, or a color '#rrggbb'.
    """
    if isinstance(value, int):
        return value
    return int(value[1:3], 16) if value[1:3] == value[3:5] == value[5:7] else None


def _find_grays(pixels: Mapping[MaskValue, int]) -> list[MaskValue]:
    """Return the values besides 0 and 255 if these two are the most frequent and the others may be interpolated."""
    levels = {value: level for value in pixels if (level := gray_level(value)) is not None}
    grays = [value for value, level in levels.items() if level not in (0, IGNORE_INDEX)]
    ends = [value for value in levels if value not in grays]
    if len(levels) < len(pixels) or len(ends) < 2 or len(grays) < LEAST_GRAYS:
        return []
    found = [levels[value] for value in grays]
    is_rare = max(pixels[value] for value in grays) < min(pixels[value] for value in ends)
    return grays if is_rare and min(found) < 128 <= max(found) < IGNORE_INDEX else []


def _count(packed: NDArray[Any], values: NDArray[Any]) -> dict[MaskValue, int]:
    """Return the number of pixels of each value, which is a color if the mask has colors."""
    found, counts = np.unique(packed, return_counts=True)
    names: list[MaskValue] = [f"#{value:06x}" if values.ndim == 3 else int(value) for value in found]
    return dict(zip(names, counts.tolist(), strict=True))


def _is_between(before: NDArray[np.int32], levels: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels [H, W] whose channels are between those of two neighbors, and which differ from both."""
    low, high = np.minimum(before, after), np.maximum(before, after)
    inside = ((low <= levels) & (levels <= high)).all(axis=2)
    return np.asarray(inside & (levels != before).any(axis=2) & (levels != after).any(axis=2))


def _sum(counts: Mapping[MaskValue, int], values: Collection[MaskValue]) -> int:
    return sum(counts[value] for value in values)
