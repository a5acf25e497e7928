"""Tests of C kernels in several threads, whose results must be those of one thread."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fcnlab.kernels import build, parallel
from fcnlab.kernels.argmax import argmax_classes
from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_
from fcnlab.kernels.lovasz import lovasz_of_probabilities
from fcnlab.kernels.softmax import softmax_of_classes
from tests.kernels.threads import threads

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
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


@needs_compiler
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


def test_small_tensors_are_processed_in_one_thread() -> None:
    with threads(8, least=100):
        assert [parallel.count_parts(elements) for elements in (1, 199, 200, 10_000)] == [1, 1, 2, 8]
    with threads(1):
        assert parallel.count_parts(10_000) == 1


@needs_compiler
def test_kernels_and_pytorch_use_the_same_threads() -> None:
    """Two OpenMP libraries in a process have threads of their own, which compete for the cores."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("libraries are listed in /proc, which only Linux has")
    cross_entropy()
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if re.search(r"/lib[gi]?omp[^/]*[.]so", line)}
    if not any("torch" in path for path in loaded):
        pytest.skip("PyTorch was built without an OpenMP library of its own")
    assert len([path for path in loaded if "sklearn" not in path and "scikit" not in path]) == 1


@needs_compiler
def test_a_compiler_without_openmp_compiles_for_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "OPENMP", "-fno-such-flag")
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path))
    build.load_library.cache_clear()
    try:
        with threads(3):
            (found,) = argmax()
        assert torch.equal(found, data()[0].argmax(1).to(torch.uint8))
        assert list(tmp_path.rglob("argmax-*.so"))
    finally:
        build.load_library.cache_clear()
