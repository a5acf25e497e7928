"""Construction of PyTorch objects from a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from fcnlab.config.head import SmpHead
from fcnlab.config.recipe import Recipe
from fcnlab.config.upsampler import AnyUpsampler
from fcnlab.config.variant import Variant
from fcnlab.data.augmentation import build_augmentation
from fcnlab.data.batches import TrainingBatches, sample_images
from fcnlab.data.datasets.base import Dataset
from fcnlab.data.decoded import open_decoded
from fcnlab.data.parallel import StartProgress
from fcnlab.data.sample_transform import create_sample_transform
from fcnlab.errors import ModelError, nearest
from fcnlab.extensions import Extensions
from fcnlab.kernels.build import KERNELS, load_library
from fcnlab.models import FCN, HEADS, Backbone, Interpolation, PaperBackbone, TimmBackbone, TransposedUpsampler
from fcnlab.models.backbones.base import load_weights
from fcnlab.models.backbones.pretrained import check_pretrained
from fcnlab.models.backbones.timm_fit import find_fit
from fcnlab.models.fcn import load_weights_of_trial
from fcnlab.models.heads import CoarseHead, Head
from fcnlab.models.heads.smp import DECODERS
from fcnlab.seeding import derive_seed
from fcnlab.training.distributed import SINGLE_PROCESS, ProcessGroup, synchronize_batch_norm
from fcnlab.training.fast_layers import has_batch_norm_kernel, replace_batch_norm, replace_max_pooling
from fcnlab.training.fit import Training
from fcnlab.training.freezing import freeze_backbone, set_batch_norm_mode
from fcnlab.training.fused_loss import FusedUpsampleLoss, can_fuse
from fcnlab.training.loss_term import create_loss_term
from fcnlab.training.losses import Loss, compute_class_weights
from fcnlab.training.optim import MovingAverage, create_optimizer, create_schedule


def build_model(
    variant: Variant,
    num_classes: int,
    seed: int,
    *,
    weights_file: Path | None = None,
    extensions: Extensions = Extensions(),  # noqa: B008 - frozen
    in_channels: int = 3,
) -> FCN:
    """Build the model of a variant.

    Args:
        variant: configuration of the model.
        num_classes: number of classes.
        seed: seed of the trial; backbone and head are initialized from separate random streams.
        weights_file: weights of the backbone.
        extensions: heads that are not built in.
        in_channels: channels of the images.

    Raises:
        ModelError: timm has no such model, its weights cannot be downloaded, it lacks a stride that the head needs or
            cannot be dilated, or there is no such head.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "backbone"))
        backbone = build_backbone(variant, in_channels)
        if weights_file is not None:
            load_weights(backbone, weights_file, variant.backbone.weights_prefix)
        torch.manual_seed(derive_seed(seed, "head"))
        head = build_head(variant, backbone, num_classes, extensions)
    return FCN(backbone, head)


def restore_model(
    variant: Variant,
    num_classes: int,
    state: Mapping[str, Tensor],
    source: str,
    *,
    extensions: Extensions = Extensions(),  # noqa: B008 - frozen
    in_channels: int = 3,
) -> FCN:
    """Build a variant with given weights. Pretrained weights of its backbone are not loaded.

    Args:
        variant: the variant.
        num_classes: number of classes.
        state: state dict of the model.
        source: origin of the weights, for error messages.
        extensions: extensions that may contain the head.
        in_channels: channels of the images.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: the weights do not fit the variant.
    """
    model = build_model(variant.from_scratch(), num_classes, seed=0, extensions=extensions, in_channels=in_channels)
    load_weights_of_trial(model, state, source)
    return model.eval()


def prepare(variant: Variant) -> None:
    """Fill the caches that building a variant uses, for this process and processes that are forked from it.

    Args:
        variant: configuration of the model.

    Raises:
        ModelError: as `build_model`, except for weights.
    """
    spec = variant.backbone
    if spec.timm is not None:
        find_fit(spec.timm, variant.head.backbone_stride)
    if isinstance(variant.head, SmpHead):
        DECODERS[variant.head.decoder].load()
    for kernel in KERNELS:
        load_library(kernel)


