"""Palettes of masks: numbers with several colors, colors with several numbers, and colors as the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from fcnlab.data.datasets.image_file import open_header
from fcnlab.data.inspection.diagnosis import read_mask_palette, select_colors
from fcnlab.data.inspection.pair_contents import SHOWN, Contents
from fcnlab.errors import DataError

LabelColors = dict[int, bytes]
"""Colors of the numbers that occur in a palette mask, three bytes each."""

FirstColors = dict[int, tuple[bytes, str]]
"""The color of each number in the first palette mask that contains it, and the id of that mask."""

PALETTES_REMEDY = "if the classes are colors, convert them to class numbers"

PERMUTATION_REMEDY = (
    "if the colors are the classes, write them in the entry, such as `classes: {road: '#804080'}`; if the numbers are "
    "the classes, write `palettes: any`"
)

MIN_FRACTION = 1 / 3
"""Least fraction of colors with several numbers; unrelated palettes may share a few colors, such as black."""


@dataclass
class PaletteNumbers:
    """The numbers of each color in palette masks.

    Attributes:
        numbers: id of the first mask by number, by color.
    """

    numbers: dict[bytes, dict[int, str]] = field(default_factory=dict)

    def add(self, masks: Iterable[tuple[str, LabelColors]]) -> None:
        """Add masks. A color that a mask has under several numbers is left out.

        Args:
            masks: id of each mask, and the colors of the numbers that occur in it.
        """
        for id_, colors in masks:
            occurring = list(colors.values())
            for number, color in colors.items():
                if occurring.count(color) == 1:
                    self.numbers.setdefault(color, {}).setdefault(number, id_)

    def find_permutation(self) -> tuple[str, str] | None:
        """Find colors that have other numbers in other masks.

        Returns:
            The id of a mask with another number than an earlier one, and the description; None if the numbers of
            nearly all colors are the same in all masks.
        """
        several = [color for color, numbers in self.numbers.items() if len(numbers) > 1]
        if not several or len(several) < MIN_FRACTION * len(self.numbers):
            return None
        (number, first), (other, id_), *_ = self.numbers[several[0]].items()
        return id_, (
            f"{len(several)} of {len(self.numbers)} colors of the palette masks have several numbers: "
            f"#{several[0].hex()} is {number} in {first} and {other} in {id_}"
        )


def compare_palettes(masks: Iterable[tuple[str, LabelColors]], first: FirstColors) -> tuple[str, str] | None:
    """Describe palette masks that assign different colors to one number.

    Drawing programs renumber the colors in each file, so the classes may be the colors and not the numbers.

    Args:
        masks: id and colors of each mask.
        first: colors of earlier masks, to which those of these masks are added.

    Returns:
        The id of the first mask that differs from earlier ones, and the description; None if no mask differs.
    """
    different: dict[str, tuple[int, bytes]] = {}
    for id_, colors in masks:
        for number, color in colors.items():
            if color != first.setdefault(number, (color, id_))[0]:
                different.setdefault(id_, (number, color))
    if not different:
        return None
    id_, (number, color) = next(iter(different.items()))
    before, first_id = first[number]
    return id_, (
        f"{len(different)} palette masks assign another color to a number than earlier masks: {number} is "
        f"{tuple(before)} in {first_id} and {tuple(color)} in {id_}"
    )


def use_palette_colors(contents: Contents) -> Contents:
    """Return the contents of palette masks with their colors as the values; unchanged if masks have another mode.

    Args:
        contents: statistics of the masks.
    """
    if set(contents.modes) != {"P"}:
        return contents
    by_mask: dict[Path, dict[int | str, int]] = {}
    for file, values in contents.by_mask.items():
        with open_header(file) as mask:
            palette = read_mask_palette(mask) or b""
        colors: Counter[int | str] = Counter()
        for number, count in values.items():
            color = palette[3 * int(number) : 3 * int(number) + 3]
            colors[f"#{color.ljust(3, bytes(1)).hex()}"] += count  # a missing color is black, as in Pillow
        by_mask[file] = dict(colors)
    pixels: Counter[int | str] = Counter()
    masks: Counter[int | str] = Counter()
    for found in by_mask.values():
        pixels.update(found)
        masks.update(found.keys())
    return replace(contents, by_mask=by_mask, pixels=pixels, masks=masks)


def refuse_permuted_palettes(contents: Contents) -> None:
    """Raise an error if the colors of palette masks have other numbers in other masks.

    Args:
        contents: statistics of the masks.

    Raises:
        DataError: nearly all masks would have other labels than intended if the colors are the classes.
    """
    if not contents.modes["P"]:
        return
    palettes = PaletteNumbers()
    palettes.add(read_colors(contents))
    permutation = palettes.find_permutation()
    if permutation is not None:
        colors = sorted(f"#{color.hex()}" for color in palettes.numbers)
        option = ",".join(f"color_{color[1:]}={color}" for color in colors[:SHOWN]) + ",..." * (len(colors) > SHOWN)
        raise DataError(
            f"{permutation[1]}, so the colors seem to be the classes; pass them: --classes {quote(option)}; if the "
            "numbers are the classes, pass --any-palette"
        )


def read_colors(contents: Contents) -> Iterator[tuple[str, LabelColors]]:
    """Yield the name and the colors of each palette mask.

    Args:
        contents: statistics of the masks.
    """
    for file, values in contents.by_mask.items():
        with open_header(file) as mask:
            palette = read_mask_palette(mask)
        if palette is not None:
            yield file.name, select_colors(palette, (value for value in values if isinstance(value, int)))
