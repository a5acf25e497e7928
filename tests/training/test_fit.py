"""Tests of the training loop: learning, divergence, resuming, micro-batches, gradient clipping and averages."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcnlab.config.grid.grid import resolve
from fcnlab.config.optimizer import LrFactors
from fcnlab.config.registry import builtin
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.training.fit import DivergenceError, Epoch, Execution, Training, fit
from fcnlab.training.losses import Loss
from fcnlab.training.optim import MovingAverage, create_optimizer
from fcnlab.training.step import Objective
from fcnlab.trial.build import build_model, build_training


class Net(nn.Sequential):
    """A sequence of layers with the interface of an FCN."""

    def training_scores(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self(images), None


def create_net() -> Net:
    return Net(nn.Conv2d(3, 2, 1))


class TwoBatches:
    """Two batches per epoch of three images each; records the requested epochs."""

    steps = 2

    def __init__(self) -> None:
        self.requested: list[int] = []

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.requested.append(epoch)
        for step in range(self.steps):
            generator = torch.Generator().manual_seed(10 * epoch + step)
            images = torch.randn(3, 3, 8, 8, generator=generator)
            yield images, (images[:, 0] > 0).to(torch.uint8)


class SixImages(TwoBatches):
    """One batch per epoch of six images with an increasing number of ignored pixels."""

    steps = 1

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(epoch)
        images = torch.randn(6, 3, 8, 8, generator=generator)
        labels = (images[:, 0] > 0).to(torch.uint8)
        labels[torch.rand(6, 8, 8, generator=generator) < torch.arange(6)[:, None, None] / 5] = 255
        yield images, labels


EXECUTION = {field.name for field in dataclasses.fields(Execution)}


def train(
    model: Any,
    batches: Any,
    *,
    lr: float = 0.1,
    epochs: int = 3,
    start_epoch: int = 0,
    on_epoch_end: Callable[[Epoch], object] | None = None,
    **overrides: Any,
) -> list[Epoch]:
    """Train a model, with overrides of `Training` and `Execution`, and return its epochs."""
    seen: list[Epoch] = []
    execution = Execution(**{name: overrides.pop(name) for name in EXECUTION & overrides.keys()})
    parts: dict[str, Any] = {
        "loss": Loss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
        "schedule": lambda step: 1 / (1 + step),
    }
    training = Training(batches, **(parts | overrides))
    on_epoch_end = on_epoch_end or seen.append
    fit(model, training, execution, epochs=epochs, start_epoch=start_epoch, on_epoch_end=on_epoch_end)
    return seen


def test_a_tiny_network_learns_generated_scenes() -> None:
    cell = resolve({"variant": "fcn16s-tiny", "dataset": "shapes-mini", "recipe": "smoke"}, builtin(), "test")
    shapes = Shapes(train=8, val=1, test=1, height=64, width=64, seed=0)
    model = build_model(cell.variant, len(shapes.classes), seed=0)
    parts = build_training(cell.recipe, model, shapes, split="train", seed=0)
    seen = train(model, parts.batches, epochs=5, loss=parts.loss, optimizer=parts.optimizer, schedule=lambda step: 1.0)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4, 5]
    assert seen[-1].loss < 0.8 * seen[0].loss
    assert {epoch.images for epoch in seen} == {8}


def test_an_epoch_reports_its_mean_loss_and_last_learning_rate() -> None:
    model = create_net()
    with torch.no_grad():
        expected = [Loss()(model(x), y).item() for x, y in TwoBatches().epoch(0)]
    seen = train(
        model, TwoBatches(), epochs=1, optimizer=torch.optim.SGD(model.parameters(), lr=0.0), schedule=lambda step: 1
    )
    assert seen[0].loss == pytest.approx(sum(expected) / 2)
    rates = [epoch.lr for epoch in train(model, TwoBatches(), lr=1.2)]
    assert rates == pytest.approx([1.2 / 2, 1.2 / 4, 1.2 / 6])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(bad: float) -> None:
    seen: list[Epoch] = []
    batches = TwoBatches()

    def loss(scores: Tensor, labels: Tensor, auxiliary: Tensor | None) -> Tensor:
        return Loss()(scores, labels) * (bad if batches.requested[-1] == 1 else 1)

    with pytest.raises(DivergenceError, match=r"the loss of epoch 2 is (nan|inf); a smaller learning rate may help"):
        train(create_net(), batches, epochs=5, loss=loss, on_epoch_end=seen.append)
    assert [epoch.epoch for epoch in seen] == [1]
    assert batches.requested == [0, 1]


def test_a_learning_rate_that_is_too_large_diverges() -> None:
    model = Net(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(DivergenceError):
        train(model, TwoBatches(), epochs=20, lr=1e30, schedule=lambda step: 1.0)


def test_a_resumed_run_trains_only_the_remaining_epochs() -> None:
    batches, steps = TwoBatches(), []

    def factor(step: int) -> float:
        steps.append(step)
        return 1.0

    seen = train(create_net(), batches, epochs=5, start_epoch=3, schedule=factor)
    assert batches.requested == [3, 4]
    assert list(dict.fromkeys(steps)) == [6, 7, 8, 9]  # the schedule continues
    assert [epoch.epoch for epoch in seen] == [4, 5]


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    torch.manual_seed(0)
    whole, parts = create_net(), create_net()
    parts.load_state_dict(whole.state_dict())
    train(whole, TwoBatches(), epochs=4)
    sgd = torch.optim.SGD(parts.parameters(), lr=0.1)
    train(parts, TwoBatches(), epochs=2, optimizer=sgd)
    train(parts, TwoBatches(), epochs=4, start_epoch=2, optimizer=sgd)
    assert torch.equal(whole[0].weight, parts[0].weight)


def test_a_finished_run_does_not_train() -> None:
    model = create_net()
    before = model[0].weight.clone()
    assert train(model, TwoBatches(), epochs=3, start_epoch=3) == []
    assert torch.equal(model[0].weight, before)


def test_every_epoch_trains_in_train_mode() -> None:
    model = Net(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)).eval()
    modes: list[bool] = []
    train(model, TwoBatches(), epochs=2, on_epoch_end=lambda _: (modes.append(model.training), model.eval()))
    assert modes == [True, True]


class TwoComponents(nn.Module):
    """A model with a backbone, a head and optional auxiliary scores, like an FCN."""

    def __init__(self, *, auxiliary: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1))
        self.auxiliary = nn.Conv2d(4, 2, 1) if auxiliary else None

    def training_scores(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.backbone(images)
        return self.head(features), None if self.auxiliary is None else self.auxiliary(features)


def create_identical_models(count: int, **overrides: Any) -> list[TwoComponents]:
    """Create models with equal weights."""
    torch.manual_seed(0)
    models = [TwoComponents(**overrides) for _ in range(count)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    return models


def weights(model: nn.Module) -> Tensor:
    """Return all parameters of a model as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("factors", [LrFactors(), LrFactors(backbone=0.1, bias=2.0), LrFactors(head=3.0)], ids=str)
