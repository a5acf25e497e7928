"""Diagnosis of an image and its mask: missing and unreadable files, sizes, modes, values and EXIF rotation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pair, Pixels
from fcnlab.data.datasets.image_file import IMAGE_ERRORS, MultiplePagesError, open_image
from fcnlab.data.datasets.labels import LabelDecoder, LossyMaskError, MaskModeError, simplify_mode
from fcnlab.errors import DataError
from fcnlab.paths import exists, is_folder

MAX_SHOWN = 6
"""Maximum number of undefined values that are listed."""

MAX_EXAMINED = 4096
"""Maximum number of distinct values of a mask that are examined; masks with blurred colors have many."""


OpenMask = Callable[[Path], Image.Image]
"""Function that opens and decodes a file, or raises DataError."""


@dataclass(frozen=True)
class Problem:
    """A problem of a file or a sample.

    Attributes:
        split: name of the split.
        where: the file, or the id of the sample.
        kind: kind of the problem, such as `missing mask`.
        what: description of the problem.
        remedy: instruction to fix it.
    """

    split: str
    where: str
    kind: str
    what: str
    remedy: str


@dataclass(frozen=True)
class _File:
    """An image file: decoded, or the error, and the kind of a valid file that cannot be used."""

    path: Path
    image: Image.Image | None
    error: str = ""
    missing: bool = False
    unsuitable: str = ""


def diagnose_pair(
    split: str, pair: Pair, error: DataError, labels: LabelDecoder | None, open_mask: OpenMask
) -> list[Problem]:
    """Return all problems of a pair that cannot be decoded, at least one.

    Args:
        split: name of the split.
        pair: files of the sample.
        error: error of the split.
        labels: decoder of the masks, if it is known.
        open_mask: function of the split that opens a mask.
    """
    image, mask = _read_file(pair.image, open_image), _read_file(pair.mask, open_mask)
    if image.missing and mask.missing:
        what = f"there is neither {pair.image.name} nor {pair.mask.name}"
        return [Problem(split, pair.id, "id without files", what, "restore the files, or remove the id from the list")]
    problems = [*_describe_missing_file(split, image, "image"), *_describe_missing_file(split, mask, "mask")]
    message = str(error).removeprefix(f"{pair.mask}: ")
    if image.image is not None:
        if message.startswith(f"{pair.image}: "):
            what, _, remedy = message.removeprefix(f"{pair.image}: ").partition("; ")
            problems.append(Problem(split, str(pair.image), "image mode", what, remedy))
        if mask.image is not None:
            problems += _compare_sizes(split, pair, image.image, mask.image)
    if mask.image is not None:
        problems += _check_values(split, pair.mask, mask.image, labels)
    return problems or [Problem(split, str(pair.mask), "inconsistent", message, "fix the file")]


def find_masks_without_image(split: str, pairs: Sequence[Pair]) -> list[Problem]:
    """Return masks without an image, found by the names of the pairs in the folders of the masks.

    Args:
        split: name of the split.
        pairs: pairs of the split.
    """
    folders: dict[Path, set[Path]] = {}
    endings: dict[str, set[str]] = {}
    for pair in pairs:
        folders.setdefault(pair.mask.parent, set()).add(pair.image.parent)
        stem = Path(pair.id).name
        if pair.mask.name.startswith(stem) and pair.image.name.startswith(stem):
            endings.setdefault(pair.mask.name.removeprefix(stem), set()).add(pair.image.stem.removeprefix(stem))
    listed = {pair.mask for pair in pairs}
    remedy = "restore the image, or remove the mask"
    problems = []
    for masks, images in folders.items():
        stems = {file.stem for folder in images if is_folder(folder) for file in folder.iterdir()}
        for mask in sorted(masks.iterdir()) if is_folder(masks) else ():
            fits = [ending for ending in endings if mask.name.endswith(ending) and not mask.name.startswith(".")]
            if mask in listed or not fits:
                continue
            stem = mask.name.removesuffix(max(fits, key=len))
            if not any(stem + ending in stems for ending in endings[max(fits, key=len)]):
                problems.append(Problem(split, str(mask), "missing image", "a mask without an image", remedy))
    return problems


def find_exif_rotation(split: str, path: Path, image: Image.Image) -> list[Problem]:
    """Return a note if an image, whose mask fits the stored pixels, has an EXIF rotation.

    Args:
        split: name of the split.
        path: file of the image.
        image: the open image.
    """
    orientation = read_orientation(image)
    if orientation == 1:
        return []
    what = (
        f"EXIF orientation {orientation}: viewers rotate or mirror it; the mask fits the stored pixels, which are used"
    )
    return [Problem(split, str(path), "EXIF rotation", what, "inspect it with `fcnlab data preview`")]


def read_mask_palette(mask: Image.Image) -> bytes | None:
    """Return the palette of a mask without decoding it, three bytes per number; None for other masks.

    Args:
        mask: the open mask.
    """
    if mask.mode != "P" or mask.palette is None:
        return None
    converted = Image.new("P", (1, 1))  # a palette of BMP or TIFF has another order of bytes until it is converted
    converted.putpalette(mask.palette)
    return bytes(converted.getpalette() or [])


def select_colors(palette: bytes, numbers: Iterable[int]) -> dict[int, bytes]:
    """Return the colors of numbers that may be classes: all but 255.

    Args:
        palette: three bytes per number.
        numbers: the numbers that occur in the mask.
    """
    return {number: palette[3 * number : 3 * number + 3] for number in numbers if number != IGNORE_INDEX}


def _read_file(path: Path, open_: OpenMask) -> _File:
    if not exists(path):
        return _File(path, None, missing=True)
    try:
        return _File(path, open_(path))
    except DataError as error:
        unsuitable = next((kind for type_, kind in _UNSUITABLE.items() if isinstance(error, type_)), "")
        return _File(path, None, str(error).removeprefix(f"{path}: "), unsuitable=unsuitable)


_UNSUITABLE = {MultiplePagesError: "multi-page", LossyMaskError: "lossy"}


def _describe_missing_file(split: str, file: _File, role: str) -> list[Problem]:
    if file.missing:
        remedy = f"restore the {role}, or remove its pair from the split"
        return [Problem(split, str(file.path), f"missing {role}", "no such file", remedy)]
    if file.unsuitable:
        what, _, remedy = file.error.partition("; ")
        return [Problem(split, str(file.path), f"{file.unsuitable} {role}", what, remedy)]
    if file.image is None:
        cut = "truncated" if "truncated" in file.error else "unreadable"
        return [Problem(split, str(file.path), f"{cut} {role}", file.error, "restore the file from its source")]
    return []


def _compare_sizes(split: str, pair: Pair, image: Image.Image, mask: Image.Image) -> list[Problem]:
    if image.size == mask.size:
        return []
    (w, h), (mw, mh) = image.size, mask.size
    what = f"the mask is {mh}x{mw} (height x width), its image {pair.image.name} is {h}x{w}"
    orientation = read_orientation(image)
    stored, remedy = explain_mismatch(orientation)
    if orientation != 1:
        return [Problem(split, str(pair.image), "EXIF rotation", what + stored, remedy)]
    return [Problem(split, str(pair.mask), "size mismatch", what, remedy)]


def explain_mismatch(orientation: int) -> tuple[str, str]:
    """Return the suffix of a size-mismatch message, and the remedy.

    Args:
        orientation: EXIF orientation of the image, 1 if there is none.
    """
    if orientation == 1:
        return "", "create the mask again at the size of the image"
    return (
        f" as stored, with EXIF orientation {orientation}",
        "rotate the stored pixels (PIL.ImageOps.exif_transpose) and remove the tag, or create the mask again",
    )


def _check_values(split: str, path: Path, mask: Image.Image, labels: LabelDecoder | None) -> list[Problem]:
    """Return a problem for an unexpected mode, or else for all undefined values with their numbers of pixels."""
    error = _find_decoding_error(labels, mask, path)
    if error is None:
        return []
    message = str(error).removeprefix(f"{path}: ")
    try:
        mask = simplify_mode(mask, path)
    except DataError:
        return [Problem(split, str(path), "transparent mask", message, "save the mask without transparency")]
    if isinstance(error, MaskModeError):
        return [_describe_mode(split, path, mask, message)]
    values, pixels = np.unique(np.asarray(mask).reshape(mask.height * mask.width, -1), axis=0, return_counts=True)
    undefined = [
        f"{_format_value(value)} in {count:,} pixels"
        for value, count in zip(values[:MAX_EXAMINED], pixels[:MAX_EXAMINED], strict=True)
        if _find_decoding_error(labels, _create_pixel_mask(value), path) is not None
    ]
    more = f" and {len(undefined) - MAX_SHOWN} more" if len(undefined) > MAX_SHOWN else ""
    reason = re.search(r"neither .*$", message)
    what = ", ".join(undefined[:MAX_SHOWN]) + more + (f": {reason[0]}" if reason else "")
    return [Problem(split, str(path), "undefined label", what, "assign the values to a class, or ignore them")]


def _find_decoding_error(labels: LabelDecoder | None, mask: Image.Image, path: Path) -> DataError | None:
    """Return the error of decoding a mask; None if it can be decoded or the decoder is unknown."""
    if labels is None:
        return None
    try:
        labels.decode(mask, path)
    except DataError as error:
        return error
    return None


def _describe_mode(split: str, path: Path, mask: Image.Image, message: str) -> Problem:
    if mask.mode == "RGB":
        remedy = "define the classes by colors, such as `classes: {road: '#804080'}`, or convert colors to numbers"
        return Problem(split, str(path), "color mask", message, remedy)
    return Problem(split, str(path), "mask mode", message, "save the mask in the expected mode")


def _create_pixel_mask(value: Pixels) -> Image.Image:
    """Return a mask of one pixel: gray from [1], RGB from [3]."""
    return Image.fromarray(value.reshape((1, 1) if len(value) == 1 else (1, 1, -1)))


def _format_value(value: Pixels) -> str:
    return str(value[0]) if len(value) == 1 else "#" + "".join(f"{channel:02x}" for channel in value)


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation from the header, 1 if there is none.

    Args:
        image: the open image.
    """
    if not image.info.get("exif"):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except IMAGE_ERRORS:  # a damaged tag is ignored
        return 1
    return orientation if orientation in range(1, 9) else 1
