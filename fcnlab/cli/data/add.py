"""`fcnlab data add`: add folders of images and masks to the lab as a dataset."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import sample_bars
from fcnlab.console import create_console, format_table
from fcnlab.errors import ConfigError, DataError, RunError, list_some
from fcnlab.paths import exists, expand_home, is_folder, relative_to_cwd, resolve_path

if TYPE_CHECKING:
    from fcnlab.data.datasets.base import Dataset
    from fcnlab.data.inspection.class_values import ClassChoice
    from fcnlab.data.inspection.pair_contents import Contents
    from fcnlab.data.inspection.pairing import Pairing
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab data add mine --images ~/mine/images --masks ~/mine/masks --classes road,tree,sky"

RANDOM_SHARE = "0.15 if the splits are random"
"""Default of the options `--val` and `--test`."""

SWAPPED_PAIRS = 8
"""Number of pairs that are read to find out whether the folders of images and masks are swapped."""

MAX_SWAPPED_VALUES = 128
"""Maximum number of values of the masks in these pairs; gray photographs have more."""


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new dataset", show_default=False)],
    images: Annotated[
        str,
        typer.Option("--images", metavar="DIR", help="Folder of the images; {split} in it is the name of each split"),
    ],
    masks: Annotated[str, typer.Option("--masks", metavar="DIR", help="Folder of the masks, with the same file names")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="Class names in the order of the mask values: a,b,c; or with their values: a=0,b=1+255; or a file",
            show_default="placeholders",
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            metavar="VALUES",
            help="Ignored numbers, colors or classes, such as 255,11 or '#000000' or void",
            show_default="255, unless it is a class",
        ),
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION", min=0, max=1, help="Fraction of the images for validation", show_default=RANDOM_SHARE
        ),
    ] = None,
    test: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION", min=0, max=1, help="Fraction of the images for testing", show_default=RANDOM_SHARE
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="Cross-validation with N folds: each seed holds out another fold, as test with --val, or else as val",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Seed of random splits", show_default="0")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Keep images with the same match, such as the name of a video, in one split"
        ),
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the splits as lists of ids or of pairs of paths: train.txt, val.txt, optionally test.txt",
        ),
    ] = None,
    channels: Annotated[
        int, typer.Option(metavar="N", help="Channels of the images: 3 (RGB), 1 (gray) or 4 (all four bands)")
    ] = 3,
    skip_unpaired: Annotated[bool, typer.Option("--skip-unpaired", help="Leave out images without a mask")] = False,
    any_palette: Annotated[
        bool,
        typer.Option(
            "--any-palette", help="The numbers of palette masks are the classes, though palettes differ between files"
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an entry of this name in the lab")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the entry without writing it")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Add folders of images and masks to the lab as a dataset.

    All masks are read first, and their values are listed. A first grid of the dataset is written, too.
    """
    from fcnlab.cli.data.class_option import decide_classes, lists_colors
    from fcnlab.cli.data.proposal import (
        build_entry,
        choose_splits,
        describe_mixture,
        find_lists,
        find_warnings,
        list_splits,
    )
    from fcnlab.config.dataset import AnyDataset
    from fcnlab.config.registry_writer import to_yaml, write_entry
    from fcnlab.config.validation import validate
    from fcnlab.data.datasets.splits import SPLIT
    from fcnlab.data.inspection.pairing import find_splits
    from fcnlab.data.inspection.palettes import refuse_permuted_palettes, use_palette_colors
    from fcnlab.data.inspection.split_warnings import warn_of_other_splits
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    file = _registry(lab_, name, force)
    random = {"--group-by": group_by, "--val": val, "--test": test, "--folds": folds, "--seed": seed}
    random_splits = any(value is not None for value in random.values())
    if lists is not None and random_splits:
        raise ConfigError(
            "--lists and --group-by, --val, --test, --folds or --seed are mutually exclusive; pass one of them"
        )
    if SPLIT in images or SPLIT in masks:
        _refuse_other_splits(images, masks, [name for name, value in random.items() if value is not None], lists)
    if folds is not None and test is not None:
        raise ConfigError("--folds and --test are mutually exclusive: with --folds and --val, each fold is test once")
    if channels not in (1, 3, 4):
        raise ConfigError(f"--channels {channels}: valid: 1, 3, 4")
    given = folders = (_absolute(images), _absolute(masks))
    if lists is None and not random_splits:
        folders = find_splits(*folders)
    files = find_lists(lists) if lists is not None else {}
    try:
        pairing = _pair(folders, files.values())
        splits = list_splits(lab_, files) if files else choose_splits(folders, val, test, folds, seed or 0, group_by)
        contents = _read_contents(pairing, channels)
    except DataError as error:
        _refuse_swapped(folders, files.values(), channels, str(error).splitlines()[0])
        raise
    if len(contents.values) > MAX_SWAPPED_VALUES:
        _refuse_swapped(folders, files.values(), channels, f"the masks contain {len(contents.values)} values")
    if classes is not None and lists_colors(classes):
        contents = use_palette_colors(contents)
    if not any_palette:
        refuse_permuted_palettes(contents)
    choice = decide_classes(contents, classes, ignore)
    _print_contents(pairing, contents, choice, generated_names=classes is None)
    mixture = describe_mixture(contents, choice) if ignore is None else None
    _print_warnings([mixture] if mixture is not None else [])
    if pairing.unpaired_images and not skip_unpaired and lists is None:
        raise DataError(
            f"{pairing.unpaired_images[0]}: has no mask (images without a mask: {len(pairing.unpaired_images)}); "
            "add the masks, or pass --skip-unpaired to leave these images out"
        )
    entry = build_entry(lab_, folders, pairing, contents, choice, splits, skip_unpaired=skip_unpaired)
    entry |= {"palettes": "any"} if any_palette else {}
    spec = validate(AnyDataset, entry, name)
    dataset = lab_.open_dataset(spec)
    of_fold = f" of fold 0 of {folds}" if folds is not None else ""
    typer.echo(f"splits{of_fold}: " + ", ".join(_count(dataset, split, group_by) for split in spec.used_splits))
    if Path(entry["images"]).is_absolute() or Path(entry["masks"]).is_absolute():
        typer.echo(
            "the paths are absolute; with --data-root DIR, a folder above the images and masks, the entry is valid on "
            "other machines"
        )
    typer.echo(f"\n{to_yaml(name, entry)}")
    _print_warnings(find_warnings(dataset, spec, contents, choice, given[0] if folders != given else None))
    if lists is None and not random_splits and SPLIT not in folders[0]:
        _print_warnings(warn_of_other_splits(*folders))
    if dry_run:
        typer.echo(f"nothing is written; without --dry-run, the entry is added to {file}")
        return
    write_entry(file, name, entry, lock=lab_.state / "registry.lock", replace=force)
    _write_first_grid(lab_, file, name)


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def _registry(lab: Lab, name: str, force: bool) -> Path:
    """Return the registry file of the entry; raise an error for an invalid name."""
    from fcnlab.config.registry import builtin
    from fcnlab.config.yaml_file import read

    if re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", name) is None:
        raise ConfigError(
            f"'{name}' is not a valid dataset name; use the letters a-z and A-Z, digits, '-', '_' and '.', starting "
            "with a letter"
        )
    folder = lab.root / "registry"
    if not is_folder(folder):
        raise RunError(f"{folder}: no such folder; change to a lab, pass --lab, or create a lab with `fcnlab init DIR`")
    if name in builtin().names("dataset"):
        raise ConfigError(f"'{name}' is the name of a built-in dataset; choose another name")
    file = folder / "datasets.yaml"
    if not force and exists(file) and name in read(file):
        raise ConfigError(f"{file}: {name}: already exists; choose another name, or pass --force to replace it")
    return file


