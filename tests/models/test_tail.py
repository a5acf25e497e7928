"""Backbones with a tail: the deepest map is the input of the classifier's pooling."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import fcnlab
from fcnlab.config.grid.grid import resolve
from fcnlab.config.registry import builtin
from fcnlab.errors import ConfigError, ModelError
from fcnlab.models import TimmBackbone
from fcnlab.models.backbones.base import load_weights
from fcnlab.training.freezing import freeze_backbone, set_batch_norm_mode


@pytest.mark.parametrize("name", ["mobilenetv2_100", "test_efficientnet"])
def test_the_deepest_map_equals_the_features_of_timm(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    backbone = TimmBackbone(name, tail=True).eval()
    load_weights(backbone, tmp_path / "w.safetensors")
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        map_ = backbone(images)[32]
        assert torch.allclose(map_, model.forward_features(images), rtol=1e-4, atol=1e-5)
    assert map_.shape == (2, backbone.channels[32], 2, 3)


def test_a_file_of_a_whole_fcn_is_loaded_into_body_and_tail(tmp_path: Path) -> None:
    entry = builtin().get("backbone", "mobilenetv2-tail-local").model_copy(update={"weights": "scratch"})
    names = {"head": "fcn8s", "upsampler": "bilinear", "dataset": "shapes-mini", "recipe": "smoke"}
    output = {"backbone": "mobilenetv2-scratch", "backbone.tail": True, **names}
    variant = resolve(output, builtin(), "test").variant
    assert variant.backbone.content() == entry.content()
    from fcnlab.trial.build import build_model

    one, other = (build_model(variant, 4, seed=seed) for seed in (0, 1))
    save_file(one.state_dict(), tmp_path / "last.safetensors")
    load_weights(other.backbone, tmp_path / "last.safetensors")
    theirs = other.backbone.state_dict()
    assert any(key.startswith("tail.") for key in theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in one.backbone.state_dict().items())


def test_a_file_without_the_tail_is_an_error_with_the_key(tmp_path: Path) -> None:
    body = TimmBackbone("test_efficientnet").body
    save_file(body.state_dict(), tmp_path / "body.safetensors")
    with pytest.raises(ModelError, match=r"keys are missing, first 'bn2\.bias'"):
        load_weights(TimmBackbone("test_efficientnet", tail=True), tmp_path / "body.safetensors")


def test_freezing_the_backbone_includes_the_tail() -> None:
    backbone = TimmBackbone("test_efficientnet", tail=True)
    freeze_backbone(backbone)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    held = TimmBackbone("test_efficientnet", tail=True)
    set_batch_norm_mode(held, "frozen")
    held.train()
    assert held.tail is not None
    before = {key: value.clone() for key, value in held.tail.state_dict().items()}
    held(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(before[key], value) for key, value in held.tail.state_dict().items())


def test_backbone_without_tail_has_unchanged_weights_and_names() -> None:
    torch.manual_seed(0)
    plain = TimmBackbone("test_efficientnet")
    torch.manual_seed(0)
    tailed = TimmBackbone("test_efficientnet", tail=True)
    assert all(torch.equal(value, tailed.state_dict()[key]) for key, value in plain.state_dict().items())
    assert plain.tail is None and not any(key.startswith("tail") for key in plain.state_dict())


def test_tail_of_a_model_without_one_is_an_error() -> None:
    with pytest.raises(
        ModelError, match=r"timm's 'test_resnet' has no convolution between its last map and its pooling"
    ):
        TimmBackbone("test_resnet", tail=True)
    with pytest.raises(ConfigError, match="vgg16-paper has no 'tail'"):
        resolve(
            {"variant": "fcn8s-vgg16-paper", "backbone.tail": True, "dataset": "shapes", "recipe": "smoke"},
            builtin(),
            "test",
        )


def test_the_skip_head_reads_the_tail() -> None:
    with torch.device("meta"):
        model = fcnlab.build_model("mobilenetv2-tail-local+fcn8s+bilinear", 21, pretrained=False)
    assert model.backbone.channels[32] == 1280
    assert model(torch.empty(1, 3, 75, 101, device="meta")).shape == (1, 21, 75, 101)
