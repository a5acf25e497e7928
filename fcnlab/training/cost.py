"""What a model costs: parameters, multiply-accumulates, memory, time, and how far it sees."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from fcnlab.models import FCN, Backbone, TransposedUpsampler
from fcnlab.training import hardware


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """How many numbers a module holds as parameters; with `trainable`, those that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def split_components(model: FCN) -> dict[str, nn.Module]:
    """A model's backbone, its head without what upsamples, and its upsamplers."""
    ups = [module for module in model.head.modules() if isinstance(module, TransposedUpsampler)]
    inside = {id(module) for up in ups for module in up.modules()}
    own = [m for m in model.head.modules() if not any(m.children()) and id(m) not in inside]
    return {"backbone": model.backbone, "head": nn.ModuleList(own), "upsamplers": nn.ModuleList(ups)}


@torch.no_grad()
def count_gmacs(model: FCN, size: tuple[int, int], *, training: bool = False) -> float:
    """Billions of multiply-accumulates of one forward of one image [1, 3, *size].

    With `training` an auxiliary head counts too, which is computed only then. Half of what torch's FlopCounterMode
    counts: a multiply and an add are two floating-point operations. Nothing is computed, for shapes are enough.
    """
    shape = _without_numbers(model).eval()
    with FlopCounterMode(display=False) as counter:
        images = torch.zeros(1, 3, *size, device="meta")
        shape.training_scores(images) if training else shape(images)
    return counter.get_total_flops() / 2e9


def _without_numbers(model: FCN) -> FCN:
    """A copy whose parameters and buffers are on the meta device, made without copying a single one of them."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor.to("meta") for tensor in tensors})


def measure_activation_bytes(model: FCN, size: tuple[int, int]) -> int:
    """Bytes that a training step in float32 keeps of one image [1, 3, *size] for its backward pass."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    # Batch norm in training mode refuses maps of one pixel for one image, and keeps the same tensors anyhow.
    with _evaluating(model), saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = model.training_scores(torch.zeros(1, 3, *size, device=_device(model)))
    del scores
    return sum(kept.values())


def measure_receptive_field(backbone: Backbone, reduction: int, *, longest: int = 4096) -> int | None:
    """How many pixels in a column one feature of the map of a reduction sees; None for all that there are.

    Read off the gradient of one feature in a strip of an image, for a copy of the network in which nothing can cancel:
    all weights positive, no unit saturated, maximum pooling replaced by the average. So it is the theoretical field,
    in eval mode.
    """
    positive = _positive(backbone).eval()
    generator = torch.Generator().manual_seed(0)
    height = 1024
    while height <= longest:
        strip = torch.rand(1, 3, height, 32, generator=generator).requires_grad_()
        map_ = positive(strip)[reduction]
        map_[0, :, map_.shape[2] // 2, map_.shape[3] // 2].sum().backward()
        assert strip.grad is not None
        rows = strip.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        if not len(rows):
            return None
        first, last = int(rows[0]), int(rows[-1])
        if first > 0 and last < height - 1:
            return last - first + 1
        height *= 2
    return None


def _positive(backbone: Backbone) -> Backbone:
    positive = copy.deepcopy(backbone).cpu()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in positive.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_((0.5 + torch.rand(parameter.shape, generator=generator)) / inputs)
    for module in list(positive.modules()):
        for name, child in module.named_children():
            setattr(module, name, _unselective(child))
    return positive


def _unselective(module: nn.Module) -> nn.Module:
    """What lets every gradient through in the place of what picks one input or saturates."""
    if isinstance(module, nn.MaxPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    return nn.ReLU() if isinstance(module, nn.ReLU6) else module


@dataclass(frozen=True)
class Speed:
    """Seconds of one image alone, and images a second in a batch; medians over `repeats`."""

    latency: float
    images_per_s: float
    batch: int
    repeats: int


@torch.inference_mode()
def measure_speed(model: FCN, size: tuple[int, int], *, batch: int = 8, repeats: int = 10) -> Speed:
    """Measure the forward pass in float32 where the model lies, after a pass that warms up."""
    with _evaluating(model):
        one, many = (_median_seconds(model, n, size, repeats) for n in (1, batch))
    return Speed(one, batch / many, batch, repeats)


def _median_seconds(model: FCN, batch: int, size: tuple[int, int], repeats: int) -> float:
    images = torch.randn(batch, 3, *size, device=_device(model)).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        model(images)
        hardware.synchronize(images.device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
