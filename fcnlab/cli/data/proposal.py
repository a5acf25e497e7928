"""The registry entry of `fcnlab data add`, from the contents of the folders and the options of the command."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fcnlab.config.dataset import CrossValidation, Fractions
from fcnlab.config.dataset import Dataset as DatasetConfig
from fcnlab.config.mask_values import to_yaml_classes
from fcnlab.config.validation import validate
from fcnlab.console import format_count
from fcnlab.data.cache.format import compute_cache_key
from fcnlab.data.cache.label_counts import save_label_counts
from fcnlab.data.datasets.base import Dataset, FileSplit
from fcnlab.data.datasets.image_file import SIXTEEN_BITS, open_header
from fcnlab.data.datasets.splits import SPLIT, common_splits
from fcnlab.data.inspection.absent_classes import check_absent_classes, find_absent_classes
from fcnlab.data.inspection.class_values import ClassChoice, count_split_labels
from fcnlab.data.inspection.diagnosis import read_mask_palette
from fcnlab.data.inspection.mixed_masks import describe_mixed_masks, find_foreground, suggest_names
from fcnlab.data.inspection.pair_contents import Contents
from fcnlab.data.inspection.pairing import Pairing, match_purposes
from fcnlab.data.inspection.split_warnings import (
    warn_of_ignored_pixels,
    warn_of_palettes,
    warn_of_repeated_images,
    warn_of_rotations,
    warn_of_shared_masks,
    warn_of_unused_images,
    warn_of_values,
)
from fcnlab.errors import ConfigError, DataError
from fcnlab.lab import Lab
from fcnlab.paths import expand_home, is_file, resolve_path

_USUAL = {("train", "train"), ("val", "val")}
"""Default splits of the purposes; an entry does not list them."""


def build_entry(
    lab: Lab,
    folders: tuple[str, str],
    pairing: Pairing,
    contents: Contents,
    choice: ClassChoice,
    splits: dict[str, Any],
    *,
    skip_unpaired: bool,
) -> dict[str, Any]:
    """Return the entry.

    Args:
        lab: the lab, to whose folders paths are relative.
        folders: folders of the images and the masks.
        pairing: the pairs in them.
        contents: statistics of the pairs.
        choice: meaning of the values of the masks.
        splits: keys of the entry about splits.
        skip_unpaired: leave out images without a mask.
    """
    named = choice.classes
    plain = [values for _, values in named] == [(number,) for number in range(len(named))]
    entry: dict[str, Any] = {
        "description": f"{format_count(len(pairing.pairs), 'image')}, {len(named)} classes",
        "type": "folder",
        "images": _shorten_path(folders[0], (lab.data_root, lab.root), lab.find_data_folder),
        "masks": _shorten_path(folders[1], (lab.data_root, lab.root), lab.find_data_folder),
        "image_suffix": pairing.image_suffix,
        "mask_suffix": pairing.mask_suffix,
        "unpaired": "skip" if skip_unpaired else "",
        "classes": [name for name, _ in named] if plain else to_yaml_classes(named),
        "ignore": choice.ignored,
    }
    entry = {key: value for key, value in entry.items() if value}
    entry |= splits | _describe_images(contents) | (_describe_colors(pairing, choice) if contents.modes["P"] else {})
    return entry | {"nominal": dict(zip(("height", "width"), contents.size, strict=True))}


def _describe_colors(pairing: Pairing, choice: ClassChoice) -> dict[str, Any]:
    """Return the colors of the classes in the palette of the first mask that has one.

    A palette of grays or of equal colors is left out, and so are the masks' colors, which the classes already contain.
    """
    for _, file in pairing.pairs.values():
        with open_header(file) as mask:
            palette = read_mask_palette(mask)
        if palette is None:
            continue
        numbers = [values[0] for _, values in choice.classes]
        colors = [palette[3 * number : 3 * number + 3] for number in numbers if isinstance(number, int)]
        is_gray = all(color == bytes([color[0]]) * 3 for color in colors if color)
        if len({*colors}) < len(choice.classes) or any(len(color) < 3 for color in colors) or is_gray:
            break
        return {"colors": {name: f"#{color.hex()}" for (name, _), color in zip(choice.classes, colors, strict=True)}}
    return {}


def _describe_images(contents: Contents) -> dict[str, Any]:
    """Return the keys of the entry for images that are not RGB of 8 bits."""
    channels, value_range = contents.images.image_format.channels, contents.images.value_range
    entry: dict[str, Any] = {"channels": channels} if channels != 3 else {}
    if value_range not in (None, SIXTEEN_BITS):
        entry["value_range"] = list(value_range)
    return entry


def find_warnings(
    dataset: Dataset, spec: DatasetConfig, contents: Contents, choice: ClassChoice, whole: str | None
) -> list[str]:
    """Return warnings about images and masks that may be wrong, values that no mask contains, and absent classes.

    Args:
        dataset: the new dataset.
        spec: its entry.
        contents: statistics of the pairs.
        choice: meaning of the values.
        whole: folder of the images whose sub-folders were found to be the splits; None for other splits.

    Raises:
        DataError: a class has no pixel in the training split.
    """
    absent = [
        f"--ignore {value}: no mask contains this value" for value in choice.ignored if value not in contents.pixels
    ]
    counts, splits = {}, {}
    for name in spec.used_splits:
        split = dataset.split(name)
        assert isinstance(split, FileSplit)
        splits[name] = split
        key = compute_cache_key(dataset, name)  # names a file that is missing, because it is in a list
        counts[name] = count_split_labels(split, contents, choice)
        save_label_counts(key, counts[name])
    return [
        *absent,
        *warn_of_rotations(contents.images.rotated),
        *warn_of_values(contents.images),
        *warn_of_palettes(contents),
        *warn_of_ignored_pixels(contents, {value for _, values in choice.classes for value in values}),
        *warn_of_repeated_images(splits),
        *warn_of_shared_masks(splits),
        *(warn_of_unused_images(Path(whole), spec.used_splits) if whole is not None else ()),
        *check_absent_classes(find_absent_classes(dataset.classes, counts), spec.splits.train, "--classes"),
    ]


def describe_mixture(contents: Contents, choice: ClassChoice) -> str | None:
    """Describe binary masks of two kinds, with the classes to write; None if 255 is not ignored in some of them."""
    foreground = find_foreground([values for _, values in choice.classes], choice.ignored)
    if foreground is None:
        return None
    value_sets = Counter(frozenset(int(value) for value in pixels) for pixels in contents.by_mask.values())
    what = describe_mixed_masks(value_sets, foreground)
    if what is None:
        return None
    background, object_name = suggest_names([name for name, _ in choice.classes], foreground)
    option = shlex.quote(f"{background}=0,{object_name}={foreground}+255")
    in_yaml = f"classes: {{{background}: 0, {object_name}: [{foreground}, 255]}}"
    return f"{what} If it is, pass --classes {option} (in YAML: `{in_yaml}`)"


def find_lists(folder: Path) -> dict[str, Path]:
    """Return the lists train.txt, val.txt and optionally test.txt of a folder, or train_list.txt and so on, by split.

    Raises:
        DataError: train.txt or val.txt is missing.
    """
    folder = resolve_path(expand_home(folder))
    lists: dict[str, Path] = {}
    for split in ("train", "val", "test"):
        names = [folder / f"{split}.txt", folder / f"{split}_list.txt"]
        file = next((name for name in names if is_file(name)), None)
        if file is not None:
            lists[split] = file
        elif split != "test":
            raise DataError(f"{names[0]}: no such file; --lists requires a folder with train.txt and val.txt")
    return lists


def list_splits(lab: Lab, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the splits of the entry by lists."""
    roots = (lab.root, lab.data_root)
    lists = {split: _shorten_path(str(file), roots, lab.find_list) for split, file in files.items()}
    return {"lists": lists} | ({"splits": {"test": "test"}} if "test" in files else {})


