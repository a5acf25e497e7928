"""Datasets of any two folders of images and masks."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from fcnlab.data.datasets.base import FileDataset, Pair
from fcnlab.data.datasets.image_file import RGB, ImageFormat
from fcnlab.data.datasets.labels import ColorDecoder, IdDecoder, LabelDecoder
from fcnlab.errors import DataError, nearest
from fcnlab.seeding import derive_seed

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
"""Extensions of images and masks, in lower case."""

SPLIT = "{split}"
"""Placeholder for the name of a split in the path of a folder."""

SHOWN = 3
"""Number of existing names that an error message lists."""

Values = Sequence[tuple[str, Sequence[int | str]]]
"""Names of classes with their values in the masks: numbers, or colors '#rrggbb'."""


@dataclass(frozen=True)
class FolderLayout:
    """Paths of images and masks, and their division into splits.

    Attributes:
        images: folder of the images, which may be in subfolders; with `{split}` in the path, one folder per split.
        masks: folder of the masks, with the same structure.
        image_suffix: suffix of the images' names before the extension.
        mask_suffix: suffix of the masks' names before the extension.
        lists: text files with one id per line, by split.
        fractions: fraction of all images in each random split; the first split gets the remaining images.
        seed: seed of the random division.
        skip_unpaired: leave out images without a mask.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""
    lists: Mapping[str, Path] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    skip_unpaired: bool = False

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self.lists) or tuple(self.fractions) or common_splits(self.images, self.masks)


class Folder(FileDataset):
    """A dataset of images and masks with the same names. Ids are paths in the folder, without suffix and extension.

    Attributes:
        files: paths of images and masks.
        values: mask values of each class, in the order of the labels.
        ignore: mask values of ignored pixels.
    """

    expected_layout = "a folder of images and one of masks of the same names"

    def __init__(
        self,
        files: FolderLayout,
        classes: Values,
        ignore: Sequence[int | str] = (),
        image_format: ImageFormat = RGB,
    ) -> None:
        """Create a dataset.

        Args:
            files: paths of images and masks.
            classes: names and mask values of the classes, in the order of the labels.
            ignore: mask values of ignored pixels.
            image_format: conversion of the images.
        """
        before, split, _ = files.images.partition(SPLIT)
        super().__init__(Path(f"{before}split").parent if split else Path(before))
        self.files = files
        self.image_format = image_format
        self.classes = tuple(name for name, _ in classes)
        self.values = [list(values) for _, values in classes]
        self.ignore = list(ignore)

    def label_decoder(self) -> LabelDecoder:
        values = [value for values in self.values for value in values] + self.ignore
        decoder = ColorDecoder if isinstance(values[0], str) else IdDecoder
        return decoder([list(map(_to_number, values)) for values in self.values], map(_to_number, self.ignore))

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        # The same files with other classes are other samples.
        mapping = json.dumps([self.values, sorted(self.ignore, key=str)])
        if self.image_format != RGB:
            mapping += repr(self.image_format)
        return f"sha256:{hashlib.sha256(f'{super().fingerprint(splits)} {mapping}'.encode()).hexdigest()}"

    def _checked_pairs(self, split: str) -> list[Pair]:
        if not self.root.is_dir():
            raise DataError(f"{describe_missing_folder(self.root)}; 'images' must be the folder of the images")
        names = self.files.splits()
        if split not in names and split not in find_split_names(self.files.images):
            raise DataError(f"{self.files.images}: no split '{split}'; {nearest(split, names)}")
        pairs = self.list_pairs(split)
        if not pairs:
            where = self.files.lists.get(split) or split_folder(self.files.images, split)
            raise DataError(f"{where}: the split '{split}' has no images; add some, or remove the split")
        return pairs

    def list_pairs(self, split: str) -> list[Pair]:
        files = self.files
        images = index_images(split_folder(files.images, split), files.image_suffix)
        masks = index_images(split_folder(files.masks, split), files.mask_suffix)
        if files.skip_unpaired:
            images = {id_: path for id_, path in images.items() if id_ in masks}
        ids = sorted(images)
        if files.lists:
            ids = _read_list(files.lists[split], images, files)
        elif files.fractions:
            ids = divide_ids(ids, files.fractions, files.seed)[split]
        folder = Path(split_folder(files.masks, split))
        return [Pair(id_, images[id_], masks.get(id_, folder / f"{id_}{files.mask_suffix}.png")) for id_ in ids]


