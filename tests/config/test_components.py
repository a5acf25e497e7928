"""Components: valid and invalid combinations of fields, and the content that enters a trial's key."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fcnlab.config.dataset import ShapesDataset
from fcnlab.config.grid.grid import Cell, resolve
from fcnlab.config.head import CustomHead, SkipHead
from fcnlab.config.loss import Loss, Ohem
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import TransposedUpsampler
from fcnlab.errors import ConfigError
from tests.builders import TINY

BASE = TINY | {"dataset": "shapes"}
PAPER_NET = {"backbone.timm": None, "backbone.paper": "vgg16"}
PAPER_HEAD = {"head.type": "paper"}


def cell(overrides: dict[str, Any]) -> Cell:
    return resolve({**BASE, **overrides}, builtin(), "grid.yaml")


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"backbone.timm": None}, "a backbone is one network: give either 'timm' or 'paper'"),
    ({"backbone.paper": "vgg16"}, "a backbone is one network: give either 'timm' or 'paper'"),
    (
        {**PAPER_NET, **PAPER_HEAD, "backbone.weights": "timm"},
        "vgg16-paper has pretrained weights of torchvision, not of timm",
    ),
    ({"backbone.weights": "torchvision"}, "test_resnet has pretrained weights of timm, not of torchvision"),
    (
        {"backbone.weights": "w.zip"},
        "'weights' is 'w.zip'; valid: scratch, timm, or a file whose name ends in .safetensors, .pth, .pt, .pth.tar, "
        ".ckpt, .bin",
    ),
    (
        {"backbone.weights_prefix": "model."},
        "'weights_prefix' applies to a local weights file, not to weights: scratch",
    ),
    (
        {"head.dropout": 0.2},
        "dropout: unknown key with type: skip; valid: at_once, context, description, fusion, hidden, stride, type",
    ),
    (
        {"head.options": {"width": 3}},
        "options: unknown key with type: skip; valid: at_once, context, description, fusion, hidden, stride, type",
    ),
    (
        {**PAPER_NET, **PAPER_HEAD, "head.fusion": "concat"},
        "fusion: unknown key with type: paper; valid: at_once, description, stride, type",
    ),
    (
        {"head": "dilated8", "head.stride": 8},
        "stride: unknown key with type: dilated; did you mean 'output_stride'? "
        "valid: auxiliary, concat_input, convs, description, dropout, hidden, output_stride, type",
    ),
    (
        {"head.type": "mine", "head.hidden": 3},
        "hidden: unknown key with type: custom; valid: description, options, output_stride, reads, type",
    ),
    ({"head.stride": None}, "stride: null is not valid; valid: 4, 8, 16, 32"),
    ({**PAPER_HEAD, "head.stride": 4}, "stride: 4 is not valid; valid: 8, 16, 32"),
    ({"head": "fcn32s", "head.at_once": True}, "at_once scales the skips; a head of stride 32 has none"),
    ({"head.context": True}, "context needs a hidden layer; set its channels, such as hidden: 256"),
    ({"head": "dilated8", "head.output_stride": 32}, "output_stride: 32 is not valid; valid: 8, 16"),
    ({"head": "dilated8", "head.dropout": 1.0}, "dropout: input should be less than 1, not 1.0"),
    ({"head.type": "dilated"}, "output_stride: missing; this key is required with type: dilated; valid: 8, 16"),
    ({"upsampler": "interpolate", "upsampler.mode": None}, "mode: null is not valid; valid: bilinear, nearest"),
    (
        {"upsampler.type": "resize"},
        "mode: missing; this key is required with type: resize; valid: bilinear, nearest",
    ),
    (
        {"upsampler.type": "resise"},
        "type: \"resise\" is not valid; did you mean 'resize'? valid: interpolate, resize, transposed",
    ),
    (
        {"upsampler": "resize", "upsampler.bias": True},
        "bias: unknown key with type: resize; valid: description, mode, type",
    ),
    (
        {"upsampler": "interpolate", "upsampler.init": "bilinear"},
        "init: unknown key with type: interpolate; valid: description, mode, type",
    ),
    (
        {"upsampler.init": None},
        "init: null is not valid; valid: bilinear, kaiming, normal, random, xavier, zero",
    ),
    (
        {"upsampler": "interpolate", "upsampler.type": "transposed"},
        "init: missing; this key is required with type: transposed; "
        "valid: bilinear, kaiming, normal, random, xavier, zero",
    ),
    (
        {"upsampler.mode": "nearest"},
        "mode: unknown key with type: transposed; valid: bias, channels, description, init, learned, stage_init, type",
    ),
    (
        {"upsampler.learned": False, "upsampler.init": "xavier"},
        "a fixed upsampler (learned: false) cannot have init: xavier; use init: bilinear",
    ),
    (
        {"upsampler.learned": False, "upsampler.stage_init.image": "zero"},
        "a fixed upsampler (learned: false) cannot have init: zero; use init: bilinear",
    ),
    (
        {"upsampler.learned": False, "upsampler.bias": True},
        "a fixed upsampler (learned: false) cannot have bias: true, which would stay random",
    ),
    ({"upsampler.channels": "diagonal"}, "init: bilinear is diagonal anyway; use channels: dense"),
    ({"upsampler": "zero", "upsampler.channels": "diagonal"}, "init: zero is diagonal anyway; use channels: dense"),
    (
        PAPER_NET,
        "the paper's vgg16 pads its input, and only heads of type paper crop for that; use head: fcn32s-paper",
    ),
    (PAPER_HEAD, "a head of type paper crops for the padding of the paper's networks; use backbone: vgg16-paper"),
    (
        {**PAPER_NET, **PAPER_HEAD, "upsampler": "interpolate"},
        "a head of type paper upsamples by transposed convolution; use upsampler: bilinear",
    ),
    (
        {"dataset.folder": "shapes"},
        "folder: unknown key with type: shapes; valid: description, nominal, options, splits, type",
    ),
    ({"dataset": "camvid", "dataset.folder": None}, "folder: input should be a valid string, not null"),
    (
        {"dataset": "camvid", "dataset.options.train": 3},
        "options: unknown key with type: camvid; valid: description, folder, nominal, splits, type",
    ),
    ({"recipe.optimizer": {"name": "sgd", "lr": 1, "nesterov": True}}, "nesterov needs a momentum above 0"),
    ({"recipe.loss.weight": 0}, "weight, dice and lovasz are all 0; set one of them above 0, or custom"),
    (
        {"recipe.loss": {"weight": 0, "dice": 1, "class_weights": "median_frequency"}},
        "class_weights apply to the cross entropy, whose weight is 0",
    ),
    (
        {"recipe.grad_accum_steps": 2, "recipe.loss": {"dice": 1, "reduction": "image_mean_sum"}},
        "grad_accum_steps with dice requires loss.reduction: pixel_mean",
    ),
    ({"recipe.loss": {"ohem": {}, "reduction": "pixel_sum"}}, "ohem requires reduction: pixel_mean"),
    ({"recipe.loss": {"ohem": {}, "reduction": "image_mean_sum"}}, "ohem requires reduction: pixel_mean"),
    (
        {"recipe.loss": {"focal": 2, "label_smoothing": 0.1}},
        "focal and label_smoothing cannot be combined; choose one",
    ),
    ({"recipe.scale": [2, 1]}, "scale must increase, not 2.0 to 1.0"),
    ({"recipe.blur": {"probability": 0.5, "sigma": [2, 1]}}, "sigma must increase, not 2.0 to 1.0"),
    (
        {"recipe.epochs": 2, "recipe.schedule.warmup_epochs": 1500},
        "schedule.warmup_epochs is a number of epochs, at most `epochs`; 1500 is more than 2",
    ),
    ({"recipe.grad_accum_steps": 3}, "grad_accum_steps must divide batch_size; 3 does not divide 4"),
    ({"recipe.grad_accum_steps": 8}, "grad_accum_steps must divide batch_size; 8 does not divide 4"),
]


@pytest.mark.parametrize(("overrides", "message"), ERRORS, ids=[f"{overrides}" for overrides, _ in ERRORS])
def test_an_invalid_combination_is_one_error_line(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^grid.yaml: .*{re.escape(message)}$") as caught:
        cell(overrides)
    assert len(str(caught.value).splitlines()) == 1


def test_a_warm_up_can_last_until_the_last_epoch() -> None:
    assert cell({"recipe.epochs": 2, "recipe.schedule.warmup_epochs": 2}).recipe.schedule.warmup_epochs == 2


@pytest.mark.parametrize(
    "overrides",
    [
        {"recipe.ema": 1.0},
        {"recipe.grad_clip_norm": 0},
        {"recipe.grad_accum_steps": 0},
        {"recipe.jitter.hue": 0.6},
        {"recipe.jitter.brightness": 1.1},
        {"recipe.lr_factors.head": -1},
        {"recipe.lr_factors.bias": float("inf")},
        {"recipe.schedule.milestones": [0.5, 1.0]},
        {"recipe.schedule.gamma": 1.0},
        {"recipe.loss.label_smoothing": 1.0},
        {"recipe.loss.ohem": {"threshold": 0}},
        {"recipe.loss.ohem": {"keep": 0}},
        {"recipe.loss.focal": -1},
        {"recipe.batch_norm": "stopped"},
        {"recipe.freeze": "stride32"},
        {"recipe.decay": "none"},
        {"recipe.optimizer": {"name": "adam", "lr": 1, "betas": [0.9, 1.0]}},
        {"recipe.optimizer": {"name": "adam", "lr": 1, "momentum": 0.9}},
        {"recipe.optimizer": {"name": "lion", "lr": 1}},
        {"head.type": "Skip"},
        {"head.hidden": 0},
        {"upsampler.init": "orthogonal"},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_an_error_with_its_key(overrides: dict[str, Any]) -> None:
    (axis,) = overrides
    with pytest.raises(ConfigError, match=rf"^grid\.yaml: {axis}\b"):
        cell(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {**PAPER_NET, **PAPER_HEAD},
        {**PAPER_NET, **PAPER_HEAD, "backbone.weights": "torchvision", "head.at_once": True},
        {"head": "dilated8", "head.auxiliary": 16, "upsampler": "resize"},
        {"head.type": "custom_head", "head.options": {"width": 3}, "head.reads": [8, 32]},
        {"upsampler.learned": False, "upsampler.stage_init.image": "bilinear"},
        {"upsampler.channels": "diagonal", "upsampler.stage_init.image": "random"},
        {"recipe.loss": {"weight": 0, "dice": 1}},
        {"recipe.loss": {"ohem": {}, "focal": 2, "class_weights": "median_frequency"}},
        {"recipe.grad_accum_steps": 4},
    ],
    ids=str,
)
def test_a_valid_combination_is_accepted(overrides: dict[str, Any]) -> None:
    assert cell(overrides)


def test_content_leaves_out_defaults_and_descriptions() -> None:
    assert cell({}).recipe.content() == {
        "epochs": 2,
        "batch_size": 4,
        "crop": {"height": 64, "width": 64},
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    }
    assert SkipHead(type="skip", stride=8, description="a word").content() == {"type": "skip", "stride": 8}
    assert CustomHead(type="mine", reads=(8,)).content() == {"type": "mine"}
    assert TransposedUpsampler(init="bilinear").content() == {"init": "bilinear"}
    assert Loss().content() == {}


def test_content_has_other_values_as_plain_values() -> None:
    found = cell(
        {"recipe.schedule": {"name": "step", "milestones": [0.5]}, "recipe.lr_factors": {"head": 2, "bias": 1}}
    )
    content = found.recipe.content()
    assert content["schedule"] == {"name": "step", "milestones": [0.5]}
    assert content["lr_factors"] == {"head": 2.0}
    assert Loss(ohem=Ohem()).content() == {"ohem": {}}
    stages = cell({"upsampler.stage_init.image": "random"}).variant.upsampler
    assert stages.content() == {"init": "bilinear", "stage_init": {"image": "random"}}
    assert isinstance(stages, TransposedUpsampler)
    assert (stages.init_of("image"), stages.init_of("to16")) == ("random", "bilinear")


@pytest.mark.parametrize("name", builtin().names("recipe"))
def test_a_recipe_equals_the_one_of_its_content(name: str) -> None:
    recipe = builtin().get("recipe", name)
    assert isinstance(recipe, Recipe)
    again = Recipe.model_validate(recipe.content())
    assert again.content() == recipe.content()
    assert again == recipe.model_copy(update={"description": ""})


@pytest.mark.parametrize(
    ("overrides", "needs"),
    [
        ({"head.stride": 4}, (4, 8, 16, 32)),
        ({"head": "fcn32s"}, (32,)),
        ({"head": "dilated8"}, (32,)),
        ({"head": "dilated8-aux"}, (16, 32)),
        ({"head.type": "custom_head", "head.reads": [32, 8]}, (8, 32)),
        ({"head.type": "custom_head"}, (32,)),
    ],
    ids=str,
)
def test_a_head_knows_the_maps_that_it_reads(overrides: dict[str, Any], needs: tuple[int, ...]) -> None:
    assert cell(overrides).variant.head.needs == needs


def test_the_nominal_size_of_shapes_is_that_of_its_scenes() -> None:
    shapes = {"type": "shapes", "options": {"height": 224}, "nominal": {"height": 96, "width": 128}}
    for values, expected in ((shapes, (224, 128)), ({"type": "shapes"}, (96, 128))):
        dataset = ShapesDataset.model_validate(values)
        assert (dataset.nominal.height, dataset.nominal.width) == expected
    resolved = resolve(
        {"variant": "fcn32s-tiny", "dataset": "shapes-mini", "dataset.options.width": 160, "recipe": "smoke"},
        builtin(),
        "test",
    )
    assert (resolved.dataset.nominal.height, resolved.dataset.nominal.width) == (64, 160)
