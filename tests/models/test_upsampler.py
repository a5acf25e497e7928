"""Upsampling, by transposed convolution and by interpolation: initialization, trainable weights and sizes."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.config.upsampler import Init
from fcnlab.models import Interpolation, TransposedUpsampler, bilinear_kernel
from fcnlab.models.upsampler import crop

Channels = Literal["dense", "per_class"]
CHANNELS: tuple[Channels, ...] = ("dense", "per_class")
STARTS: tuple[Init, ...] = get_args(Init)
RANDOM_INITS: tuple[Init, ...] = ("random", "xavier", "kaiming", "normal")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def started(seed: int, num_classes: int, factor: int, **options: object) -> TransposedUpsampler:
    torch.manual_seed(seed)
    return TransposedUpsampler(num_classes, factor, **options)


@pytest.mark.parametrize("size", range(1, 66))
def test_the_bilinear_kernel_is_triangular_in_both_directions(size: int) -> None:
    reach, middle = -(-size // 2), (size - 1) / 2
    ramp = [1 - abs(x - middle) / reach for x in range(size)]
    assert torch.allclose(bilinear_kernel(size), torch.tensor([[a * b for a in ramp] for b in ramp]), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 15, 16, 31, 32, 63, 64])
def test_the_bilinear_kernel_equals_its_formula(size: int) -> None:
    factor = math.ceil(size / 2)
    center = factor - 1 if size % 2 else factor - 0.5
    kernel = bilinear_kernel(size)
    assert kernel.shape == (size, size) and kernel.dtype == torch.float32
    for y in range(size):
        for x in range(size):
            wanted = (1 - abs(y - center) / factor) * (1 - abs(x - center) / factor)
            assert kernel[y, x].item() == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_the_kernel_of_an_even_factor_equals_that_of_caffe(factor: int) -> None:
    # Caffe's own formula is off center at odd factors; even ones are all that there are here.
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
@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_bilinear_init_equals_bilinear_interpolation_except_at_the_border(factor: int, channels: Channels) -> None:
    scores = noise(2, 3, 4, 5)
    ours = TransposedUpsampler(3, factor, channels=channels)(scores)
    reference = F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    assert ours.shape == reference.shape == (2, 3, 4 * factor, 5 * factor)
    edge = factor // 2
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    assert torch.allclose(ours[inside], reference[inside], rtol=0, atol=2e-6)
    # At the border zeros are padded, which makes the two differ: the comparison is not of one thing with itself.
    assert not torch.allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_random_init_equals_that_of_torch(channels: Channels, bias: bool) -> None:
    torch.manual_seed(3)
    ours = TransposedUpsampler(4, 8, init="random", channels=channels, bias=bias)
    torch.manual_seed(3)
    groups = 4 if channels == "per_class" else 1
    reference = nn.ConvTranspose2d(4, 4, 16, stride=8, padding=4, groups=groups, bias=bias)
    assert torch.equal(ours.weight, reference.weight)
    if bias:
        assert torch.equal(ours.bias, reference.bias)
    scores = torch.randn(1, 4, 3, 3)
    assert torch.equal(ours(scores), reference(scores))


def test_bilinear_init_does_not_depend_on_the_seed() -> None:
    starts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        starts.append(TransposedUpsampler(3, 4).weight)
    assert torch.equal(*starts)


@pytest.mark.parametrize("channels", CHANNELS)
def test_bilinear_init_does_not_mix_classes(channels: Channels) -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1] = 1
    up = TransposedUpsampler(3, 4, channels=channels)(scores)
    assert up[:, [0, 2]].abs().max() == 0
    assert up[:, 1].min() > 0


def test_only_dense_channels_mix_classes_after_random_init() -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1] = 1
    assert TransposedUpsampler(3, 4, init="random", channels="per_class")(scores)[:, [0, 2]].abs().max() == 0
    assert TransposedUpsampler(3, 4, init="random", channels="dense")(scores)[:, [0, 2]].abs().max() > 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_fixed_upsampler_has_no_trainable_parameters(channels: Channels, bias: bool) -> None:
    fixed = TransposedUpsampler(3, 2, channels=channels, learned=False, bias=bias)
    learned = TransposedUpsampler(3, 2, channels=channels, learned=True, bias=bias)
    assert [p for p in fixed.parameters() if p.requires_grad] == []
    assert len([p for p in learned.parameters() if p.requires_grad]) == 1 + bias


@pytest.mark.parametrize(("num_classes", "factor"), [(2, 2), (21, 2), (21, 32), (11, 8)])
def test_number_of_kernels_of_dense_and_per_class_channels(num_classes: int, factor: int) -> None:
    def held(**options: Any) -> int:
        return sum(p.numel() for p in TransposedUpsampler(num_classes, factor, **options).parameters())

    assert held(channels="dense") == 4 * factor**2 * num_classes**2
    assert held(channels="per_class") == 4 * factor**2 * num_classes
    assert held(channels="dense", bias=True) == 4 * factor**2 * num_classes**2 + num_classes


@pytest.mark.parametrize("factor", [-2, 0, 1, 3, 33])
def test_a_factor_that_is_not_even_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"must be even, not {factor}"):
        TransposedUpsampler(2, factor)


# The other starts.


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("factor", [2, 8])
def test_xavier_init_is_uniform_within_its_bound(factor: int, channels: Channels) -> None:
    weight = started(0, 24, factor, init="xavier", channels=channels).weight.detach()
    field = 4 * factor**2
    fan_in, fan_out = (24 if channels == "dense" else 1) * field, 24 * field
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.95 * bound
    assert abs(weight.mean()) < 0.1 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("factor", [2, 8])
def test_kaiming_init_is_normal_with_its_deviation(factor: int, channels: Channels) -> None:
    weight = started(0, 24, factor, init="kaiming", channels=channels).weight.detach()
    deviation = math.sqrt(2 / ((24 if channels == "dense" else 1) * 4 * factor**2))
    assert weight.std().item() == pytest.approx(deviation, rel=0.1)
    assert abs(weight.mean()) < 0.15 * deviation
    assert weight.abs().max() > 2.5 * deviation  # which no uniform distribution of that deviation reaches


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("factor", [2, 8])
def test_normal_init_has_a_deviation_of_0_01(factor: int, channels: Channels) -> None:
    weight = started(0, 24, factor, init="normal", channels=channels).weight.detach()
    assert weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert abs(weight.mean()) < 0.0015
    assert weight.abs().max() > 0.025


@pytest.mark.parametrize("channels", CHANNELS)
def test_zero_init_gives_zero_scores_and_is_trainable(channels: Channels) -> None:
    up = TransposedUpsampler(3, 4, init="zero", channels=channels)
    scores = up(noise(1, 3, 4, 4))
    assert scores.abs().max() == 0
    F.cross_entropy(scores, torch.ones(1, 16, 16, dtype=torch.long)).backward()
    assert up.weight.grad is not None and up.weight.grad.abs().max() > 0


@pytest.mark.parametrize("init", RANDOM_INITS)
def test_random_init_depends_on_the_seed(init: Init) -> None:
    first, again, other = (started(seed, 3, 4, init=init).weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("init", STARTS)
def test_the_bias_is_initialized_like_that_of_torch_for_every_init(init: Init) -> None:
    torch.manual_seed(5)
    reference = nn.ConvTranspose2d(4, 4, 8, stride=4, padding=2)
    assert torch.equal(started(5, 4, 4, init=init, bias=True).bias, reference.bias)


@pytest.mark.parametrize("init", RANDOM_INITS)
def test_diagonal_channels_are_initialized_like_dense_ones_without_mixing_classes(init: Init) -> None:
    dense = started(2, 4, 4, init=init).weight
    diagonal = started(2, 4, 4, init=init, channels="diagonal")
    own = torch.eye(4, dtype=torch.bool)
    assert torch.equal(diagonal.weight[own], dense[own]) and dense[own].abs().max() > 0
    assert diagonal.weight[~own].abs().max() == 0
    assert diagonal.weight.shape == dense.shape


@pytest.mark.parametrize("init", RANDOM_INITS)
def test_diagonal_channels_learn_to_mix_classes(init: Init) -> None:
    up = started(2, 4, 4, init=init, channels="diagonal")
    F.cross_entropy(up(noise(2, 4, 3, 3)), torch.zeros(2, 12, 12, dtype=torch.long)).backward()
    torch.optim.SGD(up.parameters(), lr=1.0).step()
    off = ~torch.eye(4, dtype=torch.bool)
    assert (up.weight[off].abs().amax((1, 2)) > 0).all()


# Sizes.


@pytest.mark.parametrize(("channels", "bias"), [("dense", False), ("diagonal", True), ("per_class", False)])
@given(height=st.integers(1, 5), width=st.integers(1, 5), factor=st.sampled_from([2, 4, 8]), data=st.data())
@settings(max_examples=20, deadline=None)
def test_scores_are_cropped_at_the_right_and_bottom(
    channels: str, bias: bool, height: int, width: int, factor: int, data: st.DataObject
) -> None:
    up = started(1, 2, factor, init="random", channels=channels, bias=bias)
    size = (data.draw(st.integers(1, factor * height)), data.draw(st.integers(1, factor * width)))
    whole = up(noise(1, 2, height, width))
    assert whole.shape == (1, 2, factor * height, factor * width)
    part = up(noise(1, 2, height, width), size)
    assert part.shape == (1, 2, *size)
    assert torch.equal(part, whole[:, :, : size[0], : size[1]])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_a_crop_starts_at_its_offset(height: int, width: int, offset: int, more: int) -> None:
    scores = noise(1, 2, height + offset + more, width + offset + more)
    cut = crop(scores, (height, width), offset)
    assert cut.shape == (1, 2, height, width)
    for y in range(height):
        for x in range(width):
            assert torch.equal(cut[..., y, x], scores[..., y + offset, x + offset])


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_without_padding_scores_shift_by_half_a_stride(factor: int) -> None:
    # The paper's nets pad nowhere and crop: the same kernel, the same values.
    scores = noise(1, 3, 4, 5)
    usual, paper = TransposedUpsampler(3, factor), TransposedUpsampler(3, factor, kernel=2 * factor, padding=0)
    assert paper(scores).shape == (1, 3, 5 * factor, 6 * factor)
    cut = crop(paper(scores), (4 * factor, 5 * factor), factor // 2)
    assert torch.allclose(cut, usual(scores), atol=1e-6)


def test_bilinear_init_of_a_custom_kernel_size() -> None:
    up = TransposedUpsampler(2, 4, kernel=6, padding=0)
    assert torch.equal(up.weight[1, 1], bilinear_kernel(6))


# Interpolation.


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_interpolation_by_a_factor_equals_that_of_torch(factor: int) -> None:
    scores = noise(2, 3, 4, 5)
    bilinear, nearest = (Interpolation(factor, mode=mode)(scores) for mode in ("bilinear", "nearest"))
    assert torch.equal(bilinear, F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False))
    assert torch.equal(nearest, F.interpolate(scores, scale_factor=factor, mode="nearest"))
    assert torch.equal(nearest, scores.repeat_interleave(factor, 2).repeat_interleave(factor, 3))


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    factor=st.sampled_from([2, 3, 4, 8]),
    mode=st.sampled_from(["bilinear", "nearest"]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_interpolation_samples_at_pixel_centers(
    shape: tuple[int, int], factor: int, mode: Literal["bilinear", "nearest"], data: st.DataObject
) -> None:
    # To a smaller size it goes by the factor all the same: the grids stay aligned at the corner.
    height, width = data.draw(st.integers(1, factor * shape[0])), data.draw(st.integers(1, factor * shape[1]))
    scores = noise(1, 1, *shape)
    up = Interpolation(factor, mode=mode)(scores, (height, width))
    assert up.shape == (1, 1, height, width)
    for y in range(height):
        for x in range(width):
            if mode == "nearest":
                wanted = scores[0, 0, y // factor, x // factor].item()
            else:
                wanted = _read(scores[0, 0], (y + 0.5) / factor - 0.5, (x + 0.5) / factor - 0.5)
            assert up[0, 0, y, x].item() == pytest.approx(wanted, abs=1e-5)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 33), st.integers(1, 33)),
    mode=st.sampled_from(["bilinear", "nearest"]),
)
@settings(max_examples=40, deadline=None)
def test_interpolation_to_a_size_equals_that_of_torch(
    shape: tuple[int, int], size: tuple[int, int], mode: Literal["bilinear", "nearest"]
) -> None:
    scores = noise(2, 3, *shape)
    up = Interpolation(8, mode=mode, to_size=True)(scores, size)
    aligned = {"align_corners": False} if mode == "bilinear" else {}
    assert torch.equal(up, F.interpolate(scores, size=size, mode=mode, **aligned))
    if mode == "bilinear":
        y, x = size[0] // 2, size[1] // 3
        wanted = _read(scores[1, 2], (y + 0.5) * shape[0] / size[0] - 0.5, (x + 0.5) * shape[1] / size[1] - 0.5)
        assert up[1, 2, y, x].item() == pytest.approx(wanted, abs=1e-5)


def test_interpolation_to_a_size_equals_that_by_the_factor_only_for_multiples() -> None:
    scores = noise(1, 2, 3, 4)
    by_factor, to_size = Interpolation(8, mode="bilinear"), Interpolation(8, mode="bilinear", to_size=True)
    assert torch.allclose(by_factor(scores, (24, 32)), to_size(scores, (24, 32)), atol=1e-6)
    assert torch.equal(by_factor(scores), to_size(scores))
    assert not torch.allclose(by_factor(scores, (21, 29)), to_size(scores, (21, 29)), atol=1e-2)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_interpolation_has_no_parameters(mode: Literal["bilinear", "nearest"]) -> None:
    assert Interpolation(8, mode=mode).state_dict() == {}


def _read(map_: Tensor, y: float, x: float) -> float:
    """Return the bilinear value of a map between its pixels, with the border pixels repeated."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            i, j = (min(max(k, 0), n - 1) for k, n in ((row, map_.shape[0]), (column, map_.shape[1])))
            total += weight * map_[i, j].item()
    return total
