"""Determination of the options and the padding with which a timm model covers images of every size."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fcnlab.errors import ModelError, first_line, nearest

MAX_LISTED = 5
"""Maximum number of models in an error; timm has more than a thousand."""


@dataclass(frozen=True)
class FeatureMap:
    """A feature map of a model.

    Attributes:
        index: its position in the output of the model.
        stride: its stride in pixels.
        offset: number of its rows and columns on each side that are features of the margin.
    """

    index: int
    stride: int
    offset: int


@dataclass(frozen=True)
class TimmFit:
    """Options of a model, its maps, and the padding of its images.

    Attributes:
        options: keyword arguments of `timm.create_model`.
        maps: the maps by reduction.
        multiple: the sides of images are padded to multiples of it.
        margin: pixels of zeros on all sides.
        fixed_size: the only height and width that the model accepts; None for any size.
    """

    options: Mapping[str, Any]
    maps: Mapping[int, FeatureMap]
    multiple: int = 1
    margin: int = 0
    fixed_size: tuple[int, int] | None = None


REFUSALS = (AssertionError, RuntimeError, TypeError, ValueError)
"""Exceptions with which timm refuses an image size or an option.

Sizes are refused by assertions and by the shape errors of torch, options by `TypeError` for an unknown argument, by
assertions, and by `RuntimeError` and `ValueError` of timm's feature extractors. Measured for two models of each module
of timm. Any other exception is an error of timm or of this module, and is not caught.
"""

# Options that some models have for images of every size.
_FREEDOMS: tuple[dict[str, Any], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
_MULTIPLES = (1, 4, 32, 64, 128)
_MARGINS = (16, 32, 48, 64)


@functools.cache
def find_fit(name: str, output_stride: int) -> TimmFit:
    """Determine the options and the padding of a model by trials on the meta device; the result is cached.

    Candidate paddings are tried from the smallest, at sizes that no larger power of 2 divides, until all maps cover the
    image. Example: ConvNeXt's patches do not cover the last column of an image of width 129, so its map of
    reduction 4 is too small with multiple 1, and deeper maps are with multiple 4; 32 is the first multiple that works.

    Args:
        name: name of a timm model.
        output_stride: 32, or 8 or 16 for dilation.

    Raises:
        ModelError: as `TimmBackbone`, except for weights.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = _find_plain_fit(name)
        return plain if output_stride == 32 else _find_dilated_fit(name, plain, output_stride)


def _find_plain_fit(name: str) -> TimmFit:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ModelError(f"timm has no model '{architecture}'; {nearest(architecture, timm.list_models(), MAX_LISTED)}")
    try:
        body, options = _create_with_stride_32(name)
    except REFUSALS as error:
        raise ModelError(f"timm's '{name}' has no multi-scale features: {_describe_error(error)}") from error
    reductions = list(_read_nominal_maps(body))
    if len(reductions) == 1 or 32 not in reductions:
        have = ", ".join(map(str, sorted(reductions)))
        raise ModelError(
            f"timm's '{name}' has maps at stride {have} only; a backbone needs several strides, one of them 32"
        )
    fits = list(_find_free_fits(name, body, options))
    return min(fits, key=lambda fit: (fit.multiple, fit.margin)) if fits else _find_fixed_fit(name, body, options)


