"""The feature contract over timm's families: sizes, layout, padding and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.errors import ModelError
from fcnlab.models import FCN, HEADS, Interpolation, TimmBackbone
from fcnlab.trial.build import build_model

# A small model of each kind, and what its images are padded to.
FAMILIES = {
    "resnet10t": 1,
    "regnetx_002": 1,
    "mobilenetv2_100": 1,
    "mobilenetv3_small_050": 1,
    "test_efficientnet": 1,
    "edgenext_xx_small": 32,
    "mobilevit_xxs": 1,
    "pvt_v2_b0": 1,
    "mambaout_femto": 1,
    "convnext_atto": 32,
    "densenet121": 32,
    "vgg11": 32,
    "dla46_c": 32,
    "hrnet_w18_small": 32,
    "swinv2_cr_tiny_224": 4,
    "focalnet_tiny_srf": 32,
    "nextvit_small": 1,
    "test_maxvit": 160,
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fcn(name: str, head: str = "fcn8s") -> FCN:
    parts: dict[str, Any] = {
        "backbone": {"timm": name},
        "head": builtin().get("head", head),
        "upsampler": {"type": "interpolate", "mode": "bilinear"},
    }
    return build_model(Variant.model_validate(parts), 5, seed=0)


def interpolation(num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
    return Interpolation(factor, mode="bilinear")


@pytest.mark.filterwarnings("ignore")  # timm's and torch's own
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_accepts_images_of_odd_size(name: str) -> None:
    model = fcn(name).train()
    backbone = model.backbone
    assert isinstance(backbone, TimmBackbone)
    assert (backbone.multiple, backbone.fixed_size) == (FAMILIES[name], None)

    features = backbone(noise(2, 3, 65, 97))
    for reduction, map_ in features.items():
        assert map_.shape == (2, backbone.channels[reduction], -(-65 // reduction), -(-97 // reduction))
    deep = FCN(backbone, HEADS["skip"](backbone.channels, 5, interpolation, stride=32))
    scores = [net.head(features, (65, 97)) for net in (model, deep)]
    assert [s.shape for s in scores] == [(2, 5, 65, 97)] * 2
    sum(s.square().mean() for s in scores).backward()
    gradient = next(backbone.parameters()).grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_100", "regnetx_002"])
def test_models_that_accept_every_size_equal_those_of_timm(name: str) -> None:
    # Results are published with these three: weights, keys and maps must not change.
    torch.manual_seed(3)
    plain = timm.create_model(name, features_only=True)
    after = torch.rand(1)
    torch.manual_seed(3)
    backbone = TimmBackbone(name)
    assert torch.equal(torch.rand(1), after)
    state = backbone.state_dict()
    assert list(state) == [f"body.{key}" for key in plain.state_dict()]
    assert all(torch.equal(state[f"body.{key}"], value) for key, value in plain.state_dict().items())
    images = noise(1, 3, 65, 97)
    with torch.inference_mode():
        maps = backbone.eval()(images)
        expected = plain.eval()(images)
    assert list(maps) == [2, 4, 8, 16, 32]
    assert all(torch.equal(map_, wanted) for map_, wanted in zip(maps.values(), expected, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_in_nhwc_layout_are_transposed(channels_last: bool) -> None:
    backbone = TimmBackbone("mambaout_femto").eval()
    images = noise(2, 3, 64, 96)
    with torch.inference_mode():
        raw = backbone.body(images)
        if channels_last:
            backbone = backbone.to(memory_format=torch.channels_last)
            images = images.to(memory_format=torch.channels_last)
        maps = backbone(images)
    for (reduction, map_), wanted in zip(maps.items(), raw, strict=True):
        assert map_.shape == (2, backbone.channels[reduction], 64 // reduction, 96 // reduction)
        assert torch.allclose(map_, wanted.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "step", "reduction"), [("mambaout_femto", 32, 32), ("convnext_atto", 32, 32), ("test_maxvit", 160, 16)]
)
def test_maps_shift_with_the_image(name: str, step: int, reduction: int) -> None:
    # Turned the wrong way round, it would move down. The model's answer to nothing is taken off.
    torch.manual_seed(1)  # with random weights, the answer of some networks to noise is almost uniform
    backbone = TimmBackbone(name).eval()
    images = torch.zeros(3, 3, 2 * step, 2 * step)
    images[1, :, : step // 2, : step // 2] = noise(3, step // 2, step // 2)
    images[2, :, : step // 2, step : step + step // 2] = images[1, :, : step // 2, : step // 2]
    with torch.inference_mode():
        nothing, left, right = backbone(images)[reduction]
    half = step // reduction
    strongest = [int((map_ - nothing).abs().sum(0).flatten().argmax()) for map_ in (left, right)]
    (y1, x1), (y2, x2) = (divmod(i, 2 * half) for i in strongest)
    assert y1 < half and y2 < half
    assert x1 < half <= x2


def test_padding_is_at_the_right_and_below() -> None:
    backbone = TimmBackbone("convnext_atto").eval()
    images = noise(1, 3, 65, 97)
    padded = torch.zeros(1, 3, 96, 128)
    padded[..., :65, :97] = images
    with torch.inference_mode():
        maps, wanted = backbone(images), backbone.body(padded)
    for (reduction, map_), whole in zip(maps.items(), wanted, strict=True):
        assert torch.equal(map_, whole[..., : -(-65 // reduction), : -(-97 // reduction)])


@pytest.mark.parametrize("name", ["legacy_xception", "inception_v3"])
def test_unpadded_networks_are_padded_on_all_sides_and_aligned(name: str) -> None:
    # A spot of the image is strongest where it is in the maps of every stride.
    with torch.device("cpu"):
        backbone = TimmBackbone(name).eval()
    images = torch.zeros(2, 3, 160, 160)
    images[1, :, 64:96, 64:96] = noise(3, 32, 32)
    with torch.inference_mode():
        maps = backbone(images)
    for reduction, (nothing, spot) in maps.items():
        assert spot.shape[1:] == (160 // reduction, 160 // reduction)
        weight = (spot - nothing).abs().sum(0)
        weight = weight * (weight > 0.5 * weight.max())
        steps = reduction * (torch.arange(160 // reduction) + 0.5)
        center = [float((weight.sum(1 - axis) * steps).sum() / weight.sum()) for axis in (0, 1)]
        assert center == pytest.approx([80, 80], abs=max(12, reduction))


@pytest.mark.parametrize("name", ["levit_128s", "efficientformerv2_s0", "coatnet_pico_rw_224", "pit_ti_224"])
def test_fixed_size_error_names_the_size(name: str) -> None:
    backbone = TimmBackbone(name).eval()
    assert backbone.fixed_size == (224, 224)
    with torch.inference_mode():
        assert backbone(noise(1, 3, 224, 224))[32].shape == (1, backbone.channels[32], 7, 7)
        with pytest.raises(
            ModelError, match=rf"^timm's '{name}' accepts only images of 224x224, not 320x480; crop and"
        ):
            backbone(noise(1, 3, 320, 480))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", r"has maps at stride 16 only; a backbone needs several strides, one of them 32$"),
        ("nest_tiny", r"has maps at stride 4, 8, 16 only; a backbone needs several strides, one of them 32$"),
        ("vit_small_patch32_224", r"has maps at stride 32 only; a backbone needs several strides"),
        ("test_nothing", r"^timm has no model 'test_nothing'"),
    ],
)
def test_unsupported_models_are_rejected_with_a_reason(name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        TimmBackbone(name)


def test_a_model_without_features_is_an_error_with_the_reason_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*args: object, **kwargs: object) -> nn.Module:
        raise RuntimeError("features_only not implemented for this")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ModelError, match="'resnet14t' has no multi-scale features: features_only not implemented"):
        TimmBackbone("resnet14t")


def test_the_error_of_a_missing_stride_lists_the_strides_of_the_backbone() -> None:
    with pytest.raises(ModelError, match="needs features at stride 8; the backbone has 16, 32, 64"):
        fcn("levit_128s", "fcn8s")


def test_a_model_with_more_maps_than_timm_returns_gives_the_one_at_stride_32() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("sedarknet21")
        assert backbone(torch.empty(1, 3, 65, 97))[32].shape == (1, backbone.channels[32], 3, 4)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_100", "convnext_atto", "test_efficientnet"])
def test_dilation_keeps_the_true_stride(name: str, stride: int) -> None:
    backbone = TimmBackbone(name, output_stride=stride).eval()
    with torch.inference_mode():
        maps = backbone(noise(1, 3, 65, 97))
    for reduction in (4, 8, 16, 32):
        true = min(reduction, stride)
        assert maps[reduction].shape[2:] == (-(-65 // true), -(-97 // true))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mambaout_femto", "timm has no dilation for it"),
        ("vgg11", "timm has no dilation for it"),
        ("ghostnet_050", "only output_stride==32 is valid, dilation not supported"),
    ],
)
def test_models_without_dilation_give_an_error(name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"^timm's '{name}' cannot be dilated to stride 16: {reason}$"):
        TimmBackbone(name, output_stride=16)


def test_a_model_that_ignores_dilation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def ignoring(name: str, **options: Any) -> nn.Module:
        options.pop("output_stride", None)
        model: nn.Module = create(name, **options)
        return model

    monkeypatch.setattr(timm, "create_model", ignoring)
    with pytest.raises(ModelError, match=r"'resnet26t' cannot be dilated to stride 8: it accepts the argument and ign"):
        TimmBackbone("resnet26t", output_stride=8)


def test_model_inspection_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    TimmBackbone("test_resnet")
    made: list[str] = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: made.append(name) or create(name, **options))
    TimmBackbone("test_resnet")
    assert made == ["test_resnet"]


def test_unavailable_pretrained_weights_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("no network here")
        model: nn.Module = create(name, **options)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"weights of 'test_resnet\.r160_in1k' cannot be fetched \(no network here\)"):
        TimmBackbone("test_resnet.r160_in1k", pretrained=True)
