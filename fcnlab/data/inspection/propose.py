"""Inspection of folders of images and masks: pairs of files, values of the masks, and proposed classes and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcnlab.config.mask_values import MAX_NUMBER
from fcnlab.data.datasets.folder import SPLIT, common_splits, index_images, split_folder
from fcnlab.data.datasets.image_file import RGB, ImageFormat, open_image
from fcnlab.data.datasets.labels import EXPECTED_NUMBERS, NUMBER_MODES, pack_rgb, simplify_mode
from fcnlab.data.inspection.image_contents import ImageContents
from fcnlab.errors import DataError

IMAGE_SUFFIXES = ("", "_leftImg8bit", "_image", "_img", "_rgb", "_sat")
MASK_SUFFIXES = (
    "", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation",
    "_gtFine_labelIds", "_labelIds", "_L",
)  # fmt: skip
"""Common suffixes of the names of images and masks, the shortest first."""

PURPOSES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Common names of the sub-folders of splits."""

MAX_VALUES = 256
"""Maximum number of different numbers or colors of masks."""

SHOWN = 10
"""Maximum number of values and problems that an error lists."""


@dataclass(frozen=True)
class Pairing:
    """Images and masks that match by name, and those that do not.

    Attributes:
        image_suffix: suffix that is removed from the names of images.
        mask_suffix: suffix that is removed from the names of masks.
        pairs: image and mask of each id.
        unpaired_images: images without a mask.
        unpaired_masks: masks without an image.
    """

    image_suffix: str
    mask_suffix: str
    pairs: Mapping[str, tuple[Path, Path]]
    unpaired_images: Sequence[Path]
    unpaired_masks: Sequence[Path]


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

    @property
    def size(self) -> tuple[int, int]:
        """The most common height and width."""
        return self.sizes.most_common(1)[0][0]

    @property
    def values(self) -> list[int | str]:
        """The values of the masks, sorted."""
        return sorted(self.pixels)  # all numbers or all colors


def find_splits(images: str, masks: str) -> tuple[str, str]:
    """Append `{split}` to the folders if both have sub-folders for training and for evaluation.

    Args:
        images: folder of the images.
        masks: folder of the masks.

    Returns:
        Both folders with `{split}`, or unchanged.
    """
    if SPLIT in images or SPLIT in masks:
        return images, masks
    both = (f"{images}/{SPLIT}", f"{masks}/{SPLIT}")
    found = match_purposes(common_splits(*both))
    return both if "train" in found and len(found) > 1 else (images, masks)


def match_purposes(names: Iterable[str]) -> dict[str, str]:
    """Return the split of each purpose, by common names such as `training` and `valid`.

    Args:
        names: names of the splits.

    Returns:
        Names by `train`, `val` and `test`, as far as they exist.
    """
    by_name = {name.lower(): name for name in names}
    found = {
        purpose: next((by_name[known] for known in known_as if known in by_name), None)
        for purpose, known_as in PURPOSES.items()
    }
    return {purpose: name for purpose, name in found.items() if name is not None}


def pair_files(images: str, masks: str) -> Pairing:
    """Pair images and masks by name, with the suffixes that give the most pairs.

    Args:
        images: folder of the images, which may contain `{split}`.
        masks: folder of the masks, with the same structure.

    Raises:
        DataError: a folder is missing or contains no images, or no image and mask match.
    """
    splits = common_splits(images, masks) if SPLIT in images else ("",)
    if not splits:
        raise DataError(f"{images} and {masks}: no split has a folder in both")
    image_files, mask_files = _list_files(images, splits), _list_files(masks, splits)
    for folder, files in ((images, image_files), (masks, mask_files)):
        if not files:
            raise DataError(f"{folder}: contains no images (.png, .jpg, .tif, ...)")
    if {*image_files.values()} & {*mask_files.values()}:
        raise DataError(f"{images}: images and masks are the same files; pass two different folders")
    best: tuple[dict[str, Path], dict[str, Path]] = {}, {}
    suffixes = ("", "")
    for image_suffix in IMAGE_SUFFIXES:
        for mask_suffix in MASK_SUFFIXES:
            ours, theirs = _strip_suffix(image_files, image_suffix), _strip_suffix(mask_files, mask_suffix)
            if len(ours.keys() & theirs.keys()) > len(best[0].keys() & best[1].keys()):
                best, suffixes = (ours, theirs), (image_suffix, mask_suffix)
    ids = sorted(best[0].keys() & best[1].keys())
    if not ids:
        first, other = next(iter(image_files.values())), next(iter(mask_files.values()))
        raise DataError(
            f"{images} and {masks}: no image and mask match by name; the first are {first.name} and {other.name}; "
            f"a mask must have the name of its image, optionally followed by one of {', '.join(MASK_SUFFIXES[1:])}"
        )
    return Pairing(
        *suffixes,
        {id_: (best[0][id_], best[1][id_]) for id_ in ids},
        [path for id_, path in best[0].items() if id_ not in best[1]],
        [path for id_, path in best[1].items() if id_ not in best[0]],
    )


