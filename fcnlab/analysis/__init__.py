"""Statistics of per-image counts: differences of mIoU between cells, their intervals, tests, power and ranks.

All functions are pure functions of numpy arrays. Counts are those of one trial (`fcnlab.metrics.summary.Counts`),
int64 [images, num_classes, 3] with intersection, prediction and target in pixels; a cell maps seeds to counts. The
cells of a grid are evaluated on the same images in the same order, and trials with the same seed see the same batches,
so a difference to the baseline is paired by seed and by image. In a cross-validation, each seed has the images of the
fold that it holds out, the same for all cells. An mIoU is always that of the whole split: counts are
summed over the images first.
"""

from fcnlab.analysis.differences import (
    ClassDifferences,
    Comparison,
    Difference,
    apply_holm,
    count_class_images,
    estimate_difference,
    estimate_differences,
    select_folds,
)
from fcnlab.analysis.effects import Effect, estimate_effects
from fcnlab.analysis.holm import adjust_p_values, is_significant
from fcnlab.analysis.intervals import CONFIDENCE, MIN_SEEDS
from fcnlab.analysis.power import SeedPlan, plan_seeds
from fcnlab.analysis.ranks import RankStability, measure_rank_stability
from fcnlab.analysis.resampling import CellCounts

__all__ = [
    "CONFIDENCE",
    "MIN_SEEDS",
    "CellCounts",
    "ClassDifferences",
    "Comparison",
    "Difference",
    "Effect",
    "RankStability",
    "SeedPlan",
    "adjust_p_values",
    "apply_holm",
    "count_class_images",
    "estimate_difference",
    "estimate_differences",
    "estimate_effects",
    "is_significant",
    "measure_rank_stability",
    "plan_seeds",
    "select_folds",
]
