"""Activation checkpointing: layers that are computed again in the backward pass give equal results."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fcnlab.errors import ModelError
from fcnlab.models import Backbone, PaperBackbone, TimmBackbone

# Chains of stages, of blocks that timm flattens, with norms that hold their activation, and with dropout.
NETS = {
    "resnet10t": lambda: TimmBackbone("resnet10t"),
    "dilated": lambda: TimmBackbone("resnet18", output_stride=8),
    "densenet121": lambda: TimmBackbone("densenet121"),
    "vgg11_bn": lambda: TimmBackbone("vgg11_bn"),
    "alexnet": lambda: PaperBackbone("alexnet"),
}


def built(name: str) -> Backbone:
    torch.manual_seed(0)
    return NETS[name]()


def trained(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """The maps, gradients and buffers after one step of training on images [B, 3, H, W]."""
    torch.manual_seed(1)
    maps = backbone.train()(images)
    sum((map_ * torch.linspace(-1, 1, map_.shape[-1])).sum() for map_ in maps.values()).backward()
    found = {f"map {reduction}": map_.detach() for reduction, map_ in maps.items()}
    found |= {f"gradient of {name}": p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": buffer.clone() for name, buffer in backbone.named_buffers()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "its first part"])
def test_checkpointing_keeps_maps_gradients_and_statistics_bit_for_bit(name: str, whole: bool) -> None:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    plain, again = built(name), built(name)
    again.checkpoint_activations(None if whole else min(again.chain))
    expected, found = trained(plain, images), trained(again, images)
    assert found.keys() == expected.keys() and any(key.startswith("gradient") for key in found)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_checkpointing_more_blocks_keeps_less_memory() -> None:
    images = torch.rand(1, 3, 64, 64)

    def kept(through: int | None) -> int:
        backbone = built("resnet10t").eval()
        if through is not None:
            backbone.checkpoint_activations(through)
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            maps = backbone(images)
        del maps
        return sum(storages.values())

    bytes_kept = [kept(through) for through in (None, 2, 4, 8, 16, 32)]
    assert bytes_kept == sorted(bytes_kept, reverse=True) and len(set(bytes_kept)) == len(bytes_kept)


def test_a_copy_computes_with_its_own_weights() -> None:
    backbone = built("resnet10t")
    backbone.checkpoint_activations()
    twin = copy.deepcopy(backbone)
    nn.init.zeros_(next(twin.body.parameters()))
    images = torch.rand(1, 3, 64, 64)
    assert not torch.equal(twin.eval()(images)[32], backbone.eval()(images)[32])


def test_unsupported_checkpointing_error_suggests_an_alternative() -> None:
    with pytest.raises(ModelError, match=r"not a sequence of layers.*grad_accum_steps"):
        TimmBackbone("mobilenetv2_035").checkpoint_activations()
    with pytest.raises(ModelError, match="activation_checkpointing: no map at stride 8; the backbone has maps at 32"):
        PaperBackbone("alexnet").checkpoint_activations(8)
    odd = TimmBackbone("selecsls42")
    odd.checkpoint_activations()
    with pytest.raises(ModelError, match="several maps"):
        odd(torch.rand(1, 3, 64, 64))
