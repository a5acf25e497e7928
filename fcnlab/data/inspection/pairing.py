"""Pairs of images and masks in a user's folders, by name or by lists, and the folders of splits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcnlab.data.datasets.base import Pair, check_ids
from fcnlab.data.datasets.folder import list_images, match_files
from fcnlab.data.datasets.splits import SPLIT, common_splits, is_comment, read_list, read_pairs
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
"""Common names of the sub-folders of splits; a year may follow, as in `train2017` of COCO."""


_YEAR = re.compile(r"(?<=[a-z])_?(19|20)[0-9]{2}$")


@dataclass(frozen=True)
class Pairing:
    """Images and masks that match by name, and those that do not.

    Attributes:
        image_suffix: suffix that is removed from the names of images, before the extension or with it.
        mask_suffix: the same for masks.
        pairs: image and mask of each id.
        unpaired_images: images without a mask.
        unpaired_masks: masks without an image.
    """

    image_suffix: str
    mask_suffix: str
    pairs: Mapping[str, tuple[Path, Path]]
    unpaired_images: Sequence[Path]
    unpaired_masks: Sequence[Path]


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
    by_name = {_YEAR.sub("", name.lower()): name for name in names}
    splits = {
        purpose: next((by_name[known] for known in known_as if known in by_name), None)
        for purpose, known_as in PURPOSES.items()
    }
    return {purpose: name for purpose, name in splits.items() if name is not None}


def pair_listed(lists: Collection[Path], images: str, masks: str) -> Pairing | None:
    """Return the pairs in lists of pairs of paths; None if they are lists of ids.

    Args:
        lists: text files.
        images: folder of the images.
        masks: folder of the masks.

    Raises:
        DataError: a list cannot be read, a file in it is missing, two images have the same id, an image has two masks,
            or some lists contain pairs and others ids.
    """
    listed = {file: read_pairs(file, Path(images), Path(masks)) for file in lists}
    of_pairs = [file for file, found in listed.items() if found is not None]
    if not of_pairs:
        return None
    for file, found in listed.items():
        if found is None and not all(is_comment(line) for _, line in read_list(file)):
            raise DataError(
                f"{file}: contains ids, but {of_pairs[0]} contains pairs of an image and its mask; write pairs in both"
            )
    files = {file: [Pair(*pair) for pair in found or ()] for file, found in listed.items()}
    check_ids(pair for in_file in files.values() for pair in in_file)
    pairs: dict[str, tuple[Path, Path]] = {}
    for file, in_file in files.items():
        for pair in in_file:
            _, mask = pairs.setdefault(pair.id, (pair.image, pair.mask))
            if mask != pair.mask:
                raise DataError(f"{file}: {pair.image} has two masks, {mask} and {pair.mask}; list one of them")
    return Pairing("", "", pairs, (), ())


def pair_files(images: str, masks: str) -> Pairing:
    """Pair images and masks by name, with the suffixes that give the most pairs.

    Args:
        images: folder of the images, which may contain `{split}`.
        masks: folder of the masks, with the same structure, or the same folder.

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
    if images != masks and {*image_files.values()} & {*mask_files.values()}:
        raise DataError(f"{images} and {masks}: one folder contains the other; pass two separate folders, or one twice")
    best = _find_best_match(image_files, mask_files, one=images == masks)
    if not best.pairs and images == masks:
        raise DataError(
            f"{images}: images and masks are in one folder, and no suffix or extension distinguishes them; pass two "
            "folders, or lists of pairs with --lists"
        )
    if not best.pairs:
        first, other = next(iter(image_files.values())), next(iter(mask_files.values()))
        raise DataError(
            f"{images} and {masks}: no image and mask match by name; the first are {first.name} and {other.name}; "
            f"a mask must have the name of its image (also with the extension), optionally followed by "
            f"one of {', '.join(MASK_SUFFIXES[1:])}; or pass lists of pairs with --lists"
        )
    return best


def _list_files(folder: str, splits: Iterable[str]) -> dict[str, Path]:
    """Return the images of a folder by split and relative name."""
    by_name: dict[str, Path] = {}
    for split in splits:
        path = folder.replace(SPLIT, split) if split else folder
        by_name |= {f"{split}\0{file.relative_to(path).as_posix()}": file for file in list_images(path)}
    return by_name


def _find_best_match(images: Mapping[str, Path], masks: Mapping[str, Path], *, one: bool) -> Pairing:
    """Return the first match with the most pairs; `one` is True if both are the files of one folder."""
    most = len(images) // 2 if one else min(len(images), len(masks))
    best: Pairing | None = None
    for suffixes in _suffixes(images, one=one):
        found = _match(images, masks, *suffixes)
        if best is None or len(found.pairs) > len(best.pairs):
            best = found
        if len(best.pairs) == most:  # no other suffixes give more
            break
    assert best is not None
    return best


def _suffixes(images: Mapping[str, Path], *, one: bool) -> Iterator[tuple[str, str]]:
    """Yield suffixes of images and masks, the shortest first; in one folder they differ, also by the extension."""
    yield from ((image, mask) for image in IMAGE_SUFFIXES for mask in MASK_SUFFIXES if not one or image != mask)
    if one:
        endings = sorted({path.suffix for path in images.values()})
        yield from ((image, mask) for image in endings for mask in endings if image != mask and mask != ".jpg")
        yield from (("", f"{image}{mask}") for image in endings for mask in endings if mask != ".jpg")


def _match(images: Mapping[str, Path], masks: Mapping[str, Path], image_suffix: str, mask_suffix: str) -> Pairing:
    """Pair the files with these suffixes by id."""
    images_by_id, masks_by_id = match_files(images, masks, image_suffix, mask_suffix, same=True, unique=False)
    ids = sorted(images_by_id.keys() & masks_by_id.keys())
    return Pairing(
        image_suffix,
        mask_suffix,
        {id_: (images_by_id[id_], masks_by_id[id_]) for id_ in ids},
        [path for id_, path in images_by_id.items() if id_ not in masks_by_id],
        [path for id_, path in masks_by_id.items() if id_ not in images_by_id],
    )