def test_the_reported_learning_rate_does_not_depend_on_factors(factors: LrFactors) -> None:
    (model,) = create_identical_models(1)
    built = create_optimizer("adamw", model, lr=0.02, weight_decay=0, factors=factors)
    seen = train(model, TwoBatches(), epochs=3, optimizer=built)
    assert [epoch.lr for epoch in seen] == pytest.approx([0.02 / 2, 0.02 / 4, 0.02 / 6])


CLASS_WEIGHTS = torch.tensor([0.5, 3.0])


@pytest.mark.parametrize("parts", [2, 3, 6])
@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        Loss(class_weights=CLASS_WEIGHTS, label_smoothing=0.1),
        Loss(focal=2.0),
        Loss("image_mean_sum"),
        Loss("pixel_sum", class_weights=CLASS_WEIGHTS),
    ],
    ids=str,
)
def test_gradient_accumulation_equals_the_whole_batch(loss: Loss, parts: int) -> None:
    whole, split = create_identical_models(2, auxiliary=True)
    lr = 1e-4 if loss.reduction == "pixel_sum" else 0.1
    expected = train(whole, SixImages(), loss=loss, lr=lr)
    found = train(split, SixImages(), loss=loss, lr=lr, grad_accum_steps=parts)
    assert (weights(whole) - weights(split)).abs().max() < 1e-6
    assert [epoch.loss for epoch in found] == pytest.approx([epoch.loss for epoch in expected], rel=1e-5)
    assert [epoch.images for epoch in found] == [6, 6, 6]


