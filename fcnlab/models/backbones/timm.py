"""Backbones from timm, every one that exposes maps at several strides with 32 among them."""

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
from fcnlab.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, out_of_reach
from fcnlab.models.backbones.chain import chained


class TimmBackbone(Backbone):
    """A timm feature extractor.

    Reductions are nominal: those of the undilated model. With an `output_stride` of 8 or 16 the stages beyond it keep
    that stride by dilation, and their maps are still found under 16 and 32.

    Where a model does not take every size, or its maps stop short of the border, the normalised images are padded with
    zeros at the right and below to a multiple of `multiple`, and the maps are cut to what lies over the image. The few
    nets whose convolutions pad nowhere (Inception) are padded all round, so that their maps lie where others' do.

    Attributes:
        multiple: what the sides of the images are padded to; 1 where the model takes every size as it is.
        fixed_size: the one size (height, width) that the model takes, or None.
    """

    def __init__(self, name: str, *, pretrained: bool = False, output_stride: int = 32, tail: bool = False) -> None:
        """Build `name`, with random weights or with timm's pretrained ones.

        With a `tail` the deepest map is what the classifier pools: it went through one more 1x1 convolution.

        Raises:
            ModelError: no such model in timm, a model without maps at several strides or none at 32, one that cannot
                be dilated or has no tail, or weights out of reach.
        """
        super().__init__()
        self._name = name
        fit = find_fit(name, output_stride)
        self.multiple, self.fixed_size, self._margin, self._maps = fit.multiple, fit.fixed_size, fit.margin, fit.maps
        self.body = _create(name, fit.options, pretrained=pretrained)
        self._nhwc = _is_nhwc(self.body)
        self.chain = _chain(self.body, self._maps)
        info: Any = self.body.feature_info
        self.channels = {reduction: info.channels()[map_.index] for reduction, map_ in self._maps.items()}
        if tail:
            self.tail, self.channels[32] = _tail(name, pretrained=pretrained)
        config: Any = self.body.pretrained_cfg
        self.mean = tuple(config.get("mean", IMAGENET_MEAN))
        self.std = tuple(config.get("std", IMAGENET_STD))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map normalised images [B, 3, H, W] to features by reduction r, each [B, channels[r], ~H/r, ~W/r].

        Raises:
            ModelError: the model takes images of one size alone, and these have another; or what is to be computed
                again gives several maps at once.
        """
        height, width = images.shape[-2:]
        if self.fixed_size is not None and (height, width) != self.fixed_size:
            raise ModelError(
                f"timm's '{self._name}' takes images of {_by(self.fixed_size)} alone, not {_by((height, width))}; "
                "crop and score at that size, or choose a backbone that takes any"
            )
        padded = _padded(images, self.multiple, self._margin)
        maps = self._chained(padded) if self.again else self.body(padded)
        found = {reduction: self._nchw(maps[map_.index]) for reduction, map_ in self._maps.items()}
        if self.tail is not None:
            found[32] = self.tail(found[32])
        if padded is images:
            return found
        return {
            reduction: _over_the_image(map_, self._maps[reduction], height, width) for reduction, map_ in found.items()
        }

    def _chained(self, images: Tensor) -> list[Tensor]:
        taps: Any = self.body.return_layers
        maps = list(chained(self.body, images, taps, self.again).values())
        if not all(isinstance(map_, Tensor) for map_ in maps):
            raise ModelError(f"a layer of timm's '{self._name}' gives several maps; such cannot be computed again")
        return maps

    def module_of(self, reduction: int) -> str:
        """The name of the module in the body whose output is the map of a reduction."""
        info: Any = self.body.feature_info
        return str(info.module_name()[self._maps[reduction].index])

    def _nchw(self, map_: Tensor) -> Tensor:
        return map_.permute(0, 3, 1, 2) if self._nhwc else map_


@dataclass(frozen=True)
class _Map:
    """Which of the body's maps it is, its true stride, and how many rows and columns of it lie in the margin."""

    index: int
    stride: int
    offset: int


