"""Backbones from timm: all models with feature maps at several strides, one of which is 32."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import FeatureListNet
from torch import Tensor, nn

from fcnlab.errors import ModelError, nearest
from fcnlab.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, adapt_normalization, weights_unavailable
from fcnlab.models.backbones.chain import run_chain


class TimmBackbone(Backbone):
    """A timm feature extractor.

    Maps are named by their reduction in the undilated model, also if later stages are dilated. If a model does not
    accept images of every size, or its maps do not cover the whole image, images are padded with zeros at the right and
    bottom to a multiple, and the maps are cropped to the image. Example: with a multiple of 32, an image of 65x97 is
    padded to 96x128; the map of reduction 32 has 3x4 features, all of which overlap the image and are kept, and the map
    of reduction 4 is cropped from 24x32 to ceil(65/4) x ceil(97/4) = 17x25. Networks whose convolutions do not pad
    (Inception) get a margin of zeros on all sides, whose features are cropped.

    Attributes:
        multiple: the sides of images are padded to multiples of it; 1 is no padding.
        fixed_size: the only height and width that the model accepts, or None.
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
            name: of a timm model, optionally with the tag of its weights.
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
        self._nhwc = _is_nhwc(self.body)
        self.chain = _find_chain(self.body, self._maps)
        info: Any = self.body.feature_info
        self.channels = {reduction: info.channels()[map_.index] for reduction, map_ in self._maps.items()}
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
                f"timm's '{self._name}' accepts only images of {_by(self.fixed_size)}, not {_by((height, width))}; "
                "crop and evaluate at that size, or choose another backbone"
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
        """Return the name of the module in the body that outputs a map.

        Args:
            reduction: of the map.
        """
        info: Any = self.body.feature_info
        return str(info.module_name()[self._maps[reduction].index])

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


@dataclass(frozen=True)
class _Map:
    """Index of a map of the body, its stride, and its rows and columns in the margin."""

    index: int
    stride: int
    offset: int


@dataclass(frozen=True)
class _Fit:
    """Options of a model, its maps by reduction, and the padding of its images."""

    options: Mapping[str, Any]
    maps: Mapping[int, _Map]
    multiple: int = 1
    margin: int = 0
    fixed_size: tuple[int, int] | None = None


