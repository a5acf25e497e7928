"""Heads from segmentation_models_pytorch: equal to smp's models where those accept the image, and defined elsewhere."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import fcnlab
from fcnlab.config.grid.grid import resolve
from fcnlab.config.head import SMP_DECODERS, AnyHead, SmpHead
from fcnlab.config.registry import builtin
from fcnlab.config.trial import Trial
from fcnlab.config.validation import validate
from fcnlab.config.variant import Variant
from fcnlab.errors import ConfigError, ModelError
from fcnlab.models import FCN
from fcnlab.models.heads.smp import DECODERS
from fcnlab.training.cost import count_gmacs, count_parameters
from fcnlab.training.fused_loss import can_fuse
from fcnlab.training.losses import Loss
from fcnlab.trial.build import build_model

CPU = torch.device("cpu")
GIVEN = {"encoder_channels", "encoder_depth", "n_blocks", "output_stride"}
"""Arguments of smp's decoders that are not options."""


def head(decoder: str, **keys: Any) -> SmpHead:
    entry = {"type": "smp", "decoder": decoder, **({"output_stride": 16} if decoder == "deeplabv3plus" else {}), **keys}
    found = validate(AnyHead, entry, "test")
    assert isinstance(found, SmpHead)
    return found


def variant(spec: SmpHead, upsampler: str = "resize", backbone: str = "resnet10t-scratch") -> Variant:
    registry = builtin()
    parts = {
        "backbone": registry.get("backbone", backbone),
        "head": spec,
        "upsampler": registry.get("upsampler", upsampler),
    }
    return Variant.model_validate(parts)


def ours(spec: SmpHead, upsampler: str = "resize") -> FCN:
    return build_model(variant(spec, upsampler), 5, seed=0).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("decoder", "keys", "settings"),
    [
        ("unet", {}, {}),
        ("unet", {"decoder_channels": (32, 16, 16, 8, 8)}, {"decoder_channels": (32, 16, 16, 8, 8)}),
        ("deeplabv3plus", {}, {}),
        ("deeplabv3plus", {"atrous_rates": (2, 4, 6)}, {"decoder_atrous_rates": (2, 4, 6)}),
        ("fpn", {}, {}),
        ("fpn", {"merge_policy": "cat"}, {"decoder_merge_policy": "cat"}),
        ("upernet", {"decoder_channels": 32}, {"decoder_channels": 32}),
        ("segformer", {}, {}),
    ],
)
def test_a_head_computes_the_scores_of_smps_model_with_the_same_weights(
    decoder: str, keys: dict[str, Any], settings: dict[str, Any]
) -> None:
    model = ours(head(decoder, options=keys))
    theirs = smp.create_model(decoder, "tu-resnet10t", encoder_weights=None, classes=5, **settings).eval()
    theirs.encoder.model.load_state_dict(model.backbone.body.state_dict())
    theirs.decoder.load_state_dict(model.head.decoder.state_dict())
    theirs.segmentation_head[0].load_state_dict(model.head.score.state_dict())
    images = noise(2, 3, 96, 64)
    with torch.inference_mode():
        before_upsampling = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(images)))
        assert torch.allclose(model.coarse_scores(images), before_upsampling, atol=1e-5)
        if decoder == "unet":
            assert torch.allclose(model(images), theirs(images), atol=1e-5)
    assert count_parameters(model) == count_parameters(theirs)


def test_the_model_is_initialized_like_that_of_smp() -> None:
    # smp sets biases to zero and the convolution of the scores by Glorot, whose bound follows from its channels.
    model = ours(head("upernet"))
    score = model.head.score
    assert isinstance(score, nn.Conv2d) and score.bias is not None and not score.bias.any()
    bound = (6 / (score.in_channels + score.out_channels)) ** 0.5
    assert 0.9 * bound < score.weight.abs().max() <= bound


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_loss_is_fused_with_an_upsampling_by_transposed_convolution(decoder: str) -> None:
    assert can_fuse(Loss(), ours(head(decoder), "bilinear").head, CPU) == (decoder != "unet")
    assert not can_fuse(Loss(), ours(head(decoder), "resize").head, CPU)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_options_are_those_of_smps_decoders(decoder: str) -> None:
    parameters = inspect.signature(DECODERS[decoder].load()).parameters
    assert set(SMP_DECODERS[decoder].options) == parameters.keys() - GIVEN
    assert DECODERS[decoder].options.keys() <= parameters.keys()


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_head_has_an_upsampler_if_its_scores_are_smaller_than_the_image(decoder: str) -> None:
    assert head(decoder).upsamples == (DECODERS[decoder].stride > 1)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(75, 101), (33, 65), (90, 120)])
