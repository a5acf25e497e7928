"""Upsampling by transposed convolution: how it starts, what learns, how much it holds."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcnlab.models import TransposedUpsampler, bilinear_kernel

torch.set_num_threads(1)

Channels = Literal["dense", "per_class"]
CHANNELS: tuple[Channels, ...] = ("dense", "per_class")


@pytest.mark.parametrize("size", range(1, 66))
def test_the_bilinear_kernel_is_a_triangle_in_both_directions(size: int) -> None:
    reach, middle = -(-size // 2), (size - 1) / 2
    ramp = [1 - abs(x - middle) / reach for x in range(size)]
    assert torch.allclose(bilinear_kernel(size), torch.tensor([[a * b for a in ramp] for b in ramp]), atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_the_kernel_of_an_even_factor_is_caffes(factor: int) -> None:
    # Caffe's own formula is off centre at odd factors; even ones are all that there are here.
    f, size = factor, 2 * factor
    c = (2 * f - 1 - f % 2) / (2 * f)
    caffe = [[(1 - abs(x / f - c)) * (1 - abs(y / f - c)) for x in range(size)] for y in range(size)]
    assert torch.allclose(bilinear_kernel(size), torch.tensor(caffe), atol=1e-6)


@pytest.mark.parametrize("factor", range(1, 33))
def test_the_kernel_of_an_even_size_keeps_the_mean(factor: int) -> None:
    kernel = bilinear_kernel(2 * factor)
    assert kernel.sum().item() == pytest.approx(factor**2, rel=1e-6)
    # Each output pixel is reached by 2x2 inputs whose weights are those of an average.
    for y in range(factor):
        for x in range(factor):
            assert kernel[y::factor, x::factor].sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_a_bilinear_start_is_bilinear_interpolation_away_from_the_border(factor: int, channels: Channels) -> None:
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    ours = TransposedUpsampler(3, factor, channels=channels)(scores)
    reference = F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    assert ours.shape == reference.shape == (2, 3, 4 * factor, 5 * factor)
    edge = factor // 2
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    assert torch.allclose(ours[inside], reference[inside], atol=1e-5)
    # At the border zeros are padded, which makes the two differ: the comparison is not of one thing with itself.
    assert not torch.allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_random_start_is_torchs_own(channels: Channels, bias: bool) -> None:
    torch.manual_seed(3)
    ours = TransposedUpsampler(4, 8, start="random", channels=channels, bias=bias)
    torch.manual_seed(3)
    groups = 4 if channels == "per_class" else 1
    reference = nn.ConvTranspose2d(4, 4, 16, stride=8, padding=4, groups=groups, bias=bias)
    assert torch.equal(ours.weight, reference.weight)
    if bias:
        assert torch.equal(ours.bias, reference.bias)  # type: ignore[arg-type]
    scores = torch.randn(1, 4, 3, 3)
    assert torch.equal(ours(scores), reference(scores))


def test_a_bilinear_start_does_not_depend_on_the_seed() -> None:
    starts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        starts.append(TransposedUpsampler(3, 4).weight)
    assert torch.equal(*starts)


@pytest.mark.parametrize("channels", CHANNELS)
def test_at_a_bilinear_start_a_class_reads_itself_alone(channels: Channels) -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1] = 1
    up = TransposedUpsampler(3, 4, channels=channels)(scores)
    assert up[:, [0, 2]].abs().max() == 0
    assert up[:, 1].min() > 0


def test_per_class_channels_stay_apart_from_a_random_start_and_dense_ones_do_not() -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1] = 1
    assert TransposedUpsampler(3, 4, start="random", channels="per_class")(scores)[:, [0, 2]].abs().max() == 0
    assert TransposedUpsampler(3, 4, start="random", channels="dense")(scores)[:, [0, 2]].abs().max() > 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_fixed_upsampler_has_nothing_to_learn_and_a_learned_one_all(channels: Channels, bias: bool) -> None:
    fixed = TransposedUpsampler(3, 2, channels=channels, learned=False, bias=bias)
    learned = TransposedUpsampler(3, 2, channels=channels, learned=True, bias=bias)
    assert [p for p in fixed.parameters() if p.requires_grad] == []
    assert len([p for p in learned.parameters() if p.requires_grad]) == 1 + bias


@pytest.mark.parametrize(("classes", "factor"), [(2, 2), (21, 2), (21, 32), (11, 8)])
def test_dense_holds_a_kernel_for_each_pair_of_classes_and_per_class_one_for_each(classes: int, factor: int) -> None:
    def held(**options: object) -> int:
        return sum(p.numel() for p in TransposedUpsampler(classes, factor, **options).parameters())  # type: ignore[arg-type]

    assert held(channels="dense") == 4 * factor**2 * classes**2
    assert held(channels="per_class") == 4 * factor**2 * classes
    assert held(channels="dense", bias=True) == 4 * factor**2 * classes**2 + classes


@pytest.mark.parametrize("factor", [-2, 0, 1, 3, 33])
def test_a_factor_that_is_not_even_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"must be even, not {factor}"):
        TransposedUpsampler(2, factor)
