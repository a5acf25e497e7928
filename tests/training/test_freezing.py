"""Tests of freezing: frozen statistics and weights are equal, bit for bit, after training."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcnlab.config.grid.grid import Cell, resolve
from fcnlab.config.registry import builtin
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.errors import ModelError
from fcnlab.models import FCN, TimmBackbone
from fcnlab.training.fit import Training, fit
from fcnlab.training.freezing import freeze_backbone
from fcnlab.trial.build import build_model, build_training

NETS = ("test_resnet", "mobilenetv2_100", "convnext_atto", "regnetx_002")
BASE = {
    "variant": "fcn32s-tiny",
    "dataset": "shapes-mini",
    "recipe": "smoke",
    "recipe.epochs": 1,
    "recipe.crop": {"height": 32, "width": 32},
    "recipe.optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}
nets = pytest.mark.parametrize("timm", NETS)
of_batch_norm = pytest.mark.parametrize("timm", [net for net in NETS if net != "convnext_atto"])


def create_cell(timm: str, **recipe: Any) -> Cell:
    overrides = {**BASE, "backbone.timm": timm, **{f"recipe.{name}": value for name, value in recipe.items()}}
    return resolve(overrides, builtin(), "test")


@cache
def scenes() -> Shapes:
    return Shapes(train=8, val=1, test=1, height=32, width=32, seed=0)


def built(cell: Cell) -> tuple[FCN, Training]:
    model = build_model(cell.variant, len(scenes().classes), seed=0)
    return model, build_training(cell.recipe, model, scenes(), split="train", seed=0)


def changed(cell: Cell) -> tuple[FCN, dict[str, bool]]:
    """Train a model, and return it with a flag for each parameter and buffer, true if it changed."""
    model, training = built(cell)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, training, epochs=cell.recipe.epochs)
    return model, {name: not torch.equal(value, before[name]) for name, value in model.state_dict().items()}


def read_by_the_map(timm: str, stride: int) -> set[str]:
    """Return the names of the parameters of the backbone that get a gradient from its map at a stride."""
    model = build_model(create_cell(timm).variant, num_classes=2, seed=0).eval()
    model.backbone(torch.randn(1, 3, 32, 32))[stride].sum().backward()
    return {f"backbone.{name}" for name, p in model.backbone.named_parameters() if p.grad is not None}


def norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


def statistics(model: nn.Module) -> set[str]:
    return {f"{name}.{b}" for name in norms(model) for b in ("running_mean", "running_var", "num_batches_tracked")}


@nets
def test_without_freezing_all_parameters_and_statistics_change(timm: str) -> None:
    _, has_changed = changed(create_cell(timm))
    assert all(has_changed.values()), [name for name, value in has_changed.items() if not value]


@of_batch_norm
def test_batch_norm_eval_keeps_statistics_and_trains_weights(timm: str) -> None:
    model, has_changed = changed(create_cell(timm, batch_norm="eval"))
    assert statistics(model)
    assert {name for name, value in has_changed.items() if not value} == statistics(model)


@of_batch_norm
def test_batch_norm_frozen_keeps_statistics_and_weights(timm: str) -> None:
    model, has_changed = changed(create_cell(timm, batch_norm="frozen"))
    affine = {f"{name}.{own}" for name in norms(model) for own in ("weight", "bias")}
    assert {name for name, value in has_changed.items() if not value} == statistics(model) | affine


def test_batch_norm_frozen_does_not_affect_the_head() -> None:
    cell = resolve({**BASE, "head": "dilated16", "recipe.batch_norm": "frozen"}, builtin(), "test")
    model, has_changed = changed(cell)
    of_head = {name for name in has_changed if name.startswith("head.classify.")}
    assert statistics(model) & of_head
    assert all(has_changed[name] for name in of_head)


@nets
@pytest.mark.parametrize("stride", [4, 16])
def test_only_layers_up_to_the_stride_are_frozen(timm: str, stride: int) -> None:
    kept = read_by_the_map(timm, stride)
    model, has_changed = changed(create_cell(timm, freeze=f"stride{stride}"))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, _ in model.named_parameters()} - learned == kept
    assert not [name for name in kept if has_changed[name]]
    assert not [name for name in learned if not has_changed[name]]
    for name, norm in norms(model).items():
        frozen = f"{name}.weight" in kept
        assert norm.training != frozen
        assert has_changed[f"{name}.running_mean"] != frozen


@pytest.mark.parametrize(("timm", "strides"), [(net, (2, 8)) for net in NETS if net != "convnext_atto"])
def test_a_backbone_can_be_frozen_up_to_every_stride(timm: str, strides: tuple[int, ...]) -> None:
    for stride in strides:
        model, _ = built(create_cell(timm, freeze=f"stride{stride}"))
        assert {name for name, p in model.named_parameters() if not p.requires_grad} == read_by_the_map(timm, stride)


@nets
def test_a_frozen_backbone_does_not_change_and_stays_in_eval_mode(timm: str) -> None:
    model, has_changed = changed(create_cell(timm, freeze="backbone"))
    assert has_changed == {name: name.startswith("head.") for name in has_changed}
    model.train()
    assert not [name for name, module in model.backbone.body.named_modules() if module.training]
    assert model.head.training


def test_batch_norm_modes_and_freezing_combine_also_in_the_average() -> None:
    cell = create_cell("test_resnet", batch_norm="eval", freeze="stride4", ema=0.9)
    kept = read_by_the_map("test_resnet", 4)
    model, training = built(cell)
    assert training.averaged is not None
    for one in (model, training.averaged):
        one.train()
        assert not [name for name, norm in norms(one).items() if norm.training]
        assert {name for name, p in one.named_parameters() if not p.requires_grad} == kept
    model, has_changed = changed(cell)
    assert {name for name, value in has_changed.items() if not value} == statistics(model) | kept


def test_frozen_layers_stay_in_eval_mode_after_evaluation() -> None:
    model, _ = built(create_cell("mobilenetv2_100", freeze="stride8"))
    modes: list[dict[str, bool]] = []
    for _ in range(2):
        model.eval()
        assert not [module for module in model.modules() if module.training]
        model.train()
        modes.append({name: module.training for name, module in model.named_modules()})
    assert modes[0] == modes[1]
    assert set(modes[0].values()) == {True, False}


def test_an_unknown_stride_is_an_error_that_lists_the_strides() -> None:
    message = "freeze: the backbone has no map at stride 2; it has maps at 4, 8, 16, 32"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        built(create_cell("convnext_atto", freeze="stride2"))


def test_a_stride_whose_map_later_layers_compute_cannot_be_frozen() -> None:
    backbone = TimmBackbone("hrnet_w18_small")  # its last stage has a branch for each stride
    message = "freeze: the layers up to stride 8 cannot be identified in this backbone; freeze all of it or none"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        freeze_backbone(backbone, 8)
    freeze_backbone(backbone)
    assert not [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]


def test_dropout_of_a_frozen_backbone_is_inactive() -> None:
    model, _ = built(create_cell("test_resnet"))
    features: list[Tensor] = []
    model.backbone.body.maxpool = nn.Sequential(model.backbone.body.maxpool, nn.Dropout(0.9))
    freeze_backbone(model.backbone, 4)
    model.train()
    image = torch.randn(2, 3, 32, 32)
    for _ in range(2):
        features.append(model.backbone(image)[4])
    assert torch.equal(*features)