def test_deeplabv3plus_accepts_images_of_every_size(size: tuple[int, int], output_stride: int) -> None:
    model = ours(head("deeplabv3plus", output_stride=output_stride), "bilinear")
    with torch.inference_mode():
        scores = model(noise(1, 3, *size))
    assert scores.shape == (1, 5, *size) and scores.isfinite().all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_padding_changes_nothing_but_the_border(decoder: str) -> None:
    # Global pooling sees the padding, so these are compared away from it, and loosely where there is global pooling.
    model = ours(head(decoder))
    images = noise(1, 3, 256, 256)
    with torch.inference_mode():
        whole, cut = model(images), model(images[..., :250, :250])
    assert cut.shape == (1, 5, 250, 250)
    near = (cut - whole[..., :250, :250]).abs()[..., :96, :96].mean()
    assert near < 0.25 * whole.std()


def test_a_backbone_without_stride_2_has_no_skip_there() -> None:
    for name in ("unet", "segformer"):
        model = fcnlab.build_model(f"scratch:convnext_atto+{name}+resize", 3).eval()
        assert 2 not in model.backbone.channels
        with torch.inference_mode():
            assert model(noise(1, 3, 65, 99)).shape == (1, 3, 65, 99)


def test_the_cost_of_a_head_is_counted() -> None:
    costs = {name: count_gmacs(ours(head(name)), (64, 64)) for name in ("segformer", "upernet")}
    assert costs["upernet"] > 2 * costs["segformer"] > 0


def test_an_upsampler_that_is_not_used_does_not_change_the_key() -> None:
    def key(decoder: str, upsampler: str) -> str:
        registry = builtin()
        return Trial(
            variant=variant(head(decoder), upsampler), dataset=registry.get("dataset", "shapes"),
            recipe=registry.get("recipe", "smoke"), seed=0, names={}, data="data",
        ).key  # fmt: skip

    assert key("unet", "bilinear") == key("unet", "resize")
    assert key("fpn", "bilinear") != key("fpn", "resize")


@pytest.mark.parametrize(("name", "allowed"), [("deeplabv3plus", False), ("upernet", False), ("fpn", True)])
def test_a_micro_batch_of_one_image_is_an_error_where_its_mean_has_a_batch_norm(name: str, allowed: bool) -> None:
    overrides = {"backbone": "tiny-scratch", "head": name, "dataset": "shapes", "recipe": "smoke"}
    with (
        nullcontext()
        if allowed
        else pytest.raises(
            ConfigError,
            match=f"head {name} needs 2 images per micro-batch, and recipe smoke has 1; set recipe.batch_size",
        )
    ):
        resolve({**overrides, "recipe.batch_size": 4, "recipe.grad_accum_steps": 4}, builtin(), "test")
    with nullcontext() if allowed else pytest.raises(ValueError, match="more than 1 value per channel"):
        build_model(variant(head(name)), 3, seed=0)(noise(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("decoder", "keys", "expected"),
    [
        ("unett", {}, "decoder: \"unett\" is not valid; did you mean 'unet'?"),
        (
            "fpn",
            {"options": {"pyramid_channel": 8}},
            "decoder fpn has no option 'pyramid_channel'; did you mean 'pyramid_",
        ),
        ("fpn", {"output_stride": 16}, "output_stride: 16 is not valid with decoder: fpn; use 32"),
        (
            "deeplabv3plus",
            {"output_stride": 32},
            "output_stride: 32 is not valid with decoder: deeplabv3plus; use 8 or 16",
        ),
        ("fpn", {"stride": 8}, "stride: unknown key with type: smp"),
    ],
)
def test_an_invalid_head_is_an_error_with_the_valid_values(decoder: str, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        head(decoder, **keys)
    assert expected in str(caught.value)


def test_an_invalid_value_of_an_option_is_an_error() -> None:
    ours(head("unet", options={"decoder_channels": (16, 16, 8, 8, 8)}))
    with pytest.raises(ModelError) as caught:
        ours(head("unet", options={"decoder_channels": (8, 8)}))
    assert str(caught.value) == (
        "smp's decoder unet does not accept {'decoder_channels': (8, 8)}: "
        "Model depth is 5, but you provide `decoder_channels` for 2 blocks"
    )
