"""Tests of evaluation at native size, in batches of images of one shape."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcnlab.api import build_model
from fcnlab.data.datasets.base import Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.data.resident import move_to_device
from fcnlab.metrics.boundary import count_boundaries
from fcnlab.metrics.confusion import count_areas
from fcnlab.metrics.summary import Counts
from fcnlab.training import evaluate as module
from fcnlab.training.evaluate import OnPrediction, evaluate_split
from fcnlab.training.protocol import Protocol

A, B = (8, 10), (9, 7)
SIZES = [A, A, A, B, A, B, B]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


class Mixed(Split):
    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.ids = tuple(f"image{i}" for i in range(len(sizes)))
        rng = np.random.default_rng(0)
        self.samples = [
            Sample(
                id_,
                rng.integers(0, 256, (*size, 3), dtype=np.uint8),
                rng.choice([0, 1, 2, 3, 255], size).astype(np.uint8),
            )
            for id_, size in zip(self.ids, sizes, strict=True)
        ]

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class Network(nn.Module):
    """A network with the normalization of an FCN."""

    backbone = SimpleNamespace(mean=MEAN, std=STD)


class Net(Network):
    """A network with a receptive field of 3 x 3 pixels that remembers the shapes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.9))
        self.input_shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.input_shapes.append(tuple(images.shape))
        return self.conv(images)


class CachingNet(Network):
    """A network that caches its bias in eval mode and drops it in `train()`."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.cache: Tensor | None = None

    def train(self, mode: bool = True) -> CachingNet:
        super().train(mode)
        if mode:
            self.cache = None
        return self

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self.bias[None, :, None, None].expand(len(images), -1, *images.shape[2:])
        if self.cache is None:
            self.cache = self.bias.detach().clone()
        return self.cache[None, :, None, None].expand(len(images), -1, *images.shape[2:])


def evaluate(
    model: nn.Module,
    split: Split,
    batch_size: int = 4,
    on_prediction: OnPrediction | None = None,
    protocol: Protocol = Protocol(),  # noqa: B008 - frozen
) -> Counts:
    with patch("fcnlab.training.evaluate.CPU_BATCH_SIZE", batch_size):
        return evaluate_split(
            model,
            DecodedSplit(split),
            num_classes=4,
            autocast=nullcontext,
            on_prediction=on_prediction,
            protocol=protocol,
        ).areas


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_counts_equal_those_of_single_images(batch_size: int) -> None:
    split, model = Mixed(SIZES), Net().eval()
    expected = []
    for sample in split.samples:
        image = (sample.image / 255 - np.array(MEAN)) / np.array(STD)
        with torch.inference_mode():
            scores = model(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None])
        expected.append(count_areas(scores.argmax(1).to(torch.uint8), torch.tensor(sample.label)[None], 4)[0])
    counts = evaluate(model, split, batch_size)
    assert counts.dtype == np.int64 and counts.shape == (7, 4, 3)
    assert np.array_equal(counts, np.stack(expected))


@pytest.mark.parametrize(
    ("batch_size", "shapes"),
    [
        (4, [(4, *A), (3, *B)]),
        (2, [(2, *A), (2, *A), (2, *B), (1, *B)]),
        (1, [(1, *size) for size in SIZES]),
    ],
)
def test_images_of_one_shape_are_evaluated_together(batch_size: int, shapes: list[tuple[int, ...]]) -> None:
    model = Net()
    evaluate(model, Mixed(SIZES), batch_size)
    assert model.input_shapes == [(n, 3, height, width) for n, height, width in shapes]


@pytest.mark.parametrize(("limit", "value"), [("MAX_PENDING_IMAGES", 6), ("MAX_PENDING_BYTES", 6 * 4 * 6 * 4)])
def test_the_number_and_size_of_pending_images_are_limited(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    sizes = [(4, 4 + i % 5) for i in range(15)]
    expected = evaluate(Net(), Mixed(sizes), batch_size=4)
    monkeypatch.setattr(f"fcnlab.training.evaluate.{limit}", value)
    model = Net()
    assert np.array_equal(evaluate(model, Mixed(sizes), batch_size=4), expected)
    assert sum(n for n, *_ in model.input_shapes) == 15 and len(model.input_shapes) > 5


def test_counts_of_a_network_do_not_depend_on_the_batch_size() -> None:
    model = build_model("tiny-scratch+fcn32s+d2l-bilinear", 4, pretrained=False)
    with torch.no_grad():
        model.head.upsample.weight.add_(torch.randn_like(model.head.upsample.weight).mul_(0.1))
    split = Mixed([(70, 90), (64, 96)] * 4 + [(33, 64)])
    assert np.array_equal(evaluate(model, split, 1), evaluate(model, split, 3))


def test_every_labeled_pixel_is_counted_once() -> None:
    split = Mixed([(1, 1), (5, 13), (64, 3)])
    counts = evaluate(Net(), split)
    for found, sample in zip(counts, split.samples, strict=True):
        assert found[:, 2].tolist() == [int((sample.label == c).sum()) for c in range(4)]
        assert found[:, 1].sum() == (sample.label != 255).sum()


def test_on_prediction_receives_each_image_once() -> None:
    split, received = Mixed(SIZES), {}

    def receive(index: int, prediction: Tensor) -> None:
        assert index not in received
        received[index] = prediction

    counts = evaluate(Net(), split, batch_size=2, on_prediction=receive)
    assert sorted(received) == list(range(7))
    for index, prediction in received.items():
        assert prediction.dtype == torch.uint8 and tuple(prediction.shape) == SIZES[index]
        assert np.array_equal(
            counts[index], count_areas(prediction[None], torch.tensor(split[index].label)[None], 4)[0]
        )


class Exact(Network):
    """A network whose scores are exact on every device: it only copies and negates."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, -images[:, :1]], 1)