def _refuse_other_splits(images: str, masks: str, random: Collection[str], lists: Path | None) -> None:
    """Raise an error if folders with `{split}`, whose names are the splits, are given with options of other splits."""
    from fcnlab.data.datasets.splits import SPLIT

    options = ["--lists"] if lists is not None else list(random)
    if not options:
        return
    remedy = f"leave out {', '.join(options)}"
    above = [folder.removesuffix(f"/{SPLIT}") for folder in (images, masks)]
    if random and not any(SPLIT in folder for folder in above):
        folders = f"--images {quote(above[0])} --masks {quote(above[1])}"
        remedy += f", or divide the images of all folders at random with {folders}"
    raise ConfigError(f"{SPLIT} in --images and --masks already selects the splits by folder; {remedy}")


def _pair(folders: tuple[str, str], lists: Collection[Path]) -> Pairing:
    """Pair the files by the lists if these contain pairs, and by name otherwise."""
    from fcnlab.data.inspection.pairing import pair_files, pair_listed

    return pair_listed(lists, *folders) or pair_files(*folders)


def _refuse_swapped(folders: tuple[str, str], lists: Collection[Path], channels: int, problem: str) -> None:
    """Raise a DataError that suggests to swap `--images` and `--masks` if a few pairs can be read then."""
    from fcnlab.data.datasets.image_file import ImageFormat
    from fcnlab.data.inspection.pair_contents import read_contents

    images, masks = folders
    try:
        pairs = dict(islice(_pair((masks, images), lists).pairs.items(), SWAPPED_PAIRS))
        values = read_contents(pairs, lambda: None, ImageFormat(channels)).values
    except DataError:  # the folders are not swapped
        return
    if len(values) <= MAX_SWAPPED_VALUES:
        swapped = f"--images {quote(masks)} --masks {quote(images)}"
        raise DataError(f"{problem}\n--images and --masks seem to be swapped; pass {swapped}")


