"""Tests of device selection, precision and out-of-memory errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fcnlab.constants import Precision
from fcnlab.errors import RunError
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.training import hardware

OUT_OF_MEMORY: dict[str, BaseException] = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
    "host": MemoryError(),
    "torch on the host": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 70368744177664 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "oneDNN": RuntimeError("could not create a primitive"),
    "C++": RuntimeError("std::bad_alloc"),
    "a map of a file": OSError(12, "Cannot allocate memory"),
    "a library": ImportError("libcudnn.so.9: failed to map segment from shared object: Cannot allocate memory"),
    "a thread": RuntimeError("can't start new thread"),
    "runtime": torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "runtime of older versions": RuntimeError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "cuDNN without a workspace": RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuDNN's finder": RuntimeError("FIND was unable to find an engine to execute this computation"),
    "NCCL": RuntimeError(
        "NCCL error in: ProcessGroupNCCL.cpp:3699, unhandled cuda error, NCCL version 2.27.5\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
    ),
    "NCCL of older versions": RuntimeError("ncclUnhandledCudaError\nLast error:\nCuda failure 'out of memory'"),
}

OTHER: dict[str, BaseException] = {
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x1)"),
    "assert on the device": torch.AcceleratorError("CUDA error: device-side assert triggered"),
    "illegal address": torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    "cuBLAS without a device": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`"),
    "cuDNN's parameters": RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    "another failure of NCCL": RuntimeError("ncclUnhandledCudaError\nLast error:\nCuda failure 999 'unknown error'"),
    "oneDNN without support": RuntimeError("could not create a primitive descriptor for a convolution forward"),
    "an index": IndexError("index 5 is out of range"),
    "a file": OSError(28, "No space left on device"),
    "a message about memory": ValueError("CUDA error: out of memory"),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_out_of_memory_errors_of_all_libraries_are_recognized(name: str) -> None:
    assert hardware.is_out_of_memory(OUT_OF_MEMORY[name])


@pytest.mark.parametrize("name", OTHER)
def test_other_errors_are_not_out_of_memory(name: str) -> None:
    assert not hardware.is_out_of_memory(OTHER[name])


@pytest.mark.parametrize("name", ["torch", "cuBLAS"])
def test_an_error_caused_by_out_of_memory_is_recognized(name: str) -> None:
    with pytest.raises(ValueError, match="the step failed") as caught:
        raise ValueError("the step failed") from OUT_OF_MEMORY[name]
    assert hardware.is_out_of_memory(caught.value)


def test_the_environment_variable_selects_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    assert hardware.select_device(1) == torch.device("cuda", 1)
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    assert hardware.select_device() == torch.device("cpu")
    monkeypatch.setenv(DEVICE_VARIABLE, "tpu")
    with pytest.raises(RunError, match="FCNLAB_DEVICE: 'tpu' is not a device; use cpu or cuda"):
        hardware.select_device()


def test_requiring_cuda_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    assert hardware.select_device() == torch.device("cpu")
    monkeypatch.setenv(DEVICE_VARIABLE, "cuda")
    with pytest.raises(RunError, match="finds none"):
        hardware.select_device()


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_tf32_is_used_only_with_precision_tf32(precision: Precision, allowed: bool) -> None:
    hardware.create_autocast(torch.device("cuda"), precision)
    try:
        assert torch.backends.cuda.matmul.allow_tf32 == allowed
        assert torch.backends.cudnn.allow_tf32 == allowed
        with (
            torch.backends.cudnn.flags()
        ):  # as torch.export does; raises an error if both interfaces for TF32 were used
            pass
    finally:
        hardware.create_autocast(torch.device("cuda"), "fp32")


@pytest.mark.parametrize(
    ("precision", "recorded", "native", "expected"),
    [
        ("auto", {"cpu": "bf16"}, True, "bf16"),  # although fp32 is now faster
        ("auto", {"cpu": "bf16"}, False, "fp32"),
        ("auto", {"cuda": "bf16"}, True, "fp32"),
        ("auto", {}, True, "fp32"),
        ("bf16", {"cpu": "bf16"}, False, "bf16"),
        ("tf32", {"cpu": "fp32"}, True, "fp32"),
    ],
)
def test_the_precision_of_the_training_is_used_on_the_same_type_of_device(
    precision: str,
    recorded: dict[str, Precision],
    native: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: native)
    monkeypatch.setattr(hardware, "is_bf16_faster", lambda: False)
    assert hardware.resolve_recorded_precision(precision, recorded, torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("recorded", "capability", "expected"),
    [("fp16", (8, 0), "fp16"), ("bf16", (7, 5), "fp16"), ("fp32", (8, 0), "fp32"), ("tf32", (7, 0), "fp16")],
)
def test_another_gpu_uses_the_precision_of_the_training_if_it_has_it(
    recorded: Precision, capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert hardware.resolve_recorded_precision("auto", {"cuda": recorded}, torch.device("cuda")) == expected


def test_the_precision_auto_depends_on_the_device_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = [(9, 0), (7, 5), (6, 1)]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # by the current device, the first
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    found = [hardware.resolve_precision("auto", torch.device("cuda", index)) for index in range(3)]
    assert found == ["bf16", "fp16", "fp32"]


def test_a_device_given_by_name_must_be_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.resolve_device("cpu") == hardware.resolve_device(None) == torch.device("cpu")
    with pytest.raises(RunError, match=r"--device cuda: torch .* finds no CUDA device"):
        hardware.resolve_device("cuda")


def test_the_default_device_is_that_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("FCNLAB_DEVICE", raising=False)
    assert hardware.resolve_device(None).type == "cuda"
    monkeypatch.setenv("FCNLAB_DEVICE", "cpu")
    assert hardware.resolve_device(None).type == "cpu"


def test_only_the_weights_of_2d_layers_are_moved_in_channels_last_format() -> None:
    model = hardware.move_to_device(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3)), torch.device("cpu"))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[1].weight.is_contiguous()
