"""Training batches: they depend on seed, epoch and index only."""

from __future__ import annotations

import ctypes
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import (
    RING_SIZE,
    CompiledBatchWriter,
    TorchBatchWriter,
    TrainingBatches,
    normalize,
    sample_images,
    to_uint8_scale,
)
from fcnlab.data.datasets.base import Sample, Split
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import DataError
from fcnlab.kernels import augment as kernel
from fcnlab.kernels.build import load_library
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.seeding import derive_seed

RANDOM = Augmentation((12, 16), (0.5, 2.0), 0.5, (0, 0, 0))
PLAIN = Augmentation((16, 16), None, 0.0, (0, 0, 0))
CENTER = Augmentation((8, 8), None, 0.5, (0, 0, 0))
quickly = settings(max_examples=25, deadline=None)
few = st.integers(1, 12)
seeds = st.integers(0, 2**31)


class Numbered(Split):
    """Samples whose image and label are their number everywhere, so that a batch shows its samples."""

    def __init__(self, count: int) -> None:
        self.ids = tuple(f"s{index}" for index in range(count))
        self.decoded = 0

    def __getitem__(self, index: int) -> Sample:
        self.decoded += 1
        label = np.full((16, 16), index, dtype=np.uint8)
        return Sample(self.ids[index], np.repeat(label[:, :, None], 3, axis=2), label)


def batches_of(
    split: Split,
    *,
    batch: int,
    augmentation: Augmentation = PLAIN,
    seed: int = 0,
    budget: int = 2**30,
    indices: list[int] | None = None,
    steps_per_epoch: int | None = None,
) -> TrainingBatches:
    return TrainingBatches(
        DecodedSplit(split, budget),
        batch_size=batch,
        augmentation=augmentation,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        seed=seed,
        device=torch.device("cpu"),
        indices=indices,
        steps_per_epoch=steps_per_epoch,
    )


def order(batches: TrainingBatches, epoch: int) -> list[list[int]]:
    """The numbers of the samples, by batch; the top left pixel is never padding."""
    return [[int(label.min()) for label in labels] for _, labels in batches.epoch(epoch)]


def copied(batches: TrainingBatches, epoch: int) -> list[tuple[Tensor, Tensor]]:
    """Copies of the batches of an epoch, which share memory."""
    return [(images.clone(), labels.clone()) for images, labels in batches.epoch(epoch)]


def same(one: TrainingBatches, two: TrainingBatches, epoch: int) -> bool:
    pairs = zip(one.epoch(epoch), two.epoch(epoch), strict=True)
    return all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)


def scenes(count: int = 6) -> Split:
    return Shapes(train=count, val=1, test=1, height=32, width=40, seed=0).split("train")


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    one = batches_of(scenes(), batch=2, augmentation=RANDOM, seed=3)
    two = batches_of(scenes(), batch=2, augmentation=RANDOM, seed=3)
    list(two.epoch(0))  # earlier epochs do not matter: a run can resume from any epoch
    assert same(one, two, epoch=1)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (1, 0)])
def test_another_seed_or_epoch_gives_another_order_and_other_crops(seed: int, epoch: int) -> None:
    split = Numbered(12)
    assert order(batches_of(split, batch=3), 0) != order(batches_of(split, batch=3, seed=seed), epoch)
    one, two = (
        next(batches_of(scenes(1), batch=1, augmentation=RANDOM, seed=s).epoch(e)) for s, e in ((0, 0), (seed, epoch))
    )
    assert not torch.equal(one[0], two[0])


@quickly
@given(count=few, batch=few, seed=seeds, epoch=st.integers(0, 100))
def test_an_epoch_has_whole_batches_and_every_sample_at_most_once(
    count: int, batch: int, seed: int, epoch: int
) -> None:
    if count < batch:
        with pytest.raises(DataError, match=f"a batch of {batch} is more than the {count} images to train with"):
            batches_of(Numbered(count), batch=batch)
        return
    batches = batches_of(Numbered(count), batch=batch, seed=seed)
    batched = order(batches, epoch)
    assert len(batched) == batches.steps == count // batch
    assert all(len(numbers) == batch for numbers in batched)
    flat = [number for numbers in batched for number in numbers]
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(count))


