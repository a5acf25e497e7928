"""Training batches, whose order and augmentation depend only on the seed, the epoch and the sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fcnlab.data.augmentation import Augmentation
from fcnlab.data.decoded import DecodedSplit
from fcnlab.data.resident import DeviceSplit, copy_batch, move_to_device
from fcnlab.data.sample_transform import SampleTransform
from fcnlab.errors import DataError
from fcnlab.kernels.augment import CropWriter, create_crop_writer
from fcnlab.kernels.inputs import AugmentationParams, DecodedSample, RawBatch
from fcnlab.kernels.switch import is_triton_available
from fcnlab.seeding import derive_seed

if TYPE_CHECKING:
    from fcnlab.kernels.triton_augment import BatchAugmenter


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Scale images to 0..1, subtract the mean and divide by the standard deviation.

    In channels-last layout, whole rows are computed at once, which is four times as fast as broadcasting over the
    channels and gives the same bits.

    Args:
        images: uint8 [B, C, H, W].
        mean: mean of each channel, 0..1.
        std: standard deviation of each channel, 0..1.
        out: float32 [B, H, W, C] for the result of channels-last images; by default a new tensor.

    Returns:
        float32 [B, C, H, W] in the same layout.
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

MAX_ROW_LEVELS = 256
"""Maximum number of constants that are kept; each width of image needs two."""


def _row_levels(values: Sequence[float], width: int, device: torch.device) -> Tensor:
    """Return `to_uint8_scale` of the values for each pixel of a row, float32 [C * width], on a device.

    On other devices than the CPU the tensor is kept, which saves a copy per batch.
    """
    if device.type == "cpu":
        return to_uint8_scale(values).repeat(width)
    key = (tuple(values), width, device)
    if key not in _ROW_LEVELS:
        with torch.inference_mode(False):  # evaluation and training share the constants
            host = torch.empty(len(values) * width, pin_memory=device.type == "cuda")
            row = host.copy_(to_uint8_scale(values).repeat(width)).to(device, non_blocking=True)
        if type(row) is not Tensor:  # a fake tensor belongs to its mode
            return row
        if len(_ROW_LEVELS) >= MAX_ROW_LEVELS:
            _ROW_LEVELS.clear()
        _ROW_LEVELS[key] = row
    return _ROW_LEVELS[key]


def to_uint8_scale(values: Sequence[float]) -> Tensor:
    """Return values of 0..1 in the range of uint8 pixels.

    Args:
        values: mean or standard deviation of each channel.

    Returns:
        Values of 0..255, float32 [C].
    """
    return torch.tensor(values, dtype=torch.float32) * 255


RING_SIZE = 2
"""Number of batches on the CPU that are valid at the same time: one that is used, and the next one."""


def create_ring(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """Return an endless iterator over RING_SIZE CPU buffers, each of which overwrites the one RING_SIZE steps before.

    Allocating fresh pages for a batch costs more than all the arithmetic on it.

    Args:
        shape: shape of a buffer.
        dtype: type of its elements.
    """
    return cycle([torch.empty(shape, dtype=dtype) for _ in range(RING_SIZE)])


def augmentation_rng(seed: int, pass_index: int, index: int) -> np.random.Generator:
    """Return the random generator of one augmented sample.

    Args:
        seed: seed of the trial.
        pass_index: number of the pass over the training images, from 0.
        index: position of the sample in its split.
    """
    return np.random.default_rng(derive_seed(seed, "augmentation", pass_index, index))


SampleWithParams = tuple[DecodedSample, AugmentationParams]
"""A sample and the sampled parameters of its augmentation."""


class TorchBatchWriter:
    """Writes batches with PyTorch operators on any device."""

    def __init__(
        self, batch: int, augmentation: Augmentation, mean: Sequence[float], std: Sequence[float], device: torch.device
    ) -> None:
        """See `TrainingBatches`; `batch` is the number of samples that are written."""
        self._augmentation, self._mean, self._std, self._device = augmentation, mean, std, device
        self._shape = (batch, *augmentation.crop)
        self._pixels = torch.empty(*self._shape, len(mean), dtype=torch.uint8, device=device)
        self._ring = create_ring((*self._shape, len(mean))) if device.type == "cpu" else None

    def __call__(self, samples: Iterable[SampleWithParams]) -> tuple[Tensor, Tensor]:
        """Return normalized images, float32 [B, C, h, w], and labels, uint8 [B, h, w].

        Args:
            samples: one per row of the batch.
        """
        images = self._pixels.permute(0, 3, 1, 2)
        labels = torch.empty(self._shape, dtype=torch.uint8, device=self._device)
        for (sample, params), image, label in zip(samples, images, labels, strict=True):
            self._augmentation.write(sample, params, image, label)
        out = next(self._ring) if self._ring is not None else None
        return normalize(images, self._mean, self._std, out), labels


class CompiledBatchWriter:
    """Writes batches on the CPU with the compiled kernel; the result is bitwise equal to `TorchBatchWriter`."""

    def __init__(self, batch: int, augmentation: Augmentation, write_crop: CropWriter) -> None:
        """Create a writer; `write_crop` is the compiled kernel for this augmentation, mean and standard deviation."""
        self._augmentation, self._write_crop = augmentation, write_crop
        shape = (batch, *augmentation.crop)
        self._images, self._labels = create_ring((*shape, 3)), create_ring(shape, torch.uint8)

    def __call__(self, samples: Iterable[SampleWithParams]) -> tuple[Tensor, Tensor]:
        """Return normalized images, float32 [B, 3, h, w], and labels, uint8 [B, h, w].

        Args:
            samples: one per row of the batch.
        """
        images, labels = next(self._images), next(self._labels)
        for (sample, params), image, label in zip(samples, images, labels, strict=True):
            prepared, left = self._augmentation.prepare(sample, params)
            if not self._write_crop(prepared, left, image, label):
                self._write_crop(*self._augmentation.crop_sample(prepared, left), image, label)
        return images.permute(0, 3, 1, 2), labels


def _writer(
    batch: int, augmentation: Augmentation, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> TorchBatchWriter | CompiledBatchWriter:
    if device.type == "cpu" and len(mean) == 3:  # the kernel has three channels
        levels = to_uint8_scale(mean).tolist(), to_uint8_scale(std).tolist()
        red, green, blue = augmentation.fill
        write_crop = create_crop_writer(augmentation.crop, (red, green, blue), *levels)
        if write_crop is not None:
            return CompiledBatchWriter(batch, augmentation, write_crop)
    return TorchBatchWriter(batch, augmentation, mean, std, device)


def sample_images(count: int, available: int, seed: int) -> list[int]:
    """Sample the training images of a trial. A smaller sample is part of a larger one of the same seed.

    Args:
        count: number of images of the sample.
        available: number of images of the training split.
        seed: seed of the trial.

    Returns:
        The positions of the images in the split, in increasing order.

    Raises:
        DataError: the split has fewer images.
    """
    if count > available:
        raise DataError(f"recipe.train_size: {count} images are more than the training split has ({available} images)")
    order = np.random.default_rng(derive_seed(seed, "train_size")).permutation(available)
    return sorted(order[:count].tolist())


class TrainingBatches:
    """Batches of every epoch of a trial, from passes over the images in a random order, each without a partial batch.

    Samples are uploaded before they are augmented, and stay on the device if its memory allows; see `move_to_device`.
    On CUDA, Triton kernels augment a whole batch of RGB images at once, unless the augmentation rotates or blurs.
    With a transform, samples stay on the host, where they are transformed, and each batch is copied to the device.
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
        trials_per_device: int = 1,
        transform: SampleTransform | None = None,
        indices: Sequence[int] | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        """Upload the samples as far as the memory of the device allows.

        Args:
            split: decoded training samples.
            batch_size: number of samples of a batch.
            augmentation: augmentation of the samples.
            mean: mean of each channel, 0..1.
            std: standard deviation of each channel, 0..1.
            seed: seed of the trial.
            device: device that trains.
            batch_slice: samples of each batch that are yielded, for distributed training.
            trials_per_device: number of trials that use the device at the same time.
            transform: transform of the samples before their augmentation.
            indices: positions of the samples that are used; by default all of the split.
            steps_per_epoch: number of batches of an epoch; by default those of one pass.

        Raises:
            DataError: there are fewer samples than one batch.
        """
        self._indices = np.arange(len(split)) if indices is None else np.array(indices)
        self._steps_per_pass = len(self._indices) // batch_size
        if not self._steps_per_pass:
            raise DataError(f"a batch of {batch_size} is more than the {len(self._indices)} images to train with")
        self.steps = steps_per_epoch or self._steps_per_pass
        self._batch_size, self._batch_slice = batch_size, batch_slice
        self._augmentation, self._seed = augmentation, seed
        self._device, self._transform = device, transform
        self._samples = move_to_device(split, device, trials_per_device) if transform is None else split
        self._kernel = None
        on_device = isinstance(self._samples, DeviceSplit) or device.type != "cpu"
        if on_device and is_triton_available(device):
            self._kernel = create_batch_augmenter(augmentation, mean, std)
        self._write = _writer(len(range(batch_size)[batch_slice]), augmentation, mean, std, device)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalized images [B, C, h, w], float32 in channels-last layout, and labels [B, h, w], uint8.

        On the CPU a batch is valid until the second batch after it is requested, which is written to the same memory
        (RING_SIZE); copy a batch to keep it longer. Only one iterator of an object may be used at a time.

        Args:
            epoch: number of the epoch, from 0.
        """
        for pass_index, chosen in self._choose_batches(epoch * self.steps, self.steps):
            if isinstance(self._samples, DeviceSplit):
                raw, labels = self._samples.gather(chosen), self._host_labels(self._samples, chosen)
                yield self._on_device(raw, labels, pass_index, chosen)
            elif self._device.type != "cpu":
                samples = [self._load_sample(pass_index, index) for index in chosen]
                raw, labels = copy_batch(samples, self._device), [sample.label for sample in samples]
                yield self._on_device(raw, labels, pass_index, chosen)
            else:
                yield self._write(self._load_with_params(pass_index, index) for index in chosen)

    def _choose_batches(self, start: int, count: int) -> Iterator[tuple[int, list[int]]]:
        """Yield the pass and the samples of `count` batches, from the batch `start` of all passes."""
        order, pass_index = self._indices, -1
        for batch in range(start, start + count):
            if batch // self._steps_per_pass != pass_index:
                pass_index = batch // self._steps_per_pass
                rng = np.random.default_rng(derive_seed(self._seed, "order", pass_index))
                order = self._indices[rng.permutation(len(self._indices))]
            first = batch % self._steps_per_pass * self._batch_size
            yield pass_index, order[first : first + self._batch_size][self._batch_slice].tolist()

    def _load_sample(self, pass_index: int, index: int) -> DecodedSample:
        sample = self._samples[index]
        return self._transform(sample, self._seed, pass_index, index) if self._transform is not None else sample

    def _load_with_params(self, pass_index: int, index: int) -> SampleWithParams:
        sample, rng = self._load_sample(pass_index, index), augmentation_rng(self._seed, pass_index, index)
        return sample, self._augmentation.sample_params_for_label(sample.label, rng)

    def _host_labels(self, split: DeviceSplit, chosen: list[int]) -> list[Tensor | None]:
        """Return the labels on the CPU, so that the device is not synchronized, if the parameters depend on them."""
        needed = self._augmentation.cat_max_ratio is not None
        return [split.source[index].label if needed else None for index in chosen]

    def _on_device(
        self, raw: RawBatch, labels: Sequence[Tensor | None], pass_index: int, chosen: list[int]
    ) -> tuple[Tensor, Tensor]:
        params = [
            self._augmentation.sample_params((height, width), augmentation_rng(self._seed, pass_index, index), label)
            for index, label, (_, height, width) in zip(chosen, labels, raw.table.tolist(), strict=True)
        ]
        if self._kernel is not None and self._kernel.fits(raw):
            return self._kernel(raw, params)
        return self._write(zip(raw.samples(), params, strict=True))


def create_batch_augmenter(
    augmentation: Augmentation, mean: Sequence[float], std: Sequence[float]
) -> BatchAugmenter | None:
    """Return the Triton kernels of an augmentation; None if it rotates or blurs, or for other than three channels.

    Args:
        augmentation: the steps of the augmentation.
        mean: mean of each channel, 0..1.
        std: standard deviation of each channel, 0..1.
    """
    from fcnlab.kernels.triton_augment import BatchAugmenter  # imports triton, which need not be installed

    if augmentation.rotate or augmentation.blur is not None or len(mean) != 3:
        return None
    red, green, blue = augmentation.fill
    return BatchAugmenter(
        augmentation.crop,
        (red, green, blue),
        to_uint8_scale(mean).tolist(),
        to_uint8_scale(std).tolist(),
        jitter=augmentation.jitter,
        resize=augmentation.scale is not None,
    )
