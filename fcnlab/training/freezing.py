"""Freezing of a backbone or of its batch norms."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fcnlab.errors import ModelError
from fcnlab.models import Backbone
from fcnlab.training.network import eval_mode


def set_batch_norm_mode(backbone: Backbone, mode: Literal["train", "eval", "frozen"]) -> None:
    """Set how the batch norms of a backbone behave in training.

    Args:
        backbone: changed in place.
        mode: `train` changes nothing, `eval` keeps the running statistics, `frozen` also the scale and shift.
    """
    if mode == "train":
        return
    norms = tuple(module for module in backbone.modules() if isinstance(module, _BatchNorm))
    if mode == "frozen":
        for norm in norms:
            norm.requires_grad_(False)
    backbone.eval_modules += norms


def freeze_backbone(backbone: Backbone, through: int | None = None) -> None:
    """Freeze a backbone: its parameters are not trained, and its batch norms and dropout stay in eval mode.

    Args:
        backbone: changed in place.
        through: stride of the last feature map to freeze; by default all.

    Raises:
        ModelError: there is no such map, or the layers before it cannot be identified.
    """
    modules = _find_modules_through(backbone, through) if through is not None else backbone.networks
    for module in modules:
        module.requires_grad_(False)
    if through is not None and _is_trained(backbone, through):
        raise _unidentified(through)
    backbone.eval_modules += tuple(modules)


def _is_trained(backbone: Backbone, reduction: int) -> bool:
    """Return True if a map depends on a trainable parameter, by a forward pass of one image.

    The name that timm gives for a map is wrong for HRNet: it is that of a stage before the ones that compute the map.
    """
    size = backbone.fixed_size or (64, 64)
    images = torch.zeros(1, backbone.in_channels, *size, device=next(backbone.parameters()).device)
    with eval_mode(backbone), torch.enable_grad():
        return backbone(images)[reduction].requires_grad


def _unidentified(through: int) -> ModelError:
    return ModelError(
        f"freeze: the layers up to stride {through} cannot be identified in this backbone; freeze all of it or none"
    )


def _find_modules_through(backbone: Backbone, through: int) -> list[nn.Module]:
    """Return the modules of the body that run completely before the end of the one that outputs a map.

    Containers are included, because some own parameters themselves: batch norms of timm own their activation, blocks
    own scales.
    """
    if through not in backbone.channels:
        strides = ", ".join(map(str, sorted(backbone.channels)))
        raise ModelError(f"freeze: the backbone has no map at stride {through}; it has maps at {strides}")
    leaves = [(name, module) for name, module in backbone.body.named_modules() if not list(module.children())]
    end = re.compile(rf"(?:^|_){_flatten_name(backbone.layer_name(through))}(?:_|$)")
    matches = [(match.start(), i) for i, (name, _) in enumerate(leaves) if (match := end.search(_flatten_name(name)))]
    if not matches:
        raise _unidentified(through)
    outermost = min(matches)[0]  # `act1` is that of the stem, not that of a later block
    last = max(i for start, i in matches if start == outermost)
    before = {module for _, module in leaves[: last + 1]}
    return [module for module in backbone.body.modules() if before.issuperset(_leaves(module))]


def _leaves(module: nn.Module) -> list[nn.Module]:
    """Return the modules without children in a module; the module itself if it has none."""
    return [inner for inner in module.modules() if not list(inner.children())]


def _flatten_name(name: Any) -> str:
    """Replace dots by underscores: timm flattens `layers.0` to `layers_0` in some models."""
    return str(name).replace(".", "_")
