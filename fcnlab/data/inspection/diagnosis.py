"""Diagnosis of an image and its mask: missing and unreadable files, sizes, modes, values and EXIF rotation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pair
from fcnlab.data.datasets.image_file import IMAGE_ERRORS, MultiplePagesError, open_image
from fcnlab.data.datasets.labels import (
    LabelDecoder,
    LossyMaskError,
    MaskModeError,
    TransparentMaskError,
    simplify_mode,
)
from fcnlab.data.inspection.interpolated_masks import REMEDY as INTERPOLATION_REMEDY
from fcnlab.data.inspection.interpolated_masks import is_interpolated_mask
from fcnlab.errors import DataError
from fcnlab.paths import exists, is_folder

OpenMask = Callable[[Path], Image.Image]
"""Function that opens and decodes a file, or raises DataError."""


LABEL_REMEDY = "assign the values to a class, or ignore them"
"""Remedy of values of masks that are neither a class nor ignored."""


@dataclass(frozen=True)
class Problem:
    """A problem of a file or a sample.

    Attributes:
        split: name of the split; empty for a file that belongs to no split.
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
    if not exists(pair.image) and not exists(pair.mask):
        what = f"there is neither {pair.image.name} nor {pair.mask.name}"
        return [Problem(split, pair.id, "id without files", what, "restore the files, or remove the id from the list")]
    problems: list[Problem] = []
    image = _open_file(split, pair.image, "image", open_image, problems)
    mask = _open_file(split, pair.mask, "mask", open_mask, problems)
    if image is not None and str(error).startswith(f"{pair.image}: "):
        what, _, remedy = str(error).removeprefix(f"{pair.image}: ").partition("; ")
        problems.append(Problem(split, str(pair.image), "image mode", what, remedy))
    if image is not None and mask is not None:
        problems += _compare_sizes(split, pair, image, mask)
    if mask is not None and labels is not None:
        problems += _check_values(split, pair.mask, mask, labels)
    message = str(error).removeprefix(f"{pair.mask}: ")
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


def _open_file(split: str, path: Path, role: str, open_: OpenMask, problems: list[Problem]) -> Image.Image | None:
    """Return a decoded file; None if that fails, with a problem."""
    if not exists(path):
        remedy = f"restore the {role}, or remove its pair from the split"
        problems.append(Problem(split, str(path), f"missing {role}", "no such file", remedy))
        return None
    try:
        return open_(path)
    except DataError as error:
        what = str(error).removeprefix(f"{path}: ")
        kind, remedy = "truncated" if "truncated" in what else "unreadable", "restore the file from its source"
        if isinstance(error, MultiplePagesError | LossyMaskError):
            kind = "lossy" if isinstance(error, LossyMaskError) else "multi-page"
            what, _, remedy = what.partition("; ")
        problems.append(Problem(split, str(path), f"{kind} {role}", what, remedy))
        return None


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


def _check_values(split: str, path: Path, mask: Image.Image, labels: LabelDecoder) -> list[Problem]:
    """Return a problem if the values of a mask cannot be decoded."""
    try:
        labels.decode(mask, path)
    except DataError as error:
        what = str(error).removeprefix(f"{path}: ")
        if isinstance(error, TransparentMaskError):
            kind, (what, _, remedy) = "transparent mask", what.partition("; ")
        elif isinstance(error, MaskModeError) and mask.mode in ("RGB", "RGBA"):
            kind = "color mask"
            remedy = "define the classes by colors, such as `classes: {road: '#804080'}`, or convert colors to numbers"
        elif isinstance(error, MaskModeError):
            kind, remedy = "mask mode", "save the mask in the expected mode"
        else:
            kind, what, remedy = "undefined label", what.removeprefix("undefined labels: "), LABEL_REMEDY
            if is_interpolated_mask(np.asarray(simplify_mode(mask, path))):
                what = f"{what}; it was probably resized with interpolation, antialiased or saved as JPEG"
                remedy = INTERPOLATION_REMEDY
        return [Problem(split, str(path), kind, what, remedy)]
    return []


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
