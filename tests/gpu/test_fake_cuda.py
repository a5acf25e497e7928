"""Tests of the symbolic CUDA tensors: hidden synchronization and mixed devices are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcnlab.metrics.confusion import count_joint
from tests.gpu.fake import CUDA, HiddenSynchronization, fake_cuda, on_cuda

WAITING: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "item": lambda values, mask: values.sum().item(),
    "float": lambda values, mask: float(values.sum()),
    "bool": lambda values, mask: bool(mask.any()),
    "tolist": lambda values, mask: values.tolist(),
    "nonzero": lambda values, mask: mask.nonzero(),
    "mask": lambda values, mask: values[mask],
    "mask of several axes": lambda values, mask: torch.stack([values, values])[:, mask],
    "masked_select": lambda values, mask: values.masked_select(mask),
    "write through a mask": lambda values, mask: values.index_put_((mask,), values.flatten()),
    "indices on the CPU": lambda values, mask: values[torch.tensor([0, 1])],
    "bincount": lambda values, mask: torch.bincount(mask.flatten().long(), minlength=4),
    "unique": lambda values, mask: values.unique(),
    "equal": lambda values, mask: torch.equal(values, values + 1),
    "copy to the CPU": lambda values, mask: values.cpu(),
    "copy from the CPU": lambda values, mask: torch.zeros(3).to(values.device),
    "tensor from a list": lambda values, mask: torch.tensor([1.0, 2.0], device=values.device),
    "copy_ from the CPU": lambda values, mask: values.copy_(torch.zeros(4, 6)),
    "repeat_interleave": lambda values, mask: values.repeat_interleave(mask[0].long(), dim=1),
}

QUIET: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "arithmetic": lambda values, mask: (2 * values).softmax(1).sum(),
    "where": lambda values, mask: torch.where(mask, values, 0),
    "fill through a mask": lambda values, mask: values.index_put_((mask,), torch.zeros((), device=values.device)),
    "indices on the device": lambda values, mask: values[torch.arange(2, device=values.device)],
    "asynchronous copy from the CPU": lambda values, mask: torch.zeros(3).pin_memory().to(CUDA, non_blocking=True),
    "asynchronous copy to the CPU": lambda values, mask: values.to("cpu", non_blocking=True),
    "sort": lambda values, mask: values.sort(),
    "work on the CPU": lambda values, mask: float(torch.zeros(4).sum()),
}


def tensors() -> tuple[Tensor, Tensor]:
    return torch.empty(4, 6, device=CUDA), torch.empty(4, 6, dtype=torch.bool, device=CUDA)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", WAITING)
def test_hidden_synchronization_is_reported(name: str, inference: bool) -> None:
    with fake_cuda() as watch, torch.inference_mode(inference):
        values = tensors()
        with pytest.raises(HiddenSynchronization, match="outside fcnlab"):
            WAITING[name](*values)
    assert len(watch.seen) == 1


@pytest.mark.parametrize("name", sorted(WAITING.keys() - {"unique", "repeat_interleave"}))
def test_allowed_synchronization_is_not_an_error(name: str) -> None:
    # The results of the two others have lengths that depend on values; no function may use them.
    with fake_cuda({"outside fcnlab": "this test"}) as watch:
        WAITING[name](*tensors())
    assert watch.seen


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", QUIET)
def test_asynchronous_work_is_not_reported(name: str, inference: bool) -> None:
    with fake_cuda() as watch, torch.inference_mode(inference):
        QUIET[name](*tensors())
    assert not watch.seen


def test_a_report_names_the_function_and_line() -> None:
    # The fallback counts by a histogram, whose length the host reads; the Triton kernel does not.
    with fake_cuda() as watch:
        labels = torch.empty(2, 3, 3, dtype=torch.uint8, device=CUDA)
        with pytest.raises(HiddenSynchronization, match=r"at metrics/confusion\.py:count_joint, line \d+"):
            count_joint(labels, labels, 4, 4)
    assert [seen.operator for seen in watch.seen] == ["aten::bincount"]


def test_tensors_of_two_devices_do_not_mix() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match=r"two (different )?devices"):
        tensors()[0] + torch.zeros(4, 6)


def test_a_symbolic_module_keeps_shapes_and_requires_grad() -> None:
    with fake_cuda():
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        module[0].weight.requires_grad_(False)
        moved = on_cuda(module)
        for one, other in zip(module.parameters(), moved.parameters(), strict=True):
            assert (one.shape, one.requires_grad) == (other.shape, other.requires_grad)
            assert other.device == CUDA and other.is_cuda
        assert all(buffer.is_cuda for buffer in moved.buffers())


def test_gradients_are_on_the_device_and_the_cpu_is_not_affected() -> None:
    with fake_cuda() as watch:
        module = on_cuda(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        module(torch.empty(2, 3, 8, 8, device=CUDA)).sum().backward()
        assert module[0].weight.grad.device == CUDA
    assert watch.outputs > 0
    real = torch.ones(3, requires_grad=True)
    (2 * real).sum().backward()
    assert real.grad is not None and real.grad.tolist() == [2.0, 2.0, 2.0]
    assert not torch.cuda.is_available()
