"""Any pair of folders with images and masks, as a dataset."""

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
from fcnlab.data.datasets.labels import ColorDecoder, IdDecoder, LabelDecoder
from fcnlab.errors import DataError, nearest
from fcnlab.seeding import derive_seed

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
"""How the names of images and masks end, in lower case."""

SPLIT = "{split}"
"""What stands for the name of a split in a folder's name."""

SHOWN = 3
"""How many names that are there are shown in an error."""

Values = Sequence[tuple[str, Sequence[int | str]]]


@dataclass(frozen=True)
class FolderLayout:
    """Where images and masks lie and how their names end, before the extension.

    Attributes:
        images: the folder of the images; with `{split}` in it, one for each split. They may lie in folders below.
        masks: the folder of the masks, laid out alike.
        lists: text files of ids, one a line, by split.
        parts: the splits by chance and their shares of all images; what is left of 1 is the first one's.
        seed: what is drawn by.
        skip: leave out images without a mask.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""
    lists: Mapping[str, Path] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    skip: bool = False

    def splits(self) -> tuple[str, ...]:
        """The names of the splits that are there."""
        return tuple(self.lists) or tuple(self.parts) or common_splits(self.images, self.masks)


class Folder(FileDataset):
    """Images and masks that are paired by name; ids are paths below the folder without suffix and extension."""

    layout = "a folder of images and one of masks of the same names"

    def __init__(self, files: FolderLayout, classes: Values, ignore: Sequence[int | str] = ()) -> None:
        """`classes` are names in the order of the labels with the numbers or colours ('#rrggbb') that mean them."""
        before, split, _ = files.images.partition(SPLIT)
        super().__init__(Path(f"{before}split").parent if split else Path(before))
        self.files = files
        self.classes = tuple(name for name, _ in classes)
        self._values = [list(values) for _, values in classes]
        self._ignore = list(ignore)

    def labels(self) -> LabelDecoder:
        """Numbers or colours to labels."""
        values = [v for one in self._values for v in one] + self._ignore
        kind = ColorDecoder if isinstance(values[0], str) else IdDecoder
        return kind([list(map(_number, one)) for one in self._values], map(_number, self._ignore))

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        """Of the files and of what their values mean: the same files with other classes are other samples."""
        meaning = json.dumps([self._values, sorted(self._ignore, key=str)])
        return f"sha256:{hashlib.sha256(f'{super().fingerprint(splits)} {meaning}'.encode()).hexdigest()}"

    def _pairs(self, split: str) -> list[Pair]:
        if not self.root.is_dir():
            raise DataError(f"{describe_missing_folder(self.root)}; 'images' says where the images lie")
        names = self.files.splits()
        if split not in names and split not in find_split_names(self.files.images):
            raise DataError(f"{self.files.images}: no split '{split}'; {nearest(split, names)}")
        pairs = self.pairs(split)
        if not pairs:
            where = self.files.lists.get(split) or split_folder(self.files.images, split)
            raise DataError(f"{where}: the split '{split}' has no images; give it some, or do without it")
        return pairs

    def pairs(self, split: str) -> list[Pair]:
        files = self.files
        images = index_images(split_folder(files.images, split), files.image_suffix)
        masks = index_images(split_folder(files.masks, split), files.mask_suffix)
        if files.skip:
            images = {id_: path for id_, path in images.items() if id_ in masks}
        ids = sorted(images)
        if files.lists:
            ids = _listed(files.lists[split], images, files)
        elif files.parts:
            ids = divide_ids(ids, files.parts, files.seed)[split]
        missing = Path(split_folder(files.masks, split))
        return [Pair(id_, images[id_], masks.get(id_, missing / f"{id_}{files.mask_suffix}.png")) for id_ in ids]


def split_folder(folder: str, split: str) -> str:
    """The folder of a split."""
    return folder.replace(SPLIT, split)


def find_split_names(folder: str) -> tuple[str, ...]:
    """The splits that a folder's name with `{split}` stands for, by the folders that are there."""
    if SPLIT not in folder:
        return ()
    before, after = folder.split(SPLIT)
    pattern = f"{glob.escape(before)}*{glob.escape(after)}/"
    found = sorted(glob.glob(pattern))  # noqa: PTH207 - the split may be a part of a folder's name
    whole = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}/?")
    return tuple(match[1] for path in found if (match := whole.fullmatch(path)))


