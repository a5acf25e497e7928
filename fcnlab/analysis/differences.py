"""Cells against a baseline, and cells alone: mIoU and IoU per class with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fcnlab.analysis.estimate import CLAIM_SEEDS, Estimate, Interval, interval
from fcnlab.analysis.holm import holm
from fcnlab.analysis.resampling import CellCounts, Floats, Sample
from fcnlab.errors import RunError, nearest

if TYPE_CHECKING:
    from fcnlab.metrics.confusion import Counts


@dataclass(frozen=True)
class ClassEstimates:
    """Differences of IoU, an array [classes] each; nan for a class that either cell has no union of with some seed."""

    value: Floats
    low: Floats
    high: Floats
    p_value: Floats
    images: NDArray[np.int64]
    """In how many images the class is labelled: an interval from a handful of images is a rough one."""


@dataclass(frozen=True)
class Difference(Estimate):
    """The mIoU of a cell less that of the baseline, over the seeds that both have."""

    p_value: float
    classes: ClassEstimates

    @property
    def significant(self) -> bool | None:
        """Whether the interval excludes zero, for this comparison alone; None where no claim is made."""
        return _claim(self, self.p_value)


@dataclass(frozen=True)
class Comparison:
    """A difference as one of a family of comparisons with the baseline."""

    difference: Difference
    adjusted_p: float
    """Holm's, over the comparisons of which a claim is made; nan for the others."""

    @property
    def significant(self) -> bool | None:
        """Whether it is at 1 - confidence over the whole family; None where no claim is made."""
        return _claim(self.difference, self.adjusted_p)


def paired_difference(
    cell: CellCounts, baseline: CellCounts, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """The difference in mIoU of two cells with its interval and p-value, paired by seed and by image.

    A resample has the same images for both cells and all seeds; seeds that one cell alone has are left out. The value
    is the mean over seeds of the difference, and its variance has a part of images and one of seeds, as
    `fcnlab.analysis.estimate` says with its sources. With one seed the interval is about these two trained models
    on other images; `note` says so. `seed` is that of the resampling. 10,000 resamples put 0.7 % of error on the
    standard error.

    Raises RunError where the cells share no seed or were scored on other images or classes.
    """
    seeds = _common_seeds(cell, baseline)
    _check_labels(cell[seeds[0]], baseline[seeds[0]])
    sampled, reference = (Sample.of(one, seeds, resamples, seed) for one in (cell, baseline))
    miou = sampled.miou().less(reference.miou())
    found, by_class = interval(miou, confidence), interval(sampled.less(reference), confidence)
    labelled = np.count_nonzero(cell[seeds[0]][:, :, 2], axis=0)
    return Difference(
        **_fields(found, miou, seeds, confidence),
        p_value=float(found.p_value),
        classes=ClassEstimates(by_class.value, by_class.low, by_class.high, by_class.p_value, labelled),
    )


def compare_to_baseline(
    cells: Mapping[str, CellCounts],
    baseline: str,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare every cell with the cell named `baseline`: label -> comparison, p-values adjusted by Holm over them.

    A cell that shares no seed with the baseline has no entry, nor has the baseline. Differences are those of
    `paired_difference`, which see for the rest. Raises RunError where `baseline` is not among the cells.
    """
    if baseline not in cells:
        raise RunError(f"the baseline {baseline!r} is not among the cells; {nearest(baseline, cells)}")
    reference = cells[baseline]
    differences = {
        label: paired_difference(cell, reference, resamples=resamples, confidence=confidence, seed=seed)
        for label, cell in cells.items()
        if label != baseline and cell.keys() & reference.keys()
    }
    claimed = [one.p_value if one.seeds >= CLAIM_SEEDS else np.nan for one in differences.values()]
    adjusted = holm(claimed)
    return {label: Comparison(one, float(p)) for (label, one), p in zip(differences.items(), adjusted, strict=True)}


def cell_miou(cell: CellCounts, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean mIoU of a cell's seeds with its interval, over seeds and images; see `paired_difference`.

    Intervals of two cells may overlap where their difference is well away from zero, since what images and seeds do to
    both alike cancels in the difference. Raises RunError for a cell without a trial.
    """
    if not cell:
        raise RunError("the cell has no counts: none of its trials has finished; run the grid first")
    seeds = sorted(cell)
    miou = Sample.of(cell, seeds, resamples, seed).miou()
    return Estimate(**_fields(interval(miou, confidence), miou, seeds, confidence))


def _common_seeds(cell: CellCounts, baseline: CellCounts) -> list[int]:
    seeds = sorted(cell.keys() & baseline.keys())
    if not seeds:
        raise RunError(
            f"the cell has seeds {sorted(cell)} and the baseline {sorted(baseline)}: a paired difference needs a seed "
            "that both have; run the grid with the same seeds"
        )
    return seeds


def _check_labels(cell: Counts, baseline: Counts) -> None:
    """Raise RunError unless both were scored on the same labels."""
    if np.shape(cell) != np.shape(baseline):
        raise RunError(
            f"the cell's counts are of shape {np.shape(cell)} and the baseline's of {np.shape(baseline)}: a paired "
            "difference needs the same images and classes, [images, classes, 3]; score both on one split"
        )
    different = np.flatnonzero((np.asarray(cell)[..., 2] != np.asarray(baseline)[..., 2]).any(-1))
    if different.size:
        raise RunError(
            f"{different.size} of {len(cell)} images, the first at index {different[0]}, have other labels for the "
            "cell than for the baseline: a paired difference needs the same images in the same order; score both on "
            "one split"
        )


def _fields(found: Interval, figure: Sample, seeds: list[int], confidence: float) -> dict[str, Any]:
    """The fields of an `Estimate` of one figure."""
    return {
        "value": float(found.value),
        "low": float(found.low),
        "high": float(found.high),
        "std_error": float(found.std_error),
        "dof": float(found.dof),
        "confidence": confidence,
        "images": len(figure.counted),
        "effective_images": float(found.effective_images),
        "by_seed": dict(zip(seeds, figure.values.tolist(), strict=True)),
        "image_variance": float(found.image_variance),
        "seed_variance": float(found.seed_variance),
    }


def _claim(difference: Difference, p_value: float) -> bool | None:
    if difference.seeds < CLAIM_SEEDS or np.isnan(p_value):
        return None
    return bool(p_value < 1 - difference.confidence)
