"""Check that a network can be built, and that it accepts the crops of its recipe and the images of its dataset.

Networks run on the meta device, which computes shapes but no values. An error there is confirmed on the CPU, because
the code of some networks reads values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial, canonical
from fcnlab.config.variant import Variant
from fcnlab.console import format_size
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.errors import FcnlabError, ModelError, describe_error
from fcnlab.extensions.guard import USER_ERRORS
from fcnlab.lab import Lab
from fcnlab.runner.executors.call_process import Call
from fcnlab.training.protocol import scale_size
from fcnlab.version import __version__

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fcnlab.models import FCN

Size = tuple[int, int]

LARGEST_CROP = 512
"""Largest side of the crops that are tried to find one that a network accepts; above it, only the next one is tried."""


@dataclass(frozen=True)
class NetworkSetup:
    """A network and the sizes at which it is used. Setups are equal if their identities are.

    Attributes:
        identity: canonical JSON of everything that the check depends on.
        variant: configuration of the network.
        recipe: configuration of its training.
        num_classes: number of classes.
        channels: channels of the images.
        images: heights and widths of images on which the network is evaluated.
    """

    identity: str
    variant: Variant = field(compare=False)
    recipe: Recipe = field(compare=False)
    num_classes: int = field(compare=False)
    channels: int = field(compare=False)
    images: tuple[Size, ...] = field(compare=False)

    @classmethod
    def of(cls, trial: Trial, num_classes: int, images: tuple[Size, ...]) -> NetworkSetup:
        """Return the setup of a trial.

        Args:
            trial: the trial.
            num_classes: number of classes.
            images: heights and widths of the images on which it is evaluated.
        """
        recipe = trial.recipe
        scaled = tuple(dict.fromkeys(scale_size(size, recipe.score_scale) for size in images))
        content = trial.variant.content()
        content["backbone"].pop("weights", None)
        channels = trial.dataset.image_channels
        micro_batch = recipe.batch_size // recipe.grad_accum_steps
        identity = canonical(
            {
                "variant": content,
                "extension": trial.extensions.get("head"),
                "batch": min(micro_batch, 2),  # batch norm needs two values; more images change nothing
                "crop": recipe.crop.content(),
                "frozen": [recipe.batch_norm, recipe.freeze, recipe.activation_checkpointing],
                "classes": num_classes,
                "channels": channels,
                "images": scaled,
            }
        )
        return cls(identity, trial.variant, recipe, num_classes, channels, scaled)


def find_error(setup: NetworkSetup, lab: Lab, call: Call) -> str | None:
    """Return the reason for which a network cannot be trained or evaluated.

    Args:
        setup: the network and its sizes.
        lab: the lab of its extensions.
        call: calls the functions that import torch.

    Returns:
        One line with the remedy; None if the network accepts all sizes, which is cached.

    Raises:
        ConfigError: an extension cannot be loaded.
    """
    cache = _cache_file(setup)
    if read_json(cache):
        return None
    error, gmacs = call(_check, setup, lab)
    if error is None:
        write_json(cache, {"gmacs": gmacs})
    return error


def read_gmacs(setup: NetworkSetup) -> float | None:
    """Return the billions of multiply-accumulates of a forward pass of one crop.

    Args:
        setup: a network that has been checked.

    Returns:
        The number; None if it cannot be counted, or the network was not checked.
    """
    gmacs = read_json(_cache_file(setup)).get("gmacs")
    return float(gmacs) if gmacs else None


def _cache_file(setup: NetworkSetup) -> Path:
    versions = [__version__, *(version(name) for name in ("torch", "torchvision", "timm"))]
    return cache_file("networks", [setup.identity, versions])


def _check(setup: NetworkSetup, lab: Lab) -> tuple[str | None, float]:
    """Return the error of a network, and its GMACs; they are 0 if there is an error or they cannot be counted."""
    from fcnlab.training.cost import try_count_gmacs  # imports torch

    try:
        model = _build(setup, lab, "meta")
    except ModelError as error:
        return str(error), 0.0
    except FcnlabError:
        raise
    except USER_ERRORS:  # a head of an extension may compute values in its constructor
        try:
            model = _build(setup, lab, "cpu")
        except USER_ERRORS as error:  # whatever the constructor raises
            return f"the network cannot be built: {describe_error(error)}", 0.0
    problem = _check_training(setup, lab, model) or _check_evaluation(setup, lab, model)
    if problem is not None:
        return problem, 0.0
    crop = setup.recipe.crop
    return None, try_count_gmacs(model, (crop.height, crop.width), training=True) or 0.0


def _build(setup: NetworkSetup, lab: Lab, device: str) -> FCN:
    return build_network(setup.variant, setup.recipe, setup.num_classes, setup.channels, lab, device)


def build_network(variant: Variant, recipe: Recipe, num_classes: int, channels: int, lab: Lab, device: str) -> FCN:
    """Build a network without pretrained weights, and freeze the layers that its recipe freezes.

    Args:
        variant: configuration of the network.
        recipe: configuration of its training.
        num_classes: number of classes.
        channels: channels of the images.
        lab: the lab of its extensions.
        device: `meta` or `cpu`.

    Raises:
        ConfigError: an extension cannot be loaded.
        ModelError: the network cannot be built.
    """
    import warnings

    import torch

    from fcnlab.trial.build import build_model, checkpoint_activations, freeze_layers

    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_model(
            variant.from_scratch(), num_classes, seed=0, extensions=lab.extensions, in_channels=channels
        )
    freeze_layers(recipe, model.backbone)
    checkpoint_activations(recipe, model.backbone)
    return model


def _check_training(setup: NetworkSetup, lab: Lab, model: FCN) -> str | None:
    recipe = setup.recipe
    batch, crop = min(recipe.batch_size // recipe.grad_accum_steps, 2), (recipe.crop.height, recipe.crop.width)
    error = _try(setup, lab, model, batch, crop, training=True)
    if error is None:
        return None
    if isinstance(error, ModelError):
        return str(error)
    above = max(crop) // 32 * 32 + 32
    sides = [side for side in range(32, LARGEST_CROP + 1, 32) if side > min(crop)] or [above]
    accepted = next(
        (side for side in sides if _try(setup, lab, model, batch, (side, side), training=True, known=error) is None),
        None,
    )
    if accepted is None:  # not an error of the crop
        return f"the network cannot be trained on crops of {format_size(crop)} or larger: {describe_error(error)}"
    return (
        f"recipe.crop: the network cannot be trained on crops of {format_size(crop)} ({describe_error(error)}); use a "
        f"larger crop, such as {format_size((accepted, accepted))}"
    )


def _check_evaluation(setup: NetworkSetup, lab: Lab, model: FCN) -> str | None:
    crop = (setup.recipe.crop.height, setup.recipe.crop.width)
    for size in setup.images:
        error = _try(setup, lab, model, 1, size, training=False)
        if isinstance(error, ModelError):
            return f"evaluation: {error}"
        if error is None:
            continue
        if _try(setup, lab, model, 1, crop, training=False, known=error) is not None:  # not an error of the size
            return f"evaluation: the network cannot be evaluated: {describe_error(error)}"
        return f"evaluation: the network does not accept images of {format_size(size)}: {describe_error(error)}"
    return None


def _try(
    setup: NetworkSetup,
    lab: Lab,
    model: FCN,
    batch: int,
    size: Size,
    *,
    training: bool,
    known: Exception | None = None,
) -> Exception | None:
    """Run a forward pass; return its error, which is confirmed on the CPU unless it is one of fcnlab's.

    An error that is equal to `known`, which has been confirmed for another size, is not confirmed again.
    """
    error = _run(model, setup.num_classes, batch, size, training=training)
    if error is None or isinstance(error, ModelError) or next(model.parameters()).device.type == "cpu":
        return error
    if known is not None and describe_error(error) == describe_error(known):
        return error
    return _run(_build(setup, lab, "cpu"), setup.num_classes, batch, size, training=training)


def _run(model: FCN, num_classes: int, batch: int, size: Size, *, training: bool) -> Exception | None:
    import torch

    images = torch.zeros(batch, model.backbone.in_channels, *size, device=next(model.parameters()).device)
    handles = _watch_batch_norms(model, size) if training else []
    model.train(training)
    try:
        with torch.no_grad():
            scores, auxiliary = model.training_scores(images) if training else (model(images), None)
    except Exception as error:  # noqa: BLE001 - networks refuse sizes by assertions, shape errors and others
        return error
    finally:
        for handle in handles:
            handle.remove()
    expected = (batch, num_classes, *size)
    for name, found in (("scores", scores), ("auxiliary scores", auxiliary)):
        if found is not None and found.shape != expected:
            return ModelError(f"the head returns {name} of shape {tuple(found.shape)}, and not {expected}")
    return None


def _watch_batch_norms(model: FCN, crop: Size) -> list[torch.utils.hooks.RemovableHandle]:
    """Make each batch norm in training mode raise a `ModelError` for maps with one value per channel."""
    from torch.nn.modules.batchnorm import _BatchNorm

    in_backbone = {id(module) for module in model.backbone.modules()}

    def refuse(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        features = inputs[0]
        if module.training and features.numel() == features.shape[1]:
            raise ModelError(_explain_single_value(crop, in_backbone=id(module) in in_backbone))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm.register_forward_pre_hook(refuse) for norm in norms]


def _explain_single_value(crop: Size, *, in_backbone: bool) -> str:
    """Explain that a batch norm of a micro-batch of one image has a map of one pixel."""
    stride = 1 << (max(crop) - 1).bit_length()  # the first stride at which a crop has one pixel
    remedy = ", or batch_norm: eval" if in_backbone else ""
    if stride > 32:
        return (
            "recipe: batch norm in training mode sees one value per channel after global pooling: use a larger batch "
            f"or fewer grad_accum_steps{remedy}"
        )
    return (
        f"recipe: batch norm in training mode sees one value per channel at stride {stride}: use a larger crop or "
        f"batch{remedy}"
    )
