"""Base classes of datasets: named splits of images with labels 0..C-1, and 255 for ignored pixels."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.fingerprint import hash_each, hash_files
from fcnlab.data.datasets.image_file import PGM_EXTENSIONS, RGB, ImageFormat, Pixels, open_header, read_pixels
from fcnlab.data.datasets.labels import IdDecoder, LabelDecoder, count_values, open_mask
from fcnlab.errors import ConfigError, DataError, nearest
from fcnlab.extensions.guard import guard_methods
from fcnlab.paths import is_file, is_folder
from fcnlab.redaction import escape_line

__all__ = ["Dataset", "FileDataset", "FileSplit", "Pair", "Pixels", "Sample", "Split", "list_files", "read_sample"]


class EmptySplitError(DataError):
    """A split has no images."""


class RepeatedIdError(DataError):
    """A split has an image more than once."""


class UndefinedLabelError(DataError):
    """A sample of an extension's dataset has labels that are neither classes nor ignored."""


@dataclass(frozen=True)
class Sample:
    """An image and its label.

    Attributes:
        id: identifier of the sample, unique in its split.
        image: uint8 [H, W, C]: red, green and blue, or the channels of the dataset.
        label: uint8 [H, W].

    Raises:
        DataError: the arrays have other types or shapes, as a dataset of an extension may return them.
    """

    id: str
    image: Pixels
    label: Pixels

    def __post_init__(self) -> None:
        image, label = self.image, self.label
        if image.dtype != np.uint8 or label.dtype != np.uint8 or image.ndim != 3 or image.shape[:2] != label.shape:
            raise DataError(
                f"sample {escape_line(self.id)}: the image is {image.dtype} {list(image.shape)} and the label "
                f"{label.dtype} {list(label.shape)}; valid: uint8 [height, width, channels] and uint8 [height, width]"
            )


class Split(ABC):
    """An ordered collection of samples.

    Attributes:
        ids: unique identifiers of the samples, in order.
        channels: number of channels of all images.
    """

    ids: tuple[str, ...]
    channels: int = 3

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, ("__len__", "__getitem__", "size"))

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decode one sample.

        Args:
            index: position of the sample.

        Raises:
            DataError: the image or its mask is missing, unreadable or inconsistent; the message names the file.
        """

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of one sample. By default the sample is decoded.

        Args:
            index: position of the sample.

        Raises:
            DataError: the image is missing or unreadable.
        """
        height, width = self[index].label.shape
        return height, width


def read_sample(split: Split, index: int, num_classes: int) -> Sample:
    """Decode one sample of a split, and check its labels, which evaluation would not count.

    Args:
        split: the split.
        index: position of the sample.
        num_classes: number of classes of the dataset.

    Raises:
        UndefinedLabelError: a label is neither a class nor 255.
        DataError: the sample cannot be decoded.
    """
    sample = split[index]
    label = sample.label
    if int((label + np.uint8(1)).max(initial=0)) > num_classes:  # 255 + 1 is 0, so that one pass is enough
        undefined = count_values(label[(label >= num_classes) & (label != IGNORE_INDEX)])
        raise UndefinedLabelError(
            f"sample {escape_line(sample.id)}: undefined labels: {undefined}: neither a class (0..{num_classes - 1}) "
            f"nor ignored ({IGNORE_INDEX})"
        )
    return sample


class Dataset(ABC):
    """Class names and splits.

    Attributes:
        classes: names of the classes, in the order of the labels.
        image_format: conversion of image files; its channels are those of all images.
        code: identifies the code and options of an extension, so that samples that other code decoded are not reused.
    """

    classes: tuple[str, ...]
    image_format: ImageFormat = RGB
    code: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, ("split", "fingerprint", "list_pairs", "label_decoder"))

    @abstractmethod
    def split(self, name: str) -> Split:
        """Return a split.

        Args:
            name: name of the split.

        Raises:
            DataError: there is no such split, or its files are missing.
        """

    @abstractmethod
    def fingerprint(self, splits: tuple[str, ...]) -> str:
        """Return a digest of the content of splits, which is equal if and only if the decoded samples are equal.

        Args:
            splits: names of the splits.
        """

    def image_digests(self, splits: tuple[str, ...]) -> dict[str, dict[str, str]]:  # noqa: ARG002 - used by subclasses
        """Return digests that are equal for images with equal files; none by default, as samples may not be files.

        Args:
            splits: names of the splits.

        Returns:
            The digest of each image by its id, by the name of the split.
        """
        return {}