ARGUMENTS: dict[str, Any] = {"num_classes": 4, "autocast": nullcontext}


def test_boundaries_are_counted_in_the_order_of_the_split() -> None:
    split, predicted = Mixed([(24, 30), (9, 70), (24, 30), (1, 1)]), {}
    found = evaluate_split(
        Exact(),
        DecodedSplit(split),
        **ARGUMENTS,
        boundaries=True,
        on_prediction=lambda index, prediction: predicted.update({index: prediction}),
    )
    assert found.boundaries is not None and found.boundaries.dtype == np.int64
    for index, sample in enumerate(split.samples):
        expected = count_boundaries(predicted[index][None], torch.tensor(sample.label)[None], 4)[0]
        assert np.array_equal(found.boundaries[index], expected)
    only_areas = evaluate_split(Exact(), DecodedSplit(split), **ARGUMENTS)
    assert np.array_equal(found.areas, only_areas.areas)
    assert only_areas.boundaries is None


def test_on_prediction_receives_only_the_requested_images() -> None:
    received: list[int] = []
    evaluate_split(
        Exact(),
        DecodedSplit(Mixed(SIZES)),
        **ARGUMENTS,
        on_prediction=lambda index, _: received.append(index),
        prediction_indices=range(2, 5),
    )
    assert sorted(received) == [2, 3, 4]


def test_on_progress_is_called_after_every_image() -> None:
    calls: list[tuple[int, int]] = []
    split = DecodedSplit(Mixed(SIZES))
    evaluate_split(Exact(), split, **ARGUMENTS, on_progress=lambda done, images: calls.append((done, images)))
    assert calls == [(done, 7) for done in range(1, 8)]


