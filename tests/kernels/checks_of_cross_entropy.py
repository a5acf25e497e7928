"""Checks of the Triton cross entropy; run by `test_triton.py` in another process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_, cross_entropy_fallback_
from fcnlab.kernels.switch import is_triton_available
from fcnlab.kernels.triton_cross_entropy import launch_cross_entropy
from fcnlab.models import TransposedUpsampler
from fcnlab.training import blocks
from fcnlab.training.fused_loss import FusedUpsampleLoss
from fcnlab.training.losses import Loss
from tests.kernels.on_triton import COMPILED, DEVICE, INTERPRETED, assert_a_graph_replays, examples
from tests.kernels.test_cross_entropy import batch, torchs
from tests.training.test_fused_loss import Ending, close, create_labels, gradients_of

torch.backends.cudnn.allow_tf32 = False  # PyTorch's default on CUDA is TF32, with errors of 1e-3
torch.backends.cuda.matmul.allow_tf32 = False

HALF = {torch.float32: 0.0, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8, torch.float16: 2**-11}
"""Relative rounding error of each dtype; Triton's interpreter truncates to bfloat16, a GPU rounds."""

slow = examples(interpreted=40, compiled=24)

cases = (
    st.sampled_from(
        [
            (1, 33, torch.float32),
            (2, 64, torch.bfloat16),
            (21, 7, torch.float16),
            (21, 256, torch.bfloat16),
            (150, 64, torch.bfloat16),
            (256, 20, torch.float32),
        ]
    )
    if COMPILED
    else st.tuples(
        st.one_of(st.integers(1, 33), st.sampled_from([64, 150, 255, 256])),
        st.one_of(st.integers(1, 70), st.sampled_from([32, 64, 256])),
        st.sampled_from(list(HALF)),
    )
)
"""Classes, pixels and the dtype of the scores."""


def test_the_kernel_is_available() -> None:
    assert is_triton_available(DEVICE)


@given(
    n=st.integers(1, 4),
    case=cases,
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    weighted=st.booleans(),
    spread=st.sampled_from([1e-3, 3.0, 60.0]),
    seed=st.integers(0, 99),
)
@slow
def test_loss_and_gradient_equal_those_of_torch(
    n: int,
    case: tuple[int, int, torch.dtype],
    smoothing: float,
    weighted: bool,
    spread: float,
    seed: int,
) -> None:
    num_classes, pixels, dtype = case
    scores, labels, scales = batch(n, num_classes, pixels, seed, spread)
    labels[labels == num_classes] = 255
    weights = torch.rand(num_classes, generator=torch.Generator().manual_seed(seed)) * (torch.arange(num_classes) != 1)
    weights = weights if weighted else torch.ones(num_classes)
    scores = scores.to(dtype)
    expected, slope = torchs(scores, labels, scales, weights, smoothing)
    scores, labels, scales = scores.to(DEVICE), labels.to(DEVICE), scales.to(DEVICE)
    pixel = PixelLoss.from_class_weights(num_classes, weights.to(DEVICE) if weighted else None, smoothing, DEVICE)
    twin = scores.clone()
    found, same = cross_entropy_(scores, labels, scales, pixel), cross_entropy_fallback_(twin, labels, scales, pixel)
    assert found.dtype == torch.float32 and found.device.type == DEVICE.type
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, same, rtol=1e-5, atol=1e-5)
    least = {torch.float16: 6e-8}.get(dtype, 0.0)  # the smallest float16
    bound = {"rtol": HALF[dtype] + 1e-5, "atol": 1e-6 + least}
    torch.testing.assert_close(scores.cpu().double(), slope, **bound)
    torch.testing.assert_close(scores.float(), twin.float(), rtol=2 * HALF[dtype] + 1e-5, atol=1e-6 + 2 * least)