def test_the_samples_left_out_change_with_the_epoch() -> None:
    batches = batches_of(Numbered(5), batch=2)
    left_out = {
        (set(range(5)) - {number for numbers in order(batches, epoch) for number in numbers}).pop()
        for epoch in range(40)
    }
    assert left_out == set(range(5))


@quickly
@given(count=few, batch=few, steps=st.integers(1, 9), epochs=st.integers(1, 6), seed=seeds)
def test_epochs_of_another_length_have_the_batches_of_passes_in_sequence(
    count: int, batch: int, steps: int, epochs: int, seed: int
) -> None:
    batch = min(batch, count)
    passes = batches_of(Numbered(count), batch=batch, seed=seed)
    other = batches_of(Numbered(count), batch=batch, seed=seed, steps_per_epoch=steps)
    found = list(chain.from_iterable(order(other, epoch) for epoch in range(epochs)))
    assert len(found) == epochs * steps and other.steps == steps
    expected = chain.from_iterable(order(passes, index) for index in range(-(-len(found) // passes.steps)))
    assert found == list(expected)[: len(found)]


def test_a_sample_has_another_crop_in_each_pass_of_an_epoch() -> None:
    passes = batches_of(scenes(2), batch=2, augmentation=RANDOM)
    other = batches_of(scenes(2), batch=2, augmentation=RANDOM, steps_per_epoch=3)
    expected = [copied(passes, epoch)[0] for epoch in range(3)]
    for (image, label), (one, two) in zip(copied(other, 0), expected, strict=True):
        assert torch.equal(image, one) and torch.equal(label, two)


@quickly
@given(available=st.integers(1, 40), data=st.data(), seed=seeds)
def test_a_smaller_sample_of_the_training_images_is_part_of_a_larger_one(
    available: int, data: st.DataObject, seed: int
) -> None:
    small, large = sorted(data.draw(st.tuples(st.integers(1, available), st.integers(1, available))))
    one, two = (sample_images(count, available, seed) for count in (small, large))
    assert set(one) <= set(two) <= set(range(available))
    assert (len(one), len(two)) == (small, large) and one == sorted(set(one))
    assert sample_images(available, available, seed) == list(range(available))


def test_each_seed_samples_other_images_and_more_than_there_are_cannot_be_sampled() -> None:
    samples = [sample_images(3, 12, seed) for seed in range(40)]
    assert set(chain.from_iterable(samples)) == set(range(12)) and len(set(map(tuple, samples))) > 20
    with pytest.raises(DataError, match=r"recipe.train_size: 13 images are more than .* \(12 images\)"):
        sample_images(13, 12, seed=0)


def test_only_the_sampled_images_are_in_the_batches_each_as_in_the_whole_split() -> None:
    part = copied(batches_of(scenes(), batch=2, augmentation=RANDOM, indices=[1, 2, 4, 5]), epoch=0)
    assert len(part) == 2
    whole = {image.numpy().tobytes() for images, _ in copied(batches_of(scenes(), batch=2, augmentation=RANDOM), 0)
             for image in images}  # fmt: skip
    assert {image.numpy().tobytes() for images, _ in part for image in images} < whole
    numbers = order(batches_of(Numbered(6), batch=2, indices=[1, 2, 4, 5]), epoch=0)
    assert sorted(chain.from_iterable(numbers)) == [1, 2, 4, 5]


@quickly
@given(seed=seeds, epoch=st.integers(0, 5))
def test_the_order_does_not_depend_on_the_augmentation(seed: int, epoch: int) -> None:
    orders = [
        order(batches_of(Numbered(8), batch=2, augmentation=each, seed=seed), epoch) for each in (PLAIN, CENTER, RANDOM)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_the_crop_of_a_sample_does_not_depend_on_the_batch_that_it_is_in() -> None:
    singles = copied(batches_of(scenes(), batch=1, augmentation=RANDOM), epoch=0)
    pairs = copied(batches_of(scenes(), batch=3, augmentation=RANDOM), epoch=0)
    assert torch.equal(torch.cat([image for image, _ in singles]), torch.cat([image for image, _ in pairs]))
    assert torch.equal(torch.cat([label for _, label in singles]), torch.cat([label for _, label in pairs]))


def test_batches_are_float_images_in_channels_last_layout_and_byte_labels() -> None:
    images, labels = next(batches_of(scenes(), batch=2, augmentation=RANDOM).epoch(0))
    assert images.shape == (2, 3, 12, 16) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (2, 12, 16) and labels.dtype == torch.uint8


channel = st.floats(0.05, 0.95)


@quickly
@given(
    mean=st.tuples(channel, channel, channel),
    std=st.tuples(channel, channel, channel),
    color=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_normalization_subtracts_mean_and_divides_by_std(
    mean: tuple[float, float, float], std: tuple[float, float, float], color: tuple[int, int, int]
) -> None:
    def of(values: tuple[int, ...]) -> Tensor:
        images = torch.tensor(values, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
        return normalize(images, mean, std)

    expected = [(c / 255 - m) / s for c, m, s in zip(color, mean, std, strict=True)]
    np.testing.assert_allclose(of(color)[0, :, 1, 1].numpy(), expected, rtol=1e-4, atol=1e-4)
    fill = tuple(round(255 * m) for m in mean)
    assert (of(fill)[0, :, 0, 0].abs() <= torch.tensor([0.51 / 255 / s for s in std])).all()


@pytest.mark.parametrize("budget", [0, 4 * 32 * 40 * 2, 2**30])  # none, two samples, all
def test_memory_budget_does_not_change_batches(budget: int) -> None:
    roomy = batches_of(scenes(), batch=2, augmentation=RANDOM)
    tight = batches_of(scenes(), batch=2, augmentation=RANDOM, budget=budget)
    assert all(same(roomy, tight, epoch) for epoch in (0, 1))


@pytest.mark.parametrize(("budget", "decodings"), [(0, 8), (2 * 4 * 256, 6), (2**30, 4)])
def test_samples_are_decoded_once_within_the_budget(budget: int, decodings: int) -> None:
    split = Numbered(4)
    decoded = DecodedSplit(split, budget)
    for _ in range(2):
        assert [int(decoded[index].label[0, 0]) for index in range(4)] == [0, 1, 2, 3]
    assert split.decoded == decodings


def test_a_decoded_sample_is_the_sample_with_channels_first() -> None:
    split = scenes(1)
    decoded, sample = DecodedSplit(split)[0], split[0]
    np.testing.assert_array_equal(decoded.image.permute(1, 2, 0).numpy(), sample.image)
    np.testing.assert_array_equal(decoded.label.numpy(), sample.label)


@pytest.fixture(params=["compiled", "torch"])
def _each_writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(kernel, "load_library", lambda name: None)


@pytest.mark.usefixtures("_each_writer")
def test_a_batch_is_valid_while_the_next_one_is_requested() -> None:
    batches = batches_of(scenes(12), batch=2, augmentation=RANDOM)
    epochs = chain(batches.epoch(0), batches.epoch(1))  # also over the end of an epoch
    before = next(epochs)
    for batch in epochs:
        copies = [tensor.clone() for tensor in before]
        for tensor in batch:
            tensor.fill_(7)
        assert all(map(torch.equal, before, copies))
        before = batch
    assert same(batches, batches_of(scenes(12), batch=2, augmentation=RANDOM), epoch=2)


@pytest.mark.usefixtures("_each_writer")
def test_batches_of_an_epoch_share_the_memory_of_a_ring() -> None:
    batches = batches_of(scenes(12), batch=2, augmentation=RANDOM)
    addresses = [images.data_ptr() for epoch in range(2) for images, _ in batches.epoch(epoch)]
    assert addresses == addresses[:RING_SIZE] * (len(addresses) // RING_SIZE)
    assert len(set(addresses)) == RING_SIZE


@quickly
@given(batch=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9), seed=seeds)
def test_memory_layout_does_not_change_normalized_images(batch: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean_, std_ = (torch.tensor(v)[:, None, None] for v in (mean, std))
    expected = (images.float() - 255 * mean_) / (255 * std_)
    assert torch.equal(normalize(images, mean, std), expected)
    last = normalize(images.to(memory_format=torch.channels_last), mean, std)
    assert torch.equal(last, expected)


@pytest.mark.parametrize(
    "augmentation",
    [
        RANDOM,
        Augmentation(
            (12, 16),
            (0.5, 2.0),
            0.5,
            (0, 0, 0),
            ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
            0.6,
            20.0,
            GaussianBlur(probability=0.5),
        ),
    ],
)
def test_a_batch_is_the_samples_augmented_one_by_one(augmentation: Augmentation) -> None:
    split, mean, std = scenes(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    batches = batches_of(split, batch=3, augmentation=augmentation, seed=5)
    numbers = np.random.default_rng(derive_seed(5, "order", 2)).permutation(6)
    samples = [
        augmentation(DecodedSplit(split)[int(i)], np.random.default_rng(derive_seed(5, "augmentation", 2, int(i))))
        for i in numbers
    ]
    images, labels = (torch.cat(parts) for parts in zip(*copied(batches, epoch=2), strict=True))
    assert torch.equal(labels, torch.stack([sample.label for sample in samples]))
    assert torch.equal(images, normalize(torch.stack([sample.image for sample in samples]), mean, std))


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
compiled_only = pytest.mark.skipif(load_library("augment") is None, reason="there is no C compiler")
extent = st.integers(1, 70)
every = ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1), 0.6, 20.0, GaussianBlur(probability=0.5)


def compiled(augmentation: Augmentation, batch: int) -> CompiledBatchWriter:
    place = kernel.create_crop_writer(
        augmentation.crop, augmentation.fill, *(to_uint8_scale(v).tolist() for v in (MEAN, STD))
    )
    assert place is not None
    return CompiledBatchWriter(batch, augmentation, place)


@compiled_only
@settings(max_examples=150, deadline=None)
@given(
    image=st.tuples(extent, extent),
    crop=st.tuples(extent, extent),
    scale=st.sampled_from([None, (0.5, 2.0), (0.05, 0.3), (1.0, 6.0), (0.7, 0.7)]),
    flip=st.sampled_from([0.0, 1.0]),
    more=st.booleans(),
    seed=seeds,
)
def test_compiled_writer_equals_the_torch_writer(
    image: tuple[int, int],
    crop: tuple[int, int],
    scale: tuple[float, float] | None,
    flip: float,
    more: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    augmentation = Augmentation(crop, scale, flip, (124, 116, 104), *(every if more else ()))
    pixels = torch.from_numpy(rng.integers(0, 256, (*image, 3), dtype=np.uint8)).permute(2, 0, 1)
    label = torch.from_numpy(rng.integers(0, 5, image, dtype=np.uint8))
    samples = [(DecodedSample(pixels, label), augmentation.sample_params_for_label(label, rng)) for _ in range(3)]
    expected = TorchBatchWriter(3, augmentation, MEAN, STD, CPU)(samples)
    found = compiled(augmentation, 3)(samples)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert found[0].stride() == expected[0].stride()


@compiled_only
def test_layout_of_samples_does_not_change_batches() -> None:
    augmentation = Augmentation((40, 50), (0.5, 2.0), 0.5, (124, 116, 104))
    sample = DecodedSplit(scenes(1))[0]
    planes = DecodedSample(sample.image.contiguous(), sample.label.t().contiguous().t())
    assert planes.image.stride() != sample.image.stride() and planes.label.stride() != sample.label.stride()
    params = augmentation.sample_params_for_label(sample.label, np.random.default_rng(0))
    one, two = (compiled(augmentation, 1)([(each, params)]) for each in (sample, planes))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


@compiled_only
def test_compiled_writer_is_used_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = batches_of(scenes(), batch=2, augmentation=RANDOM)
    monkeypatch.setattr(kernel, "load_library", lambda name: None)  # no compiler
    slow = batches_of(scenes(), batch=2, augmentation=RANDOM)
    assert isinstance(fast._write, CompiledBatchWriter) and isinstance(slow._write, TorchBatchWriter)
    assert same(fast, slow, epoch=1)


@compiled_only
def test_kernel_that_differs_from_torch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Off:
        """A library whose images differ by one rounding."""

        @staticmethod
        def place(sample: object, crop: object, image: object, label: object) -> int:
            load_library("augment").place(sample, crop, image, label)
            place = ctypes.cast(image, ctypes.POINTER(ctypes.c_float))
            place[700] = float(np.nextafter(np.float32(place[700]), np.float32(9)))
            return 0

    levels = [to_uint8_scale(v).tolist() for v in (MEAN, STD)]
    assert kernel.create_crop_writer((8, 8), (0, 0, 0), *levels) is not None
    monkeypatch.setattr(kernel, "load_library", lambda name: Off)
    assert kernel.create_crop_writer((8, 8), (0, 0, 0), *levels) is None
