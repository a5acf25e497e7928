"""Timings of training batches: fcnlab's from the decoded split, the peer's from files by torchvision's transforms.v2.

On the CPU both run in one thread of one process. On CUDA fcnlab makes batches on the device; the peer makes them in
`WORKERS` processes and copies them to the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import loader_options, peer
from benchmarks.speed.images import split_of, write_scenes
from benchmarks.speed.machine import machine, synchronized, threads
from benchmarks.speed.pairs import pairs, timed
from fcnlab.config.dataset import Dataset
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.base import FileSplit
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import DataError
from fcnlab.lab import Lab

CROP, BATCH, SCALE = (320, 480), 8, (0.5, 2.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = 8
CPU = torch.device("cpu")
SIZE = (360, 480)
"""Height and width of generated images: those of CamVid."""


def compare(lab: Lab, *, images: int, repeats: int, device: torch.device = CPU) -> dict[str, Any]:
    """Time batches from CamVid's training images, or from generated ones if the lab has no data root.

    Args:
        lab: the lab.
        images: number of images.
        repeats: number of pairs of timings.
        device: device of the batches.

    Returns:
        JSON-able results; `once` is what fcnlab does once before training.

    Raises:
        DataError: the data root has no CamVid, or there are fewer images than in a batch.
    """
    if images < BATCH:
        raise DataError(f"--images {images}: a batch has {BATCH}; give {BATCH} or more")
    theirs = peer("train_torchvision")
    loading = loader_options(device.type, 0 if device.type == "cpu" else WORKERS)
    with threads(1), _split(lab, images) as (source, split):
        decoded = DecodedSplit(split)
        decoding = timed(lambda: _decode_all(decoded))
        files = [(pair.image, pair.mask) for pair in split.pairs]
        short = min(decoded[0].label.shape)
        compared = {}
        for name, scale in (("crop, flip", None), (f"scale {SCALE[0]} to {SCALE[1]}, crop, flip", SCALE)):
            resize = (int(scale[0] * short), int(scale[1] * short)) if scale else None
            batches = theirs.loader(files, CROP, BATCH, loading, resize)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the peer draws from torch's own stream
                ours = synchronized(_epochs(_ours(decoded, scale, device)), device)
                peers = synchronized(_epochs(partial(_copied, batches, device)), device)
                compared[name] = pairs(ours, peers, repeats).to_json()
        memory = sum(decoded[index].nbytes for index in range(len(decoded))) // len(decoded)
        once = f"{1000 * decoding.wall:.2f} ms and {memory / 2**20:.2f} MiB per image"
        return {
            "source": source,
            "images": len(split),
            "batch": BATCH,
            "crop": f"{CROP[0]}x{CROP[1]}",
            "device": device.type,
            "once": {"seconds_per_image": vars(decoding), "bytes_per_image": memory},
            "comparisons": compared,
            "machine": vars(machine()),
            "notes": [
                f"{len(split)} images of {source} to batches of {BATCH} on {device.type}",
                f"not included: fcnlab decodes each image once, before training: {once}",
                "the peer decodes it each time: a torch Dataset with Pillow, and torchvision.transforms.v2, in "
                f"{loading['num_workers'] or 'no'} other processes",
            ],
        }


@contextmanager
def _split(lab: Lab, images: int) -> Iterator[tuple[str, FileSplit]]:
    """Open the first images as files; yield their name and the split."""
    if lab.data_root is not None:
        spec = lab.registry.get("dataset", "camvid")
        assert isinstance(spec, Dataset)
        split = lab.open_dataset(spec).split(spec.splits.train)
        assert isinstance(split, FileSplit), "CamVid is files"
        split.pairs = split.pairs[:images]
        split.ids = split.ids[:images]
        yield "CamVid", split
        return
    with TemporaryDirectory(prefix="fcnlab-bench-") as folder:
        yield "generated shapes", split_of(write_scenes(Path(folder), images, SIZE))


def _decode_all(decoded: DecodedSplit) -> int:
    for index in range(len(decoded)):
        decoded[index]
    return len(decoded)


def _ours(
    decoded: DecodedSplit, scale: tuple[float, float] | None, device: torch.device
) -> Callable[[int], Iterable[tuple[Tensor, Tensor]]]:
    red, green, blue = (round(255 * value) for value in MEAN)
    augmentation = Augmentation(CROP, scale, 0.5, (red, green, blue))
    return TrainingBatches(
        decoded, batch_size=BATCH, augmentation=augmentation, mean=MEAN, std=STD, seed=0, device=device
    ).epoch


def _copied(
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    epoch: int,  # noqa: ARG001 - the peer draws its own order
) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in batches:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _epochs(batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]]) -> Callable[[], int]:
    """Return a function that iterates over the next epoch and returns its number of images."""
    epochs = count()
    return lambda: sum(len(labels) for _, labels in batches(next(epochs)))
