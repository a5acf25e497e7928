"""Decoded samples as uint8 tensors: memory-mapped from the cache, decoded on first use, or on a device.

Values and layout are the same in all three cases, so metrics do not depend on the case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.config.mask_values import MAX_CLASSES
from fcnlab.data.cache.build import restore_sample, try_open_or_build_cache
from fcnlab.data.cache.format import SEAL, MappedCache, is_intact
from fcnlab.data.datasets.base import Dataset, Split, read_sample
from fcnlab.data.parallel import StartProgress
from fcnlab.kernels.inputs import DecodedSample, view_sample

KEPT_BYTES = 4 * 2**30
"""Bytes of decoded samples that one split keeps in memory; further samples are decoded at every use."""


@dataclass(frozen=True)
class SampleLayout:
    """Location of every sample of a split in one flat uint8 tensor.

    Attributes:
        table: offset in bytes, height and width of each sample, int64 [N, 3]. An image [H, W, C] begins at the offset,
            and its label [H, W] follows it.
        nbytes: length of the flat tensor.
        channels: number of channels C of the images.
    """

    table: NDArray[np.int64]
    nbytes: int
    channels: int = 3


def open_decoded(dataset: Dataset, split: str, progress: StartProgress | None = None) -> DecodedSplit:
    """Open a split from its cache, which is built if it is missing; without a cache, samples are decoded on first use.

    Args:
        dataset: the dataset.
        split: name of the split.
        progress: called when the cache is built.

    Raises:
        DataError: the split is missing, or one of its files is missing or invalid.
    """
    found = try_open_or_build_cache(dataset, split, progress)
    source = dataset.split(split)
    return MappedSplit(found, source) if found is not None else DecodedSplit(source, num_classes=len(dataset.classes))


class DecodedSplit:
    """A split as uint8 tensors. Each sample is decoded on first use and kept as long as the budget lasts.

    Attributes:
        from_cache: whether the samples are those of a cache, which does not change when the files of the dataset do.
    """

    from_cache = False
    _budget = 0  # of subclasses that keep no decoded samples

    def __init__(self, split: Split, budget: int = KEPT_BYTES, *, num_classes: int = MAX_CLASSES) -> None:
        """Create a split whose samples are decoded on first use.

        Args:
            split: the split.
            budget: bytes of decoded samples that are kept in memory.
            num_classes: number of classes; other labels are errors.
        """
        self._split, self._num_classes = split, num_classes
        self._kept: dict[int, DecodedSample] = {}
        self._budget = self._left = budget

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._split.ids

    def __getitem__(self, index: int) -> DecodedSample:
        if index in self._kept:
            return self._kept[index]
        sample = self._make(index)
        if sample.nbytes <= self._left:
            self._left -= sample.nbytes
            self._kept[index] = sample
        return sample

    def _make(self, index: int) -> DecodedSample:
        sample = read_sample(self._split, index, self._num_classes)
        return DecodedSample(torch.tensor(sample.image).permute(2, 0, 1), torch.tensor(sample.label))

    @property
    def content_key(self) -> str | None:
        """A digest that identifies the samples' content across objects; None where there is none."""
        return None

    def layout(self, limit: int) -> SampleLayout | None:
        """Return the location of each sample in one flat tensor; None if it needs more than `limit` bytes.

        Sizes are known only after decoding, so all samples are decoded, and they must also fit into the memory budget.

        Args:
            limit: maximum length in bytes.
        """
        limit = min(limit, self._budget)
        rows, offset, channels = [], 0, 3
        for index in range(len(self)):
            if offset >= limit:
                return None
            sample = self[index]
            channels = sample.image.shape[0]
            rows.append((offset, *sample.label.shape))
            offset += sample.nbytes
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return SampleLayout(table, offset, channels) if offset <= limit else None

    def pieces(self) -> Iterator[Tensor]:
        """Yield 1-D uint8 tensors that make up the flat tensor of `layout`, in order."""
        for index in range(len(self)):
            sample = self[index]
            yield sample.image.permute(1, 2, 0).reshape(-1)
            yield sample.label.reshape(-1)


class MappedSplit(DecodedSplit):
    """A split whose samples are views of a memory-mapped cache file.

    The map is copy-on-write: changing a sample affects neither the file nor other processes. Each sample is compared
    with its checksum when it is first used; a damaged one is decoded again from its files and restored in the cache.
    """

    from_cache = True

    def __init__(self, cache: MappedCache, source: Split) -> None:
        """Open the samples of a cache.

        Args:
            cache: the cache.
            source: the split from which it was decoded.
        """
        self._cache, self._source = cache, source
        self._checked = bytearray(len(cache.index.ids))
        self._ids = cache.index.ids
        self._table = cache.index.places[:, :3]
        self._channels = cache.index.channels
        self._rows: list[list[int]] = self._table.tolist()
        self._pixels = torch.from_numpy(cache.pixels)
        self._key = cache.pixels[-SEAL:].tobytes().hex()

    @property
    def ids(self) -> tuple[str, ...]:
        return self._ids

    @property
    def content_key(self) -> str | None:
        """The seal of the cache: a digest of its index, which contains the checksums of all samples."""
        return self._key

    def layout(self, limit: int) -> SampleLayout | None:
        nbytes = len(self._pixels) - SEAL
        return SampleLayout(self._table, nbytes, self._channels) if nbytes <= limit else None

    def pieces(self) -> Iterator[Tensor]:
        """Yield the map, without its seal."""
        for index in range(len(self)):
            self._check(index)
        yield self._pixels[:-SEAL]

    def __getitem__(self, index: int) -> DecodedSample:
        if not self._checked[index]:
            self._check(index)
        return view_sample(self._pixels, *self._rows[index], channels=self._channels)

    def _check(self, index: int) -> None:
        """Compare a sample with its checksum, and restore it if it is damaged."""
        if not is_intact(self._cache, index):
            restore_sample(self._cache, index, self._source[index])
        self._checked[index] = 1