def choose_splits(
    folders: tuple[str, str],
    val: float | None,
    test: float | None,
    folds: int | None,
    seed: int,
    group_by: str | None,
) -> dict[str, Any]:
    """Return splits by sub-folders if the folders contain `{split}`, and random splits or folds otherwise.

    Raises:
        ConfigError: an option is invalid.
        DataError: no two sub-folders are known as training and evaluation splits.
    """
    if SPLIT not in folders[0]:
        if val == 0:
            raise ConfigError("--val 0: the validation fraction must be above 0, such as --val 0.1")
        if folds is not None:
            parts = {"folds": folds, "val": val, "seed": seed, "group_by": group_by}
            given = {key: value for key, value in parts.items() if value}
            validate(CrossValidation, given, "--folds, --val, --group-by")
            return {"cross_validation": given} | ({"splits": {"test": "test"}} if val else {})
        if val is None and test is None:
            test = 0.15
        shares = {"val": 0.15 if val is None else val, "test": test, "seed": seed, "group_by": group_by}
        given = {key: value for key, value in shares.items() if value}
        validate(Fractions, given, "--val, --test, --group-by")
        return {"fractions": given} | ({"splits": {"test": "test"}} if test else {})
    named = match_purposes(common_splits(*folders))
    if "train" not in named or len(named) < 2:
        raise DataError(f"{folders[0]}: found no folders for the splits train and val")
    if "val" not in named:  # the metrics are reported on the only other split
        named["val"] = named.pop("test")
    other = {purpose: split for purpose, split in named.items() if (purpose, split) not in _USUAL}
    return {"splits": other} if other else {}


def _shorten_path(path: str, roots: Iterable[Path | None], find: Callable[[str], Path]) -> str:
    """Return a path relative to the lab or the data root, so that the entry is valid on other machines.

    Args:
        path: an absolute path.
        roots: the lab and the data root, or None, in the order of preference.
        find: function that finds a relative path again.

    Returns:
        The relative path if it is found at the same place again; else the absolute path: the lab may contain another
        folder with the same relative path.
    """
    for root in roots:
        if root is not None and Path(path).is_relative_to(root):
            relative = str(Path(path).relative_to(root))
            with suppress(DataError):  # it is not found
                if find(relative) == Path(path):
                    return relative
    return path
