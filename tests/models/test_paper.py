"""The networks of the paper compared with its numbers, with a literal implementation, and with torchvision's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.errors import ModelError
from fcnlab.models import FCN, HEADS, Backbone, PaperBackbone, TimmBackbone, TransposedUpsampler
from fcnlab.models.backbones.base import load_state, load_weights, match_backbone
from fcnlab.normalization import IMAGENET_MEAN, IMAGENET_STD
from fcnlab.training.freezing import freeze_backbone
from fcnlab.trial.build import build_model

PAPER = [name for name in builtin().names("variant") if name.endswith("-paper")]


def named(name: str) -> Variant:
    registry = builtin()
    entry: Any = registry.get("variant", name)
    backbone = registry.get("backbone", entry.backbone).model_copy(update={"weights": "scratch"})
    head, upsampler = registry.get("head", entry.head), registry.get("upsampler", entry.upsampler)
    return Variant.model_validate({"backbone": backbone, "head": head, "upsampler": upsampler})


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head_of(kind: str, backbone: Backbone, stride: int, **options: Any) -> Any:
    """Return a head for 3 classes with random upsamplers, so that a flipped kernel would be detected."""

    def make_upsampler(num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
        return TransposedUpsampler(num_classes, factor, init="random", **geometry)

    if kind == "paper":
        options["centers"] = backbone.centers
    return HEADS[kind](backbone.channels, 3, make_upsampler, stride=stride, **options)


def lively(backbone: PaperBackbone, stride: int, *, at_once: bool = False) -> FCN:
    """Return a network with nonzero scores, as after training."""
    head = head_of("paper", backbone, stride, at_once=at_once)
    for i, score in enumerate(head.score.values()):
        score.weight.data = noise(*score.weight.shape, seed=i)
        score.bias.data = noise(3, seed=10 + i)
    return FCN(backbone, head).eval()


def on_meta(name: str) -> FCN:
    """Build a network on the meta device, without norms, which do not change shapes and are slow there."""
    with torch.device("meta"):
        model = build_model(named(name), 21, seed=0).eval()
    for module in list(model.modules()):
        for child, norm in module.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, child, nn.Identity())
    return model


META = {name: on_meta(name) for name in PAPER}


@pytest.fixture(scope="module")
def vgg16() -> Iterator[PaperBackbone]:
    """VGG-16 with 134 million parameters, which is built once."""
    torch.manual_seed(0)
    backbone = PaperBackbone("vgg16").eval()
    yield backbone
    backbone.body = nn.Sequential()


@pytest.fixture(scope="module")
def alexnet() -> PaperBackbone:
    torch.manual_seed(0)
    return PaperBackbone("alexnet").eval()


def test_the_registry_has_the_networks_of_the_paper() -> None:
    assert len(PAPER) == 6


# The paper's numbers.


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fcn32s-vgg16-paper", 136_152_917),
        ("fcn16s-vgg16-paper", 134_815_994),
        ("fcn8s-vgg16-paper", 134_489_759),
        ("fcn8s-at-once-vgg16-paper", 134_489_759),
    ],
)
def test_the_networks_have_the_number_of_parameters_of_the_paper(name: str, count: int) -> None:
    assert sum(p.numel() for p in META[name].parameters()) == count


@pytest.mark.parametrize(
    ("name", "offset", "offsets", "kernel"),
    [
        ("fcn32s-vgg16-paper", 19, {}, 64),
        ("fcn16s-vgg16-paper", 27, {16: 5}, 32),
        ("fcn8s-vgg16-paper", 31, {16: 5, 8: 9}, 16),
        ("fcn8s-at-once-vgg16-paper", 31, {16: 5, 8: 9}, 16),
        ("fcn32s-alexnet-paper", 18, {}, 63),
    ],
)
def test_crops_are_computed_from_the_layers_and_equal_those_of_the_authors(
    name: str, offset: int, offsets: dict[int, int], kernel: int
) -> None:
    head: Any = META[name].head
    assert (head.offset, head.offsets) == (offset, offsets)
    assert head.upsample.kernel_size == (kernel, kernel) and head.upsample.padding == (0, 0)
    assert all(up.kernel_size == (4, 4) and up.padding == (0, 0) for up in head.fuse.values())


# Sizes.


@pytest.mark.parametrize("name", PAPER)
def test_scores_have_the_size_of_the_image_from_one_pixel_on(name: str) -> None:
    squares = [(s, s) for s in range(1, 71)]
    with torch.no_grad():
        for height, width in [*squares, (1, 2000), (2000, 1), (3, 997), (500, 375)]:
            scores = META[name](torch.empty(1, 3, height, width, device="meta"))
            assert scores.shape == (1, 21, height, width)


@pytest.mark.parametrize("name", PAPER)
@given(height=st.integers(1, 700), width=st.integers(1, 700))
@settings(max_examples=25, deadline=None)
def test_scores_have_exactly_the_size_of_any_image(name: str, height: int, width: int) -> None:
    with torch.no_grad():
        scores = META[name](torch.empty(2, 3, height, width, device="meta"))
    assert scores.shape == (2, 21, height, width)


def test_the_smallest_image_has_finite_scores(alexnet: PaperBackbone) -> None:
    with torch.inference_mode():
        scores = lively(alexnet, 32)(noise(1, 3, 1, 1))
        assert scores.shape == (1, 3, 1, 1) and scores.isfinite().all() and scores.std() > 0
        # GoogLeNet pads no hundred pixels, but enough for this.
        tiny = PaperBackbone("googlenet").eval()
        scores = lively(tiny, 32)(noise(1, 3, 1, 1))
        assert scores.shape == (1, 3, 1, 1) and scores.isfinite().all() and scores.std() > 0


# The nets written down once more, with the authors' numbers.


def written_down(body: dict[str, Tensor], head: dict[str, Tensor], images: Tensor, stride: int, scale: bool) -> Tensor:
    x = images
    maps = {}
    for stage, convs in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, convs + 1):
            weight, bias = body[f"conv{stage}_{i}.weight"], body[f"conv{stage}_{i}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, padding=100 if (stage, i) == (1, 1) else 1))
        x = maps[stage] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = F.relu(F.conv2d(x, body["fc6.weight"], body["fc6.bias"]))
    x = F.relu(F.conv2d(x, body["fc7.weight"], body["fc7.bias"]))
    x = F.conv2d(x, head["score.32.weight"], head["score.32.bias"])
    h, w = images.shape[-2:]
    if stride == 32:
        return F.conv_transpose2d(x, head["upsample.weight"], stride=32)[..., 19 : 19 + h, 19 : 19 + w]
    x = F.conv_transpose2d(x, head["fuse.16.weight"], stride=2)
    pool4 = maps[4] * 0.01 if scale else maps[4]
    pool4 = F.conv2d(pool4, head["score.16.weight"], head["score.16.bias"])
    x = x + pool4[..., 5 : 5 + x.shape[-2], 5 : 5 + x.shape[-1]]
    if stride == 16:
        return F.conv_transpose2d(x, head["upsample.weight"], stride=16)[..., 27 : 27 + h, 27 : 27 + w]
    x = F.conv_transpose2d(x, head["fuse.8.weight"], stride=2)
    pool3 = maps[3] * 0.0001 if scale else maps[3]
    pool3 = F.conv2d(pool3, head["score.8.weight"], head["score.8.bias"])
    x = x + pool3[..., 9 : 9 + x.shape[-2], 9 : 9 + x.shape[-1]]
    return F.conv_transpose2d(x, head["upsample.weight"], stride=8)[..., 31 : 31 + h, 31 : 31 + w]


@pytest.mark.parametrize(("stride", "at_once"), [(32, False), (16, False), (8, False), (8, True)])
def test_the_network_equals_that_of_the_paper(vgg16: PaperBackbone, stride: int, at_once: bool) -> None:
    model = lively(vgg16, stride, at_once=at_once)
    images = noise(1, 3, 40, 53)
    with torch.inference_mode():
        scores = model(images)
        expected = written_down(vgg16.body.state_dict(), model.head.state_dict(), images, stride, at_once)
    assert scores.std() > 0.1
    assert torch.allclose(scores, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_initialized_scores_are_zero(alexnet: PaperBackbone, vgg16: PaperBackbone) -> None:
    images = noise(1, 3, 9, 12)
    for backbone, stride in ((alexnet, 32), (vgg16, 8)):
        head = head_of("paper", backbone, stride)
        with torch.inference_mode():
            assert torch.equal(FCN(backbone, head)(images), torch.zeros(1, 3, 9, 12))
        learns = [name for name, p in head.named_parameters() if p.requires_grad]
        assert "score.32.weight" in learns and "score.32.bias" in learns


def test_dropout_is_active_only_in_training(alexnet: PaperBackbone) -> None:
    images = noise(1, 3, 20, 20)
    with torch.inference_mode():
        assert torch.equal(alexnet(images)[32], alexnet(images)[32])
        alexnet.train()
        try:
            first, second = alexnet(images)[32], alexnet(images)[32]
        finally:
            alexnet.eval()
    assert not torch.equal(first, second)
    assert [m.p for m in alexnet.body.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


# Alignment.


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_feature_centers_are_computed_from_the_layers(name: str) -> None:
    # With averages for all layers, what a feature sees weighs the same to both sides of its center.
    backbone = PaperBackbone(name).eval()
    for module in list(backbone.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        for child, pool in module.named_children():
            if isinstance(pool, nn.MaxPool2d):
                given = (pool.kernel_size, pool.stride, pool.padding)
                setattr(module, child, nn.AvgPool2d(*given, ceil_mode=pool.ceil_mode))
    image = torch.ones(1, 3, 32, 960, requires_grad=True)
    features = backbone(image)[32]
    i = features.shape[-1] // 2
    features[..., i].sum().backward()
    assert image.grad is not None
    weight = image.grad.sum(dim=(0, 1, 2)).double()
    seen = float((weight * torch.arange(960)).sum() / weight.sum())
    assert seen == pytest.approx(backbone.centers[32] + 32 * i, abs=0.01)


def test_moving_the_image_by_the_stride_moves_the_scores(vgg16: PaperBackbone, alexnet: PaperBackbone) -> None:
    canvas = noise(1, 3, 8, 544)
    for backbone, stride in ((vgg16, 8), (alexnet, 32)):
        model = lively(backbone, stride)
        with torch.inference_mode():
            here, there = model(canvas[..., :512]), model(canvas[..., 32:])
        assert torch.allclose(there[..., 236:244], here[..., 268:276], rtol=1e-3, atol=1e-3 * float(here.std()))
        assert not torch.allclose(there[..., 236:244], here[..., 236:244], rtol=1e-1, atol=1e-1 * float(here.std()))


# torchvision's weights.


def from_images(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def test_vgg16_equals_that_of_torchvision(vgg16: PaperBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    own = vgg16.body.state_dict()
    convs = [name for name in own if name.startswith("conv") and name.endswith("weight")]
    state = {"classifier.6.weight": torch.zeros(1000, 4096), "classifier.6.bias": torch.zeros(1000)}
    for i, name in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), convs, strict=True):
        state[f"features.{i}.weight"], state[f"features.{i}.bias"] = own[name], own[name.replace("weight", "bias")]
    for i, name in ((0, "fc6"), (3, "fc7")):
        state[f"classifier.{i}.weight"], state[f"classifier.{i}.bias"] = (
            own[f"{name}.weight"].flatten(1),
            own[f"{name}.bias"],
        )
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).eval()
    theirs.load_state_dict(state, assign=True)

    found = match_backbone(vgg16, theirs.state_dict(), "torchvision")
    assert set(found.unused) == {"classifier.6.weight", "classifier.6.bias"}
    assert found.state.keys() == own.keys()
    assert all(torch.equal(found.state[key], own[key]) for key in own)

    monkeypatch.setattr(vgg16.body.conv1_1, "padding", (1, 1))
    image = noise(1, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs.classifier[:6](theirs.avgpool(theirs.features(image)).flatten(1))
        features = vgg16(image)[32]
    assert features.shape == (1, 4096, 1, 1) and features.std() > 0.1
    assert torch.allclose(features.flatten(1), expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_torchvision_alexnet_is_loaded_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = torchvision.models.alexnet(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    ours = build_model(named("fcn32s-alexnet-paper"), 3, seed=0, weights_file=tmp_path / "alexnet.pth").eval().backbone
    ours.body.conv1.padding = (2, 2)
    image = noise(1, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs.classifier[:6](theirs.avgpool(theirs.features(image)).flatten(1))
        assert torch.allclose(ours(image)[32].flatten(1), expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
    assert expected.std() > 0


def test_torchvision_googlenet_is_loaded_from_a_file_with_its_normalization(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    save_file(theirs.state_dict(), tmp_path / "googlenet.safetensors")
    ours = PaperBackbone("googlenet").eval()
    load_weights(ours, tmp_path / "googlenet.safetensors")
    ours.body.conv1.conv.padding = (3, 3)
    seen: list[Tensor] = []
    theirs.inception5b.register_forward_hook(lambda *call: seen.append(call[2]))
    image = noise(1, 3, 224, 224).sigmoid()
    with torch.inference_mode():
        theirs(from_images(image, IMAGENET_MEAN, IMAGENET_STD))
        features = ours(from_images(image, ours.mean, ours.std))[32]
    assert features.shape == (1, 1024, 7, 7) and features.std() > 0
    assert torch.allclose(features, seen[0], rtol=1e-3, atol=1e-4 * float(features.std()))


def test_pretrained_weights_are_those_of_torchvision(alexnet: PaperBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    theirs, asked = torchvision.models.alexnet(weights=None), []

    def fetch(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append(url)
        return theirs.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    body = PaperBackbone("alexnet", pretrained=True).body.state_dict()
    assert torch.equal(body["fc6.weight"].flatten(1), theirs.classifier[1].weight)
    assert torch.equal(body["conv5.bias"], theirs.features[10].bias)
    assert asked == ["https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"]


@pytest.mark.parametrize("error", [URLError("no route to host"), ConnectionResetError("reset"), RuntimeError("hash")])
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "googlenet"])
def test_unavailable_weights_error_suggests_remedies(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with (
        torch.device("meta"),
        pytest.raises(ModelError, match=r"cannot be fetched .* local file .* scratch$") as caught,
    ):
        PaperBackbone(name, pretrained=True)
    assert "\n" not in str(caught.value)


# Files of a whole FCN, and files that do not fit.


def test_backbone_weights_are_extracted_from_an_fcn_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    donor = TimmBackbone("test_resnet")
    save_file(FCN(donor, head_of("skip", donor, 8)).state_dict(), tmp_path / "last.safetensors")
    ours = TimmBackbone("test_resnet")
    load_weights(ours, tmp_path / "last.safetensors")
    assert all(torch.equal(value, donor.body.state_dict()[key]) for key, value in ours.body.state_dict().items())


def test_paper_backbone_weights_are_extracted_from_an_fcn(alexnet: PaperBackbone) -> None:
    ours = PaperBackbone("alexnet")
    load_state(ours, lively(alexnet, 32).state_dict(), "an FCN")
    assert all(torch.equal(value, alexnet.body.state_dict()[key]) for key, value in ours.body.state_dict().items())


def test_weights_of_another_network_are_an_error_with_file_and_key(alexnet: PaperBackbone, tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = {
            name: dict(getattr(torchvision.models, name)(weights=None).state_dict()) for name in ("alexnet", "resnet18")
        }
    lacking = {key: value for key, value in theirs["alexnet"].items() if key != "features.3.weight"}
    with pytest.raises(
        ModelError, match=r"^f: does not fit: 1 of 14 keys are missing, first 'conv2\.weight'; the file "
    ):
        load_state(alexnet, lacking, "f")
    with pytest.raises(ModelError, match=r"^f: does not fit: 13 of 14 .* the file begins with 'conv1\.weight'$"):
        load_state(alexnet, theirs["resnet18"], "f")
    wrong = {**theirs["alexnet"], "classifier.1.weight": torch.zeros(4096, 9)}
    with pytest.raises(
        ModelError, match=r"^f: 'fc6\.weight' has shape \(4096, 9\), the model's is \(4096, 256, 6, 6\)$"
    ):
        load_state(alexnet, wrong, "f")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: does not fit: 14 of 14 keys are missing.* begins with 'a'$"):
        load_weights(alexnet, tmp_path / "w.pth")


def test_invalid_networks_give_one_line_errors(alexnet: PaperBackbone) -> None:
    with pytest.raises(ModelError, match=r"^the paper has no network 'vgg19'; did you mean 'vgg16'\? valid: alexnet, "):
        PaperBackbone("vgg19")

    def build(centers: dict[int, float], stride: int) -> None:
        other = Backbone()
        other.channels, other.centers = {16: 8, 32: 8}, centers
        head_of("paper", other, stride)

    with pytest.raises(
        ModelError, match=r"^a paper head of stride 16 needs features at stride 16; the backbone has 32$"
    ):
        head_of("paper", alexnet, 16)
    with pytest.raises(ModelError, match=r"^a paper head needs a backbone that specifies where its maps start; use "):
        build({}, 32)
    with pytest.raises(ModelError, match=r"^a paper head cannot align the map at stride 16: it starts -1 steps "):
        build({32: 22.0, 16: 14.0}, 16)
    with pytest.raises(ModelError, match=r"^a paper head cannot align the image: it starts .* steps after the scores$"):
        build({32: 12.25}, 32)


def test_a_paper_network_can_be_frozen_up_to_a_map() -> None:
    with torch.device("meta"):
        backbone = PaperBackbone("vgg16")
    freeze_backbone(backbone, 16)
    learns = {name.partition(".")[0] for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert learns == {"conv5_1", "conv5_2", "conv5_3", "fc6", "fc7"}


@pytest.mark.parametrize("name", PAPER)
def test_a_map_is_the_output_of_the_layer_of_its_name(name: str) -> None:
    # What a recipe freezes up to.
    backbone = META[name].backbone
    for reduction, channels in backbone.channels.items():
        seen: list[Tensor] = []
        hook = backbone.body.get_submodule(backbone.layer_name(reduction)).register_forward_hook(
            lambda *call, seen=seen: seen.append(call[2])
        )
        with torch.no_grad():
            map_ = backbone(torch.empty(1, 3, 64, 96, device="meta"))[reduction]
        hook.remove()
        assert seen[0] is map_
        assert map_.shape[1] == channels
