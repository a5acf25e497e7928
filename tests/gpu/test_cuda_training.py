"""Tests of training steps on a GPU: precision, gradients, synchronization, CUDA graphs and fp16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.config.augmentation import ColorJitter
from fcnlab.config.optimizer import LrFactors
from fcnlab.constants import Precision
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.decoded import DecodedSplit
from fcnlab.models import FCN, TransposedUpsampler
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.training import hardware, step
from fcnlab.training.fast_layers import replace_max_pooling
from fcnlab.training.fit import Epoch, Execution, Training, fit
from fcnlab.training.fused_loss import FusedUpsampleLoss, can_fuse
from fcnlab.training.losses import Loss
from fcnlab.training.optim import MovingAverage, create_optimizer
from fcnlab.trial.build import build_model
from tests.gpu.test_fake_training import variant
from tests.training.test_fused_loss import Ending, close, create_labels, gradients_of

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda", 0)
CLASSES = len(Shapes(train=1, val=1, test=1, height=32, width=32, seed=0).classes)
AUGMENTATION = Augmentation(
    crop=(64, 64),
    scale=(0.75, 1.5),
    flip=0.5,
    fill=(124, 116, 104),
    jitter=ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
)


def network(head: str = "fcn8s") -> FCN:
    return build_model(variant(head), CLASSES, seed=0).to(DEVICE).to(memory_format=torch.channels_last)


def batches(images: int, batch: int = 4) -> TrainingBatches:
    shapes = Shapes(train=images, val=1, test=1, height=64, width=80, seed=0)
    return TrainingBatches(
        DecodedSplit(shapes.split("train")),
        batch_size=batch,
        augmentation=AUGMENTATION,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        seed=0,
        device=DEVICE,
    )


class WatchedAfterWarmup:
    """Batches that raise an error on synchronization after the first `warm` ones."""

    def __init__(self, inner: TrainingBatches, warm: int) -> None:
        self.steps = inner.steps
        self._inner, self._warm = inner, warm

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for done, batch in enumerate(self._inner.epoch(epoch)):
            yield batch
            if done + 1 == self._warm:
                torch.cuda.set_sync_debug_mode("error")
        torch.cuda.set_sync_debug_mode("default")  # the loss is read once per epoch


def train(model: FCN, data: Any, loss: Any, *, precision: Precision = "fp32", **options: Any) -> list[Epoch]:
    seen: list[Epoch] = []
    epochs = options.pop("epochs", 1)
    execution = Execution(
        hardware.create_autocast(DEVICE, precision),
        hardware.create_grad_scaler(DEVICE, precision),
        grad_accum_steps=options.pop("grad_accum_steps", 1),
    )
    parts: dict[str, Any] = {
        "optimizer": create_optimizer("adamw", model, lr=0.003, weight_decay=0.01, factors=LrFactors()),
        "schedule": lambda step: 1.0,
    }
    fit(model, Training(data, loss, **(parts | options)), execution, epochs=epochs, on_epoch_end=seen.append)
    return seen


def fastest(model: FCN, loss: Loss) -> Loss | FusedUpsampleLoss:
    return FusedUpsampleLoss(loss, model.head) if can_fuse(loss, model.head, DEVICE) else loss


LOSSES: dict[str, dict[str, Any]] = {
    "cross entropy": {"label_smoothing": 0.1},
    "focal": {"focal": 2.0},
    "ohem": {"ohem": (0.7, 0.1)},
    "dice": {"dice": 0.5},
    "lovasz": {"lovasz": 0.5},
}


@pytest.mark.parametrize(
    ("name", "capturable"), [*((name, True) for name in LOSSES), ("cross entropy", False), ("lovasz", False)]
)
def test_steps_do_not_wait_for_the_device(name: str, capturable: bool) -> None:
    model = network("dilated8-aux" if name == "focal" else "fcn8s")
    data = WatchedAfterWarmup(
        batches(4 * (step.WARMUP_STEPS + 5)), warm=step.WARMUP_STEPS + 2
    )  # the graph is captured by then
    train(
        model,
        data,
        fastest(model, Loss(**LOSSES[name])),
        average=MovingAverage(model, 0.9),
        grad_clip_norm=1.0,
        capturable=capturable,
    )
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_in_half_precision_do_not_wait_for_the_device(precision: Precision) -> None:
    model = network()
    data = WatchedAfterWarmup(batches(4 * (step.WARMUP_STEPS + 5)), warm=step.WARMUP_STEPS + 2)
    train(model, data, fastest(model, Loss()), precision=precision, capturable=True)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("head", ["fcn8s", "dilated8-aux"])
def test_a_replayed_graph_trains_like_single_operators(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.configure_determinism(DEVICE, deterministic=True)
    replayed: list[None] = []
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        replayed.append(None)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    weights = []
    for capturable in (False, True):
        model = network(head)
        replace_max_pooling(model, deterministic=True)
        for module in model.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0
        made = create_optimizer("sgd", model, lr=0.01, weight_decay=0.0, factors=LrFactors(), momentum=0.9)
        train(model, batches(32), fastest(model, Loss()), optimizer=made, epochs=2, capturable=capturable)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert len(replayed) == 2 * 8 - step.WARMUP_STEPS
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


def test_fp16_with_a_scaler_learns() -> None:
    model = network()
    data = batches(16)
    seen = train(model, data, fastest(model, Loss()), precision="fp16", epochs=8)
    assert seen[-1].loss < 0.9 * seen[0].loss


@pytest.mark.parametrize("channels", ["dense", "per_class"])
def test_the_fused_loss_has_the_gradients_of_float64(channels: Any) -> None:
    hardware.create_autocast(DEVICE, "fp32")  # turns TF32 off
    torch.manual_seed(0)
    up = TransposedUpsampler(7, 16, init="random", channels=channels)
    scores, labels = torch.randn(3, 7, 5, 6), create_labels((3, 80, 90), 7, 0)
    exact_up, exact = TransposedUpsampler(7, 16, channels=channels).double(), scores.double().requires_grad_()
    exact_up.load_state_dict(up.state_dict())
    value = F.cross_entropy(exact_up(exact, (80, 90)), labels.long(), ignore_index=255)
    expected = [value.detach(), *gradients_of(value, exact, exact_up.weight)]

    on_gpu, up = scores.to(DEVICE).requires_grad_(), up.to(DEVICE)
    loss = FusedUpsampleLoss(Loss(), Ending(up))(on_gpu, labels.to(DEVICE))
    found = [loss.detach(), *gradients_of(loss, on_gpu, up.weight)]
    for one, other in zip(found, expected, strict=True):
        assert close(one.double().cpu(), other, 1e-5)


def test_fp32_is_ieee_and_tf32_is_not() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    image, kernel = torch.randn(1, 256, 32, 32), torch.randn(64, 256, 3, 3)
    expected = left.double() @ right.double(), F.conv2d(image.double(), kernel.double())
    errors: dict[str, list[float]] = {}
    for precision in ("fp32", "tf32"):
        hardware.create_autocast(DEVICE, precision)
        found = left.to(DEVICE) @ right.to(DEVICE), F.conv2d(image.to(DEVICE), kernel.to(DEVICE))
        errors[precision] = [
            float((one.double().cpu() - other).norm() / other.norm())
            for one, other in zip(found, expected, strict=True)
        ]
    hardware.create_autocast(DEVICE, "fp32")
    assert max(errors["fp32"]) < 5e-6
    if torch.cuda.get_device_capability(DEVICE) >= (8, 0):
        assert errors["tf32"][0] > 5e-5


def test_the_environment_variable_selects_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.select_device() == DEVICE
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    assert hardware.select_device() == torch.device("cpu")


def test_exhausted_device_memory_is_recognized() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2**46, dtype=torch.uint8, device=DEVICE)
    assert hardware.is_out_of_memory(caught.value)
    assert float(torch.ones(3, device=DEVICE).sum()) == 3.0
    with pytest.raises(RuntimeError) as other:
        torch.ones(3, device=DEVICE) @ torch.ones(4, device=DEVICE)
    assert not hardware.is_out_of_memory(other.value)
