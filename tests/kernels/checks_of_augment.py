"""Checks of the Triton augmentation; run by `test_triton.py` in another process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TorchBatchWriter, TrainingBatches, create_batch_augmenter, to_uint8_scale
from fcnlab.data.datasets.base import Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.data.resident import DeviceSplit
from fcnlab.data.sample_transform import SampleTransform
from fcnlab.data.transforms import Pixels, Transform
from fcnlab.data.windows import resize_label
from fcnlab.kernels.inputs import AugmentationParams, Window
from fcnlab.kernels.switch import is_triton_available
from tests.kernels.on_triton import COMPILED, DEVICE, examples

MEAN, STD, FILL = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (124, 116, 104)
CPU = torch.device("cpu")

slow = examples(interpreted=10, compiled=40)
extent = st.integers(1, 20)
crops = st.sampled_from([(1, 7), (20, 9), (8, 16)]) if COMPILED else st.tuples(extent, extent)
"""Heights and widths."""

seeds = st.integers(0, 2**31)
scales = st.sampled_from([(0.5, 2.0), (0.25, 0.5), (0.1, 0.2), (1.0, 4.0), (0.7, 0.7), (1.0, 1.0)])


USED = [
    tuple(int(digit) == 1 for digit in digits) for digits in ("1000", "0100", "0010", "0001", "1100", "0111", "1111")
]
"""Combinations of changes of brightness, contrast, saturation and hue."""


class Random(Split):
    """Random images of given sizes; with `smooth`, neighboring pixels are similar, as in photographs."""

    def __init__(self, sizes: list[tuple[int, int]], seed: int, smooth: bool = False) -> None:
        self.ids = tuple(f"s{index}" for index in range(len(sizes)))
        rng = np.random.default_rng(seed)
        self._samples = []
        for id_, (height, width) in zip(self.ids, sizes, strict=True):
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            if smooth:
                ramp = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 55, width)[None, :, None]
                image = (ramp * rng.random(3)).astype(np.uint8)
            label = rng.choice(np.array([0, 1, 7, 254, 255], dtype=np.uint8), (height, width))
            self._samples.append(Sample(id_, image, label))

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def both(
    split: DecodedSplit, augmentation: Augmentation, seed: int, budget: int = 2**30
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a batch of all samples, augmented by the kernels and by the CPU."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(split)).tolist()
    params = [augmentation.sample_params_for_label(split[index].label, rng) for index in chosen]
    kernel = create_batch_augmenter(augmentation, MEAN, STD)
    assert kernel is not None
    images, labels = kernel(DeviceSplit(split, DEVICE, budget).gather(chosen), params)
    assert images.is_contiguous(memory_format=torch.channels_last) and images.dtype == torch.float32
    assert labels.is_contiguous() and labels.dtype == torch.uint8
    samples = [(split[index], each) for index, each in zip(chosen, params, strict=True)]
    return (images.cpu(), labels.cpu()), TorchBatchWriter(len(samples), augmentation, MEAN, STD, CPU)(samples)


def levels(images: Tensor) -> Tensor:
    """Return normalized images in the range 0..255."""
    mean, std = (to_uint8_scale(values)[:, None, None] for values in (MEAN, STD))
    return (images * std + mean).round()


def test_the_kernels_are_available() -> None:
    assert is_triton_available(DEVICE)


@given(
    sizes=st.lists(st.tuples(extent, extent), min_size=1, max_size=3),
    crop=crops,
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    resident=st.booleans(),
    seed=seeds,
)
@slow
def test_without_resizing_results_equal_those_of_the_cpu(
    sizes: list[tuple[int, int]], crop: tuple[int, int], flip: float, resident: bool, seed: int
) -> None:
    split = DecodedSplit(Random(sizes, seed))
    found, expected = both(split, Augmentation(crop, None, flip, FILL), seed, 2**30 if resident else 0)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert found[0].stride() == expected[0].stride()
    same_size = Augmentation(crop, (1.0, 1.0), flip, FILL)  # resizing to the same size changes nothing
    assert torch.equal(both(split, same_size, seed)[0][0], found[0])


@given(
    sizes=st.lists(st.tuples(extent, extent), min_size=1, max_size=3),
    crop=crops,
    scale=scales,
    smooth=st.booleans(),
    seed=seeds,
)
@slow
def test_resized_samples_equal_those_of_the_cpu(
    sizes: list[tuple[int, int]], crop: tuple[int, int], scale: tuple[float, float], smooth: bool, seed: int
) -> None:
    found, expected = both(DecodedSplit(Random(sizes, seed, smooth)), Augmentation(crop, scale, 0.5, FILL), seed)
    assert torch.equal(found[1], expected[1]) and torch.equal(found[0], expected[0])


@pytest.mark.parametrize("scale", [(0.2, 0.4), (0.5, 1.0), (1.0, 3.0), (0.5, 0.5), (2.0, 2.0)])
@pytest.mark.parametrize("smooth", [False, True])
def test_large_resized_images_equal_those_of_the_cpu(scale: tuple[float, float], smooth: bool) -> None:
    split = DecodedSplit(Random([(400, 50), (30, 624)], 0, smooth))
    found, expected = both(split, Augmentation((24, 24), scale, 0.5, FILL), 0)
    assert torch.equal(found[1], expected[1]) and torch.equal(found[0], expected[0])


@given(source=st.integers(1, 4000), ratio=st.floats(0.2, 8.0), first=st.integers(0, 4000))
@slow
def test_labels_of_large_images_equal_those_of_the_cpu(source: int, ratio: float, first: int) -> None:
    target = max(1, round(ratio * source))
    left = min(first, target - 1)
    window = Window(0, left, 1, min(32, target - left))
    label = torch.from_numpy(np.random.default_rng(source).integers(0, 256, (1, source), dtype=np.uint8))
    sample = Sample("s", np.zeros((1, source, 3), dtype=np.uint8), label.numpy())
    split = DeviceSplit(DecodedSplit(Single(sample)), DEVICE, 2**30)
    augmentation = Augmentation((1, 32), (0.5, 2.0), 0.0, FILL)
    params = AugmentationParams(np.zeros(4), (1, target), 0.0, window, None, False)
    kernel = create_batch_augmenter(augmentation, MEAN, STD)
    assert kernel is not None
    _, found = kernel(split.gather([0]), [params])
    assert torch.equal(found[0, :, : window.width].cpu(), resize_label(label, (1, target), window))


class Single(Split):
    """One sample."""

    def __init__(self, sample: Sample) -> None:
        self.ids, self._sample = (sample.id,), sample

    def __getitem__(self, index: int) -> Sample:
        return self._sample


strengths = st.sampled_from([0.1, 0.4, 1.0])


def jittered(used: tuple[bool, ...], strength: float) -> ColorJitter:
    """Return a jitter of the given kinds; hue changes by at most half a turn."""
    limits = {"brightness": strength, "contrast": strength, "saturation": strength, "hue": strength / 2}
    return ColorJitter(**{name: limit for (name, limit), on in zip(limits.items(), used, strict=True) if on})


@given(used=st.sampled_from(USED), strength=strengths, smooth=st.booleans(), seed=seeds)
@slow
def test_color_jitter_equals_that_of_torchvision(
    used: tuple[bool, ...], strength: float, smooth: bool, seed: int
) -> None:
    # Images that fill whole vectors: PyTorch does not fuse multiplications and additions of remaining pixels.
    split = DecodedSplit(Random([(16, 64), (32, 24)], seed, smooth))
    found, expected = both(split, Augmentation((20, 20), None, 0.5, FILL, jittered(used, strength)), seed)
    assert torch.equal(found[1], expected[1]) and torch.equal(found[0], expected[0])


@given(
    sizes=st.lists(st.tuples(extent, extent), min_size=1, max_size=3),
    used=st.sampled_from(USED),
    strength=strengths,
    smooth=st.booleans(),
    seed=seeds,
)
@slow
def test_color_jitter_of_any_size_equals_that_of_torchvision_up_to_rounding(
    sizes: list[tuple[int, int]], used: tuple[bool, ...], strength: float, smooth: bool, seed: int
) -> None:
    split = DecodedSplit(Random(sizes, seed, smooth))
    found, expected = both(split, Augmentation((20, 20), None, 0.5, FILL, jittered(used, strength)), seed)
    assert torch.equal(found[1], expected[1])
    difference = (levels(found[0]) - levels(expected[0])).abs()
    # A later change multiplies a rounding difference by up to 2.
    assert difference.max() <= (1 if sum(used) == 1 else 3)
    assert (difference > 0).float().mean() <= 0.01


@given(scale=scales, seed=seeds)
@slow
def test_color_jitter_is_combined_with_resizing_and_cropping(scale: tuple[float, float], seed: int) -> None:
    augmentation = Augmentation(
        (16, 12), scale, 0.5, FILL, ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    )
    found, expected = both(DecodedSplit(Random([(16, 24), (32, 8)], seed)), augmentation, seed)
    assert torch.equal(found[1], expected[1]) and torch.equal(found[0], expected[0])


def batches_of(
    split: DecodedSplit, augmentation: Augmentation, device: torch.device, transform: SampleTransform | None = None
) -> TrainingBatches:
    return TrainingBatches(
        split, batch_size=2, augmentation=augmentation, mean=MEAN, std=STD, seed=3, device=device, transform=transform
    )


@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("ratio", [None, 0.4])
@pytest.mark.parametrize("more", [(), (15.0,), (0.0, GaussianBlur(probability=1.0))])
def test_training_batches_equal_those_of_the_cpu(
    budget: int, ratio: float | None, more: tuple[float | GaussianBlur, ...]
) -> None:
    split = DecodedSplit(Random([(14, 18), (9, 30), (24, 20), (16, 16), (12, 12)], 1))
    augmentation = Augmentation((12, 16), None, 0.5, FILL, ColorJitter(), ratio, *more)
    assert (create_batch_augmenter(augmentation, MEAN, STD) is not None) == (not more)
    device = batches_of(DeviceSplit(split, DEVICE, budget), augmentation, DEVICE)
    for epoch in (0, 1):
        pairs = zip(device.epoch(epoch), batches_of(split, augmentation, CPU).epoch(epoch), strict=True)
        for (images, labels), (expected, expected_labels) in pairs:
            assert images.device.type == DEVICE.type and images.shape == expected.shape
            if DEVICE == CPU or not more:  # a GPU can round rotations and blur differently
                assert torch.equal(labels.cpu(), expected_labels) and torch.equal(images.cpu(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="there is no GPU")
@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("more", [(), (15.0, GaussianBlur(probability=0.5))])
def test_batches_do_not_wait_for_the_device(budget: int, more: tuple[float | GaussianBlur, ...]) -> None:
    split = DecodedSplit(Random([(14, 18), (9, 30), (24, 20), (16, 16)], 1))
    augmentation = Augmentation(
        (12, 16), (0.5, 2.0), 0.5, FILL, ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1), None, *more
    )
    batches = batches_of(DeviceSplit(split, DEVICE, budget), augmentation, DEVICE)
    list(batches.epoch(0))  # compiles, and copies the constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(batches.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Mirror(Transform):
    """Flips, and leaves out a random number of rows."""

    def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        rows = int(rng.integers(0, 4))
        return image[rows:, ::-1], mask[rows:, ::-1]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="there is no GPU")
@pytest.mark.parametrize("ratio", [None, 0.4])
def test_transformed_batches_equal_those_of_the_cpu(ratio: float | None) -> None:
    split = DecodedSplit(Random([(14, 18), (9, 30), (24, 20), (16, 16), (12, 12)], 1))
    augmentation = Augmentation((12, 16), (0.5, 2.0), 0.5, FILL, cat_max_ratio=ratio)
    transform = SampleTransform("mirror", Mirror(), 255)
    on_gpu, on_cpu = (batches_of(split, augmentation, device, transform) for device in (DEVICE, CPU))
    for (images, labels), (expected, expected_labels) in zip(on_gpu.epoch(1), on_cpu.epoch(1), strict=True):
        assert images.device.type == "cuda"
        assert torch.equal(labels.cpu(), expected_labels) and torch.equal(images.cpu(), expected)
