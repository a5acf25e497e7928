"""Training batches: ordered and augmented from (seed, epoch, index), normalised on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fcnlab.data.augment import Augmentation
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import DataError
from fcnlab.streams import stream


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map uint8 images [B, 3, H, W] to float32: scaled to 0..1, less the mean, over the standard deviation."""
    mean_, std_ = (torch.tensor(v, device=images.device, dtype=torch.float32)[:, None, None] for v in (mean, std))
    return (images.float() - 255 * mean_) / (255 * std_)


class TrainingBatches:
    """The batches of every epoch of a run. The last, partial batch of an epoch is left out."""

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
        self._split, self._batch, self._augmentation = split, batch, augmentation
        self._mean, self._std, self._seed, self._device = mean, std, seed, device

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images [B, 3, h, w], float32 in channels-last layout, and labels [B, h, w], uint8."""
        order = np.random.default_rng(stream(self._seed, "order", epoch)).permutation(len(self._split))
        for step in range(self.steps):
            chosen = order[step * self._batch : (step + 1) * self._batch]
            samples = [self._augmentation(self._split[int(i)], self._draws(epoch, int(i))) for i in chosen]
            images = torch.stack([sample.image for sample in samples]).to(self._device)
            labels = torch.stack([sample.label for sample in samples]).to(self._device)
            yield (
                normalised(images, self._mean, self._std).contiguous(memory_format=torch.channels_last),
                labels,
            )

    def _draws(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.default_rng(stream(self._seed, "augmentation", epoch, index))
