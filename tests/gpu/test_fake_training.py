"""Tests of training on symbolic CUDA tensors: one device, and no step waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fcnlab.config.head import Head
from fcnlab.config.optimizer import LrFactors
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import Upsampler
from fcnlab.config.variant import Backbone, Variant
from fcnlab.models import FCN
from fcnlab.training import hardware
from fcnlab.training.fast_layers import MaxPool2d, replace_max_pooling
from fcnlab.training.fit import Execution, Training, fit
from fcnlab.training.fused_loss import FusedUpsampleLoss, can_fuse
from fcnlab.training.losses import Loss
from fcnlab.training.optim import OPTIMIZERS, MovingAverage, create_optimizer
from fcnlab.trial.build import build_model
from tests.gpu.fake import CUDA, Watch, fake_cuda, on_cuda

REGISTRY = builtin()
CLASSES = 5

ALLOWED = {
    "training/fit.py:_EpochLosses.read": "reads the loss once per epoch",
}
"""Functions that may wait for the device during training, with the reason."""


class Batches:
    """Symbolic batches of four images."""

    def __init__(self, steps: int = 1) -> None:
        self.steps = steps

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.steps):
            images = torch.empty(4, 3, 64, 64, device=CUDA).contiguous(memory_format=torch.channels_last)
            yield images, torch.empty(4, 64, 64, dtype=torch.uint8, device=CUDA)


def variant(head: str, upsampler: str = "bilinear") -> Variant:
    """Return a variant with random weights and the smallest backbone that the head supports."""
    of_head, of_upsampler = REGISTRY.get("head", head), REGISTRY.get("upsampler", upsampler)
    assert isinstance(of_head, Head) and isinstance(of_upsampler, Upsampler)
    of_backbone = REGISTRY.get("backbone", "vgg16-paper-scratch" if of_head.type == "paper" else "tiny-scratch")
    assert isinstance(of_backbone, Backbone)
    return Variant(backbone=of_backbone, head=of_head, upsampler=of_upsampler)


def symbolic_model(watch: Watch, head: str, upsampler: str = "bilinear") -> FCN:
    with watch.build():
        model: FCN = on_cuda(build_model(variant(head, upsampler), CLASSES, seed=0))
    return model


def train(
    watch: Watch,
    model: FCN,
    loss: Any,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    *,
    name: str = "sgd",
    steps: int = 1,
    **options: Any,
) -> None:
    """Train one epoch, and check that every parameter has its gradient on the device."""
    optimizer = create_optimizer(name, model, lr=0.1, weight_decay=0.01, factors=LrFactors())
    fit(model, Training(Batches(steps), loss, optimizer, lambda step: 1.0, **options), execution, epochs=1)
    assert watch.outputs > 100
    used = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert used and all(parameter.grad.device == CUDA for parameter in used)


def fused(watch: Watch, model: FCN, loss: Loss) -> FusedUpsampleLoss:
    assert can_fuse(loss, model.head, CUDA)
    with watch.build():
        return FusedUpsampleLoss(loss, model.head)


@pytest.mark.parametrize("head", REGISTRY.names("head"))
def test_every_head_trains_on_one_device_without_waiting(head: str) -> None:
    with fake_cuda(ALLOWED) as watch:
        model = symbolic_model(watch, head)
        train(watch, model, Loss())
        if can_fuse(Loss(), model.head, CUDA):
            train(watch, model, fused(watch, model, Loss()))


@pytest.mark.parametrize("upsampler", REGISTRY.names("upsampler"))
def test_every_upsampler_trains_on_one_device_without_waiting(upsampler: str) -> None:
    with fake_cuda(ALLOWED) as watch:
        model = symbolic_model(watch, "fcn16s", upsampler)
        train(watch, model, fused(watch, model, Loss()) if can_fuse(Loss(), model.head, CUDA) else Loss())


LOSSES: dict[str, dict[str, Any]] = {
    "pixel_mean": {},
    "image_mean_sum": {"reduction": "image_mean_sum"},
    "pixel_sum": {"reduction": "pixel_sum"},
    "class weights": {"class_weights": True},
    "class weights by image": {"class_weights": True, "reduction": "image_mean_sum"},
    "label smoothing": {"label_smoothing": 0.1},
    "weights and smoothing": {"class_weights": True, "label_smoothing": 0.1},
    "half a weight": {"weight": 0.5},
    "focal": {"focal": 2.0},
    "focal with weights": {"focal": 2.0, "class_weights": True},
    "dice": {"dice": 1.0},
    "dice only": {"dice": 1.0, "weight": 0.0},
    "ohem": {"ohem": (0.7, 0.1)},
    "lovasz": {"lovasz": 0.5},
    "lovasz only": {"lovasz": 1.0, "weight": 0.0},
    "all that adds up": {"ohem": (0.7, 0.1), "dice": 0.5, "lovasz": 0.5, "class_weights": True},
}


def made_loss(options: dict[str, Any]) -> Loss:
    weights = torch.empty(CLASSES, device=CUDA) if options.get("class_weights") else None
    return Loss(**(options | {"class_weights": weights}))


@pytest.mark.parametrize("head", ["fcn32s", "dilated8-aux"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_do_not_wait(name: str, head: str) -> None:
    with fake_cuda(ALLOWED) as watch:
        model, loss = symbolic_model(watch, head), made_loss(LOSSES[name])
        train(watch, model, loss)
        if can_fuse(loss, model.head, CUDA):
            train(watch, model, fused(watch, model, loss))


def test_class_weights_on_the_cpu_are_an_error() -> None:
    with fake_cuda(ALLOWED) as watch, pytest.raises(RuntimeError, match=r"two (different )?devices"):
        train(watch, symbolic_model(watch, "fcn32s"), Loss(class_weights=torch.ones(CLASSES)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_without_waiting(name: str) -> None:
    with fake_cuda(ALLOWED) as watch:
        train(watch, symbolic_model(watch, "fcn32s"), Loss(), name=name, steps=2)


@pytest.mark.parametrize("plain", [True, False])
def test_bf16_micro_batches_and_clipping_do_not_wait(plain: bool) -> None:
    with fake_cuda(ALLOWED) as watch:
        model = symbolic_model(watch, "fcn8s")
        execution = Execution(hardware.create_autocast(CUDA, "bf16"), grad_accum_steps=2)
        train(watch, model, Loss() if plain else fused(watch, model, Loss()), execution, grad_clip_norm=1.0)


@pytest.mark.parametrize(("name", "waits"), [("sgd", False), ("adamw", False), ("rmsprop", True)])
def test_fp16_waits_only_for_optimizers_without_fused_kernels(name: str, waits: bool) -> None:
    # GradScaler checks for infinite gradients on the host, unless the kernel of the optimizer skips the step itself.
    function = "training/fit.py:_update_weights"
    with fake_cuda(ALLOWED | {function: "GradScaler skips the step of an optimizer without a fused kernel"}) as watch:
        model = symbolic_model(watch, "fcn8s")
        execution = Execution(hardware.create_autocast(CUDA, "fp16"), hardware.create_grad_scaler(CUDA, "fp16"))
        train(watch, model, fused(watch, model, Loss()), execution, name=name, grad_clip_norm=1.0)
    assert any(seen.function == function for seen in watch.seen) == waits


def test_deterministic_layers_do_not_wait() -> None:
    with fake_cuda(ALLOWED) as watch:
        with watch.build():
            model = build_model(variant("dilated16"), CLASSES, seed=0)
            replace_max_pooling(model, deterministic=True)
            model = on_cuda(model)
        assert any(isinstance(module, MaxPool2d) for module in model.modules())
        train(watch, model, Loss())


def test_the_moving_average_does_not_wait() -> None:
    with fake_cuda(ALLOWED) as watch:
        model = symbolic_model(watch, "fcn32s")
        train(watch, model, Loss(), average=MovingAverage(model, 0.9), steps=2)


def test_waits_of_an_epoch_do_not_depend_on_its_number_of_steps() -> None:
    counts = []
    for steps in (1, 4):
        with fake_cuda(ALLOWED) as watch:
            train(watch, symbolic_model(watch, "fcn32s"), Loss(), steps=steps)
        counts.append(len(watch.seen))
        assert {seen.function for seen in watch.seen} == ALLOWED.keys()
    assert counts[0] == counts[1] > 0
