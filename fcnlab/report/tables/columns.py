"""The columns that a table of cells can have, and how each shows a cell as a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from fcnlab.analysis import MIN_SEEDS

NOTHING = "–"
SIGNIFICANT = "*"
NO_CLAIM = "°"
FLAGGED = "†"


@dataclass(frozen=True)
class Column:
    """A heading with its unit, the text of a cell's row, and of which columns of the frame it is made.

    It is sorted by the first of them.
    """

    heading: str
    text: Callable[[pd.Series], str]
    fields: tuple[str, ...]


def spread(mean: float, std: float, *, sign: bool = False) -> str:
    """Mean ± standard deviation of fractions, in percent; without ± where there is one seed."""
    if math.isnan(mean):
        return NOTHING
    text = signed(mean) if sign else f"{100 * mean:.1f}"
    return text if math.isnan(std) else f"{text} ± {100 * std:.1f}"


def signed(fraction: float) -> str:
    """A difference in points, with its sign unless it rounds to none."""
    text = f"{100 * fraction:+.1f}"
    return NOTHING if math.isnan(fraction) else text[1:] if float(text) == 0 else text


def number(value: float, digits: int) -> str:
    """A number with this many digits after the point, or a dash where there is none."""
    return NOTHING if math.isnan(value) else f"{value:,.{digits}f}"


def trials(row: pd.Series) -> str:
    """How many of a cell's trials have finished, and what came of the others."""
    said = [f"{row['n']}" if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"]
    said += [f"{row['failed']} failed"] if row["failed"] else []
    said += [f"stopped after epoch {row['stopped_after']:.0f}"] if row["stopped"] else []
    return ", ".join(said)


def delta(row: pd.Series) -> str:
    """The difference to the baseline with its interval and marker."""
    if row["baseline"]:
        return "baseline"
    if math.isnan(row["delta_low"]):
        return signed(row["delta"])
    interval = f"[{signed(row['delta_low'])}, {signed(row['delta_high'])}]"
    return f"{spread(row['delta'], math.nan, sign=True)} {interval}{marker(row)}"


def marker(row: pd.Series) -> str:
    """Whether a difference is significant, or why nothing is claimed of it."""
    if row["delta_n"] < MIN_SEEDS:
        return NO_CLAIM
    return SIGNIFICANT if row["significant"] is True else ""


def _spread(name: str) -> Callable[[pd.Series], str]:
    return lambda row: spread(row[name], row[f"{name}_std"])


def _number(name: str, digits: int, factor: float = 1.0) -> Callable[[pd.Series], str]:
    return lambda row: number(factor * row[name], digits)


def _range(row: pd.Series) -> str:
    low, high = number(100 * row["miou_min"], 1), number(100 * row["miou_max"], 1)
    return low if low == high else f"{low} to {high}"


COLUMNS = {
    "n": Column("n", trials, ("n", "planned", "failed", "stopped", "stopped_after")),
    "miou": Column("mIoU %", _spread("miou"), ("miou", "miou_std")),
    "delta": Column("Δ mIoU [95 %]", delta, ("delta", "delta_low", "delta_high", "delta_n", "significant")),
    "pixel_acc": Column("acc. %", _spread("pixel_acc"), ("pixel_acc", "pixel_acc_std")),
    "params": Column("params M", _number("params", 2, 1e-6), ("params",)),
    "gmacs": Column("GMACs", _number("gmacs", 2), ("gmacs",)),
    "images_per_s": Column("images/s", _number("images_per_s", 1), ("images_per_s",)),
    "peak_memory": Column("memory GB", _number("peak_memory", 2, 1e-9), ("peak_memory",)),
    "device_hours": Column("device-h", _number("device_hours", 2), ("device_hours",)),
    "train_seconds": Column("train s", _number("train_seconds", 0), ("train_seconds",)),
    "miou_median": Column("median %", _number("miou_median", 1, 100), ("miou_median",)),
    "miou_range": Column("range %", _range, ("miou_min", "miou_max")),
    "miou_last": Column("last epoch %", _spread("miou_last"), ("miou_last", "miou_last_std")),
    "miou_best": Column("best epoch %", _spread("miou_best"), ("miou_best", "miou_best_std")),
    "delta_std": Column("Δ std", _number("delta_std", 1, 100), ("delta_std",)),
    "p_value": Column("p", _number("p_value", 4), ("p_value",)),
    "p_holm": Column("p (Holm)", _number("p_holm", 4), ("p_holm",)),
    "flags": Column("not alike in", lambda row: row["flags"] or NOTHING, ("flags",)),
}
"""By the names that `--columns` and `--sort` take; `docs/reading-a-report.md` explains each."""

DEFAULT = ("n", "miou", "delta", "pixel_acc", "params", "gmacs", "images_per_s", "peak_memory", "device_hours")


def default_columns(cells: pd.DataFrame) -> tuple[str, ...]:
    """The columns of a report: those of which at least one cell has something."""
    return tuple(name for name in DEFAULT if not cells[COLUMNS[name].fields[0]].isna().all() or name in DEFAULT[:3])


def marked_names(row: pd.Series, axes: Iterable[str]) -> tuple[str, ...]:
    """What a cell is called, by its axes; with a marker where its figures are of something else than the baseline's."""
    names = [str(row[axis]) for axis in axes]
    return (names[0] + FLAGGED if row["flags"] else names[0], *names[1:])