def _create_with_stride_32(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model with its map of stride 32, which a few models have as a sixth, and its options."""
    body = _create_on_meta(name)
    feature_info: Any = body.feature_info
    if 32 in feature_info.reduction() or all(entry["reduction"] != 32 for entry in feature_info.info):
        return body, {}
    options = {"out_indices": tuple(range(len(feature_info.info)))}
    return _create_on_meta(name, **options), options


def _find_free_fits(name: str, body: nn.Module, options: dict[str, Any]) -> Iterator[TimmFit]:
    """Yield the smallest padding for images of every size, without and with each option that the model has."""
    for freedom in _FREEDOMS:
        if freedom:
            try:
                body = _create_on_meta(name, **options, **freedom)
            except TypeError as error:
                if not any(option in str(error) for option in freedom):
                    raise
                continue  # the model has no such option
        fit = _find_least_padding(body, {**options, **freedom})
        if fit is not None:
            yield fit
            if fit.multiple <= 32:  # the stride of the deepest map; a smaller multiple saves little
                return


def _find_least_padding(body: nn.Module, options: dict[str, Any]) -> TimmFit | None:
    nominal = _read_nominal_maps(body)
    # Models with attention windows need multiples of their training size: windows have 1/32 of it at stride 32.
    training_size = max(_read_training_size(body))
    for multiple, margin in [(m, 0) for m in sorted({*_MULTIPLES, training_size})] + [
        (32, margin) for margin in _MARGINS
    ]:
        maps_by_size = [_find_covering_maps(body, nominal, size, margin) for size in _choose_probe_sizes(multiple)]
        if len(maps_by_size[0]) == len(nominal) and all(maps == maps_by_size[0] for maps in maps_by_size):
            return TimmFit(options, maps_by_size[0], multiple, margin)
    return None


def _find_fixed_fit(name: str, body: nn.Module, options: dict[str, Any]) -> TimmFit:
    size = _read_training_size(body)
    maps = _find_covering_maps(body, _read_nominal_maps(body), size)
    if 32 not in maps:
        raise ModelError(f"timm's '{name}' has a map at stride 32 that does not cover the image")
    return TimmFit(options, maps, fixed_size=size)


def _find_dilated_fit(name: str, plain: TimmFit, output_stride: int) -> TimmFit:
    refused = f"timm's '{name}' cannot be dilated to stride {output_stride}: "
    options = {**plain.options, "output_stride": output_stride}
    nominal = {reduction: (map_.index, min(reduction, output_stride)) for reduction, map_ in plain.maps.items()}
    sizes = [plain.fixed_size] if plain.fixed_size is not None else _choose_probe_sizes(plain.multiple)
    try:
        body = _create_on_meta(name, **options)
        height = _measure_shapes(body, sizes[0], plain.margin)[nominal[32][0]][0]
    except REFUSALS as error:
        unknown = isinstance(error, TypeError) or not str(error)
        raise ModelError(f"{refused}{'timm has no dilation for it' if unknown else _describe_error(error)}") from error
    if height < sizes[0][0] // output_stride:
        raise ModelError(f"{refused}it accepts the argument and ignores it")
    maps_by_size = [_find_covering_maps(body, nominal, size, plain.margin) for size in sizes]
    if len(maps_by_size[0]) < len(nominal) or any(maps != maps_by_size[0] for maps in maps_by_size):
        raise ModelError(f"{refused}its maps no longer cover the image")
    return TimmFit(options, maps_by_size[0], plain.multiple, plain.margin, plain.fixed_size)


def _read_nominal_maps(body: nn.Module) -> dict[int, tuple[int, int]]:
    """Return index and stride of the deepest map of each reduction, the end of its stage."""
    feature_info: Any = body.feature_info
    return {reduction: (index, reduction) for index, reduction in enumerate(feature_info.reduction())}


def _find_covering_maps(
    body: nn.Module, nominal: Mapping[int, tuple[int, int]], size: tuple[int, int], margin: int = 0
) -> dict[int, FeatureMap]:
    """Return the maps that cover an image of a size; none if the model does not accept the size."""
    try:
        shapes = _measure_shapes(body, size, margin)
    except REFUSALS:
        return {}
    maps = {}
    for reduction, (index, stride) in nominal.items():
        excess = [have - -(-side // stride) for have, side in zip(shapes[index], size, strict=True)]
        # Pooling with `ceil_mode` adds one row or column to those of the margin.
        if all(0 <= e <= 2 * margin // stride + 1 for e in excess):
            # A convolution without padding removes the same number of features on both sides.
            maps[reduction] = FeatureMap(index, stride, min(excess) // 2 if margin else 0)
    return maps


def _measure_shapes(body: nn.Module, size: tuple[int, int], margin: int = 0) -> list[tuple[int, int]]:
    """Return height and width of each map for images of a size with a margin on all sides."""
    maps: list[Tensor] = body(torch.empty(1, 3, size[0] + 2 * margin, size[1] + 2 * margin, device="meta"))
    return [(map_.shape[1], map_.shape[2]) if is_nhwc(body) else (map_.shape[2], map_.shape[3]) for map_ in maps]


def _choose_probe_sizes(multiple: int) -> list[tuple[int, int]]:
    """Return image sizes for trying a multiple: no larger power of 2 divides both sides."""
    if multiple < 64:
        return [(128 + multiple, 384 - multiple)]
    return [(multiple, 2 * multiple), (3 * multiple, multiple)]


def _create_on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        body: nn.Module = timm.create_model(name, features_only=True, **options)
    return body.eval()


def _read_training_size(body: nn.Module) -> tuple[int, int]:
    """Return the height and width of the model's training images in timm."""
    config: Any = body.pretrained_cfg
    height, width = (config.get("input_size") or (3, 224, 224))[1:]
    return height, width


def is_nhwc(body: nn.Module) -> bool:
    """Return whether the maps of a model are [B, H, W, C].

    Args:
        body: the feature extractor.
    """
    return getattr(body, "output_fmt", "NCHW") == "NHWC"


def _describe_error(error: Exception) -> str:
    return first_line(error) if str(error) else f"timm raises {type(error).__name__}"
