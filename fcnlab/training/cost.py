"""Costs of a model: parameters, multiply-accumulates, memory, time and receptive field."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from fcnlab.errors import first_line
from fcnlab.models import FCN, Backbone, TransposedUpsampler
from fcnlab.redaction import get_logger
from fcnlab.training import hardware
from fcnlab.training.network import eval_mode


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """Count the elements of the parameters of a module.

    Args:
        module: any module.
        trainable: count only trainable parameters.
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def split_components(model: FCN) -> dict[str, nn.Module]:
    """Split the parameters of a model into those of its backbone, its head without upsamplers, and its upsamplers.

    Args:
        model: the network.

    Returns:
        Modules with these parameters by the names `backbone`, `head` and `upsamplers`.
    """
    upsamplers = nn.ModuleList(module for module in model.head.modules() if isinstance(module, TransposedUpsampler))
    in_upsamplers = {id(parameter) for parameter in upsamplers.parameters()}
    head = nn.ParameterList(p for p in model.head.parameters() if id(p) not in in_upsamplers)
    return {"backbone": model.backbone, "head": head, "upsamplers": upsamplers}


@torch.no_grad()
def count_gmacs(model: FCN, size: tuple[int, int], *, training: bool = False) -> float:
    """Count the billions of multiply-accumulates of a forward pass of one image.

    This is half of what torch's FlopCounterMode counts: a multiplication and an addition are two floating-point
    operations. Only shapes are computed.

    Args:
        model: the network.
        size: height and width of the image.
        training: include an auxiliary head, which runs only in training.
    """
    meta = _copy_to_meta(model).eval()
    with FlopCounterMode(display=False) as counter:
        images = torch.zeros(1, model.backbone.in_channels, *size, device="meta")
        meta.training_scores(images) if training else meta(images)
    return counter.get_total_flops() / 2e9


def try_count_gmacs(model: FCN, size: tuple[int, int], *, training: bool = False) -> float | None:
    """Count the multiply-accumulates as `count_gmacs`.

    Args:
        model: the network.
        size: height and width of the image.
        training: include an auxiliary head.

    Returns:
        Billions of multiply-accumulates; None, with a logged reason, if the network does not accept the size, or cannot
        be run without values.
    """
    try:
        return count_gmacs(model, size, training=training)
    except Exception as error:
        if hardware.is_out_of_memory(error):
            raise
        # Networks refuse sizes by assertions, shape errors and others.
        get_logger("fcnlab").warning(f"no GMACs of an image of {size[0]}x{size[1]}: {first_line(error)}")
        return None


def _copy_to_meta(model: FCN) -> FCN:
    """Copy a model to the meta device without copying its parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor.to("meta") for tensor in tensors})


def measure_activation_bytes(model: FCN, size: tuple[int, int]) -> int:
    """Measure the activations that a training step in float32 stores for the backward pass of one image.

    Args:
        model: the network.
        size: height and width of the image.

    Returns:
        Their size in bytes, without weights.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            stored[storage._cdata] = storage.nbytes()
        return tensor

    # Batch norm in training mode rejects maps of one pixel of a single image, and stores the same tensors in eval mode.
    with eval_mode(model), saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = model.training_scores(torch.zeros(1, model.backbone.in_channels, *size, device=_device(model)))
    del scores
    return sum(stored.values())


def measure_receptive_fields(
    backbone: Backbone, reductions: Iterable[int], *, longest: int = 4096
) -> dict[int, int | None]:
    """Measure the theoretical receptive fields of feature maps along the height, in eval mode.

    A field is the extent of the gradient of one feature in a strip of an image, for a copy of the network in which
    gradients cannot cancel or vanish: all weights are positive, no unit saturates, and average pooling replaces maximum
    pooling.

    Args:
        backbone: the backbone; it is not changed.
        reductions: strides of the feature maps.
        longest: longest strip to try, in pixels. A backbone that accepts only one size gets an image of this size.

    Returns:
        Pixels by stride; None for a field that is larger than the strip, as with global pooling.
    """
    positive = _make_positive(backbone).eval()
    generator = torch.Generator().manual_seed(0)
    fields: dict[int, int | None] = dict.fromkeys(reductions)
    remaining = list(fields)
    strips = [(height, 32) for height in (1024, 2048, 4096) if height <= longest]
    for height, width in strips if backbone.fixed_size is None else [backbone.fixed_size]:
        if not remaining:
            break
        strip = torch.rand(1, backbone.in_channels, height, width, generator=generator).requires_grad_()
        maps = positive(strip)
        for reduction in remaining.copy():
            map_ = maps[reduction]
            feature = map_[0, :, map_.shape[2] // 2, map_.shape[3] // 2].sum()
            (gradient,) = torch.autograd.grad(feature, strip, retain_graph=True)
            rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
            if not len(rows):  # the field is unlimited, and its gradient vanishes in float32
                remaining.remove(reduction)
            elif rows[0] > 0 and rows[-1] < height - 1:  # the strip is longer than the field
                remaining.remove(reduction)
                fields[reduction] = int(rows[-1] - rows[0]) + 1
    return fields


def _make_positive(backbone: Backbone) -> Backbone:
    """Copy a backbone to the CPU with positive weights and without operators that block gradients."""
    positive = copy.deepcopy(backbone).cpu()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in positive.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_((0.5 + torch.rand(parameter.shape, generator=generator)) / inputs)
    for module in list(positive.modules()):
        for name, child in module.named_children():
            setattr(module, name, _make_unselective(child))
    return positive


def _make_unselective(module: nn.Module) -> nn.Module:
    """Replace a module that selects one input or saturates by one that passes every gradient."""
    if isinstance(module, nn.MaxPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    return nn.ReLU() if isinstance(module, nn.ReLU6) else module


SPEED_BATCH = 8
"""Default batch size of the throughput."""


@dataclass(frozen=True)
class Speed:
    """Median speed of the forward pass.

    Attributes:
        latency: seconds for a batch of one image.
        images_per_s: throughput with batches of several images.
    """

    latency: float
    images_per_s: float


@torch.inference_mode()
def measure_speed(model: FCN, size: tuple[int, int], *, batch: int = SPEED_BATCH, repeats: int = 10) -> Speed:
    """Measure the forward pass in float32 on the device of the model, after one warm-up pass.

    Args:
        model: the network.
        size: height and width of the images.
        batch: batch size of the throughput.
        repeats: number of timed passes.
    """
    with eval_mode(model):
        latency, batch_seconds = (_measure_median_seconds(model, n, size, repeats) for n in (1, batch))
    return Speed(latency, batch / batch_seconds)


def _measure_median_seconds(model: FCN, batch: int, size: tuple[int, int], repeats: int) -> float:
    shape = (batch, model.backbone.in_channels, *size)
    images = torch.randn(shape, device=_device(model)).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model(images)
        hardware.synchronize(images.device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])  # without the warm-up pass


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
