"""The sheet of images and labels: its content and layout, and augmented versions equal to those of training."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fcnlab.config.augmentation import ColorJitter
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.base import Sample
from fcnlab.data.datasets.palette import voc_palette
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.decoded import DecodedSplit
from fcnlab.data.inspection.preview import (
    GAP,
    HEADING,
    OPACITY,
    WIDTH,
    SheetItem,
    choose_samples,
    create_rows,
    draw_sheet,
)

SHAPES = Shapes(train=6, val=2, test=2, height=40, width=WIDTH, seed=0)
TRAIN = SHAPES.split("train")


def shown(sample: Sample) -> SheetItem:
    return SheetItem("image", sample.id, sample.image, sample.label)


def test_the_seed_selects_distinct_images_in_their_order() -> None:
    chosen = {seed: choose_samples(TRAIN, 4, seed) for seed in range(8)}
    assert all(c == sorted(set(c)) and len(c) == 4 for c in chosen.values())
    assert chosen[0] == choose_samples(TRAIN, 4, 0) and len({tuple(c) for c in chosen.values()}) > 1
    assert choose_samples(TRAIN, 99, 0) == list(range(6))


def test_image_and_label_are_side_by_side() -> None:
    samples = [TRAIN[0], TRAIN[1]]  # as wide as the sheet shows them: nothing is resized
    page = np.asarray(draw_sheet([[shown(sample)] for sample in samples], SHAPES.classes, voc_palette())).astype(int)
    assert page.shape[1] == 2 * (WIDTH + GAP) + GAP
    for number, sample in enumerate(samples):
        y = HEADING + number * (page_row := 40 + 20 + GAP)
        assert page_row == 66
        np.testing.assert_array_equal(page[y : y + 40, GAP : GAP + WIDTH], sample.image)
        over = page[y : y + 40, 2 * GAP + WIDTH : 2 * (GAP + WIDTH)]
        gray = np.round(sample.image @ np.array([0.299, 0.587, 0.114]))
        expected = OPACITY * voc_palette()[sample.label] + (1 - OPACITY) * gray[..., None]
        np.testing.assert_allclose(over, expected, atol=1.6)


def test_the_legend_has_the_colors_of_the_occurring_classes_only() -> None:
    label = np.full((40, WIDTH), 2, np.uint8)
    label[:5] = IGNORE_INDEX
    page = np.asarray(
        draw_sheet(
            [[SheetItem("image", "x", np.zeros((40, WIDTH, 3), np.uint8), label)]], SHAPES.classes, voc_palette()
        )
    )
    legend = page[HEADING + 40 + 20 + GAP :].reshape(-1, 3)
    found = {tuple(int(v) for v in color) for color in legend}
    there = {c: tuple(round(OPACITY * int(v) + (1 - OPACITY) * 128) for v in voc_palette()[c]) for c in range(256)}
    assert there[2] in found and there[IGNORE_INDEX] in found
    assert not {there[c] for c in (1, 3, 4, 5)} & found  # 0 is a gray that letters have at their edges


def test_images_of_different_sizes_share_a_sheet() -> None:
    samples = [SheetItem("image", "x" * 200, np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8))
               for h, w in ((10, 400), (400, 10), (1, 1))]  # fmt: skip
    page = draw_sheet([[sample] for sample in samples], SHAPES.classes, voc_palette())
    assert page.height > 24 * WIDTH and page.width == 2 * (WIDTH + GAP) + GAP


@pytest.mark.parametrize("seed", [0, 3])
def test_augmented_versions_equal_those_of_a_trial_with_this_seed(seed: int) -> None:
    augment = Augmentation(
        (32, 32), (0.5, 2.0), 0.5, (124, 116, 104), ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    )
    made = create_rows(TRAIN, range(6), len(SHAPES.classes), augment=augment, draws=2, seed=seed)
    assert [len(row) for row in made] == [3] * 6
    batches = TrainingBatches(
        DecodedSplit(TRAIN), batch_size=6, augmentation=augment, mean=(0, 0, 0), std=(1, 1, 1), seed=seed,
        device=torch.device("cpu"),
    )  # fmt: skip
    for epoch in range(2):
        ((images, labels),) = batches.epoch(epoch)
        trained = {
            (np.rint(255 * image.permute(1, 2, 0).numpy()).astype(np.uint8).tobytes(), label.numpy().tobytes())
            for image, label in zip(images, labels, strict=True)
        }
        assert {(row[1 + epoch].image.tobytes(), row[1 + epoch].label.tobytes()) for row in made} == trained


def test_without_augmentation_a_row_contains_only_the_sample() -> None:
    ((only,),) = create_rows(TRAIN, [2], len(SHAPES.classes))
    np.testing.assert_array_equal(only.image, TRAIN[2].image)
    np.testing.assert_array_equal(only.label, TRAIN[2].label)
    assert only.caption == f"{TRAIN[2].id}  40x{WIDTH}"


def test_a_sheet_without_augmentation_does_not_import_torch() -> None:
    code = "import sys, fcnlab.data.inspection.preview; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout == "False\n"
