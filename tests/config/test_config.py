"""What does not fit together in an entry, each in one line that says the remedy; and what an entry's content is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fcnlab.config.grid.grid import Cell, resolve
from fcnlab.config.recipe import Loss, Ohem, Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.variant import Head, Upsampler
from fcnlab.errors import ConfigError

SAID = {"backbone": "tiny-scratch", "head": "fcn8s", "upsampler": "bilinear", "dataset": "shapes", "recipe": "smoke"}
PAPER_NET = {"backbone.timm": None, "backbone.paper": "vgg16"}
PAPER_HEAD = {"head.type": "paper"}


def cell(said: dict[str, Any]) -> Cell:
    return resolve({**SAID, **said}, {}, builtin(), "question.yaml")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"backbone.timm": None}, "a backbone is one net: give 'timm' or 'paper', and not both"),
    ({"backbone.paper": "vgg16"}, "a backbone is one net: give 'timm' or 'paper', and not both"),
    (
        {**PAPER_NET, **PAPER_HEAD, "backbone.weights": "timm"},
        "vgg16-paper has pretrained weights of torchvision, not of timm",
    ),
    ({"backbone.weights": "torchvision"}, "test_resnet has pretrained weights of timm, not of torchvision"),
    ({"head.dropout": 0.2}, "a head of type skip takes no 'dropout'; valid: at_once, context, fusion, hidden, stride"),
    (
        {"head.options": {"width": 3}},
        "a head of type skip takes no 'options'; valid: at_once, context, fusion, hidden, stride",
    ),
    (
        {**PAPER_NET, **PAPER_HEAD, "head.fusion": "concat"},
        "a head of type paper takes no 'fusion'; valid: at_once, stride",
    ),
    (
        {"head": "dilated8", "head.stride": 8},
        "a head of type dilated takes no 'stride'; "
        "valid: auxiliary, concat_input, convs, dropout, hidden, output_stride",
    ),
    ({"head.stride": None}, "a head of type skip needs a 'stride': 32, 16, 8 or 4"),
    ({**PAPER_HEAD, "head.stride": 4}, "the paper's nets have no stride-4 head; use 32, 16 or 8"),
    ({"head": "fcn32s", "head.at_once": True}, "at_once scales the skips, and a head of stride 32 has none"),
    ({"head": "dilated8", "head.output_stride": 32}, "a dilated head needs an 'output_stride' of 8 or 16"),
    (
        {"upsampler": "interpolate", "upsampler.mode": None},
        "an upsampler of type interpolate needs a 'mode': bilinear or nearest",
    ),
    ({"upsampler.type": "resize"}, "an upsampler of type resize needs a 'mode': bilinear or nearest"),
    (
        {"upsampler": "resize", "upsampler.bias": True},
        "an upsampler of type resize has no weights and takes no 'bias'",
    ),
    (
        {"upsampler": "interpolate", "upsampler.init": "bilinear"},
        "an upsampler of type interpolate has no weights and takes no 'init'",
    ),
    ({"upsampler.init": None}, "a transposed convolution needs an 'init': bilinear, random, xavier, ..."),
    (
        {"upsampler.mode": "nearest"},
        "'mode' is for type: interpolate or resize; a transposed convolution has an 'init'",
    ),
    (
        {"upsampler.learned": False, "upsampler.init": "xavier"},
        "a fixed upsampler (learned: false) cannot have init: xavier; use init: bilinear",
    ),
    (
        {"upsampler.learned": False, "upsampler.stage_init.image": "zero"},
        "a fixed upsampler (learned: false) cannot have init: zero; use init: bilinear",
    ),
    ({"upsampler.channels": "diagonal"}, "init: bilinear is diagonal anyway; use channels: dense"),
    (
        {"upsampler": "zero", "upsampler.channels": "diagonal"},
        "init: zero is diagonal anyway; use channels: dense",
    ),
    (
        PAPER_NET,
        "the paper's vgg16 pads its input, and only heads of type paper crop for that; use head: fcn32s-paper",
    ),
    (PAPER_HEAD, "a head of type paper crops for the padding of the paper's nets; use backbone: vgg16-paper"),
    (
        {**PAPER_NET, **PAPER_HEAD, "upsampler": "interpolate"},
        "a head of type paper upsamples by transposed convolution; use upsampler: bilinear",
    ),
    ({"dataset.folder": "shapes"}, "shapes is generated and takes no 'folder'"),
    ({"dataset": "camvid", "dataset.folder": None}, "a dataset of type camvid takes a 'folder' and no 'options'"),
    ({"dataset": "camvid", "dataset.options.train": 3}, "a dataset of type camvid takes a 'folder' and no 'options'"),
    ({"recipe.optimizer": {"name": "sgd", "lr": 1, "nesterov": True}}, "nesterov needs a momentum above 0"),
    ({"recipe.loss.weight": 0}, "weight, dice and lovasz are all 0: nothing would be learned"),
    (
        {"recipe.loss": {"weight": 0, "dice": 1, "class_weights": "median_frequency"}},
        "class_weights weigh the cross entropy, whose weight is 0",
    ),
    (
        {"recipe.grad_accum_steps": 2, "recipe.loss": {"dice": 1, "reduction": "image_mean_sum"}},
        "grad_accum_steps with dice or lovasz goes with loss.reduction: pixel_mean alone",
    ),
    (
        {"recipe.loss": {"ohem": {}, "reduction": "pixel_sum"}},
        "ohem goes with reduction: pixel_mean alone",
    ),
    (
        {"recipe.loss": {"ohem": {}, "reduction": "image_mean_sum"}},
        "ohem goes with reduction: pixel_mean alone",
    ),
    (
        {"recipe.loss": {"focal": 2, "label_smoothing": 0.1}},
        "focal and label_smoothing do not go together; choose one",
    ),
    ({"recipe.scale": [2, 1]}, "scale must run from small to large, not from 2.0 to 1.0"),
    ({"recipe.grad_accum_steps": 3}, "grad_accum_steps must divide batch_size; 3 does not divide 4"),
    ({"recipe.grad_accum_steps": 8}, "grad_accum_steps must divide batch_size; 8 does not divide 4"),
]


@pytest.mark.parametrize(("said", "message"), FAULTS, ids=[f"{said}" for said, _ in FAULTS])
def test_what_does_not_fit_together_is_refused_in_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^question.yaml: .*{re.escape(message)}$") as caught:
        cell(said)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "said",
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
        {"recipe.batch_norm": "still"},
        {"recipe.freeze": "stride32"},
        {"recipe.decay": "none"},
        {"recipe.optimizer": {"name": "adam", "lr": 1, "betas": [0.9, 1.0]}},
        {"recipe.optimizer": {"name": "adam", "lr": 1, "momentum": 0.9}},
        {"recipe.optimizer": {"name": "lion", "lr": 1}},
        {"head.type": "Skip"},
        {"head.dropout": 1.0},
        {"upsampler.init": "orthogonal"},
    ],
    ids=str,
)
def test_a_value_out_of_its_range_is_refused_with_its_key(said: dict[str, Any]) -> None:
    (axis,) = said
    with pytest.raises(ConfigError, match=f"^question.yaml: {axis}: {axis.split('.')[0]}: {axis.split('.')[1]}"):
        cell(said)


@pytest.mark.parametrize(
    "said",
    [
        {**PAPER_NET, **PAPER_HEAD},
        {**PAPER_NET, **PAPER_HEAD, "backbone.weights": "torchvision", "head.at_once": True},
        {"head": "dilated8", "head.auxiliary": 16, "upsampler": "resize"},
        {"head.type": "of_ones_own", "head.options": {"width": 3}, "head.reads": [8, 32]},
        {"upsampler.learned": False, "upsampler.stage_init.image": "bilinear"},
        {"upsampler.channels": "diagonal", "upsampler.stage_init.image": "random"},
        {"recipe.loss": {"weight": 0, "dice": 1}},
        {"recipe.loss": {"ohem": {}, "focal": 2, "class_weights": "median_frequency"}},
        {"recipe.grad_accum_steps": 4},
    ],
    ids=str,
)
def test_what_fits_together_is_taken(said: dict[str, Any]) -> None:
    assert cell(said)


def test_content_leaves_out_what_is_at_its_default_and_what_documents() -> None:
    assert cell({}).recipe.content() == {
        "epochs": 2,
        "batch_size": 4,
        "crop": {"height": 64, "width": 64},
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    }
    assert Head(type="skip", stride=8, description="a word", reads=(8,)).content() == {"type": "skip", "stride": 8}
    assert Upsampler(init="bilinear").content() == {"init": "bilinear"}
    assert Loss().content() == {}


def test_content_keeps_what_is_said_otherwise_in_plain_values() -> None:
    said = cell({"recipe.schedule": {"name": "step", "milestones": [0.5]}, "recipe.lr_factors": {"head": 2, "bias": 1}})
    content = said.recipe.content()
    assert content["schedule"] == {"name": "step", "milestones": [0.5]}
    assert content["lr_factors"] == {"head": 2.0}
    assert Loss(ohem=Ohem()).content() == {"ohem": {}}
    stages = cell({"upsampler.stage_init.image": "random"}).variant.upsampler
    assert stages.content() == {"init": "bilinear", "stage_init": {"image": "random"}}
    assert stages.stage_inits == {"image": "random"}


@pytest.mark.parametrize("name", builtin().names("recipe"))
def test_a_recipe_is_what_its_content_says(name: str) -> None:
    recipe = builtin().get("recipe", name)
    assert isinstance(recipe, Recipe)
    again = Recipe.model_validate(recipe.content())
    assert again.content() == recipe.content()
    assert again == recipe.model_copy(update={"description": ""})


@pytest.mark.parametrize(
    ("said", "needs"),
    [
        ({"head.stride": 4}, (4, 8, 16, 32)),
        ({"head": "fcn32s"}, (32,)),
        ({"head": "dilated8"}, (32,)),
        ({"head": "dilated8-aux"}, (16, 32)),
        ({"head.type": "of_ones_own", "head.stride": None, "head.reads": [8, 32]}, (8, 32)),
    ],
    ids=str,
)
def test_a_head_says_which_maps_it_reads(said: dict[str, Any], needs: tuple[int, ...]) -> None:
    assert cell(said).variant.head.needs == needs
