"""Our own side of the comparison of training: the pieces that a trial is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal, cast

import torch

from fcnlab.bench.images import CLASSES, split_of
from fcnlab.data.augment import Augmentation
from fcnlab.data.base import Pair
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.decoded import DecodedSplit
from fcnlab.models import FCN
from fcnlab.models.heads import CoarseHead
from fcnlab.spec import config
from fcnlab.spec.catalog import builtin
from fcnlab.training import hardware, optim
from fcnlab.training.fit import fit
from fcnlab.training.fused import FusedUpsampleLoss, fusible
from fcnlab.training.losses import Loss
from fcnlab.trial.build import build_model


def network(backbone: str, head: str) -> FCN:
    """A variant from random weights whose upsamplers are as torch users have them: dense, bilinear, with a bias."""
    catalog = builtin()
    variant = config.Variant(
        backbone=config.Backbone(timm=backbone),
        head=cast(config.Head, catalog.get("head", head)),
        upsampler=cast(config.Upsampler, catalog.get("upsampler", "d2l-bilinear")),
    )
    return build_model(variant, CLASSES, seed=0).to(memory_format=torch.channels_last)


def epochs(
    pairs: Sequence[Pair],
    precision: str,
    backbone: str,
    head: str,
    batch: int,
    crop: tuple[int, int],
    again: int | None = None,
) -> Callable[[], int]:
    """Trains for an epoch at each call, in float32 or in bfloat16 autocast; returns how many images it was.

    The backbone is computed `again` up to this stride in the backward pass, if one is given.

    Raises:
        ModelError: such a backbone cannot be computed again in parts.
    """
    device = torch.device("cpu")
    model = network(backbone, head)
    if again is not None:
        model.backbone.recompute(again)
    mean, std = model.backbone.mean, model.backbone.std
    red, green, blue = (round(255 * value) for value in mean)
    batches = TrainingBatches(
        DecodedSplit(split_of(list(pairs))),
        batch=batch,
        augmentation=Augmentation(crop, None, 0.5, (red, green, blue)),
        mean=mean,
        std=std,
        seed=0,
        device=device,
    )
    loss = Loss()
    assert fusible(loss, model.head), "a skip head with a transposed convolution"
    numbers = count()

    def epoch() -> int:
        number = next(numbers)
        fit(
            model,
            batches,
            epochs=number + 1,
            start=number,
            loss=fused,
            optimizer=optimizer,
            factor=lambda _: 1.0,
            autocast=hardware.autocast(device, cast(Literal["fp32", "bf16"], precision)),
            after_epoch=lambda _: None,
        )
        return batches.steps * batch

    fused = FusedUpsampleLoss(loss, cast(CoarseHead, model.head))
    optimizer = optim.optimizer("sgd", model, lr=0.01, weight_decay=1e-4, momentum=0.9)
    return epoch
