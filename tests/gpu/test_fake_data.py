"""Tests of augmentation and evaluation on symbolic CUDA tensors: one device, and few waits."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.data import resident as module
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.decoded import DecodedSplit
from fcnlab.data.resident import DeviceSplit
from fcnlab.metrics.summary import compute_metrics
from fcnlab.training.evaluate import evaluate_split
from fcnlab.training.prediction import predict_classes
from fcnlab.training.protocol import Protocol
from tests.gpu.fake import CUDA, Watch, fake_cuda
from tests.gpu.test_fake_training import symbolic_model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PLAIN = Augmentation(crop=(48, 64), scale=None, flip=0.5, fill=(124, 116, 104))
AUGMENTATIONS: dict[str, Augmentation] = {
    "crop and flip": PLAIN,
    "padded": replace(PLAIN, crop=(128, 160)),
    "scale": replace(PLAIN, scale=(0.5, 2.0)),
    "jitter": replace(PLAIN, jitter=ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)),
    "rotation": replace(PLAIN, rotate=20.0),
    "blur": replace(PLAIN, blur=GaussianBlur(probability=1.0, sigma=(0.5, 1.5))),
    "another crop where one class dominates": replace(PLAIN, cat_max_ratio=0.75),
}


def decoded(images: int) -> DecodedSplit:
    """Return decoded samples: real tensors on the CPU."""
    shapes = Shapes(train=images, val=1, test=1, height=72, width=96, seed=0)
    split = DecodedSplit(shapes.split("train"))
    assert all(split[index].image.device.type == "cpu" for index in range(images))
    return split


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_does_not_wait_for_the_device(name: str, resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVICE_SHARE", 0.25 if resident else 0)
    split = decoded(5)
    with fake_cuda() as watch:
        with watch.build():
            on_device = module.move_to_device(split, CUDA)
            assert isinstance(on_device, DeviceSplit) and on_device.resident == resident
            batches = TrainingBatches(
                on_device, batch_size=2, augmentation=AUGMENTATIONS[name], mean=MEAN, std=STD, seed=0, device=CUDA
            )
        for epoch in (0, 1):
            produced = list(batches.epoch(epoch))
            assert len(produced) == 2
            for images, labels in produced:
                assert images.device == labels.device == CUDA
                assert images.shape == (2, 3, *AUGMENTATIONS[name].crop) and images.dtype == torch.float32
                assert images.is_contiguous(memory_format=torch.channels_last)
                assert labels.shape == (2, *AUGMENTATIONS[name].crop) and labels.dtype == torch.uint8
    assert watch.outputs > 20


COUNTS = {
    "training/evaluate.py:_in_split_order": "copies the counts of a whole split to the host, once",
    "training/evaluate.py:_read_flag": "reads once, at the end of a split, whether a score was nan",
    "metrics/confusion.py:count_joint": "a histogram of the fallback; the Triton kernel does not wait",
}
"""Functions that may wait for the device during evaluation, with the reason."""

PROTOCOLS = {
    "plain": Protocol(),
    "scales and flips": Protocol(scales=(0.5, 1.0), flip=True),
    "windows": Protocol(window=(32, 48), stride=(32, 32)),
}


def evaluated(watch: Watch, split: DecodedSplit, **options: Any) -> Any:
    with patch("fcnlab.training.evaluate.CUDA_MAX_BATCH_SIZE", 2):
        return evaluate_split(
            symbolic_model(watch, "fcn8s"),
            split,
            num_classes=5,
            autocast=nullcontext,
            **options,
        )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_evaluation_waits_once_for_areas_and_once_for_boundaries(name: str) -> None:
    split = decoded(7)
    with fake_cuda(COUNTS) as watch:
        counts = evaluated(watch, split, boundaries=True, protocol=PROTOCOLS[name])
    assert counts.areas.shape == counts.boundaries.shape == (7, 5, 3)
    assert [seen.function for seen in watch.seen].count("training/evaluate.py:_in_split_order") == 2
    assert {seen.function for seen in watch.seen} == COUNTS.keys()
    assert compute_metrics(counts.areas).class_iou


def test_evaluation_waits_only_for_requested_predictions() -> None:
    split, received = decoded(6), []
    function = "training/evaluate.py:_pass_predictions"
    allowed = COUNTS | {function: "copies a batch of requested predictions"}

    def keep(index: int, prediction: Tensor) -> None:
        assert prediction.device.type == "cpu"
        received.append(index)

    with fake_cuda(allowed) as watch:
        evaluated(watch, split, on_prediction=keep, prediction_indices=range(3))
    assert received == [0, 1, 2]
    assert [seen.function for seen in watch.seen].count(function) == 2  # of three batches


def test_predictions_stay_on_the_device() -> None:
    with fake_cuda():
        predicted = predict_classes(torch.empty(2, 5, 8, 9, device=CUDA))
        assert (predicted.device, predicted.dtype, predicted.shape) == (CUDA, torch.uint8, (2, 8, 9))
