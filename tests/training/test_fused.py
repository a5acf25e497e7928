"""The last upsampling and the loss in one against the two one after the other."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.models import FCN, HEADS, Interpolation, TransposedUpsampler
from fcnlab.models.backbones.base import Backbone
from fcnlab.models.heads import CoarseHead, DilatedHead
from fcnlab.models.upsampler import crop
from fcnlab.training import fused_loss
from fcnlab.training.fit import fit
from fcnlab.training.fused_loss import FusedUpsampleLoss, can_fuse
from fcnlab.training.losses import REDUCTIONS, Loss
from fcnlab.trial.build import build_model

torch.set_num_threads(1)

Channels = Literal["dense", "diagonal", "per_class"]
CHANNELS: list[Channels] = ["dense", "diagonal", "per_class"]


class Ending(CoarseHead):
    """The end of a head: what upsamples, and what is cropped."""

    def __init__(self, upsample: nn.Module, offset: int = 0) -> None:
        super().__init__()
        self.upsample, self.offset = upsample, offset


def slopes(value: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, of))


def labels_of(shape: tuple[int, ...], classes: int, seed: int, ignored: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < ignored] = 255
    return labels.to(torch.uint8)


def close(found: Tensor, wanted: Tensor, bound: float) -> bool:
    """Whether the distance of the two is at most `bound` of the second's length."""
    return float((found - wanted).norm()) <= bound * float(wanted.norm()) + 1e-7


@st.composite
def endings(draw: st.DrawFn) -> tuple[Ending, tuple[int, int], tuple[int, int]]:
    """The end of a head of 3 classes, the size of the coarse scores and that of an image that they cover."""
    s = draw(st.sampled_from([2, 4, 6, 8, 16, 32]))
    if draw(st.booleans()):
        geometry, most = {}, s * 2  # the usual one
    else:
        geometry, most = {"kernel": 2 * s - draw(st.integers(0, 1)), "padding": 0}, s
    torch.manual_seed(draw(st.integers(0, 99)))
    channels = draw(st.sampled_from(CHANNELS))
    bias = draw(st.booleans())
    up = TransposedUpsampler(3, s, start="normal", channels=channels, bias=bias, **geometry)
    with torch.no_grad():
        up.weight.mul_(10)
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    full = up(torch.zeros(1, 3, height, width)).shape[-2:]
    offset = draw(st.integers(0, min(most, *full) - 1))
    size = tuple(draw(st.integers(1, length - offset)) for length in full)
    return Ending(up, offset), (height, width), size  # type: ignore[return-value]


