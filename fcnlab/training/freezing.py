"""What of a backbone does not learn."""

from __future__ import annotations

import re
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fcnlab.errors import ModelError
from fcnlab.models import Backbone


def set_batch_norm_mode(backbone: Backbone, mode: Literal["train", "eval", "frozen"]) -> None:
    """`eval` keeps the running statistics of every batch norm; `frozen` its scale and shift as well."""
    if mode == "train":
        return
    norms = tuple(module for module in backbone.modules() if isinstance(module, _BatchNorm))
    if mode == "frozen":
        for norm in norms:
            norm.requires_grad_(False)
    backbone.still += norms


def freeze_backbone(backbone: Backbone, through: int | None = None) -> None:
    """Freeze the backbone up to its map of reduction `through`, or all of it: parameters, statistics, dropout.

    Raises:
        ModelError: there is no such map, or it cannot be told which parameters lie before it.
    """
    modules = _modules_through(backbone, through) if through is not None else backbone.networks
    for module in modules:
        module.requires_grad_(False)
    backbone.still += tuple(modules)


def _modules_through(backbone: Backbone, through: int) -> list[nn.Module]:
    """The modules, in the order of the body, that lie wholly before the end of the one that makes the map.

    Not those without children alone: batch norms of timm hold their activation, blocks hold scales of their own.
    """
    if through not in backbone.channels:
        have = ", ".join(map(str, sorted(backbone.channels)))
        raise ModelError(f"nothing to freeze at stride {through}; the backbone has maps at {have}")
    leaves = [(name, module) for name, module in backbone.body.named_modules() if not list(module.children())]
    end = re.compile(rf"(?:^|_){_plain(backbone.module_of(through))}(?:_|$)")
    found = [(match.start(), i) for i, (name, _) in enumerate(leaves) if (match := end.search(_plain(name)))]
    if not found:
        raise ModelError(f"the backbone does not say where its map at stride {through} ends; freeze all or nothing")
    outermost = min(found)[0]  # `act1` is the stem's, not the one of a later block
    last = max(i for start, i in found if start == outermost)
    before = {module for _, module in leaves[: last + 1]}
    return [module for module in backbone.body.modules() if before.issuperset(_leaves(module))]


def _leaves(module: nn.Module) -> list[nn.Module]:
    """The modules without children in one, itself if it has none."""
    return [inner for inner in module.modules() if not list(inner.children())]


def _plain(name: Any) -> str:
    """A module's path with underscores: timm flattens `layers.0` to `layers_0` in some models."""
    return str(name).replace(".", "_")
