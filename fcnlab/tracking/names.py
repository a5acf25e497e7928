"""Names of metrics, parameters, runs and experiments in a tracker.

Metrics have names for the columns of a trial in the report's data frames.

A name has a prefix by its kind: `train/`, `val/`, `test/`, `cost/` and `system/`. The metrics that the grid reports,
`miou` and `pixel_acc`, have none.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType

COST_METRICS = (
    "params",
    "trainable_params",
    "gmacs",
    "train_seconds",
    "evaluate_seconds",
    "images_per_s",
    "peak_memory",
)
"""Fields of a record's cost that are published as metrics."""

ACCURACIES = ("miou", "pixel_acc", "mean_acc", "fw_iou", "boundary_iou", "dice")
"""Metrics of a split that are columns of the report's data frames: fields and properties of `SplitMetrics`."""

MAX_CLASS_METRICS = 30
"""Number of classes up to which the IoU of each class is published."""

MAX_LENGTH = 200
"""Maximum length of a name; the limit of MLflow for the name of a metric or parameter is 250."""

MAX_RUN_NAME, MAX_EXPERIMENT_NAME, MAX_USER, MAX_DATASET_NAME = 250, 256, 256, 500
"""Lengths of the columns of MLflow's database. SQLite stores longer texts, and PostgreSQL and MySQL refuse them."""


def _name_columns() -> dict[str, str]:
    names = {"miou": "miou", "pixel_acc": "pixel_acc", "best_epoch": "val/best_epoch"}
    for split in ("val", "test"):
        for suffix in ("", "_best"):
            names |= {f"{split}_{metric}{suffix}": f"{split}/{metric}{suffix}" for metric in ACCURACIES}
    return names | {metric: f"cost/{metric}" for metric in COST_METRICS}


PUBLISHED_NAMES: Mapping[str, str] = MappingProxyType(_name_columns())
"""Names under which metrics are published, by column."""


def read_columns(published: Mapping[str, float]) -> dict[str, float]:
    """Return the columns of a trial from its published metrics.

    Args:
        published: metrics by their names in the tracker.

    Returns:
        Metrics by column.
    """
    return {column: published[name] for column, name in PUBLISHED_NAMES.items() if name in published}


def clean_names(texts: Sequence[str]) -> list[str]:
    """Return names for MLflow, as of metrics of classes and of parameters.

    Characters other than letters, digits, `_`, `-`, `.` and spaces are replaced by `_`. A name that is taken then, also
    in another case or with other accents, gets a number: databases may not distinguish them.

    Args:
        texts: any texts, such as the names of classes.

    Returns:
        A different name for each text.

    >>> clean_names(["car/bus", "car bus", "Car_Bus", ".."])
    ['car_bus', 'car bus', 'Car_Bus_2', '_']
    >>> clean_names(["pré", "pre"])
    ['pré', 'pre_2']
    """
    taken: set[str] = set()
    names = []
    for text in texts:
        base = re.sub(r"[^\w.\- ]", "_", text)[:MAX_LENGTH].strip()
        if posixpath.normpath(base) != base or base in ("", ".", ".."):
            base = "_"
        unique, count = base, 1
        while _fold(unique) in taken:
            count += 1
            unique = f"{base}_{count}"
        taken.add(_fold(unique))
        names.append(unique)
    return names


def _fold(name: str) -> str:
    """Return a text that is equal for names that the default collations of a database may not distinguish.

    MySQL and SQL Server ignore case, accents, the width of a character, and whether Japanese is written in hiragana or
    katakana. Collations of MySQL before version 8, and of MariaDB, take all characters beyond U+FFFF for the same.
    """
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return "".join(map(_fold_letter, letters)).casefold()


def _fold_letter(letter: str) -> str:
    code = ord(letter)
    if 0x30A1 <= code <= 0x30F6:  # katakana, to hiragana
        return chr(code - 0x60)
    return letter if code <= 0xFFFF else "\ufffd"


def shorten_run_name(text: str) -> str:
    """Return the name of a run with at most MAX_RUN_NAME characters; the seed at its end is kept.

    Args:
        text: the name of a cell and the seed.
    """
    end = MAX_RUN_NAME // 5
    return text if len(text) <= MAX_RUN_NAME else f"{text[: MAX_RUN_NAME - end - 3]}...{text[-end:]}"


def shorten_experiment_name(text: str) -> str:
    """Return the name of an experiment with at most MAX_EXPERIMENT_NAME characters; different names stay different.

    Args:
        text: the name.
    """
    if len(text) <= MAX_EXPERIMENT_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{text[: MAX_EXPERIMENT_NAME - len(digest) - 1]}-{digest}"
