"""What exactly is wrong with a pair of files that does not decode, and what is odd about one that does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from fcnlab.data.datasets.base import Pair, Pixels, open_image
from fcnlab.data.datasets.labels import LabelDecoder
from fcnlab.errors import DataError

IMAGE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises over files that are no image, or no whole one."""

HIGH_BIT_DEPTH_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes of more than 8 bits a channel. As an 8-bit image they would be clipped at 255, mostly to white."""

SHOWN = 6
"""How many undefined values are listed with their pixels."""

PROBED = 4096
"""How many values of a mask are tried. A mask of numbers has 256 at most; one of blurred colours, any number."""


OpenMask = Callable[[Path], Image.Image]
"""Opens and decodes a file. Raises DataError where that cannot be done."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        split: where it was found.
        where: the file, or the id of the sample.
        kind: such as `missing mask`; the same words for the same fault.
        what: what is wrong, in figures where there are any.
        remedy: what to do.
    """

    split: str
    where: str
    kind: str
    what: str
    remedy: str


@dataclass(frozen=True)
class _File:
    """An image file: decoded, or why not."""

    path: Path
    image: Image.Image | None
    error: str = ""
    missing: bool = False


def diagnose(
    split: str, pair: Pair, error: DataError, labels: LabelDecoder | None, open_mask: OpenMask
) -> list[Problem]:
    """Every fault of a pair that does not decode, at least one.

    `error` is what its split said; `labels` is what the values of the dataset's masks mean, where that is known;
    `open_mask` opens a mask as the split does.
    """
    image, mask = _read(pair.image, open_image), _read(pair.mask, open_mask)
    if image.missing and mask.missing:
        what = f"there is neither {pair.image.name} nor {pair.mask.name}"
        return [
            Problem(split, pair.id, "id without files", what, "fetch the files, or take the id off the split's list")
        ]
    problems = [*_absent(split, image, "image"), *_absent(split, mask, "mask")]
    said = str(error).removeprefix(f"{pair.mask}: ")
    if image.image is not None:
        problems += deep(split, pair.image, image.image)
        if mask.image is not None:
            problems += _sizes(split, pair, image.image, mask.image)
    if mask.image is not None:
        problems += _values(split, pair.mask, mask.image, labels)
    return problems or [Problem(split, str(pair.mask), "inconsistent", said, "put the file right")]


def without_image(split: str, pairs: Sequence[Pair]) -> list[Problem]:
    """Masks whose image is gone. Where the images' folder says what a split has, such a pair is silently left out.

    Looked for in the folders of the split's masks, under names built as those of its pairs, whatever the extension of
    the image.
    """
    folders: dict[Path, set[Path]] = {}
    endings: dict[str, set[str]] = {}
    for pair in pairs:
        folders.setdefault(pair.mask.parent, set()).add(pair.image.parent)
        stem = Path(pair.id).name
        if pair.mask.name.startswith(stem) and pair.image.name.startswith(stem):
            endings.setdefault(pair.mask.name.removeprefix(stem), set()).add(pair.image.stem.removeprefix(stem))
    listed = {pair.mask for pair in pairs}
    remedy = "put the image there, or take its mask away"
    problems = []
    for masks, images in folders.items():
        there = {file.stem for folder in images if folder.is_dir() for file in folder.iterdir()}
        for mask in sorted(masks.iterdir()) if masks.is_dir() else ():
            fits = [ending for ending in endings if mask.name.endswith(ending) and not mask.name.startswith(".")]
            if mask in listed or not fits:
                continue
            stem = mask.name.removesuffix(max(fits, key=len))
            if not any(stem + ending in there for ending in endings[max(fits, key=len)]):
                problems.append(Problem(split, str(mask), "missing image", "a mask whose image is not there", remedy))
    return problems


def deep(split: str, path: Path, image: Image.Image) -> list[Problem]:
    """An image of more than 8 bits a channel."""
    if image.mode not in HIGH_BIT_DEPTH_MODES:
        return []
    what = f"mode {image.mode}: what is above 255 would be cut off"
    return [Problem(split, str(path), "16-bit image", what, "scale it to 8 bits a channel")]


def turned(split: str, path: Path, image: Image.Image) -> list[Problem]:
    """A note: viewers turn or mirror the image, and its mask agrees with the stored pixels."""
    orientation = _orientation(image)
    if orientation == 1:
        return []
    what = f"EXIF orientation {orientation}: viewers turn or mirror it; the stored pixels count, and the mask fits them"
    return [Problem(split, str(path), "EXIF rotation", what, "look at it with `fcnlab data preview`")]


def palette_of(mask: Image.Image) -> bytes | None:
    """The colours of a palette mask, three bytes a label; None for other masks. Nothing is decoded."""
    if mask.mode != "P" or mask.palette is None:
        return None
    return bytes(mask.palette.palette)


def _read(path: Path, open_: OpenMask) -> _File:
    if not path.exists():
        return _File(path, None, missing=True)
    try:
        return _File(path, open_(path))
    except DataError as error:
        return _File(path, None, str(error).removeprefix(f"{path}: "))


def _absent(split: str, file: _File, role: str) -> list[Problem]:
    if file.missing:
        remedy = f"put the {role} there, or take its pair out of the split"
        return [Problem(split, str(file.path), f"missing {role}", "no such file", remedy)]
    if file.image is None:
        cut = "truncated" if "truncated" in file.error else "unreadable"
        return [Problem(split, str(file.path), f"{cut} {role}", file.error, "restore the file from its source")]
    return []


def _sizes(split: str, pair: Pair, image: Image.Image, mask: Image.Image) -> list[Problem]:
    if image.size == mask.size:
        return []
    (w, h), (mw, mh) = image.size, mask.size
    what = f"the mask is {mh}x{mw} (height x width), its image {pair.image.name} is {h}x{w}"
    orientation = _orientation(image)
    if orientation != 1:
        what += f" as stored, with EXIF orientation {orientation}"
        remedy = "turn the stored pixels (PIL.ImageOps.exif_transpose) and drop the tag, or make the mask anew"
        return [Problem(split, str(pair.image), "EXIF rotation", what, remedy)]
    return [Problem(split, str(pair.mask), "size mismatch", what, "make the mask anew at the image's size")]


def _values(split: str, path: Path, mask: Image.Image, labels: LabelDecoder | None) -> list[Problem]:
    """A mask of a mode that cannot hold such labels, or else all its values that mean nothing, with their pixels."""
    said = _refusal(labels, mask, path)
    if said is None:
        return []
    if "the mask has mode" in said:
        return [_mode(split, path, mask, said)]
    values, pixels = np.unique(np.asarray(mask).reshape(mask.height * mask.width, -1), axis=0, return_counts=True)
    strange = [
        f"{_written(value)} in {count:,} pixels"
        for value, count in zip(values[:PROBED], pixels[:PROBED], strict=True)
        if _refusal(labels, _dot(value), path) is not None
    ]
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    known = re.search(r"neither .*$", said)
    what = ", ".join(strange[:SHOWN]) + more + (f": {known[0]}" if known else "")
    return [Problem(split, str(path), "undefined label", what, "give the values a class, or ignore them")]


def _refusal(labels: LabelDecoder | None, mask: Image.Image, path: Path) -> str | None:
    """Why the values of a mask mean nothing; None if they do, or if it is not known what they mean."""
    if labels is None:
        return None
    try:
        labels.decode(mask, path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _mode(split: str, path: Path, mask: Image.Image, said: str) -> Problem:
    if mask.mode in HIGH_BIT_DEPTH_MODES:
        return Problem(split, str(path), "16-bit mask", said, "write the class numbers as 8-bit grey (mode L)")
    if mask.mode in ("RGB", "RGBA") and "class numbers" in said:
        return Problem(split, str(path), "colour mask", said, "translate each colour to its class number (mode L or P)")
    return Problem(split, str(path), "mask mode", said, "write the mask in the mode that is expected")


def _dot(value: Pixels) -> Image.Image:
    """A mask of one pixel: grey from [1], in colour from [3]."""
    return Image.fromarray(value.reshape((1, 1) if len(value) == 1 else (1, 1, -1)))


def _written(value: Pixels) -> str:
    return str(value[0]) if len(value) == 1 else "#" + "".join(f"{channel:02x}" for channel in value)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none: the tag is looked for in the header alone."""
    if not image.info.get("exif"):
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except IMAGE_ERRORS:  # a damaged tag turns nothing
        return 1
    return found if found in range(1, 9) else 1
