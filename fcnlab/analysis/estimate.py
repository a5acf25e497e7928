"""A mean over trained models and images, and how far it is from what more seeds and more images would give.

Trials are crossed with images: every seed is scored on every image. That is the design of reader studies in radiology,
with seeds in the place of readers and images in that of cases. For the mean over S seeds of a figure (a difference of
two cells with the same seed and images, or one cell's mIoU),

    variance = image variance + seed variance / S

- *seed variance*: how much the figure varies between seeds, estimated by the sample variance over the seeds' values.
  It includes what the choice of images does to one seed and not to another.
- *image variance*: what the choice of images does to all seeds alike, estimated by the mean covariance between two
  seeds over resamples of the images. The plain variance of the resampled mean would count the part of single seeds
  twice. Below zero it is set to zero.

This is the model of Obuchowski and Rockette (Communications in Statistics B 24, 1995), covariances by the bootstrap.
Seeds themselves are not resampled: of three seeds there are ten different resamples, their variance is a third too
small, and their intervals cover as little as 78 % where 95 % is said (Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8, on resampling at two levels). With one seed the image variance is all there is.

The interval is value ± t · sqrt(variance), with t the quantile of Student's t with nu degrees of freedom,

    1 / nu = w / (S - 1) + (1 - w) / (n - 1),   w the seeds' share of the variance, n the effective images.

That is the weighted t of Cochran and Cox (Experimental Designs, 2nd ed. 1957, section 4.14), to first order in the
reciprocals, and gives a p-value in closed form. With three seeds, where w is itself a rough estimate, Satterthwaite's
weights w², which Hillis uses for this model (Statistics in Medicine 26, 2007), cover as little as 92 % of normal data,
and Cochran and Cox's weighted quantiles up to 97 %; this covers 94 to 96.5 % from three seeds on, whatever w is.
`benchmarks/coverage.py` measures it on counts.

A difference in mIoU may rest on a handful of images, those with much of a rare class: on 150 images of VOC, on ten.
With psi_i what image i adds to the figure to first order, the *effective images* are n = (sum psi²)² / sum psi⁴: so
many images that all moved the figure alike would say as much about their variance (of N normal effects, N / 3). It is
the degrees of freedom that Satterthwaite's formula gives to sum psi² with one degree for each term, as is done for few
and unequal clusters (Bell and McCaffrey, Survey Methodology 28, 2002; Carter, Schnepel and Steigerwald, Review of
Economics and Statistics 99, 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from fcnlab.analysis.resampling import Floats, Sample
from fcnlab.errors import RunError

CLAIM_SEEDS = 3
"""With fewer seeds than these no difference is called significant."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; fractions of 1. A figure that cannot be had is nan."""

    value: float
    low: float
    high: float
    std_error: float
    dof: float
    confidence: float
    images: int
    effective_images: float
    """On how many images the value rests: all of them weigh as much as so many that moved it alike."""
    by_seed: dict[int, float]
    """What each seed says, of which `value` is the mean."""
    image_variance: float
    """Variance of `value` by the choice of images, which more seeds do not lower."""
    seed_variance: float
    """Variance between seeds; nan for one seed. It enters `value` divided by the number of seeds."""

    @property
    def seeds(self) -> int:
        return len(self.by_seed)

    @property
    def note(self) -> str:
        """What the interval leaves out, as a table's footnote says it; empty where it leaves out nothing."""
        if self.seeds == 1:
            return "one seed: training variance is not included, and no claim of significance is made"
        if self.seeds < CLAIM_SEEDS:
            return f"{self.seeds} seeds: no claim of significance is made below {CLAIM_SEEDS}"
        return ""


@dataclass(frozen=True)
class Interval:
    """The arithmetic for one figure or many at once: every field is an array of one shape."""

    value: Floats
    low: Floats
    high: Floats
    std_error: Floats
    dof: Floats
    p_value: Floats
    effective_images: Floats
    image_variance: Floats
    seed_variance: Floats


