"""Training batches: ordered and augmented from (seed, epoch, index), on the device that trains."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fcnlab.data.augment import Augmentation
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import DataError
from fcnlab.streams import stream


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Map uint8 images [B, 3, H, W] to float32: scaled to 0..1, less the mean, over the standard deviation.

    The layout stays. Where the channels of a pixel lie together, as in batches, each row of the images is one run of
    numbers to the arithmetic; broadcasting three channels would cost four times as much and give the same bits. Then
    `out`, float32 [B, H, W, 3], is where the result is written, if it is given.
    """
    mean_, std_ = (torch.tensor(v, dtype=torch.float32) * 255 for v in (mean, std))
    if images.is_contiguous(memory_format=torch.channels_last):
        batch, channels, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1)
        result = pixels.float() if out is None else out.copy_(pixels)
        rows = result.view(batch * height, width * channels)
        rows.sub_(mean_.repeat(width).to(images.device)).div_(std_.repeat(width).to(images.device))
        return result.permute(0, 3, 1, 2)
    mean_, std_ = (v[:, None, None].to(images.device) for v in (mean_, std_))
    return (images.float() - mean_) / std_


class Reused:
    """Tensors on the CPU whose memory is used again once nothing holds them.

    Fresh pages from the system cost more than all the arithmetic on a batch. An array is free when its count of
    references is what it was before a tensor was made of it: a tensor's memory, and so every view of it and whatever
    autograd has kept, holds the array that it is of. What somebody keeps is never written to.
    """

    KEPT = 3
    """Arrays at most; beyond it, for those who keep all batches, tensors are made as usual."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._arrays: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []
        self._free = 0

    def tensor(self) -> Tensor:
        """A float32 tensor of the shape, of any values."""
        for place in range(len(self._arrays)):
            if sys.getrefcount(self._arrays[place]) == self._free:
                return self._of(place)
        if len(self._arrays) == self.KEPT:
            return torch.empty(self._shape)
        self._arrays.append(np.empty(64 + 4 * math.prod(self._shape), dtype=np.uint8))
        self._free = sys.getrefcount(self._arrays[-1])
        return self._of(len(self._arrays) - 1)

    def _of(self, place: int) -> Tensor:
        array = self._arrays[place]
        start = -array.ctypes.data % 64  # aligned as torch aligns
        return torch.from_numpy(array[start : start + 4 * math.prod(self._shape)].view(np.float32)).view(self._shape)


def draws(seed: int, epoch: int, index: int) -> np.random.Generator:
    """What the augmentation of sample `index` draws from in an epoch of a trial with this seed."""
    return np.random.default_rng(stream(seed, "augmentation", epoch, index))


class TrainingBatches:
    """The batches of every epoch of a run. The last, partial batch of an epoch is left out.

    Samples go to the device before they are augmented, where they stay as its memory allows; see `DecodedSplit.to`.
    """

    def __init__(
        self,
        split: DecodedSplit,
        *,
        batch: int,
        augmentation: Augmentation,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        device: torch.device,
    ) -> None:
        """
        Raises:
            DataError: the split has fewer samples than one batch.
        """
        if len(split) < batch:
            raise DataError(f"a batch of {batch} is more than the training split has ({len(split)} images)")
        self.steps = len(split) // batch
        self._batch, self._augmentation = batch, augmentation
        self._mean, self._std, self._seed, self._device = mean, std, seed, device
        self._samples = split.to(device)
        self._memory = Reused((batch, *augmentation.crop, 3)) if device.type == "cpu" else None
        # What is drawn may depend on a label's values; looked at on the CPU they make no device wait.
        self._drawn_from = self._samples if augmentation.cat_max_ratio is None else split

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images [B, 3, h, w], float32 in channels-last layout, and labels [B, h, w], uint8."""
        order = np.random.default_rng(stream(self._seed, "order", epoch)).permutation(len(self._samples))
        height, width = self._augmentation.crop
        pixels = torch.empty(self._batch, height, width, 3, dtype=torch.uint8, device=self._device)
        images = pixels.permute(0, 3, 1, 2)  # one buffer an epoch; what is yielded is new each time
        for step in range(self.steps):
            chosen = order[step * self._batch : (step + 1) * self._batch]
            labels = torch.empty(self._batch, height, width, dtype=torch.uint8, device=self._device)
            for place, index in enumerate(map(int, chosen)):
                drawn = self._augmentation.drawn(self._drawn_from[index].label, draws(self._seed, epoch, index))
                self._augmentation.write(self._samples[index], drawn, images[place], labels[place])
            out = self._memory.tensor() if self._memory is not None else None
            yield normalised(images, self._mean, self._std, out), labels
            del out  # or it would hold the memory of a batch that nobody else holds
