"""Datasets of any two folders of images and masks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from fcnlab.config.dataset import CrossValidation
from fcnlab.config.mask_values import ClassValues
from fcnlab.data.datasets.base import EmptySplitError, FileDataset, Pair, check_ids
from fcnlab.data.datasets.image_file import IMAGE_EXTENSIONS, RGB, ImageFormat
from fcnlab.data.datasets.labels import ColorDecoder, IdDecoder, LabelDecoder
from fcnlab.data.datasets.splits import (
    SPLIT,
    common_splits,
    divide_ids,
    divide_into_folds,
    find_split_names,
    is_comment,
    paths_below,
    read_list,
    read_pairs,
)
from fcnlab.errors import DataError, list_some, nearest
from fcnlab.paths import exists, is_file, is_folder

SHOWN = 3
"""Number of existing names that an error message lists."""


@dataclass(frozen=True)
class FolderLayout:
    """Paths of images and masks, and their division into splits.

    Attributes:
        images: folder of the images, which may be in subfolders; with `{split}` in the path, one folder per split.
        masks: folder of the masks, with the same structure.
        image_suffix: suffix of the images' names before the extension.
        mask_suffix: suffix of the masks' names before the extension.
        lists: text files with one id, or an image and its mask, per line, by split.
        fractions: fraction of all images in each random split; the first split gets the remaining images.
        seed: seed of the random division.
        group_by: regular expression; ids with the same match are in the same random split.
        cross_validation: division of all images into folds.
        skip_unpaired: leave out images without a mask.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""
    lists: Mapping[str, Path] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    group_by: str | None = None
    cross_validation: CrossValidation | None = None
    skip_unpaired: bool = False

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        if self.cross_validation is not None:
            return self.cross_validation.split_names
        return tuple(self.lists) or tuple(self.fractions) or common_splits(self.images, self.masks)

    @property
    def is_random(self) -> bool:
        """True if the splits are a random division of all images."""
        return bool(self.fractions) or self.cross_validation is not None

    def divide(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Divide ids into random splits or folds.

        Args:
            ids: ids of all images.

        Returns:
            The ids of each split.

        Raises:
            DataError: there are too few images.
        """
        if self.cross_validation is not None:
            return divide_into_folds(ids, self.cross_validation)
        return divide_ids(ids, self.fractions, self.seed, self.group_by)


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
        classes: ClassValues,
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
        super().__init__(_root_of(files.images))
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
        for key, root in (("images", self.root), ("masks", _root_of(self.files.masks))):
            if not is_folder(root):
                raise DataError(f"{describe_missing_folder(root)}; correct '{key}' in registry/datasets.yaml")
        names = self.files.splits()
        if split not in names and split not in find_split_names(self.files.images):
            raise DataError(f"{self.files.images}: no split '{split}'; {nearest(split, names)}")
        pairs = self.list_pairs(split)
        if not pairs:
            where = self.files.lists.get(split) or self.files.images.replace(SPLIT, split)
            raise EmptySplitError(f"{where}: the split '{split}' has no images; add some, or remove the split")
        check_ids(pairs)
        return pairs

    def list_pairs(self, split: str) -> list[Pair]:
        files, folders = self.files, [Path(f.replace(SPLIT, split)) for f in (self.files.images, self.files.masks)]
        if files.lists:
            listed = read_pairs(files.lists[split], folders[0], folders[1], files.image_suffix)
            if listed is not None:
                return [Pair(*pair) for pair in listed]
        images, masks = index_pairs(str(folders[0]), str(folders[1]), files.image_suffix, files.mask_suffix)
        if files.skip_unpaired:
            images = {id_: path for id_, path in images.items() if id_ in masks}
        ids = sorted(images)
        if files.lists:
            ids = _read_ids(files.lists[split], images, files)
        elif files.is_random:
            if not ids:
                raise EmptySplitError(f"{folders[0]}: has no images{' with a mask' if files.skip_unpaired else ''}")
            try:
                ids = files.divide(ids)[split]
            except DataError as error:
                raise DataError(f"{folders[0]}: {error}") from None
        ending = files.mask_suffix if has_extension(files.mask_suffix) else f"{files.mask_suffix}.png"
        return [Pair(id_, images[id_], masks.get(id_, folders[1] / f"{id_}{ending}")) for id_ in ids]


def _root_of(folder: str) -> Path:
    """Return the part of a path before `{split}`."""
    before, split, _ = folder.partition(SPLIT)
    return Path(f"{before}split").parent if split else Path(before)


def index_pairs(
    images: str, masks: str, image_suffix: str, mask_suffix: str
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks of two folders by id; both may be the same folder if a suffix distinguishes them.

    A mask may also have the name of its image with the extension, such as `a.jpg.png` for `a.jpg`.

    Args:
        images: folder of the images.
        masks: folder of the masks.
        image_suffix: suffix of the images' names, before the extension or with it.
        mask_suffix: the same for masks.

    Raises:
        DataError: a folder is missing, two files have the same id, or one folder is given without a suffix.
    """
    same = os.path.realpath(images) == os.path.realpath(masks)
    if same and image_suffix == mask_suffix:
        raise DataError(
            f"{images}: contains both images and masks; set 'image_suffix' or 'mask_suffix', or use lists of pairs"
        )
    mask_files, image_files = (
        {path.relative_to(folder).as_posix(): path for path in list_images(folder)} for folder in (masks, images)
    )
    return match_files(image_files, mask_files, image_suffix, mask_suffix, same=same)


def match_files(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    image_suffix: str,
    mask_suffix: str,
    *,
    same: bool,
    unique: bool = True,
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks among files by id, as `index_pairs`.

    Args:
        images: files of the images' folder by name; those without the suffix are left out.
        masks: files of the masks' folder by name.
        image_suffix: suffix of the images' names, before the extension or with it.
        mask_suffix: the same for masks.
        same: True if both are the files of one folder, in which a file is an image or a mask.
        unique: True if two files with the same id are an error; otherwise the first is used.

    Raises:
        DataError: two files have the same id.
    """
    if same and not mask_suffix:
        found_images = _index(images, image_suffix, unique)
        found_masks = _index(masks, mask_suffix, unique, without=found_images.values())
    else:
        found_masks = _index(masks, mask_suffix, unique)
        found_images = _index(images, image_suffix, unique, without=found_masks.values() if same else ())
    _assign_ids(found_masks, found_images, image_suffix)
    return found_images, found_masks


def _assign_ids(masks: dict[str, Path], images: Mapping[str, Path], image_suffix: str) -> None:
    """Give masks the ids of their images if their names differ only in form.

    A mask may have the name of its image with the extension, and accents may be composed or decomposed characters, as
    in names that come from macOS.
    """
    composed = {unicodedata.normalize("NFC", name): name for name in masks if name not in images}
    for id_, image in images.items():
        if id_ in masks:
            continue
        for name in (f"{id_}{image_suffix}{image.suffix}", composed.get(unicodedata.normalize("NFC", id_), id_)):
            if name in masks:
                masks[id_] = masks.pop(name)
                break


def _index(files: Mapping[str, Path], suffix: str, unique: bool, without: Iterable[Path] = ()) -> dict[str, Path]:
    """Return the files with a suffix by id."""
    found: dict[str, Path] = {}
    excluded = {*without}
    for name, path in files.items():
        stem = name if has_extension(suffix) else name.removesuffix(path.suffix)
        if not stem.endswith(suffix) or path in excluded:
            continue
        id_ = stem.removesuffix(suffix)
        if unique and id_ in found:
            raise DataError(f"{path}: has the same id as {found[id_].name}; rename or remove one of them")
        found.setdefault(id_, path)
    return found


def has_extension(suffix: str) -> bool:
    """Return whether a suffix of names ends with the extension of an image.

    Args:
        suffix: such as `_mask`, or `_mask.png`, or `.png`.
    """
    return f"x{suffix}".lower().endswith(IMAGE_EXTENSIONS)


def list_images(folder: str) -> list[Path]:
    """Return the images of a folder and its subfolders, sorted. Symbolic links are followed.

    A link to a missing file is listed, so that reading it is an error and no image is lost silently.

    Args:
        folder: path of the folder.

    Raises:
        DataError: the folder is missing.
    """
    root = Path(folder)
    if not is_folder(root):
        raise DataError(describe_missing_folder(root))
    return sorted(_walk_images(root, ()), key=lambda path: path.parts)  # the order of paths, which compare slowly


def _walk_images(folder: Path, above: Sequence[str]) -> Iterator[Path]:
    """Yield the images in a folder, without hidden files; links to one of the folders above are not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:  # gives the type of an entry, which costs a call of the system for a path
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if is_folder(path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False):
                yield from _walk_images(path, (*above, real))
            elif path.suffix.lower() in IMAGE_EXTENSIONS:
                yield path


def describe_missing_folder(folder: Path) -> str:
    """Return an error message for a missing folder, with similar folders that exist.

    Args:
        folder: path that is not a folder.
    """
    missing, parent = folder, folder.parent
    while not is_folder(parent) and parent != parent.parent:
        missing, parent = parent, parent.parent
    if exists(folder):
        return f"{folder}: is a file; expected a folder"
    existing = sorted(path.name for path in parent.iterdir() if is_folder(path) and not path.name.startswith("."))
    return f"{folder}: no such folder; {parent} has no folder '{missing.name}', {_suggest(missing.name, existing)}"


def _suggest(name: str, existing: Sequence[str]) -> str:
    """Return the most similar existing name, or the first few of them."""
    close = get_close_matches(name, existing, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    if not existing:
        return "nor any other"
    return f"but {list_some(existing, SHOWN)}"


def _read_ids(file: Path, images: Mapping[str, Path], files: FolderLayout) -> list[str]:
    """Return the ids in a list; a line may also be the file name or the path of an image, or a comment."""
    ids = []
    composed = {unicodedata.normalize("NFC", id_): id_ for id_ in images}

    def find(name: str) -> str | None:
        forms = (
            choice if choice in images else composed.get(unicodedata.normalize("NFC", choice))
            for choice in _list_id_forms(name, file, files)
        )
        return next((form for form in forms if form is not None), None)

    for number, name in read_list(file):
        id_ = find(name)
        if id_ is not None:
            ids.append(id_)
        elif not is_comment(name):
            first = next((part for part in _list_beginnings(name) if find(part) is not None), None)
            below = min(_list_id_forms(name, file, files), key=len)
            similar = _suggest(below, list(images))
            raise DataError(f"{file}, line {number}: {_explain_unknown(name, first, similar, files)}")
    return ids


def _list_id_forms(name: str, file: Path, files: FolderLayout) -> Iterator[str]:
    """Yield the ids that a name or path in a list may mean, the most literal first."""
    yield name
    for path in paths_below(name, Path(files.images), file):
        stem = path.removesuffix(Path(path).suffix) if has_extension(path) else path
        yield from (path.removesuffix(files.image_suffix), stem.removesuffix(files.image_suffix))


def _list_beginnings(line: str) -> Iterator[str]:
    """Yield a line without its last one, two and three columns."""
    for found in [*re.finditer(r"[\s,;]+", line)][:-4:-1]:
        yield line[: found.start()]


def _explain_unknown(name: str, first: str | None, similar: str, files: FolderLayout) -> str:
    """Return the error about a line that is not an image of the dataset.

    Args:
        name: the line.
        first: the image at its beginning; None if there is none.
        similar: the images with similar names.
        files: paths of images and masks.
    """
    if first is not None:
        rest = name.removeprefix(first).strip(" \t,;")
        remedy = "list only the images, one per line, or each image with its mask"
        if rest in ("-1", "0", "1"):  # a list of one class of PASCAL VOC
            remedy = "list only the images, one per line, without those whose flag -1 means that they lack the class"
        return f"the image '{first}' is followed by '{rest}'; {remedy}"
    folder = os.path.realpath(files.images)
    if Path(name).is_absolute() and is_file(Path(name)) and not Path(os.path.realpath(name)).is_relative_to(folder):
        return f"'{name}' is not below {files.images}; correct the folder of the images, or list pairs of paths"
    what = "image with a mask" if files.skip_unpaired else "image"
    return f"no {what} '{name}' in {files.images}, {similar}"


def _to_number(value: int | str) -> int:
    """Return a number unchanged, and a color as 0xrrggbb."""
    return int(value.removeprefix("#"), 16) if isinstance(value, str) else value