@dataclass(frozen=True)
class Pair:
    """The files of one sample.

    Attributes:
        id: identifier of the sample.
        image: path of the image.
        mask: path of the mask.

    Raises:
        DataError: the identifier contains a control character, a line break or bytes that are not UTF-8.
    """

    id: str
    image: Path
    mask: Path

    def __post_init__(self) -> None:
        if escape_line(self.id) != self.id:
            raise DataError(
                f"{escape_line(str(self.image))}: the name contains a control character or a line break, or is not "
                "UTF-8; rename the file"
            )


class FileSplit(Split):
    """A split whose images and masks are files."""

    def __init__(self, pairs: list[Pair], decoder: LabelDecoder, image_format: ImageFormat = RGB) -> None:
        """Create a split.

        Args:
            pairs: files of the samples, in order.
            decoder: maps the values of the masks to labels.
            image_format: conversion of the images.
        """
        self.image_format = image_format
        self.channels = image_format.channels
        self.pairs = pairs
        self.ids = tuple(pair.id for pair in pairs)
        self._decoder = decoder

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_pixels(pair.image, self.image_format)
        return Sample(pair.id, image, self._decode_label(pair, image.shape[:2]))

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of one image from the header of its file.

        Args:
            index: position of the sample.

        Raises:
            DataError: the file is missing, or it is not an image.
        """
        with open_header(self.pairs[index].image) as image:
            return image.height, image.width

    def open_mask(self, path: Path) -> Image.Image:
        """Open and decode a mask.

        Args:
            path: file of the mask.

        Raises:
            DataError: the file is missing, unreadable, or stored with a lossy compression.
        """
        return open_mask(path)

    def _decode_label(self, pair: Pair, size: tuple[int, ...]) -> Pixels:
        mask = self.open_mask(pair.mask)
        if (mask.height, mask.width) != size:
            raise DataError(
                f"{pair.mask}: the mask is {mask.height}x{mask.width} (height x width), its image {pair.image} is "
                f"{size[0]}x{size[1]}"
            )
        return self._decoder.decode(mask, pair.mask)


class FileDataset(Dataset):
    """A dataset whose splits are files below one folder.

    An object lists the files of a split once, when they are first used; a new object sees files that were added since.

    A subclass sets `classes`, `expected_layout` and `split_names`, and implements `list_pairs`. It overrides
    `label_decoder` if the values of the masks are not the labels.

    Attributes:
        expected_layout: description of the folder's content, for error messages.
        split_names: names of the splits.
        ignored_value: value of ignored pixels in the masks, beside 255.
        root: folder of the dataset.
    """

    expected_layout: str
    split_names: tuple[str, ...]
    ignored_value: int = IGNORE_INDEX

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def list_pairs(self, split: str) -> list[Pair]:
        """Return the files of a split in a fixed order.

        Args:
            split: name of the split, one of `split_names`.

        Raises:
            DataError: a folder or a list of files is missing.
        """

    def label_decoder(self) -> LabelDecoder:
        """Return the decoder of the masks. By default, the value of a pixel is its label."""
        return IdDecoder([[number] for number in range(len(self.classes))], [self.ignored_value])

    def split(self, name: str) -> Split:
        return FileSplit(self._checked_pairs(name), self.label_decoder(), self.image_format)

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        files = (
            (f"{split}/{pair.id}/{role}", path)
            for split in splits
            for pair in self._checked_pairs(split)
            for role, path in ((self._image_role(pair.image), pair.image), ("mask", pair.mask))
        )
        return hash_files(files, self.root)

    def _image_role(self, image: Path) -> str:
        """Return the name of an image in the fingerprint, which differs if the file was decoded otherwise before."""
        # A range once applied to the values of PGM files that Pillow had scaled, and now to those that they contain.
        has_range = self.image_format.value_range is not None
        return "image, stored values" if has_range and image.suffix.lower() in PGM_EXTENSIONS else "image"

    def image_digests(self, splits: tuple[str, ...]) -> dict[str, dict[str, str]]:
        pairs = {split: self._checked_pairs(split) for split in splits}
        files = [pair.image for listed in pairs.values() for pair in listed]
        digests = dict(zip(files, hash_each(files, self.root), strict=True))
        return {split: {pair.id: digests[pair.image] for pair in listed} for split, listed in pairs.items()}

    def _checked_pairs(self, split: str) -> list[Pair]:
        """Return the files of a split as they were when this object was first asked for them."""
        if split not in self._known_pairs:
            self._known_pairs[split] = self._list_checked_pairs(split)
        return self._known_pairs[split]

    @cached_property
    def _known_pairs(self) -> dict[str, list[Pair]]:
        """The files of splits, which are listed once."""
        return {}

    def _list_checked_pairs(self, split: str) -> list[Pair]:
        if split not in self.split_names:
            raise DataError(f"{type(self).__name__} has no split '{split}'; {nearest(split, self.split_names)}")
        if not is_folder(self.root):
            raise DataError(
                f"{self.root}: no such folder; set --data-root or FCNLAB_DATA to the folder that contains "
                f"{self.root.name} with {self.expected_layout}"
            )
        pairs = self.list_pairs(split)
        if not (isinstance(pairs, list | tuple) and all(isinstance(pair, Pair) for pair in pairs)):
            raise ConfigError(f"{type(self).__name__}.list_pairs returns {reprlib.repr(pairs)}; return a list of Pair")
        if not pairs:
            raise EmptySplitError(
                f"{self.root}: the split '{split}' is empty; the expected layout is {self.expected_layout}"
            )
        self._check_unique(split, pairs)
        return pairs

    def _check_unique(self, split: str, pairs: Sequence[Pair]) -> None:
        """Check that each image occurs once in a split, since metrics would count it as often as it occurs.

        Raises:
            RepeatedIdError: an image occurs more than once.
            DataError: two images have the same id.
        """
        check_ids(pairs)
        [(id_, count)] = Counter(pair.id for pair in pairs).most_common(1)
        if count > 1:
            source = self._find_source(split)
            raise RepeatedIdError(f"{source}: '{split}' contains the image '{id_}' {count} times; list each image once")

    def _find_source(self, split: str) -> Path:  # noqa: ARG002 - used by subclasses
        """Return the list of a split, or else the folder of its images, for error messages."""
        return self.root


def check_ids(pairs: Iterable[Pair]) -> None:
    """Check that no two images of a split have the same id, by which images are counted and compared.

    Args:
        pairs: the files of the split.

    Raises:
        DataError: an id belongs to two images.
    """
    images: dict[str, Path] = {}
    for pair in pairs:
        first = images.setdefault(pair.id, pair.image)
        if first is not pair.image and first != pair.image:
            raise DataError(
                f"{pair.image}: has the same id '{pair.id}' as {first}; ids are paths below the folder of the images: "
                "use a folder that contains both"
            )


def list_files(folder: Path, expected_layout: str) -> list[Path]:
    """Return the files of a folder, sorted by name, without hidden files.

    Args:
        folder: the folder.
        expected_layout: description of the dataset's folder, for the error message.

    Raises:
        DataError: the folder is missing.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder; the expected layout is {expected_layout}")
    return sorted(path for path in folder.iterdir() if is_file(path) and not path.name.startswith("."))
