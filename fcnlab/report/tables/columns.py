"""Columns of a table of cells, and the text of each column for a cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from fcnlab.analysis import MIN_SEEDS
from fcnlab.config.grid.display_names import Names

MISSING = "–"
SIGNIFICANT = "*"
NO_CLAIM = "°"
FLAGGED = "†"

DECIMALS = 1
"""Decimals of percentages and of differences in points."""

MAX_DECIMALS = 6
"""Most decimals that `--decimals` takes."""


@dataclass(frozen=True)
class Column:
    """A column of a table of cells.

    Attributes:
        heading: heading with the unit.
        text: function from a row of the frame of cells, and the number of decimals of percentages, to the text of the
            column.
        fields: columns of the frame that the text is made from; the table is sorted by the first one.
        metric: description of the metric from summed counts of which the column has the mean and standard deviation;
            empty for others.
    """

    heading: str
    text: Callable[[pd.Series, int], str]
    fields: tuple[str, ...]
    metric: str = ""


def format_mean_std(mean: float, std: float, digits: int = DECIMALS, *, sign: bool = False) -> str:
    """Format a mean and standard deviation in percent.

    Args:
        mean: a fraction of 1.
        std: a fraction of 1; NaN for one seed, which leaves it out.
        digits: number of decimals.
        sign: whether to show the sign of positive means.

    Example:
        >>> format_mean_std(0.42, 0.011), format_mean_std(0.42, math.nan)
        ('42.0 ± 1.1', '42.0')
    """
    if math.isnan(mean):
        return MISSING
    text = format_points(mean, digits) if sign else f"{100 * mean:.{digits}f}"
    return text if math.isnan(std) else f"{text} ± {100 * std:.{digits}f}"


def format_points(fraction: float, digits: int = DECIMALS) -> str:
    """Format a difference in percentage points, with its sign unless it rounds to zero.

    Args:
        fraction: a difference of fractions of 1.
        digits: number of decimals.

    Example:
        >>> format_points(0.018), format_points(-0.0001), format_points(-0.0001, digits=2)
        ('+1.8', '0.0', '-0.01')
    """
    text = f"{100 * fraction:+.{digits}f}"
    return MISSING if math.isnan(fraction) else text[1:] if float(text) == 0 else text


def format_number(value: float, digits: int) -> str:
    """Format a number with thousands separators; a dash for NaN, and a bound for a positive number that rounds to zero.

    Args:
        value: the number.
        digits: number of decimals.

    Example:
        >>> format_number(1234.5678, 2), format_number(0.00001, 4), format_number(0.0, 2)
        ('1,234.57', '<0.0001', '0.00')
    """
    if math.isnan(value):
        return MISSING
    if value > 0 and round(value, digits) == 0:
        return f"<{10**-digits:.{digits}f}"
    return f"{value:,.{digits}f}"


def format_p_value(p_value: float) -> str:
    """Format a p-value in a sentence, with a bound for a very small one.

    Args:
        p_value: a p-value.

    Example:
        >>> format_p_value(0.0268), format_p_value(0.0)
        ('p = 0.027', 'p < 0.0001')
    """
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def _format_trials(row: pd.Series, _digits: int) -> str:
    """Format the number of finished trials of a cell, and of the failed and pruned ones."""
    texts = [f"{row['n']}" if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"]
    texts += [f"{row['failed']} failed"] if row["failed"] else []
    texts += [f"pruned after epoch {row['pruned_after']:.0f}"] if row["pruned"] else []
    return ", ".join(texts)


def _format_delta(row: pd.Series, digits: int) -> str:
    """Format the difference to the baseline with its interval and marker."""
    return "baseline" if row["baseline"] else format_difference(row, digits)


def format_difference(row: pd.Series, digits: int = DECIMALS) -> str:
    """Format a difference with its interval and marker.

    Args:
        row: `delta`, `delta_low`, `delta_high`, `delta_n` and `significant`.
        digits: number of decimals.
    """
    if math.isnan(row["delta_low"]):
        return format_points(row["delta"], digits)
    interval = f"[{format_points(row['delta_low'], digits)}, {format_points(row['delta_high'], digits)}]"
    return f"{format_points(row['delta'], digits)} {interval}{significance_marker(row)}"


def _format_delta_mean(row: pd.Series, digits: int) -> str:
    """Format the difference to the baseline with its marker only."""
    if row["baseline"]:
        return "baseline"
    return format_points(row["delta"], digits) + significance_marker(row)


def significance_marker(row: pd.Series) -> str:
    """Return the marker of a cell's difference: significant, no claim with few seeds, or none without an interval.

    Args:
        row: a row of the frame of cells.
    """
    if math.isnan(row["delta_low"]):
        return ""
    if row["delta_n"] < MIN_SEEDS:
        return NO_CLAIM
    return SIGNIFICANT if row["significant"] is True else ""


def _metric_column(heading: str, metric: str, name: str, std: str = "") -> Column:
    """Return a column of the mean and standard deviation of a metric in percent."""
    fields = (name, std or f"{name}_std")
    return Column(heading, lambda row, digits: format_mean_std(row[fields[0]], row[fields[1]], digits), fields, metric)


def _number(name: str, digits: int, factor: float = 1.0) -> Callable[[pd.Series, int], str]:
    return lambda row, _digits: format_number(factor * row[name], digits)


def _percentage(name: str) -> Callable[[pd.Series, int], str]:
    return lambda row, digits: format_number(100 * row[name], digits)


def _format_range(row: pd.Series, digits: int) -> str:
    low, high = format_number(100 * row["miou_min"], digits), format_number(100 * row["miou_max"], digits)
    return low if low == high else f"{low} to {high}"


COLUMNS = {
    "n": Column("n", _format_trials, ("n", "planned", "failed", "pruned", "pruned_after")),
    "miou": _metric_column("mIoU %", "mIoU", "miou"),
    "delta": Column("Δ mIoU [95 %]", _format_delta, ("delta", "delta_low", "delta_high", "delta_n", "significant")),
    "delta_mean": Column("Δ mIoU", _format_delta_mean, ("delta", "delta_low", "delta_n", "significant")),
    "pixel_acc": _metric_column("acc. %", "pixel accuracy (acc.)", "pixel_acc"),
    "mean_acc": _metric_column("mean acc. %", "mean accuracy (mean acc.)", "mean_acc"),
    "fw_iou": _metric_column("f.w. IoU %", "frequency-weighted IoU (f.w. IoU)", "fw_iou"),
    "boundary_iou": _metric_column("boundary IoU %", "Boundary IoU", "boundary_iou"),
    "dice": _metric_column("Dice %", "Dice (F1)", "dice"),
    "image_miou": _metric_column("mIoU per image %", "", "image_miou"),
    "image_dice": _metric_column("Dice per image %", "", "image_dice"),
    "params": Column("params M", _number("params", 2, 1e-6), ("params",)),
    "gmacs": Column("GMACs", _number("gmacs", 2), ("gmacs",)),
    "images_per_s": Column("images/s", _number("images_per_s", 1), ("images_per_s",)),
    "peak_memory": Column("memory GB", _number("peak_memory", 2, 1e-9), ("peak_memory",)),
    "device_hours": Column("device-h", _number("device_hours", 2), ("device_hours",)),
    "train_seconds": Column("train s", _number("train_seconds", 0), ("train_seconds",)),
    "miou_median": Column("median %", _percentage("miou_median"), ("miou_median",)),
    "miou_range": Column("range %", _format_range, ("miou_min", "miou_max")),
    "miou_last": _metric_column("last epoch %", "mIoU", "miou_last"),
    "miou_best": _metric_column("best epoch %", "mIoU", "miou_best"),
    "delta_std": Column("Δ std", _percentage("delta_std"), ("delta_std",)),
    "p_value": Column("p", _number("p_value", 4), ("p_value",)),
    "p_holm": Column("p (Holm)", _number("p_holm", 4), ("p_holm",)),
    "flags": Column("differs in", lambda row, _digits: row["flags"] or MISSING, ("flags",)),
}
"""Columns by the names that `--columns` and `--sort` take; `docs/reading-a-report.md` explains each.

