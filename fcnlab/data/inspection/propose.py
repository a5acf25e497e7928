"""Look into folders of images and masks, and propose how they are a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import open_image
from fcnlab.data.datasets.folder import SPLIT, common_splits, index_images, split_folder
from fcnlab.data.datasets.labels import pack_rgb
from fcnlab.errors import DataError

IMAGE_SUFFIXES = ("", "_leftImg8bit", "_image", "_img", "_rgb", "_sat")
MASK_SUFFIXES = (
    "", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation",
    "_gtFine_labelIds", "_labelIds", "_L",
)  # fmt: skip
"""How people's names of images and masks end, the plain ones first."""

PURPOSES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""How people call the sub-folders of splits."""

MOST_COLOURS = 256
SHOWN = 10

Values = tuple[tuple[str, tuple[int | str, ...]], ...]
"""Names of classes with the values that mean them."""


@dataclass(frozen=True)
class Pairing:
    """Images and masks of the same id, and those that stand alone."""

    image_suffix: str
    mask_suffix: str
    pairs: Mapping[str, tuple[Path, Path]]
    images_alone: Sequence[Path]
    masks_alone: Sequence[Path]


@dataclass
class Contents:
    """What the pairs hold.

    Attributes:
        sizes: how many images have this height and width.
        modes: how many masks have this mode of Pillow.
        pixels: how many pixels have this value, a number or a colour '#rrggbb'.
        masks: in how many masks a value stands.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    pixels: Counter[int | str] = field(default_factory=Counter)
    masks: Counter[int | str] = field(default_factory=Counter)

    @property
    def size(self) -> tuple[int, int]:
        """The most common height and width."""
        return self.sizes.most_common(1)[0][0]

    @property
    def values(self) -> list[int | str]:
        """What the masks hold, in order."""
        return sorted(self.pixels)  # all numbers or all colours


def find_splits(images: str, masks: str) -> tuple[str, str]:
    """The same folders with `{split}`, where both have sub-folders of a split to train on and one to score on."""
    if SPLIT in images or SPLIT in masks:
        return images, masks
    both = (f"{images}/{SPLIT}", f"{masks}/{SPLIT}")
    there = purposes(common_splits(*both))
    return both if "train" in there and len(there) > 1 else (images, masks)


def purposes(names: Iterable[str]) -> dict[str, str]:
    """Which split serves which purpose, by their names."""
    by_name = {name.lower(): name for name in names}
    found = {
        purpose: next((by_name[known] for known in known_as if known in by_name), None)
        for purpose, known_as in PURPOSES.items()
    }
    return {purpose: name for purpose, name in found.items() if name is not None}


def pair(images: str, masks: str) -> Pairing:
    """Pair images and masks by their names: of the usual suffixes those that give most pairs.

    Raises:
        DataError: a folder is missing, holds no images, or nothing pairs.
    """
    splits = common_splits(images, masks) if SPLIT in images else ("",)
    if not splits:
        raise DataError(f"{images} and {masks}: no folders are there that differ in the name of the split alone")
    image_files, mask_files = _files(images, splits), _files(masks, splits)
    for folder, files in ((images, image_files), (masks, mask_files)):
        if not files:
            raise DataError(f"{folder}: holds no images (.png, .jpg, .tif, ...)")
    if {*image_files.values()} & {*mask_files.values()}:
        raise DataError(f"{images}: images and masks are the same files; keep them in two folders, and name both")
    best: tuple[dict[str, Path], dict[str, Path]] = {}, {}
    suffixes = ("", "")
    for image_suffix in IMAGE_SUFFIXES:
        for mask_suffix in MASK_SUFFIXES:
            ours, theirs = _cut(image_files, image_suffix), _cut(mask_files, mask_suffix)
            if len(ours.keys() & theirs.keys()) > len(best[0].keys() & best[1].keys()):
                best, suffixes = (ours, theirs), (image_suffix, mask_suffix)
    ids = sorted(best[0].keys() & best[1].keys())
    if not ids:
        first, other = next(iter(image_files.values())), next(iter(mask_files.values()))
        raise DataError(
            f"{images} and {masks}: no image and mask pair by name; the first are {first.name} and {other.name}, and "
            f"a mask is expected to be called as its image is, or with one of {', '.join(MASK_SUFFIXES[1:])} added"
        )
    return Pairing(
        *suffixes,
        {id_: (best[0][id_], best[1][id_]) for id_ in ids},
        [path for id_, path in best[0].items() if id_ not in best[1]],
        [path for id_, path in best[1].items() if id_ not in best[0]],
    )