@pytest.mark.parametrize(("num_classes", "pixels"), [(3, 20), (40, 20), (40, 64)])
def test_strides_are_respected_and_other_memory_is_not_changed(num_classes: int, pixels: int) -> None:
    scores, labels, scales = (one.to(DEVICE) for one in batch(4, num_classes, pixels, 0))
    pixel = PixelLoss.from_class_weights(num_classes, None, 0.1, DEVICE)
    wide = torch.full((num_classes + 2, 4, pixels + 4), 7.0, device=DEVICE)
    inside = wide.transpose(0, 1)[:, 1 : num_classes + 1, 2 : pixels + 2]
    inside.copy_(scores)
    found, expected = cross_entropy_(inside, labels, scales, pixel), cross_entropy_(scores, labels, scales, pixel)
    # With another alignment, Triton can sum in another order.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(inside, scores, rtol=1e-5, atol=1e-7)
    inside.fill_(7.0)
    assert bool((wide == 7.0).all())


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_makes_the_loss_not_finite(bad: float) -> None:
    scores, labels, scales = (one.to(DEVICE) for one in batch(2, 5, 16, 0))
    labels[0, 3], scores[0, 2, 3] = 1, bad
    assert not launch_cross_entropy(
        scores, labels, scales + 1, PixelLoss.from_class_weights(5, None, 0.0, DEVICE)
    ).isfinite()


def test_a_label_out_of_range_makes_the_loss_nan() -> None:
    scores, labels, scales = (one.to(DEVICE) for one in batch(2, 5, 16, 0))
    labels[1, 15] = 5
    assert launch_cross_entropy(scores, labels, scales, PixelLoss.from_class_weights(5, None, 0.0, DEVICE)).isnan()
    assert scores.isfinite().all()


def test_ignored_pixels_have_a_loss_and_gradient_of_0() -> None:
    scores, labels, scales = (one.to(DEVICE) for one in batch(2, 5, 16, 0))
    assert (
        float(
            launch_cross_entropy(
                scores, torch.full_like(labels, 255), scales, PixelLoss.from_class_weights(5, None, 0.1, DEVICE)
            )
        )
        == 0.0
    )
    assert not scores.any()


@pytest.mark.parametrize("channels", ["dense", "per_class"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [2**28, 2_000])
def test_the_fused_loss_has_the_gradients_of_upsampling_and_loss(
    channels: str, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(blocks.MAX_TILE_SCORES, DEVICE.type, chunk)
    up = TransposedUpsampler(5, 8, init="random", channels=channels, bias=bias).to(DEVICE)
    scores = torch.randn(2, 5, 3, 4, device=DEVICE, requires_grad=True)
    labels = create_labels((2, 24, 30), 5, 0).to(DEVICE)
    expected = Loss()(up(scores, (24, 30)), labels)
    found = FusedUpsampleLoss(Loss(), Ending(up))(scores, labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    learned = list(up.parameters())
    for one, other in zip(gradients_of(found, scores, *learned), gradients_of(expected, scores, *learned), strict=True):
        assert close(one, other, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_a_mean_over_many_pixels_do_not_underflow_in_half_precision(dtype: torch.dtype) -> None:
    """A weight of 1e-6 has the effect of a mean over very many pixels."""
    torch.manual_seed(0)
    up = TransposedUpsampler(5, 8, init="random").to(DEVICE)
    exact = torch.randn(2, 5, 3, 4, device=DEVICE).to(dtype).float().requires_grad_()
    half = exact.detach().to(dtype).requires_grad_()
    labels = create_labels((2, 24, 32), 5, 0).to(DEVICE)
    loss = Loss(weight=1e-6)
    expected = FusedUpsampleLoss(loss, Ending(up))(exact, labels)
    found = FusedUpsampleLoss(loss, Ending(up))(half, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-2)
    scale = 2.0**20  # as of a GradScaler: the gradient of the scores is half precision again
    for one, other in zip(
        gradients_of(scale * found, half, up.weight), gradients_of(scale * expected, exact, up.weight), strict=True
    ):
        assert close(one.float(), other, 0.02)


@pytest.mark.skipif(INTERPRETED, reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_does_not_wait_and_can_be_replayed_as_a_graph(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    up = TransposedUpsampler(5, 8, init="random").to(DEVICE)
    scores = torch.randn(2, 5, 3, 4, device=DEVICE).to(dtype).requires_grad_()
    labels = create_labels((2, 24, 32), 5, 0).to(DEVICE)
    weights = torch.rand(5, device=DEVICE)
    loss = FusedUpsampleLoss(Loss(class_weights=weights, label_smoothing=0.1), Ending(up))

    def step() -> list[torch.Tensor]:
        value = loss(scores, labels)
        return [value.detach(), *gradients_of(value, scores, up.weight)]

    assert_a_graph_replays(step)