def interval(sample: Sample, confidence: float) -> Interval:
    """Interval and p-value for the means over seeds of a sample's figures.

    The p-value is two-sided, for a mean of zero, and below 1 - confidence if and only if the interval excludes zero.
    Resamples in which a figure is nan for any seed are left out of its variance. A figure for which fewer than two
    images count has no interval. Raises RunError unless 0 < confidence < 1 and there are two resamples at least.
    """
    if not 0 < confidence < 1:
        raise RunError(f"confidence is {confidence}; valid: between 0 and 1, as 0.95")
    if len(sample.resampled) < 2:
        raise RunError(f"resamples is {len(sample.resampled)}; valid: 2 and more, 10000 for a table")
    seeds, value, effective = len(sample.values), sample.values.mean(0), effective_images(sample)
    of_images, of_seeds = _image_variance(sample.resampled), _seed_variance(sample.values)
    seed_part = np.where(np.isnan(of_seeds), 0.0, of_seeds) / seeds
    error = np.where(np.isnan(effective), np.nan, np.sqrt(of_images + seed_part))
    dof = degrees_of_freedom(of_images, seed_part, effective, seeds)
    margin = stdtrit(dof, (1 + confidence) / 2) * error
    p_value = _p_value(value, error, dof)
    return Interval(value, value - margin, value + margin, error, dof, p_value, effective, of_images, of_seeds)


def effective_images(sample: Sample) -> Floats:
    """On how many images the means over seeds rest.

    With fewer than two images that count nothing can be said, and it is nan. Otherwise it is 2 at least, and the
    number of those that count where none has any influence.
    """
    number = np.asarray(sample.counted.sum(0))
    effect = sample.influence.mean(0)
    squares, fourth = (effect**2).sum(0), (effect**4).sum(0)
    even = np.divide(squares**2, fourth, out=number.astype(np.float64), where=fourth > 0)
    return np.where(number < 2, np.nan, np.maximum(even, 2.0))


def _image_variance(resampled: Floats) -> Floats:
    """Mean covariance between two seeds over resamples, from the variances of single seeds and of their mean."""
    seeds = resampled.shape[1]
    resampled = np.where(np.isnan(resampled).any(1, keepdims=True), np.nan, resampled)
    single = _variance(resampled).mean(0)
    if seeds == 1:
        return single
    of_mean = _variance(resampled.mean(1))
    return np.maximum(0.0, (seeds * of_mean - single) / (seeds - 1))


def _variance(samples: Floats) -> Floats:
    """Sample variance over the first axis of what is not nan; nan for fewer than two."""
    there = ~np.isnan(samples)
    count = there.sum(0).astype(np.float64)
    mean = np.where(there, samples, 0.0).sum(0) / np.maximum(count, 1)
    squares = np.where(there, samples - mean, 0.0) ** 2
    return np.where(count > 1, squares.sum(0) / np.maximum(count - 1, 1), np.nan)


def _seed_variance(values: Floats) -> Floats:
    return values.var(0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)


def degrees_of_freedom(image_part: Floats, seed_part: Floats, effective: Floats, seeds: int) -> Floats:
    """Of Student's t for a variance of two parts, one of images and one of seeds."""
    total = image_part + seed_part
    share = np.divide(seed_part, total, out=np.zeros_like(total), where=total > 0)
    reciprocal = (1 - share) / (effective - 1) + share / max(seeds - 1, 1)
    return 1 / reciprocal


def _p_value(value: Floats, error: Floats, dof: Floats) -> Floats:
    """Two-sided, of Student's t; where nothing varies, 1 for a value of zero and 0 for any other."""
    statistic = np.divide(-np.abs(value), error, out=np.where(value == 0, 0.0, -np.inf), where=error != 0)
    return np.where(np.isnan(value), np.nan, 2 * stdtr(dof, statistic))
