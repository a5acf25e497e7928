"""Layers that replace those of a network for training: batch norm with its activation, and on CUDA maximum pooling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fcnlab.kernels import batch_norm
from fcnlab.kernels.build import C_SUFFIX
from fcnlab.kernels.switch import is_triton_available
from fcnlab.models import FCN
from fcnlab.training.network import eval_mode


def replace_batch_norm(model: nn.Module, size: tuple[int, int] = (64, 64)) -> None:
    """Change the batch norms of a model, in place, so that they are kernels in training, in Triton or C.

    Parameters, buffers and their names do not change. Where a ReLU works in place on the output of a batch norm, as in
    ResNets, both are computed in one pass. PyTorch's operators still run without gradients, in other memory formats
    than channels-last, and without Triton or a C compiler.

    Args:
        model: a network on the device that trains it.
        size: height and width of an image that the network accepts.
    """
    activated = _find_activated_norms(model, size)
    modules: list[Any] = list(model.modules())
    for module in modules:
        if type(module) is nn.BatchNorm2d and _is_supported(module):
            _change_class(module, FastBatchNorm2d, "relu" if module in activated else "none")
        elif activated and _is_inplace_relu(module):
            module.__class__ = _FusedReLU
        elif type(module) is BatchNormAct2d and _is_supported(module) and type(module.drop) is nn.Identity:
            activation = _ACTIVATIONS.get(type(module.act))
            if activation is not None:
                _change_class(module, FastBatchNormAct2d, activation)
            elif hasattr(module.act, "inplace"):
                # The gradients of these activations, such as SiLU, need the input, which PyTorch would copy.
                module.act.inplace = False


def _change_class(module: Any, kind: type[nn.Module], activation: str) -> None:
    """Change the class of a module, which keeps its parameters, buffers, hooks and position in the network."""
    module.__class__ = kind
    module.activation = activation


_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Identity: "none", nn.ReLU: "relu", nn.ReLU6: "relu6"}


def has_batch_norm_kernel(device: torch.device) -> bool:
    """Return True if there is a kernel for the batch norms of a device; without one, replacing them has no use.

    Args:
        device: device that trains.
    """
    return is_triton_available(device) or batch_norm.is_available(device)


def runs_as_kernel(x: Tensor) -> bool:
    """Return True if the batch norm of a tensor, and the ReLU after it, run as one kernel.

    Args:
        x: input of the batch norm.
    """
    return (
        torch.is_grad_enabled()
        and x.dim() == 4
        and (x.dtype in C_SUFFIX or (x.dtype == torch.float16 and is_triton_available(x.device)))
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > 0
        and has_batch_norm_kernel(x.device)
    )


class FastBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that is a kernel if `runs_as_kernel`, including the ReLU after it if its `activation` is `relu`."""

    activation: str = "none"

    def forward(self, x: Tensor) -> Tensor:
        if not runs_as_kernel(x):
            return super().forward(x)
        y = _normalize(self, x)
        if self.activation == "relu":
            y.activated_version = y._version  # type: ignore[attr-defined]
        return y


class FastBatchNormAct2d(BatchNormAct2d):  # type: ignore[misc]
    """timm's batch norm with an activation; a kernel if `runs_as_kernel`."""

    activation: str = "none"

    def forward(self, x: Tensor) -> Tensor:
        return _normalize(self, x) if runs_as_kernel(x) else super().forward(x)


