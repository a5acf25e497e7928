"""A lab whose datasets of folders and weights file are below a data root, which a test can leave out or remove."""

from __future__ import annotations

from pathlib import Path

from fcnlab.lab import Lab
from tests.data.images import random_image, random_mask, save_image

_ENTRY = """
{name}:
  type: folder
  images: {name}/images
  masks: {name}/masks
  classes: [road, car]
  {splits}
  nominal: {{height: 6, width: 8}}
"""

FRACTIONS = "fractions: {val: 0.2, test: 0.2}\n  splits: {test: test}"
FOLDS = "cross_validation: {folds: 5}"

GRID = """
question: Does it run?
base: {backbone: mine, upsampler: bilinear, dataset: street, recipe: smoke}
product: {head: [fcn32s, fcn8s]}
seeds: 2
baseline: {head: fcn32s}
"""
"""Two cells with two seeds."""


def write_lab(folder: Path, splits: str = FRACTIONS, names: tuple[str, ...] = ("street",)) -> Lab:
    """Write the lab `folder/lab` and the data root `folder/data`.

    Args:
        folder: the folder.
        splits: keys of the registry entries that define the splits.
        names: names of the datasets, of ten images each.
    """
    root, data = folder / "lab", folder / "data"
    for number in range(10):
        for offset, name in enumerate(names):
            save_image(random_image(number + 100 * offset), data / name / "images" / f"{number}.png")
            save_image(random_mask(number, (0, 1)), data / name / "masks" / f"{number}.png")
    (data / "w.pth").write_bytes(b"weights")
    (root / "registry").mkdir(parents=True)
    entries = "".join(_ENTRY.format(name=name, splits=splits) for name in names)
    (root / "registry" / "datasets.yaml").write_text(entries)
    (root / "registry" / "backbones.yaml").write_text("mine: {timm: test_resnet, weights: w.pth}\n")
    return Lab.find(root=root, data_root=data)
