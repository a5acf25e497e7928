"""Tests of the fused loss against upsampling and loss."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.config.loss import Reduction
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.models import FCN, HEADS, Interpolation, TransposedUpsampler
from fcnlab.models.backbones.base import Backbone
from fcnlab.models.heads import CoarseHead, DilatedHead
from fcnlab.models.upsampler import crop
from fcnlab.training import blocks
from fcnlab.training.fit import Execution, Training, fit
from fcnlab.training.fused_loss import FusedUpsampleLoss, can_fuse
from fcnlab.training.loss_term import LossTerm
from fcnlab.training.losses import Loss
from fcnlab.trial.build import build_model

Channels = Literal["dense", "diagonal", "per_class"]
CPU = torch.device("cpu")
CHANNELS: list[Channels] = ["dense", "diagonal", "per_class"]


class Ending(CoarseHead):
    """The end of a head: an upsampling and the offset of a crop."""

    def __init__(self, upsample: nn.Module, offset: int = 0) -> None:
        super().__init__()
        self.upsample, self.offset = upsample, offset


def gradients_of(value: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, of))


def create_labels(shape: tuple[int, ...], num_classes: int, seed: int, ignored: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < ignored] = 255
    return labels.to(torch.uint8)


def close(found: Tensor, expected: Tensor, bound: float) -> bool:
    """Return True if the relative distance of two tensors is at most `bound`."""
    return float((found - expected).norm()) <= bound * float(expected.norm()) + 1e-7


def exact_gradients(loss: Loss, head: Ending, scores: Tensor, labels: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Return the gradients of scores and parameters without fusion, computed in float64."""
    upsample, scores = copy.deepcopy(head.upsample).double(), scores.detach().double().requires_grad_()
    weights = None if loss.class_weights is None else loss.class_weights.double()
    upsampled = crop(upsample(scores), size, head.offset)
    value = replace(loss, class_weights=weights)._sum_terms(upsampled, labels)  # the call converts to float32
    return gradients_of(value, scores, *upsample.parameters())


@st.composite
def endings(draw: st.DrawFn) -> tuple[Ending, tuple[int, int], tuple[int, int]]:
    """Draw the end of a head for 3 classes, a size of coarse scores and a size of an image."""
    s = draw(st.sampled_from([2, 4, 6, 8, 16, 32]))
    if draw(st.booleans()):
        geometry, most = {}, s * 2  # the default geometry
    else:
        geometry, most = {"kernel": 2 * s - draw(st.integers(0, 1)), "padding": 0}, s
    torch.manual_seed(draw(st.integers(0, 99)))
    channels = draw(st.sampled_from(CHANNELS))
    bias = draw(st.booleans())
    up = TransposedUpsampler(3, s, init="normal", channels=channels, bias=bias, **geometry)
    with torch.no_grad():
        up.weight.mul_(10)
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    full = up(torch.zeros(1, 3, height, width)).shape[-2:]
    offset = draw(st.integers(0, min(most, *full) - 1))
    size = tuple(draw(st.integers(1, length - offset)) for length in full)
    return Ending(up, offset), (height, width), size  # type: ignore[return-value]