def split_folder(folder: str, split: str) -> str:
    """Return the folder of a split.

    Args:
        folder: path, possibly with `{split}`.
        split: name of the split.
    """
    return folder.replace(SPLIT, split)


def find_split_names(folder: str) -> tuple[str, ...]:
    """Return the splits of which a folder exists, sorted.

    Args:
        folder: path; without `{split}` there are no splits.
    """
    if SPLIT not in folder:
        return ()
    before, after = folder.split(SPLIT)
    pattern = f"{glob.escape(before)}*{glob.escape(after)}/"
    found = sorted(glob.glob(pattern))  # noqa: PTH207 - the split may be a part of a folder's name
    whole = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}/?")
    return tuple(match[1] for path in found if (match := whole.fullmatch(path)))


def common_splits(images: str, masks: str) -> tuple[str, ...]:
    """Return the splits of which both a folder of images and one of masks exist.

    Args:
        images: path of the images with `{split}`.
        masks: path of the masks with `{split}`.
    """
    mask_splits = find_split_names(masks)
    return tuple(split for split in find_split_names(images) if split in mask_splits)


def index_images(folder: str, suffix: str = "") -> dict[str, Path]:
    """Return the images of a folder and its subfolders by id. Symbolic links are followed.

    Args:
        folder: path of the folder.
        suffix: suffix of the names before the extension; other images are left out.

    Raises:
        DataError: the folder is missing, or two files have the same id.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(describe_missing_folder(root))
    found: dict[str, Path] = {}
    for path in sorted(_walk_images(root, ())):
        stem = path.relative_to(root).with_suffix("").as_posix()
        if not stem.endswith(suffix):
            continue
        id_ = stem.removesuffix(suffix)
        if id_ in found:
            raise DataError(f"{path}: has the same id as {found[id_].name}; rename or remove one of them")
        found[id_] = path
    return found


def _walk_images(folder: Path, above: Sequence[str]) -> Iterator[Path]:
    """Yield the images in a folder, without hidden files; links to one of the folders above are not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk_images(path, (*above, real))
        elif path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file():
            yield path


def describe_missing_folder(folder: Path) -> str:
    """Return an error message for a missing folder, with similar folders that exist.

    Args:
        folder: path that is not a folder.
    """
    missing, parent = folder, folder.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    if folder.exists():
        return f"{folder}: is a file; expected a folder"
    existing = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"{folder}: no such folder; {parent} has no folder '{missing.name}', {_suggest(missing.name, existing)}"


def _suggest(name: str, existing: Sequence[str]) -> str:
    """Return the most similar existing name, or the first few of them."""
    close = get_close_matches(name, existing, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    if not existing:
        return "nor any other"
    return f"but {', '.join(existing[:SHOWN])}{', ...' if len(existing) > SHOWN else ''}"


def divide_ids(ids: Sequence[str], fractions: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Divide ids into random splits, independently of the order of the ids.

    Args:
        ids: unique ids.
        fractions: fraction of each split, which is rounded to at least one id. The first split gets the rest.
        seed: seed of the division.

    Returns:
        The sorted ids of each split.

    Raises:
        DataError: there are too few ids.
    """
    ordered = sorted(ids)
    permutation = np.random.RandomState(derive_seed(seed, "split") % 2**32).permutation(len(ordered))
    first, *others = fractions
    divided: dict[str, list[str]] = {first: []}
    start = 0
    for name in others:
        end = start + max(1, round(fractions[name] * len(ordered)))
        divided[name] = sorted(ordered[i] for i in permutation[start:end])
        start = end
    divided[first] = sorted(ordered[i] for i in permutation[start:])
    if not divided[first]:
        raise DataError(f"{len(ordered)} images are too few for the splits {', '.join(fractions)}")
    return divided


def _read_list(file: Path, images: Mapping[str, Path], files: FolderLayout) -> list[str]:
    """Return the ids in a list; a line may also be the file name of an image."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # editors on Windows write a byte order mark
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; expected a list with one id per line") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    ids = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_EXTENSIONS else name
        id_ = name if name in images else stem.removesuffix(files.image_suffix)
        if id_ not in images:
            what = "image with a mask" if files.skip_unpaired else "image"
            raise DataError(
                f"{file}, line {number}: no {what} '{name}' in {files.images}, {_suggest(id_, list(images))}"
            )
        ids.append(id_)
    return ids


def _to_number(value: int | str) -> int:
    """Return a number unchanged, and a color as 0xrrggbb."""
    return int(value.removeprefix("#"), 16) if isinstance(value, str) else value