`find_column` also finds those of single classes.
"""

CLASS_METRICS = {
    "iou": ("", "IoU of classes"),
    "dice": ("Dice ", "Dice (F1) of classes"),
    "image_iou": ("IoU per image, ", ""),
    "image_dice": ("Dice per image, ", ""),
}
"""Metrics of a single class: the text before the name of the class in the heading of its column, and the description of
`Column.metric`."""

IMAGE_METRICS = frozenset({"image_miou", "image_iou", "image_dice"})
"""Columns and metrics of single classes that are means over images."""

ALL_CLASSES = "*"
"""Name of a class in `--columns` that selects all classes."""

DEFAULT = ("n", "miou", "delta", "pixel_acc", "params", "gmacs", "images_per_s", "peak_memory", "device_hours")


def find_column(name: str) -> Column:
    """Return a column by its name.

    Args:
        name: a name of `COLUMNS`, or metric and class of a class column, such as `iou:car`. The frame of cells has the
            fields of a class column only after `add_requested_columns`.

    Example:
        >>> find_column("dice:road").heading, find_column("dice:road").fields
        ('Dice road', ('dice:road', 'dice_std:road'))
    """
    metric, class_name = split_class_column(name)
    if not metric:
        return COLUMNS[name]
    heading, description = CLASS_METRICS[metric]
    return _metric_column(f"{heading}{class_name}", description, name, f"{metric}_std:{class_name}")


def make_heading(name: str, names: Names) -> str:
    """Return the heading of a column: that of the grid file, or the default one, with the display name of a class.

    Args:
        name: a name that `find_column` takes.
        names: display names.
    """
    metric, class_name = split_class_column(name)
    if metric and class_name in names.classes:
        return find_column(f"{metric}:{names.classes[class_name]}").heading
    return names.columns.get(name, find_column(name).heading)


def match_column(name: str, names: Names) -> str:
    """Return the name of the column with a heading or a name in other capitals; an unknown name is returned as it is.

    Args:
        name: name or heading of a column, such as `mIoU` or `mIoU %`, or metric and display name of a class.
        names: display names.

    Example:
        >>> [match_column(name, Names({}, {}, {})) for name in ("mIoU", "acc. %", "IoU:car", "moiu")]
        ['miou', 'pixel_acc', 'iou:car', 'moiu']
    """
    metric, colon, class_name = name.partition(":")
    if colon and metric.lower() in CLASS_METRICS:
        own = {shown: key for key, shown in names.classes.items()}
        return f"{metric.lower()}:{own.get(class_name, class_name)}"
    headings = {names.columns.get(key, column.heading).lower(): key for key, column in COLUMNS.items()}
    folded = name.lower()
    return folded if folded in COLUMNS else headings.get(folded, name)


def split_class_column(name: str) -> tuple[str, str]:
    """Return metric and class of the name of a class column; two empty texts for another name.

    Args:
        name: name of a column.

    Example:
        >>> split_class_column("iou:car"), split_class_column("miou")
        (('iou', 'car'), ('', ''))
    """
    metric, colon, class_name = name.partition(":")
    return (metric, class_name) if colon and metric in CLASS_METRICS else ("", "")


def name_class_metrics(columns: Iterable[str]) -> list[str]:
    """Return the names of the metrics of single classes in some columns.

    Args:
        columns: names of columns.

    Example:
        >>> name_class_metrics(["miou", "image_dice:car", "iou:car", "iou:sky"])
        ['IoU', 'Dice per image']
    """
    shown = {split_class_column(name)[0] for name in columns}
    return [heading.strip(" ,") or "IoU" for metric, (heading, _) in CLASS_METRICS.items() if metric in shown]


def is_per_image(name: str) -> bool:
    """Return whether a column has means over images.

    Args:
        name: name of a column.

    Example:
        >>> is_per_image("image_dice"), is_per_image("image_iou:car"), is_per_image("dice:car")
        (True, True, False)
    """
    return name.partition(":")[0] in IMAGE_METRICS


def default_columns(cells: pd.DataFrame) -> tuple[str, ...]:
    """Return the names of the columns of a report: n, mIoU and Δ, and the others that have a value for any cell.

    Args:
        cells: frame of cells; a single one has no Δ.
    """
    names = [name for name in DEFAULT if not cells[COLUMNS[name].fields[0]].isna().all() or name in DEFAULT[:3]]
    return tuple(name for name in names if len(cells) > 1 or name != "delta")
