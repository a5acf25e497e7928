"""Samples as uint8 tensors: mapped from a cache that was decoded once, or decoded where they are needed.

Either way they have the same values in the same layout, so figures do not depend on which it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fcnlab.data.base import Dataset, Split
from fcnlab.data.cache import Mapped
from fcnlab.data.cache_build import Progress, mapped

BUDGET = 4 * 2**30
"""Bytes of decoded samples that one split may keep; beyond it samples are decoded anew, with the same figures."""

DEVICE_SHARE = 0.25
"""Of a device's free memory, what decoded samples may take; the rest is for the model and its activations."""


@dataclass(frozen=True)
class Decoded:
    """An image [3, H, W] and its label [H, W], both uint8 tensors.

    As samples are decoded, the three channels of a pixel lie together.
    """

    image: Tensor
    label: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.image.nbytes + self.label.nbytes


def open_decoded(dataset: Dataset, split: str, progress: Progress | None = None) -> DecodedSplit:
    """A split as tensors: mapped from its cache, which is made if it is not there, or decoded on first use.

    Raises:
        DataError: the split is missing, or one of its files is missing or faulty.
    """
    found = mapped(dataset, split, progress)
    return MappedSplit(found) if found is not None else DecodedSplit(dataset.split(split))


class DecodedSplit:
    """A split as uint8 tensors. Each sample is decoded on first use and kept as long as the budget lasts."""

    def __init__(self, split: Split, budget: int = BUDGET) -> None:
        self._split = split
        self._kept: dict[int, Decoded] = {}
        self._left = budget

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._split.ids

    def __getitem__(self, index: int) -> Decoded:
        if index in self._kept:
            return self._kept[index]
        sample = self._make(index)
        if sample.nbytes <= self._left:
            self._left -= sample.nbytes
            self._kept[index] = sample
        return sample

    def _make(self, index: int) -> Decoded:
        sample = self._split[index]
        return Decoded(torch.tensor(sample.image).permute(2, 0, 1), torch.tensor(sample.label))

    def to(self, device: torch.device, free: int | None = None, sharing: int = 1) -> DecodedSplit:
        """The same samples on a device.

        Those that fit into a quarter of its free memory stay there from their first use on. The others go over anew
        each time, through pinned memory, without waiting for the copy to end.

        Args:
            device: where the samples are wanted; on the CPU they are as they were.
            free: bytes of free memory of the device; by default it is asked.
            sharing: how many trials share the device's memory.
        """
        if device.type == "cpu":
            return self
        if free is None:
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        return DeviceSplit(self, device, int(DEVICE_SHARE * free / sharing))

    def ahead(self, indices: Iterable[int], count: int = 8) -> Iterator[Decoded]:
        """The samples in this order, each made up to `count` samples before it is asked for, by a thread beside."""
        waiting: deque[Future[Decoded]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        try:
            for index in indices:
                waiting.append(pool.submit(self.__getitem__, index))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class MappedSplit(DecodedSplit):
    """A split whose samples are views of a map: nothing is decoded and nothing copied.

    The map is private to the process: what is written into a sample reaches neither the file nor other processes.
    """

    def __init__(self, cache: Mapped) -> None:
        self._ids = cache.index.ids
        self._places: list[list[int]] = cache.index.places.tolist()
        self._pixels = torch.from_numpy(cache.pixels)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._ids

    def __getitem__(self, index: int) -> Decoded:
        offset, height, width, _ = self._places[index]
        size = height * width
        image = self._pixels[offset : offset + 3 * size].view(height, width, 3).permute(2, 0, 1)
        return Decoded(image, self._pixels[offset + 3 * size : offset + 4 * size].view(height, width))


class DeviceSplit(DecodedSplit):
    """A split whose samples lie on a device. Each goes there on first use and stays as long as the budget lasts."""

    def __init__(self, source: DecodedSplit, device: torch.device, budget: int) -> None:
        self._source = source
        self._device = device
        self._kept = {}
        self._left = budget

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._source.ids

    def _make(self, index: int) -> Decoded:
        sample = self._source[index]
        return Decoded(self._moved(sample.image), self._moved(sample.label))

    def _moved(self, pixels: Tensor) -> Tensor:
        if self._device.type == "cuda":
            pixels = pixels.pin_memory()
        return pixels.to(self._device, non_blocking=True)