class WithScore(Network):
    """A network one of whose scores is a parameter."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.tensor(score))

    def forward(self, images: Tensor) -> Tensor:
        scores = torch.zeros(len(images), 4, *images.shape[2:])
        scores[0, 1, -1, -1] = self.score
        return scores


@pytest.mark.parametrize("protocol", [Protocol(), Protocol(flip=True), Protocol(window=(5, 5), stride=(4, 4))])
def test_a_score_that_is_not_a_number_is_found(protocol: Protocol) -> None:
    split = DecodedSplit(Mixed(SIZES))
    for score, expected in ((float("nan"), True), (1e30, False), (-float("inf"), False)):
        found = evaluate_split(WithScore(score), split, **ARGUMENTS, protocol=protocol)
        assert found.contain_nan == expected


def test_a_coarse_score_that_is_not_a_number_is_found() -> None:
    model = build_model("tiny-scratch+fcn32s+d2l-bilinear", 4, pretrained=False)
    assert not evaluate_split(model, DecodedSplit(Mixed(SIZES)), **ARGUMENTS).contain_nan
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    assert evaluate_split(model, DecodedSplit(Mixed(SIZES)), **ARGUMENTS).contain_nan


def test_an_empty_split_has_no_counts() -> None:
    found = evaluate_split(Exact(), DecodedSplit(Mixed([])), **ARGUMENTS, boundaries=True)
    assert found.boundaries is not None
    assert found.areas.shape == found.boundaries.shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("size", "num_classes", "scale", "batch_size"),
    [
        ((320, 480), 21, 1.0, 16),  # the largest batch
        ((1024, 2048), 19, 1.0, 2),  # 2 megapixels for each image
        ((1024, 2048), 19, 2.0, 1),  # more than allowed, but at least one image
        ((512, 512), 150, 1.0, 9),  # 157 MB of scores for each image
    ],
)
def test_the_batch_size_on_cuda_is_limited_by_pixels_and_scores(
    size: tuple[int, int], num_classes: int, scale: float, batch_size: int
) -> None:
    label, protocol = torch.zeros(size, dtype=torch.uint8), Protocol(scales=(scale,))
    assert module._choose_batch_size(label, num_classes, protocol, torch.device("cuda")) == batch_size
    assert module._choose_batch_size(label, num_classes, protocol, torch.device("cpu")) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("resident", [False, True])
def test_counts_on_cuda_equal_those_on_the_cpu(resident: bool) -> None:
    split = DecodedSplit(Mixed([(24, 30)] * 20 + [(9, 70), (1, 1)]))
    on_device = move_to_device(split, torch.device("cuda")) if resident else split
    found = evaluate_split(Exact("cuda"), on_device, **ARGUMENTS, boundaries=True)
    expected = evaluate_split(Exact(), split, **ARGUMENTS, boundaries=True)
    assert np.array_equal(found.areas, expected.areas)
    assert np.array_equal(found.boundaries, expected.boundaries)


def test_a_model_in_training_mode_is_evaluated_in_eval_mode_and_not_changed() -> None:
    model = Net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = evaluate(model, Mixed(SIZES)), evaluate(model, Mixed(SIZES))
    assert np.array_equal(first, second)  # dropout would make them differ
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_image_that_fits_the_window_is_not_divided() -> None:
    split = Mixed(SIZES)
    windowed = evaluate(Net(), split, protocol=Protocol(window=(20, 20), stride=(10, 10)))
    assert np.array_equal(windowed, evaluate(Net(), split))


def test_labels_are_counted_at_native_size_under_any_protocol() -> None:
    split = Mixed([(5, 13), (64, 3), (7, 7)])
    protocol = Protocol(scales=(0.5, 1.75), flip=True, window=(4, 4), stride=(3, 3))
    for found, sample in zip(evaluate(Net(), split, protocol=protocol), split.samples, strict=True):
        assert found[:, 2].tolist() == [int((sample.label == c).sum()) for c in range(4)]


def test_weights_that_change_in_eval_mode_are_the_evaluated_ones() -> None:
    model, split = CachingNet(), Mixed([A])
    with torch.no_grad():
        first = evaluate(model, split).sum(0)
        model.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))  # as a moving average, without leaving eval mode
        second = evaluate(model, split).sum(0)
        model.load_state_dict({"bias": torch.tensor([0.0, 0.0, 0.0, 1.0])})  # as the best weights at the end
        third = evaluate(model, split).sum(0)
    assert [counts[:, 1].argmax() for counts in (first, second, third)] == [0, 2, 3]
    assert not model.training
