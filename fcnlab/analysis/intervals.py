"""Confidence intervals of means over trained models (seeds) and images.

Trials are crossed with images: every seed is evaluated on every image. Reader studies in radiology have the same
design, with readers for seeds and cases for images. For the mean over S seeds of a value (a difference of two cells
with the same seed and images),

    variance = image variance + seed variance / S

- *seed variance*: the sample variance of the value over seeds. It includes the effect of the choice of images on
  single seeds.
- *image variance*: the effect of the choice of images that all seeds share, estimated by the mean covariance between
  two seeds over bootstrap resamples of the images and set to zero where it is negative. The variance of the resampled
  mean would count the effect on single seeds twice.

This is the model of Obuchowski and Rockette (Communications in Statistics B 24, 1995) with bootstrap covariances. Seeds
are not resampled: three seeds have ten different resamples, their variance is a third too small, and such intervals
cover as little as 78 % at a nominal 95 % (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
3.8, on resampling at two levels). With one seed, only the image variance is included.

The interval is value ± t * sqrt(variance), where t is the quantile of Student's t with nu degrees of freedom,

    1 / nu = w / (S - 1) + (1 - w) / (n - 1)

for the seeds' fraction w of the variance and n effective images. It is the weighted t of Cochran and Cox (Experimental
Designs, 2nd ed. 1957, section 4.14) to first order in the reciprocals, and has a p-value in closed form. With three
seeds, where w is itself a rough estimate, Satterthwaite's weights w**2, which Hillis uses for this model (Statistics in
Medicine 26, 2007), cover as little as 92 % of normal data, and Cochran and Cox's weighted quantiles up to 97 %; this
formula covers 94 to 96.5 % from three seeds on, for any w. `benchmarks/coverage.py` measures the coverage on counts.

A difference in mIoU may depend on a few images with many pixels of a rare class: on ten of 150 images of VOC. For the
first-order effect psi_i of image i, the *effective images* are n = (sum psi**2)**2 / sum psi**4, the number of images
with equal effects that would determine the variance as well (N / 3 for N normal effects). It is the degrees of freedom
of Satterthwaite's formula for sum psi**2 with one degree per term, as for few and unequal clusters (Bell and McCaffrey,
Survey Methodology 28, 2002; Carter, Schnepel and Steigerwald, Review of Economics and Statistics 99, 2017).

In a cross-validation, each seed is evaluated on other images, so the variance over S seeds contains that of the images.
Their training images overlap, so that the values of two seeds are correlated, and s**2 / S is too small. The variance
is that of Nadeau and Bengio (Inference for the generalization error, Machine Learning 52, 2003),

    variance = (1 / S + held-out images / training images) * s**2,

with S - 1 degrees of freedom. Bouckaert and Frank (PAKDD 2004) use it for repeated cross-validation. No estimator of
this variance is unbiased (Bengio and Grandvalet, JMLR 5, 2004); `benchmarks/fold_coverage.py` measures the coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from fcnlab.analysis.resampling import BootstrapSample
from fcnlab.errors import RunError
from fcnlab.metrics.summary import Floats, divide

CONFIDENCE = 0.95
"""Confidence level of the intervals; 1 - `CONFIDENCE` is the level of the tests."""

MIN_SEEDS = 3
"""Fewest seeds with which a difference may be called significant."""


@dataclass(frozen=True)
class Interval:
    """Confidence intervals of one value ([]) or of many ([num_classes]); every attribute is an array of that shape.

    Attributes:
        value: mean over seeds.
        low: lower end of the interval.
        high: upper end of the interval.
        std_error: standard error of `value`.
        p_value: two-sided p-value for a true value of zero.
        effective_images: number of images with equal influence that would determine `value` as well; NaN in a
            cross-validation.
        image_variance: variance of `value` by the choice of images, which more seeds do not lower; NaN in a
            cross-validation, which cannot separate it.
        seed_variance: variance between seeds; NaN for one seed.
    """

    value: Floats
    low: Floats
    high: Floats
    std_error: Floats
    p_value: Floats
    effective_images: Floats
    image_variance: Floats
    seed_variance: Floats


def compute_interval(sample: BootstrapSample) -> Interval:
    """Compute intervals and p-values of means over seeds.

    A p-value is below 1 - `CONFIDENCE` if and only if the interval excludes zero. Resamples in which a value is NaN for
    any seed do not count for its variance. A value that fewer than two images contribute to has no interval.

    Args:
        sample: values [seeds, ...] with their resamples.

    Returns:
        Intervals of shape [...].

    Raises:
        RunError: there are fewer than two resamples.
    """
    if len(sample.resampled) < 2:
        raise RunError(f"resamples is {len(sample.resampled)}; valid: 2 and more, such as 10000")
    seeds, value, effective = len(sample.values), sample.values.mean(0), count_effective_images(sample)
    image_variance, seed_variance = _image_variance(sample.resampled), _seed_variance(sample.values)
    seed_part = np.where(np.isnan(seed_variance), 0.0, seed_variance) / seeds
    error = np.where(np.isnan(effective), np.nan, np.sqrt(image_variance + seed_part))
    dof = degrees_of_freedom(image_variance, seed_part, effective, seeds)
    margin = stdtrit(dof, (1 + CONFIDENCE) / 2) * error
    return Interval(
        value=value,
        low=value - margin,
        high=value + margin,
        std_error=error,
        p_value=_p_value(value, error, dof),
        effective_images=effective,
        image_variance=image_variance,
        seed_variance=seed_variance,
    )


def compute_fold_interval(values: Floats, test_ratio: float) -> Interval:
    """Compute intervals and p-values of means over the seeds of a cross-validation.

    A p-value is below 1 - `CONFIDENCE` if and only if the interval excludes zero. Seeds whose value is NaN, as the IoU
    of a class that is not labeled in their images, do not count. A value of fewer than two seeds has no interval.

    Args:
        values: [seeds, ...].
        test_ratio: number of images that are held out, divided by the number of those that are trained on.

    Returns:
        Intervals of shape [...].

    Example:
        >>> interval = compute_fold_interval(np.array([0.01, 0.02, 0.03]), test_ratio=0.5)
        >>> round(float(interval.value), 4), round(float(interval.std_error), 4)
        (0.02, 0.0091)
    """
    valid = ~np.isnan(values)
    seeds = valid.sum(0).astype(np.float64)
    value = divide(np.where(valid, values, 0.0).sum(0), seeds)
    variance = _variance(values)
    dof = np.maximum(seeds - 1, 1)
    error = np.sqrt(variance * (1 / np.maximum(seeds, 1) + test_ratio))
    margin = stdtrit(dof, (1 + CONFIDENCE) / 2) * error
    unknown = np.full_like(value, np.nan)
    return Interval(
        value=value,
        low=value - margin,
        high=value + margin,
        std_error=error,
        p_value=np.where(np.isnan(error), np.nan, _p_value(value, error, dof)),
        effective_images=unknown,
        image_variance=unknown,
        seed_variance=variance,
    )


def count_effective_images(sample: BootstrapSample) -> Floats:
    """Count the images with equal influence that would determine the means over seeds as well.

    Args:
        sample: values [seeds, ...] with the influence of each image.

    Returns:
        [...]: at least 2; NaN where fewer than two images contribute; the number of contributing images where none has
        any influence.
    """
    number = np.asarray(sample.counted.sum(0))
    effect = sample.influence.mean(0)
    squares, fourth = (effect**2).sum(0), (effect**4).sum(0)
    even = np.divide(squares**2, fourth, out=number.astype(np.float64), where=fourth > 0)
    return np.where(number < 2, np.nan, np.maximum(even, 2.0))


def degrees_of_freedom(image_part: Floats, seed_part: Floats, effective: Floats, seeds: int) -> Floats:
    """Compute the degrees of freedom of Student's t for a variance with an image part and a seed part.

    Args:
        image_part: variance of the mean by images, [...].
        seed_part: variance of the mean by seeds, [...].
        effective: number of effective images, [...].
        seeds: number of seeds.

    Returns:
        [...].

    Example:
        >>> float(degrees_of_freedom(np.array(1.0), np.array(0.0), np.array(41.0), seeds=3))
        40.0
    """
    total = image_part + seed_part
    fraction = np.divide(seed_part, total, out=np.zeros_like(total), where=total > 0)
    return 1 / ((1 - fraction) / (effective - 1) + fraction / max(seeds - 1, 1))


def _image_variance(resampled: Floats) -> Floats:
    """Compute the mean covariance of two seeds over resamples from the variances of single seeds and of their mean."""
    seeds = resampled.shape[1]
    resampled = np.where(np.isnan(resampled).any(1, keepdims=True), np.nan, resampled)
    single = _variance(resampled).mean(0)
    if seeds == 1:
        return single
    of_mean = _variance(resampled.mean(1))
    return np.maximum(0.0, (seeds * of_mean - single) / (seeds - 1))


def _variance(samples: Floats) -> Floats:
    """Compute the sample variance over the first axis without NaNs; NaN for fewer than two values."""
    valid = ~np.isnan(samples)
    count = valid.sum(0).astype(np.float64)
    mean = np.where(valid, samples, 0.0).sum(0) / np.maximum(count, 1)
    squares = np.where(valid, samples - mean, 0.0) ** 2
    return np.where(count > 1, squares.sum(0) / np.maximum(count - 1, 1), np.nan)


def _seed_variance(values: Floats) -> Floats:
    return values.var(0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)


def _p_value(value: Floats, error: Floats, dof: Floats) -> Floats:
    """Compute two-sided p-values of Student's t; without any variance, 1 for a value of zero and 0 otherwise."""
    statistic = np.divide(-np.abs(value), error, out=np.where(value == 0, 0.0, -np.inf), where=error != 0)
    return np.where(np.isnan(value), np.nan, 2 * stdtr(dof, statistic))
