"""Weights files as published: nested, with prefixes, old, with Python objects."""

from __future__ import annotations

import argparse
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fcnlab.errors import ModelError
from fcnlab.models.backbones.base import load_weights, match_backbone
from fcnlab.models.backbones.timm import TimmBackbone
from fcnlab.models.backbones.weights_file import read_tensors

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def published() -> State:
    """State dict of a whole timm model with a classifier, whose batch norms have seen no batch."""
    torch.manual_seed(5)
    return timm.create_model("test_resnet").state_dict()


def under(prefix: str, state: State) -> State:
    return OrderedDict((prefix + name, value) for name, value in state.items())


def other(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


def load(content: object, path: Path, prefix: str | None = None, model: str = "test_resnet") -> TimmBackbone:
    torch.save(content, path)
    torch.manual_seed(6)
    backbone = TimmBackbone(model)
    load_weights(backbone, path, prefix)
    return backbone


def is_loaded(backbone: TimmBackbone, state: State) -> bool:
    return all(torch.equal(value, state[name]) for name, value in backbone.body.state_dict().items())


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.ckpt", "w.bin"])
@pytest.mark.parametrize(
    ("outer", "prefix"),
    [
        ((), ""),
        ((), "module."),
        (("state_dict",), "module."),  # the ImageNet example
        (("state_dict",), "model.encoder."),  # Lightning
        (("state_dict",), "module.encoder_q."),  # MoCo
        (("model",), ""),  # torchvision's references
        (("model_ema",), "module."),
        (("model_state_dict",), "_orig_mod."),  # torch.compile
        (("teacher",), "backbone."),  # DINO
        (("ema", "state_dict"), "backbone."),
    ],
)
def test_nested_weights_with_a_prefix_are_loaded(
    published: State, tmp_path: Path, outer: tuple[str, ...], prefix: str, name: str
) -> None:
    content: object = under(prefix, published)
    for key in reversed(outer):
        content = {"epoch": 90, key: content, "best_acc1": torch.tensor(0.7)}
    assert is_loaded(load(content, tmp_path / name), published)


def test_changes_to_a_weights_file_are_described_in_one_line(published: State) -> None:
    backbone = TimmBackbone("test_resnet")
    own = dict(backbone.body.state_dict())
    assert match_backbone(backbone, own, "f").note == ""
    assert "fc.weight" in published and match_backbone(backbone, published, "f").note == "", "a classifier is usual"
    inside = {**published, "layer1.0.se.fc.weight": torch.zeros(1)}
    assert match_backbone(backbone, inside, "f").note == "not used: fc.weight, fc.bias, layer1.0.se.fc.weight"
    moco = {
        **under("state_dict.module.encoder_q.", published),
        **under("state_dict.module.encoder_k.", other(published)),
        "state_dict.module.queue": torch.zeros(2, 3),
    }
    found = match_backbone(backbone, moco, "f")
    assert found.note == (
        f"prefix 'state_dict.module.encoder_q.' removed; not used: fc.weight, fc.bias, "
        f"{len(published) + 1} tensors without the prefix"
    )
    assert all(torch.equal(found.state[name], published[name]) for name in own)


def test_files_without_num_batches_tracked_are_loaded(published: State, tmp_path: Path) -> None:
    old = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    backbone = load(old, tmp_path / "w.pth")
    assert is_loaded(backbone, published)
    counters = len(backbone.body.state_dict()) - len([name for name in backbone.body.state_dict() if name in old])
    note = match_backbone(backbone, old, "f").note
    assert note == f"{counters} missing num_batches_tracked set to 0; not used: fc.weight, fc.bias"


def test_another_number_of_classes_is_ignored(published: State, tmp_path: Path) -> None:
    content = {**published, "fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)}
    assert is_loaded(load(content, tmp_path / "w.pth"), published)


def test_several_fitting_sets_require_a_prefix(published: State, tmp_path: Path) -> None:
    content = {"model": published, "model_ema": under("module.", other(published))}
    with pytest.raises(
        ModelError, match=r"'model\.', 'model_ema\.module\.'; choose one with weights_prefix: model_ema"
    ):
        load(content, tmp_path / "w.pth")
    assert is_loaded(load(content, tmp_path / "w.pth", "model."), published)
    assert is_loaded(load(content, tmp_path / "w.pth", "model_ema.module"), other(published))  # without the last dot
    with pytest.raises(ModelError, match=r"weights_prefix: no name in the file begins with 'modle\.'; .*'?model\."):
        load(content, tmp_path / "w.pth", "modle")


def test_a_prefix_that_occurs_but_does_not_fit_is_an_error(published: State, tmp_path: Path) -> None:
    content = {"model": published, "head": {"conv1.0.weight": torch.zeros(1)}}
    with pytest.raises(ModelError, match=r"w\.pth: does not fit: [0-9]+ of 90 keys are missing"):
        load(content, tmp_path / "w.pth", "head")


def test_a_module_that_is_registered_twice_is_one_set(published: State, tmp_path: Path) -> None:
    content = {"state_dict": {**under("model.encoder.", published), **under("encoder.", dict(published))}}
    assert is_loaded(load(content, tmp_path / "w.ckpt"), published)


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "edgenext_xx_small", "levit_128s"])
def test_published_names_of_timm_are_loaded(name: str, tmp_path: Path) -> None:
    # Feature extractors of timm have other names than the models: stages_0 for stages.0, or a prefix.
    torch.manual_seed(7)
    model = timm.create_model(name).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    backbone = TimmBackbone(name).eval()
    load_weights(backbone, tmp_path / "w.safetensors")
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = model.forward_intermediates(images, intermediates_only=True)
        (map_,) = [one for one in expected if one.shape[-2:] == (7, 7)]
        assert torch.allclose(backbone(images)[32], map_, atol=1e-4)


