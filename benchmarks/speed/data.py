"""Timings of training batches: fcnlab's from the decoded split, the peer's from files by torchvision's transforms.v2.

On the CPU both run in one thread of one process. On CUDA fcnlab makes batches on the device; the peer makes them in
`WORKERS` processes and copies them to the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.speed import peer
from benchmarks.speed.machine import Machine, machine, synchronized, threads
from benchmarks.speed.pairs import Comparison, Timing, pairs, timed
from fcnlab.config.dataset import Dataset
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.base import FileSplit, Pair
from fcnlab.data.datasets.labels import IdDecoder
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import DataError
from fcnlab.lab import Lab

CROP, BATCH, SCALE = (320, 480), 8, (0.5, 2.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = 8
CPU = torch.device("cpu")
SIZE = (360, 480)
"""Height and width of generated images: those of CamVid."""


@dataclass(frozen=True)
class DataBench:
    """Timings of batches.

    Attributes:
        source: name of the images.
        images: number of images.
        batch: images per batch.
        crop: height x width of each image in a batch, as text.
        decoding: seconds per image to decode it, which fcnlab does once before training.
        memory: bytes of a decoded image with its label.
        comparisons: by kind of augmentation.
        machine: the machine.
        device: type of the device of the batches, `cpu` or `cuda`.
    """

    source: str
    images: int
    batch: int
    crop: str
    decoding: Timing
    memory: int
    comparisons: dict[str, Comparison]
    machine: Machine
    device: str = "cpu"

    def to_json(self) -> dict[str, Any]:
        """Return all results as plain values."""
        return {
            "source": self.source,
            "images": self.images,
            "batch": self.batch,
            "crop": self.crop,
            "device": self.device,
            "once": {"seconds_per_image": vars(self.decoding), "bytes_per_image": self.memory},
            "comparisons": {name: comparison.to_json() for name, comparison in self.comparisons.items()},
            "machine": self.machine.to_json(),
        }

    def notes(self) -> list[str]:
        """Return notes on the table, one per line."""
        once = f"{1000 * self.decoding.wall:.2f} ms and {self.memory / 2**20:.2f} MiB per image"
        return [
            f"Not included: fcnlab decodes each image once, before training: {once}.",
            "The peer decodes it each time: a torch Dataset with Pillow, and torchvision.transforms.v2.",
            f"Batches on {self.device}; workers of the peer: {0 if self.device == 'cpu' else WORKERS}.",
            f"Medians of {len(next(iter(self.comparisons.values())).ours_timings)} alternating pairs.",
            *self.machine.lines(),
        ]


def compare(lab: Lab, *, images: int, repeats: int, device: torch.device = CPU) -> DataBench:
    """Time batches from CamVid's training images, or from generated ones if the lab has no data root.

    Args:
        lab: the lab.
        images: number of images.
        repeats: number of pairs of timings.
        device: device of the batches.

    Raises:
        DataError: the data root has no CamVid, or there are fewer images than in a batch.
        RunError: this is not a checkout, so the peer is missing.
    """
    if images < BATCH:
        raise DataError(f"--images {images}: a batch has {BATCH}; give {BATCH} or more")
    theirs = peer("data")
    with threads(1), _split(lab, images) as (source, split):
        decoded = DecodedSplit(split)
        decoding = timed(lambda: _decode_all(decoded))
        files = [(pair.image, pair.mask) for pair in split.pairs]
        short = min(decoded[0].label.shape)
        found = {}
        for name, scale in (("crop, flip", None), (f"scale {SCALE[0]} to {SCALE[1]}, crop, flip", SCALE)):
            resize = (int(scale[0] * short), int(scale[1] * short)) if scale else None
            batches = theirs.loader(files, CROP, BATCH, resize, 0 if device.type == "cpu" else WORKERS)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the peer draws from torch's own stream
                ours = synchronized(_epochs(_ours(decoded, scale, device)), device)
                peers = synchronized(_epochs(partial(_copied, batches, device)), device)
                found[name] = pairs(ours, peers, repeats)
        memory = sum(decoded[index].nbytes for index in range(len(decoded))) // len(decoded)
        crop = f"{CROP[0]}x{CROP[1]}"
        return DataBench(source, len(split), BATCH, crop, decoding, memory, found, machine(), device.type)


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
        yield "generated shapes", _written(Path(folder), images)


def _written(folder: Path, images: int) -> FileSplit:
    """Write generated scenes as JPEG images and PNG masks."""
    shapes = Shapes(train=images, val=1, test=1, height=SIZE[0], width=SIZE[1], seed=0)
    written = []
    for sample in shapes.split("train"):
        pair = Pair(sample.id, folder / f"{sample.id}.jpg", folder / f"{sample.id}.png")
        Image.fromarray(sample.image).save(pair.image, quality=92)
        Image.fromarray(sample.label).save(pair.mask)
        written.append(pair)
    return FileSplit(written, IdDecoder([[number] for number in range(len(shapes.classes))], [IGNORE_INDEX]))


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
