"""Decoded samples as uint8 tensors: memory-mapped from the cache, decoded on first use, or on a device.

Values and layout are the same in all three cases, so metrics do not depend on the case.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.data.cache.build import try_open_or_build_cache
from fcnlab.data.cache.format import SEAL, MappedCache
from fcnlab.data.datasets.base import Dataset, Split
from fcnlab.data.parallel import StartProgress
from fcnlab.kernels.inputs import DecodedSample, RawBatch, view_sample

BUDGET = 4 * 2**30
"""Bytes of decoded samples that one split keeps in memory; further samples are decoded at every use."""

DEVICE_SHARE = 0.25
"""Fraction of a device's free memory for decoded samples; the rest is for the model and its activations."""

MAX_RESIDENT_SPLITS = 4
"""Maximum number of splits that the process keeps on its devices for later trials."""

UPLOAD_BUFFER_BYTES = 64 * 2**20
"""Bytes of each of the two pinned buffers for the upload of a split."""


@dataclass(frozen=True)
class SampleLayout:
    """Location of every sample of a split in one flat uint8 tensor.

    Attributes:
        table: offset in bytes, height and width of each sample, int64 [N, 3]. An image [H, W, 3] begins at the offset,
            and its label [H, W] follows it.
        nbytes: length of the flat tensor.
    """

    table: NDArray[np.int64]
    nbytes: int


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
    return MappedSplit(found) if found is not None else DecodedSplit(dataset.split(split))


