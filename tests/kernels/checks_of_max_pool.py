"""Checks of the Triton maximum pooling; run by `test_triton.py` in another process."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.kernels import triton_max_pool
from fcnlab.kernels.switch import is_triton_available
from fcnlab.training.fast_layers import MaxPool2d
from tests.kernels.on_triton import COMPILED, DEVICE, INTERPRETED, assert_a_graph_replays, examples

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def image(*size: int, dtype: torch.dtype = torch.float32, levels: int = 3) -> Tensor:
    """Return a channels-last image with few different values, so that most windows have several maxima."""
    x = torch.randint(-levels, levels + 1, size, generator=torch.Generator().manual_seed(0))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def pooled_with_gradient(pool: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output and the gradient for output gradients of small integers, whose sums are exact in all dtypes."""
    x = x.detach().requires_grad_()
    pooled = pool(x)
    above = torch.randint(-4, 5, pooled.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(pooled, x, above.to(pooled.dtype).to(pooled.device))
    return pooled.detach().cpu(), gradient.cpu()


def equal(one: Tensor, other: Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and torch.equal(one.isnan(), other.isnan())
        and torch.equal(one.nan_to_num(), other.nan_to_num())
    )


def test_the_kernel_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_triton_available(DEVICE)
    monkeypatch.setattr(F, "max_pool2d", None)
    x = image(2, 4, 7, 9).to(DEVICE)
    pool = MaxPool2d(nn.MaxPool2d(3, 2, 1), deterministic=False)
    assert pool(x).is_contiguous(memory_format=torch.channels_last)


cases = (
    st.sampled_from(
        [
            (64, (3, 3), (2, 2), (1, 1), torch.bfloat16),
            (5, (2, 2), (2, 2), (0, 0), torch.float32),
            (130, (3, 3), (1, 1), (1, 1), torch.float16),
            (8, (3, 2), (2, 3), (1, 0), torch.float32),
        ]
    )
    if COMPILED
    else st.tuples(
        st.one_of(st.integers(1, 20), st.sampled_from([64, 130])),
        st.tuples(st.integers(1, 7), st.integers(1, 7)),
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
        st.sampled_from(DTYPES),
    )
)
"""Channels, kernel, stride, padding and dtype."""

sides = st.integers(3, 20) if COMPILED else st.integers(1, 9)
"""Heights and widths."""


@given(
    images=st.integers(1, 3),
    case=cases,
    size=st.tuples(sides, sides),
    ceil=st.booleans(),
    nans=st.booleans(),
)
@examples(interpreted=10, compiled=24)
def test_outputs_and_gradients_equal_those_of_pytorch(
    images: int,
    case: tuple[int, tuple[int, int], tuple[int, int], tuple[int, int], torch.dtype],
    size: tuple[int, int],
    ceil: bool,
    nans: bool,
) -> None:
    channels, kernel, stride, padding, dtype = case
    kernel = min(kernel[0], size[0]), min(kernel[1], size[1])
    padding = min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2)
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    x = image(images, channels, *size, dtype=dtype)
    if nans:
        x[x == 2] = float("nan")
        x[x < 0] = float("-inf")
    on_device = x.to(DEVICE)
    assert triton_max_pool.supports_pooling(on_device, kernel, stride, padding)
    ours = MaxPool2d(pool, deterministic=True)
    found, expected = pooled_with_gradient(ours, on_device), pooled_with_gradient(pool, x)
    assert all(map(equal, found, expected))
    with torch.inference_mode():
        assert equal(ours(on_device).cpu(), expected[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_maximum_of_minus_infinities_is_the_first_pixel(dtype: torch.dtype) -> None:
    pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    x = torch.full((1, 2, 6, 7), float("-inf"), dtype=dtype).contiguous(memory_format=torch.channels_last)
    found = pooled_with_gradient(MaxPool2d(pool, deterministic=False), x.to(DEVICE))
    assert all(map(equal, found, pooled_with_gradient(pool, x)))


def test_a_gradient_in_half_precision_is_rounded_once() -> None:
    """Four windows share their maximum; 256 + 1 is 256 in bfloat16, but 256 + 4 is not."""
    x = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x[0, 0, 1, 1] = 1
    x = x.to(DEVICE).requires_grad_()
    pooled = MaxPool2d(nn.MaxPool2d(2, 1), deterministic=False)(x)
    above = torch.tensor([[256.0, 1.0], [1.0, 2.0]]).to(pooled)[None, None]
    (gradient,) = torch.autograd.grad(pooled, x, above)
    assert gradient[0, 0, 1, 1].item() == 260.0
    assert gradient.count_nonzero() == 1


def test_other_memory_formats_and_dtypes_are_pooled_by_pytorch() -> None:
    pool = nn.MaxPool2d(3, 2, 1)
    for x in (
        image(2, 4, 7, 9).double(),
        image(2, 4, 7, 9).contiguous(),
        image(2, 4, 7, 9)[:, :3],
        image(1, 4, 7, 9)[0],
    ):
        found = pooled_with_gradient(MaxPool2d(pool, deterministic=False), x.to(DEVICE))
        assert all(map(equal, found, pooled_with_gradient(pool, x)))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is slow")
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_images_equal_those_of_pytorch_with_reproducible_gradients(dtype: torch.dtype) -> None:
    x = torch.randn(8, 64, 160, 240, device=DEVICE).to(dtype).contiguous(memory_format=torch.channels_last)
    pool = nn.MaxPool2d(3, 2, 1)
    above = torch.randn(8, 64, 80, 120, device=DEVICE).to(dtype)

    def results(of: nn.Module, x: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        pooled = of(x)
        return pooled.detach(), torch.autograd.grad(pooled, x, above)[0]

    ours = MaxPool2d(pool, deterministic=False)
    found, again = results(ours, x, above), results(ours, x, above)
    assert all(map(torch.equal, found, again))
    expected = results(pool, x.double(), above.double())
    assert torch.equal(found[0].double(), expected[0])
    torch.testing.assert_close(found[1].double(), expected[1], rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.skipif(INTERPRETED, reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_does_not_wait_and_can_be_replayed_as_a_graph(dtype: torch.dtype) -> None:
    pool = MaxPool2d(nn.MaxPool2d(3, 2, 1), deterministic=False)
    x = image(2, 16, 20, 30, dtype=dtype).to(DEVICE).requires_grad_()
    above = torch.ones(2, 16, 10, 15, device=DEVICE, dtype=dtype)

    def step() -> list[Tensor]:
        pooled = pool(x)
        return [pooled.detach(), *torch.autograd.grad(pooled, x, above)]

    assert_a_graph_replays(step)
