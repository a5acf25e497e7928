"""Datasets of type folder for tests, from the fields of their entries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnlab.config.dataset import FolderDataset
from fcnlab.data.datasets.folder import Folder


def open_folder(root: Path, lists: Mapping[str, Path] | None = None, **fields: Any) -> Folder:
    """Open a dataset of type folder.

    Args:
        root: folder in which `images` and `masks` are.
        lists: lists of ids by split.
        **fields: keys of the entry; by default, `images` and `masks` have the same names, and the classes a and b the
            values 0 and 1. Half of the images are `val`, unless the splits are given otherwise.
    """
    entry: dict[str, Any] = {"images": "images", "masks": "masks", "classes": ["a", "b"]} | fields
    if lists:
        splits = tuple(lists)
        entry["lists"] = {split: str(file) for split, file in lists.items()}
        entry["splits"] = {"train": splits[0], "val": splits[-1]}
    elif "{split}" not in entry["images"]:
        entry = {"fractions": {"val": 0.5}} | entry if "cross_validation" not in fields else entry
    if "test" in (entry.get("fractions") or {}):
        entry["splits"] = {"test": "test"}
    spec = FolderDataset.model_validate({"type": "folder", "nominal": {"height": 4, "width": 5}} | entry)
    return Folder(spec, root / spec.images, root / spec.masks, lists)
