"""Counts to test with."""

from __future__ import annotations

import numpy as np

from fcnlab.metrics.confusion import Counts


def random_cell(random: np.random.Generator, target: Counts, seeds: int, skill: float = 0.7) -> dict[int, Counts]:
    """A cell on images with these target pixels [images, classes]: what is hit and what else is predicted is random."""
    return {seed: _trial(random, target, skill + 0.02 * random.standard_normal()) for seed in range(seeds)}


def random_target(random: np.random.Generator, images: int, classes: int) -> Counts:
    """Target pixels [images, classes]; a class is in most images."""
    there = random.random((images, classes)) < 0.8
    return random.integers(50, 5000, (images, classes)) * there


def _trial(random: np.random.Generator, target: Counts, skill: float) -> Counts:
    hit = random.binomial(target, np.clip(skill + 0.1 * random.standard_normal(target.shape), 0.01, 0.99))
    return np.stack((hit, hit + random.integers(0, 800, target.shape), target), axis=-1)