# Options that some models have for images of every size.
_FREEDOMS: tuple[dict[str, Any], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
_MULTIPLES = (1, 4, 32, 64, 128)
_MARGINS = (16, 32, 48, 64)


@functools.cache
def find_fit(name: str, output_stride: int) -> _Fit:
    """Determine the options and the padding of a model by trials on the meta device; the result is cached.

    Candidate paddings are tried from the smallest, at two image sizes that are least divisible, until all maps
    cover the image. Example: ConvNeXt's patches do not cover the last column of an image of width 129, so its map of
    reduction 4 is too small with multiple 1, and deeper maps are with multiple 4; 32 is the first multiple that works.

    Args:
        name: of a timm model.
        output_stride: 32, or 8 or 16 for dilation.

    Raises:
        ModelError: as `TimmBackbone`, except for weights.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = _plain_fit(name)
        return plain if output_stride == 32 else _dilated_fit(name, plain, output_stride)


def _plain_fit(name: str) -> _Fit:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ModelError(f"timm has no model '{architecture}'; {_similar(architecture)}")
    try:
        body, options = _with_stride_32(name)
    except Exception as error:  # whatever timm's models raise when they are asked for features
        raise ModelError(f"timm's '{name}' has no multi-scale features: {_reason(error)}") from error
    reductions = list(_nominal(body))
    if len(reductions) == 1 or 32 not in reductions:
        have = ", ".join(map(str, sorted(reductions)))
        raise ModelError(
            f"timm's '{name}' has maps at stride {have} only; a backbone needs several strides, one of them 32"
        )
    fits = list(_free_fits(name, body, options))
    return min(fits, key=lambda fit: (fit.multiple, fit.margin)) if fits else _fixed_fit(name, body, options)


def _with_stride_32(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model with its map of stride 32, which a few models have as a sixth, and its options."""
    body = _on_meta(name)
    info: Any = body.feature_info
    if 32 in info.reduction() or all(entry["reduction"] != 32 for entry in info.info):
        return body, {}
    options = {"out_indices": tuple(range(len(info.info)))}
    return _on_meta(name, **options), options


def _free_fits(name: str, body: nn.Module, options: dict[str, Any]) -> Iterator[_Fit]:
    """Yield the smallest padding for images of every size, without and with each option that the model has."""
    for freedom in _FREEDOMS:
        if freedom:
            try:
                body = _on_meta(name, **options, **freedom)
            except TypeError as error:
                if not any(option in str(error) for option in freedom):
                    raise
                continue  # the model has no such option
        fit = _least_padding(body, {**options, **freedom})
        if fit is not None:
            yield fit
            if fit.multiple <= 32:  # the stride of the deepest map; a smaller multiple saves little
                return


def _least_padding(body: nn.Module, options: dict[str, Any]) -> _Fit | None:
    wanted = _nominal(body)
    # Models with attention windows need multiples of their training size: windows have 1/32 of it at stride 32.
    own = max(_own_size(body))
    for multiple, margin in [(m, 0) for m in sorted({*_MULTIPLES, own})] + [(32, margin) for margin in _MARGINS]:
        found = [_maps(body, wanted, size, margin) for size in _sizes(multiple)]
        if len(found[0]) == len(wanted) and all(maps == found[0] for maps in found):
            return _Fit(options, found[0], multiple, margin)
    return None


def _fixed_fit(name: str, body: nn.Module, options: dict[str, Any]) -> _Fit:
    size = _own_size(body)
    maps = _maps(body, _nominal(body), size)
    if 32 not in maps:
        raise ModelError(f"timm's '{name}' has a map at stride 32 that does not cover the image")
    return _Fit(options, maps, fixed_size=size)


def _dilated_fit(name: str, plain: _Fit, output_stride: int) -> _Fit:
    refused = f"timm's '{name}' cannot be dilated to stride {output_stride}: "
    options = {**plain.options, "output_stride": output_stride}
    wanted = {reduction: (map_.index, min(reduction, output_stride)) for reduction, map_ in plain.maps.items()}
    sizes = [plain.fixed_size] if plain.fixed_size is not None else _sizes(plain.multiple)
    try:
        body = _on_meta(name, **options)
        height = _shapes(body, sizes[0], plain.margin)[wanted[32][0]][0]
    except Exception as error:  # whatever timm's models raise when they are asked for dilation
        unknown = isinstance(error, TypeError) or not str(error)
        raise ModelError(f"{refused}{'timm has no dilation for it' if unknown else _reason(error)}") from error
    if height < sizes[0][0] // output_stride:
        raise ModelError(f"{refused}it accepts the argument and ignores it")
    found = [_maps(body, wanted, size, plain.margin) for size in sizes]
    if len(found[0]) < len(wanted) or any(maps != found[0] for maps in found):
        raise ModelError(f"{refused}its maps no longer cover the image")
    return _Fit(options, found[0], plain.multiple, plain.margin, plain.fixed_size)


def _nominal(body: nn.Module) -> dict[int, tuple[int, int]]:
    """Return index and stride of the deepest map of each reduction, the end of its stage."""
    info: Any = body.feature_info
    return {reduction: (index, reduction) for index, reduction in enumerate(info.reduction())}


def _maps(
    body: nn.Module, wanted: Mapping[int, tuple[int, int]], size: tuple[int, int], margin: int = 0
) -> dict[int, _Map]:
    """Return the maps that cover an image of a size; none if the model does not accept the size."""
    try:
        shapes = _shapes(body, size, margin)
    except Exception:  # noqa: BLE001 - models refuse sizes by assertions, shape errors and others
        return {}
    maps = {}
    for reduction, (index, stride) in wanted.items():
        excess = [have - -(-side // stride) for have, side in zip(shapes[index], size, strict=True)]
        # Pooling with `ceil_mode` adds one row or column to those of the margin.
        if all(0 <= e <= 2 * margin // stride + 1 for e in excess):
            # A convolution without padding removes the same number of features on both sides.
            maps[reduction] = _Map(index, stride, min(excess) // 2 if margin else 0)
    return maps


def _shapes(body: nn.Module, size: tuple[int, int], margin: int = 0) -> list[tuple[int, int]]:
    """Return height and width of each map for images of a size with a margin on all sides."""
    maps: list[Tensor] = body(torch.empty(1, 3, size[0] + 2 * margin, size[1] + 2 * margin, device="meta"))
    return [(map_.shape[1], map_.shape[2]) if _is_nhwc(body) else (map_.shape[2], map_.shape[3]) for map_ in maps]


def _sizes(multiple: int) -> list[tuple[int, int]]:
    """Return image sizes for trying a multiple: those multiples that are least divisible, between 128 and 384."""
    if multiple < 64:
        return [(128 + multiple, 384 - multiple)]
    return [(multiple, 2 * multiple), (3 * multiple, multiple)]


def _on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        body: nn.Module = timm.create_model(name, features_only=True, **options)
    return body.eval()


def _find_chain(body: nn.Module, maps: Mapping[int, _Map]) -> dict[int, str]:
    """Return the layer of each map, by reduction, if timm runs the body's children in sequence."""
    if type(body) is not FeatureListNet:
        return {}
    taps: Any = body.return_layers
    layers = list(taps)
    return {reduction: layers[map_.index] for reduction, map_ in maps.items()}


def _own_size(body: nn.Module) -> tuple[int, int]:
    """Return the height and width of the model's training images in timm."""
    config: Any = body.pretrained_cfg
    height, width = (config.get("input_size") or (3, 224, 224))[1:]
    return height, width


def _is_nhwc(body: nn.Module) -> bool:
    return getattr(body, "output_fmt", "NCHW") == "NHWC"


def _crop_to_image(map_: Tensor, where: _Map, height: int, width: int) -> Tensor:
    """Crop a map [B, C, h, w] of padded images [B, 3, H, W] to [B, C, ceil(H/s), ceil(W/s)] for its stride s."""
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


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else f"timm raises {type(error).__name__}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _similar(name: str) -> str:
    """Return the nearest of timm's names, of which there are too many to list."""
    return nearest(name, timm.list_models()).partition("; valid:")[0].removeprefix("valid: ")[:200]
