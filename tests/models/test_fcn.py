"""Whole networks: sizes, symmetry, equal initialization, and the network of the d2l chapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.errors import ModelError
from fcnlab.models import FCN, HEADS, Backbone, TimmBackbone, TransposedUpsampler
from fcnlab.models.backbones.base import load_weights
from fcnlab.models.fcn import separate_tensors
from fcnlab.trial.build import build_model

TYPES = {name: builtin().get("head", name).type for name in builtin().names("head")}  # type: ignore[attr-defined]
SKIP_HEADS = [name for name, type_ in TYPES.items() if type_ == "skip"]
# The paper's heads go with the paper's nets; an auxiliary head is not in the scores.
HEAD_NAMES = SKIP_HEADS + [n for n, type_ in TYPES.items() if type_ == "dilated" and not n.endswith("-aux")]


def variant(backbone: str = "tiny-scratch", head: str = "fcn8s", upsampler: str = "bilinear") -> Variant:
    registry = builtin()
    return Variant.model_validate(
        {
            "backbone": registry.get("backbone", backbone).model_copy(update={"weights": "scratch"}),
            "head": registry.get("head", head),
            "upsampler": registry.get("upsampler", upsampler),
        }
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively(model: FCN, seed: int = 1) -> FCN:
    """Return the model with nonzero scores and skips, as after training.

    The global context of a head is disabled: it has no position, and the tests check positions.
    """
    torch.manual_seed(seed)
    for name, module in model.head.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith(("score", "mix", "classify.score")):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias)
        if name.endswith(".image"):
            nn.init.zeros_(module.weight)
    return model.eval()


NETS = {head: lively(build_model(variant(head=head), 3, seed=0)) for head in HEAD_NAMES}


@given(head=st.sampled_from(HEAD_NAMES), height=st.integers(33, 300), width=st.integers(33, 300))
@settings(max_examples=25, deadline=None)
def test_scores_have_exactly_the_size_of_the_image(head: str, height: int, width: int) -> None:
    with torch.inference_mode():
        scores = NETS[head](noise(1, 3, height, width))
    assert scores.shape == (1, 3, height, width)
    assert scores.isfinite().all()


@pytest.mark.parametrize("upsampler", ["bilinear", "interpolate", "resize"])
@pytest.mark.parametrize(
    "head", ["fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn8s-concat", "fcn8s-at-once", "dilated16-aux", "dilated8-aux"]
)
def test_scores_have_the_image_size_with_every_upsampler(head: str, upsampler: str) -> None:
    # On the meta device shapes are computed and numbers are not.
    with torch.device("meta"):
        model = build_model(variant(head=head, upsampler=upsampler), 3, seed=0).eval()

    @given(height=st.integers(33, 300), width=st.integers(33, 300))
    @settings(max_examples=15, deadline=None)
    def law(height: int, width: int) -> None:
        with torch.no_grad():
            scores, auxiliary = model.training_scores(torch.empty(2, 3, height, width, device="meta"))
        assert scores.shape == (2, 3, height, width)
        assert (auxiliary is None) == (not head.endswith("-aux"))
        assert auxiliary is None or auxiliary.shape == scores.shape

    law()


@pytest.mark.parametrize("size", [(33, 33), (63, 65), (64, 64), (97, 40)])
@pytest.mark.parametrize("head", HEAD_NAMES)
def test_scores_are_aligned_with_the_image(head: str, size: tuple[int, int]) -> None:
    # An image and the same one continued to the right and below share their upper left; so do their scores,
    # but for what the border reaches. A crop off center would move one against the other.
    h, w = size
    canvas = noise(1, 3, 416, 416, seed=2)
    with torch.inference_mode():
        small = NETS[head](canvas[..., : 256 + h, : 256 + w])
        large = NETS[head](canvas)
    small, large = small[..., :96, :96], large[..., :96, :96]
    # Against how much the scores vary from pixel to pixel, which in some heads is little.
    assert (small - large).abs().max() < 0.01 * large.std((2, 3)).max()


@pytest.mark.parametrize(("down", "right"), [(32, 0), (0, 32), (32, 32)])
@pytest.mark.parametrize("head", HEAD_NAMES)
def test_moving_the_image_by_the_stride_moves_the_scores(head: str, down: int, right: int) -> None:
    canvas = noise(1, 3, 416, 416)
    with torch.inference_mode():
        here = NETS[head](canvas[..., :384, :384])
        there = NETS[head](canvas[..., down : down + 384, right : right + 384])
    middle, moved = slice(176, 208), (slice(176 + down, 208 + down), slice(176 + right, 208 + right))
    difference = (there[..., middle, middle] - here[..., moved[0], moved[1]]).abs().max()
    unmoved = (there[..., middle, middle] - here[..., middle, middle]).abs().max()
    assert difference < 0.01 * unmoved
    assert unmoved > 1e-3


def test_same_seed_gives_equal_backbone_and_deepest_score_in_every_head() -> None:
    # So the cells of a grid differ by what is compared and by nothing else.
    plain = [head for head in SKIP_HEADS if not head.endswith("-context")]
    states = [build_model(variant(head=head), 6, seed=7).state_dict() for head in plain]
    shared = [key for key in states[0] if key.startswith(("backbone.", "head.score.32."))]
    assert "head.score.32.weight" in shared and len(shared) > 20
    for state in states[1:]:
        assert all(torch.equal(state[key], states[0][key]) for key in shared)
    for head in ("dilated16", "dilated8-aux", "fcn8s-context"):
        state = build_model(variant(head=head), 6, seed=7).state_dict()
        assert all(torch.equal(state[key], states[0][key]) for key in shared if key.startswith("backbone."))


def test_same_seed_gives_equal_backbone_under_every_upsampler() -> None:
    states = [build_model(variant(upsampler=name), 3, seed=7).state_dict() for name in ("bilinear", "random")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items() if key.startswith("backbone."))
    assert not torch.equal(states[0]["head.upsample.weight"], states[1]["head.upsample.weight"])


def test_initialization_depends_only_on_the_seed() -> None:
    first, again, other = (build_model(variant(), 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.score.32.weight"], other["head.score.32.weight"])
    assert not torch.equal(first["backbone.body.conv1.0.weight"], other["backbone.body.conv1.0.weight"])


def test_building_does_not_change_the_global_random_state() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_model(variant(), 3, seed=5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("upsampler", [name for name in builtin().names("upsampler") if name != "zero"])
def test_gradients_reach_the_backbone_and_trainable_upsamplers(upsampler: str) -> None:
    spec = variant(upsampler=upsampler)
    model = lively(build_model(spec, 3, seed=0)).train()
    model(noise(2, 3, 64, 64)).square().mean().backward()
    first = next(model.backbone.parameters())
    assert first.grad is not None and first.grad.abs().max() > 0
    ups = [m for m in model.head.modules() if isinstance(m, TransposedUpsampler)]
    assert len(ups) == (3 if spec.upsampler.type == "transposed" else 0)
    for up in ups:
        assert (up.weight.grad is not None and up.weight.grad.abs().max() > 0) == spec.upsampler.learned


def test_with_zero_init_the_last_upsampler_learns_in_the_first_step_and_the_others_in_the_second() -> None:
    model = lively(build_model(variant(upsampler="zero"), 3, seed=0)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = next(model.backbone.parameters())
    learns = []
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(noise(2, 3, 64, 64)), torch.zeros(2, 64, 64, dtype=torch.long)).backward()
        learns.append([p.grad.abs().max().item() > 0 for p in (model.head.upsample.weight, first)])
        optimizer.step()
    assert learns == [[True, False], [True, True]]


def bilinear(num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
    return TransposedUpsampler(num_classes, factor, **geometry)


def test_missing_stride_error_names_the_available_strides() -> None:
    with pytest.raises(ModelError, match=r"stride 8 needs features at stride 16; the backbone has 4, 8, 32$"):
        HEADS["skip"]({4: 8, 8: 8, 32: 8}, 3, bilinear, stride=8)


def test_head_uses_only_the_strides_it_needs() -> None:
    head = HEADS["skip"]({32: 8}, 3, bilinear, stride=32)
    assert head({32: noise(1, 8, 2, 3)}, (50, 70)).shape == (1, 3, 50, 70)


def test_unknown_backbone_error_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"timm has no model 'resnet_18'; did you mean 'resnet18'\?$"):
        TimmBackbone("resnet_18")
    # Not timm's thousand names.
    with pytest.raises(ModelError, match=r"timm has no model 'zzzz'; valid: ([\w.-]+, ){4}[\w.-]+ and [\d,]+ more$"):
        TimmBackbone("zzzz")


def test_backbone_has_its_normalization() -> None:
    backbone = TimmBackbone("resnet18.tv_in1k")
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))
    assert backbone.std == pytest.approx((0.229, 0.224, 0.225))


# The d2l chapter's network, copied from it.


def chapter_kernel(in_channels: int, out_channels: int, kernel_size: int) -> Tensor:
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    og = (torch.arange(kernel_size).reshape(-1, 1), torch.arange(kernel_size).reshape(1, -1))
    filt = (1 - torch.abs(og[0] - center) / factor) * (1 - torch.abs(og[1] - center) / factor)
    weight = torch.zeros((in_channels, out_channels, kernel_size, kernel_size))
    weight[range(in_channels), range(out_channels), :, :] = filt
    return weight


@pytest.mark.parametrize("name", ["d2l-resnet18", "d2l-resnet18-random"])
def test_the_d2l_variants_equal_the_network_of_the_chapter(name: str) -> None:
    entry = builtin().get("variant", name)
    ours = build_model(variant(entry.backbone, entry.head, entry.upsampler), 21, seed=0).eval()

    resnet = torchvision.models.resnet18(weights=None)
    # Random running statistics, so that the batch norms are not no-ops.
    for key, value in ours.backbone.body.state_dict().items():
        if key.endswith("running_mean"):
            value.copy_(0.1 * noise(*value.shape))
        if key.endswith("running_var"):
            value.copy_(1 + 0.5 * noise(*value.shape).tanh())
    left_out = resnet.load_state_dict(ours.backbone.body.state_dict(), strict=False)
    assert left_out.unexpected_keys == [] and set(left_out.missing_keys) == {"fc.weight", "fc.bias"}
    net = nn.Sequential(*list(resnet.children())[:-2])
    net.add_module("final_conv", nn.Conv2d(512, 21, kernel_size=1))
    net.add_module("transpose_conv", nn.ConvTranspose2d(21, 21, kernel_size=64, padding=16, stride=32))
    state = ours.head.state_dict()
    net.final_conv.load_state_dict({"weight": state["score.32.weight"], "bias": state["score.32.bias"]})
    net.transpose_conv.load_state_dict({"weight": state["upsample.weight"], "bias": state["upsample.bias"]})

    images = noise(2, 3, 64, 96)
    with torch.inference_mode():
        scores = ours(images)
        assert torch.allclose(scores, net.eval()(images), rtol=1e-5, atol=1e-5)
    assert scores.std() > 0
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in net.parameters())


def test_bilinear_init_equals_that_of_the_d2l_chapter() -> None:
    ours = build_model(variant("tiny-scratch", "fcn32s", "d2l-bilinear"), 21, seed=0).head.upsample.weight
    assert torch.allclose(ours, chapter_kernel(21, 21, 64), atol=1e-6)
    off = ~torch.eye(21, dtype=torch.bool)
    assert ours[off].abs().max() == 0


# Weights from files.


@pytest.fixture(scope="module")
def donor() -> Backbone:
    torch.manual_seed(11)
    return TimmBackbone("test_resnet")


def save(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_weights_are_loaded_from_a_file_without_the_classifier(donor: Backbone, tmp_path: Path, suffix: str) -> None:
    path = save({**donor.body.state_dict(), "fc.weight": torch.zeros(2, 2)}, tmp_path / f"w{suffix}")
    torch.manual_seed(12)
    model = TimmBackbone("test_resnet")
    images = noise(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = donor.eval()(images)[32]
        assert not torch.allclose(model.eval()(images)[32], wanted)
        load_weights(model, path)
        assert torch.equal(model(images)[32], wanted)


def test_a_model_is_built_from_a_weights_file(donor: Backbone, tmp_path: Path) -> None:
    path = save(donor.body.state_dict(), tmp_path / "w.safetensors")
    built = build_model(variant(), 3, seed=0, weights_file=path).backbone.body.state_dict()
    assert all(torch.equal(built[key], value) for key, value in donor.body.state_dict().items())
    # The head starts as it would without the file: only what is compared may differ.
    head = build_model(variant(), 3, seed=0, weights_file=path).head.state_dict()
    scratch = build_model(variant(), 3, seed=0).head.state_dict()
    assert all(torch.equal(head[key], scratch[key]) for key in scratch)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_another_model_are_refused_with_file_and_key(donor: Backbone, tmp_path: Path, suffix: str) -> None:
    state = donor.body.state_dict()
    lacking = {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}
    path = save(lacking, tmp_path / f"lacking{suffix}")
    expected = rf"lacking{suffix}: does not fit: 1 of {len(state)} keys are missing, first 'layer2\.0\.conv1\.weight'"
    with pytest.raises(ModelError, match=expected):
        load_weights(TimmBackbone("test_resnet"), path)

    path = save({**state, "layer2.0.conv1.weight": torch.zeros(1, 2, 3, 3)}, tmp_path / f"shape{suffix}")
    with pytest.raises(ModelError, match=rf"shape{suffix}: 'layer2\.0\.conv1\.weight' has shape \(1, 2, 3, 3\)"):
        load_weights(TimmBackbone("test_resnet"), path)


def test_unsuitable_weights_do_not_change_the_model(donor: Backbone, tmp_path: Path) -> None:
    model = TimmBackbone("test_resnet")
    before = {key: value.clone() for key, value in model.body.state_dict().items()}
    state = donor.body.state_dict()
    last = list(state)[-2]
    path = save({**state, last: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="has shape"):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.body.state_dict().items())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_without_weights_is_an_error_with_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"{name}: cannot be read as weights"):
        load_weights(TimmBackbone("test_resnet"), tmp_path / name)
    (tmp_path / name).write_bytes(b"no weights, just words")
    with pytest.raises(ModelError, match=rf"{name}: cannot be read as weights"):
        load_weights(TimmBackbone("test_resnet"), tmp_path / name)


@pytest.mark.parametrize("held", [[1, 2], {"state_dict": {"a": [torch.zeros(1)]}}, {"epoch": 3}])
def test_a_file_with_other_content_is_rejected(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: holds no state dict"):
        load_weights(TimmBackbone("test_resnet"), tmp_path / "w.pth")


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a weights file was run')",)


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": _Trap()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_weights(TimmBackbone("test_resnet"), tmp_path / "w.pth")


def test_tied_weights_are_stored_once_per_name(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    layers[1].weight = layers[0].weight
    layers[2] = layers[0]
    save_file(separate_tensors(layers.state_dict()), tmp_path / "weights.safetensors")
    stored = load_file(tmp_path / "weights.safetensors")
    assert stored.keys() == layers.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in layers.state_dict().items())
