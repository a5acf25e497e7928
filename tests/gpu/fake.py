"""Symbolic CUDA tensors on a machine without a GPU, and detection of hidden synchronization.

Inside `fake_cuda()` every tensor is a FakeTensor: it has a shape, a dtype and a device, and no values. Operators check
that their arguments are on one device and compute shapes, so the CUDA path of the code runs in milliseconds.

No stub of the CUDA runtime is needed: FakeTensorMode replaces the device guard of CUDA, and `_hidden_device` prevents
the backward pass from requesting streams of the driver. GPUs of the machine are hidden (see tests/conftest.py).

Triton kernels, CUDA graphs, and `foreach` optimizers, which PyTorch does not use for symbolic tensors, are not covered;
they need a GPU.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fcnlab
from fcnlab.kernels.switch import TRITON_VARIABLE
from fcnlab.training import fit

PACKAGE = Path(fcnlab.__file__).resolve().parent
CUDA = torch.device("cuda", 0)
FREE_MEMORY = 2**33
"""Bytes of device memory that `torch.cuda.mem_get_info` reports as free."""

aten = torch.ops.aten


class HiddenSynchronization(AssertionError):
    """The host waits for the device in a function that is not allowed to."""


@dataclass(frozen=True)
class Synchronization:
    """A function in which the host waits for the device.

    Attributes:
        function: module and function of fcnlab, such as `training/fit.py:fit`.
        line: line of that module.
        operator: name of the ATen operator.
    """

    function: str
    line: int
    operator: str

    def __str__(self) -> str:
        return f"{self.operator} at {self.function}, line {self.line}"


@dataclass
class Watch:
    """Detected and allowed synchronizations.

    Attributes:
        allowed: reasons by function, for the functions that may wait.
        seen: all synchronizations, including allowed ones.
        outputs: number of CUDA tensors that operators returned; 0 if nothing ran on the device.
        building: true while models and losses are built, when synchronization is ignored.
    """

    allowed: Mapping[str, str]
    seen: list[Synchronization] = field(default_factory=list)
    outputs: int = 0
    building: bool = False

    @contextmanager
    def build(self) -> Iterator[None]:
        """Ignore synchronization in the body, which runs once for each trial."""
        self.building = True
        try:
            yield
        finally:
            self.building = False

    def report(self, operator: str) -> None:
        """Record a synchronization.

        Raises:
            HiddenSynchronization: its function is not allowed to wait.
        """
        if self.building:
            return
        found = Synchronization(*_function(), operator)
        self.seen.append(found)
        if found.function not in self.allowed:
            raise HiddenSynchronization(f"the host waits for the device: {found}")


@contextmanager
def fake_cuda(allowed: Mapping[str, str] | None = None) -> Iterator[Watch]:
    """Run the body with symbolic tensors; torch.device("cuda") can be used inside.

    Args:
        allowed: reasons by function (`module.py:function`) for the synchronizations that do not raise an error.
    """
    if torch.cuda.is_available():
        pytest.skip("symbolic CUDA tensors need a run that hides the GPUs")
    watch = Watch(allowed or {})
    # The first backward pass of a process decides for which devices the autograd engine has threads. A process with
    # such threads cannot fork trials, which other tests do, so that pass must not see a symbolic device.
    torch.zeros((), requires_grad=True).backward()
    with ExitStack() as stack:
        # Triton kernels need addresses, so the fallbacks run instead.
        stack.enter_context(patch.dict(os.environ, {TRITON_VARIABLE: "0"}))
        # Without a driver, torch.autocast and GradScaler turn themselves off with a warning.
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_, **__: True))
        stack.enter_context(patch("torch.cuda.get_device_capability", lambda *_: (9, 0)))
        # Only the driver knows the amount of free memory.
        stack.enter_context(patch("torch.cuda.mem_get_info", lambda *_: (FREE_MEMORY, 2 * FREE_MEMORY)))
        stack.callback(fit._training_stream.cache_clear)
        for name, replacement in _queues(watch).items():
            stack.enter_context(patch(f"torch.cuda.{name}", replacement))
        # The autograd engine starts one thread per device; without a GPU it has started none.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        # The only real tensors are images on the CPU; an operator replaces them by symbolic tensors on the CPU.
        stack.enter_context(_SymbolicMode(allow_non_fake_inputs=True))
        stack.enter_context(patch.object(Tensor, "_make_subclass", staticmethod(_hidden_device)))
        stack.enter_context(patch.object(FakeTensor, "is_cuda", property(_is_cuda), create=True))
        stack.enter_context(_Watching(watch))
        stack.enter_context(_WithoutValues(watch))
        yield watch


def on_cuda(module: nn.Module) -> Any:
    """Return a copy of a module with symbolic parameters and buffers on the CUDA device.

    `Module.to` cannot do this: it swaps FakeTensors in place, which fails if there are other references to them.
    """
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): _move(tensor) for tensor in tensors})


def _move(tensor: Tensor) -> Tensor:
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    symbolic = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA, memory_format=layout)
    return nn.Parameter(symbolic, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else symbolic


def _queues(watch: Watch) -> dict[str, Any]:
    """Return replacements of the streams and events of torch.cuda, which need a driver; they report only waits."""

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            pass

        def record(self, stream: Any = None) -> None:
            pass

        def synchronize(self) -> None:
            watch.report("cudaEventSynchronize")

    class Stream:
        def __init__(self, device: torch.device | None = None) -> None:
            pass

        def wait_stream(self, stream: Any) -> None:
            pass

        def wait_event(self, event: Any) -> None:
            pass

        def synchronize(self) -> None:
            watch.report("cudaStreamSynchronize")

    return {
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": nullcontext,
        "device": nullcontext,
        "synchronize": lambda device=None: watch.report("cudaDeviceSynchronize"),
    }


_make_subclass = Tensor._make_subclass


def _hidden_device(cls: type, *args: Any, device_for_backend_keys: torch.device | None = None, **kwargs: Any) -> Tensor:
    """Create a FakeTensor that is on the CUDA device in Python, and on the meta device in C++.

    The autograd engine requests the streams of CUDA tensors, which is an error without a driver.
    """
    if device_for_backend_keys is not None and device_for_backend_keys.type == "cuda":
        kwargs["dispatch_device"] = False
    kwargs["device_for_backend_keys"] = device_for_backend_keys
    return _make_subclass(cls, *args, **kwargs)


class _SymbolicMode(FakeTensorMode):
    """FakeTensorMode that restores the device hidden by `_hidden_device` for tensors that C++ code creates."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().dispatch(func, types, args, _shown_device(kwargs or {}))


