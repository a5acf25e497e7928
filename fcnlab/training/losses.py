"""Losses: cross entropy with its variants, Dice and Lovász, over the pixels that are not ignored.

Dice comes from segmentation_models_pytorch, whose implementation is widely used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.config.loss import Reduction
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.inspection import stats
from fcnlab.training.distributed import SINGLE_PROCESS, ProcessGroup
from fcnlab.training.loss_term import LossTerm
from fcnlab.training.lovasz import lovasz_softmax


def compute_pixel_weights(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Compute the weight of each pixel in a mean.

    Args:
        labels: uint8 [B, H, W], 255 for ignored.
        class_weights: [num_classes].

    Returns:
        Weights [B, H, W]: 0 where ignored, else 1 or the weight of the class.
    """
    labeled = labels != IGNORE_INDEX
    if class_weights is None:
        return labeled
    return class_weights[torch.where(labeled, labels, 0).long()] * labeled


def _replace_zero(total: Tensor) -> Tensor:
    """Replace a divisor of 0 by 1."""
    return torch.where(total > 0, total, torch.ones_like(total))


@dataclass(frozen=True)
class Loss:
    """The loss of scores [B, num_classes, H, W] for labels uint8 [B, H, W], 255 for ignored.

    Attributes:
        reduction: reduction of the cross entropies of all pixels.
        class_weights: [num_classes], on the device of the scores.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
        focal: exponent γ of (1 - p)^γ, with p the probability of the pixel's class. Lin et al., ICCV 2017.
        ohem: threshold and smallest fraction of hard pixels; only hard pixels count. Shrivastava et al., CVPR 2016.
        weight: factor on the cross entropy.
        dice: factor on 1 - Dice (Milletari et al., 3DV 2016), the mean over all classes.
        lovasz: factor on the Lovász-Softmax loss (Berman et al., CVPR 2018), the mean over the classes in the batch.
        custom: a term from the user's own package or lab.
        custom_weight: factor on it.
        auxiliary: factor on the loss of auxiliary scores.
    """

    reduction: Reduction = "pixel_mean"
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    focal: float = 0.0
    ohem: tuple[float, float] | None = None
    weight: float = 1.0
    dice: float = 0.0
    lovasz: float = 0.0
    custom: LossTerm | None = None
    custom_weight: float = 1.0
    auxiliary: float = 0.4

    @property
    def is_pixelwise(self) -> bool:
        """True if the loss is a weighted sum of cross entropies, each of which depends on one pixel only."""
        return self.focal == 0 and self.ohem is None and self.dice == 0 and self.lovasz == 0 and self.custom is None

    def compute_image_factors(self, labels: Tensor) -> Tensor:
        """Compute the factor on each image's summed cross entropies; their sum over the batch is a pixelwise loss.

        Args:
            labels: uint8 [B, H, W], 255 for ignored.

        Returns:
            Factors float32 [B].
        """
        if self.reduction == "pixel_sum":
            return torch.full((len(labels),), self.weight, device=labels.device)
        weights = compute_pixel_weights(labels, self.class_weights).flatten(1).sum(1)
        if self.reduction == "pixel_mean":
            weights = weights.sum().expand(len(labels))
        return self.weight / _replace_zero(weights)

    def __call__(self, scores: Tensor, labels: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch.

        Args:
            scores: [B, num_classes, H, W], before the softmax.
            labels: uint8 [B, H, W], 255 for ignored.
            auxiliary: scores of an auxiliary head, [B, num_classes, H, W].

        Returns:
            A float32 scalar; 0, with a gradient of 0, if all pixels are ignored.
        """
        total = self._sum_terms(scores.float(), labels)
        if auxiliary is not None and self.auxiliary:
            total = total + self.auxiliary * self._sum_terms(auxiliary.float(), labels)
        return total

    def _sum_terms(self, scores: Tensor, labels: Tensor) -> Tensor:
        terms = []
        if self.weight:
            entropy = self._cross_entropy(scores, labels)
            terms.append(entropy if self.weight == 1 else self.weight * entropy)
        if self.dice:
            terms.append(self.dice * _compute_dice(scores, labels))
        if self.lovasz:
            terms.append(self.lovasz * lovasz_softmax(scores, labels))
        if self.custom is not None:
            # A copy, because the class may change it in place; other scores and weights are computed from the labels.
            terms.append(self.custom_weight * self.custom(scores, labels.clone()))
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
            probability = _compute_true_probability(scores, labels)
            if self.focal:
                losses = losses * _clamp_to_tiny(1 - probability) ** self.focal
            if self.ohem is not None:
                labels = torch.where(_select_hard(probability.detach(), labels, *self.ohem), labels, IGNORE_INDEX)
                losses = torch.where(labels != IGNORE_INDEX, losses, 0)
        if self.reduction == "pixel_sum":
            return losses.sum()
        weights = compute_pixel_weights(labels, self.class_weights)
        if self.reduction == "image_mean_sum":
            return (losses.flatten(1).sum(1) / _replace_zero(weights.flatten(1).sum(1))).sum()
        return losses.sum() / _replace_zero(weights.sum())

    def compute_micro_batch_weight(
        self, micro_labels: Tensor, labels: Tensor, group: ProcessGroup = SINGLE_PROCESS
    ) -> Tensor | float:
        """Compute the weight of the loss of a micro-batch, so that the weighted losses sum to the loss of the batch.

        This is exact for the cross entropy. The other terms and the choice of hard pixels are those of each
        micro-batch.

        Args:
            micro_labels: labels of the micro-batch, uint8 [b, H, W].
            labels: labels of the batch, uint8 [B, H, W]; in a group, of the share of this process.
            group: the processes over whose micro-batches the losses are summed.

        Returns:
            The factor on the loss of the micro-batch.
        """
        if self.weight and self.reduction != "pixel_mean":
            return 1.0
        class_weights = self.class_weights if self.weight else None
        total = group.sum(compute_pixel_weights(labels, class_weights).sum())
        return compute_pixel_weights(micro_labels, class_weights).sum() / _replace_zero(total)


def _compute_true_probability(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the probability [B, H, W] of each pixel's own class; 1 where ignored."""
    return torch.exp(-F.cross_entropy(scores, labels.long(), ignore_index=IGNORE_INDEX, reduction="none"))


def _clamp_to_tiny(values: Tensor) -> Tensor:
    """Replace zeros by the smallest positive number, so that every power has a finite gradient."""
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def _select_hard(probability: Tensor, labels: Tensor, threshold: float, keep: float) -> Tensor:
    """Return a mask [B, H, W] of the pixels below the threshold, or of the hardest fraction `keep` if it is larger."""
    labeled = labels != IGNORE_INDEX
    bound = _find_hardest_quantile(probability, labeled, keep)
    easy = probability > torch.clamp(bound, min=threshold)
    return labeled & ~easy  # NaN is not easy, so that divergence is not hidden


def _find_hardest_quantile(probability: Tensor, labeled: Tensor, keep: float) -> Tensor:
    """Return the largest probability in the hardest fraction `keep` of the labeled pixels; 1 if there are none.

    On CUDA all pixels are sorted, so that the host does not wait for the number of labeled ones.
    """
    if probability.device.type == "cuda":
        values = torch.where(labeled, probability, torch.inf).flatten().sort().values
        count = (keep * labeled.sum(dtype=torch.float64)).round().long().clamp(min=1)
        return values.gather(0, count[None] - 1)[0]
    values = probability[labeled]
    if not len(values):
        return torch.ones(())
    return values.kthvalue(max(1, round(keep * len(values)))).values


def _compute_dice(scores: Tensor, labels: Tensor) -> Tensor:
    from segmentation_models_pytorch.losses import DiceLoss  # the import takes a second

    loss: Tensor = DiceLoss("multiclass", ignore_index=IGNORE_INDEX)(scores, labels.long())
    return loss


def compute_class_weights(labels: Iterable[Tensor], num_classes: int) -> Tensor:
    """Compute median-frequency class weights (Eigen and Fergus, ICCV 2015).

    Args:
        labels: labels uint8 [H, W] of at least one image, 255 for ignored.
        num_classes: number of classes.

    Returns:
        Weights float32 [num_classes].
    """
    counts = [
        torch.bincount(label[label != IGNORE_INDEX].long(), minlength=num_classes).cpu().numpy() for label in labels
    ]
    return torch.from_numpy(stats.median_frequency_weights(np.stack(counts))).float()
