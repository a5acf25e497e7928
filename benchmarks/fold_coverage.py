"""Measure how often the 95 % intervals of a cross-validation cover the true difference in mIoU, on CamVid's images.

    python -m benchmarks.fold_coverage --data-root ../data --out docs/coverage/cross-validation.md

An interval needs the training of one model per seed, so that its coverage cannot be measured with networks. Here a
model classifies single pixels: the features of each class have a normal distribution (quadratic discriminant analysis),
fitted in closed form to a bootstrap sample of the training images, which differs by seed as the training of a network
does. Images are sampled from those of all splits without replacement, and each sample is divided into folds, in another
way for each repetition. The true difference is the mean over all samples: that of models trained on this number of
images. The interval of `fcnlab.analysis.intervals` is compared with that of the paired t test over the seeds, which
takes them as independent.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.speed.machine import machine
from fcnlab.analysis.intervals import compute_fold_interval
from fcnlab.config.dataset import CrossValidation
from fcnlab.data.datasets.splits import divide_into_folds
from fcnlab.lab import Lab
from fcnlab.metrics.summary import compute_class_iou, mean_over_classes

Floats = NDArray[np.float64]

PIXELS = 1000
"""Pixels of an image that are sampled once, for training and evaluation."""

PAIRS = {
    "color, row - color": (slice(0, 3), slice(0, 4)),
    "color, row, column - color, row": (slice(0, 4), slice(0, 5)),
}
"""Pairs of models by name: the features of the baseline and of the other model."""

SETTINGS = tuple((images, folds, seeds) for images in (40, 100) for folds, seeds in ((5, 3), (5, 5), (5, 10), (10, 10)))
"""Numbers of images, folds and seeds."""


@dataclass(frozen=True)
class Images:
    """Features and labels of sampled pixels, and the sums from which a model is fitted.

    Attributes:
        features: color, row and column, [images, pixels, 5].
        labels: class of each pixel, or -1, [images, pixels].
        moments: number of pixels, sum and sum of squares of the features (1, x) of each class,
            [images, num_classes, 6, 6].
    """

    features: Floats
    labels: NDArray[np.int64]
    moments: Floats


@cache
def read_images(data_root: Path) -> Images:
    """Read the pixels of all images of CamVid.

    Args:
        data_root: folder that contains `camvid`.
    """
    lab = Lab.find(root=Path.cwd(), data_root=data_root)
    dataset = lab.open_dataset(lab.registry.get("dataset", "camvid"))
    random = np.random.default_rng(0)
    features, labels = [], []
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        for index in range(len(split)):
            sample = split[index]
            rows, columns = (random.integers(0, size, PIXELS) for size in sample.label.shape)
            height, width = sample.label.shape
            position = np.stack([rows / height, columns / width], axis=1)
            features.append(np.concatenate([sample.image[rows, columns] / 255, position], axis=1))
            label = sample.label[rows, columns].astype(np.int64)
            labels.append(np.where(label == 255, -1, label))
    all_features, all_labels = np.stack(features), np.stack(labels)
    extended = np.concatenate([np.ones((*all_labels.shape, 1)), all_features], axis=2)
    classes = range(len(dataset.classes))
    of_class = [np.where((all_labels == c)[..., None], extended, 0.0) for c in classes]
    moments = np.stack([np.einsum("npi,npj->nij", one, one) for one in of_class], axis=1)
    return Images(all_features, all_labels, moments)


def classify(moments: Floats, used: slice, features: Floats) -> NDArray[np.int64]:
    """Fit a normal distribution to each class and return the most probable class of pixels.

    Args:
        moments: sums over the training pixels, [num_classes, 6, 6].
        used: the features of the model.
        features: pixels to classify, [images, pixels, 5].

    Returns:
        [images, pixels].
    """
    number = moments[:, 0, 0]
    size = used.stop
    mean = moments[:, 0, 1 : size + 1] / number[:, None]
    square = moments[:, 1 : size + 1, 1 : size + 1] / number[:, None, None]
    covariance = square - mean[:, :, None] * mean[:, None, :] + 1e-4 * np.eye(size)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    offset = np.log(number) - 0.5 * np.linalg.slogdet(covariance)[1]
    scores = [
        constant - 0.5 * (((features[..., used] - center) @ one.T) ** 2).sum(-1)
        for center, one, constant in zip(mean, whitening, offset, strict=True)
    ]
    return np.argmax(scores, axis=0)


def compute_miou(predictions: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> float:
    """Compute the mIoU of all pixels.

    Args:
        predictions: classes, [images, pixels].
        labels: classes, or -1 for ignored pixels, of the same shape.
        num_classes: number of classes.
    """
    valid = labels >= 0
    matrix = np.bincount(num_classes * labels[valid] + predictions[valid], minlength=num_classes**2)
    matrix = matrix.reshape(num_classes, num_classes)
    counts = np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)
    return float(mean_over_classes(compute_class_iou(counts)))


def cross_validate(data_root: Path, setting: tuple[int, int, int], index: int) -> Floats:
    """Compute the differences in mIoU of each pair of models for the seeds of a cross-validation.

    Args:
        data_root: folder that contains `camvid`.
        setting: numbers of images, folds and seeds.
        index: number of the sample of images.

    Returns:
        [pairs, seeds].
    """
    data, (images, folds, seeds) = read_images(data_root), setting
    random = np.random.default_rng([*setting, index])
    sampled = random.choice(len(data.labels), images, replace=False)
    config, ids = CrossValidation(folds=folds, seed=1000 * index), list(map(str, range(images)))
    differences = np.empty((len(PAIRS), seeds))
    for seed in range(seeds):
        splits = divide_into_folds(ids, config.select_fold(seed))
        train, held_out = (sampled[list(map(int, splits[name]))] for name in ("train", "val"))
        moments = data.moments[random.choice(train, len(train))].sum(0)
        miou = evaluate_models(moments, data.features[held_out], data.labels[held_out])
        differences[:, seed] = [miou[other.stop] - miou[baseline.stop] for baseline, other in PAIRS.values()]
    return differences


def evaluate_models(moments: Floats, features: Floats, labels: NDArray[np.int64]) -> dict[int, float]:
    """Compute the mIoU of each model, by its number of features.

    Args:
        moments: sums over the training pixels, [num_classes, 6, 6].
        features: pixels that are held out, [images, pixels, 5].
        labels: their classes, or -1, [images, pixels].
    """
    known = np.flatnonzero(moments[:, 0, 0] > 1)  # a class may be missing in the bootstrap sample
    models = {used.stop: used for pair in PAIRS.values() for used in pair}
    return {
        size: compute_miou(known[classify(moments[known], used, features)], labels, len(moments))
        for size, used in models.items()
    }


@dataclass(frozen=True)
class Outcome:
    """Coverage for one pair of models in one setting.

    Attributes:
        pair: name of the pair of models.
        images: number of images.
        folds: number of folds.
        seeds: number of seeds.
        true_difference: mean difference over all samples of images, in points.
        coverage: share of the intervals that contain the true difference.
        plain_coverage: the same for the paired t test.
        width: mean width of the intervals, in points.
    """

    pair: str
    images: int
    folds: int
    seeds: int
    true_difference: float
    coverage: float
    plain_coverage: float
    width: float


def measure(differences: Floats, setting: tuple[int, int, int]) -> list[Outcome]:
    """Compare the intervals of all samples of images with the true difference.

    Args:
        differences: [samples, pairs, seeds].
        setting: numbers of images, folds and seeds.
    """
    images, folds, seeds = setting
    outcomes = []
    for name, values in zip(PAIRS, np.moveaxis(differences, 1, 0), strict=True):
        true = values.mean()
        interval = compute_fold_interval(values.T, CrossValidation(folds=folds).test_ratio)
        margin = stats.t.ppf(0.975, seeds - 1) * values.std(1, ddof=1) / np.sqrt(seeds)
        outcomes.append(
            Outcome(
                pair=name, images=images, folds=folds, seeds=seeds, true_difference=100 * true,
                coverage=float(np.mean((interval.low <= true) & (true <= interval.high))),
                plain_coverage=float(np.mean(np.abs(values.mean(1) - true) <= margin)),
                width=float(100 * np.mean(interval.high - interval.low)),
            )
        )  # fmt: skip
    return outcomes


def page(outcomes: Sequence[Outcome], samples: int, seconds: float) -> str:
    """Return the results as Markdown.

    Args:
        outcomes: one outcome per pair and setting.
        samples: number of samples of images per setting.
        seconds: wall-clock time of the measurement.
    """
    where = machine("scipy")
    versions = ", ".join(f"{name} {where.versions[name]}" for name in ("fcnlab", "numpy", "scipy"))
    corrected, plain = ([100 * getattr(one, name) for one in outcomes] for name in ("coverage", "plain_coverage"))
    lines = [
        "# Coverage of the intervals of a cross-validation",
        "",
        "Generated by `benchmarks/fold_coverage.py`; its module docstring describes the simulation: classifiers of "
        "pixels, trained on samples of CamVid's images.",
        "",
        "```",
        "python -m benchmarks.fold_coverage --data-root ../data --out docs/coverage/cross-validation.md "
        f"--samples {samples}",
        "```",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {where.processor}, {where.system}, {versions}; "
        f"{samples} samples of images per row, {seconds:.0f} seconds.",
        "",
        f"The 95 % intervals cover the true difference in {min(corrected):.1f} to {max(corrected):.1f} % of the "
        f"samples, and those of a paired t test over the seeds in {min(plain):.1f} to {max(plain):.1f} %. The standard "
        f"error of a coverage of 95 % is {100 * np.sqrt(0.95 * 0.05 / samples):.1f} points.",
        "",
        "| models | images | folds | seeds | true Δ | coverage % | width | t test % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {one.pair} | {one.images} | {one.folds} | {one.seeds} | {one.true_difference:.2f} | "
            f"{100 * one.coverage:.1f} | {one.width:.2f} | {100 * one.plain_coverage:.1f} |"
            for one in outcomes
        ),
        "",
        "Δ and widths are in points of mIoU.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all settings and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that contains camvid")
    parser.add_argument("--out", type=Path, required=True, help="file of the page")
    parser.add_argument("--samples", type=int, default=1000, help="samples of images per setting")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    start, outcomes = time.monotonic(), []
    read_images(options.data_root)  # before the workers are forked
    with ProcessPoolExecutor(options.workers) as pool:
        for setting in SETTINGS:
            run = partial(cross_validate, options.data_root, setting)
            differences = np.stack(list(pool.map(run, range(options.samples), chunksize=10)))
            outcomes += measure(differences, setting)
            print(setting, [(one.coverage, one.plain_coverage) for one in outcomes[-len(PAIRS) :]], flush=True)
    outcomes.sort(key=lambda one: one.pair)
    options.out.write_text(page(outcomes, options.samples, time.monotonic() - start), encoding="utf-8")


if __name__ == "__main__":
    main()