@dataclass(frozen=True)
class _Fit:
    """How a model is built, its maps by nominal reduction, and what its images must be like for them."""

    options: Mapping[str, Any]
    maps: Mapping[int, _Map]
    multiple: int = 1
    margin: int = 0
    fixed_size: tuple[int, int] | None = None


# What some models take that makes them take every size; which do is tried out.
_FREEDOMS: tuple[dict[str, Any], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
_MULTIPLES = (1, 4, 32, 64, 128)
_MARGINS = (16, 32, 48, 64)


@functools.cache
def find_fit(name: str, output_stride: int) -> _Fit:
    """Find out how `name` has to be used: on the meta device, where nothing is computed, and once for each name.

    Raises:
        ModelError: as `TimmBackbone`, but for the weights.
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
        raise ModelError(f"timm's '{name}' exposes no multi-scale features: {_reason(error)}") from error
    reductions = list(_nominal(body))
    if len(reductions) == 1 or 32 not in reductions:
        have = ", ".join(map(str, sorted(reductions)))
        raise ModelError(
            f"timm's '{name}' exposes maps at stride {have} alone; a backbone needs several strides, 32 among them"
        )
    fits = list(_free_fits(name, body, options))
    return min(fits, key=lambda fit: (fit.multiple, fit.margin)) if fits else _fixed_fit(name, body, options)


def _with_stride_32(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and what it has to be built with: timm returns five maps unless told otherwise, and a few have six."""
    body = _on_meta(name)
    info: Any = body.feature_info
    if 32 in info.reduction() or all(entry["reduction"] != 32 for entry in info.info):
        return body, {}
    options = {"out_indices": tuple(range(len(info.info)))}
    return _on_meta(name, **options), options


def _free_fits(name: str, body: nn.Module, options: dict[str, Any]) -> Iterator[_Fit]:
    """For each freedom that the model knows, the least padding with which it serves images of every size."""
    for freedom in _FREEDOMS:
        if freedom:
            try:
                body = _on_meta(name, **options, **freedom)
            except Exception:  # noqa: BLE001 - the model takes no such argument, and says so in its own way
                continue
        fit = _least_padding(body, {**options, **freedom})
        if fit is not None:
            yield fit
            if fit.multiple <= 32:  # nothing with a map at stride 32 can do with much less
                return


def _least_padding(body: nn.Module, options: dict[str, Any]) -> _Fit | None:
    wanted = _nominal(body)
    # Windows that cut every map without remainder are 1/32 of the size that the model is trained at.
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
        raise ModelError(f"timm's '{name}' exposes a map at stride 32 that misses some of the image")
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
        raise ModelError(f"{refused}it takes the argument and ignores it")
    found = [_maps(body, wanted, size, plain.margin) for size in sizes]
    if len(found[0]) < len(wanted) or any(maps != found[0] for maps in found):
        raise ModelError(f"{refused}its maps no longer lie over the image")
    return _Fit(options, found[0], plain.multiple, plain.margin, plain.fixed_size)


def _nominal(body: nn.Module) -> dict[int, tuple[int, int]]:
    """Index and stride by reduction, of the deepest map of each: what a paper would call the end of its stage."""
    info: Any = body.feature_info
    return {reduction: (index, reduction) for index, reduction in enumerate(info.reduction())}


def _maps(
    body: nn.Module, wanted: Mapping[int, tuple[int, int]], size: tuple[int, int], margin: int = 0
) -> dict[int, _Map]:
    """Those maps that lie over all of an image of `size`; none where the model refuses the size."""
    try:
        shapes = _shapes(body, size, margin)
    except Exception:  # noqa: BLE001 - assertions, errors of shapes, and more, all meaning the same
        return {}
    maps = {}
    for reduction, (index, stride) in wanted.items():
        excess = [have - -(-side // stride) for have, side in zip(shapes[index], size, strict=True)]
        # Beside the margin, pooling with `ceil_mode` gives one more.
        if all(0 <= e <= 2 * margin // stride + 1 for e in excess):
            # Without padding a convolution takes as much away on either side: what is too much is so on either.
            maps[reduction] = _Map(index, stride, min(excess) // 2 if margin else 0)
    return maps


def _shapes(body: nn.Module, size: tuple[int, int], margin: int = 0) -> list[tuple[int, int]]:
    """Height and width of each map for images of `size` with a margin all round."""
    maps: list[Tensor] = body(torch.empty(1, 3, size[0] + 2 * margin, size[1] + 2 * margin, device="meta"))
    return [(map_.shape[1], map_.shape[2]) if _is_nhwc(body) else (map_.shape[2], map_.shape[3]) for map_ in maps]


def _sizes(multiple: int) -> list[tuple[int, int]]:
    """Sizes to try a multiple with: as awkward as its multiples can be, just beyond 128 and just short of 384."""
    if multiple < 64:
        return [(128 + multiple, 384 - multiple)]
    return [(multiple, 2 * multiple), (3 * multiple, multiple)]


def _on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        body: nn.Module = timm.create_model(name, features_only=True, **options)
    return body.eval()


def _chain(body: nn.Module, maps: Mapping[int, _Map]) -> dict[int, str]:
    """The layers that make the maps, by reduction, where timm sends images through the body's children in turn."""
    if type(body) is not FeatureListNet:
        return {}
    taps: Any = body.return_layers
    layers = list(taps)
    return {reduction: layers[map_.index] for reduction, map_ in maps.items()}


def _own_size(body: nn.Module) -> tuple[int, int]:
    """Height and width that timm trains the model at."""
    config: Any = body.pretrained_cfg
    height, width = (config.get("input_size") or (3, 224, 224))[1:]
    return height, width


def _is_nhwc(body: nn.Module) -> bool:
    return getattr(body, "output_fmt", "NCHW") == "NHWC"


def _over_the_image(map_: Tensor, where: _Map, height: int, width: int) -> Tensor:
    """Cut a map [B, C, h, w] of padded images [B, 3, H, W] to [B, C, ceil(H/s), ceil(W/s)] at its stride s."""
    rows, columns = (-(-side // where.stride) for side in (height, width))
    return map_[..., where.offset : where.offset + rows, where.offset : where.offset + columns]


def _padded(images: Tensor, multiple: int, margin: int) -> Tensor:
    """Images [B, C, H, W] with zeros right and below up to a multiple, and with a margin of zeros all round."""
    right, below = -images.shape[-1] % multiple, -images.shape[-2] % multiple
    if not (right or below or margin):
        return images
    return F.pad(images, (margin, right + margin, margin, below + margin))


def _tail(name: str, *, pretrained: bool) -> tuple[nn.Module, int]:
    """The convolution and the norm with its activation that timm calls `conv_head` and `bn2`; their channels."""
    model = _create(name, {}, pretrained=pretrained, features_only=False)
    conv, norm = (getattr(model, part, None) for part in ("conv_head", "bn2"))
    if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.Module)):
        raise ModelError(f"timm's '{name}' has no convolution between its last map and its pooling; leave out 'tail'")
    return nn.Sequential(OrderedDict(conv_head=conv, bn2=norm)), conv.out_channels


def _create(name: str, options: Mapping[str, Any], *, pretrained: bool, features_only: bool = True) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, features_only=features_only, pretrained=pretrained, **options)
        return model
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise out_of_reach(f"the pretrained weights of '{name}'", error) from error


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else f"timm raises {type(error).__name__}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _similar(name: str) -> str:
    """The nearest of timm's 1,000 names; too many to list them all."""
    return nearest(name, timm.list_models()).partition("; valid:")[0].removeprefix("valid: ")[:200]
