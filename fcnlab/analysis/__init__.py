"""What per-image counts say about cells, and how sure one can be of it; pure functions of numpy arrays.

Counts are `fcnlab.metrics.confusion.Counts` of one trial, int64 [images, classes, 3]: intersection, prediction and
target in pixels. A cell is a mapping from seed to counts. Cells of a grid have the same images in the same order, and
trials of one seed see the same batches, so a difference to the baseline is paired in both. Every mIoU is that of the
whole split: counts are summed over images first.
"""

from fcnlab.analysis.differences import (
    ClassEstimates,
    Comparison,
    Difference,
    cell_miou,
    compare_to_baseline,
    paired_difference,
)
from fcnlab.analysis.estimate import Estimate
from fcnlab.analysis.holm import holm
from fcnlab.analysis.power import SeedPlan, plan_seeds
from fcnlab.analysis.ranks import RankStability, rank_stability
from fcnlab.analysis.resampling import CellCounts
from fcnlab.analysis.spread import Spread, summary

__all__ = [
    "CellCounts",
    "ClassEstimates",
    "Comparison",
    "Difference",
    "Estimate",
    "RankStability",
    "SeedPlan",
    "Spread",
    "cell_miou",
    "compare_to_baseline",
    "holm",
    "paired_difference",
    "plan_seeds",
    "rank_stability",
    "summary",
]
