"""Tests of the costs of a model against published and manually computed values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fcnlab
from fcnlab.models import TimmBackbone
from fcnlab.training import cost


@pytest.mark.parametrize(
    ("name", "reduction", "pixels"),
    [
        # Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019, but for
        # MobileNetV2, whose field follows from its strides and kernels.
        ("resnet18", 32, 435),
        ("vgg16", 32, 212),
        ("mobilenetv2_100", 32, 491),
    ],
)
def test_receptive_fields_equal_published_ones(name: str, reduction: int, pixels: int) -> None:
    assert cost.measure_receptive_fields(TimmBackbone(name), [reduction]) == {reduction: pixels}


def test_receptive_fields_of_all_maps_are_measured_at_once() -> None:
    # ResNet-18: a 7x7 convolution of stride 2, 3x3 pooling of stride 2, then two blocks of two 3x3 convolutions each.
    found = cost.measure_receptive_fields(TimmBackbone("resnet18"), [2, 4, 8, 16, 32])
    assert found == {2: 7, 4: 43, 8: 99, 16: 211, 32: 435}


def test_the_receptive_field_with_global_pooling_is_unlimited() -> None:
    assert cost.measure_receptive_fields(TimmBackbone("regnety_002"), [32], longest=1024) == {32: None}


def test_receptive_fields_of_a_backbone_for_one_size_are_measured_at_this_size() -> None:
    # Two 3x3 convolutions, the first of stride 2; then attention, which reads the whole image.
    backbone = TimmBackbone("test_coatnet")
    assert backbone.fixed_size == (160, 160)
    assert cost.measure_receptive_fields(backbone, [2, 32]) == {2: 7, 32: None}


def test_measuring_the_receptive_field_does_not_change_the_backbone() -> None:
    backbone = TimmBackbone("test_resnet")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    cost.measure_receptive_fields(backbone, [32])
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert any(isinstance(module, nn.MaxPool2d) for module in backbone.modules())


def test_components_contain_every_parameter_once() -> None:
    for variant in ("fcn8s-tiny", "tiny-scratch+fcn16s-concat+bilinear", "tiny-scratch+dilated16-aux+random"):
        model = fcnlab.build_model(variant, 7)
        model.head.scale = nn.Parameter(torch.ones(1))  # a head of an extension may have parameters beside its layers
        held = [id(p) for part in cost.split_components(model).values() for p in part.parameters()]
        assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_parameters_of_upsamplers_are_counted() -> None:
    dense, per_class = (
        fcnlab.build_model(f"tiny-scratch+fcn32s+{name}", 21) for name in ("bilinear", "bilinear-per-class")
    )
    assert cost.count_parameters(cost.split_components(dense)["upsamplers"]) == 21 * 21 * 64 * 64
    assert cost.count_parameters(cost.split_components(per_class)["upsamplers"]) == 21 * 64 * 64
    fixed = fcnlab.build_model("tiny-scratch+fcn32s+bilinear-fixed", 21)
    assert cost.count_parameters(cost.split_components(fixed)["upsamplers"], trainable=True) == 0


def test_activations_of_the_backward_pass_are_counted_once() -> None:
    # A convolution stores its input; a ReLU stores its output once, although the next convolution needs it too.
    class Net(nn.Sequential):
        backbone = SimpleNamespace(in_channels=3)

        def training_scores(self, images: Tensor) -> tuple[Tensor, None]:
            return self(images), None

    net: Any = Net(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    pixels = 4 * 10 * 12
    assert cost.measure_activation_bytes(net, (10, 12)) == pixels * 3 + pixels * 4


def test_an_auxiliary_head_has_a_cost_only_in_training() -> None:
    with torch.device("meta"):
        plain, auxiliary = (fcnlab.build_model(f"tiny-scratch+{h}+resize", 5) for h in ("dilated16", "dilated16-aux"))
    assert cost.count_gmacs(auxiliary, (64, 64)) == cost.count_gmacs(plain, (64, 64))
    assert cost.count_gmacs(auxiliary, (64, 64), training=True) > cost.count_gmacs(plain, (64, 64), training=True)
    assert cost.measure_activation_bytes(auxiliary, (64, 64)) > cost.measure_activation_bytes(plain, (64, 64))


def test_activations_grow_with_the_image() -> None:
    with torch.device("meta"):
        model = fcnlab.build_model("fcn8s-tiny", 5)
    small, large = (cost.measure_activation_bytes(model, size) for size in ((64, 64), (128, 128)))
    assert large == pytest.approx(4 * small, rel=0.02)
    real = cost.measure_activation_bytes(fcnlab.build_model("fcn8s-tiny", 5), (64, 64))
    assert real == pytest.approx(small, rel=0.02)


def test_speed_is_measured_in_eval_mode_without_changing_the_model() -> None:
    model = fcnlab.build_model("fcn8s-tiny", 5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    speed = cost.measure_speed(model, (32, 32), batch=2, repeats=2)
    assert speed.latency > 0 and speed.images_per_s > 0
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