def _shown_device(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Replace the meta device of a new tensor by the CUDA device."""
    if kwargs.get("device") is None or torch.device(kwargs["device"]).type != "meta":
        return kwargs
    return kwargs | {"device": CUDA}


class _Watching(TorchDispatchMode):
    """Report operators that wait for the device, and replace their results by some value or shape."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = _shown_device(kwargs or {})
        if func is aten._pin_memory.default:  # an allocation of the CUDA runtime
            return args[0]
        if func.namespace == "aten" and torch.is_inference_mode_enabled():  # composite operators are not decomposed yet
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if _waits(func, args, kwargs):
            self._watch.report(func.name())
        replace = _REPLACEMENTS.get(func)
        result = replace(func, *args, **kwargs) if replace is not None else func(*args, **kwargs)
        self._watch.outputs += any(map(_is_cuda, tree_leaves(result)))
        return result


class _WithoutValues(TorchFunctionMode):
    """Return arrays and numbers with some value for symbolic tensors on the CPU."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and isinstance(args[0], FakeTensor):  # it needs an address
            copied = torch.empty_strided(args[0].shape, args[0].stride(), dtype=args[0].dtype, device=args[0].device)
            return args[1].setdefault(id(args[0]), copied.requires_grad_(args[0].requires_grad))
        if func in (Tensor.numpy, Tensor.tolist) and isinstance(args[0], FakeTensor):
            if func is Tensor.tolist and args[0].is_cuda:
                self._watch.report("tolist")
            assert func is Tensor.tolist or not args[0].is_cuda, "a CUDA tensor has no numpy array"
            with torch.utils._python_dispatch._disable_current_modes():
                return func(torch.zeros(args[0].shape, dtype=args[0].dtype))
        return func(*args, **(kwargs or {}))


def _is_cuda(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return True if an operator makes the host wait: a copy across devices, or a result that depends on values."""
    if func is aten._to_copy.default:
        target = torch.device(kwargs.get("device") or args[0].device)
        return _crosses(args[0].device, target) and not kwargs.get("non_blocking", False)
    if func is aten.copy_.default:
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        return _crosses(args[0].device, args[1].device) and not non_blocking
    if func in _INDEXED:
        return _is_cuda(args[0]) and _indices_wait(func, args)
    if not any(map(_is_cuda, tree_leaves((args, kwargs)))):
        return False
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


_INDEXED = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
)


