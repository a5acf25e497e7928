"""Heads: skips that are initialized without effect, initialization of stages, and dilated heads of two libraries."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.segmentation import FCN_ResNet50_Weights, fcn_resnet50

import fcnlab
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import TransposedUpsampler as TransposedConfig
from fcnlab.config.upsampler import Upsampler
from fcnlab.config.variant import Variant
from fcnlab.models import FCN, HEADS, TransposedUpsampler, bilinear_kernel
from fcnlab.training.cost import count_gmacs, count_parameters
from fcnlab.trial.build import build_model

SKIPS = ["fcn16s", "fcn8s", "fcn4s", "fcn16s-concat", "fcn8s-concat", "fcn16s-at-once", "fcn8s-at-once"]


def variant(head: str, upsampler: str | Upsampler = "bilinear", backbone: str = "tiny-scratch", **more: Any) -> Variant:
    registry = builtin()
    found = registry.get("upsampler", upsampler) if isinstance(upsampler, str) else upsampler
    return Variant.model_validate(
        {
            "backbone": registry.get("backbone", backbone).model_copy(update={"weights": "scratch"}),
            "head": registry.get("head", head).model_copy(update=more),
            "upsampler": found,
        }
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maker(num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
    return TransposedUpsampler(num_classes, factor, **geometry)


def stirred(model: nn.Module) -> nn.Module:
    """Change all batch norms and biases a little, since those at one or zero have no effect."""
    for i, value in enumerate(model.state_dict().values()):
        if value.ndim == 1:
            value += 0.3 * noise(*value.shape, seed=i).tanh()
    return model.eval()


# Skips.


def by_hand(model: FCN, images: Tensor, upsampler: str) -> Tensor:
    """Compute the deepest scores upsampled step by step, without the skips."""
    features = model.backbone(images)
    score = model.head.score["32"]
    scores = F.conv2d(features[32], score.weight, score.bias)
    reductions = cast(list[int], model.head.reductions)
    for r in reductions[1:]:
        scores = enlarged(scores, 2, features[r].shape[-2:], upsampler)
    return enlarged(scores, reductions[-1], images.shape[-2:], upsampler)


def enlarged(scores: Tensor, factor: int, size: torch.Size, upsampler: str) -> Tensor:
    if upsampler == "resize":
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    if upsampler == "interpolate":
        up = F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    else:
        num_classes = scores.shape[1]
        kernels = bilinear_kernel(2 * factor).expand(num_classes, 1, -1, -1)
        up = F.conv_transpose2d(scores, kernels, stride=factor, padding=factor // 2, groups=num_classes)
    return up[:, :, : size[0], : size[1]]


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
@pytest.mark.parametrize("upsampler", ["bilinear", "interpolate", "resize"])
@pytest.mark.parametrize("head", SKIPS)
def test_initialized_skips_do_not_change_the_scores(head: str, upsampler: str, size: tuple[int, int]) -> None:
    model = build_model(variant(head, upsampler), 5, seed=0).eval()
    images = noise(2, 3, *size)
    with torch.inference_mode():
        scores = model(images)
        assert torch.allclose(scores, by_hand(model, images, upsampler), rtol=0, atol=2e-6)
    assert scores.std() > 0


@pytest.mark.parametrize("head", SKIPS)
def test_initialized_deepest_scores_equal_those_of_fcn32s(head: str) -> None:
    ours, plain = (build_model(variant(name), 5, seed=3).eval() for name in (head, "fcn32s"))
    images = noise(1, 3, 64, 64)
    with torch.inference_mode():
        score = ours.head.score["32"]
        wanted = plain.head.score["32"](plain.backbone(images)[32])
        assert torch.equal(score(ours.backbone(images)[32]), wanted)


@pytest.mark.parametrize("head", SKIPS)
def test_a_skip_that_has_learned_changes_the_scores(head: str) -> None:
    model = build_model(variant(head), 5, seed=0).eval()
    images = noise(1, 3, 64, 64)
    fused = model.head.mix if "concat" in head else model.head.score
    with torch.inference_mode():
        before = model(images)
        for r in model.head.reductions[1:]:
            fused[str(r)].weight[:, -5:].add_(1e6 if "at-once" in head else 1)
            after = model(images)
            assert not torch.allclose(after, before, atol=1e-2)
            before = after


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_at_once_scales_each_map_before_it_is_scored(stride: int) -> None:
    channels = {32: 6, 16: 5, 8: 4, 4: 3}
    maps = {r: noise(2, c, 64 // r, 96 // r, seed=r).double() for r, c in channels.items()}
    head = HEADS["skip"](channels, 3, maker, stride=stride, at_once=True).double()
    weights = {r: noise(3, c, 1, 1, seed=1 + r).double() for r, c in channels.items()}
    biases = {r: noise(3, seed=2 + r).double() for r in channels}
    for key, layer in head.score.items():
        layer.weight.data, layer.bias.data = weights[int(key)], biases[int(key)]
    scales = {32: 1, 16: 0.01, 8: 0.0001, 4: 0.000001}

    def score(r: int, scale: float) -> Tensor:
        scored = torch.einsum("oc,bchw->bohw", weights[r][..., 0, 0], scale * maps[r])
        return scored + biases[r][:, None, None]

    def whole(scales: dict[int, float]) -> Tensor:
        scores = score(32, 1)
        for r in (16, 8, 4):
            if r >= stride:
                scores = TransposedUpsampler(3, 2).double()(scores) + score(r, scales[r])
        return TransposedUpsampler(3, stride).double()(scores)

    with torch.no_grad():
        scores = head(maps, (64, 96))
        assert torch.allclose(scores, whole(scales), rtol=0, atol=1e-12)
        for r in [r for r in (16, 8, 4) if r >= stride]:
            assert not torch.allclose(scores, whole(scales | {r: 0.0}), rtol=0, atol=1e-9)


@pytest.mark.parametrize("context", [False, True])
def test_hidden_layer_uses_each_pixel_and_with_context_the_mean(context: bool) -> None:
    map_ = noise(2, 6, 3, 4).double()
    head = HEADS["skip"]({32: 6}, 3, maker, stride=32, hidden=5, context=context).double()
    state = {key.removeprefix("score.32."): value for key, value in head.state_dict().items()}
    hidden = torch.einsum("hc,bcyx->bhyx", state["local.weight"][..., 0, 0], map_) + state["local.bias"][:, None, None]
    if context:
        means = map_.sum((2, 3)) / 12
        hidden = hidden + torch.einsum("hc,bc->bh", state["image.weight"][..., 0, 0], means)[:, :, None, None]
    scores = torch.einsum("oh,bhyx->boyx", state["score.weight"][..., 0, 0], hidden.clamp(min=0))
    scores = scores + state["score.bias"][:, None, None]
    with torch.no_grad():
        assert torch.allclose(head({32: map_}, (96, 128)), TransposedUpsampler(3, 32).double()(scores), atol=1e-12)


@pytest.mark.parametrize("head", ["fcn16s", "fcn8s", "fcn4s", "fcn8s-at-once"])
def test_summed_skips_learn_from_the_first_step(head: str) -> None:
    model = build_model(variant(head), 3, seed=0)
    model(noise(2, 3, 64, 64)).square().mean().backward()
    for r in model.head.reductions[1:]:
        assert model.head.score[str(r)].weight.grad.abs().max() > 0


@pytest.mark.parametrize("head", ["fcn16s-concat", "fcn8s-concat"])
def test_concatenated_skips_are_used_at_once_and_learn_from_the_second_step(head: str) -> None:
    # The layer after them is initialized to zero, so they contribute from the start and get gradients one step later.
    model = build_model(variant(head), 3, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    skips = [str(r) for r in model.head.reductions[1:]]
    for step in range(2):
        optimizer.zero_grad()
        model(noise(2, 3, 64, 64)).square().mean().backward()
        for r in skips:
            assert (model.head.mix[r].weight.grad[:, 3:].abs().amax((0, 2, 3)) > 0).all()
            assert (model.head.score[r].weight.grad.abs().max() > 0) == (step == 1)
        optimizer.step()


def test_stage_init_overrides_init() -> None:
    stages = {"to16": "zero", "to8": "normal", "image": "random"}
    model = build_model(
        variant("fcn4s", TransposedConfig.model_validate({"init": "bilinear", "stage_init": stages})), 8, seed=0
    )
    to16, to8, to4 = (model.head.fuse[r].weight for r in ("16", "8", "4"))
    image, own = model.head.upsample.weight, torch.eye(8, dtype=torch.bool)
    assert to16.abs().max() == 0
    assert to8.std().item() == pytest.approx(0.01, rel=0.15) and to8[~own].abs().max() > 0
    assert torch.equal(to4[own], bilinear_kernel(4).expand(8, 4, 4)) and to4[~own].abs().max() == 0
    bound = (8 * 8 * 8) ** -0.5  # torch's: Kaiming's with a = sqrt 5
    assert 0.95 * bound < image.abs().max() <= bound and image[~own].abs().max() > 0


def test_bilinear_random_image_initializes_only_the_last_upsampler_at_random() -> None:
    mixed, bilinear, random = (
        build_model(variant("fcn8s", name), 4, seed=0).head for name in ("bilinear-random-image", "bilinear", "random")
    )
    for r in ("16", "8"):
        assert torch.equal(mixed.fuse[r].weight, bilinear.fuse[r].weight)
    deviation = random.upsample.weight.std().item()
    assert mixed.upsample.weight.std().item() == pytest.approx(deviation, rel=0.1)
    assert not torch.equal(mixed.upsample.weight, bilinear.upsample.weight)


# torchvision's FCN.


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return stirred(fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))


def as_theirs(ours: FCN, theirs: nn.Module) -> FCN:
    """Return fcnlab's model with the weights of torchvision's."""
    renamed = {}
    for key, value in theirs.state_dict().items():
        part, _, rest = key.partition(".")
        number, _, name = rest.partition(".")
        if part == "backbone":
            renamed[f"backbone.body.{rest}"] = value
        else:
            head = "classify" if part == "classifier" else "auxiliary_classify"
            renamed[f"head.{head}.score.{name}" if number == "4" else f"head.{head}.convs.0.{number}.{name}"] = value
    own = ours.state_dict()
    assert not {key for key in own if key not in renamed}
    ours.load_state_dict({key: renamed[key] for key in own})
    return ours.eval()


@pytest.mark.parametrize("size", [(65, 97), (64, 96)])
def test_dilated8_aux_resnet50_equals_fcn_resnet50_of_torchvision(theirs: nn.Module, size: tuple[int, int]) -> None:
    ours = as_theirs(build_model(variant("dilated8-aux", "resize", "resnet50"), 21, seed=0), theirs)
    images = noise(1, 3, *size)
    with torch.inference_mode():
        wanted = theirs(images)
        scores, auxiliary = ours.training_scores(images)
        assert auxiliary is not None
        for got, expected in ((scores, wanted["out"]), (auxiliary, wanted["aux"])):
            assert got.shape == expected.shape == (1, 21, *size)
            assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
            assert expected.std() > 0
        assert torch.equal(ours(images), scores)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("size", [(65, 97), (64, 96)])
def test_dilated8_resnet50_equals_that_of_torchvision_without_the_auxiliary_head(
    theirs: nn.Module, size: tuple[int, int]
) -> None:
    ours = as_theirs(build_model(variant("dilated8", "resize", "resnet50"), 21, seed=0), theirs)
    plain = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=None).eval()
    plain.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("aux")})
    images = noise(1, 3, *size)
    with torch.inference_mode():
        expected = plain(images)["out"]
        scores, auxiliary = ours.training_scores(images)
    assert auxiliary is None
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in plain.parameters())


def test_dilated8_resnet50_has_the_costs_published_by_torchvision() -> None:
    # torchvision counts its auxiliary head, which it computes even where it is not trained; ours is left out then.
    output = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta
    with torch.device("meta"):
        model = fcnlab.build_model("dilated8-resnet50", 21, pretrained=False)
        plain = fcnlab.build_model("dilated8-plain-resnet50", 21, pretrained=False)
    assert output["_ops"] == 152.717
    assert count_gmacs(model, (520, 520), training=True) == pytest.approx(152.717, abs=5e-4)
    auxiliary = 65 * 65 * (9 * 1024 * 256 + 256 * 21) / 1e9
    assert (
        count_gmacs(model, (520, 520)) == count_gmacs(plain, (520, 520)) == pytest.approx(152.717 - auxiliary, abs=5e-4)
    )
    assert count_parameters(model) == output["num_params"]


# mmsegmentation's FCNHead.


class _ConvModule(nn.Module):
    """mmcv's ConvModule with norm_cfg BN and act_cfg ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class _MmsegFCNHead(nn.Module):
    """mmseg/models/decode_heads/fcn_head.py with num_convs=2, concat_input=True, dropout_ratio=0.1."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_ConvModule(in_channels, channels), _ConvModule(channels, channels))
        self.conv_cat = _ConvModule(in_channels + channels, channels)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        feats = self.convs(x)
        feats = self.conv_cat(torch.cat([x, feats], dim=1))
        return self.conv_seg(self.dropout(feats))


@pytest.mark.parametrize("training", [False, True])
def test_dilated8_mmseg_equals_the_head_of_mmsegmentation(training: bool) -> None:
    ours = build_model(variant("dilated8-mmseg", "resize"), 5, seed=0)
    stirred(ours)
    theirs = _MmsegFCNHead(ours.backbone.channels[32], 512, 5)
    state = ours.head.classify.state_dict()
    names = {"concat.": "conv_cat.", "score.": "conv_seg.", "convs.": "convs."}
    inside = {"0": "conv", "1": "bn"}
    renamed = {}
    for key, value in state.items():
        *path, last = key.split(".")
        if path[0] != "score":
            path[-1] = inside[path[-1]]
        path[0] = names[f"{path[0]}."].rstrip(".")
        renamed[".".join([*path, last])] = value
    theirs.load_state_dict(renamed)
    images = noise(2, 3, 65, 97)
    with torch.no_grad():
        features = ours.backbone(images)
        torch.manual_seed(9)
        scores = ours.head.train(training)(features, (65, 97))
        torch.manual_seed(9)
        low = theirs.train(training)(features[32])
        expected = F.interpolate(low, size=(65, 97), mode="bilinear", align_corners=False)
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert scores.std() > 0
    assert count_parameters(ours.head.classify) == count_parameters(theirs)


def test_auxiliary_head_is_trained_with_the_main_head() -> None:
    model = build_model(variant("dilated8-aux", "resize"), 3, seed=0)
    scores, auxiliary = model.training_scores(noise(2, 3, 64, 64))
    assert auxiliary is not None and auxiliary.shape == scores.shape
    auxiliary.square().mean().backward()
    learned = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"body", "auxiliary_classify"}


def test_resnets_of_torchvision_and_timm_have_the_same_parameter_names() -> None:
    # The comparison above renames nothing inside the backbone.
    ours = build_model(variant("fcn32s", backbone="resnet50-scratch"), 2, seed=0).backbone.body.state_dict().keys()
    assert set(torchvision.models.resnet50(weights=None).state_dict()) - set(ours) == {"fc.weight", "fc.bias"}
