"""Scoring: at each image's own size, the same whatever goes through together."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcnlab.api import build_model
from fcnlab.data.datasets.base import Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import ConfigError
from fcnlab.metrics.boundary import count_image_boundaries
from fcnlab.metrics.confusion import Counts, count_image
from fcnlab.training import evaluate as module
from fcnlab.training.evaluate import Predictions, evaluate, evaluate_split
from fcnlab.training.inference import compute_scores, predict_classes
from fcnlab.training.protocol import Protocol

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


def score(
    model: nn.Module,
    split: Split,
    batch: int = 4,
    told: Predictions | None = None,
    protocol: Protocol = Protocol(),  # noqa: B008 - frozen
) -> Counts:
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
        protocol=protocol,
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_counts_are_those_of_one_image_at_a_time(batch: int) -> None:
    split, model = Mixed(SIZES), Net().eval()
    expected = []
    for sample in split.samples:
        image = (sample.image / 255 - np.array(MEAN)) / np.array(STD)
        with torch.inference_mode():
            scores = model(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None])
        expected.append(count_image(scores[0].argmax(0).to(torch.uint8), torch.tensor(sample.label), 4))
    counts = score(model, split, batch)
    assert counts.dtype == np.int64 and counts.shape == (7, 4, 3)
    assert np.array_equal(counts, np.stack(expected))


@pytest.mark.parametrize(
    ("batch", "shown"),
    [
        (4, [(4, *A), (3, *B)]),
        (2, [(2, *A), (2, *A), (2, *B), (1, *B)]),
        (1, [(1, *size) for size in SIZES]),
    ],
)
def test_images_of_exactly_one_shape_go_through_together_wherever_they_stand(
    batch: int, shown: list[tuple[int, ...]]
) -> None:
    model = Net()
    score(model, Mixed(SIZES), batch)
    assert model.shown == [(n, 3, height, width) for n, height, width in shown]


def test_where_shapes_are_many_samples_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(4, 4 + i % 5) for i in range(15)]
    expected = score(Net(), Mixed(sizes), batch=4)
    monkeypatch.setattr("fcnlab.training.evaluate.WAITING", 6)
    model = Net()
    assert np.array_equal(score(model, Mixed(sizes), batch=4), expected)
    assert sum(n for n, *_ in model.shown) == 15 and len(model.shown) > 5


def test_a_network_counts_alike_one_image_at_a_time_and_in_batches() -> None:
    model = build_model("tiny-scratch+fcn32s+d2l-bilinear", 4, pretrained=False)
    with torch.no_grad():
        model.head.upsample.weight.add_(torch.randn_like(model.head.upsample.weight).mul_(0.1))
    split = Mixed([(70, 90), (64, 96)] * 4 + [(33, 64)])
    assert np.array_equal(score(model, split, 1), score(model, split, 3))


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
        assert np.array_equal(counts[index], count_image(prediction, torch.tensor(split[index].label), 4))


class Exact(nn.Module):
    """Scores that are exact on every device, because they only copy and negate."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, -images[:, :1]], 1)


def arguments(device: str = "cpu") -> dict[str, Any]:
    return {"classes": 4, "mean": MEAN, "std": STD, "device": torch.device(device), "autocast": nullcontext}


def test_boundaries_are_counted_in_the_same_pass_and_in_the_order_of_the_split() -> None:
    split, told = Mixed([(24, 30), (9, 70), (24, 30), (1, 1)]), {}
    found = evaluate_split(
        Exact(),
        DecodedSplit(split),
        **arguments(),
        boundaries=True,
        on_prediction=lambda index, prediction: told.update({index: prediction.numpy()}),
    )
    assert found.boundaries is not None and found.boundaries.dtype == np.int64
    for index, sample in enumerate(split.samples):
        assert np.array_equal(found.boundaries[index], count_image_boundaries(told[index], sample.label, 4))
    assert np.array_equal(found.areas, evaluate(Exact(), DecodedSplit(split), **arguments()))
    assert evaluate_split(Exact(), DecodedSplit(split), **arguments()).boundaries is None


