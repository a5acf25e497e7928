"""Splits on a device: uploaded once and kept for later trials, or copied batch by batch."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from fcnlab.data.decoded import DecodedSplit, SampleLayout
from fcnlab.kernels.inputs import DecodedSample, RawBatch, view_sample

DEVICE_SHARE = 0.25
"""Fraction of a device's free memory for decoded samples; the rest is for the model and its activations."""

MAX_RESIDENT_SPLITS = 4
"""Maximum number of splits that the process keeps on its devices for later trials."""

UPLOAD_BUFFER_BYTES = 64 * 2**20
"""Bytes of each of the two pinned buffers for the upload of a split."""


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
    return sum(resident.layout.nbytes for (_, where), resident in _RESIDENT.items() if where == device)


def _used_bytes(device: torch.device) -> int:
    """Return the bytes of resident splits that some object uses."""
    return sum(
        resident.layout.nbytes for (_, where), resident in _RESIDENT.items() if where == device and resident.users
    )


def _make_resident(source: DecodedSplit, device: torch.device, budget: int) -> _Resident | None:
    """Return a split as one tensor on the device; None if the budget in bytes does not suffice.

    Splits that no object uses make room, the least recently used one first.
    """
    name = source.content_key
    if name is not None and (name, device) in _RESIDENT:
        resident = _RESIDENT[name, device] = _RESIDENT.pop((name, device))  # now the most recently used one
        return resident
    layout = source.layout(budget - _used_bytes(device))
    if layout is None and _used_bytes(device):
        gc.collect()  # finished trials may still refer to their splits in reference cycles
        layout = source.layout(budget - _used_bytes(device))
    if layout is None:
        return None
    idle = [key for key, other in _RESIDENT.items() if key[1] == device and not other.users]
    for key in idle:
        if _resident_bytes(device) + layout.nbytes <= budget and len(_RESIDENT) < MAX_RESIDENT_SPLITS:
            break
        del _RESIDENT[key]
    resident = _Resident(_upload(source.pieces(), layout.nbytes, device), layout)
    if name is not None and len(_RESIDENT) < MAX_RESIDENT_SPLITS:
        _RESIDENT[name, device] = resident
    return resident


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
        self._resident = _make_resident(source, device, budget)
        if self._resident is not None:
            self._resident.users.add(self)

    @property
    def ids(self) -> tuple[str, ...]:
        return self._source.ids

    @property
    def source(self) -> DecodedSplit:
        """The same samples on the host."""
        return self._source

    @property
    def resident(self) -> bool:
        """True if all samples stay on the device."""
        return self._resident is not None

    def __getitem__(self, index: int) -> DecodedSample:
        if self._resident is None:
            return self.gather([index]).samples()[0]
        layout = self._resident.layout
        return view_sample(self._resident.pixels, *layout.table[index].tolist(), channels=layout.channels)

    def gather(self, indices: Sequence[int]) -> RawBatch:
        """Return samples on the device; samples that are not resident are copied asynchronously.

        Args:
            indices: positions of the samples.
        """
        if self._resident is not None:
            layout = self._resident.layout
            return RawBatch(self._resident.pixels, layout.table[indices], layout.channels)
        return copy_batch([self._source[index] for index in indices], self._device)


def copy_batch(samples: Sequence[DecodedSample], device: torch.device) -> RawBatch:
    """Copy the samples of a batch to a device, asynchronously and through one pinned buffer.

    Args:
        samples: at least one sample on the host.
        device: target device.
    """
    buffer = _host_buffer(sum(sample.nbytes for sample in samples), device)
    rows, offset, channels = [], 0, samples[0].image.shape[0]
    for sample in samples:
        row = (offset, *sample.label.shape)
        staged = view_sample(buffer, *row, channels=channels)
        staged.image.copy_(sample.image)
        staged.label.copy_(sample.label)
        rows.append(row)
        offset += sample.nbytes
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return RawBatch(buffer.to(device, non_blocking=True), table, channels)


def move_to_device(split: DecodedSplit, device: torch.device, trials_per_device: int = 1) -> DecodedSplit:
    """Return the samples of a split on a device.

    A split that fits into `DEVICE_SHARE` of the device's free memory, divided by `trials_per_device`, is uploaded as a
    whole and stays there, also for later calls with the same content. Otherwise samples are uploaded at their use.

    Args:
        split: the samples on the host; a split that was moved already is returned unchanged.
        device: target device; on the CPU the split itself is returned.
        trials_per_device: number of trials that use the device at the same time.
    """
    if device.type == "cpu" or isinstance(split, DeviceSplit):
        return split
    if device == torch.device("cuda"):  # a device without an index
        device = torch.device("cuda", torch.cuda.current_device())
    memory = _free_memory(device) + _resident_bytes(device)
    return DeviceSplit(split, device, int(DEVICE_SHARE * memory / trials_per_device))
