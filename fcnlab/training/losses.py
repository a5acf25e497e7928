"""Losses over the pixels that count: cross entropy in its kinds, and what may be added to it.

Dice and Lovász come from segmentation_models_pytorch, whose implementations are the ones in wide use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.inspection import stats
from fcnlab.training.distributed import SINGLE_PROCESS, ProcessGroup

Reduction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(losses [B, H, W], 0 where ignored; labels [B, H, W]; class weights [C] or None) -> a scalar."""


def pixel_mean(losses: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean over all counted pixels of the batch, weighted by class; 0 where none counts."""
    return losses.sum() / _at_least_one(compute_pixel_weights(labels, class_weights).sum())


def image_mean_sum(losses: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean over each image's counted pixels, summed over the batch: d2l, chapter 14.11."""
    return (
        losses.flatten(1).sum(1) / _at_least_one(compute_pixel_weights(labels, class_weights).flatten(1).sum(1))
    ).sum()


def pixel_sum(losses: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:  # noqa: ARG001
    """Sum over all counted pixels: Long et al., CVPR 2015, section 4.3 (unnormalised)."""
    return losses.sum()


REDUCTIONS: Mapping[str, Reduction] = MappingProxyType(
    {"pixel_mean": pixel_mean, "image_mean_sum": image_mean_sum, "pixel_sum": pixel_sum}
)


def compute_pixel_weights(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """How much each pixel of [B, H, W] counts: 0 where ignored, else 1 or the weight of its class."""
    counts = labels != IGNORE_INDEX
    if class_weights is None:
        return counts
    return class_weights[torch.where(counts, labels, 0).long()] * counts


def _at_least_one(total: Tensor) -> Tensor:
    """A sum to divide by: 1 where nothing counts."""
    return torch.where(total > 0, total, torch.ones_like(total))


@dataclass(frozen=True)
class Loss:
    """What is minimised: the loss of scores [B, C, H, W] against labels uint8 [B, H, W], 255 for ignored.

    Attributes:
        reduction: one of `REDUCTIONS`, for the cross entropy.
        class_weights: [C], on the device of the scores.
        label_smoothing: as `torch.nn.functional.cross_entropy` has it.
        focal: the exponent γ of (1 - p)^γ, p the probability of the pixel's class. Lin et al., ICCV 2017.
        ohem: threshold and least fraction of hard pixels, the only ones that count. Shrivastava et al., CVPR 2016.
        weight, dice, lovasz: of the cross entropy, of 1 - Dice (Milletari et al., 3DV 2016) and of the Lovász-Softmax
            loss (Berman et al., CVPR 2018). Both add up over the classes that are in the batch; Lovász divides by how
            many those are, Dice by how many there are at all.
        auxiliary: of the whole loss of auxiliary scores.
    """

    reduction: str = "pixel_mean"
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    focal: float = 0.0
    ohem: tuple[float, float] | None = None
    weight: float = 1.0
    dice: float = 0.0
    lovasz: float = 0.0
    auxiliary: float = 0.4

    @property
    def is_pixelwise(self) -> bool:
        """Whether it is a weighted sum of cross entropies, each of one pixel whatever the others are."""
        return self.focal == 0 and self.ohem is None and self.dice == 0 and self.lovasz == 0

    def compute_image_factors(self, labels: Tensor) -> Tensor:
        """With what each image's cross entropies are multiplied before they are added up: float32 [B]."""
        if self.reduction == "pixel_sum":
            return torch.full((len(labels),), self.weight, device=labels.device)
        counts = compute_pixel_weights(labels, self.class_weights).flatten(1).sum(1)
        if self.reduction == "pixel_mean":
            counts = counts.sum().expand(len(labels))
        return self.weight / _at_least_one(counts)

    def __call__(self, scores: Tensor, labels: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """The loss, a float32 scalar; 0, with a gradient of 0, where no pixel counts."""
        total = self._of(scores.float(), labels)
        if auxiliary is not None and self.auxiliary:
            total = total + self.auxiliary * self._of(auxiliary.float(), labels)
        return total

    def _of(self, scores: Tensor, labels: Tensor) -> Tensor:
        terms = []
        if self.weight:
            entropy = self._cross_entropy(scores, labels)
            terms.append(entropy if self.weight == 1 else self.weight * entropy)
        if self.dice:
            terms.append(self.dice * _dice(scores, labels))
        if self.lovasz:
            terms.append(self.lovasz * _lovasz(scores, labels))
        return sum(terms[1:], start=terms[0])

    def _cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(
            scores,
            labels.long(),
            weight=self.class_weights,
            ignore_index=IGNORE_INDEX,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        if self.focal or self.ohem is not None:
            probability = _true_probability(scores, labels)
            if self.focal:
                losses = losses * _off_zero(1 - probability) ** self.focal
            if self.ohem is not None:
                labels = torch.where(_hard(probability.detach(), labels, *self.ohem), labels, IGNORE_INDEX)
                losses = torch.where(labels != IGNORE_INDEX, losses, 0)
        return REDUCTIONS[self.reduction](losses, labels, self.class_weights)

    def weight_of_part(self, part: Tensor, whole: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> Tensor | float:
        """What the loss of a part of a batch is multiplied with, so that the parts add up to the whole.

        Each process of a group has its share of the `whole`, and the parts of all of them add up. Exact for the cross
        entropy. Dice, Lovász and the choice of hard pixels look at a part at a time.
        """
        if self.weight and REDUCTIONS[self.reduction] is not pixel_mean:
            return 1.0
        weights = self.class_weights if self.weight else None
        return compute_pixel_weights(part, weights).sum() / _at_least_one(
            group.sum(compute_pixel_weights(whole, weights).sum())
        )


def _true_probability(scores: Tensor, labels: Tensor) -> Tensor:
    """The probability [B, H, W] that each pixel's own class has; 1 where ignored."""
    return torch.exp(-F.cross_entropy(scores, labels.long(), ignore_index=IGNORE_INDEX, reduction="none"))


def _off_zero(values: Tensor) -> Tensor:
    """Values that have a finite gradient under every power."""
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def _hard(probability: Tensor, labels: Tensor, threshold: float, keep: float) -> Tensor:
    """Return the counted pixels [B, H, W] below the threshold, or the hardest fraction `keep` if those are fewer."""
    counts = labels != IGNORE_INDEX
    bound = _hardest(probability, counts, keep)
    easy = probability > torch.clamp(bound, min=threshold)
    return counts & ~easy  # NaN is not easy: a divergence must show


def _hardest(probability: Tensor, counts: Tensor, keep: float) -> Tensor:
    """Return the largest probability of the hardest fraction `keep` of the counted pixels, a scalar; 1 if none counts.

    On CUDA by sorting all pixels, so that the host does not wait for the number of those that count.
    """
    if probability.device.type == "cuda":
        values = torch.where(counts, probability, torch.inf).flatten().sort().values
        least = (keep * counts.sum(dtype=torch.float64)).round().long().clamp(min=1)
        return values.gather(0, least[None] - 1)[0]
    values = probability[counts]
    if not len(values):
        return torch.ones(())
    return values.kthvalue(max(1, round(keep * len(values)))).values


def _dice(scores: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = _library()[0](scores, labels.long())
    return loss


def _lovasz(scores: Tensor, labels: Tensor) -> Tensor:
    if scores.device.type == "cuda":
        return lovasz_softmax(scores, labels)
    if not bool((labels != IGNORE_INDEX).any()):
        return 0 * scores.sum()
    loss: Tensor = _library()[1](scores, labels.long())
    return loss


def lovasz_softmax(scores: Tensor, labels: Tensor) -> Tensor:
    """Compute the Lovász-Softmax loss of a batch (Berman et al., CVPR 2018, section 3) without waiting for the device.

    Equal to that of segmentation_models_pytorch, which selects the counted pixels and the classes that occur by their
    values, and so makes the host wait dozens of times. Here ignored pixels stay in with an error of 0, and classes
    that do not occur with a weight of 0.

    Args:
        scores: float32 [B, C, H, W], before the softmax.
        labels: uint8 [B, H, W], 255 for ignored pixels.

    Returns:
        The mean over the classes that occur, a scalar; 0 where no pixel counts.
    """
    classes = scores.shape[1]
    labels = labels.flatten()
    counts = labels != IGNORE_INDEX
    probabilities = scores.softmax(1).movedim(1, 0).reshape(classes, -1)
    of_class = labels == torch.arange(classes, device=labels.device)[:, None]
    errors = (of_class.float() - probabilities).abs() * counts
    errors, order = errors.sort(dim=1, descending=True)
    sorted_ = of_class.gather(1, order)
    # Integers, whose sums are exact; float sums are neither that nor deterministic on CUDA.
    of_class_so_far = sorted_.cumsum(1, dtype=torch.int32)
    others_so_far = (~sorted_ & counts.expand_as(sorted_).gather(1, order)).cumsum(1, dtype=torch.int32)
    pixels = of_class_so_far[:, -1:]
    jaccard = 1 - (pixels - of_class_so_far).float() / _at_least_one(pixels + others_so_far)
    steps = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], 1)
    occurs = pixels[:, 0] > 0
    return ((errors * steps).sum(1) * occurs).sum() / _at_least_one(occurs.sum())


@cache
def _library() -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Dice and Lovász; imported on first use, for it takes a second."""
    from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss

    return DiceLoss("multiclass", ignore_index=IGNORE_INDEX), LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)


def compute_class_weights(labels: Iterable[Tensor], classes: int) -> Tensor:
    """Class weights float32 [classes] by `data.inspection.stats.median_frequency`, of at least one image's labels."""
    counts = [torch.bincount(label[label != IGNORE_INDEX].long(), minlength=classes).cpu().numpy() for label in labels]
    return torch.from_numpy(stats.median_frequency_weights(np.stack(counts))).float()