def look(pairs: Mapping[str, tuple[Path, Path]], advance: Callable[[], object]) -> Contents:
    """Read every mask and the size of every image; `advance` is called for each pair.

    Raises:
        DataError: files that cannot be read or used, one a line.
    """
    found = Contents()
    problems = []
    for image, mask in pairs.values():
        try:
            _look_at(image, mask, found)
        except DataError as error:
            problems.append(str(error))
        advance()
    if len({type(value) for value in found.pixels}) > 1:
        modes = ", ".join(f"{count} of mode {mode}" for mode, count in sorted(found.modes.items()))
        problems.append(f"{next(iter(pairs.values()))[1].parent}: masks of numbers and of colours do not mix: {modes}")
    if problems:
        more = [f"{len(problems) - SHOWN} more files cannot be used"] if len(problems) > SHOWN else []
        raise DataError("\n".join(problems[:SHOWN] + more))
    return found


def _look_at(image: Path, mask: Path, found: Contents) -> None:
    if mask.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"{mask}: the mask is a JPEG, which changes the values of pixels; save masks as PNG")
    with _header(image) as opened:
        width, height = opened.size
    picture = open_image(mask)
    if picture.size != (width, height):
        raise DataError(
            f"{mask}: the mask is {picture.height}x{picture.width} (height x width), its image {image} is "
            f"{height}x{width}; make the mask anew at the image's size"
        )
    if picture.mode not in ("L", "P", "RGB"):
        raise DataError(
            f"{mask}: the mask has mode {picture.mode}; save numbers as 8-bit greyscale or palette (L, P) and colours "
            "as RGB"
        )
    values = np.asarray(picture)
    colours = picture.mode == "RGB"
    there, counts = np.unique(pack_rgb(values) if colours else values, return_counts=True)
    named = [f"#{value:06x}" if colours else int(value) for value in there]
    if colours and len({*found.pixels, *named}) > MOST_COLOURS:
        raise DataError(f"{mask}: with this mask there are more than {MOST_COLOURS} colours; is it a photograph?")
    found.sizes[height, width] += 1
    found.modes[picture.mode] += 1
    found.pixels.update(dict(zip(named, counts.tolist(), strict=True)))
    found.masks.update(named)


def classes(values: Sequence[int | str], ignore: Sequence[int | str] | None) -> tuple[Values, list[int | str]]:
    """Propose classes with made-up names, and which values do not count.

    Where nothing is said to be ignored, 255 is, unless the masks hold 0 and 255 alone: these are two classes.

    Raises:
        DataError: fewer than two values are left.
    """
    if ignore is None and list(values) == [0, IGNORE_INDEX]:
        return (("background", (0,)), ("foreground", (IGNORE_INDEX,))), []
    ignored: list[int | str] = (
        list(ignore) if ignore is not None else [value for value in values if value == IGNORE_INDEX]
    )
    left = [value for value in values if value not in ignored]
    if len(left) < 2:
        raise DataError(
            f"the masks hold {', '.join(map(str, values))}, of which {len(left)} would be a class; a dataset has at "
            "least two"
        )
    return tuple((_made_up(value), (value,)) for value in left), ignored


def _made_up(value: int | str) -> str:
    """A name for a class of which nothing but its value is known."""
    return f"class_{value}" if isinstance(value, int) else f"colour_{value[1:]}"


def check_known(contents: Contents, classes_: Values, ignore: Sequence[int | str]) -> None:
    """Check that every value of the masks is a class or ignored.

    Raises:
        DataError: the values that are not, with their share of the pixels, or numbers for colours.
    """
    known = {value for _, values in classes_ for value in values} | {*ignore}
    first = contents.values[0]
    if not any(isinstance(value, type(first)) for value in known):
        has, given = ("colours", "numbers") if isinstance(first, str) else ("numbers", "colours")
        raise DataError(
            f"the masks hold {has}, and --classes gives {given}; name them in a YAML file, a line each, such as "
            f"`road: {first!r}`"
        )
    if any(isinstance(value, int) for value in known):
        known |= {IGNORE_INDEX}
    strange = [value for value in contents.values if value not in known]
    if strange:
        total = sum(contents.pixels.values())
        shown = [f"{value!r} ({100 * contents.pixels[value] / total:.2f} % of the pixels)" for value in strange[:SHOWN]]
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        raise DataError(
            f"the masks hold {', '.join(shown)}{more}, and nothing says what is meant; name them under --classes, or "
            f"pass --ignore {','.join(map(str, strange[:SHOWN]))}"
        )


def _files(folder: str, splits: Iterable[str]) -> dict[str, Path]:
    """The images of a folder by split and name."""
    found: dict[str, Path] = {}
    for split in splits:
        path = split_folder(folder, split) if split else folder
        found |= {f"{split}\0{id_}": file for id_, file in index_images(path).items()}
    return found


def _cut(files: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    return {id_.removesuffix(suffix): path for id_, path in files.items() if id_.endswith(suffix)}


def _header(path: Path) -> Image.Image:
    """An image whose size is known and whose pixels are not read."""
    try:
        return Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None
