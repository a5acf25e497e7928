"""What a recipe keeps as it is: statistics and weights that are the same, bit for bit, after training."""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcnlab.config.grid.grid import Cell, resolve
from fcnlab.config.registry import builtin
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.errors import ModelError
from fcnlab.models import FCN
from fcnlab.training.fit import fit
from fcnlab.training.freezing import freeze_backbone
from fcnlab.trial.build import Training, build_model, build_training

torch.set_num_threads(1)

NETS = ("test_resnet", "mobilenetv2_100", "convnext_atto", "regnetx_002")
SAID = {
    "variant": "fcn32s-tiny",
    "dataset": "shapes-mini",
    "recipe": "smoke",
    "recipe.epochs": 1,
    "recipe.crop": {"height": 32, "width": 32},
    "recipe.optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}
nets = pytest.mark.parametrize("timm", NETS)
of_batch_norm = pytest.mark.parametrize("timm", [net for net in NETS if net != "convnext_atto"])


def a_cell(timm: str, **recipe: Any) -> Cell:
    said = {**SAID, "backbone.timm": timm, **{f"recipe.{name}": value for name, value in recipe.items()}}
    return resolve(said, builtin(), "test")


@cache
def scenes() -> Shapes:
    return Shapes(train=8, val=1, test=1, height=32, width=32, seed=0)


def built(cell: Cell) -> tuple[FCN, Training]:
    model = build_model(cell.variant, len(scenes().classes), seed=0)
    return model, build_training(cell.recipe, model, scenes(), "train", 0, torch.device("cpu"))


def changed(cell: Cell) -> tuple[FCN, dict[str, bool]]:
    """A model that has been trained, and of each of its parameters and buffers whether that changed it."""
    model, training = built(cell)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(
        model,
        training.batches,
        epochs=cell.recipe.epochs,
        start_epoch=0,
        loss=training.loss,
        optimizer=training.optimizer,
        schedule=training.schedule,
        autocast=nullcontext,
        on_epoch_end=lambda epoch: None,
        average=training.average,
    )
    return model, {name: not torch.equal(value, before[name]) for name, value in model.state_dict().items()}


def read_by_the_map(timm: str, stride: int) -> set[str]:
    """The parameters of the backbone that its map at a stride depends on: those that get a gradient from it."""
    model = build_model(a_cell(timm).variant, classes=2, seed=0).eval()
    model.backbone(torch.randn(1, 3, 32, 32))[stride].sum().backward()
    return {f"backbone.{name}" for name, p in model.backbone.named_parameters() if p.grad is not None}


def norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


def statistics(model: nn.Module) -> set[str]:
    return {f"{name}.{b}" for name in norms(model) for b in ("running_mean", "running_var", "num_batches_tracked")}


@nets
def test_where_nothing_is_kept_everything_learns(timm: str) -> None:
    _, has_changed = changed(a_cell(timm))
    assert all(has_changed.values()), [name for name, value in has_changed.items() if not value]


@of_batch_norm
def test_a_batch_norm_in_eval_keeps_its_statistics_and_learns_its_weights(timm: str) -> None:
    model, has_changed = changed(a_cell(timm, batch_norm="eval"))
    assert statistics(model)
    assert {name for name, value in has_changed.items() if not value} == statistics(model)


@of_batch_norm
def test_a_frozen_batch_norm_keeps_its_weights_as_well(timm: str) -> None:
    model, has_changed = changed(a_cell(timm, batch_norm="frozen"))
    affine = {f"{name}.{own}" for name in norms(model) for own in ("weight", "bias")}
    assert {name for name, value in has_changed.items() if not value} == statistics(model) | affine


def test_the_batch_norms_of_the_head_are_none_of_the_backbones() -> None:
    cell = resolve({**SAID, "head": "dilated16", "recipe.batch_norm": "frozen"}, builtin(), "test")
    model, has_changed = changed(cell)
    of_head = {name for name in has_changed if name.startswith("head.classify.")}
    assert statistics(model) & of_head
    assert all(has_changed[name] for name in of_head)


@nets
@pytest.mark.parametrize("stride", [4, 16])
def test_what_lies_before_the_map_of_the_stride_is_kept_and_what_comes_after_learns(timm: str, stride: int) -> None:
    kept = read_by_the_map(timm, stride)
    model, has_changed = changed(a_cell(timm, freeze=f"stride{stride}"))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, _ in model.named_parameters()} - learned == kept
    assert not [name for name in kept if has_changed[name]]
    assert not [name for name in learned if not has_changed[name]]
    for name, norm in norms(model).items():
        frozen = f"{name}.weight" in kept
        assert norm.training != frozen
        assert has_changed[f"{name}.running_mean"] != frozen


@pytest.mark.parametrize(("timm", "strides"), [(net, (2, 8)) for net in NETS if net != "convnext_atto"])
def test_every_stride_of_a_backbone_can_be_frozen_up_to(timm: str, strides: tuple[int, ...]) -> None:
    for stride in strides:
        model, _ = built(a_cell(timm, freeze=f"stride{stride}"))
        assert {name for name, p in model.named_parameters() if not p.requires_grad} == read_by_the_map(timm, stride)


@nets
def test_a_frozen_backbone_is_kept_whole_and_in_evaluation_mode(timm: str) -> None:
    model, has_changed = changed(a_cell(timm, freeze="backbone"))
    assert has_changed == {name: name.startswith("head.") for name in has_changed}
    model.train()
    assert not [name for name, module in model.backbone.body.named_modules() if module.training]
    assert model.head.training


def test_batch_norm_and_freezing_go_together_and_in_the_average_too() -> None:
    cell = a_cell("test_resnet", batch_norm="eval", freeze="stride4", ema=0.9)
    kept = read_by_the_map("test_resnet", 4)
    model, training = built(cell)
    assert training.averaged is not None
    for one in (model, training.averaged):
        one.train()
        assert not [name for name, norm in norms(one).items() if norm.training]
        assert {name for name, p in one.named_parameters() if not p.requires_grad} == kept
    model, has_changed = changed(cell)
    assert {name for name, value in has_changed.items() if not value} == statistics(model) | kept


def test_scoring_and_training_in_turns_leaves_still_what_is_still() -> None:
    model, _ = built(a_cell("mobilenetv2_100", freeze="stride8"))
    modes: list[dict[str, bool]] = []
    for _ in range(2):
        model.eval()
        assert not [module for module in model.modules() if module.training]
        model.train()
        modes.append({name: module.training for name, module in model.named_modules()})
    assert modes[0] == modes[1]
    assert set(modes[0].values()) == {True, False}


def test_a_stride_that_the_backbone_lacks_is_refused_with_those_it_has() -> None:
    message = "freeze: the backbone has no map at stride 2; it has maps at 4, 8, 16, 32"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        built(a_cell("convnext_atto", freeze="stride2"))


def test_a_dropout_of_a_frozen_backbone_drops_nothing() -> None:
    model, _ = built(a_cell("test_resnet"))
    features: list[Tensor] = []
    model.backbone.body.maxpool = nn.Sequential(model.backbone.body.maxpool, nn.Dropout(0.9))  # type: ignore[arg-type]
    freeze_backbone(model.backbone, 4)
    model.train()
    image = torch.randn(2, 3, 32, 32)
    for _ in range(2):
        features.append(model.backbone(image)[4])
    assert torch.equal(*features)
