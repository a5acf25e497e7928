"""Scoring: at each image's own size, the same whatever goes through together."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcnlab.data.base import Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.metrics import Counts, image_counts
from fcnlab.training.evaluate import Predictions, evaluate

torch.set_num_threads(1)

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


class Net(nn.Module):
    """A network that looks at its neighbourhood; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.9))
        self.shown: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(tuple(images.shape))
        return self.conv(images)


def score(model: nn.Module, split: Split, batch: int = 4, told: Predictions | None = None) -> Counts:
    return evaluate(
        model,
        DecodedSplit(split),
        classes=4,
        mean=MEAN,
        std=STD,
        device=torch.device("cpu"),
        autocast=nullcontext,
        batch=batch,
        on_prediction=told,
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_counts_are_those_of_one_image_at_a_time(batch: int) -> None:
    split, model = Mixed(SIZES), Net().eval()
    expected = []
    for sample in split.samples:
        image = (sample.image / 255 - np.array(MEAN)) / np.array(STD)
        with torch.inference_mode():
            scores = model(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None])
        expected.append(image_counts(scores[0].argmax(0).to(torch.uint8), torch.tensor(sample.label), 4))
    counts = score(model, split, batch)
    assert counts.dtype == np.int64 and counts.shape == (7, 4, 3)
    assert np.array_equal(counts, np.stack(expected))


@pytest.mark.parametrize(
    ("batch", "shown"),
    [
        (4, [(3, *A), (1, *B), (1, *A), (2, *B)]),
        (2, [(2, *A), (1, *A), (1, *B), (1, *A), (2, *B)]),
        (1, [(1, *size) for size in SIZES]),
    ],
)
def test_only_neighbours_of_one_shape_go_through_together(batch: int, shown: list[tuple[int, ...]]) -> None:
    model = Net()
    score(model, Mixed(SIZES), batch)
    assert model.shown == [(n, 3, height, width) for n, height, width in shown]


def test_every_labelled_pixel_is_counted_once_since_labels_are_never_resized() -> None:
    split = Mixed([(1, 1), (5, 13), (64, 3)])
    counts = score(Net(), split)
    for found, sample in zip(counts, split.samples, strict=True):
        assert found[:, 2].tolist() == [int((sample.label == c).sum()) for c in range(4)]
        assert found[:, 1].sum() == (sample.label != 255).sum()


def test_each_image_is_told_once_with_its_own_prediction() -> None:
    split, told = Mixed(SIZES), {}

    def tell(index: int, prediction: Tensor) -> None:
        assert index not in told
        told[index] = prediction

    counts = score(Net(), split, batch=2, told=tell)
    assert sorted(told) == list(range(7))
    for index, prediction in told.items():
        assert prediction.dtype == torch.uint8 and tuple(prediction.shape) == SIZES[index]
        assert np.array_equal(counts[index], image_counts(prediction, torch.tensor(split[index].label), 4))


def test_a_model_in_training_mode_is_scored_in_eval_mode_and_not_changed() -> None:
    model = Net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = score(model, Mixed(SIZES)), score(model, Mixed(SIZES))
    assert np.array_equal(first, second)  # dropout would make them differ
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
