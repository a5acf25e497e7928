"""Tests of C kernels in several threads, whose results must be those of one thread."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from threading import current_thread

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.kernels import parallel
from fcnlab.kernels.argmax import argmax_classes
from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_
from fcnlab.kernels.lovasz import lovasz_of_probabilities
from fcnlab.kernels.softmax import softmax_of_classes
from tests.kernels.threads import threads

ROWS, CLASSES, PIXELS = 7, 5, 37


def data() -> tuple[Tensor, Tensor, Tensor]:
    """Scores [ROWS, CLASSES, PIXELS] with classes before rows in memory, labels of which some are ignored, scales."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(CLASSES, ROWS, PIXELS, generator=generator).transpose(0, 1)
    labels = torch.randint(0, CLASSES, (ROWS, PIXELS), generator=generator, dtype=torch.uint8)
    labels[:, ::7] = 255
    return scores, labels, torch.rand(ROWS, generator=generator)


def argmax() -> list[Tensor]:
    return [argmax_classes(data()[0])]


def softmax() -> list[Tensor]:
    wanted = {index: torch.full((ROWS, PIXELS), torch.nan) for index in (0, 3)}
    softmax_of_classes(data()[0], wanted)
    return list(wanted.values())


def cross_entropy(slopes: bool = False) -> list[Tensor]:
    scores, labels, scales = data()
    loss = PixelLoss.from_class_weights(CLASSES, None, 0.1, scores.device)
    gradients = {2: torch.rand(ROWS, PIXELS, generator=torch.Generator().manual_seed(1))} if slopes else None
    return [cross_entropy_(scores, labels, scales, loss, gradients), scores]


def cross_entropy_with_another_loss() -> list[Tensor]:
    return cross_entropy(slopes=True)


def lovasz() -> list[Tensor]:
    scores, labels, _ = data()
    return list(lovasz_of_probabilities(scores.softmax(1).movedim(1, 0).flatten(1).contiguous(), labels.flatten()))


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("count", [2, 3, 16])
@pytest.mark.parametrize("compute", [argmax, softmax, cross_entropy, cross_entropy_with_another_loss, lovasz])
def test_results_are_those_of_one_thread(compute: Callable[[], list[Tensor]], count: int) -> None:
    expected = compute()
    with threads(count):
        found = compute()
    for one, other in zip(found, expected, strict=True):
        if one.dim():
            assert torch.equal(one, other)
        else:
            torch.testing.assert_close(one, other)  # sums have another order


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(1, 99))
def test_parts_cover_all_rows_once_and_are_not_too_small(rows: int, size: int, count: int, least: int) -> None:
    with threads(count, least):
        parts = parallel.split(rows, size)
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    assert 1 <= len(parts) <= count
    assert len(parts) == 1 or len(parts) <= rows * size / least


def test_items_are_processed_in_threads_and_results_are_in_order() -> None:
    with threads(3):
        found = parallel.run_each(lambda item: (item, current_thread().name), range(8))
    assert [item for item, _ in found] == list(range(8))
    assert all("kernels" in name for _, name in found)
    with threads(1):
        assert parallel.run_each(lambda _: current_thread(), [0, 1]) == [current_thread()] * 2


def test_an_error_of_a_thread_is_raised() -> None:
    with threads(2), pytest.raises(ZeroDivisionError):
        parallel.run_each(lambda item: 1 / item, [1, 0])
