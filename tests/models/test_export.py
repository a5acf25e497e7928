"""Networks after torch.export, ONNX, torch.compile and safetensors give the results of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import AvgPool2dSame, Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.inference.export_pooling import export_pooling_of_any_size
from fcnlab.models import FCN
from fcnlab.trial.build import build_model

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported graphs")


NAMED = builtin().names("variant")
EVERY_SIZE = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}

pytestmark = pytest.mark.filterwarnings(
    # torch's and its exporter's own affairs
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning:torch\\..*",
)


def built(head: str, upsampler: str = "bilinear", backbone: str = "tiny-scratch") -> FCN:
    registry = builtin()
    spec = Variant.model_validate(
        {
            "backbone": registry.get("backbone", backbone).model_copy(update={"weights": "scratch"}),
            "head": registry.get("head", head),
            "upsampler": registry.get("upsampler", upsampler),
        }
    )
    return build_model(spec, 3, seed=0)


def lively(model: FCN) -> FCN:
    """Return the model with nonzero skips, which are initialized to zero."""
    torch.manual_seed(1)
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            nn.init.normal_(module.weight, std=0.1)
    return model.eval()


def noise(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def exported(model: nn.Module, dynamic: dict[int, Any] | None) -> ExportedProgram:
    # Traced at a size that is no multiple of any stride, for a crop of nothing would be taken for granted.
    traced = noise(75, 101) if dynamic else noise(64, 96)
    with export_pooling_of_any_size():
        return export(model, (traced,), dynamic_shapes={"images": dynamic} if dynamic else None)


HEADS = [("fcn8s", "tiny-scratch", upsampler) for upsampler in ("bilinear", "interpolate", "resize")]
HEADS += [(head, "tiny-scratch", "bilinear") for head in ("fcn32s", "fcn8s-concat", "fcn4s")]
HEADS += [("dilated16", "resnet10t-scratch", "bilinear"), ("dilated16", "resnet10t-scratch", "resize")]
HEADS += [(head, "resnet10t-scratch", "resize") for head in ("deeplabv3plus", "upernet")]
HEADS += [
    ("fcn8s", backbone, "bilinear") for backbone in ("resnet18-scratch", "mobilenetv2-scratch", "regnetx002-scratch")
]
"""Each kind of upsampling with one head, and each head and backbone with one upsampler."""


@pytest.mark.parametrize(("head", "backbone", "upsampler"), HEADS)
def test_an_exported_network_computes_the_same_at_another_size(head: str, backbone: str, upsampler: str) -> None:
    model = lively(built(head, upsampler, backbone))
    program = exported(model, EVERY_SIZE).module()
    with torch.inference_mode():
        for size in [(128, 64), (75, 101), (97, 130), (99, 79), (134, 92), (76, 103)]:
            assert torch.allclose(program(noise(*size)), model(noise(*size)), atol=1e-5)


def test_a_dilated_network_with_same_padding_can_be_saved(tmp_path: Path) -> None:
    # The pooling of its shortcuts keeps the size of maps, by padding that depends on the size of the image.
    model = lively(built("dilated8-aux", "bilinear", "resnet10t-scratch"))
    torch.export.save(exported(model, EVERY_SIZE), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    with torch.inference_mode():
        for size in [(128, 64), (97, 130), (76, 103)]:
            assert torch.allclose(program(noise(*size)), model(noise(*size)), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_exported_for_every_size(stride: int) -> None:
    model = nn.Sequential(Conv2dSame(3, 2, 3, stride=stride, dilation=2), AvgPool2dSame(2, stride=stride))
    with export_pooling_of_any_size():
        program = export(model, (noise(75, 101),), dynamic_shapes=(EVERY_SIZE,)).module()
    for size in [(64, 96), (75, 101), (97, 130), (79, 98)]:
        assert torch.allclose(program(noise(*size)), model(noise(*size)), atol=1e-5)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_variant_can_be_exported(name: str) -> None:
    entry: Any = builtin().get("variant", name)
    with torch.device("meta"):
        model = built(entry.head, entry.upsampler, entry.backbone).eval()
    program = export(model, (torch.empty(1, 3, 75, 101, device="meta"),))
    assert program.module()(torch.empty(1, 3, 75, 101, device="meta")).shape == (1, 3, 75, 101)


ONNX = [
    ("fcn8s", "tiny-scratch", "bilinear", EVERY_SIZE),
    ("fcn8s-concat", "tiny-scratch", "bilinear-fixed", None),
    ("fcn4s", "tiny-scratch", "interpolate", None),
    ("dilated16", "resnet10t-scratch", "resize", EVERY_SIZE),
    ("fcn32s", "resnet18-scratch", "bilinear", None),
    ("fcn32s", "mobilenetv2-scratch", "bilinear", None),
]


@pytest.mark.parametrize(("head", "backbone", "upsampler", "dynamic"), ONNX)
def test_onnx_computes_what_torch_computes(
    head: str, backbone: str, upsampler: str, dynamic: dict[int, Any] | None
) -> None:
    model = lively(built(head, upsampler, backbone))
    program = exported(model, dynamic)
    with export_pooling_of_any_size():
        proto = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    assert proto is not None
    session = onnxruntime.InferenceSession(proto.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    for size in (
        [(64, 96)] + ([(128, 64)] if dynamic else []) + ([(75, 101), (98, 79)] if dynamic is EVERY_SIZE else [])
    ):
        with torch.inference_mode():
            wanted = model(noise(*size))
        (scores,) = session.run(None, {taken.name: noise(*size).numpy()})
        assert torch.allclose(torch.from_numpy(scores), wanted, rtol=1e-4, atol=1e-4)
        assert wanted.std() > 1e-3


@pytest.mark.parametrize(("head", "upsampler"), [("fcn8s", "bilinear"), ("fcn8s-concat", "interpolate"),
                                                 ("dilated16", "resize")])  # fmt: skip
def test_a_compiled_network_computes_the_same_in_one_graph(head: str, upsampler: str) -> None:
    torch._dynamo.reset()
    model = lively(built(head, upsampler))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.inference_mode():
        for size in [(64, 96), (75, 101)]:
            assert torch.allclose(compiled(noise(*size)), model(noise(*size)), atol=1e-5)


def test_gradients_of_a_compiled_network_are_the_same() -> None:
    torch._dynamo.reset()
    model = lively(built("fcn8s")).train()
    grads = []
    for net in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        net(noise(64, 64)).square().mean().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 10
    for eager, compiled in zip(*grads, strict=True):
        assert torch.allclose(eager, compiled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("head", "upsampler"), [("fcn32s", "d2l-bilinear"), ("fcn8s", "bilinear-fixed"),
                                                 ("fcn8s-concat", "interpolate"), ("fcn4s", "random-diagonal"),
                                                 ("dilated16-aux", "resize")])  # fmt: skip
def test_weights_are_equal_after_saving_to_safetensors(head: str, upsampler: str, tmp_path: Path) -> None:
    model = lively(built(head, upsampler))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other = built(head, upsampler)
    images = noise(75, 101)
    with torch.inference_mode():
        assert not torch.equal(other.eval()(images), model(images))
        other.load_state_dict(load_file(tmp_path / "w.safetensors"))
        assert all(torch.equal(a, b) for a, b in zip(other.training_scores(images), model.training_scores(images),
                                                     strict=True) if a is not None and b is not None)  # fmt: skip
