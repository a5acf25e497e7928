"""Datasets of any two folders of images and masks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from fcnlab.config.dataset import FolderDataset
from fcnlab.data.datasets.base import EmptySplitError, FileDataset, Pair
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


Listing = tuple[dict[str, Path], dict[str, Path]]
"""The images and the masks of two folders by id."""


class Folder(FileDataset):
    """A dataset of images and masks with the same names. Ids are paths in the folder, without suffix and extension.

    Attributes:
        spec: configuration of the dataset.
        images: path of the images; with `{split}` in it, one folder per split.
        masks: path of the masks, with the same structure.
        lists: files of the lists of ids or pairs by split.
        values: mask values of each class, in the order of the labels.
        ignore: mask values of ignored pixels.
    """

    expected_layout = "a folder of images and one of masks of the same names"

    def __init__(
        self,
        spec: FolderDataset,
        images: str | Path,
        masks: str | Path,
        lists: Mapping[str, Path] | None = None,
        listings: dict[tuple[str, ...], Listing] | None = None,
    ) -> None:
        """Create a dataset.

        Args:
            spec: configuration of the dataset; its paths are replaced by the following ones.
            images: path of the images.
            masks: path of the masks.
            lists: files of the lists by split, if the configuration has lists.
            listings: folders that datasets have listed; datasets with the same dict list a folder once. By default,
                the folders are listed for this dataset.
        """
        super().__init__(_root_of(str(images)))
        self.spec, self.images, self.masks, self.lists = spec, str(images), str(masks), dict(lists or {})
        self.image_format = ImageFormat(spec.image_channels, spec.image_range)
        self.classes = tuple(name for name, _ in spec.classes)
        self.values = [list(values) for _, values in spec.classes]
        self.ignore = list(spec.ignore)
        self._listings = {} if listings is None else listings
        self._division: dict[str, list[str]] = {}

    @cached_property
    def split_names(self) -> tuple[str, ...]:  # type: ignore[override]  # the folders are looked at when it is used
        """Names of the splits."""
        random = self.spec.cross_validation or self.spec.fractions
        return random.split_names if random else tuple(self.lists) or common_splits(self.images, self.masks)

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

    def _list_checked_pairs(self, split: str) -> list[Pair]:
        for key, root in (("images", self.root), ("masks", _root_of(self.masks))):
            if not is_folder(root):
                raise DataError(f"{describe_missing_folder(root)}; correct '{key}' in registry/datasets.yaml")
        if split not in self.split_names and split not in find_split_names(self.images):
            raise DataError(f"{self.images}: no split '{split}'; {nearest(split, self.split_names)}")
        pairs = self.list_pairs(split)
        if not pairs:
            source = self._find_source(split)
            raise EmptySplitError(f"{source}: the split '{split}' has no images; add some, or remove the split")
        self._check_unique(split, pairs)
        return pairs

    def _find_source(self, split: str) -> Path:
        return self.lists.get(split) or Path(self.images.replace(SPLIT, split))

    def list_pairs(self, split: str) -> list[Pair]:
        images, masks = (folder.replace(SPLIT, split) for folder in (self.images, self.masks))
        if self.lists:
            listed = read_pairs(self.lists[split], Path(images), Path(masks), self.spec.image_suffix)
            if listed is not None:
                return [Pair(*pair) for pair in listed]
        found, found_masks = self._list_folders(images, masks)
        suffix = self.spec.mask_suffix
        ending = suffix if has_extension(suffix) else f"{suffix}.png"
        return [
            Pair(id_, found[id_], found_masks.get(id_) or Path(masks) / f"{id_}{ending}")
            for id_ in self._select_ids(split, found, images)
        ]

    def _list_folders(self, images: str, masks: str) -> Listing:
        """Return the images and the masks of two folders by id, without the images that are skipped."""
        key = (images, masks, self.spec.image_suffix, self.spec.mask_suffix)
        if key not in self._listings:
            self._listings[key] = index_pairs(*key)
        found, found_masks = self._listings[key]
        if self.spec.unpaired == "skip":
            found = {id_: path for id_, path in found.items() if id_ in found_masks}
        return found, found_masks

    def _select_ids(self, split: str, images: Mapping[str, Path], folder: str) -> list[str]:
        """Return the ids of a split in order.

        Args:
            split: name of the split.
            images: all images in the folder by id.
            folder: path of the folder of the images.
        """
        if self.lists:
            return _read_ids(self.lists[split], images, self)
        if self.spec.fractions is None and self.spec.cross_validation is None:
            return sorted(images)
        if not images:
            raise EmptySplitError(f"{folder}: has no images{' with a mask' if self.spec.unpaired == 'skip' else ''}")
        try:
            return self._divide(images)[split]
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None

    def _divide(self, ids: Collection[str]) -> dict[str, list[str]]:
        """Return the ids of all random splits or folds, which are the same for each split."""
        if not self._division:
            folds, parts = self.spec.cross_validation, self.spec.fractions
            if folds is not None:
                self._division = divide_into_folds([*ids], folds)
            elif parts is not None:
                shares = {"train": 1 - parts.val - parts.test, "val": parts.val, "test": parts.test}
                shares = {name: shares[name] for name in parts.split_names}
                self._division = divide_ids([*ids], shares, parts.seed, parts.group_by)
        return self._division


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
    mask_files, image_files = _list_by_name(masks), _list_by_name(images)
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
    excluded, with_extension = {*without}, has_extension(suffix)
    for name, path in files.items():
        stem = name if with_extension else os.path.splitext(name)[0]  # noqa: PTH122 - a name, and paths are slow
        if not stem.endswith(suffix) or (excluded and path in excluded):
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
    return [*_list_by_name(folder).values()]


def _list_by_name(folder: str) -> dict[str, Path]:
    """Return the images of `list_images` by their path below the folder, in the order of the parts of the paths."""
    root = Path(folder)
    if not is_folder(root):
        raise DataError(describe_missing_folder(root))
    names = sorted(_walk_images(folder, "", ()), key=lambda name: name.split("/"))
    return {name: root / name for name in names}


def _walk_images(folder: str, below: str, above: Sequence[str]) -> Iterator[str]:
    """Yield the images in a folder, without hidden files; links to one of the folders above are not followed.

    Names are joined as text, and the type of an entry comes from its folder, because folders may contain many files.

    Args:
        folder: path of the folder.
        below: beginning of the names of its images.
        above: real paths of the folders above.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(Path(entry.path)) if entry.is_symlink() else entry.is_dir(follow_symlinks=False):
                yield from _walk_images(entry.path, f"{below}{entry.name}/", (*above, real))
            elif entry.name.lower().endswith(IMAGE_EXTENSIONS):
                yield f"{below}{entry.name}"


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


