"""Tests of losses against torch, d2l and their formulas, and of ignored pixels."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.config.loss import Reduction
from fcnlab.training.losses import Loss, compute_class_weights

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.5])
KINDS: list[dict[str, Any]] = [{}, {"label_smoothing": 0.1}, {"focal": 0.5}, {"focal": 2.0}, {"ohem": (0.7, 0.1)}]
ADDED: list[dict[str, Any]] = [{}, {"dice": 1.0}, {"lovasz": 0.5}, {"weight": 0.0, "dice": 1.0, "lovasz": 2.0}]
COMBINATIONS = {
    f"{reduction} {kind}": [
        Loss(reduction, class_weights=weights, **kind, **added)
        for weights, added in itertools.product((None, WEIGHTS), ADDED)
    ]
    for reduction, kind in itertools.product(get_args(Reduction), KINDS)
    if "ohem" not in kind or reduction == "pixel_mean"
}
quickly = settings(deadline=None, max_examples=50)
every_combination = pytest.mark.parametrize("losses", COMBINATIONS.values(), ids=COMBINATIONS)


def batch(ignored: float = 0.3, seed: int = 0, images: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(images, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (images, 5, 6), generator=generator)
    labels[torch.rand(images, 5, 6, generator=generator) < ignored] = 255
    return scores, labels.to(torch.uint8)


def sure(labels: Tensor, scale: float = 100.0) -> Tensor:
    """Return scores with a probability of 1 for the labels, and for class 0 where ignored."""
    return scale * F.one_hot(torch.where(labels == 255, 0, labels).long(), 4).permute(0, 3, 1, 2).float()


def gradient(loss: Loss, scores: Tensor, labels: Tensor, auxiliary: Tensor | None = None) -> tuple[Tensor, Tensor]:
    scores = scores.clone().requires_grad_()
    value = loss(scores, labels, auxiliary)
    value.backward()
    assert scores.grad is not None
    return value.detach(), scores.grad


def test_the_default_loss_equals_the_cross_entropy_of_torch() -> None:
    scores, labels = batch()
    assert torch.allclose(Loss()(scores, labels), F.cross_entropy(scores, labels.long(), ignore_index=255))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weights", [None, torch.full((4,), 2.5), WEIGHTS], ids=["none", "uniform", "weighted"])
def test_class_weights_and_label_smoothing_equal_those_of_torch(weights: Tensor | None, smoothing: float) -> None:
    scores, labels = batch()
    given = {"weight": weights, "ignore_index": 255, "label_smoothing": smoothing}
    loss = Loss(class_weights=weights, label_smoothing=smoothing)
    assert torch.allclose(loss(scores, labels), F.cross_entropy(scores, labels.long(), **given))
    summed = replace(loss, reduction="pixel_sum")
    assert torch.allclose(summed(scores, labels), F.cross_entropy(scores, labels.long(), reduction="sum", **given))


def test_image_mean_sum_equals_the_loss_of_d2l() -> None:
    scores, labels = batch(ignored=0)
    chapter = F.cross_entropy(scores, labels.long(), reduction="none").mean(1).mean(1).sum()
    assert torch.allclose(Loss("image_mean_sum")(scores, labels), chapter)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["none", "weighted"])
def test_image_mean_sum_is_the_sum_of_the_means_of_images(weights: Tensor | None) -> None:
    scores, labels = batch()
    each = [
        F.cross_entropy(s[None], t[None].long(), weight=weights, ignore_index=255)
        for s, t in zip(scores, labels, strict=True)
    ]
    loss = Loss("image_mean_sum", class_weights=weights)
    assert torch.allclose(loss(scores, labels), torch.stack(each).sum())


@pytest.mark.parametrize("name", get_args(Reduction))
def test_only_labeled_pixels_have_a_gradient(name: str) -> None:
    scores, labels = batch()
    ignored = (labels == 255)[:, None].expand_as(scores)
    _, slope = gradient(Loss(name), scores, labels)
    assert slope[ignored].abs().max() == 0
    assert slope[~ignored].abs().min() > 0


@every_combination
def test_ignored_pixels_do_not_affect_value_or_gradient(losses: list[Loss]) -> None:
    scores, labels = batch()
    ignored = (labels == 255)[:, None].expand_as(scores)
    for loss in losses:
        results = []
        for values in (scores, torch.where(ignored, 50 * torch.ones_like(scores), scores)):
            value, slope = gradient(loss, values, labels, auxiliary=values)
            assert slope[ignored].abs().max() == 0
            results.append((value, slope[~ignored]))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@every_combination
def test_loss_and_gradient_are_0_if_all_pixels_are_ignored(losses: list[Loss]) -> None:
    scores, labels = batch(ignored=1)
    for loss in losses:
        value, slope = gradient(loss, scores, labels, auxiliary=2 * scores)
        assert value == 0
        assert slope.abs().max() == 0


@every_combination
def test_the_loss_is_float32_for_all_dtypes_of_scores(losses: list[Loss]) -> None:
    scores, labels = batch()
    half = scores.bfloat16()
    for loss in losses:
        value = loss(half, labels, half)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(half.float(), labels, half.float()))


@every_combination
def test_the_loss_of_nan_scores_is_nan(losses: list[Loss]) -> None:
    scores, labels = batch()
    for loss in losses:
        assert not torch.isfinite(loss(torch.full_like(scores, torch.nan), labels))


@every_combination
def test_the_gradient_of_certain_pixels_is_finite(losses: list[Loss]) -> None:
    _, labels = batch()
    wrong = torch.where(labels == 255, 255, (labels + (torch.arange(6) % 2)) % 4).to(torch.uint8)
    for loss in losses:
        value, slope = gradient(loss, sure(labels), wrong)
        assert torch.isfinite(value) and torch.isfinite(slope).all()


@pytest.mark.parametrize("added", ["dice", "lovasz"])
def test_the_loss_of_a_perfect_prediction_is_0(added: str) -> None:
    _, labels = batch()
    loss = Loss(weight=0, **{added: 1.0})
    assert loss(sure(labels), labels) == pytest.approx(0, abs=1e-6)
    assert loss(sure(labels), labels.flip(0)) > 0.1
    assert Loss()(sure(labels), labels) == pytest.approx(0, abs=1e-6)


@given(st.floats(0, 5), st.booleans(), st.integers(0, 99))
@quickly
def test_focal_loss_equals_its_formula(gamma: float, weighted: bool, seed: int) -> None:
    scores, labels = batch(seed=seed)
    weights = WEIGHTS if weighted else torch.ones(4)
    total = norm = 0.0
    for values, label in zip(scores.double().permute(0, 2, 3, 1).reshape(-1, 4), labels.flatten(), strict=True):
        if label != 255:
            p = float(torch.softmax(values, 0)[int(label)])
            total -= float(weights[int(label)]) * (1 - p) ** gamma * np.log(p)
            norm += float(weights[int(label)])
    loss = Loss(focal=gamma, class_weights=weights if weighted else None)
    assert float(loss(scores, labels)) == pytest.approx(total / norm, rel=1e-4)


@pytest.mark.parametrize("name", get_args(Reduction))
def test_focal_loss_with_exponent_0_is_cross_entropy(name: str) -> None:
    scores, labels = batch()
    assert torch.equal(Loss(name, focal=0.0)(scores, labels), Loss(name)(scores, labels))
    assert torch.allclose(Loss(name, focal=1e-6)(scores, labels), Loss(name)(scores, labels), rtol=1e-4)


PROBABILITIES = np.array([0.1, 0.3, 0.5, 0.8, 0.95])


@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 255]), min_size=1, max_size=40),
    st.floats(0, 1).filter(lambda threshold: np.abs(PROBABILITIES - threshold).min() > 1e-3),
    st.floats(0.01, 1),
)
@settings(deadline=None, max_examples=150)
def test_ohem_is_the_mean_over_hard_pixels(pixels: list[int], threshold: float, keep: float) -> None:
    chosen = np.array(pixels)
    counts = chosen != 255
    p = PROBABILITIES[np.where(counts, chosen, 0)]
    scores = torch.tensor(np.stack([np.log(p), np.log(1 - p)]), dtype=torch.float32)[None, :, None]
    labels = torch.tensor(np.where(counts, 0, 255), dtype=torch.uint8)[None, None]

    ascending = sorted(p[counts])
    least = max(1, round(keep * len(ascending)))
    hard = counts & ((p < threshold) | (p <= ascending[least - 1] if ascending else False))
    expected = -np.log(p[hard]).mean() if hard.any() else 0.0

    value, slope = gradient(Loss(ohem=(threshold, keep)), scores, labels)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert np.array_equal(slope[0, 0, 0].numpy() != 0, hard)


def test_ohem_that_keeps_all_pixels_is_their_mean() -> None:
    scores, labels = batch()
    for ohem in ((1e-6, 1.0), (1 - 1e-7, 0.01)):
        assert torch.allclose(Loss(ohem=ohem)(scores, labels), Loss()(scores, labels))
        weighted = Loss(ohem=ohem, class_weights=WEIGHTS, focal=2.0)
        assert torch.allclose(weighted(scores, labels), replace(weighted, ohem=None)(scores, labels))


@given(st.integers(0, 99), st.floats(0, 0.9))
@quickly
def test_dice_loss_equals_its_formula(seed: int, ignored: float) -> None:
    scores, labels = batch(ignored, seed)
    labels[labels == 3] = 2
    p = torch.softmax(scores.double(), 1).permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    flat = labels.flatten().numpy()
    lacks = []
    for c in np.unique(flat[flat != 255]):
        there = flat[flat != 255] == c
        given_ = p[flat != 255][:, c]
        lacks.append(1 - 2 * given_[there].sum() / (given_.sum() + there.sum()))
    assert float(Loss(weight=0, dice=1)(scores, labels)) == pytest.approx(sum(lacks) / 4, abs=1e-5)


@given(st.integers(0, 99), st.integers(0, 99), st.floats(0, 0.9))
@quickly
def test_lovasz_loss_of_certain_predictions_is_the_mean_jaccard_loss(seed: int, other: int, ignored: float) -> None:
    _, labels = batch(ignored, seed)
    _, predicted = batch(0, other)
    labels[labels == 3] = 2
    counts = labels != 255
    jaccard = [
        1 - ((predicted == c) & there).sum() / (((predicted == c) & counts) | there).sum()
        for c in range(4)
        if (there := labels == c).any()
    ]
    expected = float(torch.stack(jaccard).mean()) if jaccard else 0.0
    assert float(Loss(weight=0, lovasz=1)(sure(predicted), labels)) == pytest.approx(expected, abs=1e-5)


def test_the_terms_of_a_loss_are_summed_with_their_weights() -> None:
    scores, labels = batch()
    entropy, dice, lovasz = (
        Loss(weight=w, dice=d, lovasz=v)(scores, labels) for w, d, v in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    )
    mixed = Loss(weight=0.3, dice=2.0, lovasz=0.7)(scores, labels)
    assert torch.allclose(mixed, 0.3 * entropy + 2.0 * dice + 0.7 * lovasz)


@every_combination
def test_the_loss_of_auxiliary_scores_is_multiplied_by_their_weight(losses: list[Loss]) -> None:
    (scores, labels), (auxiliary, _) = batch(), batch(seed=1)
    for loss in losses:
        for weight in (0.4, 1.5):
            both = replace(loss, auxiliary=weight)(scores, labels, auxiliary)
            assert torch.allclose(both, loss(scores, labels) + weight * loss(auxiliary, labels))


def test_the_default_weight_of_auxiliary_scores_is_0_4() -> None:
    (scores, labels), (auxiliary, _) = batch(), batch(seed=1)
    without = Loss()(scores, labels)
    assert torch.allclose(Loss()(scores, labels, auxiliary), without + 0.4 * Loss()(auxiliary, labels))
    assert torch.equal(Loss(auxiliary=0)(scores, labels, auxiliary), without)


SHARED = [
    Loss(),
    Loss(class_weights=WEIGHTS),
    Loss(class_weights=WEIGHTS, label_smoothing=0.2),
    Loss(class_weights=WEIGHTS, focal=2.0),
    Loss(weight=0.3),
    Loss("image_mean_sum"),
    Loss("image_mean_sum", class_weights=WEIGHTS),
    Loss("pixel_sum"),
    Loss("pixel_sum", class_weights=WEIGHTS),
]


@pytest.mark.parametrize("loss", SHARED, ids=str)
@given(cuts=st.sets(st.integers(1, 5)), ignored=st.sampled_from([0.0, 0.3, 0.95, 1.0]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_weighted_losses_of_micro_batches_sum_to_the_loss_of_the_batch(
    loss: Loss, cuts: set[int], ignored: float, seed: int
) -> None:
    scores, labels = batch(ignored, seed, images=6)
    labels[seed % 6] = 255
    whole, slope = gradient(loss, scores, labels, auxiliary=2 * scores)
    bounds = [0, *sorted(cuts), 6]
    values, gradients_of = [], []
    for a, b in itertools.pairwise(bounds):
        scores_of_part = scores[a:b].clone().requires_grad_()
        value = loss(scores_of_part, labels[a:b], 2 * scores[a:b]) * loss.compute_micro_batch_weight(
            labels[a:b], labels
        )
        value.backward()
        values.append(value.detach())
        gradients_of.append(scores_of_part.grad)
    assert torch.allclose(torch.stack(values).sum(), whole, rtol=1e-5, atol=1e-6)
    assert torch.allclose(torch.cat(gradients_of), slope, rtol=1e-4, atol=1e-7)


label_images = st.lists(
    st.lists(st.sampled_from([0, 1, 2, 4, 255]), min_size=1, max_size=12), min_size=1, max_size=5
)  # never of class 3


@given(label_images)
@settings(deadline=None, max_examples=100)
def test_class_weights_equal_the_definition_of_eigen_and_fergus(images: list[list[int]]) -> None:
    arrays = [np.array(image) for image in images]
    frequency = {}
    for c in range(5):
        of_images = [image for image in arrays if (image == c).any()]
        if of_images:
            frequency[c] = sum((i == c).sum() for i in of_images) / sum((i != 255).sum() for i in of_images)
    median = np.median(list(frequency.values())) if frequency else 1.0
    expected = [median / frequency[c] if c in frequency else 1.0 for c in range(5)]
    found = compute_class_weights((torch.tensor(image, dtype=torch.uint8)[None] for image in images), 5)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected)


def test_equally_frequent_classes_have_weight_1() -> None:
    label = torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8)
    assert compute_class_weights([label, label], 4).tolist() == [1, 1, 1, 1]