def read_contents(
    pairs: Mapping[str, tuple[Path, Path]], advance: Callable[[], object], image_format: ImageFormat = RGB
) -> Contents:
    """Read all masks and the sizes of all images.

    Args:
        pairs: image and mask of each id.
        advance: called after each pair.
        image_format: channels of the images.

    Raises:
        DataError: files cannot be read or used; one line per file.
    """
    found = Contents(ImageContents(image_format))
    problems = []
    for image, mask in pairs.values():
        try:
            _read_pair(image, mask, found)
        except DataError as error:
            problems.append(str(error))
        advance()
    if len({type(value) for value in found.pixels}) > 1:
        modes = ", ".join(f"{count} of mode {mode}" for mode, count in sorted(found.modes.items()))
        problems.append(
            f"{next(iter(pairs.values()))[1].parent}: masks with numbers and masks with colors are mixed: {modes}"
        )
    if problems:
        more = [f"{len(problems) - SHOWN} more files cannot be used"] if len(problems) > SHOWN else []
        raise DataError("\n".join(problems[:SHOWN] + more))
    return found


def _read_pair(image: Path, mask: Path, found: Contents) -> None:
    if mask.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"{mask}: the mask is a JPEG, which changes the values of pixels; save masks as PNG")
    height, width = found.images.add(image)
    picture = open_image(mask)
    if picture.size != (width, height):
        raise DataError(
            f"{mask}: the mask is {picture.height}x{picture.width} (height x width), its image {image} is "
            f"{height}x{width}; create the mask again at the size of the image"
        )
    found_mode = picture.mode
    picture = simplify_mode(picture, mask)
    if picture.mode not in (*NUMBER_MODES, "RGB"):
        raise DataError(f"{mask}: the mask has mode {picture.mode}; {EXPECTED_NUMBERS}, or colors (mode RGB)")
    values = np.asarray(picture)
    colors = picture.mode == "RGB"
    found_values, counts = np.unique(pack_rgb(values) if colors else values, return_counts=True)
    named = [f"#{value:06x}" if colors else int(value) for value in found_values]
    if len({*found.pixels, *named}) > MAX_VALUES:
        what = "colors; is it a photograph?" if colors else "values; are these numbers of objects, or depths?"
        raise DataError(f"{mask}: the masks up to this one have more than {MAX_VALUES} {what}")
    if not colors and not 0 <= int(values.min()) <= int(values.max()) <= MAX_NUMBER:
        raise DataError(
            f"{mask}: values from {values.min()} to {values.max()}; class numbers are from 0 to {MAX_NUMBER}"
        )
    found.sizes[height, width] += 1
    found.modes[found_mode] += 1
    found.by_mask[mask] = dict(zip(named, counts.tolist(), strict=True))
    found.pixels.update(found.by_mask[mask])
    found.masks.update(named)


def _list_files(folder: str, splits: Iterable[str]) -> dict[str, Path]:
    """Return the images of a folder by split and name."""
    found: dict[str, Path] = {}
    for split in splits:
        path = split_folder(folder, split) if split else folder
        found |= {f"{split}\0{id_}": file for id_, file in index_images(path).items()}
    return found


def _strip_suffix(files: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    return {id_.removesuffix(suffix): path for id_, path in files.items() if id_.endswith(suffix)}
