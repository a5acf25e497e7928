"""Random counts for tests."""

from __future__ import annotations

import numpy as np

from fcnlab.metrics.summary import Counts


def random_cell(random: np.random.Generator, target: Counts, seeds: int, skill: float = 0.7) -> dict[int, Counts]:
    """Draw a cell with random predictions on images with these target pixels [images, num_classes]."""
    return {seed: _trial(random, target, skill + 0.02 * random.standard_normal()) for seed in range(seeds)}


def random_target(random: np.random.Generator, images: int, num_classes: int) -> Counts:
    """Draw target pixels [images, num_classes]; a class appears in most images."""
    present = random.random((images, num_classes)) < 0.8
    return random.integers(50, 5000, (images, num_classes)) * present


def _trial(random: np.random.Generator, target: Counts, skill: float) -> Counts:
    hit = random.binomial(target, np.clip(skill + 0.1 * random.standard_normal(target.shape), 0.01, 0.99))
    return np.stack((hit, hit + random.integers(0, 800, target.shape), target), axis=-1)