@given(
    endings(),
    st.sampled_from(sorted(get_args(Reduction))),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.sampled_from([1.0, 0.3]),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(deadline=None, max_examples=150)
def test_loss_and_gradients_equal_those_of_upsampling_and_loss(
    ending: tuple[Ending, tuple[int, int], tuple[int, int]],
    reduction: str,
    smoothing: float,
    weighted: bool,
    weight: float,
    seed: int,
    ignored: float,
) -> None:
    head, coarse, size = ending
    loss = Loss(
        reduction,
        class_weights=torch.tensor([0.5, 2.0, 1.0]) if weighted else None,
        label_smoothing=smoothing,
        weight=weight,
    )
    assert can_fuse(loss, head, CPU)
    scores = torch.randn(2, 3, *coarse, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    labels = create_labels((2, *size), 3, seed, ignored)
    parameters = list(head.upsample.parameters())
    unfused = loss(crop(head.upsample(scores), size, head.offset), labels)
    found = FusedUpsampleLoss(loss, head)(scores, labels)
    assert found.item() == pytest.approx(unfused.item(), rel=1e-5, abs=1e-6)
    exact = exact_gradients(loss, head, scores, labels, size)
    unfused_gradients = gradients_of(unfused, scores, *parameters)
    for one, plain, reference in zip(gradients_of(found, scores, *parameters), unfused_gradients, exact, strict=True):
        # Terms of a gradient can cancel; then float32 is not that accurate without fusion either.
        rounding = float((plain - reference).norm() / reference.norm().clamp_min(1e-12))
        assert close(one, reference, max(1e-5, 2 * rounding))


class MeanScore(LossTerm):
    """The mean of all scores."""

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        return scores.mean()


def test_every_term_of_the_loss_is_fused_or_turns_fusion_off() -> None:
    fused = {"reduction", "class_weights", "label_smoothing", "weight", "lovasz", "auxiliary"}  # tested in this module
    others = {"focal": 2.0, "ohem": (0.7, 0.1), "dice": 1.0, "custom": MeanScore()}
    known = fused | others.keys() | {"custom_weight"}
    assert {field.name for field in fields(Loss)} == known, "add a new term to one of the two"
    head = Ending(TransposedUpsampler(3, 8))
    for name, value in others.items():
        assert not can_fuse(Loss(**{name: value}), head, CPU), name


@pytest.mark.parametrize("chunk", [1, 100, 2**20])
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_tile_size_affects_only_rounding(channels: Channels, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    up = TransposedUpsampler(5, 8, init="random", channels=channels)
    scores, labels = torch.randn(2, 5, 4, 6, requires_grad=True), create_labels((2, 32, 48), 5, 0)
    expected = Loss()(up(scores, (32, 48)), labels)
    monkeypatch.setitem(blocks.MAX_TILE_SCORES, "cpu", chunk)
    found = FusedUpsampleLoss(Loss(), Ending(up))(scores, labels)
    for one, other in zip(
        gradients_of(found, scores, up.weight), gradients_of(expected, scores, up.weight), strict=True
    ):
        assert close(one, other, 1e-5)


@pytest.mark.parametrize("factor", [8, 32])
def test_a_fixed_kernel_has_no_gradient(factor: int) -> None:
    size = (2 * factor, 3 * factor)
    for start in ("bilinear", "random"):  # fixed kernels can be loaded with other weights than bilinear ones
        up = TransposedUpsampler(4, factor, init=start, learned=False)
        scores, labels = torch.randn(2, 4, 2, 3, requires_grad=True), create_labels((2, *size), 4, 1)
        (found,) = gradients_of(FusedUpsampleLoss(Loss(), Ending(up))(scores, labels), scores)
        (expected,) = gradients_of(Loss()(up(scores, size), labels), scores)
        assert close(found, expected, 1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
def test_bfloat16_is_as_accurate_as_without_fusion(channels: Channels) -> None:
    """Relative errors are at most 1e-3 (loss), 1 % (gradients) and 1.5 times those without fusion."""
    torch.manual_seed(0)
    up = TransposedUpsampler(21, 16, init="bilinear", channels=channels)
    exact = torch.randn(4, 21, 6, 8).bfloat16().float()
    labels = create_labels((4, 96, 128), 21, 0)

    def of(way: str) -> tuple[float, list[Tensor]]:
        scores = exact.to(torch.float32 if way == "exact" else torch.bfloat16).requires_grad_()
        if way == "fused":
            value = FusedUpsampleLoss(Loss(), Ending(up))(scores, labels)
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=way == "plain"):
                full = up(scores, (96, 128))
            value = Loss()(full, labels)
        return value.item(), [slope.float() for slope in gradients_of(value, scores, up.weight)]

    (expected, exactly), (_, plainly), (found, fusedly) = of("exact"), of("plain"), of("fused")
    assert found == pytest.approx(expected, rel=1e-3)
    for exact_, plain_, fused_ in zip(exactly, plainly, fusedly, strict=True):
        error, plain_error = ((x - exact_).norm() / exact_.norm() for x in (fused_, plain_))
        assert error < 0.01
        assert error < 1.5 * plain_error


LOVASZ = [
    pytest.param(Loss(lovasz=0.5), id="with cross entropy"),
    pytest.param(Loss(weight=0.0, lovasz=1.0), id="alone"),
    pytest.param(Loss("pixel_sum", torch.tensor([1.0, 0.2, 3.0, 1.0]), 0.1, lovasz=2.0), id="weighted"),
]


@pytest.mark.parametrize("loss", LOVASZ)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("factor", "size"), [(2, (5, 7)), (8, (32, 41)), (16, (30, 64))])
@pytest.mark.parametrize("ignored", [0.0, 0.2, 1.0])
def test_the_lovasz_loss_equals_that_of_upsampled_scores(
    loss: Loss, channels: Channels, factor: int, size: tuple[int, int], ignored: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    up = TransposedUpsampler(4, factor, init="random", channels=channels)
    with torch.no_grad():
        up.weight.mul_(3)
    scores = torch.randn(2, 4, *(-(-length // factor) for length in size), requires_grad=True)
    labels = create_labels((2, *size), 3, 0, ignored)  # one class does not occur
    expected = loss(up(scores, size), labels)
    monkeypatch.setitem(blocks.MAX_TILE_SCORES, "cpu", 1500)  # several tiles, of which the last is smaller
    assert can_fuse(loss, Ending(up), CPU)
    found = FusedUpsampleLoss(loss, Ending(up))(scores, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    for one, other in zip(
        gradients_of(found, scores, up.weight), gradients_of(expected, scores, up.weight), strict=True
    ):
        assert close(one, other, 1e-4)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_the_lovasz_loss_in_half_precision_is_as_accurate_as_without_fusion(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    loss, up = Loss(lovasz=0.5), TransposedUpsampler(21, 16, init="bilinear")
    exact = torch.randn(4, 21, 6, 8).to(precision).float()
    labels = create_labels((4, 96, 128), 21, 0)

    def of(way: str) -> tuple[float, list[Tensor]]:
        scores = exact.to(torch.float32 if way == "exact" else precision).requires_grad_()
        if way == "fused":
            value = FusedUpsampleLoss(loss, Ending(up))(scores, labels)
        else:
            with torch.autocast("cpu", precision, enabled=way == "plain"):
                full = up(scores, (96, 128))
            value = loss(full, labels)
        scaled = 2.0**16 * value  # as the scaler of fp16
        return value.item(), [slope.float() / 2.0**16 for slope in gradients_of(scaled, scores, up.weight)]

    (expected, exactly), (_, plainly), (found, fusedly) = of("exact"), of("plain"), of("fused")
    assert found == pytest.approx(expected, rel=1e-3)
    for exact_, plain_, fused_ in zip(exactly, plainly, fusedly, strict=True):
        error, plain_error = ((x - exact_).norm() / exact_.norm() for x in (fused_, plain_))
        assert error < 0.02
        assert error < 1.5 * plain_error


def test_a_label_that_is_no_class_is_an_error_of_the_lovasz_loss() -> None:
    up, labels = TransposedUpsampler(3, 8), torch.full((1, 8, 8), 3, dtype=torch.uint8)
    with pytest.raises(IndexError, match="label 3 is out of range for 3 classes"):
        FusedUpsampleLoss(Loss(lovasz=1.0), Ending(up))(torch.zeros(1, 3, 1, 1), labels)


NOT_FUSED: list[dict[str, Any]] = [{"focal": 2.0}, {"ohem": (0.7, 0.1)}, {"dice": 1.0}, {"dice": 1.0, "lovasz": 1.0}]


def test_can_fuse_rejects_unsupported_losses_and_heads() -> None:
    up = TransposedUpsampler(3, 8)
    assert can_fuse(Loss(), Ending(up), CPU)
    assert can_fuse(Loss(), Ending(up), torch.device("cuda"))
    assert not can_fuse(Loss(lovasz=1.0), Ending(up), torch.device("cuda"))
    for overrides in NOT_FUSED:
        assert not can_fuse(Loss(**overrides), Ending(up), CPU)
    assert not can_fuse(Loss(), Ending(Interpolation(8, mode="bilinear")), CPU)
    assert not can_fuse(Loss(), Ending(TransposedUpsampler(3, 8, kernel=20, padding=6)), CPU)

    def make(num_classes: int, factor: int, stage: str, **_: int) -> nn.Module:
        return TransposedUpsampler(num_classes, factor)

    with_auxiliary = DilatedHead({16: 8, 32: 8}, 3, make, output_stride=8, auxiliary=16)
    assert not can_fuse(Loss(), with_auxiliary, CPU)
    assert can_fuse(Loss(), DilatedHead({32: 8}, 3, make, output_stride=8), CPU)


def test_can_fuse_rejects_heads_with_auxiliary_scores_of_their_own() -> None:
    class Own(Ending):
        def auxiliary(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
            scores: Tensor = self.upsample(features[8], size)
            return scores

    class Dilated(DilatedHead):
        auxiliary = Own.auxiliary

    def make(num_classes: int, factor: int, stage: str, **_: int) -> nn.Module:
        return TransposedUpsampler(num_classes, factor)

    assert not can_fuse(Loss(), Own(TransposedUpsampler(3, 8)), CPU)
    assert not can_fuse(Loss(), Dilated({32: 8}, 3, make, output_stride=8), CPU)


class OneBatch:
    """One batch per epoch."""

    steps = 1

    def __init__(self, size: tuple[int, int], images: int) -> None:
        self.size, self.images = size, images

    def epoch(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        images = torch.randn(self.images, 3, *self.size, generator=torch.Generator().manual_seed(epoch))
        return [(images, create_labels((self.images, *self.size), 4, epoch))]


def step(
    model: FCN, loss: Loss | FusedUpsampleLoss, size: tuple[int, int], images: int
) -> tuple[float, dict[str, Tensor]]:
    """Train one step of two micro-batches, and return its loss and the weights."""
    losses: list[float] = []
    training = Training(OneBatch(size, images), loss, torch.optim.SGD(model.parameters(), lr=0.1), lambda _: 1.0)
    fit(
        model,
        training,
        Execution(grad_accum_steps=2),
        epochs=1,
        on_epoch_end=lambda epoch: losses.append(epoch.loss),
    )
    return losses[0], model.state_dict()


HEADS_OF_THE_REGISTRY = builtin().names("head")


@pytest.mark.parametrize("head", HEADS_OF_THE_REGISTRY)
def test_fused_heads_of_the_registry_train_like_unfused_ones(head: str) -> None:
    registry = builtin()
    entry: Any = registry.get("head", head)
    backbone: Any = registry.get("backbone", "vgg16-paper-scratch" if entry.type == "paper" else "tiny-scratch")
    variant = Variant(backbone=backbone, head=entry, upsampler=registry.get("upsampler", "bilinear"))
    assert issubclass(HEADS[entry.type], CoarseHead)
    if entry.type == "paper":
        pytest.skip("a step of VGG-16 takes seconds; the property test covers its geometry")
    if getattr(entry, "auxiliary", None) is not None:
        pytest.skip("auxiliary scores are not fused")
    if not entry.upsamples:
        pytest.skip("there is no upsampling to fuse")
    loss, size, images = Loss(), (64, 96), 2 * entry.min_images
    models = [build_model(variant, 4, seed=0) for _ in range(2)]
    for model in models:
        torch.manual_seed(0)
        _perturb(model.head)
    torch.manual_seed(0)
    expected, after = step(models[0], loss, size, images)
    torch.manual_seed(0)
    assert isinstance(models[1].head, CoarseHead)
    found, fused_after = step(models[1], FusedUpsampleLoss(loss, models[1].head), size, images)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, value in after.items():
        assert close(fused_after[name].float(), value.float(), 1e-4), name


def _perturb(head: nn.Module) -> None:
    """Make all weights nonzero, so that every gradient matters."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))


def test_the_head_upsamples_its_coarse_scores() -> None:
    registry = builtin()
    variant = Variant(
        backbone=registry.get("backbone", "tiny-scratch"),
        head=registry.get("head", "fcn8s"),
        upsampler=registry.get("upsampler", "bilinear"),
    )
    model = build_model(variant, 4, seed=0).eval()
    assert isinstance(model.backbone, Backbone) and isinstance(model.head, CoarseHead)
    images = torch.randn(1, 3, 70, 90)
    assert torch.equal(model.head.upsample(model.coarse_scores(images), (70, 90)), model(images))


def test_a_recipe_can_turn_fusion_off() -> None:
    recipe = builtin().get("recipe", "smoke")
    assert isinstance(recipe, Recipe) and recipe.fused == "auto"
    assert recipe.model_copy(update={"fused": "off"}).content()["fused"] == "off"
