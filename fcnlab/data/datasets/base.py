"""What a dataset is: named splits of images with labels 0..C-1, and 255 for pixels that do not count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fcnlab.constants import IGNORE_INDEX
from fcnlab.errors import DataError, nearest

if TYPE_CHECKING:
    from fcnlab.data.datasets.labels import LabelDecoder

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One image [H, W, 3] and its label [H, W], both uint8."""

    id: str
    image: Pixels
    label: Pixels


class Split(ABC):
    """An ordered collection of samples. `ids` are unique within it."""

    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decode sample `index`.

        Raises:
            DataError: the image or its mask is missing, unreadable or inconsistent; the message names the file.
        """

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class Dataset(ABC):
    """Class names in label order, and splits by name."""

    classes: tuple[str, ...]

    @abstractmethod
    def split(self, name: str) -> Split:
        """The split called `name`.

        Raises:
            DataError: no such split, or its files are not where they belong.
        """

    @abstractmethod
    def fingerprint(self, splits: tuple[str, ...]) -> str:
        """A digest of the content of these splits: equal if and only if the decoded samples are."""


@dataclass(frozen=True)
class Pair:
    """Where an image and its mask lie."""

    id: str
    image: Path
    mask: Path


class FileSplit(Split):
    """A split whose images and masks are files."""

    def __init__(self, pairs: list[Pair], labels: LabelDecoder) -> None:
        """`labels` says what the values of the masks mean."""
        self.pairs = pairs
        self.ids = tuple(pair.id for pair in pairs)
        self._labels = labels

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = np.asarray(open_image(pair.image).convert("RGB"))
        return Sample(pair.id, image, self._label(pair, image.shape[:2]))

    def open_mask(self, path: Path) -> Image.Image:
        """Open and decode a mask. Raises DataError where that cannot be done."""
        return open_image(path)

    def _label(self, pair: Pair, size: tuple[int, ...]) -> Pixels:
        mask = self.open_mask(pair.mask)
        if (mask.height, mask.width) != size:
            raise DataError(
                f"{pair.mask}: the mask is {mask.height}x{mask.width} (height x width), its image {pair.image} is "
                f"{size[0]}x{size[1]}"
            )
        return self._labels.decode(mask, pair.mask)


def open_image(path: Path) -> Image.Image:
    """Open and decode an image file.

    Raises:
        DataError: there is no such file, or it is no sound image.
    """
    try:
        with Image.open(path) as image:  # closes the file and keeps the pixels
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None


class FileDataset(Dataset):
    """A dataset whose splits are files below one folder."""

    layout: str
    """What the folder is expected to hold, for error messages."""

    unlabelled: int = IGNORE_INDEX
    names: tuple[str, ...]
    """The splits that the dataset has."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def pairs(self, split: str) -> list[Pair]:
        """The files of a split, in a fixed order."""

    def labels(self) -> LabelDecoder:
        """What the values of the masks mean."""
        from fcnlab.data.datasets.labels import IdDecoder

        return IdDecoder([[number] for number in range(len(self.classes))], [self.unlabelled])

    def split(self, name: str) -> Split:
        return FileSplit(self._pairs(name), self.labels())

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        from fcnlab.data.datasets.fingerprint import hash_files

        return hash_files(
            (f"{split}/{pair.id}/{role}", path)
            for split in splits
            for pair in self._pairs(split)
            for role, path in (("image", pair.image), ("mask", pair.mask))
        )

    def _pairs(self, split: str) -> list[Pair]:
        if split not in self.names:
            raise DataError(f"{type(self).__name__} has no split '{split}'; {nearest(split, self.names)}")
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder; set --data-root or FCNLAB_DATA to the folder that holds "
                f"{self.root.name}, laid out as {self.layout}"
            )
        pairs = self.pairs(split)
        if not pairs:
            raise DataError(f"{self.root}: the split '{split}' is empty; the expected layout is {self.layout}")
        return pairs


def list_files(folder: Path, layout: str) -> list[Path]:
    """The files of a folder, sorted by name.

    Raises:
        DataError: the folder is not there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the expected layout is {layout}")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
