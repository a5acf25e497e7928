"""Losses against torch's own and the d2l chapter's, and what ignored pixels may not do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.training.losses import REDUCTIONS, image_mean_sum, pixel_mean

torch.set_num_threads(1)


def batch(ignored: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (3, 5, 6), generator=generator)
    labels[torch.rand(3, 5, 6, generator=generator) < ignored] = 255
    return scores, labels.to(torch.uint8)


def test_pixel_mean_is_torchs_mean_over_counted_pixels() -> None:
    scores, labels = batch()
    assert torch.allclose(pixel_mean(scores, labels), F.cross_entropy(scores, labels.long(), ignore_index=255))


def test_image_mean_sum_is_the_d2l_chapters_where_nothing_is_ignored() -> None:
    scores, labels = batch(ignored=0)
    chapter = F.cross_entropy(scores, labels.long(), reduction="none").mean(1).mean(1).sum()
    assert torch.allclose(image_mean_sum(scores, labels), chapter)


def test_image_mean_sum_is_the_sum_of_each_images_own_mean() -> None:
    scores, labels = batch()
    each = [F.cross_entropy(s[None], t[None].long(), ignore_index=255) for s, t in zip(scores, labels, strict=True)]
    assert torch.allclose(image_mean_sum(scores, labels), torch.stack(each).sum())


@pytest.mark.parametrize("name", REDUCTIONS)
def test_ignored_pixels_have_no_part_in_value_or_gradient(name: str) -> None:
    scores, labels = batch()
    ignored = (labels == 255)[:, None].expand_as(scores)
    other = torch.where(ignored, 50 * torch.ones_like(scores), scores)
    results = []
    for values in (scores, other):
        values = values.clone().requires_grad_()
        value = REDUCTIONS[name](values, labels)
        value.backward()
        assert values.grad is not None
        assert values.grad[ignored].abs().max() == 0
        assert values.grad[~ignored].abs().min() > 0
        results.append((value.detach(), values.grad[~ignored]))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_batch_where_nothing_counts_loses_nothing_and_learns_nothing(name: str) -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = REDUCTIONS[name](scores, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    value.backward()
    assert value == 0
    assert scores.grad is not None and scores.grad.abs().max() == 0


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_loss_is_float32_whatever_the_scores_are(name: str) -> None:
    scores, labels = batch()
    value = REDUCTIONS[name](scores.bfloat16(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, REDUCTIONS[name](scores.bfloat16().float(), labels))
