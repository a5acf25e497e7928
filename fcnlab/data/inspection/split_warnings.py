"""Warnings about a dataset whose files can be read: rotated images, palettes, and images in two splits or in none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from fcnlab.console import format_count
from fcnlab.data.datasets.base import FileSplit
from fcnlab.data.datasets.folder import list_images
from fcnlab.data.datasets.splits import SPLIT, common_splits
from fcnlab.data.inspection.image_contents import NON_FINITE, ImageContents
from fcnlab.data.inspection.pair_contents import Contents
from fcnlab.data.inspection.pairing import match_purposes
from fcnlab.data.inspection.palettes import PALETTES_REMEDY, compare_palettes, read_colors
from fcnlab.data.inspection.sample_facts import SHARED_REMEDY, ImagesByMask, add_images, describe_shared_masks
from fcnlab.errors import list_some

MOST_IGNORED = 0.5
"""Share of ignored pixels above which there is a warning."""

MAX_VALUES_NAMED = 3
"""Number of ignored values that a warning names."""


def warn_of_rotations(rotated: Mapping[Path, int]) -> Iterator[str]:
    """Yield a warning if viewers rotate images, because the masks may have been made from rotated images.

    Args:
        rotated: EXIF orientation of the images.
    """
    for image, orientation in list(rotated.items())[:1]:
        yield (
            f"EXIF orientation: viewers rotate or mirror {format_count(len(rotated), 'image')}, such as {image} "
            f"({orientation}); the stored pixels are used: inspect with `fcnlab data preview` that the masks fit them"
        )


def warn_of_values(images: ImageContents) -> Iterator[str]:
    """Yield warnings about pixels that are not finite, and about outliers that narrow the range of all other values.

    Args:
        images: statistics of the images.
    """
    for image, pixels in list(images.non_finite.items())[:1]:
        yield (
            f"pixels that are NaN or infinite in {format_count(len(images.non_finite), 'image')}, such as {image} "
            f"({format_count(pixels, 'pixel')}); {NON_FINITE}"
        )
    for value, (low, high), found in images.find_outliers():
        assert images.value_range is not None
        first, last = images.value_range
        levels = max(1, round(255 * (high - low) / (last - first)))
        yield (
            f"{value:g} is far from all other values, {low:g}..{high:g}, as a value of missing data (nodata) is, in "
            f"{format_count(len(found), 'image')}, such as {found[0]}; with value_range: [{first:g}, {last:g}], "
            f"the others have about {format_count(levels, 'level')} of 256: set value_range: [{low:g}, {high:g}]"
        )


def warn_of_palettes(contents: Contents) -> Iterator[str]:
    """Yield a warning if palette masks assign different colors to one number.

    Args:
        contents: statistics of the masks.
    """
    palettes = compare_palettes(read_colors(contents), {}) if contents.modes["P"] else None
    if palettes is not None:
        yield f"{palettes[1]}; {PALETTES_REMEDY}"


def warn_of_ignored_pixels(contents: Contents, used: Collection[int | str]) -> Iterator[str]:
    """Yield a warning if more than half of the pixels belong to no class.

    Args:
        contents: statistics of the masks.
        used: values of the classes.
    """
    total = contents.pixels.total()
    ignored = {value: pixels for value, pixels in contents.pixels.items() if value not in used}
    share = sum(ignored.values()) / total
    if share > MOST_IGNORED:
        values = list_some([str(value) for value in ignored], MAX_VALUES_NAMED)
        yield (
            f"{100 * share:.1f} % of all pixels are ignored ({values}), so they are neither trained nor evaluated; "
            "inspect a few masks, unless most of each image is unlabeled on purpose"
        )


def warn_of_repeated_images(splits: Mapping[str, FileSplit]) -> Iterator[str]:
    """Yield a warning if lists contain an image in two splits.

    Args:
        splits: splits by name.
    """
    names: dict[Path, list[str]] = {}
    for name, split in splits.items():
        for pair in split.pairs:
            names.setdefault(pair.image, []).append(name)
    in_two = {image: found for image, found in names.items() if len(found) > 1}
    if in_two:
        image, found = next(iter(in_two.items()))
        yield (
            f"{format_count(len(in_two), 'image')} in two splits, such as {image} in {' and '.join(found)}: metrics "
            "are biased; keep each image in one split"
        )


def warn_of_shared_masks(splits: Mapping[str, FileSplit]) -> Iterator[str]:
    """Yield a warning if lists of pairs give one mask to several images.

    Args:
        splits: splits by name.
    """
    images: ImagesByMask = {}
    add_images(images, ((str(pair.image), str(pair.mask)) for split in splits.values() for pair in split.pairs))
    what = describe_shared_masks(images)
    if what is not None:
        yield f"{what}; {SHARED_REMEDY}"


def warn_of_unused_images(folder: Path, splits: Collection[str]) -> Iterator[str]:
    """Yield a warning if a folder contains images outside of the sub-folders of its splits.

    Args:
        folder: folder of the images.
        splits: names of the sub-folders that are used.
    """
    unused = [file for file in list_images(str(folder)) if file.relative_to(folder).parts[0] not in splits]
    if unused:
        yield (
            f"{format_count(len(unused), 'image')} outside of the sub-folders {', '.join(splits)}, not used, "
            f"such as {unused[0]}; for random splits of all images, pass --val and --test"
        )


def warn_of_other_splits(images: str, masks: str) -> Iterator[str]:
    """Yield a warning if both folders are below a folder of one split, such as `train`, with other splits beside it.

    Args:
        images: folder of the images.
        masks: folder of the masks.
    """
    for split in dict.fromkeys(Path(images).parts):
        if not match_purposes([split]) or split not in Path(masks).parts:
            continue
        templates = [_replace_last(folder, split) for folder in (images, masks)]
        others = [name for name in match_purposes(common_splits(*templates)).values() if name != split]
        if others:
            yield (
                f"only images of '{split}' are used, not those of {', '.join(others)} beside it; to use these folders "
                f"as splits, pass --images '{templates[0]}' --masks '{templates[1]}'"
            )


def _replace_last(folder: str, split: str) -> str:
    """Replace the last part of a path that is the name of a split by `{split}`."""
    before, after = f"{folder}/".rsplit(f"/{split}/", 1)
    return f"{before}/{SPLIT}/{after}".rstrip("/")