def _count(dataset: Dataset, split: str, group_by: str | None) -> str:
    """Return the name of a split with its number of images and groups."""
    from fcnlab.data.datasets.splits import find_group

    ids = dataset.split(split).ids
    if group_by is None:
        return f"{split} {len(ids)}"
    groups = len({find_group(id_, group_by) for id_ in ids})
    return f"{split} {len(ids)} ({groups} {'group' if groups == 1 else 'groups'})"


def _absolute(folder: str) -> str:
    return str(resolve_path(expand_home(folder)))


def _read_contents(pairing: Pairing, channels: int) -> Contents:
    """Read the pairs and show a progress bar on a terminal."""
    from fcnlab.data.datasets.image_file import ImageFormat
    from fcnlab.data.inspection.pair_contents import read_contents

    with sample_bars() as start:
        return read_contents(pairing.pairs, start("masks", len(pairing.pairs)), ImageFormat(channels))


def _print_contents(pairing: Pairing, contents: Contents, choice: ClassChoice, *, generated_names: bool) -> None:
    """Print the pairs, sizes, modes and values of the masks."""
    endings = {"images": pairing.image_suffix, "masks": pairing.mask_suffix}
    suffixes = ", ".join(f"{what} end in {suffix}" for what, suffix in endings.items() if suffix)
    typer.echo(f"{len(pairing.pairs)} pairs of an image and a mask{f' ({suffixes})' if suffixes else ''}")
    unpaired = {"images without a mask": pairing.unpaired_images, "masks without an image": pairing.unpaired_masks}
    for what, paths in unpaired.items():
        if paths:
            typer.echo(f"unpaired: {len(paths)} {what}: {list_some([path.name for path in paths], 5)}")
    sizes = ", ".join(f"{h}x{w} ({count})" for (h, w), count in contents.sizes.most_common(5))
    typer.echo(f"sizes (height x width): {sizes}{', ...' if len(contents.sizes) > 5 else ''}")
    for line in contents.images.lines():
        typer.echo(f"images: {line}")
    if any(" 4 bands" in line for line in contents.images.lines()):
        typer.echo("images: with --channels 4, all four bands are used")
    typer.echo("masks: " + ", ".join(f"{count} of mode {mode}" for mode, count in contents.modes.most_common()))
    means = {value: name for name, values in choice.classes for value in values}
    total = sum(contents.pixels.values())
    rows = [
        (
            str(value),
            f"{100 * contents.pixels[value] / total:.2f}",
            str(contents.masks[value]),
            means.get(value, "(ignored)"),
        )
        for value in contents.values
    ]
    terminal = create_console()
    terminal.print(format_table(("value", "pixels %", "masks", "class"), rows, terminal.width, numbers=(1, 2)))
    if choice.note:
        typer.echo(choice.note)
    if generated_names:
        typer.echo("the class names are placeholders; set them with --classes")


def _write_first_grid(lab: Lab, file: Path, name: str) -> None:
    """Write a grid of the new dataset, and print the next commands."""
    from fcnlab.cli.data.first_grid import write_first_grid
    from fcnlab.runner.commands import format_command

    typer.echo(f"written to {file}, where class names, splits and all other keys can be edited")
    grid, is_new = write_first_grid(replace(lab), name)  # reads the registry again, with the new entry
    what = "written to {}: a first grid with a tiny network, without a download" if is_new else "{} exists and is kept"
    typer.echo(what.format(relative_to_cwd(grid)))
    typer.echo(f"next: {format_command('data check', lab, name)}")
    typer.echo(f"and: {format_command('grid run', lab, file=grid)}")