class DecodedSplit:
    """A split as uint8 tensors. Each sample is decoded on first use and kept as long as the budget lasts."""

    _budget = 0  # of subclasses that keep no decoded samples

    def __init__(self, split: Split, budget: int = BUDGET) -> None:
        self._split = split
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
        sample = self._split[index]
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
        rows, offset = [], 0
        for index in range(len(self)):
            if offset >= limit:
                return None
            sample = self[index]
            rows.append((offset, *sample.label.shape))
            offset += sample.nbytes
        return SampleLayout(np.array(rows, dtype=np.int64).reshape(-1, 3), offset) if offset <= limit else None

    def pieces(self) -> Iterator[Tensor]:
        """Yield 1-D uint8 tensors that make up the flat tensor of `layout`, in order."""
        for index in range(len(self)):
            sample = self[index]
            yield sample.image.permute(1, 2, 0).reshape(-1)
            yield sample.label.reshape(-1)

    def to(self, device: torch.device, free: int | None = None, sharing: int = 1) -> DecodedSplit:
        """Return the same samples on a device.

        A split that fits into `DEVICE_SHARE` of the device's free memory, divided by `sharing`, is uploaded as a whole
        and stays there, also for later calls with the same content. Otherwise samples are uploaded when they are used.

        Args:
            device: target device; on the CPU the split itself is returned.
            free: free memory of the device in bytes; by default the device is asked.
            sharing: number of trials that use the device at the same time.
        """
        if device.type == "cpu":
            return self
        if device == torch.device("cuda"):  # a device without an index
            device = torch.device("cuda", torch.cuda.current_device())
        if free is None:
            free = _free_memory(device)
        return DeviceSplit(self, device, int(DEVICE_SHARE * (free + _resident_bytes(device)) / sharing))

    def prefetch(self, indices: Iterable[int], count: int = 8) -> Iterator[DecodedSample]:
        """Yield samples that a background thread loads in advance.

        Args:
            indices: positions of the samples, in the order of the result.
            count: maximum number of samples that are loaded in advance.
        """
        waiting: deque[Future[DecodedSample]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
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
    """A split whose samples are views of a memory-mapped cache file.

    The map is copy-on-write: changing a sample affects neither the file nor other processes.
    """

    def __init__(self, cache: MappedCache) -> None:
        self._ids = cache.index.ids
        self._table = cache.index.places[:, :3]
        self._places: list[list[int]] = self._table.tolist()
        self._pixels = torch.from_numpy(cache.pixels)
        self._key = cache.pixels[-SEAL:].tobytes().hex()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._ids

    @property
    def content_key(self) -> str | None:
        """The seal of the cache: a digest of its index, which contains the checksums of all samples."""
        return self._key

    def layout(self, limit: int) -> SampleLayout | None:
        """Return the location of each sample in the map; None if it is longer than `limit` bytes.

        Args:
            limit: maximum length in bytes.
        """
        nbytes = len(self._pixels) - SEAL
        return SampleLayout(self._table, nbytes) if nbytes <= limit else None

    def pieces(self) -> Iterator[Tensor]:
        """Yield the map, without its seal."""
        yield self._pixels[:-SEAL]

    def __getitem__(self, index: int) -> DecodedSample:
        return view_sample(self._pixels, *self._places[index])


@dataclass(eq=False)
class _Resident:
    """A split as one flat uint8 tensor on a device, and the objects that use it."""

    pixels: Tensor
    layout: SampleLayout
    users: WeakSet[DeviceSplit] = field(default_factory=WeakSet)


_RESIDENT: dict[tuple[str, torch.device], _Resident] = {}
"""Splits that this process keeps on devices, by content and device; the least recently used one first."""


def release_resident_splits() -> None:
    """Release all splits that are kept on devices. The memory of splits in use is freed with their last user."""
    _RESIDENT.clear()


def _free_memory(device: torch.device) -> int:
    """Return the bytes that this process can allocate on a device; 0 where it cannot be asked."""
    if device.type != "cuda":
        return 0
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved


def _resident_bytes(device: torch.device) -> int:
    return sum(kept.layout.nbytes for (_, where), kept in _RESIDENT.items() if where == device)


def _used_bytes(device: torch.device) -> int:
    """Return the bytes of resident splits that some object uses."""
    return sum(kept.layout.nbytes for (_, where), kept in _RESIDENT.items() if where == device and kept.users)


def _resident(source: DecodedSplit, device: torch.device, budget: int) -> _Resident | None:
    """Return a split as one tensor on the device; None if the budget in bytes does not suffice.

    Splits that no object uses make room, the least recently used one first.
    """
    name = source.content_key
    if name is not None and (name, device) in _RESIDENT:
        found = _RESIDENT[name, device] = _RESIDENT.pop((name, device))  # now the most recently used one
        return found
    layout = source.layout(budget - _used_bytes(device))
    if layout is None and _used_bytes(device):
        gc.collect()  # finished trials may still refer to their splits in reference cycles
        layout = source.layout(budget - _used_bytes(device))
    if layout is None:
        return None
    idle = [key for key, kept in _RESIDENT.items() if key[1] == device and not kept.users]
    for key in idle:
        if _resident_bytes(device) + layout.nbytes <= budget and len(_RESIDENT) < MAX_RESIDENT_SPLITS:
            break
        del _RESIDENT[key]
    made = _Resident(_upload(source.pieces(), layout.nbytes, device), layout)
    if name is not None and len(_RESIDENT) < MAX_RESIDENT_SPLITS:
        _RESIDENT[name, device] = made
    return made


def _host_buffer(nbytes: int, device: torch.device) -> Tensor:
    """Return uint8 memory on the host, pinned for CUDA.

    PyTorch reuses pinned memory only after the copies that were enqueued from it, so it may be deleted at once.
    """
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")


def _upload(pieces: Iterable[Tensor], nbytes: int, device: torch.device) -> Tensor:
    """Copy 1-D uint8 tensors on the host into one flat tensor on the device, and wait for the end.

    Files that are mapped cannot be pinned, so the bytes go through two pinned buffers: one is filled while the other is
    copied.
    """
    target = torch.empty(nbytes, dtype=torch.uint8, device=device)
    length = min(UPLOAD_BUFFER_BYTES, max(nbytes, 1))
    buffers = [_host_buffer(length, device) for _ in range(2)]
    events: list[torch.cuda.Event | None] = [None, None]
    current = filled = done = 0

    def flush() -> None:
        nonlocal current, filled, done
        target[done : done + filled].copy_(buffers[current][:filled], non_blocking=True)
        if device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            events[current] = event
        done += filled
        current, filled = 1 - current, 0
        waiting = events[current]
        if waiting is not None:
            waiting.synchronize()

    for piece in pieces:
        start = 0
        while start < len(piece):
            count = min(len(piece) - start, length - filled)
            buffers[current][filled : filled + count].copy_(piece[start : start + count])
            start += count
            filled += count
            if filled == length:
                flush()
    flush()
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # later users may be on other streams
    return target


class DeviceSplit(DecodedSplit):
    """A split whose samples are used on a device.

    Either all samples are in one flat tensor on the device, which is uploaded once, or the samples of each batch are
    copied through one pinned buffer. Copies are asynchronous. Resident samples are shared by all trials of the process
    and must not be changed.
    """

    def __init__(self, source: DecodedSplit, device: torch.device, budget: int) -> None:
        """Upload the split if it is not longer than `budget` bytes.

        Args:
            source: the samples on the host.
            device: device that uses the samples.
            budget: bytes that this and the other resident splits of the process may take on the device.
        """
        self._source = source
        self._device = device
        self._resident = _resident(source, device, budget)
        if self._resident is not None:
            self._resident.users.add(self)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._source.ids

    @property
    def source(self) -> DecodedSplit:
        """The same samples on the host."""
        return self._source

    @property
    def resident(self) -> bool:
        """Whether all samples stay on the device."""
        return self._resident is not None

    def __getitem__(self, index: int) -> DecodedSample:
        if self._resident is None:
            return self.gather([index]).samples()[0]
        return view_sample(self._resident.pixels, *self._resident.layout.table[index].tolist())

    def gather(self, indices: Sequence[int]) -> RawBatch:
        """Return samples on the device; samples that are not resident are copied asynchronously.

        Args:
            indices: positions of the samples.
        """
        if self._resident is not None:
            return RawBatch(self._resident.pixels, self._resident.layout.table[indices])
        samples = [self._source[index] for index in indices]
        buffer = _host_buffer(sum(sample.nbytes for sample in samples), self._device)
        rows, offset = [], 0
        for sample in samples:
            row = (offset, *sample.label.shape)
            staged = view_sample(buffer, *row)
            staged.image.copy_(sample.image)
            staged.label.copy_(sample.label)
            rows.append(row)
            offset += sample.nbytes
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return RawBatch(buffer.to(self._device, non_blocking=True), table)

    def to(self, device: torch.device, free: int | None = None, sharing: int = 1) -> DecodedSplit:
        """Return the same samples on a device, as `DecodedSplit.to`; the split itself where it is there."""
        return self if device == self._device else self._source.to(device, free, sharing)