def test_only_the_predictions_that_are_wanted_are_handed_out() -> None:
    told: list[int] = []
    evaluate_split(
        Exact(),
        DecodedSplit(Mixed(SIZES)),
        **arguments(),
        on_prediction=lambda index, _: told.append(index),
        predictions_of=range(2, 5),
    )
    assert sorted(told) == [2, 3, 4]


def test_progress_is_told_after_every_image() -> None:
    told: list[tuple[int, int]] = []
    split = DecodedSplit(Mixed(SIZES))
    evaluate_split(Exact(), split, **arguments(), progress=lambda done, images: told.append((done, images)))
    assert told == [(done, 7) for done in range(1, 8)]


def test_an_empty_split_has_no_counts() -> None:
    found = evaluate_split(Exact(), DecodedSplit(Mixed([])), **arguments(), boundaries=True)
    assert found.boundaries is not None
    assert found.areas.shape == found.boundaries.shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("size", "classes", "scale", "batch"),
    [
        ((320, 480), 21, 1.0, 16),  # as many as there may be
        ((1024, 2048), 19, 1.0, 2),  # 2 megapixels each
        ((1024, 2048), 19, 2.0, 1),  # more than fit, but one at least
        ((512, 512), 150, 1.0, 9),  # 157 MB of scores each
    ],
)
def test_on_cuda_a_batch_is_as_large_as_its_pixels_and_scores_allow(
    size: tuple[int, int], classes: int, scale: float, batch: int
) -> None:
    label, protocol = torch.zeros(size, dtype=torch.uint8), Protocol(scales=(scale,))
    assert module._batch_size(label, classes, protocol, torch.device("cuda")) == batch
    assert module._batch_size(label, classes, protocol, torch.device("cpu")) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("resident", [False, True])
def test_counts_on_cuda_are_those_on_the_cpu(resident: bool) -> None:
    split = DecodedSplit(Mixed([(24, 30)] * 20 + [(9, 70), (1, 1)]))
    there = split.to(torch.device("cuda")) if resident else split
    found = evaluate_split(Exact(), there, **arguments("cuda"), boundaries=True)
    wanted = evaluate_split(Exact(), split, **arguments(), boundaries=True)
    assert np.array_equal(found.areas, wanted.areas)
    assert np.array_equal(found.boundaries, wanted.boundaries)  # type: ignore[arg-type]