class _FusedReLU(nn.ReLU):
    """A ReLU that is not applied to outputs of a `FastBatchNorm2d` which contain it already.

    Networks may call one ReLU at several positions, after batch norms and after other layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        activated = getattr(x, "activated_version", None)  # changes in place raise the version of a tensor
        return x if activated is not None and activated == x._version else super().forward(x)


def _normalize(norm: Any, x: Tensor) -> Tensor:
    if norm.training:
        if x.numel() == x.shape[1]:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        norm.num_batches_tracked.add_(1)
    if is_triton_available(x.device):
        from fcnlab.kernels import triton_batch_norm  # imports triton, an optional dependency

        function: Any = triton_batch_norm.BatchNormActivation
    else:
        function = batch_norm.BatchNormActivation
    y: Tensor = function.apply(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.training,
        norm.momentum,
        norm.eps,
        norm.activation,
    )
    return y


def _is_supported(norm: nn.BatchNorm2d) -> bool:
    """Return True if a batch norm has all that the kernels read: scale, shift, running statistics and momentum."""
    return bool(norm.affine and norm.track_running_stats and norm.momentum is not None)


@torch.no_grad()
def _find_activated_norms(model: nn.Module, size: tuple[int, int]) -> set[nn.Module]:
    """Find the batch norms whose output is always read first by an in-place ReLU, by a forward pass of one image.

    The ReLU overwrites the output of the batch norm, so that all later readers see the activated values, with or
    without fusion.
    """
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    relus = [module for module in model.modules() if _is_inplace_relu(module)]
    if not norms or not relus:
        return set()
    readers = _FirstReaders()
    hooks = [norm.register_forward_hook(readers.after_norm) for norm in norms]
    hooks += [relu.register_forward_pre_hook(readers.before_relu) for relu in relus]
    hooks += [relu.register_forward_hook(readers.after_relu) for relu in relus]
    channels = model.backbone.in_channels if isinstance(model, FCN) else 3
    image = torch.zeros(1, channels, *size, device=next(model.parameters()).device)
    try:
        with eval_mode(model), readers:
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return readers.find_activated()


def _is_inplace_relu(module: nn.Module) -> bool:
    return type(module) is nn.ReLU and module.inplace


class _FirstReaders(TorchDispatchMode):
    """Record for each output of a batch norm whether the first operator that reads it is that of an in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self._unread: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensors are kept, so that their ids stay unique
        self._activated: set[nn.Module] = set()
        self._other: set[nn.Module] = set()
        self._in_relu = False

    def after_norm(self, norm: nn.Module, _: Any, output: Tensor) -> None:
        self._unread[id(output)] = norm, output

    def before_relu(self, *_: Any) -> None:
        self._in_relu = True

    def after_relu(self, *_: Any) -> None:
        self._in_relu = False

    def __torch_dispatch__(self, operator: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            norm, _ = self._unread.pop(id(value), (None, None))
            if norm is not None:
                (self._activated if self._in_relu else self._other).add(norm)
        return operator(*args, **(kwargs or {}))

    def find_activated(self) -> set[nn.Module]:
        """Return the batch norms all of whose outputs were read first by an in-place ReLU."""
        return self._activated - self._other - {norm for norm, _ in self._unread.values()}


def replace_max_pooling(model: nn.Module, *, deterministic: bool) -> None:
    """Replace each `torch.nn.MaxPool2d` of a model by `MaxPool2d`, in place.

    Args:
        model: the network.
        deterministic: gradients on CUDA must be reproducible bit for bit.

    Raises:
        ValueError: gradients must be deterministic, and a pooling is dilated or returns indices.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.MaxPool2d:
                if _pair(child.dilation) == (1, 1) and not child.return_indices:
                    setattr(module, name, MaxPool2d(child, deterministic=deterministic))
                elif deterministic:
                    raise ValueError("deterministic maximum pooling supports neither dilation nor returned indices")


class MaxPool2d(nn.MaxPool2d):
    """Maximum pooling [B, C, H, W] -> [B, C, h, w] with the outputs and gradients of a `torch.nn.MaxPool2d`.

    A Triton kernel pools channels-last images on CUDA, faster than PyTorch's and with deterministic gradients; other
    tensors are pooled by PyTorch. PyTorch's CUDA kernel adds the gradients of overlapping windows with atomics, in an
    order that changes from run to run, so `deterministic` replaces that sum. Exported programs contain PyTorch's
    operator.
    """

    def __init__(self, pool: nn.MaxPool2d, *, deterministic: bool) -> None:
        """Take over the options of a pooling layer.

        Args:
            pool: the pooling to replace, without dilation and returned indices.
            deterministic: gradients must be reproducible bit for bit.
        """
        super().__init__(pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode)
        self.deterministic = deterministic

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return super().forward(input)
        kernel, stride, padding = map(_pair, (self.kernel_size, self.stride, self.padding))
        # torch.compile generates its own kernels.
        if not torch.compiler.is_compiling() and is_triton_available(input.device):
            from fcnlab.kernels import triton_max_pool  # imports triton, an optional dependency

            if triton_max_pool.supports_pooling(input, kernel, stride, padding):
                return triton_max_pool.max_pool2d(input, kernel, stride, padding, self.ceil_mode)
        if self.deterministic:
            pooled: Tensor = _DeterministicMaxPool.apply(input, kernel, stride, padding, self.ceil_mode)
            return pooled
        return super().forward(input)


class _DeterministicMaxPool(torch.autograd.Function):
    """Add gradients one window position at a time: k x k additions, none of which writes an element twice."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], ceil: bool
    ) -> Tensor:
        pooled, indices = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil, return_indices=True)
        ctx.save_for_backward(indices)
        ctx.geometry = kernel, stride, padding, x.shape[-2:]
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        (gradient,) = gradients
        kernel, stride, padding, (height, width) = ctx.geometry
        rows, columns = gradient.shape[-2:]
        # Large enough for all windows; with `ceil_mode` they can extend beyond the padding.
        reach = [(n - 1) * s + k for n, s, k in zip((rows, columns), stride, kernel, strict=True)]
        total = gradient.new_zeros(
            *gradient.shape[:2], max(reach[0], height + padding[0]), max(reach[1], width + padding[1])
        )
        top = torch.arange(rows, device=gradient.device)[:, None] * stride[0] - padding[0]
        left = torch.arange(columns, device=gradient.device) * stride[1] - padding[1]
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                chosen = indices == (top + i) * width + (left + j)
                # A position in the padding can have the same index as a pixel, but is never the maximum.
                inside = (top + i >= 0) & (top + i < height) & (left + j >= 0) & (left + j < width)
                target = total[..., i : i + rows * stride[0] : stride[0], j : j + columns * stride[1] : stride[1]]
                target += gradient * (chosen & inside)
        image = total[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        return image, None, None, None, None


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