@given(
    endings(),
    st.sampled_from(sorted(REDUCTIONS)),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.sampled_from([1.0, 0.3]),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(deadline=None, max_examples=150)
def test_loss_and_gradients_are_those_of_the_two_one_after_the_other(
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
    assert can_fuse(loss, head)
    scores = torch.randn(2, 3, *coarse, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    labels = labels_of((2, *size), 3, seed, ignored)
    learned = list(head.upsample.parameters())
    plain = loss(crop(head.upsample(scores), size, head.offset), labels)
    found = FusedUpsampleLoss(loss, head)(scores, labels)
    assert found.item() == pytest.approx(plain.item(), rel=1e-5, abs=1e-6)
    for one, other in zip(slopes(found, scores, *learned), slopes(plain, scores, *learned), strict=True):
        assert close(one, other, 1e-5)


@pytest.mark.parametrize("chunk", [1, 100, 2**20])
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_size_of_a_tile_changes_rounding_alone(
    channels: Channels, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    up = TransposedUpsampler(5, 8, start="random", channels=channels)
    scores, labels = torch.randn(2, 5, 4, 6, requires_grad=True), labels_of((2, 32, 48), 5, 0)
    wanted = Loss()(up(scores, (32, 48)), labels)
    monkeypatch.setitem(fused_loss.MAX_TILE_SCORES, "cpu", chunk)
    found = FusedUpsampleLoss(Loss(), Ending(up))(scores, labels)
    for one, other in zip(slopes(found, scores, up.weight), slopes(wanted, scores, up.weight), strict=True):
        assert close(one, other, 1e-5)


@pytest.mark.parametrize("factor", [8, 32])
def test_a_fixed_kernel_has_the_gradient_of_the_scores_alone(factor: int) -> None:
    size = (2 * factor, 3 * factor)
    for start in ("bilinear", "random"):  # fixed ones start bilinear, but may be given weights that are not
        up = TransposedUpsampler(4, factor, start=start, learned=False)  # type: ignore[arg-type]
        scores, labels = torch.randn(2, 4, 2, 3, requires_grad=True), labels_of((2, *size), 4, 1)
        (found,) = slopes(FusedUpsampleLoss(Loss(), Ending(up))(scores, labels), scores)
        (wanted,) = slopes(Loss()(up(scores, size), labels), scores)
        assert close(found, wanted, 1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
def test_in_bfloat16_it_is_as_near_to_float32_as_the_plain_way(channels: Channels) -> None:
    """Loss to 1e-3; gradients to 1 %, and no farther than one and a half times where the plain way comes."""
    torch.manual_seed(0)
    up = TransposedUpsampler(21, 16, start="bilinear", channels=channels)
    exact = torch.randn(4, 21, 6, 8).bfloat16().float()
    labels = labels_of((4, 96, 128), 21, 0)

    def of(way: str) -> tuple[float, list[Tensor]]:
        scores = exact.to(torch.float32 if way == "exact" else torch.bfloat16).requires_grad_()
        if way == "fused":
            value = FusedUpsampleLoss(Loss(), Ending(up))(scores, labels)
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=way == "plain"):
                full = up(scores, (96, 128))
            value = Loss()(full, labels)
        return value.item(), [slope.float() for slope in slopes(value, scores, up.weight)]

    (wanted, exactly), (_, plainly), (found, fusedly) = of("exact"), of("plain"), of("fused")
    assert found == pytest.approx(wanted, rel=1e-3)
    for exact_, plain_, fused_ in zip(exactly, plainly, fusedly, strict=True):
        error, plain_error = ((x - exact_).norm() / exact_.norm() for x in (fused_, plain_))
        assert error < 0.01
        assert error < 1.5 * plain_error


NOT_OF_SINGLE_PIXELS: list[dict[str, Any]] = [{"focal": 2.0}, {"ohem": (0.7, 0.1)}, {"dice": 1.0}, {"lovasz": 1.0}]


def test_what_cannot_be_fused_is_told_apart() -> None:
    up = TransposedUpsampler(3, 8)
    assert can_fuse(Loss(), Ending(up))
    for said in NOT_OF_SINGLE_PIXELS:
        assert not can_fuse(Loss(**said), Ending(up))
    assert not can_fuse(Loss(), Ending(Interpolation(8, mode="bilinear")))
    assert not can_fuse(Loss(), Ending(TransposedUpsampler(3, 8, kernel=20, padding=6)))

    def make(classes: int, factor: int, stage: str, **_: int) -> nn.Module:
        return TransposedUpsampler(classes, factor)

    with_auxiliary = DilatedHead({16: 8, 32: 8}, 3, make, output_stride=8, auxiliary=16)
    assert not can_fuse(Loss(), with_auxiliary)
    assert can_fuse(Loss(), DilatedHead({32: 8}, 3, make, output_stride=8))


class One:
    """One batch an epoch."""

    steps = 1

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def epoch(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        images = torch.randn(2, 3, *self.size, generator=torch.Generator().manual_seed(epoch))
        return [(images, labels_of((2, *self.size), 4, epoch))]


def step(model: FCN, loss: Loss | FusedUpsampleLoss, size: tuple[int, int]) -> tuple[float, dict[str, Tensor]]:
    """The loss of one step, and all weights after it."""
    losses: list[float] = []
    fit(
        model,
        One(size),  # type: ignore[arg-type]
        epochs=1,
        start_epoch=0,
        loss=loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        schedule=lambda _: 1.0,
        autocast=nullcontext,
        on_epoch_end=lambda epoch: losses.append(epoch.loss),
        grad_accum_steps=2,
    )
    return losses[0], model.state_dict()


HEADS_OF_THE_REGISTRY = builtin().names("head")


@pytest.mark.parametrize("head", HEADS_OF_THE_REGISTRY)
def test_every_head_of_the_registry_trains_alike_where_it_can_be_fused(head: str) -> None:
    registry = builtin()
    entry: Any = registry.get("head", head)
    backbone: Any = registry.get("backbone", "vgg16-paper-scratch" if entry.type == "paper" else "tiny-scratch")
    variant = Variant(backbone=backbone, head=entry, upsampler=registry.get("upsampler", "bilinear"))  # type: ignore[arg-type]
    assert issubclass(HEADS[entry.type], CoarseHead)
    if entry.type == "paper":
        pytest.skip("VGG-16 takes seconds a step; the paper's geometry is among the properties above")
    if entry.auxiliary is not None:
        pytest.skip("auxiliary scores are not fused")
    loss, size = Loss(), (64, 96)
    models = [build_model(variant, 4, seed=0) for _ in range(2)]
    for model in models:
        torch.manual_seed(0)
        _stir(model.head)
    torch.manual_seed(0)
    wanted, after = step(models[0], loss, size)
    torch.manual_seed(0)
    assert isinstance(models[1].head, CoarseHead)
    found, fused_after = step(models[1], FusedUpsampleLoss(loss, models[1].head), size)
    assert found == pytest.approx(wanted, rel=1e-5)
    for name, value in after.items():
        assert close(fused_after[name].float(), value.float(), 1e-4), name


def _stir(head: nn.Module) -> None:
    """No weight of zero, so that every gradient has something to say."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))


def test_coarse_scores_are_what_the_head_upsamples() -> None:
    registry = builtin()
    variant = Variant(
        backbone=registry.get("backbone", "tiny-scratch"),  # type: ignore[arg-type]
        head=registry.get("head", "fcn8s"),  # type: ignore[arg-type]
        upsampler=registry.get("upsampler", "bilinear"),  # type: ignore[arg-type]
    )
    model = build_model(variant, 4, seed=0).eval()
    assert isinstance(model.backbone, Backbone) and isinstance(model.head, CoarseHead)
    images = torch.randn(1, 3, 70, 90)
    assert torch.equal(model.head.upsample(model.coarse_scores(images), (70, 90)), model(images))


def test_a_recipe_may_switch_it_off() -> None:
    recipe = builtin().get("recipe", "smoke")
    assert isinstance(recipe, Recipe) and recipe.fused == "auto"
    assert recipe.model_copy(update={"fused": "off"}).content()["fused"] == "off"