def _read_ids(file: Path, images: Mapping[str, Path], dataset: Folder) -> list[str]:
    """Return the ids in a list; a line may also be the file name or the path of an image, or a comment."""
    ids = []
    composed = {unicodedata.normalize("NFC", id_): id_ for id_ in images}

    def find(name: str) -> str | None:
        forms = (
            choice if choice in images else composed.get(unicodedata.normalize("NFC", choice))
            for choice in _list_id_forms(name, file, dataset)
        )
        return next((form for form in forms if form is not None), None)

    for number, name in read_list(file):
        id_ = find(name)
        if id_ is not None:
            ids.append(id_)
        elif not is_comment(name):
            first = next((part for part in _list_beginnings(name) if find(part) is not None), None)
            below = min(_list_id_forms(name, file, dataset), key=len)
            similar = _suggest(below, list(images))
            raise DataError(f"{file}, line {number}: {_explain_unknown(name, first, similar, dataset)}")
    return ids


def _list_id_forms(name: str, file: Path, dataset: Folder) -> Iterator[str]:
    """Yield the ids that a name or path in a list may mean, the most literal first."""
    yield name
    for path in paths_below(name, Path(dataset.images), file):
        stem = path.removesuffix(Path(path).suffix) if has_extension(path) else path
        yield from (path.removesuffix(dataset.spec.image_suffix), stem.removesuffix(dataset.spec.image_suffix))


def _list_beginnings(line: str) -> Iterator[str]:
    """Yield a line without its last one, two and three columns."""
    for found in [*re.finditer(r"[\s,;]+", line)][:-4:-1]:
        yield line[: found.start()]


def _explain_unknown(name: str, first: str | None, similar: str, dataset: Folder) -> str:
    """Return the error about a line that is not an image of the dataset.

    Args:
        name: the line.
        first: the image at its beginning; None if there is none.
        similar: the images with similar names.
        dataset: the dataset.
    """
    if first is not None:
        rest = name.removeprefix(first).strip(" \t,;")
        remedy = "list only the images, one per line, or each image with its mask"
        if rest in ("-1", "0", "1"):  # a list of one class of PASCAL VOC
            remedy = "list only the images, one per line, without those whose flag -1 means that they lack the class"
        return f"the image '{first}' is followed by '{rest}'; {remedy}"
    folder = os.path.realpath(dataset.images)
    if Path(name).is_absolute() and is_file(Path(name)) and not Path(os.path.realpath(name)).is_relative_to(folder):
        return f"'{name}' is not below {dataset.images}; correct the folder of the images, or list pairs of paths"
    what = "image with a mask" if dataset.spec.unpaired == "skip" else "image"
    return f"no {what} '{name}' in {dataset.images}, {similar}"


def _to_number(value: int | str) -> int:
    """Return a number unchanged, and a color as 0xrrggbb."""
    return int(value.removeprefix("#"), 16) if isinstance(value, str) else value