def common_splits(images: str, masks: str) -> tuple[str, ...]:
    """The splits that both folders have, so that `trainannot` beside `train` is none."""
    theirs = find_split_names(masks)
    return tuple(split for split in find_split_names(images) if split in theirs)


def index_images(folder: str, suffix: str = "") -> dict[str, Path]:
    """The images of a folder and the folders below it, by id. Links to files and to folders are followed.

    Raises:
        DataError: the folder is not there, or two files have one id.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(describe_missing_folder(root))
    found: dict[str, Path] = {}
    for path in sorted(_files(root, ())):
        stem = path.relative_to(root).with_suffix("").as_posix()
        if not stem.endswith(suffix):
            continue
        id_ = stem.removesuffix(suffix)
        if id_ in found:
            raise DataError(f"{path}: has the same name as {found[id_].name}; which of them is meant cannot be told")
        found[id_] = path
    return found


def _files(folder: Path, above: Sequence[str]) -> Iterator[Path]:
    """The images of a folder and of those below it, without hidden ones; `above` are the folders that it is in.

    A link to one of these is left alone, for it would never end.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path, (*above, real))
        elif path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file():
            yield path


def describe_missing_folder(folder: Path) -> str:
    """That a folder is not there, and what is there instead, as far as its path can be followed."""
    missing, parent = folder, folder.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    if folder.exists():
        return f"{folder}: is a file, and a folder is expected"
    there = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"{folder}: no such folder; {parent} has no folder '{missing.name}', {_likely(missing.name, there)}"


def _likely(name: str, there: Sequence[str]) -> str:
    """Which of the names that are there was probably meant, or a few of them: there may be thousands."""
    close = get_close_matches(name, there, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"but {', '.join(there[:SHOWN])}{', ...' if len(there) > SHOWN else ''}" if there else "nor any other"


def divide_ids(ids: Sequence[str], parts: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Divide ids by chance: the same for the same ids, in whatever order, and the same seed.

    Each part has its share, rounded, and at least one id where the share is above 0; the first has what is left.

    Returns:
        The sorted ids of each part.

    Raises:
        DataError: there are too few ids.
    """
    ordered = sorted(ids)
    drawn = np.random.RandomState(derive_seed(seed, "split") % 2**32).permutation(len(ordered))
    first, *others = parts
    divided: dict[str, list[str]] = {first: []}
    start = 0
    for name in others:
        end = start + max(1, round(parts[name] * len(ordered)))
        divided[name] = sorted(ordered[i] for i in drawn[start:end])
        start = end
    divided[first] = sorted(ordered[i] for i in drawn[start:])
    if not divided[first]:
        raise DataError(f"{len(ordered)} images are too few to be divided into {', '.join(parts)}")
    return divided


def _listed(file: Path, images: Mapping[str, Path], files: FolderLayout) -> list[str]:
    """The ids in a list; a line may also be the name of an image."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # editors on Windows write a mark
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; it is expected to list ids, one a line") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is no text in UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    ids = []
    for number, line in enumerate(lines, start=1):
        said = line.strip()
        if not said:
            continue
        stem = said[: -len(Path(said).suffix)] if Path(said).suffix.lower() in IMAGE_EXTENSIONS else said
        id_ = said if said in images else stem.removesuffix(files.image_suffix)
        if id_ not in images:
            what = "image with a mask" if files.skip else "image"
            likely = _likely(id_, list(images))
            raise DataError(f"{file}, line {number}: no {what} '{said}' in {files.images}, {likely}")
        ids.append(id_)
    return ids


def _number(value: int | str) -> int:
    """A number as it is; a colour as 0xrrggbb."""
    return int(value.removeprefix("#"), 16) if isinstance(value, str) else value
