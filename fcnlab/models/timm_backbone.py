"""Backbones from timm, every one that exposes multi-scale features."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from fcnlab.errors import ModelError, nearest
from fcnlab.models.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone


class TimmBackbone(Backbone):
    """A timm feature extractor.

    Reductions are nominal: those of the undilated model. With an `output_stride` of 8 or 16 the stages beyond it keep
    that stride by dilation, and their maps are still found under 16 and 32.
    """

    def __init__(self, name: str, *, pretrained: bool = False, output_stride: int = 32) -> None:
        """Build `name`, with random weights or with timm's pretrained ones.

        Raises:
            ModelError: no such model in timm, a model without multi-scale features or that cannot be dilated, or
                weights out of reach.
        """
        super().__init__()
        self.body = _create(name, pretrained, output_stride)
        info: Any = self.body.feature_info
        reductions = info.reduction() if output_stride == 32 else _plain_reductions(name)
        # The deepest map of each reduction: the one that a paper would call the end of its stage.
        self._index = {reduction: i for i, reduction in enumerate(reductions)}
        self.channels = {reduction: info.channels()[i] for reduction, i in self._index.items()}
        config: Any = self.body.pretrained_cfg
        self.mean = tuple(config.get("mean", IMAGENET_MEAN))
        self.std = tuple(config.get("std", IMAGENET_STD))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map normalised images [B, 3, H, W] to features by reduction r, each [B, channels[r], ~H/r, ~W/r]."""
        maps = self.body(images)
        return {reduction: maps[i] for reduction, i in self._index.items()}

    def module_of(self, reduction: int) -> str:
        """The name of the module in the body whose output is the map of a reduction."""
        info: Any = self.body.feature_info
        return str(info.module_name()[self._index[reduction]])


def _create(name: str, pretrained: bool, output_stride: int) -> nn.Module:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ModelError(f"timm has no model '{architecture}'; {_similar(architecture)}")
    dilation = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        model: nn.Module = timm.create_model(name, features_only=True, pretrained=pretrained, **dilation)
        return model
    except (AttributeError, NotImplementedError) as error:
        raise ModelError(f"timm's '{name}' exposes no multi-scale features: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the pretrained weights of '{name}' cannot be fetched ({reason}); fetch them once where there is a "
            "network, name a local file as the backbone's weights, or start from scratch"
        ) from error


def _plain_reductions(name: str) -> list[int]:
    """The reductions of the undilated model, on the meta device: nothing is computed."""
    with torch.device("meta"):
        plain: Any = timm.create_model(name.partition(".")[0], features_only=True)
    reductions: list[int] = plain.feature_info.reduction()
    return reductions


def _similar(name: str) -> str:
    """The nearest of timm's 1,000 names; too many to list them all."""
    return nearest(name, timm.list_models()).partition("; valid:")[0].removeprefix("valid: ")[:200]
