"""Tests of the prediction from coarse scores against the argmax of the upsampled ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.models import FCN, TransposedUpsampler
from fcnlab.models.heads import CoarseHead
from fcnlab.models.upsampler import Channels, Interpolation
from fcnlab.processor import get_processor_flags
from fcnlab.training import blocks
from fcnlab.training.fused_prediction import FusedPrediction, can_fuse_prediction
from tests.training.test_fused_loss import CHANNELS, Ending, endings

CPU = torch.device("cpu")


class Constant(nn.Module):
    """A backbone whose feature maps are given."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Tensor:
        return self.maps


class Last(Ending):
    """The end of a head, whose coarse scores are the feature maps."""

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        assert isinstance(features, Tensor)
        return features


def network(upsample: nn.Module, scores: Tensor, offset: int = 0) -> FCN:
    return FCN(Constant(scores), Last(upsample, offset)).eval()


def predict_fused(model: FCN, images: Tensor) -> Tensor:
    prediction = FusedPrediction(model)
    return prediction.classify(prediction.compute_scores(images), images.shape[-2:])


@given(endings(), st.integers(1, 3), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_predictions_equal_the_argmax_of_the_upsampled_scores(
    ending: tuple[Ending, tuple[int, int], tuple[int, int]], batch: int, seed: int
) -> None:
    head, coarse, size = ending
    scores = torch.randn(batch, 3, *coarse, generator=torch.Generator().manual_seed(seed))
    model = network(head.upsample, scores, head.offset)
    assert can_fuse_prediction(model, CPU)
    with torch.inference_mode():
        expected = model(torch.zeros(batch, 3, *size))
        found = predict_fused(model, torch.zeros(batch, 3, *size))
    assert found.shape == (batch, *size) and found.dtype == torch.uint8
    # Sums in another order differ by rounding, which matters only between classes with the same score.
    chosen = expected.gather(1, found.long().unsqueeze(1)).squeeze(1)
    assert torch.allclose(chosen, expected.amax(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("factor", [4, 8, 32])
def test_predictions_in_bf16_are_those_of_bf16_scores(channels: Channels, factor: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 21, 5, 7).bfloat16()
    model = network(TransposedUpsampler(21, factor, init="random", channels=channels), scores)
    images = torch.zeros(2, 3, 5 * factor - 3, 7 * factor - 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, found = model(images), predict_fused(model, images)
    with torch.inference_mode():
        exact = model.head.upsample(scores.float(), images.shape[-2:])
    usual, fused = ((exact.argmax(1) == labels).float().mean() for labels in (expected.argmax(1), found))
    assert usual > 0.97 and fused > usual - 0.002
    # Without native bfloat16, the sums of both are rounded in another order.
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported() and "bf16" in get_processor_flags()
    assert (expected.argmax(1) == found).float().mean() > (0.999 if native else 0.99)


@pytest.mark.parametrize("largest", [1, 500])
def test_the_tile_size_has_no_effect(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = network(TransposedUpsampler(5, 16, init="random"), torch.randn(2, 5, 4, 6))
    images = torch.zeros(2, 3, 60, 90)
    with torch.inference_mode():
        expected = predict_fused(model, images)
        monkeypatch.setitem(blocks.MAX_TILE_SCORES, "cpu", largest)
        assert torch.equal(predict_fused(model, images), expected)


class OwnForward(Last):
    """A head that changes the scores after they were upsampled."""

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        return -super().forward(features, size)


class OwnUpsampler(TransposedUpsampler):
    """An upsampler that changes its scores."""

    def forward(self, scores: Tensor, size: object = None) -> Tensor:
        return -super().forward(scores, size)


def test_networks_that_compute_their_scores_in_another_way_are_not_fused() -> None:
    scores, plain = torch.zeros(1, 3, 2, 2), TransposedUpsampler(3, 4)
    heads: list[CoarseHead] = [OwnForward(plain), Last(OwnUpsampler(3, 4)), Last(Interpolation(4, mode="bilinear"))]
    for head in heads:
        assert not can_fuse_prediction(FCN(Constant(scores), head), CPU)
    assert not can_fuse_prediction(nn.Identity(), CPU)
    assert not can_fuse_prediction(network(plain, scores), torch.device("meta"))