def build_backbone(variant: Variant, in_channels: int = 3) -> Backbone:
    """Build the backbone of a variant, with the pretrained weights of timm or torchvision if these are set.

    Args:
        variant: configuration of the model.
        in_channels: channels of the images.

    Raises:
        ModelError: as `build_model`.
    """
    spec = variant.backbone
    check_pretrained(spec)
    if spec.paper is not None:
        if in_channels != 3:
            raise ModelError(
                f"the paper's {spec.paper} is for images of 3 channels, and the dataset has {in_channels}; use a "
                "backbone of timm"
            )
        return PaperBackbone(spec.paper, pretrained=spec.weights == "torchvision")
    assert spec.timm is not None
    return TimmBackbone(
        spec.timm,
        pretrained=spec.weights == "timm",
        output_stride=variant.head.backbone_stride,
        tail=spec.tail,
        in_channels=in_channels,
    )


def build_head(
    variant: Variant,
    backbone: Backbone,
    num_classes: int,
    extensions: Extensions = Extensions(),  # noqa: B008 - frozen
) -> Head:
    """Build the head of a variant.

    Args:
        variant: configuration of the model.
        backbone: backbone of the model.
        num_classes: number of classes.
        extensions: heads that are not built in.

    Raises:
        ModelError: the backbone lacks a stride that the head needs, there is no such head or option, or the class of
            the head does not set `output_stride`.
    """
    spec = variant.head
    head_class = HEADS[spec.type] if spec.type in HEADS else extensions.load("head", spec.type, Head)
    parameters = inspect.signature(head_class).parameters
    # A subclass of a head may pass `**options` on, and the head refuses the unknown ones.
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = sorted(spec.arguments.keys() - parameters.keys())
    if unknown and not takes_any:
        options = [name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
        raise ModelError(f"a head of type {spec.type} has no option '{unknown[0]}'; {nearest(unknown[0], options)}")
    make_upsampler = partial(_create_upsampler, variant.upsampler)
    # Heads that crop, such as the paper's, need to know where the features are located in the image.
    centers = {"centers": backbone.centers} if "centers" in parameters else {}
    head = head_class(backbone.channels, num_classes, make_upsampler, **centers, **spec.arguments)
    if not hasattr(head, "output_stride"):
        raise ModelError(
            f"a head of type {spec.type} does not set `output_stride`, the stride of its scores before the last "
            "upsampling"
        )
    return head


def _create_upsampler(spec: AnyUpsampler, num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
    if spec.type != "transposed":
        return Interpolation(factor, mode=spec.mode, to_size=spec.type == "resize")
    return TransposedUpsampler(
        num_classes,
        factor,
        init=spec.init_of(stage),
        channels=spec.channels,
        learned=spec.learned,
        bias=spec.bias,
        **geometry,
    )


def build_training(
    recipe: Recipe,
    model: FCN,
    dataset: Dataset,
    *,
    split: str,
    seed: int,
    group: ProcessGroup = SINGLE_PROCESS,
    trials_per_device: int = 1,
    extensions: Extensions = Extensions(),  # noqa: B008 - frozen
    progress: StartProgress | None = None,
) -> Training:
    """Build the objects that train a model, and freeze the layers that the recipe freezes.

    Args:
        recipe: configuration of the training.
        model: the network on the device that trains; changed in place.
        dataset: dataset with the split.
        split: name of the split to train on.
        seed: seed of the trial.
        group: processes that share the batches.
        trials_per_device: number of trials that share the memory of the device.
        extensions: extensions that may contain the loss and the transform of the recipe.
        progress: called when the split is decoded.

    Raises:
        ConfigError: the loss or the transform of the recipe cannot be created.
        DataError: the split is missing or has fewer images than the recipe needs.
        ModelError: there is no map at the stride of `freeze` or `activation_checkpointing`,
            or devices cannot share a batch norm.
    """
    device = next(model.parameters()).device
    mean, std = model.backbone.mean, model.backbone.std
    num_classes = len(dataset.classes)
    decoded = open_decoded(dataset, split, progress)
    indices = sample_images(recipe.count_images(len(decoded)), len(decoded), seed)
    batches = TrainingBatches(
        decoded,
        batch_size=recipe.batch_size,
        augmentation=build_augmentation(recipe, mean),
        mean=mean,
        std=std,
        seed=seed,
        device=device,
        batch_slice=group.batch_slice,
        trials_per_device=trials_per_device,
        transform=create_sample_transform(recipe.transform, num_classes, extensions),
        indices=indices,
        steps_per_epoch=recipe.steps_per_epoch,
    )
    _prepare_layers(recipe, model, group, device)
    loss = _create_loss(recipe, (decoded[index].label for index in indices), num_classes, device, extensions)
    fused = recipe.fused == "auto" and can_fuse(loss, model.head, device)
    return Training(
        batches,
        FusedUpsampleLoss(loss, cast(CoarseHead, model.head)) if fused else loss,
        create_optimizer(model=model, factors=recipe.lr_factors, decay=recipe.decay, **recipe.optimizer.model_dump()),
        create_schedule(
            steps=recipe.epochs * batches.steps,
            warmup=round(recipe.schedule.warmup_epochs * batches.steps),
            **recipe.schedule.model_dump(exclude={"warmup_epochs"}),
        ),
        grad_clip_norm=recipe.grad_clip_norm,
        average=MovingAverage(model, recipe.ema) if recipe.ema is not None else None,
        # Recomputation saves and restores the state of the random generator, which waits for the host.
        capturable=recipe.activation_checkpointing == "none" and (loss.custom is None or loss.custom.capturable),
        from_cache=decoded.from_cache,
    )


def _prepare_layers(recipe: Recipe, model: FCN, group: ProcessGroup, device: torch.device) -> None:
    """Replace layers by faster or deterministic ones, and freeze, synchronize and recompute as the recipe sets."""
    # A compiled model has pooling kernels of its own, which only need to be replaced where results must repeat.
    if device.type == "cuda" and (recipe.deterministic or not recipe.compile):
        replace_max_pooling(model, deterministic=recipe.deterministic)
    # On CUDA, torch.compile has kernels of its own, and recomputation its own statistics. Processes need SyncBatchNorm.
    keeps_norms = device.type == "cuda" and (recipe.compile or recipe.activation_checkpointing != "none")
    if group.size == 1 and not keeps_norms and has_batch_norm_kernel(device):
        replace_batch_norm(model, (recipe.crop.height, recipe.crop.width))
    freeze_layers(recipe, model.backbone)
    synchronize_batch_norm(model, group, device)  # after freezing: frozen norms need no synchronization
    checkpoint_activations(recipe, model.backbone)


def freeze_layers(recipe: Recipe, backbone: Backbone) -> None:
    """Freeze the layers and the batch norms that a recipe freezes.

    Args:
        recipe: configuration of the training.
        backbone: changed in place.

    Raises:
        ModelError: there is no map at the stride of `freeze`, or its layers cannot be identified.
    """
    set_batch_norm_mode(backbone, recipe.batch_norm)
    if recipe.freeze != "none":
        freeze_backbone(backbone, _parse_stride(recipe.freeze))


def checkpoint_activations(recipe: Recipe, backbone: Backbone) -> None:
    """Recompute the activations that a recipe does not store.

    Args:
        recipe: configuration of the training.
        backbone: changed in place.

    Raises:
        ModelError: the backbone is not a chain of layers, or has no map at the stride of `activation_checkpointing`.
    """
    if recipe.activation_checkpointing != "none":
        backbone.checkpoint_activations(_parse_stride(recipe.activation_checkpointing))


def _parse_stride(part: str) -> int | None:
    """Return the number in `stride8`; None for `backbone`, the whole backbone."""
    return None if part == "backbone" else int(part.removeprefix("stride"))


def _create_loss(
    recipe: Recipe, labels: Iterable[Tensor], num_classes: int, device: torch.device, extensions: Extensions
) -> Loss:
    spec, weights = recipe.loss, None
    if spec.class_weights == "median_frequency":
        weights = compute_class_weights(labels, num_classes).to(device)
    options = spec.model_dump(exclude={"name", "class_weights", "ohem", "custom"})
    if spec.ohem is not None:
        options["ohem"] = (spec.ohem.threshold, spec.ohem.keep)
    if spec.custom is not None:
        options["custom"] = create_loss_term(spec.custom, num_classes, extensions).to(device)
        options["custom_weight"] = spec.custom.weight
    return Loss(class_weights=weights, **options)
