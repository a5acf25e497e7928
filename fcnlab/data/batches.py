"""Training batches: ordered and augmented from (seed, epoch, index), on the device that trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.data.augmentation import Augmentation
from fcnlab.data.decoded import DecodedSplit, DeviceSplit
from fcnlab.errors import DataError
from fcnlab.kernels.augment import CropWriter, create_crop_writer
from fcnlab.kernels.inputs import DecodedSample, Placement
from fcnlab.kernels.switch import is_triton_available
from fcnlab.seeding import derive_seed

if TYPE_CHECKING:
    from fcnlab.kernels.triton_augment import BatchAugmenter


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Map uint8 images [B, 3, H, W] to float32: scaled to 0..1, less the mean, over the standard deviation.

    The layout stays. Where the channels of a pixel lie together, as in batches, each row of the images is one run of
    numbers to the arithmetic; broadcasting three channels would cost four times as much and give the same bits. Then
    `out`, float32 [B, H, W, 3], is where the result is written, if it is given.
    """
    if images.is_contiguous(memory_format=torch.channels_last):
        batch, channels, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1)
        result = pixels.float() if out is None else out.copy_(pixels)
        rows = result.view(batch * height, width * channels)
        rows.sub_(_row_levels(mean, width, images.device)).div_(_row_levels(std, width, images.device))
        return result.permute(0, 3, 1, 2)
    mean_, std_ = (_row_levels(values, 1, images.device)[:, None, None] for values in (mean, std))
    return (images.float() - mean_) / std_


_ROW_LEVELS: dict[tuple[tuple[float, ...], int, torch.device], Tensor] = {}
"""Constants on devices other than the CPU, by values, width and device."""

MOST_ROWS = 256
"""Constants to keep at most: one pair for each width of image."""


def _row_levels(values: Sequence[float], width: int, device: torch.device) -> Tensor:
    """Return `grey_levels` of the values for each pixel of a row, float32 [3 * width], on a device.

    On other devices than the CPU the tensor is kept, so that it is not copied for every batch.
    """
    if device.type == "cpu":
        return to_uint8_scale(values).repeat(width)
    key = (tuple(values), width, device)
    if key not in _ROW_LEVELS:
        with torch.inference_mode(False):  # what evaluation makes is used in training, too
            host = torch.empty(len(values) * width, pin_memory=device.type == "cuda")
            row = host.copy_(to_uint8_scale(values).repeat(width)).to(device, non_blocking=True)
        if type(row) is not Tensor:  # a fake tensor belongs to its mode
            return row
        if len(_ROW_LEVELS) >= MOST_ROWS:
            _ROW_LEVELS.clear()
        _ROW_LEVELS[key] = row
    return _ROW_LEVELS[key]


def to_uint8_scale(values: Sequence[float]) -> Tensor:
    """A mean or deviation of 0..1 by channel as float32 [3], in grey levels: the bits that every batch is made with."""
    return torch.tensor(values, dtype=torch.float32) * 255


class BufferRing:
    """Tensors on the CPU whose memory is used again once nothing holds them.

    Fresh pages from the system cost more than all the arithmetic on a batch. Each tensor is made of a view of its own
    onto the memory, which lives as long as the tensor's storage: until no view of it is left and autograd has let it
    go. What somebody keeps is never written to.
    """

    KEPT = 3
    """Memories at most; beyond it, for those who keep all batches, tensors are made as usual."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        self._shape, self._dtype = shape, dtype
        self._memories: list[NDArray[Any]] = []
        self._users: list[ref[NDArray[Any]]] = []

    def tensor(self) -> Tensor:
        """A tensor of the shape, of any values."""
        free = next((place for place, user in enumerate(self._users) if user() is None), len(self._users))
        if free == self.KEPT:
            return torch.empty(self._shape, dtype=self._dtype)
        if free == len(self._users):
            self._memories.append(torch.empty(self._shape, dtype=self._dtype).numpy())  # aligned as torch aligns
        view = self._memories[free].view()
        self._users[free : free + 1] = [ref(view)]
        return torch.from_numpy(view)


def augmentation_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """What the augmentation of sample `index` draws from in an epoch of a trial with this seed."""
    return np.random.default_rng(derive_seed(seed, "augmentation", epoch, index))


Drawn = tuple[DecodedSample, Placement]
"""A sample, and what was drawn for it."""


class TorchBatchWriter:
    """Writes batches in torch's operators, on any device: uint8 into one buffer, then normalised as a whole."""

    def __init__(
        self, batch: int, augmentation: Augmentation, mean: Sequence[float], std: Sequence[float], device: torch.device
    ) -> None:
        """As `TrainingBatches`."""
        self._augmentation, self._mean, self._std, self._device = augmentation, mean, std, device
        self._shape = (batch, *augmentation.crop)
        self._pixels = torch.empty(*self._shape, 3, dtype=torch.uint8, device=device)
        self._memory = BufferRing((*self._shape, 3)) if device.type == "cpu" else None

    def __call__(self, samples: Iterable[Drawn]) -> tuple[Tensor, Tensor]:
        """A batch of new tensors: images as `normalised` has them, and labels."""
        images = self._pixels.permute(0, 3, 1, 2)
        labels = torch.empty(self._shape, dtype=torch.uint8, device=self._device)
        for (sample, placement), image, label in zip(samples, images, labels, strict=True):
            self._augmentation.write(sample, placement, image, label)
        out = self._memory.tensor() if self._memory is not None else None
        return normalize(images, self._mean, self._std, out), labels


