"""The one place where what a file says becomes torch objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from fcnlab.data.augment import Augmentation
from fcnlab.data.base import Dataset
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.decoded import DecodedSplit
from fcnlab.models import FCN, HEADS, Backbone, TransposedUpsampler
from fcnlab.models.backbone import load_weights
from fcnlab.spec.config import Recipe, Schedule, Sgd, Upsampler, Variant
from fcnlab.streams import stream
from fcnlab.training import optim
from fcnlab.training.losses import REDUCTIONS, Loss


@dataclass(frozen=True)
class Training:
    """What `fit` needs beside the model."""

    batches: TrainingBatches
    optimizer: Optimizer
    factor: optim.Schedule
    loss: Loss


def build_model(variant: Variant, classes: int, seed: int, weights_file: Path | None = None) -> FCN:
    """Build a variant. The backbone, the head and each part of it start from their own stream of the seed.

    Raises:
        ModelError: timm lacks the backbone, its weights cannot be had, or it lacks a stride that the head needs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "backbone"))
        backbone = Backbone(variant.backbone.timm, pretrained=variant.backbone.weights == "timm")
        if weights_file is not None:
            load_weights(backbone, weights_file)
        torch.manual_seed(stream(seed, "head"))
        make_upsampler = partial(_upsampler, variant.upsampler)
        options = variant.head.model_dump(exclude={"about", "type"})
        head = HEADS[variant.head.type](backbone.channels, classes, make_upsampler, **options)
    return FCN(backbone, head)


def _upsampler(spec: Upsampler, classes: int, factor: int) -> nn.Module:
    return TransposedUpsampler(
        classes, factor, start=spec.start, channels=spec.channels, learned=spec.learned, bias=spec.bias
    )


def build_training(
    recipe: Recipe, model: FCN, dataset: Dataset, split: str, seed: int, device: torch.device
) -> Training:
    """Build what trains `model` by `recipe`.

    Raises:
        DataError: the split is missing or smaller than one batch.
    """
    mean, std = model.backbone.mean, model.backbone.std
    red, green, blue = (round(255 * value) for value in mean)
    batches = TrainingBatches(
        DecodedSplit(dataset.split(split)),
        batch=recipe.batch,
        augmentation=Augmentation(
            crop=(recipe.crop.height, recipe.crop.width),
            scale=recipe.scale,
            flip=recipe.flip,
            fill=(red, green, blue),
        ),
        mean=mean,
        std=std,
        seed=seed,
        device=device,
    )
    factor = _schedule(recipe.schedule, recipe.epochs, batches.steps)
    return Training(batches, _optimizer(recipe, model), factor, REDUCTIONS[recipe.loss.reduction])


def _schedule(spec: Schedule, epochs: int, steps: int) -> optim.Schedule:
    warmup = round(spec.warmup_epochs * steps)
    return optim.schedule(spec.name, steps=epochs * steps, warmup=warmup, power=spec.power)


def _optimizer(recipe: Recipe, model: FCN) -> Optimizer:
    spec = recipe.optimizer
    if isinstance(spec, Sgd):
        return optim.sgd(
            model, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, nesterov=spec.nesterov
        )
    return optim.adamw(model, lr=spec.lr, weight_decay=spec.weight_decay)
