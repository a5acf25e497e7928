"""Ends a trial whose mIoU on val no longer improves: `stop_on_plateau` of a recipe."""

from __future__ import annotations

from collections.abc import Iterable

from fcnlab.config.recipe import StopOnPlateau
from fcnlab.trial.record import EpochRecord, Plateau


def find_plateau(rule: StopOnPlateau | None, epochs: Iterable[EpochRecord]) -> Plateau | None:
    """Find the epoch after which a trial stops.

    The decision depends on the validations only, so a trial that resumes from a checkpoint makes the same one.

    Args:
        rule: the rule of the recipe; None never stops.
        epochs: the epochs so far, in order.

    Returns:
        The epoch at which mIoU on val had not improved for `patience` validations; None if there is none.
    """
    if rule is None:
        return None
    best, best_epoch, without = -float("inf"), 0, 0
    for epoch in epochs:
        if epoch.val_miou is None:  # not validated, or without a labeled pixel or valid scores
            continue
        if 100 * (epoch.val_miou - best) > rule.min_delta:
            best, best_epoch, without = epoch.val_miou, epoch.epoch, 0
            continue
        without += 1
        if without >= rule.patience:
            return Plateau(epoch=epoch.epoch, best_epoch=best_epoch, validations=without, min_delta=rule.min_delta)
    return None