class CompiledBatchWriter:
    """Writes batches on the CPU, each sample in one pass; the bits are those of `Plain`."""

    def __init__(self, batch: int, augmentation: Augmentation, place: CropWriter) -> None:
        """`place` is for this augmentation, and for the mean and deviation of the batches."""
        self._augmentation, self._place = augmentation, place
        shape = (batch, *augmentation.crop)
        self._images, self._labels = BufferRing((*shape, 3)), BufferRing(shape, torch.uint8)

    def __call__(self, samples: Iterable[Drawn]) -> tuple[Tensor, Tensor]:
        """A batch of new tensors: images as `normalised` has them, and labels."""
        images, labels = self._images.tensor(), self._labels.tensor()
        for (sample, placement), image, label in zip(samples, images, labels, strict=True):
            begun, left = self._augmentation.begun(sample, placement)
            if not self._place(begun, left, image, label):
                self._place(*self._augmentation.cropped(begun, left), image, label)
        return images.permute(0, 3, 1, 2), labels


def _writer(
    batch: int, augmentation: Augmentation, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> TorchBatchWriter | CompiledBatchWriter:
    place = None
    if device.type == "cpu":
        levels = to_uint8_scale(mean).tolist(), to_uint8_scale(std).tolist()
        place = create_crop_writer(augmentation.crop, augmentation.fill, *levels)
    return (
        TorchBatchWriter(batch, augmentation, mean, std, device)
        if place is None
        else CompiledBatchWriter(batch, augmentation, place)
    )


class TrainingBatches:
    """The batches of every epoch of a run. The last, partial batch of an epoch is left out.

    Samples go to the device before they are augmented, where they stay as its memory allows; see `DecodedSplit.to`. On
    CUDA, Triton kernels augment a whole batch at once, unless the augmentation rotates or blurs.
    """

    def __init__(
        self,
        split: DecodedSplit,
        *,
        batch_size: int,
        augmentation: Augmentation,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        device: torch.device,
        batch_slice: slice = slice(None),
        sharing: int = 1,
    ) -> None:
        """`places` are those of each batch that are yielded; who takes other ones has the rest of the same batches.

        `sharing` is the number of trials that use the device at the same time.

        Raises:
            DataError: the split has fewer samples than one batch.
        """
        if len(split) < batch_size:
            raise DataError(f"a batch of {batch_size} is more than the training split has ({len(split)} images)")
        self.steps = len(split) // batch_size
        self._batch_size, self._batch_slice, self._augmentation, self._seed = (
            batch_size,
            batch_slice,
            augmentation,
            seed,
        )
        self._samples = split.to(device, sharing=sharing)
        self._kernel = None
        if isinstance(self._samples, DeviceSplit) and is_triton_available(device):
            self._kernel = create_batch_augmenter(augmentation, mean, std)
        self._write = _writer(len(range(batch_size)[batch_slice]), augmentation, mean, std, device)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images [B, 3, h, w], float32 in channels-last layout, and labels [B, h, w], uint8."""
        order = np.random.default_rng(derive_seed(self._seed, "order", epoch)).permutation(len(self._samples))
        for step in range(self.steps):
            chosen = order[step * self._batch_size : (step + 1) * self._batch_size][self._batch_slice].tolist()
            if isinstance(self._samples, DeviceSplit):
                yield self._on_device(self._samples, epoch, chosen)
            else:
                yield self._write(self._drawn(epoch, index) for index in chosen)

    def _drawn(self, epoch: int, index: int) -> Drawn:
        sample = self._samples[index]
        return sample, self._augmentation.drawn(sample.label, augmentation_rng(self._seed, epoch, index))

    def _on_device(self, split: DeviceSplit, epoch: int, chosen: list[int]) -> tuple[Tensor, Tensor]:
        raw = split.gather(chosen)
        placements = [
            self._augmentation.sample_placement(
                (height, width),
                augmentation_rng(self._seed, epoch, index),
                # Reading the label's values on the CPU makes no device wait.
                split.source[index].label if self._augmentation.cat_max_ratio is not None else None,
            )
            for index, (_, height, width) in zip(chosen, raw.table.tolist(), strict=True)
        ]
        if self._kernel is not None and self._kernel.fits(raw):
            return self._kernel(raw, placements)
        return self._write(zip(raw.samples(), placements, strict=True))


def create_batch_augmenter(
    augmentation: Augmentation, mean: Sequence[float], std: Sequence[float]
) -> BatchAugmenter | None:
    """Return the Triton kernels of an augmentation; None if it rotates or blurs, for which there are no kernels.

    Args:
        augmentation: the steps of the augmentation.
        mean: mean of each channel, 0..1.
        std: standard deviation of each channel, 0..1.
    """
    from fcnlab.kernels.triton_augment import BatchAugmenter  # imports triton, which need not be installed

    if augmentation.rotate or augmentation.blur.probability:
        return None
    return BatchAugmenter(
        augmentation.crop,
        augmentation.fill,
        to_uint8_scale(mean).tolist(),
        to_uint8_scale(std).tolist(),
        jitter=augmentation.jitter,
        resize=augmentation.scale is not None,
    )