def test_a_model_in_training_mode_is_scored_in_eval_mode_and_not_changed() -> None:
    model = Net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = score(model, Mixed(SIZES)), score(model, Mixed(SIZES))
    assert np.array_equal(first, second)  # dropout would make them differ
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("classes", [1, 2, 21, 255])
def test_predictions_are_the_argmax_the_first_where_scores_are_equal(
    dtype: torch.dtype, layout: torch.memory_format, classes: int
) -> None:
    scores = torch.randint(-4, 4, (2, classes, 9, 11)).to(dtype).contiguous(memory_format=layout)
    for some in (scores, scores[..., 2:7, 1:9]):
        found = predict_classes(some)
        assert found.dtype == torch.uint8 and np.array_equal(found, some.float().argmax(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_predictions_from_scores_that_are_no_numbers_are_the_argmax_too(value: float) -> None:
    scores = torch.randn(2, 5, 4, 4)
    scores[0, 2, 1, 1] = value
    scores[1, :, 3, 3] = value
    assert np.array_equal(predict_classes(scores), scores.argmax(1))


# --- protocols -------------------------------------------------------------------------------------------------------


def row_sums(images: Tensor) -> Tensor:
    """Scores that say which row and column of what it was shown a pixel has, and what is in the pixel."""
    height, width = images.shape[-2:]
    place = torch.arange(height)[:, None] * 100.0 + torch.arange(width)
    return torch.stack([images.sum(1), place.expand(len(images), height, width)], 1)


@pytest.mark.parametrize("stride", [(2, 3), (4, 5), (1, 1), (3, 4)])
@pytest.mark.parametrize("size", [(4, 5), (9, 13), (4, 11), (3, 20), (10, 5)])
def test_windows_cover_the_image_and_are_averaged_where_they_overlap(
    size: tuple[int, int], stride: tuple[int, int]
) -> None:
    height, width, window = *size, (4, 5)
    images = torch.randn(2, 3, *size)
    total, times = torch.zeros(2, 2, *size), torch.zeros(size)
    # mmsegmentation's slide_inference, as it stands there
    h_grids = max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1
    w_grids = max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1
    for h in range(h_grids):
        for w in range(w_grids):
            y2, x2 = min(h * stride[0] + window[0], height), min(w * stride[1] + window[1], width)
            y1, x1 = max(y2 - window[0], 0), max(x2 - window[1], 0)
            total[:, :, y1:y2, x1:x2] += row_sums(images[:, :, y1:y2, x1:x2])
            times[y1:y2, x1:x2] += 1
    assert times.min() >= 1
    found = compute_scores(Protocol(window=window, stride=stride), row_sums, images)
    torch.testing.assert_close(found, total / times)


def test_an_image_that_fits_the_window_goes_whole() -> None:
    split = Mixed(SIZES)
    windowed = score(Net(), split, protocol=Protocol(window=(20, 20), stride=(10, 10)))
    assert np.array_equal(windowed, score(Net(), split))


def test_augmented_scores_are_the_mean_of_the_views_probabilities_at_native_size() -> None:
    model, images = Net().eval(), torch.randn(2, 3, 12, 17)
    with torch.inference_mode():
        views = []
        for scale in (0.5, 1.0):
            size = (round(12 * scale), round(17 * scale))
            view = nn.functional.interpolate(images, size, mode="bilinear", antialias=True) if scale != 1 else images
            for flip in (False, True):
                scores = model(view.flip(3)).flip(3) if flip else model(view)
                views.append(nn.functional.interpolate(scores, (12, 17), mode="bilinear").softmax(1))
        found = compute_scores(Protocol(scales=(0.5, 1.0), flip=True), model, images)
    torch.testing.assert_close(found, torch.stack(views).mean(0), rtol=1e-4, atol=1e-5)
    assert [tuple(size) for size in model.shown[-4:]] == [(2, 3, 6, 8)] * 2 + [(2, 3, 12, 17)] * 2


def test_flipping_gives_an_image_and_its_mirror_the_same_prediction_mirrored() -> None:
    model, images = Net().eval(), torch.randn(1, 3, 8, 10)
    with torch.inference_mode():
        one, other = (compute_scores(Protocol(flip=True), model, some) for some in (images, images.flip(3)))
    torch.testing.assert_close(one, other.flip(3))
    assert not torch.allclose(model(images), model(images.flip(3)).flip(3))


def test_labels_are_counted_at_native_size_under_any_protocol() -> None:
    split = Mixed([(5, 13), (64, 3), (7, 7)])
    protocol = Protocol(scales=(0.5, 1.75), flip=True, window=(4, 4), stride=(3, 3))
    for found, sample in zip(score(Net(), split, protocol=protocol), split.samples, strict=True):
        assert found[:, 2].tolist() == [int((sample.label == c).sum()) for c in range(4)]


def test_a_protocol_has_a_short_name_and_a_slug_for_files() -> None:
    assert str(Protocol()) == Protocol().slug == "plain"
    full = Protocol((0.75, 1, 1.25), flip=True, window=(512, 256), stride=(341, 170))
    assert str(full) == "flip+0.75,1,1.25+window512x256/341x170"
    assert full.slug == "flip+0.75_1_1.25+window512x256-341x170"
    assert Protocol(flip=True).is_augmented and not Protocol(window=(4, 4), stride=(2, 2)).is_augmented


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scales": ()}, "--scales"),
        ({"scales": (1.0, 1.0)}, "--scales"),
        ({"scales": (0.0, 1.0)}, "--scales"),
        ({"scales": (float("nan"),)}, "--scales"),
        ({"window": (4, 4)}, "--stride"),
        ({"stride": (4, 4)}, "--window"),
        ({"window": (4, 0), "stride": (1, 1)}, "1 pixel"),
        ({"window": (4, 4), "stride": (2, 5)}, "gaps"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Protocol(**fields)
    assert "\n" not in str(caught.value)