def test_schedule_and_optimizer_step_once_per_batch() -> None:
    steps: list[int] = []
    (model,) = create_identical_models(1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    taken = []
    sgd.register_step_post_hook(lambda *_: taken.append(1))
    train(model, SixImages(), grad_accum_steps=3, optimizer=sgd, schedule=lambda step: steps.append(step) or 1.0)
    assert len(taken) == 3
    assert set(steps) == {0, 1, 2}


def test_gradient_clipping_bounds_the_norm() -> None:
    (model,) = create_identical_models(1)
    loss = Loss("pixel_sum")
    trail = [weights(model)]
    train(
        model,
        SixImages(),
        epochs=4,
        lr=1.0,
        loss=loss,
        grad_clip_norm=0.01,
        schedule=lambda step: 1.0,
        on_epoch_end=lambda _: trail.append(weights(model)),
    )
    moved = [float((b - a).norm()) for a, b in itertools.pairwise(trail)]
    assert moved == pytest.approx([0.01] * 4, rel=1e-3)


def test_gradient_clipping_keeps_the_direction_of_the_whole_batch() -> None:
    free, bounded, in_parts = create_identical_models(3)
    start = weights(free)
    once: dict[str, Any] = {"epochs": 1, "lr": 1.0, "schedule": lambda step: 1.0}
    train(free, SixImages(), **once)
    train(bounded, SixImages(), **once, grad_clip_norm=0.01)
    train(in_parts, SixImages(), **once, grad_clip_norm=0.01, grad_accum_steps=3)
    change = weights(free) - start
    assert torch.allclose(weights(bounded) - start, 0.01 * change / change.norm(), atol=1e-6)
    assert torch.allclose(weights(bounded), weights(in_parts), atol=1e-6)


def test_gradient_clipping_does_not_change_a_smaller_gradient() -> None:
    free, bounded = create_identical_models(2)
    train(free, TwoBatches())
    train(bounded, TwoBatches(), grad_clip_norm=1e6)
    assert torch.equal(weights(free), weights(bounded))


def test_the_average_is_updated_after_every_step() -> None:
    model, without_average = create_identical_models(2)
    average = MovingAverage(model, 0.99)
    trail: list[Tensor] = []
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    sgd.register_step_post_hook(lambda *_: trail.append(weights(model)))
    train(model, TwoBatches(), optimizer=sgd, average=average, grad_accum_steps=3)
    train(without_average, TwoBatches(), lr=0.5, grad_accum_steps=3)
    assert len(trail) == 6
    expected = trail[0]
    for n, state in enumerate(trail[1:], start=1):
        expected = torch.lerp(expected, state, 1 - (1 + n) / (10 + n))
    assert torch.allclose(weights(average.module), expected, atol=1e-6)
    assert torch.equal(weights(model), weights(without_average))


def test_auxiliary_scores_are_trained_with_their_weight() -> None:
    without, with_them = create_identical_models(2, auxiliary=True)
    before = with_them.auxiliary.weight.clone()
    (plain,) = train(without, SixImages(), epochs=1, loss=Loss(auxiliary=0))
    (seen,) = train(with_them, SixImages(), epochs=1, loss=Loss(auxiliary=0.7))
    (fresh,) = create_identical_models(1, auxiliary=True)
    images, labels = next(SixImages().epoch(0))
    _, auxiliary = fresh.training_scores(images)
    assert auxiliary is not None
    assert seen.loss == pytest.approx(plain.loss + 0.7 * Loss()(auxiliary, labels).item())
    assert torch.equal(without.auxiliary.weight, before)
    assert not torch.equal(with_them.auxiliary.weight, before)


def test_a_compiled_objective_has_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_eagerly(function: Any, *, dynamic: bool) -> Any:
        compiled.append(dynamic)
        return compile_(function, dynamic=dynamic, backend="eager")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    images, labels = torch.randn(2, 3, 8, 8), torch.randint(2, (2, 8, 8), dtype=torch.uint8)
    gradients = []
    for expected in (False, True):
        torch.manual_seed(0)
        model: Any = create_net()
        Objective(model, Loss(), nullcontext, compiled=expected)(images, labels).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert compiled == [False]
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, other)
