"""Write images of VOC's sizes, in the layout of PASCAL VOC 2012, for benchmarks on machines without datasets.

    python -m benchmarks.gpu.images FOLDER --photos CAMVID --train 1464 --val 1449

FOLDER/VOCdevkit/VOC2012 holds JPEG images of quality 92, palette masks and the lists of train and val; FOLDER is a data
root for the registry's `voc2012`. FOLDER/train.txt and val.txt list an image and its mask per line, separated by a tab,
for benchmarks/peers/run_one.py. With `--photos`, a folder in CamVid's layout (`train` and `trainannot`, and so on), the
images are resized crops of its photographs with their labels, spread over VOC's classes; otherwise they are generated
scenes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processes import end_with_parent
from benchmarks.speed.images import make_scene, write_sample
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pair

SIZES = (((375, 500), 0.70), ((500, 375), 0.18), ((333, 500), 0.12))
"""Height and width of an image, and the share of all images that have it."""
UNLABELLED = 11
"""CamVid's label of pixels that do not count."""
UPPER = 10
"""Added to the labels of every second crop of a photograph, so that all classes occur: 0 to 10, and 10 to 20."""
SUFFIXES = (".jpg", ".jpeg", ".png")


def write_voc(
    folder: Path,
    counts: dict[str, int],
    photos: Path | None = None,
    sizes: Sequence[tuple[tuple[int, int], float]] = SIZES,
    processes: int | None = None,
) -> str:
    """Write the images of all splits and return a description of them.

    Args:
        folder: becomes a data root.
        counts: images by split.
        photos: folder in CamVid's layout; None for generated scenes.
        sizes: heights and widths with their shares of the images.
        processes: number of processes that write; by default one per core.
    """
    found = list_photos(photos) if photos is not None else []
    kit = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (kit / name).mkdir(parents=True, exist_ok=True)
    ids = {split: [f"{split}_{number:06}" for number in range(count)] for split, count in counts.items()}
    jobs = [(seed, name) for seed, name in enumerate(name for names in ids.values() for name in names)]
    write = partial(_write, kit=kit, found=found, sizes=sizes)
    with multiprocessing.get_context("spawn").Pool(processes or len(os.sched_getaffinity(0))) as pool:
        pool.starmap(write, jobs, chunksize=16)
    for split, names in ids.items():
        listed = "".join(f"{name}\n" for name in names)
        (kit / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listed, encoding="utf-8")
        files = [(kit / "JPEGImages" / f"{name}.jpg", kit / "SegmentationClass" / f"{name}.png") for name in names]
        lines = "".join(f"{image.resolve()}\t{mask.resolve()}\n" for image, mask in files)
        (folder / f"{split}.txt").write_text(lines, encoding="utf-8")
    kind = f"crops of {len(found)} photographs" if found else "generated scenes"
    return f"{kind} in VOC's sizes"


def list_photos(photos: Path) -> list[Pair]:
    """Return the photographs of a folder in CamVid's layout that have labels.

    Args:
        photos: the folder.

    Raises:
        FileNotFoundError: there are none.
    """
    found = []
    for masks in sorted(photos.glob("*annot")):
        images = photos / masks.name.removesuffix("annot")
        for image in sorted(path for path in images.glob("*") if path.suffix.lower() in SUFFIXES):
            mask = masks / f"{image.stem}.png"
            if mask.is_file():
                found.append(Pair(image.stem, image, mask))
    if not found:
        raise FileNotFoundError(f"{photos}: no photographs with labels, such as train/x.jpg and trainannot/x.png")
    return found


def _write(
    seed: int, name: str, *, kit: Path, found: list[Pair], sizes: Sequence[tuple[tuple[int, int], float]]
) -> None:
    rng = np.random.default_rng(seed)
    shares = np.array([share for _, share in sizes])
    size = sizes[rng.choice(len(sizes), p=shares / shares.sum())][0]
    if found:
        image, labels = _cropped(found[int(rng.integers(len(found)))], size, rng)
        labels[labels != IGNORE_INDEX] += UPPER * (seed % 2)
    else:
        scene = make_scene(seed, size)
        image, labels = Image.fromarray(scene.image), scene.label
    write_sample(
        image, labels, Pair(name, kit / "JPEGImages" / f"{name}.jpg", kit / "SegmentationClass" / f"{name}.png")
    )


def _cropped(source: Pair, size: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Return a random crop of a photograph, resized and perhaps flipped, and its labels."""
    height, width = size
    with Image.open(source.image) as opened, Image.open(source.mask) as opened_mask:
        image, mask = opened.convert("RGB"), opened_mask.copy()
    largest = min(image.width / width, image.height / height)
    scale = largest * rng.uniform(0.7, 1.0)
    left, top = rng.uniform(0, image.width - scale * width), rng.uniform(0, image.height - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    labels = np.array(mask.resize((width, height), Image.Resampling.NEAREST, box=box))
    labels[labels >= UNLABELLED] = IGNORE_INDEX
    if rng.random() < 0.5:
        image, labels = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), np.ascontiguousarray(labels[:, ::-1])
    return image, labels


def sizes_of(text: str) -> Iterator[tuple[tuple[int, int], float]]:
    """Read sizes such as `96x128,128x96`, in equal shares.

    Args:
        text: sizes, separated by commas.

    Yields:
        Height and width, and the share of all images.
    """
    for size in text.split(","):
        height, width = map(int, size.split("x"))
        yield (height, width), 1.0


def main() -> None:
    """Write the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, help="folder in CamVid's layout")
    parser.add_argument("--train", type=int, default=1464, help="images of the training split")
    parser.add_argument("--val", type=int, default=1449, help="images of the validation split")
    parser.add_argument("--sizes", help="heights and widths such as 96x128,128x96 [default: VOC's]")
    parser.add_argument("--processes", type=int, help="how many write at once [default: one per core]")
    given = parser.parse_args()
    began = time.perf_counter()
    sizes = tuple(sizes_of(given.sizes)) if given.sizes else SIZES
    counts = {"train": given.train, "val": given.val}
    about = write_voc(given.folder, counts, given.photos, sizes, given.processes)
    print(f"{given.train} + {given.val} {about}, {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    end_with_parent()
    main()