def test_a_python_object_besides_the_weights_is_refused_with_a_conversion_that_works(
    published: State, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    content = {"model": published, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}, "param_groups": []}}
    with pytest.raises(ModelError) as caught:
        load(content, path)
    message = str(caught.value)
    assert "argparse.Namespace" in message and "\x1b" not in message
    assert is_loaded(convert(message, tmp_path / "checkpoint-weights.pth"), published)


def test_a_whole_model_is_refused_with_a_conversion_that_works(tmp_path: Path) -> None:
    torch.manual_seed(8)
    model = timm.create_model("test_resnet")
    for content in (model, {"model": nn.DataParallel(model), "epoch": 3}):
        with pytest.raises(ModelError, match="it contains a Python object") as caught:
            load(content, tmp_path / "whole.pt")
        assert is_loaded(convert(str(caught.value), tmp_path / "whole-weights.pth"), model.state_dict())


def convert(message: str, path: Path) -> TimmBackbone:
    """Run the two lines of an error message and load the file that they write."""
    lines = [line.strip() for line in message.splitlines()[1:]]
    assert len(lines) == 2
    exec("\n".join(lines), {})
    backbone = TimmBackbone("test_resnet")
    load_weights(backbone, path)
    return backbone


@pytest.mark.parametrize(
    ("content", "hint"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"<!DOCTYPE html>", "an HTML page")],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_the_error_of_a_file_without_weights_names_its_format(
    tmp_path: Path, name: str, content: bytes, hint: str
) -> None:
    (tmp_path / name).write_bytes(content * 20)
    with pytest.raises(ModelError, match=rf"{name}: cannot be read as weights: [^\n\x1b]*{hint}"):
        read_tensors(tmp_path / name)


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore:.torch.jit:DeprecationWarning"
)  # TorchScript is deprecated
def test_a_torchscript_archive_is_refused_with_a_conversion_that_works(tmp_path: Path) -> None:
    torch.manual_seed(9)
    model = timm.create_model("test_resnet").eval()
    traced = torch.jit.trace(model, torch.zeros(1, 3, 64, 64))
    traced.save(str(tmp_path / "traced.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(ModelError, match=r"traced\.pt: is a TorchScript archive") as caught:
            read_tensors(tmp_path / "traced.pt")
    assert is_loaded(convert(str(caught.value), tmp_path / "traced-weights.pth"), model.state_dict())
