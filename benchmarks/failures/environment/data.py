"""A dataset that changes while a grid runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.failures.environment.commands import (
    Workbench,
    find_problems,
    make_lab,
    read_table,
    set_environment,
)

ENTRY = """
blobs:
  type: folder
  images: data/images
  masks: data/masks
  splits: {train: train, val: val}
  lists: {train: data/train.txt, val: data/val.txt}
  nominal: {height: 64, width: 64}
  classes: {background: 0, object: 1}
"""
Change = Callable[[Path], object]


def make_data_lab(folder: Path, seed: int = 0) -> None:
    """Write a lab with a dataset of image files.

    Args:
        folder: the new folder.
        seed: seed of the images.
    """
    make_lab(folder, "blobs")
    (folder / "registry").mkdir()
    (folder / "registry" / "datasets.yaml").write_text(ENTRY, encoding="utf-8")
    random = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / "data" / kind).mkdir(parents=True)
    for number in range(12):
        write_sample(folder, f"{number:02}", random)
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        (folder / "data" / f"{split}.txt").write_text("".join(f"{number:02}\n" for number in numbers))


def write_sample(lab: Path, name: str, random: np.random.Generator) -> None:
    """Write an image and its mask.

    Args:
        lab: the lab.
        name: id of the sample.
        random: source of its pixels.
    """
    mask = np.zeros((64, 64), np.uint8)
    top, left = random.integers(0, 32, 2)
    mask[top : top + 24, left : left + 24] = 1
    image = random.integers(0, 120, (64, 64, 3)).astype(np.uint8) + 100 * mask[..., None]
    Image.fromarray(image).save(lab / "data" / "images" / f"{name}.bmp")
    Image.fromarray(mask).save(lab / "data" / "masks" / f"{name}.bmp")


def replace_image(lab: Path) -> None:
    """Replace an image of train by another file."""
    file = lab / "data" / "images" / "03.bmp"
    new = file.with_suffix(".new")
    Image.fromarray(255 - np.array(Image.open(file))).save(new, format="bmp")
    os.replace(new, file)


def overwrite_in_place(lab: Path) -> None:
    """Overwrite an image of train in place; its size, its inode and its modification time are those before."""
    file = lab / "data" / "images" / "03.bmp"
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[60:9000] = bytes(8940)
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_mask(lab: Path) -> None:
    """Change a mask of val."""
    file = lab / "data" / "masks" / "09.bmp"
    Image.fromarray(1 - np.array(Image.open(file))).save(file)


def delete_image(lab: Path) -> None:
    """Delete an image of train."""
    (lab / "data" / "images" / "05.bmp").unlink()


def extend_list(lab: Path) -> None:
    """Move a sample from val to train."""
    for split, numbers in (("train", range(9)), ("val", range(9, 12))):
        (lab / "data" / f"{split}.txt").write_text("".join(f"{number:02}\n" for number in numbers))


def add_sample(lab: Path) -> None:
    """Add a sample, also to the list of train."""
    write_sample(lab, "99", np.random.default_rng(99))
    with (lab / "data" / "train.txt").open("a") as opened:
        opened.write("99\n")


CHANGES: tuple[Change, ...] = (replace_image, overwrite_in_place, change_mask, delete_image, extend_list, add_sample)


def change_in_mid_grid(bench: Workbench, change: Change, moment: str, *, cached: bool = True) -> list[str]:
    """Change a dataset while its grid runs, and run the grid again with the changed and with the original data.

    Args:
        bench: the workbench.
        change: changes the files of a lab.
        moment: `between`, after the first trial has ended, or `inside`, after its first epoch.
        cached: whether decoded images are cached, so that trials do not read the files.
    """
    lab = bench.root / f"data{time.monotonic_ns()}"
    make_data_lab(lab)
    backup = lab.with_name(f"{lab.name}.backup")
    shutil.copytree(lab / "data", backup)
    budget = partial(set_environment, FCNLAB_CACHE_BUDGET=None if cached else "0")
    file = {"between": "record.json", "inside": "progress.jsonl"}[moment]
    ended = bench.run(lab, prepare=budget, during=lambda: _change_after(lab, file, change))
    bad = find_problems(ended, 2, mentions="has changed since this trial was planned")
    old = {path.parent.name for path in lab.glob("runs/*/record.json")}
    if change is delete_image:
        bad += find_problems(bench.run(lab, prepare=budget), 2, mentions="05")
    else:
        bad += find_problems(bench.run(lab, prepare=budget), 0) + _compare(bench, lab, change, budget)
        new = {path.parent.name for path in lab.glob("runs/*/record.json")} - old
        bad += [f"{2 - len(new)} trials of the old data are in the new table"] if len(new) != 2 else []
    shutil.rmtree(lab / "data")
    shutil.copytree(backup, lab / "data")
    bad += find_problems(bench.run(lab, prepare=budget), 0) + _compare(bench, lab, lambda _: None, budget)
    return bad


def _change_after(lab: Path, file: str, change: Change) -> None:
    """Wait until a run folder has a file that is not empty, and change the data."""
    deadline = time.monotonic() + 120
    while not any(found.stat().st_size for found in lab.glob(f"runs/*/{file}")) and time.monotonic() < deadline:
        time.sleep(0.002)
    change(lab)


def _compare(bench: Workbench, lab: Path, change: Change, budget: Callable[[], object]) -> list[str]:
    """Return how the table of a lab differs from that of an undisturbed run with the same data."""
    key = getattr(change, "__name__", "original")
    calm = bench.root / f"calm-{key}"
    if not calm.exists():
        make_data_lab(calm)
        change(calm)
        if problems := find_problems(bench.run(calm, prepare=budget), 0):
            return problems
    return [] if read_table(calm).equals(read_table(lab)) else [f"another table:\n{read_table(lab)}"]
