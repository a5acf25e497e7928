"""Backbones from timm: all models with feature maps at several strides, one of which is 32."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import timm
import torch.nn.functional as F
from timm.models import FeatureListNet
from torch import Tensor, nn

from fcnlab.console import format_size
from fcnlab.errors import ModelError
from fcnlab.models.backbones.base import Backbone, weights_unavailable
from fcnlab.models.backbones.chain import run_chain
from fcnlab.models.backbones.timm_fit import FeatureMap, find_fit, is_nhwc
from fcnlab.normalization import IMAGENET_MEAN, IMAGENET_STD, adapt_normalization


class TimmBackbone(Backbone):
    """A timm feature extractor.

    Maps are named by their reduction in the undilated model, also if later stages are dilated. If a model does not
    accept images of every size, or its maps do not cover the whole image, images are padded with zeros at the right and
    bottom to a multiple, and the maps are cropped to the image. Example: with a multiple of 32, an image of 65x97 is
    padded to 96x128; the map of reduction 32 has 3x4 features, all of which overlap the image and are kept, and the map
    of reduction 4 is cropped from 24x32 to ceil(65/4) x ceil(97/4) = 17x25. Networks whose convolutions do not pad
    (Inception) get a margin of zeros on all sides, whose features are cropped.

    Attributes:
        multiple: the sides of images are padded to multiples of it; 1 disables padding.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        output_stride: int = 32,
        tail: bool = False,
        in_channels: int = 3,
    ) -> None:
        """Build the feature extractor with timm.

        Args:
            name: name of a timm model, optionally with the tag of its weights.
            pretrained: load timm's pretrained weights instead of a random initialization.
            output_stride: 8 or 16 dilate the stages after this stride.
            tail: add the 1x1 convolution before the classifier's pooling to the deepest map.
            in_channels: channels of the images; timm adapts the pretrained weights of the first convolution.

        Raises:
            ModelError: timm has no such model, the model has no maps at several strides or none at 32, cannot be
                dilated or has no tail, or its weights cannot be downloaded.
        """
        super().__init__()
        self._name = name
        fit = find_fit(name, output_stride)
        self.multiple, self.fixed_size, self._margin, self._maps = fit.multiple, fit.fixed_size, fit.margin, fit.maps
        self.body = _create(name, fit.options, pretrained=pretrained, in_channels=in_channels)
        self._nhwc = is_nhwc(self.body)
        self.chain = _find_chain(self.body, self._maps)
        feature_info: Any = self.body.feature_info
        self.channels = {reduction: feature_info.channels()[map_.index] for reduction, map_ in self._maps.items()}
        if tail:
            self.tail, self.channels[32] = _tail(name, pretrained=pretrained)
        config: Any = self.body.pretrained_cfg
        self.mean = adapt_normalization(tuple(config.get("mean", IMAGENET_MEAN)), in_channels)
        self.std = adapt_normalization(tuple(config.get("std", IMAGENET_STD)), in_channels)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Compute feature maps.

        Args:
            images: normalized images [B, C, H, W].

        Returns:
            Maps by reduction r, each [B, channels[r], ceil(H/r), ceil(W/r)].

        Raises:
            ModelError: the model accepts one size only, and the images have another; or activation checkpointing is on
                and a layer outputs several maps.
        """
        height, width = images.shape[-2:]
        if self.fixed_size is not None and (height, width) != self.fixed_size:
            raise ModelError(
                f"timm's '{self._name}' accepts only images of {format_size(self.fixed_size)}, not "
                f"{format_size((height, width))}; crop and evaluate at that size, or choose another backbone"
            )
        padded = _pad(images, self.multiple, self._margin)
        maps = self._run_checkpointed(padded) if self.checkpointed else self.body(padded)
        found = {reduction: self._nchw(maps[map_.index]) for reduction, map_ in self._maps.items()}
        if self.tail is not None:
            found[32] = self.tail(found[32])
        if padded is images:
            return found
        return {
            reduction: _crop_to_image(map_, self._maps[reduction], height, width) for reduction, map_ in found.items()
        }

    def _run_checkpointed(self, images: Tensor) -> list[Tensor]:
        taps: Any = self.body.return_layers
        maps = list(run_chain(self.body, images, taps, self.checkpointed).values())
        if not all(isinstance(map_, Tensor) for map_ in maps):
            raise ModelError(f"activation_checkpointing: a layer of timm's '{self._name}' outputs several maps")
        return maps

    def layer_name(self, reduction: int) -> str:
        feature_info: Any = self.body.feature_info
        return str(feature_info.module_name()[self._maps[reduction].index])

    def rename(self, name: str) -> str:
        """Return the body's key for timm's name of a weight in the whole model.

        timm's feature extractors join the names of nested layers, as in `stages_0` for `stages.0`, or contain the whole
        model as `model`.

        Args:
            name: timm's name, such as `stages.0.blocks.0.gamma`.
        """
        children = self.body._modules
        first, _, rest = name.partition(".")
        if first in children or not rest:
            return name
        joined = f"{first}_{rest}"
        if joined.partition(".")[0] in children:
            return joined
        return f"model.{name}" if list(children) == ["model"] else name

    def _nchw(self, map_: Tensor) -> Tensor:
        return map_.permute(0, 3, 1, 2) if self._nhwc else map_


def _find_chain(body: nn.Module, maps: Mapping[int, FeatureMap]) -> dict[int, str]:
    """Return the layer of each map, by reduction, if timm runs the body's children in sequence."""
    if type(body) is not FeatureListNet:
        return {}
    taps: Any = body.return_layers
    layers = list(taps)
    return {reduction: layers[map_.index] for reduction, map_ in maps.items()}


def _crop_to_image(map_: Tensor, where: FeatureMap, height: int, width: int) -> Tensor:
    """Crop a map [B, C, h, w] of padded images to [B, C, ceil(height/s), ceil(width/s)] for its stride s."""
    rows, columns = (-(-side // where.stride) for side in (height, width))
    return map_[..., where.offset : where.offset + rows, where.offset : where.offset + columns]


def _pad(images: Tensor, multiple: int, margin: int) -> Tensor:
    """Pad images [B, C, H, W] with zeros at the right and bottom to a multiple, and with a margin on all sides."""
    right, below = -images.shape[-1] % multiple, -images.shape[-2] % multiple
    if not (right or below or margin):
        return images
    return F.pad(images, (margin, right + margin, margin, below + margin))


def _tail(name: str, *, pretrained: bool) -> tuple[nn.Module, int]:
    """Return timm's `conv_head` and `bn2` as one module, and its output channels."""
    model = _create(name, {}, pretrained=pretrained, features_only=False)
    conv, norm = (getattr(model, part, None) for part in ("conv_head", "bn2"))
    if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.Module)):
        raise ModelError(f"timm's '{name}' has no convolution between its last map and its pooling; leave out 'tail'")
    return nn.Sequential(OrderedDict(conv_head=conv, bn2=norm)), conv.out_channels


def _create(
    name: str, options: Mapping[str, Any], *, pretrained: bool, features_only: bool = True, in_channels: int = 3
) -> nn.Module:
    if in_channels != 3:
        options = {**options, "in_chans": in_channels}
    try:
        model: nn.Module = timm.create_model(name, features_only=features_only, pretrained=pretrained, **options)
        return model
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise weights_unavailable(f"the pretrained weights of '{name}'", error) from error
