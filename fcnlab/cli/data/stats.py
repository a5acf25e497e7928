"""`fcnlab data stats`: statistics of a dataset."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.data.check import AllSplits, every_split
from fcnlab.cli.options import DataRoot, DatasetName, LabOption
from fcnlab.cli.output import AsJson, print_json, sample_bars, write_csv
from fcnlab.console import create_console, format_table
from fcnlab.errors import DataError

if TYPE_CHECKING:
    from fcnlab.data.inspection.stats import SplitStats, Spread

EXAMPLE = "Example: fcnlab data stats camvid --data-root ~/data --csv camvid.csv"

IGNORED = "(ignored)"


def stats(
    name: DatasetName,
    all_splits: AllSplits = False,
    as_json: AsJson = False,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the statistics of each class to this CSV file"),
    ] = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Show sizes, colors and class frequencies of each split, and the class weights of the training split."""
    from fcnlab.data.inspection.stats import compute_split_stats
    from fcnlab.lab import Lab
    from fcnlab.runner.commands import format_command

    lab_ = Lab.find(root=lab, data_root=data_root)
    spec = lab_.registry.get("dataset", name)
    dataset = lab_.open_dataset(spec)
    splits = list(spec.used_splits)
    if all_splits:
        splits += [split for split in every_split(dataset) if split not in splits]
    try:
        with sample_bars() as bars:
            found = compute_split_stats(dataset, splits, bars)
    except DataError as error:
        raise DataError(f"{error}; `{format_command('data check', lab_, name)}` lists all problems") from None
    if csv_file is not None:
        rows = [row for split in found for row in _rows(split, dataset.classes, trained=split is found[0])]
        write_csv(csv_file, rows)
    if as_json:
        plain = [_plain(split, dataset.classes, trained=split is found[0]) for split in found]
        print_json({"dataset": name, "splits": plain})
    else:
        _show(name, found, dataset.classes)


def _show(name: str, found: list[SplitStats], classes: tuple[str, ...]) -> None:
    terminal = create_console()
    colors = "mean (r, g, b)" if len(found[0].mean) == 3 else "mean by channel"
    headings: tuple[str, ...] = ("split", "images", "height", "width", "sizes", colors, "standard deviation")
    rows = []
    for split in found:
        mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (split.mean, split.std))
        sizes = (_spread(split.height), _spread(split.width), str(split.distinct_sizes))
        rows.append((split.split, str(split.images), *sizes, mean, std))
    title = f"{name}: images; height and width as min / median / max"
    terminal.print(format_table(headings, rows, terminal.width, numbers=range(1, 7), optional=[4], title=title))
    training, *others = found
    columns = [f"{training.split} {what}" for what in ("%", "images", "weight")]
    columns += [f"{split.split} {what}" for split in others for what in ("%", "images")]
    title = f"\n{name}: per cent of all pixels, images with it, median-frequency weight in training"
    shares: list[tuple[str, ...]] = []
    for label, class_ in enumerate(classes):
        weight = f"{training.weights[label]:.2f}"
        counts = chain.from_iterable(_format_class(split, label) for split in others)
        shares.append((class_, *_format_class(training, label), weight, *counts))
    ignored = chain.from_iterable((f"{100 * split.ignored:.2f}", "") for split in others)
    shares.append((IGNORED, f"{100 * training.ignored:.2f}", "", "", *ignored))
    numbers = range(1, 1 + len(columns))
    later = range(len(others) - 1, -1, -1)
    optional = [4 + 2 * split + kind for kind in (1, 0) for split in later]  # images, then shares of later splits
    headings = ("class", *columns)
    width = terminal.width
    terminal.print(format_table(headings, shares, width, numbers=numbers, optional=optional, title=title))


def _format_class(split: SplitStats, label: int) -> tuple[str, str]:
    return f"{100 * split.share[label]:.2f}", str(split.image_counts[label])


def _spread(spread: Spread) -> str:
    if spread.min == spread.max:
        return str(spread.min)
    return f"{spread.min} / {spread.median:g} / {spread.max}"


def _plain(split: SplitStats, classes: tuple[str, ...], *, trained: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "split": split.split,
        "images": split.images,
        "height": asdict(split.height),
        "width": asdict(split.width),
        "distinct_sizes": split.distinct_sizes,
        "mean": split.mean.tolist(),
        "std": split.std.tolist(),
        "ignored_per_cent": 100 * split.ignored,
        "classes": [row for row in _rows(split, classes, trained=trained) if row["class"] != IGNORED],
    }


def _rows(split: SplitStats, classes: tuple[str, ...], *, trained: bool) -> list[dict[str, Any]]:
    """Return one row per class, and one for the ignored pixels; the weights only of the training split."""
    from fcnlab.constants import IGNORE_INDEX

    pixels = split.pixels.sum(0)
    rows: list[dict[str, Any]] = [
        {
            "split": split.split,
            "label": label,
            "class": title,
            "pixels": int(pixels[label]),
            "per_cent": 100 * float(split.share[label]),
            "images": int(split.image_counts[label]),
            "weight": float(split.weights[label]) if trained else None,
        }
        for label, title in enumerate(classes)
    ]
    ignored = {"split": split.split, "label": IGNORE_INDEX, "class": IGNORED, "pixels": int(pixels[IGNORE_INDEX])}
    images = int((split.pixels[:, IGNORE_INDEX] > 0).sum())
    return [*rows, {**ignored, "per_cent": 100 * split.ignored, "images": images, "weight": ""}]
