from __future__ import annotations

import io

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix

from fcnlab.metrics.confusion import count_joint
from fcnlab.report.confusion import confusion_frame, describe_confusions
from fcnlab.report.tables.csv_text import to_csv_text


def test_the_matrix_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 5, (3, 20, 30)), random.integers(0, 4, (3, 20, 30))
    labels[labels == 4] = 255
    joint = count_joint(torch.tensor(predictions).byte(), torch.tensor(labels).byte(), 4, 5)[:, :4].sum(0)
    labeled = labels != 255
    assert np.array_equal(joint, confusion_matrix(labels[labeled], predictions[labeled]))


def test_the_other_classes_of_a_class_are_sorted_by_their_shares() -> None:
    pixels = np.array([[60, 10, 0, 30], [0, 100, 0, 0], [0, 0, 0, 0], [25, 25, 25, 25]])
    assert describe_confusions(pixels, ("sky", "road", "car", "tree"), most=2) == [
        ("sky", "33.3", "60.0", "tree 30.0, road 10.0"),
        ("road", "33.3", "100.0", "–"),
        ("tree", "33.3", "25.0", "sky 25.0, road 25.0"),
    ]


def test_the_file_has_one_row_per_label_also_for_a_class_named_label() -> None:
    pixels = np.arange(9).reshape(3, 3)
    text = to_csv_text(confusion_frame(pixels, ("label", "b", "=c")))
    rows = pd.read_csv(io.StringIO(text), header=None)
    assert rows.iloc[0].tolist() == ["label", "label", "b", "'=c"]
    assert rows.iloc[1:, 0].tolist() == ["label", "b", "'=c"]
    assert np.array_equal(rows.iloc[1:, 1:].to_numpy().astype(int), pixels)