def _indices_wait(func: Any, args: tuple[Any, ...]) -> bool:
    indices = [index for index in args[1] if index is not None]
    if any(not _is_cuda(index) for index in indices):  # indices on the CPU are copied
        return True
    masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    filled = func is not aten.index.Tensor and args[2].numel() == 1  # equivalent to masked_fill
    return masks and not filled


def _crosses(one: torch.device, other: torch.device) -> bool:
    return one.type != other.type and "cuda" in (one.type, other.type)


def _number(func: Any, tensor: Tensor) -> bool | int | float:
    """Return a value that neither ends loops nor makes losses infinite."""
    if tensor.dtype == torch.bool:
        return True
    return 0.5 if tensor.is_floating_point() else 1


def _all_nonzero(func: Any, tensor: Tensor) -> Tensor:
    return tensor.new_empty((tensor.numel(), tensor.ndim), dtype=torch.int64)


def _bins(func: Any, tensor: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return tensor.new_empty(max(1, minlength), dtype=torch.int64 if weights is None else weights.dtype)


def _all_selected(func: Any, tensor: Tensor, mask: Tensor) -> Tensor:
    return tensor.expand(torch.broadcast_shapes(tensor.shape, mask.shape)).flatten().clone()


def _indexed(func: Any, tensor: Tensor, indices: list[Tensor | None], *rest: Any) -> Tensor:
    """Index with masks as if all their elements were true."""
    plain: list[Tensor | None] = []
    for index in indices:
        mask = index is not None and index.dtype in (torch.bool, torch.uint8)
        plain += _all_nonzero(func, index).unbind(1) if mask and index is not None else [index]
    return func(tensor, plain, *rest)


def _fused_sgd(func: Any, *tensors: Any, **options: Any) -> None:
    """Check the devices of a fused update, which has no symbolic implementation."""
    found = {tensor.device for tensor in tree_leaves((tensors, options)) if isinstance(tensor, Tensor)}
    if len(found) > 1:
        raise RuntimeError(f"{func.name()}: expected all tensors on the same device, found {sorted(map(str, found))}")


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _number,
    aten.nonzero.default: _all_nonzero,
    aten.bincount.default: _bins,
    aten.masked_select.default: _all_selected,
    aten.index.Tensor: _indexed,
    aten._fused_sgd_.default: _fused_sgd,
    aten._fused_sgd_.tensor_lr: _fused_sgd,
    aten.equal.default: lambda func, one, other: True,
}


def _function() -> tuple[str, int]:
    """Return the function of fcnlab that called the running operator, as `module.py:function`, and its line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if PACKAGE in file.parents:
            return f"{file.relative_to(PACKAGE).as_posix()}:{frame.f_code.co_qualname}", frame.f_lineno
        frame = frame.f_back
    return "outside fcnlab", 0
