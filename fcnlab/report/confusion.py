"""The confusion matrix of an evaluation: which classes are predicted as which others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fcnlab.metrics.summary import divide

HEADINGS = ("class", "pixels %", "correct %", "predicted as, %")
"""Headings of the rows of `describe_confusions`."""


def confusion_frame(pixels: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return a confusion matrix as a frame, whose first column has the names of the labels.

    Args:
        pixels: pixels by label (rows) and prediction (columns), [num_classes, num_classes].
        classes: names of the classes.
    """
    frame = pd.DataFrame(pixels, columns=list(classes))
    frame.insert(0, "label", list(classes), allow_duplicates=True)
    return frame


def describe_confusions(pixels: NDArray[np.int64], classes: Sequence[str], most: int = 3) -> list[tuple[str, ...]]:
    """Describe as which other classes the pixels of each class are predicted.

    Args:
        pixels: pixels by label (rows) and prediction (columns), [num_classes, num_classes].
        classes: names of the classes.
        most: largest number of other classes, the most frequent first.

    Returns:
        For each labeled class its name, its share of the labeled pixels, the share of its pixels that is predicted
        correctly, and the other predicted classes with their shares.
    """
    labeled = pixels.sum(1).astype(np.float64)
    shares = 100 * divide(pixels.astype(np.float64), np.broadcast_to(labeled[:, None], pixels.shape))
    rows: list[tuple[str, ...]] = []
    for label in np.flatnonzero(labeled).tolist():
        by_pixels: list[int] = np.argsort(-pixels[label], kind="stable").tolist()
        others = [other for other in by_pixels if other != label and pixels[label, other]]
        predicted = ", ".join(f"{classes[other]} {shares[label, other]:.1f}" for other in others[:most])
        share = 100 * labeled[label] / labeled.sum()
        rows.append((classes[label], f"{share:.1f}", f"{shares[label, label]:.1f}", predicted or "–"))
    return rows
