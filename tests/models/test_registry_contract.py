"""Contract tests of every entry of the registry, which also cover new entries."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn

from fcnlab.config.head import Head
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import TransposedUpsampler, Upsampler
from fcnlab.config.variant import Backbone, NamedVariant, Variant
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.models import FCN, PaperBackbone, TimmBackbone
from fcnlab.models.heads import HEADS
from fcnlab.training.fused_loss import FusedUpsampleLoss
from fcnlab.trial.build import build_model, build_training

REGISTRY = builtin()


def parts(backbone: str, head: str, upsampler: str) -> Variant:
    """Return a variant with random weights: tests download no weights."""
    entry = REGISTRY.get("backbone", backbone)
    found = (entry.model_copy(update={"weights": "scratch"}), REGISTRY.get("head", head),
             REGISTRY.get("upsampler", upsampler))  # fmt: skip
    assert isinstance(found[0], Backbone) and isinstance(found[1], Head) and isinstance(found[2], Upsampler)
    return Variant(backbone=found[0], head=found[1], upsampler=found[2])


def of_paper(head: str) -> bool:
    entry = REGISTRY.get("head", head)
    assert isinstance(entry, Head)
    return entry.type == "paper"


def fits(head: str, upsampler: str) -> bool:
    """Return whether the pair is valid: the paper's heads require transposed convolutions."""
    entry = REGISTRY.get("upsampler", upsampler)
    assert isinstance(entry, Upsampler)
    return entry.type == "transposed" or not of_paper(head)


def smallest(head: str) -> str:
    """Return the smallest backbone that a head supports; only VGG-16 has all maps of the paper's."""
    return "vgg16-paper-scratch" if of_paper(head) else "tiny-scratch"


@pytest.mark.parametrize("name", REGISTRY.names("variant"))
def test_every_variant_gives_scores_of_the_images_size(name: str) -> None:
    entry = REGISTRY.get("variant", name)
    assert isinstance(entry, NamedVariant)
    # On the meta device shapes are computed and numbers are not: ResNet-50 costs no more than the tiny one.
    with torch.device("meta"), torch.no_grad():
        model = build_model(parts(entry.backbone, entry.head, entry.upsampler), 4, seed=0).eval()
        assert model(torch.empty(2, 3, 75, 101)).shape == (2, 4, 75, 101)


@pytest.mark.parametrize(
    "name",
    # The paper's nets are as large, and start with scores of zero: they have tests of their own.
    [name for name in REGISTRY.names("variant") if not re.search("resnet50|paper", name)],
)
def test_every_small_variant_gives_finite_scores(name: str) -> None:
    entry = REGISTRY.get("variant", name)
    assert isinstance(entry, NamedVariant)
    model = build_model(parts(entry.backbone, entry.head, entry.upsampler), 4, seed=0).eval()
    with torch.inference_mode():
        scores = model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert scores.shape == (1, 4, 64, 64)
    assert scores.isfinite().all()
    assert scores.std() > 0


@pytest.mark.parametrize("name", REGISTRY.names("backbone"))
def test_every_backbone_has_the_reductions_of_its_entry(name: str) -> None:
    # A grid is checked against the entry, without torch; the entry must not name maps that the network lacks.
    entry = REGISTRY.get("backbone", name)
    assert isinstance(entry, Backbone)
    with torch.device("meta"):
        backbone = TimmBackbone(entry.timm) if entry.timm is not None else PaperBackbone(entry.paper or "")
    assert list(entry.reductions) == sorted(backbone.channels)


@pytest.mark.parametrize(
    "name", [n for n in REGISTRY.names("backbone") if REGISTRY.get("backbone", n).weights == "timm"]
)
def test_every_pretrained_backbone_names_its_weights(name: str) -> None:
    # Without a tag timm chooses, and may choose otherwise tomorrow.
    entry = REGISTRY.get("backbone", name)
    assert isinstance(entry, Backbone)
    assert entry.timm in timm.list_models(pretrained=True)
    assert "." in entry.timm


@pytest.mark.parametrize("name", REGISTRY.names("head"))
def test_every_head_needs_the_strides_of_its_entry(name: str) -> None:
    entry = REGISTRY.get("head", name)
    assert isinstance(entry, Head)
    with torch.device("meta"):
        model = build_model(parts(smallest(name), name, "bilinear"), 4, seed=0)
        assert isinstance(model.head, HEADS[entry.type])
        maps = model.backbone(torch.empty(2, 3, 64, 64))
        read = (*entry.needs, *entry.optional)
        assert model.head({r: maps[r] for r in read}, (64, 64)).shape == (2, 4, 64, 64)


@pytest.mark.parametrize(
    ("head", "name"), [(h, u) for h in REGISTRY.names("head") for u in REGISTRY.names("upsampler") if fits(h, u)]
)
def test_every_upsampler_builds_under_every_head(name: str, head: str) -> None:
    entry, of_head = REGISTRY.get("upsampler", name), REGISTRY.get("head", head)
    assert isinstance(entry, Upsampler) and isinstance(of_head, Head)
    with torch.device("meta"):
        model = build_model(parts(smallest(head), head, name), 4, seed=0).eval()
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    ups = [module for module in model.head.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert bool(ups) == (isinstance(entry, TransposedUpsampler) and of_head.upsamples)
    for up in ups:
        assert isinstance(entry, TransposedUpsampler)
        assert up.weight.requires_grad == entry.learned
        assert (up.bias is not None) == entry.bias
        assert up.groups == (4 if entry.channels == "per_class" else 1)


@pytest.fixture(scope="module")
def tiny() -> FCN:
    return build_model(parts("tiny-scratch", "fcn32s", "bilinear"), 6, seed=0)


@pytest.mark.parametrize("name", REGISTRY.names("recipe"))
def test_every_recipe_builds_a_working_training_step(name: str, tiny: FCN) -> None:
    recipe = REGISTRY.get("recipe", name)
    assert isinstance(recipe, Recipe)
    shapes = Shapes(train=recipe.batch_size, val=1, test=1, height=32, width=32, seed=0)
    training = build_training(recipe, tiny, shapes, split="train", seed=0)
    assert training.batches.steps == 1
    plain = training.loss.loss if isinstance(training.loss, FusedUpsampleLoss) else training.loss
    assert plain.reduction == recipe.loss.reduction
    assert type(training.optimizer).__name__.lower() == recipe.optimizer.name
    assert training.optimizer.defaults["lr"] == recipe.optimizer.lr
    assert training.optimizer.defaults["weight_decay"] == recipe.optimizer.weight_decay
    factors = [training.schedule(step) for step in range(recipe.epochs)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)
    factor = 32 if plain is not training.loss else 1  # one that upsamples itself has labels of the image's size
    labels = torch.zeros(2, 8 * factor, 8 * factor, dtype=torch.uint8)
    value = training.loss(torch.randn(2, 6, 8, 8), labels)
    assert value.isfinite() and value > 0
